"""`lingpai events`: what happened that somebody should know of, and whether webhooks arrive."""

from collections import Counter
from typing import Annotated, Any, Final

from cyclopts import App, Parameter
from rich.text import Text

from lingpai.cli.options import NO_OPTIONS, Options, examples
from lingpai.cli.output import listing, mark, print_json
from lingpai.cli.server import connect
from lingpai.cli.tables import drop_empty, print_table, swap
from lingpai.cli.times import shown_ago, shown_time
from lingpai.terminal import say

app = App(
    name="events",
    help="See what happened, and try the webhooks.",
    help_epilogue=examples("lingpai events list --since 1d", "lingpai events test-webhook"),
)

PATH: Final = "/api/v1/events"


@app.command(
    name="list",
    help_epilogue=examples(
        "lingpai events list",
        "lingpai events list --type limit.threshold --since 7d",
        "lingpai events list --json",
    ),
)
def list_(
    *,
    type: Annotated[  # noqa: A002  the name of the option
        str | None, Parameter(name="--type", help="Only events of this type, such as limit.threshold.")
    ] = None,
    since: Annotated[str | None, Parameter(help="Only events since then: 7d, 12h or a date.")] = None,
    limit: Annotated[int, Parameter(help="The most events to show, up to 200.")] = 50,
    options: Options = NO_OPTIONS,
) -> None:
    """List events, the newest first."""
    wanted = {"type": type, "since": since, "limit": limit}
    query = {name: value for name, value in wanted.items() if value is not None}
    with connect(options) as client:
        events = client.request("GET", PATH, params=query)["data"]
    if options.as_json:
        print_json(events)
    elif events:
        narrower = (
            swap("when", [shown_ago(event["occurred_at"]) for event in events]),
            drop_empty("webhooks"),
        )
        headers = ("when", "type", "webhooks", "message")
        print_table(headers, [_row(event) for event in events], narrower=narrower, prose="message")
    else:
        say("Nothing has happened that an event tells of.")


@app.command(name="test-webhook", help_epilogue=examples("lingpai events test-webhook"))
def try_webhooks(*, options: Options = NO_OPTIONS) -> int:
    """Send a test message to every webhook in lingpai.toml and show what was answered. Exit code 1 when one failed."""
    with connect(options) as client:
        trials = client.request("POST", f"{PATH}/test-webhook")["data"]
    if options.as_json:
        print_json(trials)
    elif trials:
        print_table(("", "webhook", "answer", "ms"), [_trial_row(trial) for trial in trials], right=("ms",))
    if not trials:
        say("There are no webhooks. Add [[events.webhooks]] to lingpai.toml and start the server again.")
    return 0 if trials and all(trial["ok"] for trial in trials) else 1


def _row(event: dict[str, Any]) -> tuple[str | None, ...]:
    return shown_time(event["occurred_at"]), event["type"], _deliveries(event), event["message"]


def _deliveries(event: dict[str, Any]) -> str:
    """Such as “2 delivered, 1 given up”."""
    counts = Counter(delivery["state"].replace("_", " ") for delivery in event.get("webhooks", ()))
    return listing(f"{count} {state}" for state, count in sorted(counts.items()))


def _trial_row(trial: dict[str, Any]) -> tuple[str | float | Text, ...]:
    return mark("ok" if trial["ok"] else "failed"), trial["webhook"], trial["detail"], trial["ms"]
