"""`lingpai usage`: what was used, by whom, when."""

import shutil
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from typing import Annotated, Any, Final

from cyclopts import App, Parameter

from lingpai.cli.failures import UsageError
from lingpai.cli.options import NO_OPTIONS, Options, examples
from lingpai.cli.output import Cell, bar, print_csv, print_json
from lingpai.cli.server import connect
from lingpai.cli.tables import drop, drop_empty, print_table, rename
from lingpai.cli.times import local_zone, shown_in_zone
from lingpai.terminal import say

app = App(
    name="usage",
    help="Show how much was used, by key, client, user, project, model or time. Every call that was answered is in it.",
    help_epilogue=examples(
        "lingpai usage",
        "lingpai usage --by key,model --since 1d",
        "lingpai usage --by day --tz Asia/Shanghai --since 2026-11-01",
        "lingpai usage --by user,day --csv > usage.csv",
        "lingpai usage rebuild --since 7d",
    ),
)
app.command(
    "lingpai.cli.usage_rebuild:rebuild",
    name="rebuild",
    help="Work the sums out anew from the records, and repair what differs.",
    help_epilogue=examples("lingpai usage rebuild", "lingpai usage rebuild --since 2026-11-01 --json"),
)

PATH: Final = "/api/v1/usage"
GROUPS: Final = ("key", "client", "user", "project", "model", "task", "day", "hour")
AMOUNTS: Final = ("requests", "prompt_tokens", "completion_tokens", "cost", "errors", "refused")

# What a narrow terminal does without, in this order.
SHORT: Final = {"prompt tokens": "in", "completion tokens": "out"}
NARROWER: Final = (drop("share"), drop_empty("cost"), rename(SHORT), drop_empty("errors", "refused"))


@app.default
def usage(
    *,
    since: Annotated[str, Parameter(help="From when: 7d, 12h, or a date (else 7d).")] = "7d",
    until: Annotated[str | None, Parameter(help="Until when (else now).")] = None,
    by: Annotated[
        str | None,
        Parameter(
            help="Group by any of key, client, user, project, model, task, day, hour, with commas between."
        ),
    ] = None,
    tz: Annotated[
        str | None, Parameter(help="Time zone of days, hours and dates (else this machine's).")
    ] = None,
    key: Annotated[str | None, Parameter(help="Only this key's usage.")] = None,
    client: Annotated[str | None, Parameter(help="Only this OAuth client's usage.")] = None,
    user: Annotated[str | None, Parameter(help="Only this user's usage.")] = None,
    project: Annotated[str | None, Parameter(help="Only this project's usage.")] = None,
    model: Annotated[str | None, Parameter(help="Only this model's usage.")] = None,
    csv: Annotated[bool, Parameter(help="Print CSV for spreadsheets.")] = False,
    options: Options = NO_OPTIONS,
) -> None:
    """Show how much was used. Every call that was answered is in it."""
    groups = read_groups(by)
    if csv and options.as_json:
        raise UsageError("--csv and --json exclude each other.")
    wishes = {"since": since, "until": until, "by": ",".join(groups), "tz": tz or local_zone()}
    wishes |= {"key": key, "client": client, "user": user, "project": project, "model": model}
    with connect(options) as server:
        report = server.request("GET", PATH, params={name: value for name, value in wishes.items() if value})
    if options.as_json:
        print_json(report["data"])
    elif csv:
        headers = [*groups, *AMOUNTS, "currency"]
        print_csv(headers, [[row.get(name) for name in headers] for row in report["data"]])
    else:
        _print_report(report, groups)


def read_groups(by: str | None) -> list[str]:
    """The groups of `--by`. Raises `UsageError` for one that does not exist."""
    groups = [name.strip().lower() for name in (by or "").split(",") if name.strip()]
    for name in groups:
        if name not in GROUPS:
            raise UsageError(f"--by {name!r} is not a group. Use any of {', '.join(GROUPS)}.")
    return list(dict.fromkeys(groups))


def _print_report(report: dict[str, Any], groups: Sequence[str]) -> None:
    rows = report["data"]
    if not rows:
        zone = str(report.get("tz"))
        say(f"Nothing was used since {shown_in_zone(report.get('since'), zone)} ({zone}).")
        return
    most = max(row["requests"] for row in rows)
    table: list[list[Cell]] = [_cells(row, groups, most=most) for row in rows]
    if groups and len(rows) > 1:
        table.append(_cells(total_of(rows, groups), groups, most=None))
    share = ["share"] if groups else []
    headers = [*groups, "requests", *share, *(name.replace("_", " ") for name in AMOUNTS[1:])]
    numeric = {*headers, *SHORT.values()} - {*groups, "share"}
    print_table(headers, table, right=numeric, narrower=NARROWER)
    zone = str(report.get("tz"))
    until = shown_in_zone(report.get("until"), zone, latest=datetime.now(UTC))
    say(f"{shown_in_zone(report.get('since'), zone)} to {until}, days and hours in {zone}.")


def bar_width() -> int:
    """Half as wide on a narrow terminal, where the numbers need the room."""
    return 20 if shutil.get_terminal_size((120, 24)).columns >= 110 else 10


def total_of(rows: Sequence[dict[str, Any]], groups: Sequence[str]) -> dict[str, Any]:
    """The sum of `rows` as one more row; what was paid in two currencies stays apart."""
    sums = {name: sum(row.get(name) or 0 for row in rows) for name in AMOUNTS}
    return {groups[0]: "total", **sums, "costs": _total_costs(row.get("costs") or {} for row in rows)}


def _total_costs(all_costs: Iterable[Mapping[str, str]]) -> dict[str, str]:
    totals: dict[str, Decimal] = {}
    for costs in all_costs:
        for currency, amount in costs.items():
            totals[currency] = totals.get(currency, Decimal()) + Decimal(amount)
    return {currency: f"{total:f}" for currency, total in totals.items()}


def shown_cost(row: Mapping[str, Any]) -> Cell:
    """The cost with its currency: `0.12 USD`, both if there are two; the bare number when there is none."""
    costs = row.get("costs") or {}
    return " + ".join(f"{amount} {currency}" for currency, amount in costs.items()) or row.get("cost")


def _cells(row: dict[str, Any], groups: Sequence[str], *, most: int | None) -> list[Cell]:
    cells: list[Cell] = [row.get(name, "") if most is not None else row.get(name, " ") for name in groups]
    cells.append(row["requests"])
    if groups:
        cells.append(bar(row["requests"] / most, width=bar_width()) if most else " ")
    return [*cells, *(shown_cost(row) if name == "cost" else row.get(name) for name in AMOUNTS[1:])]
