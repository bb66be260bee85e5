"""``GET /api/v1/usage``."""

from collections.abc import Awaitable, Callable
from typing import Annotated

from fastapi import APIRouter, Query
from starlette.concurrency import run_in_threadpool

from lingpai.errors import LingpaiError
from lingpai.metering.interfaces import UsageNames
from lingpai.metering.periods import iso_utc
from lingpai.metering.schemas import UsageAnswer, UsageRowBody
from lingpai.metering.service import Report, UsageQuestion, UsageReport, UsageRow
from lingpai.principal import Principal
from lingpai.web.auth import require
from lingpai.web.errors import ERROR_RESPONSES

Since = Annotated[str, Query(max_length=64, description="A duration (`7d`, `12h`, `30m`) or a date in `tz`.")]
Until = Annotated[str | None, Query(max_length=64, description="Same forms; excluded. Now if left out.")]
By = Annotated[
    str, Query(max_length=100, description="Any of key,user,model,task,day,hour. One row if empty.")
]
Zone = Annotated[str, Query(max_length=64, description="IANA time zone of days, hours and dates.")]
Filter = Annotated[str | None, Query(max_length=200)]


def usage_routes(report: UsageReport, wait: Callable[[], Awaitable[bool]], names: UsageNames) -> APIRouter:
    """The router. `wait` waits, within bounds, until everything answered is in the database; False if it is not."""
    router = APIRouter(tags=["usage"], responses=ERROR_RESPONSES)

    @router.get("/api/v1/usage", response_model_exclude_unset=True)
    async def usage(
        *,
        caller: Annotated[Principal, require("usage:read")],
        since: Since = "7d",
        until: Until = None,
        by: By = "",
        tz: Zone = "UTC",
        key: Filter = None,
        user: Filter = None,
        model: Filter = None,
    ) -> UsageAnswer:
        """What was used, by key, user, model, task, day or hour. A member sees their own usage only."""

        def answer() -> UsageAnswer:
            user_id = _visible_user(caller, user, names)
            question = UsageQuestion(
                since=since,
                until=until,
                by=by,
                tz=tz,
                key_id=_visible_key(key, user_id, names),
                user_id=user_id,
                model=model,
            )
            return _answer(report.answer(question), names)

        if not await wait():
            raise LingpaiError(
                "storage_unavailable",
                "Usage records are still being loaded, and less than what was answered is not shown. Try again.",
                headers={"retry-after": "5"},
            )
        return await run_in_threadpool(answer)

    return router


def _visible_user(caller: Principal, user: str | None, names: UsageNames) -> str | None:
    """The id of the one user the report is about, or None for all. Others do not exist for a member."""
    user_id = None if user is None else names.find_user(user)
    if user is not None and (user_id is None or not (caller.is_admin or user_id == caller.user_id)):
        raise LingpaiError("not_found", "There is no such user. Give the id or the name.", param="user")
    return user_id if caller.is_admin else caller.user_id


def _visible_key(key: str | None, user_id: str | None, names: UsageNames) -> str | None:
    key_id = None if key is None else names.find_key(key, user_id=user_id)
    if key is not None and key_id is None:
        raise LingpaiError("not_found", "There is no such key. Give the id or a unique name.", param="key")
    return key_id


def _answer(report: Report, names: UsageNames) -> UsageAnswer:
    key_names = names.key_names(_values(report, "key"))
    user_names = names.user_names(_values(report, "user"))

    def fields(row: UsageRow) -> dict[str, str | None]:
        group: dict[str, str | None] = dict(zip(report.by, row.group, strict=True))
        if "key" in group:
            key_id = group["key"] or None  # empty: a call without a key
            group |= {"key": key_names.get(key_id, key_id) if key_id else None, "key_id": key_id}
        if "user" in group:
            group["user"] = user_names.get(group["user"] or "", group["user"])
        return group

    return UsageAnswer(
        data=[_row_body(row, fields(row)) for row in report.rows],
        since=iso_utc(report.since),
        until=iso_utc(report.until),
        tz=report.tz,
        by=list(report.by),
    )


def _row_body(row: UsageRow, group: dict[str, str | None]) -> UsageRowBody:
    return UsageRowBody(
        **group,
        requests=row.requests,
        prompt_tokens=row.prompt_tokens,
        completion_tokens=row.completion_tokens,
        cost=0.0,
        errors=row.errors,
        refused=row.refused,
    )


def _values(report: Report, group: str) -> set[str]:
    if group not in report.by:
        return set()
    index = list(report.by).index(group)
    return {row.group[index] for row in report.rows} - {""}
