"""`lingpai keys`: make and manage API keys."""

from typing import Annotated, Any, Final

from cyclopts import App, Parameter

from lingpai.cli import credentials
from lingpai.cli.credentials import DEFAULTS, Kind, Wishes, print_secret
from lingpai.cli.options import NO_OPTIONS, Options, examples
from lingpai.cli.output import listing, print_json, say
from lingpai.cli.server import all_pages, connect
from lingpai.cli.tables import print_details, print_table

app = App(
    name="keys",
    help="Make and manage API keys.",
    help_epilogue=examples("lingpai keys create my-app", "lingpai keys list", "lingpai keys disable my-app"),
)

KEY: Final = Kind("key", "/api/v1/keys", "id")

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
    with connect(options) as client:
        made = client.request("POST", KEY.path, json={"name": name, **wishes.body()})
    if options.as_json:
        print_json({field: made.get(field) for field in CREATED_FIELDS})
        return
    words = f"Key {made['name']} ({made['id']}) of user {made['user']}: {credentials.summary(made)}."
    print_secret(words, made["key"])


@app.command(
    name="list",
    help_epilogue=examples("lingpai keys list", "lingpai keys list --user alice", "lingpai keys list --json"),
)
def list_(
    *,
    user: Annotated[str | None, Parameter(help="Only this user's keys.")] = None,
    project: Annotated[str | None, Parameter(help="Only this project's keys.")] = None,
    options: Options = NO_OPTIONS,
) -> None:
    """List the keys. A key's secret cannot be shown again; its hint helps to recognize it."""
    with connect(options) as client:
        keys = all_pages(client, KEY.path, {"user": user, "project": project, "limit": 200})
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


@app.command(help_epilogue=examples("lingpai keys disable my-app"))
def disable(key: KeyName, /, *, options: Options = NO_OPTIONS) -> None:
    """Turn a key off at once; `enable` turns it on again."""
    credentials.switch(KEY, key, disabled=True, options=options)


@app.command(help_epilogue=examples("lingpai keys enable my-app"))
def enable(key: KeyName, /, *, options: Options = NO_OPTIONS) -> None:
    """Turn a disabled key on again."""
    credentials.switch(KEY, key, disabled=False, options=options)


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


def _row(key: dict[str, Any]) -> tuple[Any, ...]:
    state, limits = credentials.state(key), listing(key["limits"])
    return key["name"], key["user"], key["id"], key.get("hint"), state, limits, *credentials.times(key)


def _details(key: dict[str, Any]) -> dict[str, str | None]:
    return {
        "name": key["name"],
        "id": key["id"],
        "hint": key.get("hint"),
        "user": key["user"],
        "project": key.get("project"),
        "state": credentials.state(key),
        **credentials.restrictions(key),
        "last used": credentials.last_used(key),
    }
