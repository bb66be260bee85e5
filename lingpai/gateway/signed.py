"""Step 1 for signed requests: whoever signed is the caller (RFC 9421; docs/decisions/0014-signed-requests.md).

The signature is verified when the head is there, so that nothing is read or kept for who cannot sign. When the body is
complete it is compared with its digest, and the nonce is used up; only then does the call go on. A call that has to take
its steps again, because something changed while it waited, keeps its nonce and is asked for the rest anew.
"""

import asyncio
import time
from typing import TYPE_CHECKING, NamedTuple

from starlette.requests import Request

from lingpai.errors import LingpaiError
from lingpai.gateway import authenticate, settle
from lingpai.gateway.authenticate import Authenticator
from lingpai.identity.known_ids import LookUps
from lingpai.identity.signing.interfaces import SignedHead
from lingpai.identity.signing.profile import Fault, read_head
from lingpai.identity.signing.verifying import Signatures, VerificationKey
from lingpai.jobs.runner import JobRunner
from lingpai.lane.calls import Headers
from lingpai.lane.doorman import network_of
from lingpai.principal import Principal
from lingpai.web.heads import HeadOnly
from lingpai.wire.message_signatures import Message

if TYPE_CHECKING:
    from lingpai.gateway.exchange import Exchange

SIGNATURE_FIELDS = (b"signature-input", b"signature")


def is_signed(headers: Headers) -> bool:
    """Whether a request is signed, or meant to be: half a signature is none, and is not passed over."""
    return any(name in SIGNATURE_FIELDS for name, _ in headers)


class SignedProof(NamedTuple):
    """What has proven whose a signed call is: the signing key, and the credential beside the signature if there is one."""

    signing_key_id: str
    token: bytes | None


class SignedCalls:
    """Finds out whose signed calls those are. Belongs to the event loop."""

    def __init__(
        self, signatures: Signatures, authenticator: Authenticator, *, jobs: JobRunner, look_ups: LookUps
    ) -> None:
        self.signatures = signatures
        self.authenticator = authenticator
        self.jobs = jobs
        self.look_ups = look_ups

    def begin(self, exchange: "Exchange", url: bytes, headers: Headers) -> None:
        """Authenticate a model call, whose head is complete: `exchange.refusal` is set when it is no good."""
        try:
            token = authenticate.read_credential(exchange.fields)
            message = _message(headers, method="POST", scheme=exchange.front.scheme or "http", target=url)
            head = read_head(message, now=time.time())
        except LingpaiError as error:
            exchange.refusal = error.with_traceback(None)
            exchange.is_key_settled = True
            exchange.front.slow_down()
            return
        exchange.signed = SignedCall(self, head, token)
        exchange.signed.ask(exchange)

    async def authenticate(self, request: Request) -> Principal:
        """Who sends a signed request to the management API. Raises LingpaiError.

        Of a `HeadOnly` the signature is verified and no more; the whole request then uses the nonce up, once.
        """
        accepted: Principal | None = getattr(request.state, "signed_by", None)
        if accepted is not None:
            return accepted
        scope, address = request.scope, request.client.host if request.client else ""
        query: bytes = scope["query_string"]
        target = scope["raw_path"] + (b"?" + query if query else b"")
        message = _message(request.headers.raw, method=request.method, scheme=scope["scheme"], target=target)
        token = authenticate.read_credential(dict(request.headers.raw))
        head = read_head(message, now=time.time())
        found, principal = await self.prove(head, token, address)
        request.state.caller = principal  # refusals from here on are recorded as theirs
        authenticate.check_principal(principal, address, time.time())
        if not isinstance(request, HeadOnly):
            await self.signatures.accept(head, found, await request.body(), user_id=principal.user_id)
            request.state.signed_by = principal
        return principal

    def prove_from_memory(
        self, head: SignedHead, token: bytes | None
    ) -> tuple[VerificationKey, Principal] | None:
        """The key and the principal of a signature, when both are in memory. Raises LingpaiError as `prove`."""
        found = self.signatures.keyring.find(head.key_id)
        if found is None:
            return None
        self.signatures.verify(head, found)
        if token is not None:
            principal = self.authenticator.find(token)
        else:
            principal = self.authenticator.find_id(_key_of(found))
        if principal is None:
            return None
        _check_belongs(found, principal)
        return found, principal

    async def prove(
        self, head: SignedHead, token: bytes | None, address: str
    ) -> tuple[VerificationKey, Principal]:
        """The key and the principal of a signature. Raises LingpaiError, `signature_invalid` for one of neither.

        With a credential beside the signature, both must be of the same key or client.
        """
        found = self.signatures.keyring.find(head.key_id) or await self._look_up(head.key_id, address)
        self.signatures.verify(head, found)
        return found, await self._caller_of(found, token, self.look_ups, address)

    async def prove_again(self, proof: SignedProof) -> Principal:
        """Whose a call is that was accepted with `proof`, if the same would prove it now. Raises LingpaiError as `prove`.

        Its signature was verified, and signing keys do not change; but they end. Look-ups are not bounded: who has been
        let in does not guess.
        """
        found = await self.signatures.load(proof.signing_key_id)
        if found is None:
            raise _unknown()
        self.signatures.check_end(found)
        return await self._caller_of(found, proof.token)

    async def _caller_of(
        self, found: VerificationKey, token: bytes | None, look_ups: LookUps | None = None, address: str = ""
    ) -> Principal:
        if token is not None:
            principal = await self.authenticator.principal_for(token, look_ups, address)
            if principal is None:
                raise authenticate.unknown_key(token)
        else:
            principal = await self.authenticator.principal_of(_key_of(found))
            if principal is None:
                raise _unknown()
        _check_belongs(found, principal)
        return principal

    async def _look_up(self, key_id: str, address: str) -> VerificationKey:
        """Bounded like look-ups of API keys: only those that find nothing count."""
        network, now = network_of(address), asyncio.get_running_loop().time()
        wait_s = self.look_ups.wait_s(network, now)
        if wait_s:
            raise authenticate.too_many_unknown_keys(wait_s)
        found = await self.signatures.load(key_id)
        if found is None:
            self.look_ups.failed(network, now)
            raise _unknown()
        return found


