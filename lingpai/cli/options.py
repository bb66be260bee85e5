"""What every command takes, and how help pages end."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final

from cyclopts import Group, Parameter

_GROUP = Group("Options of every command", sort_key=10)


@Parameter(name="*", group=_GROUP)
@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """Where the server is, and whether a program reads the answer. A key is never an argument: `ps` would show it."""

    as_json: Annotated[bool, Parameter(name="--json", help="Print JSON for programs.")] = False
    data: Annotated[
        Path | None,
        Parameter(
            name="--data",
            help="Data directory of a server on this machine, reached by its admin.sock"
            " (else LINGPAI_DATA, else ./lingpai-data).",
        ),
    ] = None
    server: Annotated[
        str | None,
        Parameter(
            name="--server",
            help="Address of a server (else LINGPAI_SERVER, when there is no admin.sock); the key is in LINGPAI_API_KEY.",
        ),
    ] = None


NO_OPTIONS: Final = Options()


def examples(*lines: str) -> str:
    """The end of a help page."""
    return "\n".join(["Examples:", *(f"  {line}" for line in lines)])
