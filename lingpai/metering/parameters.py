"""The query parameters that reports, lists and exports share."""

from dataclasses import dataclass
from typing import Annotated, Final

from fastapi import Query

from lingpai.metering.records import EndReason
from lingpai.web.export import Format

Filter = Annotated[str | None, Query(max_length=200)]
Since = Annotated[str, Query(max_length=64, description="A duration (`7d`, `12h`, `30m`) or a date in `tz`.")]
Until = Annotated[str | None, Query(max_length=64, description="Same forms; excluded. Now if left out.")]
Zone = Annotated[str, Query(max_length=64, description="IANA time zone of days, hours, dates and times.")]
By = Annotated[
    str,
    Query(max_length=100, description="Any of key,user,project,model,task,day,hour. One row if empty."),
]
Status = Annotated[
    str | None,
    Query(pattern=r"^[1-5](\d\d|xx)$", description="A status, or a class of them: `429`, `4xx`."),
]

_MEDIA_TYPES: Final[dict[Format, str]] = {
    "csv": "text/csv; charset=utf-8; header=present",
    "jsonl": "application/jsonl; charset=utf-8",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class UsageParameters:
    """What a report is about."""

    since: Since = "7d"
    until: Until = None
    by: By = ""
    tz: Zone = "UTC"
    key: Filter = None
    user: Filter = None
    project: Filter = None
    model: Filter = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestParameters:
    """Which calls are wanted."""

    since: Annotated[
        str | None,
        Query(max_length=64, description="When they started: a duration (`7d`) or a date in `tz`."),
    ] = None
    until: Until = None
    tz: Zone = "UTC"
    key: Filter = None
    user: Filter = None
    project: Filter = None
    model: Filter = None
    status: Status = None
    end_reason: EndReason | None = None
    endpoint: Annotated[
        str | None,
        Query(max_length=200, description="As records have it: `chat.completions`, `embeddings`, …"),
    ] = None
    request_id: Filter = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportParameters:
    """What an export looks like."""

    format: Annotated[Format, Query(description="CSV, or a JSON object to a line.")] = "csv"
    bom: Annotated[
        bool, Query(description="Begin CSV with a byte order mark, for spreadsheets that need one.")
    ] = False

    @property
    def content_type(self) -> str:
        return _MEDIA_TYPES[self.format]

    def headers(self, name: str) -> dict[str, str]:
        """The headers of a download called `name`."""
        return {
            "content-disposition": f'attachment; filename="{name}.{self.format}"',
            "cache-control": "no-store",
        }
