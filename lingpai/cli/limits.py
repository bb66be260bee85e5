"""`lingpai limits`: what keys and users may use, and what is left."""

from typing import Annotated, Any, Final, Literal

from cyclopts import App, Parameter

from lingpai.cli.failures import UsageError
from lingpai.cli.options import NO_OPTIONS, Options, examples
from lingpai.cli.output import print_json, say
from lingpai.cli.server import all_pages, connect
from lingpai.cli.tables import print_table, rename, swap
from lingpai.cli.times import shown_ago, shown_time

app = App(
    name="limits",
    help="Set limits and see what is left of them.",
    help_epilogue=examples("lingpai limits list", "lingpai limits set user alice 2000/day@Asia/Shanghai"),
)

PATH: Final = "/api/v1/limits"


@app.command(
    name="set",
    help_epilogue=examples(
        "lingpai limits set user alice 2000/day@Asia/Shanghai",
        "lingpai limits set key my-app 10/1s 500/hour",
        "lingpai limits set key my-app none",
    ),
)
def set_(
    subject: Annotated[
        Literal["key", "user"], Parameter(help="Whose limits: a key's, or a user's (shared by all keys).")
    ],
    name: Annotated[str, Parameter(help="The name or id of the key or user.")],
    /,
    *limits: Annotated[
        str, Parameter(help="AMOUNT/WINDOW[@TIMEZONE], such as 2000/day@Asia/Shanghai; or none.")
    ],
    options: Options = NO_OPTIONS,
) -> None:
    """Replace the limits of a key or a user. What was used in the current window stays used."""
    if not limits:
        raise UsageError("Give at least one limit (2000/day@Asia/Shanghai), or none for no limit at all.")
    wanted = [] if limits == ("none",) else list(limits)
    with connect(options) as client:
        answer = client.request("PUT", PATH, json={"subject": subject, "id": name, "limits": wanted})
    _print_limits(answer["data"], options, nothing=_without(subject, name, now=" now"))


@app.command(
    name="list",
    help_epilogue=examples(
        "lingpai limits list", "lingpai limits list --key my-app", "lingpai limits list --user alice --json"
    ),
)
def list_(
    *,
    key: Annotated[str | None, Parameter(help="Only this key's limits.")] = None,
    user: Annotated[str | None, Parameter(help="Only this user's limits.")] = None,
    options: Options = NO_OPTIONS,
) -> None:
    """List the limits, what is left, and when they reset."""
    with connect(options) as client:
        limits = all_pages(client, PATH, {"key": key, "user": user})
    nothing = "No limits are set."
    if key is not None:
        nothing = _without("key", key)
    elif user is not None:
        nothing = _without("user", user)
    _print_limits(limits, options, nothing=nothing)


def _without(subject: str, name: str, *, now: str = "") -> str:
    """That there is nothing to show, and what may still stop a key."""
    if subject == "key":
        return f"Key {name} has no limits of its own{now}; those of its user may apply."
    return f"User {name} has no limits{now}."


def _print_limits(limits: list[dict[str, Any]], options: Options, *, nothing: str) -> None:
    if options.as_json:
        print_json(limits)
    elif limits:
        headers = ("subject", "name", "limit", "used", "remaining", "resets")
        narrower = (
            rename({"remaining": "left"}),
            swap("resets", [shown_ago(limit.get("resets_at")) for limit in limits]),
        )
        rows = [_row(limit) for limit in limits]
        print_table(headers, rows, right=("used", "remaining", "left"), narrower=narrower)
    else:
        say(nothing)


def _row(limit: dict[str, Any]) -> tuple[Any, ...]:
    resets = shown_time(limit.get("resets_at"))
    return (
        limit["subject"],
        limit.get("name"),
        limit["limit"],
        limit.get("used"),
        limit.get("remaining"),
        resets,
    )
