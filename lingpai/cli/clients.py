"""`lingpai clients`: make and manage OAuth clients."""

from dataclasses import dataclass
from typing import Annotated, Any, Final, Literal

from cyclopts import App, Parameter

from lingpai.cli import credentials
from lingpai.cli.credentials import CLIENT, DEFAULTS, Wishes, print_secret
from lingpai.cli.failures import UsageError
from lingpai.cli.options import NO_OPTIONS, Options, examples
from lingpai.cli.output import listing, print_json, print_line
from lingpai.cli.server import all_pages, connect
from lingpai.cli.tables import print_details, print_table
from lingpai.cli.times import new_expiry, shown_time
from lingpai.terminal import say

app = App(
    name="clients",
    help="Make and manage OAuth clients: programs that get access tokens.",
    help_epilogue=examples(
        "lingpai clients create nightly",
        "lingpai clients list",
        "lingpai clients rotate nightly --overlap 24h",
    ),
)

app.command(
    "lingpai.cli.signing_keys:client_app",
    name="signing-keys",
    help="Make and manage the keys that requests are signed with (RFC 9421).",
)

# What `--json` promises (design.md §8), in this order.
CREATED_FIELDS: Final = (
    "client_id", "client_secret", "name", "user", "project", "grants", "public", "scopes", "models", "limits",
    "allowed_ips", "token_lifetime_s", "expires_at", "created_at",
)  # fmt: skip

_ROTATED_FIELDS: Final = (*CREATED_FIELDS, "rotated_at", "old_expires_at")
_WORDS_FOR_ALL: Final = {"models": ("all",), "allowed_ips": ("any",)}

Grant = Literal["client_credentials", "password", "refresh_token"]
ClientName = Annotated[str, Parameter(help="The client's name or id.")]
TokenLifetime = Annotated[
    int | None, Parameter(help="Seconds its access tokens live (else oauth.access_token_lifetime).")
]


@app.command(
    help_epilogue=examples(
        "lingpai clients create nightly",
        "SECRET=$(lingpai clients create nightly)",
        "lingpai clients create nightly --limit 2000/day --expires 90d",
        "lingpai clients create indexer --project search --model 'acme/*' --json",
        "lingpai clients create desktop --public --grant password --grant refresh_token",
    )
)
def create(
    name: Annotated[str, Parameter(help="What the client is for.")],
    /,
    *,
    grant: Annotated[
        tuple[Grant, ...], Parameter(help="How it may get tokens (else client_credentials). Repeatable.")
    ] = (),
    public: Annotated[
        bool, Parameter(help="Without a secret: for programs on other people's machines.")
    ] = False,
    token_lifetime: TokenLifetime = None,
    wishes: Wishes = DEFAULTS,
    options: Options = NO_OPTIONS,
) -> None:
    """Make a client and print its secret, this once.

    The secret stands alone on stdout, so that a variable can take it; the client's id and everything else goes to stderr.
    A public client has no secret, and its id is on stdout instead.
    """
    own = {"grants": list(grant) or None, "public": public or None, "token_lifetime_s": token_lifetime}
    given = {field: value for field, value in own.items() if value is not None}
    body = {"name": name, **given, **wishes.body()}
    with connect(options) as server:
        made = server.request("POST", CLIENT.path, json=body)
    if options.as_json:
        print_json({field: made.get(field) for field in CREATED_FIELDS})
        return
    grants = listing(made["grants"])
    words = f"Client {made['name']} ({made['client_id']}) of user {made['user']}: {grants}; {credentials.summary(made)}."
    if made["client_secret"] is None:
        say(f"{words} It is public: it has no secret.")
        print_line(made["client_id"])
        return
    print_secret(words, made["client_secret"])


