"""``/api/v1/audit``: the trail, for administrators."""

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Annotated, Final, Literal

from fastapi import APIRouter, Depends, Query, Response
from fastapi.responses import StreamingResponse

from lingpai.audit.export import COLUMNS, AuditExport
from lingpai.audit.schemas import AuditRecordView
from lingpai.audit.store import AuditFilter, SqlAuditStore
from lingpai.errors import LingpaiError
from lingpai.principal import Principal
from lingpai.storage.trail import Deed, Trail
from lingpai.web.auth import require
from lingpai.web.errors import ERROR_RESPONSES
from lingpai.web.export import as_csv
from lingpai.web.formats import formatted
from lingpai.web.paging import (
    DEFAULT_LIMIT,
    CursorParameter,
    LimitParameter,
    Page,
    decode_cursor,
    encode_cursor,
)
from lingpai.web.periods import parse_moment, parse_zone

PATH: Final = "/api/v1/audit"

Filter = Annotated[str | None, Query(min_length=1, max_length=300)]


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditParameters:
    """Which records are wanted."""

    action: Annotated[
        str | None, Query(min_length=1, max_length=64, description="Only this action, such as `key.create`.")
    ] = None
    actor: Annotated[Filter, Query(description="A user's id or name, or a credential's id.")] = None
    target: Annotated[Filter, Query(description="The id or name of what it was done to.")] = None
    result: Annotated[
        Literal["done", "refused", "failed"] | None, Query(description="Only what came out so.")
    ] = None
    since: Annotated[
        str | None,
        Query(
            max_length=64,
            description="A duration (`7d`, `12h`, `30m`), a date, or a date and time.",
            json_schema_extra=formatted("period"),
        ),
    ] = None
    until: Annotated[
        str | None,
        Query(max_length=64, description="Same forms; excluded.", json_schema_extra=formatted("period-end")),
    ] = None
    tz: Annotated[
        str,
        Query(
            max_length=64,
            description="IANA time zone of dates without an offset.",
            json_schema_extra=formatted("time-zone"),
        ),
    ] = "UTC"
    search: Annotated[
        str | None, Query(min_length=1, max_length=200, description="A text anywhere in the record.")
    ] = None

    def filter(self, now: float) -> AuditFilter:
        """The same for the store. Raises LingpaiError `invalid_request` for a bad time."""
        zone = parse_zone(self.tz)

        def moment(text: str | None, param: str) -> float | None:
            return None if text is None else parse_moment(text, now=now, zone=zone, param=param)

        return AuditFilter(
            action=self.action,
            actor=self.actor,
            target=self.target,
            result=self.result,
            since=moment(self.since, "since"),
            until=moment(self.until, "until"),
            search=self.search,
        )


def audit_routes(
    store: SqlAuditStore, export: AuditExport, trail: Trail, clock: Callable[[], float] = time.time
) -> APIRouter:
    """The routes."""
    router = APIRouter(prefix=PATH, tags=["audit"], responses=ERROR_RESPONSES)
    can_read = require("audit:read")

    @router.get("")
    def list_records(
        caller: Annotated[Principal, can_read],  # noqa: ARG001  the scope is for administrators only, who see all
        asked: Annotated[AuditParameters, Depends()],
        response: Response,
        limit: LimitParameter = DEFAULT_LIMIT,
        cursor: CursorParameter = None,
    ) -> Page[AuditRecordView]:
        """List records, the newest first.

        When few of very many records fit `search` or `result`, a page can be shorter than `limit`, even empty, and still
        have a `next_cursor`: only null means that there are no more.
        """
        response.headers["cache-control"] = "no-store"
        before = None if cursor is None else _number_in(cursor)
        found = store.page(asked.filter(clock()), limit=limit, before=before)
        return Page(
            data=[AuditRecordView.of(row) for row in found.records],
            next_cursor=None if found.next_before is None else encode_cursor(0.0, str(found.next_before)),
        )

    @router.get("/export", response_class=StreamingResponse)
    def export_records(
        caller: Annotated[Principal, can_read],
        asked: Annotated[AuditParameters, Depends()],
        format: Annotated[  # noqa: A002  the name on the wire
            Literal["jsonl", "csv"], Query(description="JSON lines, which can be verified, or CSV.")
        ] = "jsonl",
        bom: Annotated[
            bool, Query(description="Begin CSV with a byte order mark, for spreadsheets that need one.")
        ] = False,
    ) -> StreamingResponse:
        """All records that fit, the oldest first. Streamed: there is no bound. The export is itself recorded."""
        wanted = asked.filter(clock())
        parameters = {name: value for name, value in asdict(asked).items() if value is not None}
        after = {"format": format, **parameters}
        trail.note(caller, Deed(action="audit.export", target_kind="trail", target_id="audit", after=after))
        if format == "csv":
            pieces = as_csv(COLUMNS, export.chunks(wanted), bom=bom)
            media_type = "text/csv; charset=utf-8; header=present"
        else:
            pieces, media_type = export.lines(wanted), "application/jsonl; charset=utf-8"
        headers = {
            "content-disposition": f'attachment; filename="lingpai-audit.{format}"',
            "cache-control": "no-store",
        }
        return StreamingResponse(pieces, media_type=media_type, headers=headers)

    return router


def _number_in(cursor: str) -> int:
    _, number = decode_cursor(cursor)
    if not number.isascii() or not number.isdecimal() or len(number) > 18:
        raise LingpaiError(
            "invalid_request",
            "The cursor is not one of this list. Leave it out to start from the first page.",
            param="cursor",
        )
    return int(number)
