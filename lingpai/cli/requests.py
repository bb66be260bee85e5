"""`lingpai requests`: the calls one by one."""

import json
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from cyclopts import App, Parameter

from lingpai.cli.downloads import download
from lingpai.cli.failures import UsageError
from lingpai.cli.options import NO_OPTIONS, Options, examples
from lingpai.cli.output import Cell, as_text, print_json, print_line
from lingpai.cli.server import connect, segment
from lingpai.cli.tables import Columns, Step, drop, drop_empty, print_details, print_table, rename
from lingpai.cli.times import local_zone
from lingpai.client import Client
from lingpai.terminal import say

app = App(
    name="requests",
    help="List, follow and export the calls one by one.",
    help_epilogue=examples(
        "lingpai requests list --status 4xx --since 1h",
        "lingpai requests show req_a1b2c3d4e5f600000001",
        "lingpai requests export --since 30d --output calls.csv",
    ),
)

PATH: Final = "/api/v1/requests"

_HEADERS: Final = (
    "time", "key", "client", "user", "model", "status", "end", "seconds", "tokens in", "tokens out", "cost", "id",
)  # fmt: skip
_NUMERIC: Final = ("status", "seconds", "tokens in", "tokens out", "in", "out", "cost")
_NARROWER: Final = (
    drop("id"),
    rename({"tokens in": "in", "tokens out": "out"}),
    drop_empty("cost"),
    drop("user"),
    drop("end"),
)
_PAGE: Final = 200
_FOLLOW_EVERY_S: Final = 1.0
_MOST_AT_ONCE: Final = 100_000  # more than can come within a second


@Parameter(name="*")
@dataclass(frozen=True, slots=True, kw_only=True)
class Wishes:
    """Which calls."""

    since: Annotated[str | None, Parameter(help="Started since: 7d, 12h, or a date.")] = None
    until: Annotated[str | None, Parameter(help="Started before (else now).")] = None
    tz: Annotated[str | None, Parameter(help="Time zone of dates and times (else this machine's).")] = None
    key: Annotated[str | None, Parameter(help="Only this key's calls.")] = None
    client: Annotated[str | None, Parameter(help="Only this OAuth client's calls.")] = None
    user: Annotated[str | None, Parameter(help="Only this user's calls.")] = None
    project: Annotated[str | None, Parameter(help="Only this project's calls.")] = None
    model: Annotated[str | None, Parameter(help="Only calls of this model.")] = None
    status: Annotated[str | None, Parameter(help="Only with this status, or class: 429, 4xx.")] = None
    end_reason: Annotated[
        str | None,
        Parameter(
            help="Only those that ended so: complete, client_gone, upstream_error, timeout, refused, stopped."
        ),
    ] = None
    endpoint: Annotated[
        str | None, Parameter(help="Only calls of this endpoint, such as chat.completions.")
    ] = None

    def parameters(self) -> dict[str, Any]:
        """The query of the API."""
        named = {name: getattr(self, name) for name in self.__slots__}
        return {name: value for name, value in named.items() if value} | {"tz": self.tz or local_zone()}


EVERYTHING: Final = Wishes()


@app.command(
    name="list",
    help_epilogue=examples(
        "lingpai requests list",
        "lingpai requests list --key my-app --status 4xx --since 1h",
        "lingpai requests list --follow",
    ),
)
def list_(
    *,
    wishes: Wishes = EVERYTHING,
    limit: Annotated[int, Parameter(help="The most calls to show.")] = 50,
    follow: Annotated[bool, Parameter(help="Go on with those that come.")] = False,
    options: Options = NO_OPTIONS,
) -> None:
    """List calls, the newest first; with --follow the newest last, and then those that come, until Ctrl-C."""
    if limit < 1:
        raise UsageError("--limit is at least 1.")
    with connect(options) as client:
        if follow:
            _follow(client, wishes.parameters(), limit=limit, as_json=options.as_json)
            return
        calls = _newest(client, wishes.parameters(), limit=limit)
    if options.as_json:
        print_json(calls)
    elif calls:
        narrower = (drop_empty("client", "key"), _callers_in_one_column(calls), *_NARROWER)
        print_table(_HEADERS, [_row(call) for call in calls], right=_NUMERIC, narrower=narrower)
    else:
        say("There are no such calls.")