@app.command(
    name="list",
    help_epilogue=examples(
        "lingpai clients list", "lingpai clients list --user alice", "lingpai clients list --state disabled"
    ),
)
def list_(
    *,
    user: Annotated[str | None, Parameter(help="Only this user's clients.")] = None,
    project: Annotated[str | None, Parameter(help="Only this project's clients.")] = None,
    search: Annotated[str | None, Parameter(help="Only clients with this text in their name.")] = None,
    scope: Annotated[str | None, Parameter(help="Only clients that hold this scope.")] = None,
    state: Annotated[
        Literal["active", "disabled", "expired"] | None, Parameter(help="Only clients in this state.")
    ] = None,
    options: Options = NO_OPTIONS,
) -> None:
    """List the clients. A secret cannot be shown again; its hint helps to recognize it."""
    query = {"user": user, "project": project, "search": search, "scope": scope, "state": state}
    with connect(options) as server:
        clients = all_pages(server, CLIENT.path, {**query, "limit": 200})
    if options.as_json:
        print_json(clients)
    elif clients:
        headers = ("name", "user", "client id", "hint", "grants", "state", "limits", "expires", "last used")
        # Programs are set up with the id, so that stays as long as it can.
        narrower = credentials.narrower(clients, least=["hint", "grants"], last=["limits", "user"])
        print_table(headers, [_row(client) for client in clients], narrower=narrower)
    else:
        say("There are no clients. Make one with `lingpai clients create NAME`.")


@app.command(help_epilogue=examples("lingpai clients show nightly", "lingpai clients show nightly --json"))
def show(client: ClientName, /, *, options: Options = NO_OPTIONS) -> None:
    """Show what a client may do, how it gets tokens and when they were used."""
    with connect(options) as server:
        found = server.request("GET", CLIENT.address(client))
    if options.as_json:
        print_json(found)
    else:
        print_details(_details(found))


@Parameter(name="*")
@dataclass(frozen=True, slots=True, kw_only=True)
class Changes:
    """What to change. What is given replaces what was there; the rest stays."""

    name: Annotated[str | None, Parameter(help="Another name.")] = None
    grant: Annotated[tuple[Grant, ...], Parameter(help="How it may get tokens. Repeatable.")] = ()
    scope: Annotated[tuple[str, ...], Parameter(help="What it may do. Repeatable.")] = ()
    model: Annotated[
        tuple[str, ...], Parameter(help="A model it may call, owner/*, or all. Repeatable.")
    ] = ()
    limit: Annotated[tuple[str, ...], Parameter(help="A limit such as 2000/day, or none. Repeatable.")] = ()
    allow_ip: Annotated[
        tuple[str, ...], Parameter(help="An address or network it may be used from, or any. Repeatable.")
    ] = ()
    token_lifetime: Annotated[
        int | Literal["default"] | None,
        Parameter(help="Seconds its access tokens live, or default for oauth.access_token_lifetime."),
    ] = None
    expires: Annotated[str | None, Parameter(help="When it ends: 90d, 12h, a date, or never.")] = None

    def body(self) -> dict[str, Any]:
        """The fields of the API that change. Raises `UsageError` when there are none."""
        given = {
            "grants": self.grant,
            "scopes": self.scope,
            "models": self.model,
            "limits": self.limit,
            "allowed_ips": self.allow_ip,
        }
        body: dict[str, Any] = {
            field: [] if values == _WORDS_FOR_ALL.get(field) else list(values)
            for field, values in given.items()
            if values
        }
        if self.name is not None:
            body["name"] = self.name
        if self.token_lifetime is not None:
            is_number = isinstance(self.token_lifetime, int)
            body["token_lifetime_s"] = self.token_lifetime if is_number else None
        if self.expires is not None:
            body["expires_at"] = new_expiry(self.expires)
        if not body:
            raise UsageError(
                "Say what to change, such as --limit 2000/day. See `lingpai clients update --help`."
            )
        return body


NOTHING: Final = Changes()


