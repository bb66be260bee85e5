"""`lingpai keys`: make and manage API keys."""

from typing import Annotated, Any, Final, Literal

from cyclopts import App, Parameter

from lingpai.cli import credentials
from lingpai.cli.credentials import DEFAULTS, KEY, Wishes, print_secret
from lingpai.cli.options import NO_OPTIONS, Options, examples
from lingpai.cli.output import Cell, listing, print_json
from lingpai.cli.server import all_pages, connect
from lingpai.cli.tables import print_details, print_table
from lingpai.cli.times import shown_time
from lingpai.terminal import say

app = App(
    name="keys",
    help="Make and manage API keys.",
    help_epilogue=examples("lingpai keys create my-app", "lingpai keys list", "lingpai keys disable my-app"),
)

app.command(
    "lingpai.cli.key_leaks:scan",
    name="scan",
    help="Find keys, tokens and secrets in files; exit code 1 when there are any. None is printed, and no server is asked.",
    help_epilogue=examples("lingpai keys scan .", "lingpai keys scan ~/notes app.log --json"),
)
app.command(
    "lingpai.cli.key_leaks:report_leaked",
    name="report-leaked",
    help="Report the keys, tokens and secrets in a text on stdin as leaked: those that work end at once.",
    help_epilogue=examples("lingpai keys report-leaked < found.txt"),
)
app.command(
    "lingpai.cli.signing_keys:app",
    name="signing-keys",
    help="Make and manage the keys that requests are signed with (RFC 9421).",
)

# What `--json` promises (design.md §8), in this order.
CREATED_FIELDS: Final = (
    "id", "name", "key", "user", "scopes", "models", "limits", "allowed_ips", "expires_at", "created_at",
)  # fmt: skip

KeyName = Annotated[str, Parameter(help="The key's name or id.")]


@app.command(
    help_epilogue=examples(
        "lingpai keys create my-app",
        "KEY=$(lingpai keys create my-app)",
        "lingpai keys create nightly --limit 2000/day --limit 10/1s --expires 90d",
        "lingpai keys create partner --model 'acme/*' --allow-ip 203.0.113.0/24",
        "lingpai keys create indexer --project search",
        "lingpai keys create dashboards --scope usage:read --json",
    )
)
def create(
    name: Annotated[str, Parameter(help="What the key is for.")],
    /,
    *,
    wishes: Wishes = DEFAULTS,
    options: Options = NO_OPTIONS,
) -> None:
    """Make a key and print it, this once.

    The key stands alone on stdout, so that a variable can take it; everything else goes to stderr.
    """
    body = {"name": name, **wishes.body()}
    with connect(options) as client:
        made = client.request("POST", KEY.path, json=body)
    if options.as_json:
        print_json({field: made.get(field) for field in CREATED_FIELDS})
        return
    words = f"Key {made['name']} ({made['id']}) of user {made['user']}: {credentials.summary(made)}."
    print_secret(words, made["key"])


@app.command(
    name="list",
    help_epilogue=examples(
        "lingpai keys list", "lingpai keys list --user alice", "lingpai keys list --state disabled"
    ),
)
def list_(
    *,
    user: Annotated[str | None, Parameter(help="Only this user's keys.")] = None,
    project: Annotated[str | None, Parameter(help="Only this project's keys.")] = None,
    search: Annotated[str | None, Parameter(help="Only keys with this text in their name.")] = None,
    scope: Annotated[str | None, Parameter(help="Only keys that hold this scope.")] = None,
    state: Annotated[
        Literal["active", "disabled", "expired"] | None, Parameter(help="Only keys in this state.")
    ] = None,
    options: Options = NO_OPTIONS,
) -> None:
    """List the keys. A key's secret cannot be shown again; its hint helps to recognize it."""
    query = {"user": user, "project": project, "search": search, "scope": scope, "state": state}
    with connect(options) as client:
        keys = all_pages(client, KEY.path, {**query, "limit": 200})
    if options.as_json:
        print_json(keys)
    elif keys:
        headers = ("name", "user", "id", "hint", "state", "limits", "expires", "last used")
        # The hint is only for those who look for a secret; the id says no more than a name, so it goes last.
        narrower = credentials.narrower(keys, least=["hint"], last=["id"])
        print_table(headers, [_row(key) for key in keys], narrower=narrower)
    else:
        say("There are no keys. Make one with `lingpai keys create NAME`.")


