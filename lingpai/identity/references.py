"""How addresses name things: by id, or by name."""

from typing import Annotated

from fastapi import Path

KeyReference = Annotated[
    str, Path(description="The key's id, or a name that only one visible key has.", examples=["laptop"])
]
ClientReference = Annotated[
    str,
    Path(
        description="The client's id (`cl-lp-…`), or a name that only one visible client has.",
        examples=["cl-lp-4fKx0aZ1bC2d"],
    ),
]
ProjectReference = Annotated[str, Path(description="The project's id or name.", examples=["search"])]
UserReference = Annotated[str, Path(description="The user's id or name.", examples=["alice"])]
