"""``/api/v1/requests``: the calls one by one, and their export."""

from collections.abc import Callable, Sequence
from typing import Annotated, Final

from fastapi import APIRouter, Depends, Path, Response
from fastapi.responses import StreamingResponse
from starlette.concurrency import run_in_threadpool

from lingpai.errors import LingpaiError
from lingpai.metering.interfaces import UsageNames
from lingpai.metering.parameters import ExportParameters, RequestParameters, Zone
from lingpai.metering.presenting import Fields, NameBook, record_fields
from lingpai.metering.requests import Record, RecordPage, RequestFilter, SqlRequestStore
from lingpai.metering.routes import Wait, all_recorded
from lingpai.metering.schemas import RequestBody
from lingpai.metering.visibility import visible_subjects, visible_to
from lingpai.principal import Principal
from lingpai.web.auth import require
from lingpai.web.errors import ERROR_RESPONSES
from lingpai.web.export import as_csv, as_jsonl
from lingpai.web.paging import (
    DEFAULT_LIMIT,
    CursorParameter,
    LimitParameter,
    Page,
    decode_cursor,
    encode_cursor,
)
from lingpai.web.periods import parse_moment, parse_zone

RequestId = Annotated[str, Path(description="The id in `x-request-id` of its answer.")]

PATH: Final = "/api/v1/requests"
COLUMNS: Final = tuple(RequestBody.model_fields)


def request_routes(
    store: SqlRequestStore, wait: Wait, names: UsageNames, clock: Callable[[], float]
) -> APIRouter:
    """The router. `wait` waits, within bounds, until everything answered is in the database; False if it is not."""
    router = APIRouter(tags=["requests"], responses=ERROR_RESPONSES)
    can_read = require("usage:read")

    @router.get(PATH)
    async def list_requests(
        caller: Annotated[Principal, can_read],
        asked: Annotated[RequestParameters, Depends()],
        response: Response,
        limit: LimitParameter = DEFAULT_LIMIT,
        cursor: CursorParameter = None,
    ) -> Page[RequestBody]:
        """Calls, the newest first: all for an administrator, for everybody else their own and those of their projects.

        What comes in between moves no page. When few of very many calls fit the filters, a page can be shorter than
        `limit`, even empty, and still have a `next_cursor`: only null means that there are no more.
        """

        def page() -> Page[RequestBody]:
            before = None if cursor is None else _id_in(cursor)
            found = store.page(_filter(asked, caller, names, now=clock()), limit=limit, before=before)
            return _page(found, names, asked.tz)

        response.headers["cache-control"] = "no-store"
        await all_recorded(wait)
        return await run_in_threadpool(page)

    @router.get(f"{PATH}/export", response_class=StreamingResponse)
    async def export_requests(
        caller: Annotated[Principal, can_read],
        asked: Annotated[RequestParameters, Depends()],
        export: Annotated[ExportParameters, Depends()],
    ) -> StreamingResponse:
        """All calls that fit, the oldest first, as CSV or JSON lines. Streamed: there is no bound."""
        await all_recorded(wait)
        wanted = await run_in_threadpool(lambda: _filter(asked, caller, names, now=clock()))
        book = NameBook(names)
        chunks = (_shown(records, book, asked.tz) for records in store.all(wanted))
        return StreamingResponse(
            as_jsonl(chunks) if export.format == "jsonl" else as_csv(COLUMNS, chunks, bom=export.bom),
            media_type=export.content_type,
            headers=export.headers("lingpai-requests"),
        )

    @router.get(f"{PATH}/{{request_id}}")
    async def show_request(
        caller: Annotated[Principal, can_read], request_id: RequestId, response: Response, tz: Zone = "UTC"
    ) -> RequestBody:
        """One call. What the caller may not see does not exist for them; one that retention deleted exists for nobody."""
        response.headers["cache-control"] = "no-store"
        await all_recorded(wait)
        return await run_in_threadpool(_one, store, names, caller, request_id, tz)

    return router


def _filter(asked: RequestParameters, caller: Principal, names: UsageNames, *, now: float) -> RequestFilter:
    zone = parse_zone(asked.tz)
    who = visible_subjects(
        caller, names, key=asked.key, client=asked.client, user=asked.user, project=asked.project
    )

    def moment(text: str | None, param: str) -> float | None:
        return None if text is None else parse_moment(text, now=now, zone=zone, param=param)

    return RequestFilter(
        since=moment(asked.since, "since"),
        until=moment(asked.until, "until"),
        key_id=who.key_id,
        client_id=who.client_id,
        user_id=who.user_id,
        project_id=who.project_id,
        model=asked.model,
        status=_status_range(asked.status),
        end_reason=asked.end_reason,
        endpoint=asked.endpoint,
        request_id=asked.request_id,
        visible=who.visible,
    )


def _status_range(text: str | None) -> tuple[int, int] | None:
    if text is None:
        return None
    return int(text.replace("x", "0")), int(text.replace("x", "9"))


def _page(found: RecordPage, names: UsageNames, tz: str) -> Page[RequestBody]:
    return Page(
        data=[RequestBody(**fields) for fields in _shown(found.records, NameBook(names), tz)],
        next_cursor=None if found.next_before is None else encode_cursor(0.0, str(found.next_before)),
    )


def _one(
    store: SqlRequestStore, names: UsageNames, caller: Principal, request_id: str, tz: str
) -> RequestBody:
    parse_zone(tz)  # before the search: a wrong zone is told of any request
    record = store.find(request_id[:200], visible=visible_to(caller, names))
    if record is None:
        raise LingpaiError("not_found", "There is no such request. Its id is in `x-request-id`.")
    [fields] = _shown([record], NameBook(names), tz)
    return RequestBody(**fields)


def _id_in(cursor: str) -> int:
    _, id_ = decode_cursor(cursor)
    if not id_.isascii() or not id_.isdecimal() or len(id_) > 18:
        raise LingpaiError(
            "invalid_request",
            "The cursor is not one of this list. Leave it out to start from the first page.",
            param="cursor",
        )
    return int(id_)


def _shown(records: Sequence[Record], book: NameBook, tz: str) -> list[Fields]:
    zone = parse_zone(tz)
    book.learn_records(records)
    return [record_fields(record, book, zone) for record in records]
