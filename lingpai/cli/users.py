"""`lingpai users`: the people and teams that own keys."""

from typing import Annotated, Any, Final, Literal

from cyclopts import App, Parameter

from lingpai.cli.options import NO_OPTIONS, Options, examples
from lingpai.cli.output import listing, print_json, say
from lingpai.cli.server import all_pages, connect, segment
from lingpai.cli.tables import drop, print_table, swap
from lingpai.cli.times import shown_ago, shown_time

app = App(
    name="users",
    help="Manage the users who own keys.",
    help_epilogue=examples("lingpai users create alice", "lingpai users list", "lingpai users disable alice"),
)

PATH: Final = "/api/v1/users"

UserName = Annotated[str, Parameter(help="The user's name or id.")]


@app.command(
    help_epilogue=examples(
        "lingpai users create alice",
        "lingpai users create alice --limit 2000/day@Asia/Shanghai",
        "lingpai users create carol --role admin --limit none",
    )
)
def create(
    name: Annotated[str, Parameter(help="The new user's name.")],
    /,
    *,
    role: Annotated[
        Literal["admin", "member"] | None, Parameter(help="An admin sees everybody's things (else member).")
    ] = None,
    limit: Annotated[
        tuple[str, ...],
        Parameter(
            help="A limit that all keys of the user share, or none (else the server's default). Repeatable."
        ),
    ] = (),
    options: Options = NO_OPTIONS,
) -> None:
    """Make a user."""
    body = {"name": name, **({"role": role} if role else {}), **({"limits": limit} if limit else {})}
    with connect(options) as client:
        made = client.request("POST", PATH, json=body)
    if options.as_json:
        print_json(made)
        return
    limits = listing(made["limits"], empty="no limits")
    say(f"Made user {made['name']} ({made['role']}): {limits}.")
    say(f"A key for it: lingpai keys create NAME --user {made['name']}")


@app.command(name="list", help_epilogue=examples("lingpai users list", "lingpai users list --json"))
def list_(
    *,
    search: Annotated[str | None, Parameter(help="Only users with this text in their name.")] = None,
    state: Annotated[
        Literal["active", "disabled"] | None, Parameter(help="Only users in this state.")
    ] = None,
    options: Options = NO_OPTIONS,
) -> None:
    """List the users."""
    with connect(options) as client:
        users = all_pages(client, PATH, {"search": search, "state": state, "limit": 200})
    if options.as_json:
        print_json(users)
    else:
        narrower = (swap("created", [shown_ago(user["created_at"]) for user in users]), drop("id", "created"))
        headers = ("name", "role", "state", "limits", "created", "id")
        print_table(headers, [_row(user) for user in users], narrower=narrower)


@app.command(help_epilogue=examples("lingpai users disable alice"))
def disable(user: UserName, /, *, options: Options = NO_OPTIONS) -> None:
    """Turn off a user and all of its keys at once; `enable` turns them on again."""
    _switch(user, disabled=True, options=options)


@app.command(help_epilogue=examples("lingpai users enable alice"))
def enable(user: UserName, /, *, options: Options = NO_OPTIONS) -> None:
    """Turn a disabled user on again."""
    _switch(user, disabled=False, options=options)


def _switch(user: str, *, disabled: bool, options: Options) -> None:
    with connect(options) as client:
        changed = client.request("PATCH", f"{PATH}/{segment(user)}", json={"disabled": disabled})
    say(f"{'Disabled' if disabled else 'Enabled'} user {changed['name']}.")
    if options.as_json:
        print_json(changed)


def _row(user: dict[str, Any]) -> tuple[str | None, ...]:
    state = "disabled" if user["disabled"] else "enabled"
    limits = listing(user["limits"], empty="none")
    return user["name"], user["role"], state, limits, shown_time(user["created_at"]), user["id"]
