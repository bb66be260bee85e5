"""Which client asks, and whether it is the one it says: RFC 6749 section 2.3.

Seeds that this product grew from put the *user's* name and password into HTTP Basic; RFC 6749 section 4.3.2 puts those
into the body and the client into Basic. Both work, and nothing is guessed: with `grant_type=password` and no `username`
in the body, Basic is the user; in all other cases it is the client. No user name begins as client ids do, so a client
that forgot the user is still known for what it is.

Nobody can lock a client out by trying: the right secret passes, however many wrong ones come before it. An id that no
client has, and a secret that is not the client's, are answered alike and cost the same: neither needs the database.
"""

import base64
import binascii
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from math import ceil
from typing import Literal, Protocol
from urllib.parse import unquote_plus

from lingpai.identity.known_ids import LookUps
from lingpai.identity.oauth.errors import OAuthError, cannot_be_used, invalid_client, too_often
from lingpai.identity.oauth.interfaces import CLIENT_ID_PREFIX
from lingpai.identity.oauth.known_clients import KnownClient, KnownClients
from lingpai.ids import credential_id, is_public_id
from lingpai.principal import is_within

Method = Literal["client_secret_basic", "client_secret_post", "none"]


@dataclass(frozen=True, slots=True)
class Credentials:
    """What HTTP Basic carries (RFC 7617)."""

    name: str
    secret: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Asking:
    """Who asks for something: a registered client, or nobody but the built-in public one (`known` is None)."""

    known: KnownClient | None
    method: Method
    user: Credentials | None = None
    """The user's name and password, where Basic carried them."""


class SameNetwork(Protocol):
    """Which text stands for all addresses of one caller (`lane.doorman.network_of`)."""

    def __call__(self, address: str) -> str: ...


class ClientAuthenticator:
    """Authenticates clients; counts failures for each address, and turns those away that come with more of them."""

    def __init__(
        self,
        known: KnownClients,
        failures: LookUps,
        *,
        same_network: SameNetwork,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._known = known
        self._failures = failures
        self._same_network = same_network
        self._clock = clock
        self._monotonic = monotonic

    async def authenticate(
        self, authorization: Sequence[bytes], form: Mapping[str, str], address: str
    ) -> Asking:
        """Who asks. `authorization` are the values of that header, `address` is where the request came from.

        Raises OAuthError: invalid_request where there are two methods (section 2.3), else invalid_client.
        """
        basic = _basic(authorization, form)
        if basic is not None and _is_user(basic, form):
            client = form.get("client_id")
            if "client_secret" in form:
                raise OAuthError(
                    "invalid_request",
                    "Basic carries the user here, and the body a client secret. Send username and password in the body "
                    "and the client in Basic.",
                )
            known = None if client is None else await self._public(client, address)
            return Asking(known, "none", basic)
        if basic is not None:
            basic = _form_decoded(basic)
            if "client_secret" in form or form.get("client_id", basic.name) != basic.name:
                raise OAuthError(
                    "invalid_request",
                    "The client authenticates twice. Use either HTTP Basic or client_id and client_secret.",
                )
            return Asking(await self._confidential(basic.name, basic.secret, address), "client_secret_basic")
        if "client_secret" in form:
            name = form.get("client_id", "")
            return Asking(
                await self._confidential(name, form["client_secret"], address), "client_secret_post"
            )
        if "client_id" in form:
            return Asking(await self._public(form["client_id"], address), "none")
        return Asking(None, "none")

    async def _confidential(self, name: str, secret: str, address: str) -> KnownClient:
        id_ = _id_in(name)
        token = secret.encode()
        known = None
        if id_ is not None and credential_id(token) == id_ and token.startswith(b"cs-lp-"):
            known = await self._find(id_, address)
        if not self._known.has_secret(known, token, self._clock()) or known is None:
            raise self._failed(address, "The client is unknown or its secret is wrong.")
        self._check(known, address)
        return known

    async def _public(self, name: str, address: str) -> KnownClient:
        id_ = _id_in(name)
        known = None if id_ is None else await self._find(id_, address)
        if known is None or not known.client.is_public:  # one answer: it must not tell which ids exist
            raise self._failed(
                address,
                "The client is unknown, or has a secret: send that by HTTP Basic or as client_secret.",
            )
        self._check(known, address)
        return known

    async def _find(self, id_: str, address: str) -> KnownClient | None:
        known = self._known.find(id_)
        if known is not None or not self._known.may_exist(id_):
            return known
        if not self._known.has_all_ids:
            self._check_failures(address)  # until then anybody can make it look ids up
        return await self._known.load(id_)

    def _check(self, known: KnownClient, address: str) -> None:
        try:
            self._check_rules(known, address)
        except OAuthError as error:
            error.client = known.client  # for the audit trail
            raise

    def _check_rules(self, known: KnownClient, address: str) -> None:
        client, now = known.client, self._clock()
        if client.disabled_because is not None:
            raise cannot_be_used(client.disabled_because)
        if client.expires_at is not None and now >= client.expires_at:
            raise invalid_client("The client has expired. Make a new one.")
        if known.networks and not is_within(address, known.networks):
            raise OAuthError("unauthorized_client", "The client may not be used from your address.")

    def _failed(self, address: str, description: str) -> OAuthError:
        self._check_failures(address)
        self._failures.failed(self._same_network(address), self._monotonic())
        return invalid_client(description)

    def _check_failures(self, address: str) -> None:
        wait_s = self._failures.wait_s(self._same_network(address), self._monotonic())
        if wait_s:
            raise too_often(max(1, ceil(wait_s)))


def _is_user(basic: Credentials, form: Mapping[str, str]) -> bool:
    is_client = unquote_plus(basic.name).startswith(CLIENT_ID_PREFIX)
    return form.get("grant_type") == "password" and "username" not in form and not is_client


def _form_decoded(basic: Credentials) -> Credentials:
    """A client's id and secret, which section 2.3.1 has form-encoded; ours are the same in both forms if not encoded."""
    return Credentials(unquote_plus(basic.name), unquote_plus(basic.secret))


def _basic(authorization: Sequence[bytes], form: Mapping[str, str]) -> Credentials | None:
    if not authorization:
        return None
    if len(authorization) > 1:
        raise OAuthError("invalid_request", "The Authorization header was sent twice. Send it once.")
    scheme, _, encoded = authorization[0].strip().partition(b" ")
    if scheme.lower() != b"basic":
        raise invalid_client("Clients authenticate with HTTP Basic here, or in the body.")
    try:
        basic = _credentials(base64.b64decode(encoded.strip(), validate=True), form)
    except (binascii.Error, UnicodeDecodeError):
        basic = None
    if basic is None:
        raise invalid_client("The Authorization header is no HTTP Basic: base64 of name:secret in UTF-8.")
    return basic


def _credentials(raw: bytes, form: Mapping[str, str]) -> Credentials | None:
    """None without a colon. Raises UnicodeDecodeError.

    RFC 7617 section 2 leaves the encoding open, and libraries such as `requests` write latin-1: a user's password that
    cannot be UTF-8 is read as that. A client's id and secret are ASCII, so nothing is tried for them.
    """
    try:
        text = raw.decode()
    except UnicodeDecodeError:
        text = raw.decode("latin-1")
        if not _is_user(Credentials(text.partition(":")[0], ""), form):
            raise
    name, colon, secret = text.partition(":")
    return Credentials(name, secret) if colon else None


def _id_in(name: str) -> str | None:
    id_ = name.removeprefix(CLIENT_ID_PREFIX)
    return id_ if name.startswith(CLIENT_ID_PREFIX) and is_public_id(id_) else None
