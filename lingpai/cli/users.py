"""`lingpai users`: the people and teams that own keys."""

import os
import sys
from typing import Annotated, Any, Final, Literal

from cyclopts import App, Parameter

from lingpai.cli.failures import UsageError
from lingpai.cli.options import NO_OPTIONS, Options, examples
from lingpai.cli.output import listing, print_json, print_line
from lingpai.cli.passwords import PasswordStdin, read_password
from lingpai.cli.server import all_pages, connect, segment
from lingpai.cli.tables import drop, print_table, swap
from lingpai.cli.times import shown_ago, shown_time
from lingpai.terminal import say

app = App(
    name="users",
    help="Manage the users who own keys.",
    help_epilogue=examples("lingpai users create alice", "lingpai users invite alice", "lingpai users list"),
)

PATH: Final = "/api/v1/users"

UserName = Annotated[str, Parameter(help="The user's name or id.")]


@app.command(
    help_epilogue=examples(
        "lingpai users create alice",
        "lingpai users create alice --limit 2000/day@Asia/Shanghai",
        "lingpai users create carol --role admin --limit none",
        "lingpai users create dave --password-stdin < password.txt",
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
    password_stdin: PasswordStdin = False,
    options: Options = NO_OPTIONS,
) -> None:
    """Make a user. Without a password they can use keys; `lingpai users invite` lets them choose one."""
    body = {"name": name, **({"role": role} if role else {}), **({"limits": limit} if limit else {})}
    if password_stdin:
        body["password"] = read_password(from_stdin=True)
    with connect(options) as client:
        made = client.request("POST", PATH, json=body)
    if options.as_json:
        print_json(made)
        return
    limits = listing(made["limits"], empty="no limits")
    say(f"Made user {made['name']} ({made['role']}): {limits}.")
    say(f"A key for it: lingpai keys create NAME --user {made['name']}")
    if not made["has_password"]:
        say(f"Let them sign in: lingpai users invite {made['name']}")


@app.command(
    help_epilogue=examples(
        "lingpai users invite alice", "lingpai users invite admin", "lingpai users invite alice --json"
    )
)
def invite(user: UserName, /, *, options: Options = NO_OPTIONS) -> None:
    """Make an invitation, with which a user chooses a password, once. It replaces one from before, and a forgotten password."""
    with connect(options) as client:
        made = client.request("POST", f"{PATH}/{segment(user)}/invitation")
    if options.as_json:
        print_json(made)
        return
    server = (options.server or os.environ.get("LINGPAI_SERVER") or "").rstrip("/").removesuffix("/v1")
    print_line(f"{server}{made['path']}#{made['invitation']}")
    where = "" if server else " It begins with the address of this server."
    say(f"{made['user']} can accept it once, until {shown_time(made['expires_at'])}.{where}")
    say("Whoever has it can: send it to nobody else. It is shown only now.")


@app.command(
    name="set-password",
    help_epilogue=examples(
        "lingpai users set-password alice", "lingpai users set-password alice --password-stdin < password.txt"
    ),
)
def set_password(
    user: UserName, /, *, password_stdin: PasswordStdin = False, options: Options = NO_OPTIONS
) -> None:
    """Give a user a new password, on the server's own machine. Ends their sessions and refresh tokens; keys stay."""
    body = {"password": read_password(from_stdin=password_stdin)}
    with connect(options) as client:
        changed = client.request("PUT", f"{PATH}/{segment(user)}/password", json=body)
    say(f"Set the password of {user}. All of their sessions have ended.")
    if options.as_json:
        print_json(changed)


@app.command(name="sign-out", help_epilogue=examples("lingpai users sign-out alice"))
def sign_out(user: UserName, /, *, options: Options = NO_OPTIONS) -> None:
    """End all sessions of a user, in whatever browsers, and all programs' sign-ins with their tokens; keys stay."""
    with connect(options) as client:
        outcome = client.request("DELETE", "/api/v1/sessions", params={"user": user})
    say(
        f"Ended {_number(outcome['ended'], 'session')} and {_number(outcome['programs'], 'program')} of {user}."
    )
    if options.as_json:
        print_json(outcome)


@app.command(name="list", help_epilogue=examples("lingpai users list", "lingpai users list --json"))
def list_(
    *,
    search: Annotated[str | None, Parameter(help="Only users with this text in their name.")] = None,
    state: Annotated[
        Literal["active", "disabled"] | None, Parameter(help="Only users in this state.")
    ] = None,
    role: Annotated[Literal["admin", "member"] | None, Parameter(help="Only users with this role.")] = None,
    options: Options = NO_OPTIONS,
) -> None:
    """List the users."""
    with connect(options) as client:
        users = all_pages(client, PATH, {"search": search, "state": state, "role": role, "limit": 200})
    if options.as_json:
        print_json(users)
    else:
        narrower = (swap("created", [shown_ago(user["created_at"]) for user in users]), drop("id", "created"))
        headers = ("name", "role", "state", "limits", "created", "id")
        print_table(headers, [_row(user) for user in users], narrower=narrower)


@app.command(help_epilogue=examples("lingpai users disable alice"))
def disable(user: UserName, /, *, options: Options = NO_OPTIONS) -> None:
    """Turn off a user and all of its keys at once, and end all sessions; `enable` turns them on again."""
    _switch(user, disabled=True, options=options)


@app.command(help_epilogue=examples("lingpai users enable alice"))
def enable(user: UserName, /, *, options: Options = NO_OPTIONS) -> None:
    """Turn a disabled user on again."""
    _switch(user, disabled=False, options=options)


@app.command(help_epilogue=examples("lingpai users delete alice", "lingpai users delete alice --yes"))
def delete(
    user: UserName,
    /,
    *,
    yes: Annotated[bool, Parameter(help="Do not ask.")] = False,
    options: Options = NO_OPTIONS,
) -> int:
    """Delete a user for good, with all keys, clients, tokens and sessions. Usage and audit go on showing them."""
    with connect(options) as client:
        found = client.request("GET", f"{PATH}/{segment(user)}")
        if not yes and not _confirmed(found):
            say("Nothing was deleted.")
            return 1
        client.request("DELETE", f"{PATH}/{segment(found['id'])}")
    say(f"Deleted user {found['name']} ({found['id']}).")
    if options.as_json:
        print_json({"id": found["id"], "name": found["name"], "deleted": True})
    return 0


def _confirmed(user: dict[str, Any]) -> bool:
    if not sys.stdin.isatty():
        raise UsageError(f"Deleting user {user['name']} needs --yes when there is no terminal to ask on.")
    say(f"User {user['name']} ({user['id']}, {user['role']}), with all keys, clients and tokens.")
    print("Delete them for good? [y/N] ", end="", file=sys.stderr, flush=True)
    return sys.stdin.readline().strip().lower() in {"y", "yes"}


def _switch(user: str, *, disabled: bool, options: Options) -> None:
    with connect(options) as client:
        changed = client.request("PATCH", f"{PATH}/{segment(user)}", json={"disabled": disabled})
    say(f"{'Disabled' if disabled else 'Enabled'} user {changed['name']}.")
    if options.as_json:
        print_json(changed)


def _row(user: dict[str, Any]) -> tuple[str | None, ...]:
    state = "disabled" if user["disabled"] else "active"
    limits = listing(user["limits"], empty="none")
    return user["name"], user["role"], state, limits, shown_time(user["created_at"]), user["id"]


def _number(count: int, what: str) -> str:
    return f"{count} {what}{'' if count == 1 else 's'}"
