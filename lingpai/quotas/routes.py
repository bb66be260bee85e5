"""``/api/v1/limits``: who is limited, how far, and by what from now on.

The handlers are coroutines because meters belong to the event loop; what blocks goes to a thread.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Annotated, Protocol

from fastapi import APIRouter, Query
from pydantic import Field
from typing_extensions import TypedDict

from lingpai.errors import LingpaiError
from lingpai.principal import Principal
from lingpai.quotas.description import describe
from lingpai.quotas.grammar import canonical_limit
from lingpai.quotas.interfaces import LimitedSubject, Subject, SubjectDirectory, SubjectKind
from lingpai.quotas.loader import StaleLimitsError
from lingpai.quotas.meter import Meter
from lingpai.web.auth import require
from lingpai.web.errors import ERROR_RESPONSES
from lingpai.web.schemas import RequestBody


class LoadMeters(Protocol):
    """`MeterLoader.load`."""

    def __call__(
        self, subject: Subject, limits: tuple[str, ...], label: str, *, is_current: Callable[[], bool]
    ) -> Awaitable[tuple[Meter, ...]]: ...


class LimitRow(TypedDict):
    """One limit of one key or user, and how far it is used."""

    subject: SubjectKind
    id: str
    name: str
    limit: str
    used: int
    remaining: int
    resets_at: str


class LimitList(TypedDict):
    """Limits, by subject."""

    data: list[LimitRow]


class NewLimits(RequestBody):
    """The limits that replace those of one key or user; an empty list (or ``none``) makes it unlimited."""

    subject: SubjectKind
    id: str = Field(min_length=1, max_length=200, description="The id or the name.")
    limits: list[str] = Field(max_length=20, examples=[["2000/day@Asia/Shanghai", "10/1s"]])


def limit_routes(
    directory: SubjectDirectory,
    load: LoadMeters,
    generation: Callable[[], int],
    clock: Callable[[], float] = time.time,
) -> APIRouter:
    """The routes; `load` brings a subject's meters into memory, `clock` gives Unix seconds.

    `generation` grows with every change to a key or user: what was read under another one may be stale, and attaching
    stale limits would undo the change.
    """
    router = APIRouter(prefix="/api/v1/limits", tags=["limits"], responses=ERROR_RESPONSES)

    async def rows_of(choose: Callable[[], list[LimitedSubject]]) -> LimitList:
        while True:
            seen = generation()
            subjects = await asyncio.to_thread(choose)
            try:
                return {"data": [row for subject in subjects for row in await rows_of_one(subject, seen)]}
            except StaleLimitsError:
                continue

    async def rows_of_one(subject: LimitedSubject, seen: int) -> list[LimitRow]:
        meters = await load(
            subject.subject, subject.limits, subject.label, is_current=lambda: seen == generation()
        )
        return _rows(subject, meters, clock())

    @router.get("")
    async def list_limits(
        caller: Annotated[Principal, require("limits:read")],
        key: Annotated[str | None, Query(description="Only this key, by id or name.")] = None,
        user: Annotated[str | None, Query(description="Only this user, by id or name.")] = None,
    ) -> LimitList:
        """Every limit that the caller may see, with what is used and left and when it resets."""
        return await rows_of(partial(_chosen, directory, caller, key, user))

    @router.put("")
    async def replace_limits(
        body: NewLimits, caller: Annotated[Principal, require("limits:write")]
    ) -> LimitList:
        """Replaces the limits of a key or user, at once; what is used in a window that stays, stays used."""
        _check_may_write(caller)
        limits = _canonical(body.limits)
        found = await asyncio.to_thread(directory.find, caller, body.subject, body.id)
        await asyncio.to_thread(directory.replace_limits, caller, found.subject, limits)
        return await rows_of(lambda: [directory.find(caller, *found.subject)])

    return router


def _chosen(
    directory: SubjectDirectory, caller: Principal, key: str | None, user: str | None
) -> list[LimitedSubject]:
    if key is None and user is None:
        return directory.all(caller)
    chosen: list[LimitedSubject] = []
    if key is not None:
        chosen.append(directory.find(caller, "key", key))
    if user is not None:
        chosen.append(directory.find(caller, "user", user))
    return chosen


def _rows(subject: LimitedSubject, meters: tuple[Meter, ...], now: float) -> list[LimitRow]:
    return [
        LimitRow(
            subject=subject.kind,
            id=subject.id,
            name=subject.name,
            limit=state["limit"],
            used=state["used"],
            remaining=state["remaining"],
            resets_at=state["resets_at"],
        )
        for state in describe(meters, now)
    ]


def _check_may_write(caller: Principal) -> None:
    # A member who could change limits could lift the operator's.
    if not caller.is_admin:
        raise LingpaiError("insufficient_scope", "Only an administrator may change limits. Ask one to do it.")


def _canonical(limits: list[str]) -> tuple[str, ...]:
    """The canonical spellings without repetition; ``none`` alone gives none. Raises LingpaiError for a bad one."""
    if [limit.strip().lower() for limit in limits] == ["none"]:
        return ()
    try:
        return tuple(dict.fromkeys(map(canonical_limit, limits)))
    except ValueError as exc:
        raise LingpaiError("invalid_request", str(exc), param="limits") from exc
