"""`lingpai limits`: what keys, clients, users, projects and models may use, what is left, and what applies to a call."""

from typing import Annotated, Any, Final, Literal

from cyclopts import App, Parameter

from lingpai.cli.failures import UsageError
from lingpai.cli.options import NO_OPTIONS, Options, examples
from lingpai.cli.output import Cell, bar, print_json, print_line
from lingpai.cli.server import all_pages, connect
from lingpai.cli.tables import Step, drop, print_details, print_table, rename, swap
from lingpai.cli.times import shown_ago, shown_time
from lingpai.terminal import say

app = App(
    name="limits",
    help="Set limits, see what is left of them, and find out what applies to a call.",
    help_epilogue=examples(
        "lingpai limits list",
        "lingpai limits set user alice 2000/day@Asia/Shanghai",
        "lingpai limits explain my-app --model lingpai/eliza",
    ),
)

PATH: Final = "/api/v1/limits"
BAR_WIDTH: Final = 10
WITHOUT_RESET: Final = "when a call ends"  # concurrent calls

_WORDS: Final[dict[str, list[str] | None]] = {"none": [], "default": None}


@app.command(
    name="set",
    help_epilogue=examples(
        "lingpai limits set user alice 2000/day@Asia/Shanghai",
        "lingpai limits set key my-app 10/1s 500/hour",
        "lingpai limits set client nightly '100000 tokens/day'",
        "lingpai limits set project search '5 USD/month' '3 CNY/1h'",
        "lingpai limits set model acme/chat '8 concurrent wait 30s'",
        "lingpai limits set user-model '*' acme/chat '10/1s wait 5s'",
        "lingpai limits set user-model alice acme/chat default",
        "lingpai limits set key my-app none",
    ),
)
def set_(
    subject: Annotated[
        Literal["key", "client", "user", "project", "model", "user-model"],
        Parameter(
            help="Whose limits: a key's; an OAuth client's (shared by all its tokens); a user's or a project's (shared by all its keys); a model's (shared by all"
            " callers); or a user's on one model."
        ),
    ],
    name: Annotated[
        str,
        Parameter(
            help="Its name or id. For user-model the user, or * for each user separately, then the model."
        ),
    ],
    /,
    *limits: Annotated[
        str,
        Parameter(
            help="AMOUNT [tokens|USD|CNY]/WINDOW[@TIMEZONE] or N concurrent, either with wait DURATION; or none;"
            " or default for what lingpai.toml (or *) says."
        ),
    ],
    options: Options = NO_OPTIONS,
) -> None:
    """Replace the limits of a key, client, user, project or model, from the next call on. What was used stays used."""
    body: dict[str, Any] = {"subject": subject, "id": name}
    if subject == "user-model":
        if not limits:
            raise UsageError("Give the user, the model and at least one limit: alice acme/chat 100/day.")
        body = {"subject": "user_model", "user": name, "model": limits[0]}
        name, limits = f"{name} on {limits[0]}", limits[1:]
    if not limits:
        raise UsageError("Give at least one limit (2000/day@Asia/Shanghai), or none for no limit at all.")
    word = limits[0] if len(limits) == 1 else ""
    body["limits"] = _WORDS.get(word, list(limits))
    with connect(options) as server:
        answer = server.request("PUT", PATH, json=body)
    if answer.get("warning"):
        say(answer["warning"])
    _print_limits(answer["data"], options, nothing=_without(subject, name, now=" now"))


@app.command(
    name="list",
    help_epilogue=examples(
        "lingpai limits list",
        "lingpai limits list --key my-app",
        "lingpai limits list --user alice --json",
        "lingpai limits list --model acme/chat",
    ),
)
def list_(
    *,
    key: Annotated[str | None, Parameter(help="This key's limits.")] = None,
    client: Annotated[str | None, Parameter(help="This OAuth client's limits.")] = None,
    user: Annotated[
        str | None, Parameter(help="This user's limits, those on single models included.")
    ] = None,
    project: Annotated[str | None, Parameter(help="This project's limits.")] = None,
    model: Annotated[
        str | None, Parameter(help="This model's limits, those of users on it included.")
    ] = None,
    search: Annotated[
        str | None, Parameter(help="Only limits of those with this text in their name.")
    ] = None,
    options: Options = NO_OPTIONS,
) -> None:
    """List the limits, what is left, and when they reset."""
    wanted = {"key": key, "client": client, "user": user, "project": project, "model": model}
    with connect(options) as server:
        limits = all_pages(server, PATH, {**wanted, "search": search})
    named = [(subject, name) for subject, name in wanted.items() if name is not None]
    nothing = _without(*named[0]) if named else "No limits are set."
    _print_limits(limits, options, nothing=nothing)


