"""Lists in pages: a page holds up to `limit` items and a cursor that leads to the next one.

A cursor is the sort key of the page's last item, so pages neither repeat nor skip items when others come or go meanwhile.
Clients must treat it as opaque.
"""

import base64
import json
from typing import Annotated, Final, Generic, TypeVar

from fastapi import Query
from pydantic import BaseModel, Field

from lingpai.errors import LingpaiError
from lingpai.web.formats import formatted

T = TypeVar("T")

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
