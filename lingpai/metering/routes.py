"""``GET /api/v1/usage`` and its export."""

from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import Annotated, Final

from fastapi import APIRouter, Depends, Response
from fastapi.responses import StreamingResponse
from starlette.concurrency import run_in_threadpool

from lingpai.errors import LingpaiError
from lingpai.metering.interfaces import UsageNames
from lingpai.metering.parameters import ExportParameters, UsageParameters
from lingpai.metering.presenting import WITH_IDS, Fields, NameBook, amount_fields, group_fields
from lingpai.metering.schemas import UsageAnswer, UsageRowBody
from lingpai.metering.service import Group, UsageQuestion, UsageReport, UsageRow
from lingpai.metering.tables import COUNTS, MONEY
from lingpai.metering.visibility import visible_subjects
from lingpai.prices import decimal_text
from lingpai.principal import Principal
from lingpai.web.auth import require
from lingpai.web.errors import ERROR_RESPONSES
from lingpai.web.export import as_csv, as_jsonl, spool
from lingpai.web.periods import iso_utc

Wait = Callable[[], Awaitable[bool]]

_CHUNK: Final = 500


def usage_routes(report: UsageReport, wait: Wait, names: UsageNames) -> APIRouter:
    """The router. `wait` waits, within bounds, until everything answered is in the database; False if it is not."""
    router = APIRouter(tags=["usage"], responses=ERROR_RESPONSES)
    can_read = require("usage:read")

    @router.get("/api/v1/usage", response_model_exclude_unset=True)
    async def usage(
        caller: Annotated[Principal, can_read],
        asked: Annotated[UsageParameters, Depends()],
        response: Response,
    ) -> UsageAnswer:
        """What was used, by key, client, user, project, model, task, day or hour.

        Administrators see everybody's, everybody else their own and that of the projects they have a role in.

        A report of more than 10,000 rows is refused, never cut: ask for less, or for the export.
        """
        response.headers["cache-control"] = "no-store"
        await all_recorded(wait)
        return await run_in_threadpool(
            lambda: _answer(report, _question(asked, caller, names), NameBook(names))
        )

    @router.get("/api/v1/usage/export", response_class=StreamingResponse)
    async def export_usage(
        caller: Annotated[Principal, can_read],
        asked: Annotated[UsageParameters, Depends()],
        export: Annotated[ExportParameters, Depends()],
    ) -> StreamingResponse:
        """The same report as CSV or JSON lines, however many rows it has. Money is in exact decimals."""

        def pieces() -> Iterator[bytes]:
            by, _, rows = report.rows(_question(asked, caller, names))
            chunks = _export_chunks(by, rows, NameBook(names))
            if export.format == "jsonl":
                return spool(as_jsonl(chunks))
            return spool(as_csv([*_group_columns(by), *COUNTS, *MONEY], chunks, bom=export.bom))

        await all_recorded(wait)
        body = await run_in_threadpool(pieces)
        return StreamingResponse(
            body, media_type=export.content_type, headers=export.headers("lingpai-usage")
        )

    return router


async def all_recorded(wait: Wait) -> None:
    """Wait until the database has all that was answered. Raises LingpaiError (storage_unavailable) if that takes long."""
    if not await wait():
        raise LingpaiError(
            "storage_unavailable",
            "Usage records are still being loaded, and less than what was answered is not shown. Try again.",
            headers={"retry-after": "5"},
        )


def _question(asked: UsageParameters, caller: Principal, names: UsageNames) -> UsageQuestion:
    who = visible_subjects(
        caller, names, key=asked.key, client=asked.client, user=asked.user, project=asked.project
    )
    return UsageQuestion(
        since=asked.since,
        until=asked.until,
        by=asked.by,
        tz=asked.tz,
        key_id=who.key_id,
        client_id=who.client_id,
        user_id=who.user_id,
        project_id=who.project_id,
        model=asked.model,
        visible=who.visible,
    )


def _answer(report: UsageReport, question: UsageQuestion, book: NameBook) -> UsageAnswer:
    answer = report.answer(question)
    book.learn_rows(answer.by, answer.rows)
    return UsageAnswer(
        data=[
            UsageRowBody(**group_fields(row, answer.by, book), **amount_fields(row)) for row in answer.rows
        ],
        since=iso_utc(answer.since),
        until=iso_utc(answer.until),
        tz=answer.tz,
        by=list(answer.by),
    )


def _group_columns(by: Iterable[Group]) -> list[str]:
    return [name for group in by for name in ((group, f"{group}_id") if group in WITH_IDS else (group,))]


def _export_chunks(by: Sequence[Group], rows: Iterator[UsageRow], book: NameBook) -> Iterator[list[Fields]]:
    while chunk := list(islice(rows, _CHUNK)):
        book.learn_rows(by, chunk)
        yield [{**group_fields(row, by, book), **_exported_amounts(row)} for row in chunk]


def _exported_amounts(row: UsageRow) -> Fields:
    money = {
        f"{kind}_{currency.lower()}": decimal_text(amounts.get(currency, 0))
        for kind, amounts in (("cost", row.costs), ("charged", row.charged_costs))
        for currency in ("USD", "CNY")
    }
    return {name: getattr(row, name) for name in COUNTS} | money
