"""Lists in pages: a page holds up to `limit` items and a cursor that leads to the next one.

A cursor is the sort key of the page's last item, so pages neither repeat nor skip items when others come or go meanwhile.
Clients must treat it as opaque.
"""

import base64
import json
from collections.abc import Callable, Sequence
from typing import Annotated, Final, Generic, Protocol, TypeVar

from fastapi import Query
from pydantic import BaseModel, Field

from lingpai.errors import LingpaiError
from lingpai.web.formats import formatted

T = TypeVar("T")
Item = TypeVar("Item")
Place = tuple[float, str]
"""Where something stands in a list: a time, and its id."""

MAX_LIMIT: Final = 200
DEFAULT_LIMIT: Final = 50

LimitParameter = Annotated[int, Query(ge=1, le=MAX_LIMIT, description="The most items to return.")]
CursorParameter = Annotated[
    str | None,
    Query(
        max_length=500,
        description="`next_cursor` of the page before; leave out for the first page.",
        json_schema_extra=formatted("cursor"),
    ),
]


class Page(BaseModel, Generic[T]):
    """One page of a list."""

    data: list[T]
    next_cursor: str | None = Field(
        description="Send it as `cursor` to get the next page; null on the last page."
    )


class Made(Protocol):
    """Something that was made at some time (Unix seconds)."""

    @property
    def id(self) -> str: ...

    @property
    def created_at(self) -> float: ...


def when_made(item: Made) -> Place:
    """The place of an item in a list that is in the order of making."""
    return item.created_at, item.id


def page_of(
    found: Sequence[Item], limit: int, *, view: Callable[[Item], T], place: Callable[[Item], Place]
) -> Page[T]:
    """The first `limit` items of `found`, as `view` shows them.

    Ask the store for one more: it says that there is another page, which goes on behind the `place` of the last item here.
    """
    shown = found[:limit]
    next_cursor = encode_cursor(*place(shown[-1])) if len(found) > limit else None
    return Page(data=[view(item) for item in shown], next_cursor=next_cursor)


def place_of(cursor: str | None) -> Place | None:
    """Behind which place a page begins; None from the start. Raises as `decode_cursor`."""
    return None if cursor is None else decode_cursor(cursor)


def encode_cursor(created_at: float, id_: str) -> str:
    """The cursor that continues after the item with this sort key."""
    return base64.urlsafe_b64encode(json.dumps([created_at, id_]).encode()).decode().rstrip("=")


def decode_cursor(cursor: str) -> tuple[float, str]:
    """The sort key inside `cursor`. Raises LingpaiError (invalid_request) for anything `encode_cursor` did not make."""
    try:
        created_at, id_ = json.loads(
            base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True)
        )
    except (ValueError, TypeError, RecursionError) as exc:
        raise _bad_cursor() from exc
    if type(created_at) is not float or type(id_) is not str or not _is_text(id_):
        raise _bad_cursor()
    return created_at, id_


def _is_text(value: str) -> bool:
    """Whether a database can be asked for it: JSON can spell half of a surrogate pair, which is no character."""
    return not any("\ud800" <= character <= "\udfff" for character in value)


def _bad_cursor() -> LingpaiError:
    return LingpaiError(
        "invalid_request",
        "The cursor is not one this server made. Leave it out to start from the first page.",
        param="cursor",
    )
