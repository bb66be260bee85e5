"""Step 1: who calls? The credential becomes a principal.

From memory when the key was used before; else from the database, once for all calls that wait for the same key. Sources: RFC 6750, sections 2.1 and 3; docs/concepts.md for the accepted headers.
"""

import asyncio
import logging
import re
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from math import ceil
from typing import TYPE_CHECKING, Final, Protocol

from lingpai.errors import LingpaiError
from lingpai.gateway import settle
from lingpai.gateway.call_limits import LoadMeters, ModelAccess
from lingpai.ids import credential_id
from lingpai.jobs.runner import JobRunner
from lingpai.lane.doorman import network_of
from lingpai.principal import Principal
from lingpai.quotas.loader import StaleLimitsError
from lingpai.quotas.meter import Meter
from lingpai.web.auth import insufficient_scope
from lingpai.wire.request_signing import ACCEPT_SIGNATURE

if TYPE_CHECKING:
    from lingpai.gateway.exchange import Exchange
    from lingpai.identity.known_ids import LookUps

log = logging.getLogger("lingpai.gateway")

SCOPE = "model:inference"
INVALID_TOKEN: Final = {
    "www-authenticate": 'Bearer realm="lingpai", error="invalid_token"'
}  # RFC 6750 section 3
INVALID_REQUEST: Final = {"www-authenticate": 'Bearer realm="lingpai", error="invalid_request"'}
_IN_ADDRESS: Final = re.compile(rb"[?&](?:access_token|api_key)=|(?:sk|at|rt|cs)-lp-[0-9A-Za-z]{61}")
LOCAL: Final = b""
"""Stands for the credential of who calls through the admin socket; nobody can send it."""
_NOT_FOR_CALLS: Final = (b"cs-lp-", b"rt-lp-")
_OTHER_HEADERS = (b"x-api-key", b"api-key", b"x-goog-api-key")


class Keys(Protocol):
    """Principals by credential (identity's keyring)."""

    generation: int
    """Grows with every change to a key, user or project."""

    def find(self, token: bytes) -> Principal | None: ...
    def is_known_garbage(self, token: bytes) -> bool: ...
    def load(self, token: bytes) -> Principal | None: ...
    def remember(self, token: bytes, principal: Principal | None) -> None: ...
    def holds(self, principal: Principal) -> bool: ...
    def find_id(self, key_id: str) -> Principal | None: ...
    def load_id(self, key_id: str) -> Principal | None: ...
    def remember_id(self, key_id: str, principal: Principal | None) -> None: ...


class Account:
    """What the gateway has worked out for a principal once, so that no call needs to again.

    `meters` are those of the key, client, user and project; `models` the models it has called, by the name it used,
    and `accesses` the same by id, with all limits of such calls.
    """

    __slots__ = (
        "accesses",
        "allowed_addresses",
        "catalog_version",
        "limits_version",
        "meters",
        "models",
        "principal",
    )

    def __init__(self, principal: Principal, meters: tuple[Meter, ...]) -> None:
        self.principal = principal
        self.meters = meters
        self.models: dict[str, ModelAccess] = {}
        self.accesses: dict[str, ModelAccess] = {}
        self.catalog_version = self.limits_version = -1
        self.allowed_addresses: set[str] = set()


def read_credential(fields: dict[bytes, bytes]) -> bytes | None:
    """The credential in the request's headers, or None when there is none.

    `Authorization: Bearer K` (scheme in any case), `Authorization: K`, `x-api-key`, `api-key`, `x-goog-api-key`.
    Raises LingpaiError `ambiguous_credentials` when there is more than one.
    """
    authorization = fields.get(b"authorization")
    if not fields.keys().isdisjoint(_OTHER_HEADERS):
        others = [fields[name] for name in _OTHER_HEADERS if name in fields]
        if len(others) > 1 or authorization is not None:
            raise LingpaiError(
                "ambiguous_credentials",
                "The request carries more than one credential. Send one: `Authorization: Bearer sk-lp-…`.",
                headers=INVALID_REQUEST,
            )
        return others[0].strip() or None
    if authorization is None:
        return None
    if authorization.startswith(b"Bearer "):
        return authorization[7:].strip() or None
    scheme, _, rest = authorization.strip().partition(b" ")
    return (rest.strip() if scheme.lower() == b"bearer" else scheme + rest) or None


