"""The query parameters that reports, lists and exports share."""

from dataclasses import dataclass
from typing import Annotated, Final

from fastapi import Query

from lingpai.metering.records import EndReason
from lingpai.web.export import Format
from lingpai.web.formats import formatted

KeyFilter = Annotated[str | None, Query(max_length=200, description="Only with this key (id or name).")]
ClientFilter = Annotated[
    str | None, Query(max_length=200, description="Only with tokens of this client (id or name).")
]
UserFilter = Annotated[str | None, Query(max_length=200, description="Only of this user (id or name).")]
ProjectFilter = Annotated[
    str | None, Query(max_length=200, description="Only of keys of this project (id or name).")
]
ModelFilter = Annotated[str | None, Query(max_length=200, description="Only to this model, by its id.")]
Since = Annotated[
    str,
    Query(
        max_length=64,
        description="A duration (`7d`, `12h`, `30m`) or a date in `tz`.",
        json_schema_extra=formatted("period"),
    ),
]
Until = Annotated[
    str | None,
    Query(
        max_length=64,
        description="Same forms; excluded. Now if left out.",
        json_schema_extra=formatted("period-end"),
    ),
]
Zone = Annotated[
    str,
    Query(
        max_length=64,
        description="IANA time zone of days, hours, dates and times.",
        json_schema_extra=formatted("time-zone"),
    ),
]
By = Annotated[
    str,
    Query(
        max_length=100,
        description="Any of key,client,user,project,model,task,day,hour. One row if empty.",
        json_schema_extra=formatted("usage-groups"),
    ),
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
    key: KeyFilter = None
    client: ClientFilter = None
    user: UserFilter = None
    project: ProjectFilter = None
    model: ModelFilter = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestParameters:
    """Which calls are wanted."""

    since: Annotated[
        str | None,
        Query(
            max_length=64,
            description="When they started: a duration (`7d`) or a date in `tz`.",
            json_schema_extra=formatted("period"),
        ),
    ] = None
    until: Until = None
    tz: Zone = "UTC"
    key: KeyFilter = None
    client: ClientFilter = None
    user: UserFilter = None
    project: ProjectFilter = None
    model: ModelFilter = None
    status: Status = None
    end_reason: Annotated[
        EndReason | None, Query(description="Only those that ended so: `completed`, `client_gone`, …")
    ] = None
    endpoint: Annotated[
        str | None,
        Query(max_length=200, description="As records have it: `chat.completions`, `embeddings`, …"),
    ] = None
    request_id: Annotated[
        str | None, Query(max_length=200, description="The one with this id, as `x-request-id` has it.")
    ] = None


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
