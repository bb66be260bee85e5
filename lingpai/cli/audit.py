"""`lingpai audit`: who did what to what."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from cyclopts import App, Parameter

from lingpai.cli.downloads import download
from lingpai.cli.failures import UsageError
from lingpai.cli.options import NO_OPTIONS, Options, examples
from lingpai.cli.output import Cell, print_json
from lingpai.cli.server import connect
from lingpai.cli.tables import drop, drop_empty, print_table
from lingpai.cli.times import local_zone, shown_in_zone
from lingpai.client import Client
from lingpai.terminal import say

app = App(
    name="audit",
    help="See who did what, and verify that nobody changed the records.",
    help_epilogue=examples(
        "lingpai audit list --since 7d",
        "lingpai audit list --target my-app",
        "lingpai audit export --output audit.jsonl",
        "lingpai audit verify audit.jsonl",
    ),
)
app.command(
    "lingpai.cli.audit_verify:verify",
    name="verify",
    help="Verify that no record was changed, removed, inserted or moved. Exit code 1 when one was.",
    help_epilogue=examples(
        "lingpai audit verify",
        "lingpai audit verify --data /srv/lingpai",
        "lingpai audit verify audit.jsonl --key 11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo",
    ),
)
app.command(
    "lingpai.cli.audit_keys:keys",
    name="keys",
    help="Show the public keys that verify the records.",
    help_epilogue=examples("lingpai audit keys", "lingpai audit keys --data /srv/lingpai --json"),
)
app.command(
    "lingpai.cli.audit_keys:rotate",
    name="rotate-key",
    help="Sign with a new key from now on. What was signed with the old one can still be verified.",
    help_epilogue=examples("lingpai audit rotate-key", "lingpai audit rotate-key --data /srv/lingpai"),
)

PATH: Final = "/api/v1/audit"

_HEADERS: Final = ("number", "time", "who", "action", "what", "result", "address", "change")
_NARROWER: Final = (drop_empty("address"), drop("address"), drop("change"), drop("number"))
_PAGE: Final = 200


@Parameter(name="*")
@dataclass(frozen=True, slots=True, kw_only=True)
class Wishes:
    """Which records."""

    action: Annotated[str | None, Parameter(help="Only this action, such as key.create.")] = None
    actor: Annotated[str | None, Parameter(help="Only by this user (name or id) or credential (id).")] = None
    target: Annotated[str | None, Parameter(help="Only what was done to this one (name or id).")] = None
    result: Annotated[
        Literal["done", "refused", "failed"] | None, Parameter(help="Only with this result.")
    ] = None
    since: Annotated[str | None, Parameter(help="Since then: 7d, 12h, or a date.")] = None
    until: Annotated[str | None, Parameter(help="Until before then.")] = None
    search: Annotated[str | None, Parameter(help="Only records with this text anywhere.")] = None

    def parameters(self) -> dict[str, Any]:
        """The query of the API."""
        named = {name: getattr(self, name) for name in self.__slots__}
        return {name: value for name, value in named.items() if value} | {"tz": local_zone()}


EVERYTHING: Final = Wishes()


@app.command(
    name="list",
    help_epilogue=examples(
        "lingpai audit list --since 7d",
        "lingpai audit list --actor alice --action key.create",
        "lingpai audit list --result refused --limit 200",
    ),
)
def list_(
    *,
    wishes: Wishes = EVERYTHING,
    limit: Annotated[int, Parameter(help="The most records to show.")] = 50,
    options: Options = NO_OPTIONS,
) -> None:
    """List records, the newest first."""
    if limit < 1:
        raise UsageError("--limit is at least 1.")
    with connect(options) as client:
        records = _newest(client, wishes.parameters(), limit=limit)
    if options.as_json:
        print_json(records)
    elif records:
        print_table(_HEADERS, [_row(record) for record in records], right=("number",), narrower=_NARROWER)
    else:
        say("There are no such records.")


@app.command(
    help_epilogue=examples(
        "lingpai audit export --output audit.jsonl",
        "lingpai audit export --format csv --since 30d --output audit.csv",
    )
)
def export(
    *,
    wishes: Wishes = EVERYTHING,
    file_format: Annotated[
        Literal["jsonl", "csv"],
        Parameter(name="--format", help="jsonl, which can be verified, or csv for spreadsheets."),
    ] = "jsonl",
    bom: Annotated[bool, Parameter(help="Begin CSV with a byte order mark, for Excel.")] = False,
    output: Annotated[Path | None, Parameter(help="The file to write (else stdout).")] = None,
    options: Options = NO_OPTIONS,
) -> None:
    """Write all records that fit to a file, the oldest first."""
    if options.as_json:
        raise UsageError("An export is no JSON document. Use --format jsonl.")
    query = {**wishes.parameters(), "format": file_format, "bom": "true" if bom else "false"}
    download(options, f"{PATH}/export", query, output=output)


def _newest(client: Client, query: Mapping[str, Any], *, limit: int) -> list[dict[str, Any]]:
    records: list[dict[str, Any]] = []
    cursor: dict[str, str] = {}
    while len(records) < limit:
        asked = {**query, "limit": min(_PAGE, limit - len(records)), **cursor}
        page = client.request("GET", PATH, params=asked)
        records += page["data"]
        if not page["next_cursor"]:
            break
        cursor = {"cursor": page["next_cursor"]}
    return records


def _row(record: Mapping[str, Any]) -> Sequence[Cell]:
    actor, target = record["actor"], record["target"]
    return (
        str(record["number"]),
        shown_in_zone(record["time"], local_zone()),
        actor["name"] or actor["kind"],
        record["action"],
        f"{target['kind']} {target['name'] or target['id']}".rstrip(),
        record["result"] if record["reason"] is None else f"{record['result']}: {record['reason'][:60]}",
        record["address"],
        _change(record),
    )


def _change(record: Mapping[str, Any]) -> str | None:
    """The fields that an update changed, such as “limits, models”; nothing for what was made or deleted."""
    if not record["before"] or not record["after"]:
        return None
    return ", ".join(record["after"])