@app.command(
    help_epilogue=examples(
        "lingpai clients update nightly --limit 500/day --token-lifetime 900",
        "lingpai clients update nightly --model 'acme/*' --allow-ip 203.0.113.0/24",
        "lingpai clients update nightly --name hourly --expires never",
    )
)
def update(client: ClientName, /, *, changes: Changes = NOTHING, options: Options = NO_OPTIONS) -> None:
    """Change a client. Its tokens obey the change from the next call on."""
    body = changes.body()
    with connect(options) as server:
        changed = server.request("PATCH", CLIENT.address(client), json=body)
    say(f"Changed {CLIENT.label(changed)}: {listing(changed['grants'])}; {credentials.summary(changed)}.")
    if options.as_json:
        print_json(changed)


@app.command(
    help_epilogue=examples(
        "lingpai clients rotate nightly",
        "SECRET=$(lingpai clients rotate nightly --overlap 1h)",
        "lingpai clients rotate nightly --overlap 0s",
    )
)
def rotate(
    client: ClientName,
    /,
    *,
    overlap: Annotated[
        str | None, Parameter(help="How long the present secret goes on working: 0s to 30d (else 24h).")
    ] = None,
    options: Options = NO_OPTIONS,
) -> None:
    """Replace the secret and print the new one, this once. Tokens that are out stay good."""
    body = {} if overlap is None else {"overlap": overlap}
    with connect(options) as server:
        made = server.request("POST", f"{CLIENT.address(client)}/rotate", json=body)
    if options.as_json:
        print_json({field: made.get(field) for field in _ROTATED_FIELDS})
        return
    until = shown_time(made["old_expires_at"])
    words = f"works until {until}" if until else "has ended"
    print_secret(f"Rotated {CLIENT.label(made)}. The secret before {words}.", made["client_secret"])


@app.command(help_epilogue=examples("lingpai clients disable nightly"))
def disable(client: ClientName, /, *, options: Options = NO_OPTIONS) -> None:
    """Turn a client and all of its tokens off at once; `enable` turns them on again."""
    credentials.switch(CLIENT, client, disabled=True, options=options)


@app.command(help_epilogue=examples("lingpai clients enable nightly"))
def enable(client: ClientName, /, *, options: Options = NO_OPTIONS) -> None:
    """Turn a disabled client on again."""
    credentials.switch(CLIENT, client, disabled=False, options=options)


@app.command(
    help_epilogue=examples(
        "lingpai clients require-signature nightly", "lingpai clients require-signature nightly --lift"
    )
)
def require_signature(
    client: ClientName,
    /,
    *,
    lift: Annotated[
        bool, Parameter(help="Accept unsigned requests again; for administrators.", negative="")
    ] = False,
    options: Options = NO_OPTIONS,
) -> None:
    """Accept a client's tokens with signed requests only, from the next call on."""
    credentials.require_signature(CLIENT, client, lift=lift, options=options)


@app.command(help_epilogue=examples("lingpai clients delete nightly", "lingpai clients delete nightly --yes"))
def delete(
    client: ClientName,
    /,
    *,
    yes: Annotated[bool, Parameter(help="Do not ask.")] = False,
    options: Options = NO_OPTIONS,
) -> int:
    """Delete a client and its tokens for good. Its usage stays."""
    return credentials.delete_for_good(CLIENT, client, yes=yes, options=options)


def _row(client: dict[str, Any]) -> tuple[Any, ...]:
    return (
        client["name"],
        client["user"],
        client["client_id"],
        client["hint"],
        listing(client["grants"]),
        credentials.state(client),
        listing(client["limits"]),
        *credentials.times(client),
    )


def _details(client: dict[str, Any]) -> dict[str, str | None]:
    old = f"{client['old_hint']} until {shown_time(client['old_expires_at'])}" if client["old_hint"] else None
    lifetime = client["token_lifetime_s"]
    return {
        "name": client["name"],
        "client id": client["client_id"],
        "secret": "none: public" if client["public"] else client["hint"],
        "secret before": old,
        "user": client["user"],
        "project": client["project"],
        "state": credentials.why(client),
        "grants": listing(client["grants"]),
        **credentials.restrictions(client),
        "tokens live": f"{lifetime} s" if lifetime else "as oauth.access_token_lifetime says",
        "last used": credentials.last_used(client),
    }
