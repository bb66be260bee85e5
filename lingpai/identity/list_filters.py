"""Query parameters that narrow lists of keys, clients, users and projects; all that are given hold together."""

from typing import Annotated

from fastapi import Query

from lingpai.identity.interfaces import KeyState
from lingpai.web.formats import formatted

Search = Annotated[
    str | None,
    Query(
        min_length=1,
        max_length=64,
        description="Only those with this text in their name, in either case. No character has a special meaning.",
    ),
]
NameFilter = Annotated[str | None, Query(max_length=64, description="Only those with this name.")]
ScopeFilter = Annotated[
    str | None,
    Query(
        max_length=64, description="Only those that hold this scope.", json_schema_extra=formatted("scope")
    ),
]
StateFilter = Annotated[KeyState | None, Query(description="Only those in this state.")]
