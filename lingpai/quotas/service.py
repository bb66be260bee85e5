"""The limits of everybody: shown with what is left, replaced, explained."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Final, Protocol, TypeVar

from lingpai.errors import LingpaiError
from lingpai.principal import Principal
from lingpai.quotas.book import LimitBook
from lingpai.quotas.explain import Explanation, explain, subjects_of_call
from lingpai.quotas.grammar import canonical_limit
from lingpai.quotas.interfaces import Subject, SubjectKind
from lingpai.quotas.loader import StaleLimitsError
from lingpai.quotas.meter import Meter
from lingpai.quotas.rows import LimitRow, rows_of
from lingpai.quotas.schemas import ChangedLimits, LimitPage, NewLimits
from lingpai.quotas.subjects import (
    LISTED_KINDS,
    CallSubjects,
    KnownModel,
    LimitedSubject,
    ModelDirectory,
    Position,
    SubjectDirectory,
    Wanted,
)
from lingpai.web.paging import decode_cursor, encode_cursor

T = TypeVar("T")
IsCurrent = Callable[[], bool]


class LoadMeters(Protocol):
    """`MeterLoader.load`."""

    def __call__(
        self, subject: Subject, limits: tuple[str, ...], label: str, *, is_current: IsCurrent
    ) -> Awaitable[tuple[Meter, ...]]: ...


class Limits:
    """What the limits API does: look subjects up in threads, bring their meters into memory, write changes down."""

    def __init__(
        self,
        directory: SubjectDirectory,
        models: ModelDirectory,
        book: LimitBook,
        load: LoadMeters,
        *,
        generation: Callable[[], int],
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`load` brings a subject's meters into memory, `clock` gives Unix seconds.

        `generation` grows with every change to a key, client, user or project: what was read under another one may be stale,
        and attaching stale limits would undo the change.
        """
        self._directory = directory
        self._models = models
        self._book = book
        self._load = load
        self._generation = generation
        self._clock = clock

    async def page(self, caller: Principal, wanted: Wanted, *, limit: int, cursor: str | None) -> LimitPage:
        """Up to `limit` subjects with all of their limits, after those that led to `cursor`."""
        after = None if cursor is None else _position(cursor)

        async def read(is_current: IsCurrent) -> LimitPage:
            found = await asyncio.to_thread(self._directory.page, caller, wanted, after=after, most=limit + 1)
            shown = found[:limit]
            rows = [row for subject in shown for row in await self._rows(subject, is_current)]
            return {"data": rows, "next_cursor": _cursor(shown[-1]) if len(found) > limit else None}

        return await self._settled(read)

    async def wanted(
        self,
        caller: Principal,
        *,
        key: str | None,
        client: str | None,
        user: str | None,
        project: str | None,
        model: str | None,
        kind: SubjectKind | None = None,
        search: str | None = None,
    ) -> Wanted:
        """What a list's filters mean, with ids for names. Raises LingpaiError `not_found` for what the caller does not see."""

        def find(kind: SubjectKind, reference: str | None) -> str | None:
            return None if reference is None else self._directory.find(caller, kind, reference).id

        def find_all() -> Wanted:
            return Wanted(
                key=find("key", key),
                client=find("client", client),
                user=find("user", user),
                project=find("project", project),
                model=find("model", model),
                kind=kind,
                search=search,
            )

        return await asyncio.to_thread(find_all)

    async def replace(self, caller: Principal, body: NewLimits) -> ChangedLimits:
        """Replace the limits of one subject."""
        kind, reference = _subject_of(body)
        limits = None if body.limits is None else _canonical(body.limits)
        found = await asyncio.to_thread(self._directory.find, caller, kind, reference)
        if kind in {"model", "user_model"}:
            await self._book.replace(found.subject, limits, caller=caller)
        elif limits is None:
            raise LingpaiError(
                "invalid_request",
                f"A {kind} has no other limits to go back to. Give `none` for no limit.",
                "limits",
            )
        else:
            await asyncio.to_thread(self._directory.replace_limits, caller, found.subject, limits)

        async def read(is_current: IsCurrent) -> list[LimitRow]:
            subject = await asyncio.to_thread(self._directory.find, caller, *found.subject)
            return await self._rows(subject, is_current)

        return {"data": await self._settled(read), "warning": self._warning(found)}

    async def explain(
        self, caller: Principal, *, key: str | None, client: str | None, model: str | None
    ) -> Explanation:
        """What applies to a call to `model` of `key` or `client`, or with the caller's own credential."""

        async def read(is_current: IsCurrent) -> Explanation:
            call = await asyncio.to_thread(self._subjects_of_call, caller, key, client)
            known = None if model is None else self._callable(call, model)
            subjects = subjects_of_call(call, known, self._book)
            loaded = [(subject, await self._meters(subject, is_current)) for subject in subjects]
            return explain(call, known, loaded, self._clock())

        return await self._settled(read)

    def _subjects_of_call(self, caller: Principal, key: str | None, client: str | None) -> CallSubjects:
        if is_about_itself(caller, key, client):
            return self._directory.of_own_call(caller)
        if client is not None:
            return self._directory.of_client(caller, client)
        return self._directory.of_key(caller, key or "")

    async def _settled(self, read: Callable[[IsCurrent], Awaitable[T]]) -> T:
        """What `read` answers, once no limit was changed while it read."""
        while True:
            seen = self._generation(), self._book.version
            try:
                return await read(lambda: seen == (self._generation(), self._book.version))  # noqa: B023  it is called in this turn
            except StaleLimitsError:
                continue

    async def _meters(self, subject: LimitedSubject, is_current: IsCurrent) -> tuple[Meter, ...]:
        return await self._load(subject.subject, subject.limits, subject.label, is_current=is_current)

    async def _rows(self, subject: LimitedSubject, is_current: IsCurrent) -> list[LimitRow]:
        # Nobody counts for `*`: each user has meters of their own.
        meters = () if subject.is_everybody else await self._meters(subject, is_current)
        return rows_of(subject, meters, self._clock())

    def _callable(self, call: CallSubjects, model: str) -> KnownModel:
        """The model, if the call may go to it; refused as the call itself would be."""
        known = self._models.named(model)
        if known is not None and (call.may_call(known.id) or call.may_call(model)):
            return known
        if known is not None:
            raise LingpaiError("model_not_allowed", f"{call.credential} may not call `{model}`.", "model")
        near = self._models.nearest(model, may_see=call.may_call)
        raise LingpaiError("model_not_found", f"There is no model `{model}`.{near}", "model")

    def _warning(self, changed: LimitedSubject) -> str | None:
        if changed.kind not in {"model", "user_model"}:
            return None
        model = changed.id.rpartition(" ")[2]
        if self._models.named(model) is not None:
            return None
        near = self._models.nearest(model, may_see=lambda _: True)
        return f"There is no model `{model}` now; its limits hold once there is.{near}"