@app.command(help_epilogue=examples("lingpai requests show req_a1b2c3d4e5f600000001"))
def show(
    request_id: Annotated[str, Parameter(help="As in the answer's x-request-id.")],
    /,
    *,
    options: Options = NO_OPTIONS,
) -> None:
    """Show everything that is known of one call."""
    with connect(options) as client:
        call = client.request("GET", f"{PATH}/{segment(request_id)}", params={"tz": local_zone()})
    if options.as_json:
        print_json(call)
    else:
        print_details({name.replace("_", " "): value for name, value in call.items()})


@app.command(
    help_epilogue=examples(
        "lingpai requests export --since 30d --output calls.csv",
        "lingpai requests export --format jsonl --user alice > alice.jsonl",
    )
)
def export(
    *,
    wishes: Wishes = EVERYTHING,
    file_format: Annotated[
        Literal["csv", "jsonl"], Parameter(name="--format", help="csv, or jsonl: a JSON object to a line.")
    ] = "csv",
    bom: Annotated[bool, Parameter(help="Begin CSV with a byte order mark, for Excel.")] = False,
    output: Annotated[Path | None, Parameter(help="The file to write (else stdout).")] = None,
    options: Options = NO_OPTIONS,
) -> None:
    """Write all calls that fit to a file, the oldest first."""
    if options.as_json:
        raise UsageError("An export is no JSON document. Use --format jsonl.")
    query = {**wishes.parameters(), "format": file_format, "bom": "true" if bom else "false"}
    download(options, f"{PATH}/export", query, output=output)


def _newest(
    client: Client, query: Mapping[str, Any], *, limit: int, known: str | None = None
) -> list[dict[str, Any]]:
    """The newest `limit` calls, and none before the call with the id `known`."""
    calls: list[dict[str, Any]] = []
    cursor: dict[str, str] = {}
    while len(calls) < limit:
        page = client.request(
            "GET", PATH, params={**query, "limit": min(_PAGE, limit - len(calls)), **cursor}
        )
        for call in page["data"]:
            if call["id"] == known:
                return calls
            calls.append(call)
        if not page["next_cursor"]:
            break
        cursor = {"cursor": page["next_cursor"]}
    return calls


def _follow(client: Client, query: Mapping[str, Any], *, limit: int, as_json: bool) -> None:
    newest: str | None = None
    while True:
        calls = _newest(client, query, limit=limit, known=newest)
        for call in reversed(calls):
            if as_json:
                print_line(_json_line(call))
            else:
                print_line("  ".join(str("–" if cell is None else cell) for cell in _row(call)))
        sys.stdout.flush()
        if calls:
            newest, limit = calls[0]["id"], _MOST_AT_ONCE
        time.sleep(_FOLLOW_EVERY_S)


def _json_line(call: Mapping[str, Any]) -> str:
    return json.dumps(call, separators=(",", ":"))


def _row(call: Mapping[str, Any]) -> Sequence[Cell]:
    return (
        call["started_at"][:19].replace("T", " "),
        call["key"],
        call.get("client"),
        call["user"],
        call["model"],
        str(call["status"]),
        call["end_reason"],
        f"{call['duration_ms'] / 1000:.2f}",
        call["prompt_tokens"],
        call["completion_tokens"],
        f"{call['cost']} {call['currency']}" if call["cost"] else None,
        call["id"],
    )


def _callers_in_one_column(calls: Sequence[Mapping[str, Any]]) -> Step:
    """A call has a key or a client, so one column has room for both."""
    callers = [as_text(call["key"] or call.get("client")) for call in calls]

    def step(columns: Columns) -> Columns:
        if not {"key", "client"} <= columns.keys():
            return columns
        others = {header: cells for header, cells in columns.items() if header != "client"}
        return {
            "by" if header == "key" else header: callers if header == "key" else cells
            for header, cells in others.items()
        }

    return step