def has_doubled_credential(headers: list[tuple[bytes, bytes]]) -> bool:
    """Whether one of the headers that carry a credential was sent twice."""
    carriers = [name for name, _ in headers if name == b"authorization" or name in _OTHER_HEADERS]
    return len(carriers) != len(set(carriers))


def doubled_credential() -> LingpaiError:
    return LingpaiError(
        "ambiguous_credentials",
        "A credential header was sent twice. Send `Authorization: Bearer sk-lp-…` once.",
        headers=INVALID_REQUEST,
    )


def has_credential_in_address(url: bytes) -> bool:
    """Whether the query of `url` carries a credential, whatever the headers do (RFC 9700 section 4.3.2)."""
    return b"?" in url and _IN_ADDRESS.search(url) is not None


def credential_in_address() -> LingpaiError:
    return LingpaiError(
        "invalid_request",
        "A credential stands in the address, which logs keep. Send it as `Authorization: Bearer …`, and replace it: "
        "others may have read it.",
        headers=INVALID_REQUEST,
    )


def begin(exchange: "Exchange") -> None:
    """Look the credential up; `exchange.refusal` is set when it is no good, or the look-up is under way."""
    gateway, front = exchange.gateway, exchange.front
    generation = exchange.generation = gateway.authenticator.keys.generation
    if (
        front.memo is not None and front.memo[0] == generation
    ):  # the same bytes in the header, and no key has changed
        exchange.principal = front.memo[1]
        exchange.account = front.memo[1].account
        exchange.is_key_settled = True
        return
    if b"signature" in exchange.fields:  # with `Signature-Input` it would not have come here
        _settle(exchange, None, half_signed())
        return
    try:
        token = read_credential(exchange.fields)
    except LingpaiError as error:
        _settle(exchange, None, error.with_traceback(None))
        return
    if token is None:
        _begin_without_key(exchange)
        return
    principal = gateway.authenticator.find(token)
    if principal is not None:
        if principal.signature_required:  # before it is remembered: no call passes because one like it has
            _settle(exchange, principal, signature_required())
            return
        exchange.principal = principal
        exchange.account = principal.account
        exchange.is_key_settled = True
        front.memo = generation, principal
    elif gateway.authenticator.is_garbage(token):
        _settle(exchange, None, unknown_key(token))
        exchange.front.slow_down()
    else:
        wait_s = gateway.look_ups.wait_s(network_of(exchange.front.caller_address), exchange.started)
        if wait_s:
            _settle(exchange, None, too_many_unknown_keys(wait_s))
            exchange.front.slow_down()
        else:
            gateway.authenticator.load(token, partial(_loaded, exchange, token))


def _begin_without_key(exchange: "Exchange") -> None:
    authenticator = exchange.gateway.authenticator
    if not exchange.front.is_local:
        _settle(exchange, None, missing_key())
        exchange.front.slow_down()
    elif (local := authenticator.find_local()) is not None:
        _settle(exchange, local, None)
    else:
        authenticator.load(LOCAL, partial(_loaded, exchange, LOCAL))


def _loaded(
    exchange: "Exchange", token: bytes, principal: Principal | None, error: LingpaiError | None
) -> None:
    if principal is None and error is None:
        address = network_of(exchange.front.caller_address)
        exchange.gateway.look_ups.failed(address, exchange.gateway.loop.time())
        exchange.front.slow_down()
    if exchange.is_over:
        exchange.caller_known_late(principal)
        return
    if principal is not None and principal.signature_required:
        error = signature_required()
    _settle(exchange, principal, error or (None if principal else unknown_key(token)))
    if exchange.refusal is not None and not exchange.is_body_complete:
        settle.refuse_unread(exchange, exchange.refusal)  # whatever its size: nobody waits for the rest
    else:
        exchange.proceed()


