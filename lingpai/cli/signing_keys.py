"""`lingpai keys signing-keys` and `lingpai clients signing-keys`: the keys that requests are signed with."""

import sys
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from cyclopts import App, Parameter

from lingpai.cli.credentials import CLIENT, KEY, Kind
from lingpai.cli.failures import UsageError
from lingpai.cli.options import NO_OPTIONS, Options, examples
from lingpai.cli.output import print_json, print_line
from lingpai.cli.server import connect, segment
from lingpai.cli.tables import print_table
from lingpai.cli.times import expiry_fields, is_past, shown_time
from lingpai.terminal import say

MOST_BYTES: Final = 2000

KeyName = Annotated[str, Parameter(help="The API key's name or id.")]
ClientName = Annotated[str, Parameter(help="The client's name or id.")]
Name = Annotated[str, Parameter(help="What the signing key is for.")]
SigningKeyId = Annotated[str, Parameter(help="The signing key's id.")]
Algorithm = Annotated[
    Literal["ed25519", "hmac-sha256"], Parameter(help="How it signs; hmac-sha256 gets you a secret.")
]
PublicKey = Annotated[
    str | None,
    Parameter(
        help="File with the public key of ed25519: PEM, JWK or base64; - reads standard input.",
        allow_leading_hyphen=True,
    ),
]
Expires = Annotated[str | None, Parameter(help="When it ends: 90d, 12h or a date (else never).")]

HELP: Final = "Make and manage the keys that requests are signed with (RFC 9421)."
CREATE: Final = """Make a signing key. A second one beside the first is how to rotate: delete the first when nobody uses it any more.

On stdout stands, alone, what the signer needs next: of hmac-sha256 the secret, this once; of ed25519 the id.
"""
DELETE: Final = "Delete a signing key: its signatures are refused from the next call on."

app = App(
    name="signing-keys",
    help=HELP,
    help_epilogue=examples(
        "lingpai keys signing-keys create my-app ci --algorithm hmac-sha256",
        "lingpai keys signing-keys list my-app",
    ),
)
client_app = App(
    name="signing-keys",
    help=HELP,
    help_epilogue=examples(
        "lingpai clients signing-keys create nightly ci --algorithm hmac-sha256",
        "lingpai clients signing-keys list nightly",
    ),
)


@app.command(
    help=CREATE,
    help_epilogue=examples(
        "lingpai keys signing-keys create my-app ci --public-key public.pem",
        "lingpai keys signing-keys create my-app ci --algorithm hmac-sha256",
    ),
)
def create(
    key: KeyName,
    name: Name,
    /,
    *,
    algorithm: Algorithm = "ed25519",
    public_key: PublicKey = None,
    expires: Expires = None,
    options: Options = NO_OPTIONS,
) -> None:
    """Make one for an API key."""
    _create(KEY, key, _body(name, algorithm, public_key, expires), options)


@client_app.command(
    name="create",
    help=CREATE,
    help_epilogue=examples(
        "lingpai clients signing-keys create nightly ci --public-key public.pem",
        "lingpai clients signing-keys create nightly ci --algorithm hmac-sha256",
    ),
)
def create_for_client(
    client: ClientName,
    name: Name,
    /,
    *,
    algorithm: Algorithm = "ed25519",
    public_key: PublicKey = None,
    expires: Expires = None,
    options: Options = NO_OPTIONS,
) -> None:
    """Make one for a client."""
    _create(CLIENT, client, _body(name, algorithm, public_key, expires), options)


@app.command(name="list", help_epilogue=examples("lingpai keys signing-keys list my-app"))
def list_(key: KeyName, /, *, options: Options = NO_OPTIONS) -> None:
    """List the signing keys of an API key."""
    _list(KEY, key, options)


@client_app.command(name="list", help_epilogue=examples("lingpai clients signing-keys list nightly"))
def list_of_client(client: ClientName, /, *, options: Options = NO_OPTIONS) -> None:
    """List the signing keys of a client."""
    _list(CLIENT, client, options)


@app.command(help=DELETE, help_epilogue=examples("lingpai keys signing-keys delete my-app sgn_4fKQ0aZ81xYb"))
def delete(key: KeyName, signing_key: SigningKeyId, /, *, options: Options = NO_OPTIONS) -> None:
    """Delete one of an API key."""
    _delete(KEY, key, signing_key, options)


@client_app.command(
    name="delete",
    help=DELETE,
    help_epilogue=examples("lingpai clients signing-keys delete nightly sgn_4fKQ0aZ81xYb"),
)
def delete_of_client(
    client: ClientName, signing_key: SigningKeyId, /, *, options: Options = NO_OPTIONS
) -> None:
    """Delete one of a client."""
    _delete(CLIENT, client, signing_key, options)


def _body(name: str, algorithm: str, public_key: str | None, expires: str | None) -> dict[str, Any]:
    if algorithm == "ed25519" and public_key is None:
        raise UsageError(
            "ed25519 needs --public-key FILE. Make a pair with `openssl genpkey -algorithm ed25519 -out key.pem`"
            " and `openssl pkey -in key.pem -pubout -out public.pem`."
        )
    body = {"name": name, "algorithm": algorithm, **expiry_fields(expires)}
    return body if public_key is None else {**body, "public_key": _read(public_key)}


def _create(kind: Kind, owner: str, body: dict[str, Any], options: Options) -> None:
    with connect(options) as server:
        made = server.request("POST", _path(kind, owner), json=body)
    if options.as_json:
        print_json(made)
        return
    say(f"Signing key {made['name']} ({made['id']}) of {kind.noun} {owner}: {made['algorithm']}.")
    print_line(made["secret"] or made["id"])
    sys.stdout.flush()
    if made["secret"]:
        say("It is shown once and cannot be shown again: store it now.")


def _list(kind: Kind, owner: str, options: Options) -> None:
    with connect(options) as server:
        found = server.request("GET", _path(kind, owner))["data"]
    if options.as_json:
        print_json(found)
    elif found:
        headers = ("name", "id", "algorithm", "state", "expires", "last used")
        print_table(headers, [_row(each) for each in found])
    else:
        say(
            f"{kind.noun.capitalize()} {owner} has no signing keys. "
            f"Make one with `lingpai {kind.noun}s signing-keys create {owner} NAME`."
        )


def _delete(kind: Kind, owner: str, signing_key: str, options: Options) -> None:
    with connect(options) as server:
        server.request("DELETE", f"{_path(kind, owner)}/{segment(signing_key)}")
    say(f"Deleted signing key {signing_key} of {kind.noun} {owner}.")
    if options.as_json:
        print_json({"id": signing_key, "deleted": True})


def _path(kind: Kind, owner: str) -> str:
    return f"{kind.address(owner)}/signing-keys"


def _read(place: str) -> str:
    """The public key in a file; what is larger than any is refused by the server."""
    try:
        if place == "-":
            return sys.stdin.read(MOST_BYTES)
        with Path(place).open(encoding="utf-8") as file:
            return file.read(MOST_BYTES)
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{place} cannot be read as a public key: {error}.") from error


def _row(key: dict[str, Any]) -> tuple[str | None, ...]:
    return (
        key["name"],
        key["id"],
        key["algorithm"],
        "expired" if is_past(key["expires_at"]) else "valid",
        shown_time(key["expires_at"]) or "never",
        shown_time(key["last_used_at"]) or "never",
    )
