"""``/api/v1/events``."""

import re
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Annotated, Final

from fastapi import APIRouter, Query
from fastapi.concurrency import run_in_threadpool

from lingpai.errors import LingpaiError, did_you_mean
from lingpai.events.interfaces import EVENT_TYPES
from lingpai.events.schemas import EventView, TrialsAnswer, TrialView
from lingpai.events.service import Events
from lingpai.events.webhooks import Webhooks
from lingpai.principal import Principal
from lingpai.storage.trail import Deed, Trail
from lingpai.web.auth import require
from lingpai.web.errors import ERROR_RESPONSES
from lingpai.web.formats import formatted
from lingpai.web.paging import (
    DEFAULT_LIMIT,
    CursorParameter,
    LimitParameter,
    Page,
    page_of,
    place_of,
)

TypeFilter = Annotated[
    str | None,
    Query(
        max_length=64,
        description=f"Only events of this type: {', '.join(EVENT_TYPES)}.",
        json_schema_extra={"enum": list(EVENT_TYPES)},
    ),
]
Since = Annotated[
    str | None,
    Query(
        max_length=64,
        description="A duration (`7d`, `12h`, `30m`), a date, or a date and time.",
        json_schema_extra=formatted("period"),
    ),
]
Until = Annotated[
    str | None,
    Query(
        max_length=64,
        description="Only events before this; the same forms as `since`.",
        json_schema_extra=formatted("period"),
    ),
]

_DURATION: Final = re.compile(r"([0-9]{1,6})([smhdw])")
_SECONDS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}


def event_routes(
    events: Events, webhooks: Webhooks, clock: Callable[[], float] = time.time, *, trail: Trail
) -> APIRouter:
    """The routes of events."""
    router = APIRouter(prefix="/api/v1/events", tags=["events"], responses=ERROR_RESPONSES)

    @router.get("")
    def list_events(
        *,
        caller: Annotated[Principal, require("events:read")],
        type: TypeFilter = None,  # noqa: A002  the name on the wire
        since: Since = None,
        until: Until = None,
        limit: LimitParameter = DEFAULT_LIMIT,
        cursor: CursorParameter = None,
    ) -> Page[EventView]:
        """List events, the newest first: all for an administrator, for everybody else those about what is theirs."""
        found = events.list(
            caller,
            type_=_checked_type(type),
            since=None if since is None else _moment(since, clock(), param="since"),
            until=None if until is None else _moment(until, clock(), param="until"),
            before=place_of(cursor),
            limit=limit + 1,
        )
        return page_of(
            found,
            limit,
            view=lambda event: EventView.of(event, is_admin=caller.is_admin),
            place=lambda last: (last.occurred_at, last.id),
        )

    @router.post("/test-webhook")
    async def test_webhook(caller: Annotated[Principal, require("events:write")]) -> TrialsAnswer:
        """Send a test message to every webhook of the settings, once, and say what was answered."""
        if not caller.is_admin:
            raise LingpaiError("insufficient_scope", "Only administrators may try webhooks out.")
        deed = Deed(action="webhooks.test", target_kind="webhooks", target_id="all")
        await run_in_threadpool(trail.note, caller, deed)
        return TrialsAnswer(data=[TrialView.of(trial) for trial in await webhooks.try_out()])

    return router


def _checked_type(text: str | None) -> str | None:
    if text is not None and text not in EVENT_TYPES:
        raise LingpaiError(
            "invalid_request",
            f"There is no event `{text}`.{did_you_mean(text, EVENT_TYPES)} Events are: {', '.join(EVENT_TYPES)}.",
            param="type",
        )
    return text


def _moment(text: str, now: float, *, param: str) -> float:
    """Unix seconds of a duration before `now`, a date (its first instant in UTC) or a date and time (UTC if not said)."""
    duration = _DURATION.fullmatch(text.strip())
    if duration is not None:
        return now - int(duration[1]) * _SECONDS[duration[2]]
    try:
        moment = datetime.fromisoformat(text.strip())
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        raise LingpaiError(
            "invalid_request",
            "Write a duration (`7d`, `12h`, `30m`), a date such as `2026-11-20`, or a date and time.",
            param=param,
        ) from None