def _settle(exchange: "Exchange", principal: Principal | None, refusal: LingpaiError | None) -> None:
    exchange.principal = principal
    if principal is not None:
        exchange.account = principal.account
    exchange.refusal = refusal
    exchange.is_key_settled = True


def is_still_valid(exchange: "Exchange") -> bool:
    """Whether the credential of a call that has waited means what it meant: nothing was revoked or changed."""
    authenticator, principal = exchange.gateway.authenticator, exchange.principal
    if exchange.generation == authenticator.keys.generation:
        return True
    if exchange.signed is not None:
        return exchange.signed.is_still_valid(exchange)
    token = read_credential(exchange.fields)
    return principal is (authenticator.find_local() if token is None else authenticator.find(token))


def check(exchange: "Exchange") -> None:
    """Refuse a principal that is known but may not call models now, or not from here."""
    principal = exchange.principal
    if principal is None:
        raise missing_key()
    check_may_call(principal, exchange.front.caller_address, time.time())  # the head may have come long ago


def check_may_call(principal: Principal, address: str, now: float) -> None:
    """Refuse a principal that may not call models, or not now or from `address`. Raises LingpaiError."""
    if SCOPE not in principal.scopes:
        raise insufficient_scope(SCOPE, principal)
    check_principal(principal, address, now)


def check_principal(principal: Principal, address: str, now: float) -> None:
    """Refuse a disabled or expired principal, and one that calls from an address it may not use.

    Raises LingpaiError `key_disabled`, `key_expired` or `ip_not_allowed`.
    """
    if principal.disabled:
        raise LingpaiError(
            "key_disabled",
            "This key or its owner is disabled, or its owner has left its project. Ask an administrator."
            if principal.token_id is None
            else "The client of this token or its owner is disabled, or its owner has no role in its project that allows "
            "clients. Ask an administrator.",
            headers=INVALID_TOKEN,
        )
    if principal.expires_at is not None and now >= principal.expires_at:
        raise _expired(principal)
    account: Account = principal.account
    if principal.allowed_ips and address not in account.allowed_addresses:
        if not principal.may_come_from(address):
            raise LingpaiError(
                "ip_not_allowed",
                f"This key may not be used from {address or 'this socket'}."
                " Call from an allowed address, or ask an administrator to allow this one.",
            )
        if len(account.allowed_addresses) < 1000:
            account.allowed_addresses.add(address)
    principal.last_used_at = now
    principal.last_used_ip = address


def _expired(principal: Principal) -> LingpaiError:
    if principal.token_id is None:
        code, message = (
            "key_expired",
            "This key has expired, or was rotated. Make a new one: `lingpai keys create NAME`.",
        )
    else:
        code, message = "token_expired", "The access token has expired. Get a new one from `/oauth/token`."
    return LingpaiError(code, message, headers=INVALID_TOKEN)


def missing_key() -> LingpaiError:
    return LingpaiError(
        "missing_api_key",
        "No API key was sent. Send the header `Authorization: Bearer sk-lp-…`; make a key with `lingpai keys create NAME`.",
        headers={"www-authenticate": 'Bearer realm="lingpai"'},
    )


def half_signed() -> LingpaiError:
    """Half a signature is none, and is not passed over: its sender relies on it."""
    return LingpaiError(
        "signature_invalid",
        "The request has a Signature and no Signature-Input. docs/guides/signing.md shows both.",
        param="signature-input",
    )