@app.command(
    help_epilogue=examples(
        "lingpai limits explain my-app",
        "lingpai limits explain my-app --model lingpai/eliza",
        "lingpai limits explain --client nightly",
        "lingpai limits explain my-app --json",
    )
)
def explain(
    key: Annotated[
        str | None, Parameter(help="The key's name or id (else the one in LINGPAI_API_KEY).")
    ] = None,
    /,
    *,
    client: Annotated[str | None, Parameter(help="Instead of a key: an OAuth client, by name or id.")] = None,
    model: Annotated[str | None, Parameter(help="The model that is called, by id or alias.")] = None,
    options: Options = NO_OPTIONS,
) -> None:
    """Show every limit that applies to a call: where it comes from, what is left, which is tightest."""
    if key is not None and client is not None:
        raise UsageError("A call has a key or a client. Name one of both.")
    wishes = {"key": key, "client": client, "model": model}
    params = {name: value for name, value in wishes.items() if value is not None}
    with connect(options) as server:
        answer = server.request("GET", f"{PATH}/explain", params=params)
    if options.as_json:
        print_json(answer)
    else:
        _print_explanation(answer)


def _without(subject: str, name: str, *, now: str = "") -> str:
    """That there is nothing to show, and what may still stop a call."""
    if subject in {"key", "client"}:
        named = name if subject == "key" else f"--client {name}"
        return (
            f"{subject.capitalize()} {name} has no limits of its own{now}; "
            f"`lingpai limits explain {named}` shows what applies to it."
        )
    return f"{subject.replace('-model', '').capitalize()} {name} has no limits{now}."


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
        limit["subject"].replace("_", "-"),
        limit.get("name"),
        limit["limit"],
        limit.get("used"),
        limit.get("remaining"),
        resets,
    )


def _print_explanation(answer: dict[str, Any]) -> None:
    limits = answer["data"]
    if limits:
        headers = ("for", "limit", "left", "of it", "used", "held", "resets")
        rows = [_explained_row(limit) for limit in limits]
        print_table(headers, rows, right=("left", "used", "held"), narrower=_narrower(limits))
        print_line("")
        print_details({f"{_who(limit)}, {limit['limit']}": limit["why"] for limit in limits})
    for subject in answer["unlimited"]:
        print_line(subject["why"].replace("`", ""))
    say(answer["summary"])


def _explained_row(limit: dict[str, Any]) -> tuple[Cell, ...]:
    if not limit["applies"]:
        return (_who(limit), limit["limit"], limit["remaining"], "does not count", limit["used"], None, None)
    resets = shown_time(limit["resets_at"]) or WITHOUT_RESET
    return (
        _who(limit),
        limit["limit"],
        limit["remaining"],
        bar(_share_left(limit), width=BAR_WIDTH) or " ",
        limit["used"],
        limit["reserved"],
        resets,
    )


def _narrower(limits: list[dict[str, Any]]) -> tuple[Step, ...]:
    """What calls under way hold is rarely asked for; a time in words is shorter than a date."""
    return (
        drop("held"),
        swap("resets", [shown_ago(limit["resets_at"]) or WITHOUT_RESET for limit in limits]),
        drop("used"),
        drop("of it"),
    )


def _who(limit: dict[str, Any]) -> str:
    kind = "user" if limit["subject"] == "user_model" else limit["subject"]
    return f"{kind} {limit['name']}"


def _share_left(limit: dict[str, Any]) -> float:
    """How much of the limit is left, 0 to 1. Money comes as decimal text."""
    left, used = float(limit["remaining"]), float(limit["used"])
    return left / (left + used) if left > 0 else 0.0