class SignedCall:
    """What is known of the signature of one model call. The exchange comes as an argument: no cycle keeps both alive."""

    __slots__ = ("_calls", "_head", "_is_accepted", "_is_accepting", "_key", "_token")

    def __init__(self, calls: SignedCalls, head: SignedHead, token: bytes | None) -> None:
        self._calls = calls
        self._head = head
        self._token = token
        self._key: VerificationKey | None = None
        self._is_accepting = self._is_accepted = False

    @property
    def proof(self) -> SignedProof:
        """What the call is known by."""
        return SignedProof(self._head.key_id, self._token)

    def ask(self, exchange: "Exchange") -> None:
        """Find out who signed: from memory at once, else soon."""
        exchange.generation = self._calls.authenticator.keys.generation
        try:
            proven = self._calls.prove_from_memory(self._head, self._token)
        except LingpaiError as error:
            self._refuse(exchange, error)
            return
        if proven is not None:
            self._proven(exchange, *proven)
        else:
            self._calls.jobs.start("find out who signed", self._ask_database(exchange))

    def ask_again(self, exchange: "Exchange") -> None:
        """Something has changed since: the key that signed, or whose it is, may be gone."""
        self._key = None
        self.ask(exchange)

    def is_still_valid(self, exchange: "Exchange") -> bool:
        """Whether the signature means what it meant."""
        try:
            proven = self._calls.prove_from_memory(self._head, self._token)
        except LingpaiError:
            return False
        return proven is not None and proven[0] is self._key and proven[1] is exchange.principal

    def body_complete(self, exchange: "Exchange") -> None:
        """Accept the call when it is known who signed; called again then."""
        if self._key is not None and exchange.principal is not None and not self._is_accepting:
            self._is_accepting = True
            self._calls.jobs.start(
                "accept a signed call", self._accept(exchange, self._key, exchange.principal)
            )

    async def _ask_database(self, exchange: "Exchange") -> None:
        try:
            proven = await self._calls.prove(self._head, self._token, exchange.front.caller_address)
        except LingpaiError as error:
            if not exchange.is_over:
                self._refuse(exchange, error, is_late=True)
        except Exception as error:  # noqa: BLE001  an outermost edge: whoever waits must be answered
            exchange.break_off(error)
        else:
            if exchange.is_over:
                exchange.caller_known_late(proven[1])
            else:
                self._proven(exchange, *proven)

    def _proven(self, exchange: "Exchange", found: VerificationKey, principal: Principal) -> None:
        self._key = found
        exchange.principal, exchange.account = principal, principal.account
        if self._is_accepted:
            exchange.is_key_settled = True
            exchange.proceed()
        elif exchange.is_body_complete:
            self.body_complete(exchange)

    async def _accept(self, exchange: "Exchange", found: VerificationKey, principal: Principal) -> None:
        try:
            await self._calls.signatures.accept(self._head, found, exchange.upload, user_id=principal.user_id)
        except LingpaiError as error:
            if not exchange.is_over:
                self._refuse(exchange, error)
        except Exception as error:  # noqa: BLE001  an outermost edge: whoever waits must be answered
            exchange.break_off(error)
        else:
            if not exchange.is_over:
                self._is_accepted = exchange.is_key_settled = True
                exchange.proceed()

    def _refuse(self, exchange: "Exchange", error: LingpaiError, *, is_late: bool = False) -> None:
        """`is_late`: the head has gone by, so that nobody else looks at the refusal before the body is complete."""
        exchange.refusal = error.with_traceback(None)
        exchange.is_key_settled = True
        if error.status < 500:
            exchange.front.slow_down()
        if exchange.is_body_complete:
            exchange.proceed()
        elif is_late:
            settle.refuse_unread(exchange, error)


def _message(headers: Headers, *, method: str, scheme: str, target: bytes) -> Message:
    fields = tuple((name.decode("latin-1"), value.decode("latin-1")) for name, value in headers)
    host = next((value for name, value in fields if name == "host"), "")
    return Message(
        fields=fields, method=method, scheme=scheme, authority=host, target=target.decode("latin-1")
    )


def _key_of(found: VerificationKey) -> str:
    if found.key.key_id is None:
        raise Fault(
            "keyid", "The signing key is a client's: send an access token of the client, too."
        ).error()
    return found.key.key_id


def _check_belongs(found: VerificationKey, principal: Principal) -> None:
    if not found.belongs_to(principal):
        raise Fault(
            "keyid",
            "The signing key and the credential beside it do not belong together: one is another key's.",
        ).error()


def _unknown() -> LingpaiError:
    return Fault("keyid", "There is no such signing key: mistyped, deleted, or of another server.").error()