def signature_required() -> LingpaiError:
    """What a caller hears without a signature, whose key or client is for signed requests only."""
    return LingpaiError(
        "signature_required",
        "This key or client is for signed requests only. Sign the request (RFC 9421): docs/guides/signing.md shows how, "
        "and `signing-keys create` of `lingpai keys` or `lingpai clients` makes the key to sign with.",
        headers={"www-authenticate": 'Bearer realm="lingpai"', "accept-signature": ACCEPT_SIGNATURE},
    )


def unknown_key(token: bytes) -> LingpaiError:
    """The same answer for unknown, deleted and mistyped keys; only what the caller can see themselves is added."""
    message = "The API key is not valid: mistyped, deleted, or of another server."
    if token.startswith((b"at-lp-", b"eyJ")):
        message = "The access token is not valid: expired, revoked, mistyped, or of another server."
    elif token.startswith(_NOT_FOR_CALLS):
        message = (
            "A client secret or refresh token opens nothing by itself. Get an access token for it from `/oauth/token`:"
            " docs/guides/tokens.md shows how."
        )
    elif not token.startswith(b"sk-lp-"):
        message += " Keys of this server begin with `sk-lp-`."
    if token.startswith((b"at-lp-", b"sk-lp-")) and credential_id(token) is None:
        message += " Its checksum is wrong, so some of its characters are missing or changed."
    return LingpaiError(
        "invalid_api_key", message + " Check it with `lingpai doctor`.", headers=INVALID_TOKEN
    )


def too_many_unknown_keys(wait_s: float) -> LingpaiError:
    """The key is not in memory, and its caller has sent too many that are none to look it up now."""
    wait = max(1, ceil(wait_s))
    return LingpaiError(
        "rate_limit_exceeded",
        f"Too many unknown keys came from your address. Try again in {wait} s.",
        headers={"retry-after": str(wait)},
    )


Loaded = Callable[[Principal | None, LingpaiError | None], None]