@app.command(help_epilogue=examples("lingpai keys show my-app", "lingpai keys show my-app --json"))
def show(key: KeyName, /, *, options: Options = NO_OPTIONS) -> None:
    """Show what a key may do and when it was used."""
    with connect(options) as client:
        found = client.request("GET", KEY.address(key))
    if options.as_json:
        print_json(found)
    else:
        print_details(_details(found))


@app.command(
    help_epilogue=examples(
        "lingpai keys rotate my-app",
        "NEW=$(lingpai keys rotate my-app --overlap 7d)",
        "lingpai keys rotate my-app --overlap 0s",
    )
)
def rotate(
    key: KeyName,
    /,
    *,
    overlap: Annotated[
        str | None,
        Parameter(help="How long the present secret works beside the new one: 0s to 30d (else 24h)."),
    ] = None,
    options: Options = NO_OPTIONS,
) -> None:
    """Give a key a new secret and print it, this once. Id, rights, limits and usage stay.

    The secret before it works until the overlap is over; one that was still left from an earlier rotation ends at once.
    """
    with connect(options) as client:
        rotated = client.request(
            "POST", f"{KEY.address(key)}/rotate", json={} if overlap is None else {"overlap": overlap}
        )
    if options.as_json:
        print_json({field: rotated.get(field) for field in (*CREATED_FIELDS, "secrets")})
        return
    words = f"Key {rotated['name']} ({rotated['id']}) has a new secret. {_end_of_old(rotated)}"
    print_secret(words, rotated["key"])


@app.command(help_epilogue=examples("lingpai keys disable my-app"))
def disable(key: KeyName, /, *, options: Options = NO_OPTIONS) -> None:
    """Turn a key off at once; `enable` turns it on again."""
    credentials.switch(KEY, key, disabled=True, options=options)


@app.command(help_epilogue=examples("lingpai keys enable my-app"))
def enable(key: KeyName, /, *, options: Options = NO_OPTIONS) -> None:
    """Turn a disabled key on again."""
    credentials.switch(KEY, key, disabled=False, options=options)


@app.command(
    help_epilogue=examples(
        "lingpai keys require-signature my-app", "lingpai keys require-signature my-app --lift"
    )
)
def require_signature(
    key: KeyName,
    /,
    *,
    lift: Annotated[
        bool, Parameter(help="Accept unsigned requests again; for administrators.", negative="")
    ] = False,
    options: Options = NO_OPTIONS,
) -> None:
    """Accept a key with signed requests only, from the next call on."""
    credentials.require_signature(KEY, key, lift=lift, options=options)


@app.command(help_epilogue=examples("lingpai keys delete my-app", "lingpai keys delete my-app --yes"))
def delete(
    key: KeyName,
    /,
    *,
    yes: Annotated[bool, Parameter(help="Do not ask.")] = False,
    options: Options = NO_OPTIONS,
) -> int:
    """Delete a key for good. Programs that use it get 401 from then on; its usage stays."""
    return credentials.delete_for_good(KEY, key, yes=yes, options=options)


def _row(key: dict[str, Any]) -> tuple[Cell, ...]:
    return (
        key["name"],
        key["user"],
        key["id"],
        key.get("hint"),
        credentials.state(key),
        listing(key["limits"]),
        *credentials.times(key),
    )


def _old_secret(key: dict[str, Any]) -> dict[str, Any] | None:
    """The secret before the last rotation, while it works."""
    return next((each for each in key.get("secrets", []) if each["expires_at"]), None)


def _end_of_old(key: dict[str, Any]) -> str:
    old = _old_secret(key)
    if old is None:
        return "The one before it has ended."
    return f"The one before it ({old['hint']}) works until {shown_time(old['expires_at'])}."


def _shown_old(key: dict[str, Any]) -> str | None:
    old = _old_secret(key)
    if old is None:
        return None
    used = shown_time(old["last_used_at"]) or "never"
    return f"{old['hint']}, works until {shown_time(old['expires_at'])}; last used {used}"


def _details(key: dict[str, Any]) -> dict[str, str | None]:
    return {
        "name": key["name"],
        "id": key["id"],
        "hint": key.get("hint"),
        "user": key["user"],
        "project": key.get("project"),
        "state": credentials.why(key),
        **credentials.restrictions(key),
        "last used": credentials.last_used(key),
        **({"old secret": _shown_old(key)} if _old_secret(key) else {}),
    }
