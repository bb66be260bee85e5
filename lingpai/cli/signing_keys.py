"""`lingpai keys signing-keys`: the keys that requests are signed with."""

import sys
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from cyclopts import App, Parameter

from lingpai.cli.failures import UsageError
from lingpai.cli.options import NO_OPTIONS, Options, examples
from lingpai.cli.output import print_json, print_line
from lingpai.cli.server import connect, segment
from lingpai.cli.tables import print_table
from lingpai.cli.times import expiry_fields, is_past, shown_time
from lingpai.terminal import say

app = App(
    name="signing-keys",
    help="Make and manage the keys that requests are signed with (RFC 9421).",
    help_epilogue=examples(
        "lingpai keys signing-keys create my-app ci --algorithm hmac-sha256",
        "lingpai keys signing-keys list my-app",
    ),
)

MOST_BYTES: Final = 2000

KeyName = Annotated[str, Parameter(help="The API key's name or id.")]


@app.command(
    help_epilogue=examples(
        "lingpai keys signing-keys create my-app ci --public-key public.pem",
        "lingpai keys signing-keys create my-app ci --algorithm hmac-sha256",
    )
)
def create(
    key: KeyName,
    name: Annotated[str, Parameter(help="What the signing key is for.")],
    /,
    *,
    algorithm: Annotated[
        Literal["ed25519", "hmac-sha256"], Parameter(help="How it signs; hmac-sha256 gets you a secret.")
    ] = "ed25519",
    public_key: Annotated[
        str | None,
        Parameter(
            help="File with the public key of ed25519: PEM, JWK or base64; - reads standard input.",
            allow_leading_hyphen=True,
        ),
    ] = None,
    expires: Annotated[str | None, Parameter(help="When it ends: 90d, 12h or a date (else never).")] = None,
    options: Options = NO_OPTIONS,
) -> None:
    """Make a signing key. A second one beside the first is how to rotate: delete the first when nobody uses it any more.

    On stdout stands, alone, what the signer needs next: of hmac-sha256 the secret, this once; of ed25519 the id.
    """
    if algorithm == "ed25519" and public_key is None:
        raise UsageError(
            "ed25519 needs --public-key FILE. Make a pair with `openssl genpkey -algorithm ed25519 -out key.pem`"
            " and `openssl pkey -in key.pem -pubout -out public.pem`."
        )
    body = {"name": name, "algorithm": algorithm, **expiry_fields(expires)}
    if public_key is not None:
        body["public_key"] = _read(public_key)
    with connect(options) as client:
        made = client.request("POST", _path(key), json=body)
    if options.as_json:
        print_json(made)
        return
    say(f"Signing key {made['name']} ({made['id']}) of key {key}: {made['algorithm']}.")
    print_line(made["secret"] or made["id"])
    sys.stdout.flush()
    if made["secret"]:
        say("It is shown once and cannot be shown again: store it now.")


@app.command(name="list", help_epilogue=examples("lingpai keys signing-keys list my-app"))
def list_(key: KeyName, /, *, options: Options = NO_OPTIONS) -> None:
    """List the signing keys of an API key."""
    with connect(options) as client:
        found = client.request("GET", _path(key))["data"]
    if options.as_json:
        print_json(found)
    elif found:
        headers = ("name", "id", "algorithm", "state", "expires", "last used")
        print_table(headers, [_row(each) for each in found])
    else:
        say(f"Key {key} has no signing keys. Make one with `lingpai keys signing-keys create {key} NAME`.")


@app.command(help_epilogue=examples("lingpai keys signing-keys delete my-app sgn_4fKQ0aZ81xYb"))
def delete(
    key: KeyName,
    signing_key: Annotated[str, Parameter(help="The signing key's id.")],
    /,
    *,
    options: Options = NO_OPTIONS,
) -> None:
    """Delete a signing key: its signatures are refused from the next call on."""
    with connect(options) as client:
        client.request("DELETE", f"{_path(key)}/{segment(signing_key)}")
    say(f"Deleted signing key {signing_key} of key {key}.")
    if options.as_json:
        print_json({"id": signing_key, "deleted": True})


def _path(key: str) -> str:
    return f"/api/v1/keys/{segment(key)}/signing-keys"


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
