"""What `lingpai keys` and `lingpai clients` have in common: how a credential is restricted, shown, switched and deleted."""

import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Final

from cyclopts import Parameter

from lingpai.cli.confirming import is_confirmed
from lingpai.cli.options import Options
from lingpai.cli.output import Cell, listing, print_json, print_line
from lingpai.cli.server import connect, segment
from lingpai.cli.tables import Step, drop, swap
from lingpai.cli.times import expiry_fields, is_past, shown_ago, shown_time
from lingpai.terminal import say

Fields = dict[str, Any]
"""A key or client as the API shows it."""


@Parameter(name="*")
@dataclass(frozen=True, slots=True, kw_only=True)
class Wishes:
    """Whose a new credential is, and what it may do."""

    user: Annotated[str | None, Parameter(help="Its owner (else you; on admin.sock the user admin).")] = None
    project: Annotated[
        str | None, Parameter(help="The project it belongs to (else its owner's personal one).")
    ] = None
    scope: Annotated[
        tuple[str, ...], Parameter(help="What it may do (else model:inference). Repeatable.")
    ] = ()
    model: Annotated[
        tuple[str, ...], Parameter(help="A model it may call, or owner/* (else all). Repeatable.")
    ] = ()
    limit: Annotated[
        tuple[str, ...],
        Parameter(help="A limit such as 2000/day@Asia/Shanghai or 10/1s, or none. Repeatable."),
    ] = ()
    allow_ip: Annotated[
        tuple[str, ...], Parameter(help="An address or network it may be used from (else any). Repeatable.")
    ] = ()
    expires: Annotated[str | None, Parameter(help="When it ends: 90d, 12h or a date (else never).")] = None
    signature_required: Annotated[
        bool, Parameter(help="Accept it with signed requests only.", negative="")
    ] = False

    def body(self) -> Fields:
        """The fields of the API that were asked for."""
        wishes = {
            "user": self.user,
            "project": self.project,
            "scopes": self.scope,
            "models": self.model,
            "limits": self.limit,
            "allowed_ips": self.allow_ip,
            "signature_required": self.signature_required,
        }
        return {**{field: value for field, value in wishes.items() if value}, **expiry_fields(self.expires)}


DEFAULTS: Final = Wishes()


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of credential: what people call it, where the API has it, and what its id is called there."""

    noun: str
    path: str
    id_field: str

    def address(self, reference: str) -> str:
        """Where the one with this id or name is."""
        return f"{self.path}/{segment(reference)}"

    def label(self, found: Fields) -> str:
        """How words call it: key my-app (4fKx0aZ1bC2d)."""
        return f"{self.noun} {found['name']} ({found[self.id_field]})"


KEY: Final = Kind("key", "/api/v1/keys", "id")
CLIENT: Final = Kind("client", "/api/v1/clients", "client_id")


def print_secret(words: str, secret: str) -> None:
    """`secret` alone on stdout, so that a variable can take it; `words` and advice on stderr."""
    say(words)
    print_line(secret)
    sys.stdout.flush()
    say("It is shown once and cannot be shown again: store it now.")


def switch(kind: Kind, reference: str, *, disabled: bool, options: Options) -> None:
    """Turn a credential off or on."""
    with connect(options) as server:
        changed = server.request("PATCH", kind.address(reference), json={"disabled": disabled})
    say(f"{'Disabled' if disabled else 'Enabled'} {kind.label(changed)}.")
    if options.as_json:
        print_json(changed)


def require_signature(kind: Kind, reference: str, *, lift: bool, options: Options) -> None:
    """Accept a credential with signed requests only, or with `lift` unsigned ones again."""
    with connect(options) as server:
        changed = server.request("PATCH", kind.address(reference), json={"signature_required": not lift})
    label = kind.label(changed)
    label = f"{label[0].upper()}{label[1:]}"
    say(f"{label} {'needs no signatures' if lift else 'is for signed requests only'}.")
    if options.as_json:
        print_json(changed)


def delete_for_good(kind: Kind, reference: str, *, yes: bool, options: Options) -> int:
    """Delete a credential, after asking unless `yes`; the exit code."""
    with connect(options) as server:
        found = server.request("GET", kind.address(reference))
        used = shown_time(found.get("last_used_at")) or "never"
        details = f"({found[kind.id_field]}) of {found['user']}, last used: {used}"
        if not yes and not is_confirmed(f"{kind.noun} {found['name']}", details):
            say("Nothing was deleted.")
            return 1
        server.request("DELETE", kind.address(found[kind.id_field]))
    say(f"Deleted {kind.label(found)}.")
    if options.as_json:
        print_json({kind.id_field: found[kind.id_field], "name": found["name"], "deleted": True})
    return 0


def summary(found: Fields) -> str:
    """What it may do, in a line."""
    parts = [listing(found["scopes"]), listing(found["models"], empty="all models")]
    parts.append(listing(found["limits"], empty="no limits of its own"))
    if found.get("signature_required"):
        parts.append("for signed requests only")
    if found["expires_at"]:
        parts.append(f"expires {shown_time(found['expires_at'])}")
    return "; ".join(parts)


def state(found: Fields) -> str:
    """Whether it is accepted: of a key as the server says."""
    if "state" in found:
        return str(found["state"])
    if found.get("disabled") or found.get("disabled_because"):
        return "disabled"
    return "expired" if is_past(found.get("expires_at")) else "active"


def why(found: Fields) -> str:
    """The state, and its cause where that is not its own switch."""
    because = found.get("disabled_because")
    return f"{state(found)}: {because}" if because not in {None, "disabled"} else state(found)


def times(found: Fields) -> tuple[Cell, Cell]:
    """The columns `expires` and `last used` of a list."""
    return (
        shown_time(found["expires_at"]) or "never",
        shown_time(found.get("last_used_at")) or "never",
    )


def narrower(found: Sequence[Fields], *, least: Iterable[str], last: Iterable[str]) -> tuple[Step, ...]:
    """How a list gets narrower: without the columns `least`, times in words, and then without the columns `last`."""
    return (
        drop(*least),
        swap("last used", [shown_ago(each.get("last_used_at")) or "never" for each in found]),
        swap("expires", [shown_ago(each["expires_at"]) or "never" for each in found]),
        *(drop(each) for each in last),
    )


def restrictions(found: Fields) -> Fields:
    """The lines about what it may do, for a page about one."""
    return {
        "scopes": listing(found["scopes"]),
        "models": listing(found["models"], empty="all"),
        "limits": listing(found["limits"], empty="none of its own"),
        "allowed addresses": listing(found["allowed_ips"], empty="any"),
        "signatures": "required" if found.get("signature_required") else "not required",
        "expires": shown_time(found["expires_at"]) or "never",
        "created": shown_time(found["created_at"]),
    }


def last_used(found: Fields) -> str:
    """When and from where it was last used."""
    time, address = shown_time(found.get("last_used_at")) or "never", found.get("last_used_ip")
    return f"{time} from {address}" if address else time