class Authenticator:
    """Principals for credentials: from memory at once, else from the database with all that belongs to them.

    Who calls through the admin socket has none (`LOCAL`). They are held to the limits of their user and project like
    anybody, or these would count other calls after a restart than before.
    """

    def __init__(
        self,
        keys: Keys,
        load_meters: LoadMeters,
        *,
        jobs: JobRunner,
        read_local: Callable[[], Principal] | None = None,
    ) -> None:
        """`read_local` reads who calls through the admin socket; it may block."""
        self.keys = keys
        self._read_local = read_local
        self._local: tuple[int, Principal] | None = None
        self._load_meters = load_meters
        self._jobs = jobs
        self._threads = ThreadPoolExecutor(max_workers=4, thread_name_prefix="lingpai-keys")
        self._waiting: dict[bytes | str, list[Loaded]] = {}
        """By token, or by id (text) where a signature has proven whose call it is."""
        self.find = keys.find
        self.is_garbage = keys.is_known_garbage

    def find_local(self) -> Principal | None:
        """Who calls through the admin socket, unless a key, user or project has changed since that was read."""
        if self._local is None or self._local[0] != self.keys.generation:
            return None
        return self._local[1]

    def find_id(self, key_id: str) -> Principal | None:
        """The principal of a key whose owner has proven it by a signature, if it is in memory."""
        return self.keys.find_id(key_id)

    async def principal_of(self, key_id: str) -> Principal | None:
        """The same from memory or the database, or None. Raises LingpaiError when the database cannot be asked."""
        return self.keys.find_id(key_id) or await self._loaded(key_id)

    def load(self, token: bytes | str, then: Loaded) -> None:
        """Load the principal and tell `then` on the event loop. Calls for the same token share one look-up."""
        waiting = self._waiting.get(token)
        if waiting is not None:
            waiting.append(then)
            return
        self._waiting[token] = [then]
        self._jobs.start("load a key", self._look_up(token))

    async def principal_for(
        self, token: bytes, look_ups: "LookUps | None" = None, address: str = ""
    ) -> Principal | None:
        """The principal of `token`, or None.

        Raises LingpaiError when the database cannot be asked, and when `look_ups` says that it must not be: too many
        look-ups for callers from `address` have found nothing.
        """
        principal = self.find(token)
        if principal is not None or self.is_garbage(token):
            return principal
        loop, network = asyncio.get_running_loop(), network_of(address)
        if look_ups is not None and (wait_s := look_ups.wait_s(network, loop.time())):
            raise too_many_unknown_keys(wait_s)
        principal = await self._loaded(token)
        if look_ups is not None and principal is None:
            look_ups.failed(network, loop.time())
        return principal

    async def _loaded(self, token: bytes | str) -> Principal | None:
        future: asyncio.Future[Principal | None] = asyncio.get_running_loop().create_future()

        def settle(principal: Principal | None, error: LingpaiError | None) -> None:
            if not future.done():
                if error is not None:
                    future.set_exception(error)
                else:
                    future.set_result(principal)

        self.load(token, settle)
        return await future

    def close(self) -> None:
        """Let go of the threads."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def _look_up(self, token: bytes | str) -> None:
        principal, refusal = None, None
        try:
            principal = await self._read(token)
        except LingpaiError as error:
            refusal = error.with_traceback(None)
        except asyncio.CancelledError:
            refusal = LingpaiError(
                "shutting_down", "The server is stopping. Try again.", headers={"retry-after": "1"}
            )
            raise
        except Exception:  # the outermost edge of a look-up: those who wait must hear of any failure
            log.exception("looking a key up failed")
            refusal = LingpaiError(
                "storage_unavailable",
                "The key cannot be checked now. Try again.",
                headers={"retry-after": "1"},
            )
        else:
            if isinstance(token, str):
                self.keys.remember_id(token, principal)
            elif token != LOCAL:
                self.keys.remember(token, principal)
        finally:
            for then in self._waiting.pop(token):
                try:
                    then(principal, refusal)
                except Exception:  # one call's fault must not keep the others waiting
                    log.exception("a call that waited for its key failed")

    async def _read(self, token: bytes | str) -> Principal | None:
        """The principal and its meters. Read again when a key or user changes meanwhile: nothing stale is attached."""
        loop = asyncio.get_running_loop()
        while True:
            generation = self.keys.generation
            principal = await loop.run_in_executor(self._threads, self._read_principal, token)
            if principal is None:
                return None
            try:
                meters = await self._meters(principal, partial(self._is_generation, generation))
            except StaleLimitsError:
                continue
            principal.account = Account(principal, meters)
            if token == LOCAL:
                self._local = generation, principal
            return principal

    def _read_principal(self, token: bytes | str) -> Principal | None:
        if isinstance(token, str):
            return self.keys.load_id(token)
        if token == LOCAL and self._read_local is not None:
            return self._read_local()
        return self.keys.load(token)

    def _is_generation(self, seen: int) -> bool:
        return seen == self.keys.generation

    async def _meters(self, principal: Principal, is_current: Callable[[], bool]) -> tuple[Meter, ...]:
        meters: list[Meter] = []
        for subject, limits, label in _limit_subjects(principal):
            meters += await self._load_meters(subject, limits, label, is_current=is_current)
        return tuple(meters)


def _limit_subjects(principal: Principal) -> list[tuple[tuple[str, str], tuple[str, ...], str]]:
    """The subjects that a call of `principal` counts for: what `LoadMeters` takes.

    Those without limits too: loading none lets go of meters from before, which would otherwise come back, without
    what was used in between, when limits are set again.
    """
    subjects = (
        ("key", principal.key_id, principal.key_name, principal.key_limits),
        ("client", principal.client_id, principal.client_name, principal.client_limits),
        ("user", principal.user_id, principal.user_name, principal.user_limits),
        ("project", principal.project_id, principal.project_name, principal.project_limits),
    )
    return [((kind, id_), limits, f"{kind} `{name}`") for kind, id_, name, limits in subjects if id_]