_NAMED_BY: Final[dict[str, tuple[str, ...]]] = {
    "key": ("id",),
    "client": ("id",),
    "user": ("id",),
    "project": ("id",),
    "model": ("model",),
    "user_model": ("user", "model"),
}
"""The fields that name a subject."""


def is_about_itself(caller: Principal, key: str | None, client: str | None) -> bool:
    """Whether who asks about this key or client (ids or names; None: not named) asks about their own credential."""
    if key is None and client is None:
        return caller.credential_id is not None
    if client is None:
        return caller.key_id is not None and key in {caller.key_id, caller.key_name}
    return caller.client_id is not None and client in {caller.client_id, caller.client_name}


def _subject_of(body: NewLimits) -> tuple[SubjectKind, str]:
    """Whose limits a body is about: the kind, and how the directory finds it. Raises LingpaiError."""
    given = {"id": body.id, "user": body.user, "model": body.model}
    if body.subject == "model" and body.model is None:
        given |= {"id": None, "model": body.id}
    wanted = _NAMED_BY[body.subject]
    for field, value in given.items():
        if value is not None and field not in wanted:
            raise LingpaiError("invalid_request", f"A {body.subject} is not named by `{field}`.", field)
    names = [_name(given[field], field, may_have_blanks=field == "id") for field in wanted]
    return body.subject, " ".join(names)


def _name(value: str | None, param: str, *, may_have_blanks: bool) -> str:
    if value is None:
        raise LingpaiError("invalid_request", f"Say whose limits these are: `{param}` is missing.", param)
    if not may_have_blanks and (" " in value or not value.isprintable()):
        # A blank stands between both in the id of a user on a model.
        raise LingpaiError("invalid_request", f"There is no such {param}: its name has no blanks.", param)
    return value


def _canonical(limits: list[str]) -> tuple[str, ...]:
    """The canonical spellings without repetition; ``none`` alone gives none. Raises LingpaiError for a bad one."""
    if [limit.strip().lower() for limit in limits] == ["none"]:
        return ()
    try:
        return tuple(dict.fromkeys(map(canonical_limit, limits)))
    except ValueError as exc:
        raise LingpaiError("invalid_request", str(exc), param="limits") from exc


def _cursor(last: LimitedSubject) -> str:
    return encode_cursor(last.created_at, f"{last.kind} {last.id}")


def _position(cursor: str) -> Position:
    created_at, place = decode_cursor(cursor)
    kind, _, id_ = place.partition(" ")
    if kind not in LISTED_KINDS:
        raise LingpaiError(
            "invalid_request",
            "The cursor is not one of this list. Leave it out to start from the first page.",
            "cursor",
        )
    return Position(kind, created_at, id_)
