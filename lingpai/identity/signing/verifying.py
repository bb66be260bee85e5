"""Whether a signature is one of a signing key that we know.

The head of a request is enough for that: the body hangs on it by its digest. So a forged request is refused before its
body is read, and a body counts as its caller's from the beginning.
"""

import asyncio
import hmac
import logging
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Final, NoReturn

from lingpai.identity.signing.interfaces import NonceStore, Sealer, SignedHead, SigningKey
from lingpai.identity.signing.profile import Fault
from lingpai.identity.signing.store import SqlSigningKeyStore, StoredKey
from lingpai.identity.signing.tables import SEALED_SECRETS
from lingpai.principal import Principal
from lingpai.storage.database import Database
from lingpai.wire.content_digest import ContentDigestError, check_content_digest

log = logging.getLogger("lingpai.identity")

LARGE_BODY_BYTES: Final = 256 * 1024
"""From here on a digest is computed in a thread, so that nobody waits for it."""

Verify = Callable[[bytes, bytes], bool]
"""Whether, of a signature base, this is the signature."""


class VerificationKey:
    """A signing key, ready to verify."""

    __slots__ = ("key", "last_used_at", "noted_at", "verifies")

    def __init__(self, key: SigningKey, verifies: Verify) -> None:
        self.key = key
        self.verifies = verifies
        self.last_used_at = self.noted_at = key.last_used_at or 0.0

    def belongs_to(self, principal: Principal) -> bool:
        """Whether it signs for the API key, or for the client, that the principal is known by."""
        key = self.key
        if key.key_id is not None:
            return principal.key_id == key.key_id
        return key.client_id is not None and principal.client_id == key.client_id


class SigningKeyring:
    """The signing keys in use, in memory. Only `load` may be called outside the event loop's thread."""

    def __init__(self, database: Database, sealer: Sealer, *, capacity: int = 10_000) -> None:
        self._database = database
        self._sealer = sealer
        self._capacity = capacity
        self._store = SqlSigningKeyStore()
        self._known: OrderedDict[str, VerificationKey] = OrderedDict()
        self._uses: dict[str, float] = {}
        self.generation = 0

    def find(self, id_: str) -> VerificationKey | None:
        """The key remembered under this id, or None when there is none in memory."""
        return self._known.get(id_)

    def load(self, id_: str) -> VerificationKey | None:
        """The key from the database, or None when there is none. Blocks: run it in a worker thread."""
        with self._database.read() as connection:
            stored = self._store.find(connection, id_)
        if stored is None:
            return None
        try:
            return VerificationKey(stored.key, self._verifier(stored))
        except ValueError as error:
            log.warning("signing key %s cannot be used: %s", id_, error)
            return None

    def remember(self, found: VerificationKey | None, *, as_of: int) -> None:
        """Remember what `load` found, unless a signing key has changed since `generation` was `as_of`."""
        if found is None or as_of != self.generation:
            return
        if len(self._known) >= self._capacity:
            self._note_use(self._known.popitem(last=False)[1])
        self._known[found.key.id] = found

    def forget_owner(self, id_: str) -> None:
        """Drop the signing keys of an API key or client, because it or they changed."""
        self.generation += 1
        for known in [each for each in self._known.values() if each.key.owner_id == id_]:
            self._note_use(self._known.pop(known.key.id))

    def take_uses(self) -> list[tuple[str, float]]:
        """Id and time of the last use of every key used since this was asked before."""
        for known in self._known.values():
            self._note_use(known)
        uses, self._uses = self._uses, {}
        return list(uses.items())

    def _note_use(self, known: VerificationKey) -> None:
        if known.last_used_at > known.noted_at:
            self._uses[known.key.id] = known.noted_at = known.last_used_at

    def _verifier(self, stored: StoredKey) -> Verify:
        key = stored.key
        if key.public_key is not None:
            return _ed25519(key.public_key)
        secret = self._sealer.open(SEALED_SECRETS.purpose, key.id, stored.sealed_secret or b"")
        return lambda base, signature: hmac.compare_digest(hmac.digest(secret, base, "sha256"), signature)


class Signatures:
    """Verifies signed requests, step by step. Belongs to the event loop."""

    def __init__(
        self, keyring: SigningKeyring, nonces: NonceStore, *, clock: Callable[[], float] = time.time
    ) -> None:
        self.keyring = keyring
        self._nonces = nonces
        self._clock = clock

    async def load(self, id_: str) -> VerificationKey | None:
        """The signing key with this id, from memory or the database, or None."""
        found = self.keyring.find(id_)
        if found is None:
            as_of = self.keyring.generation
            found = await asyncio.to_thread(self.keyring.load, id_)
            self.keyring.remember(found, as_of=as_of)
        return found

    def verify(self, head: SignedHead, found: VerificationKey) -> None:
        """Whether the head was signed with this key. Raises LingpaiError `signature_invalid`."""
        key = found.key
        if head.algorithm not in (None, key.algorithm):
            _refuse(
                "alg", f"The signature says `alg` is {head.algorithm}, and the key is one of {key.algorithm}."
            )
        self.check_end(found)
        if not found.verifies(head.base, head.signature):
            _refuse(
                "signature",
                "The signature is not that of the components it covers: one of them arrived changed, or the key is another.",
            )

    def check_end(self, found: VerificationKey) -> None:
        """Refuse a signing key that has expired. Raises LingpaiError `signature_invalid`."""
        expires_at = found.key.expires_at
        if expires_at is not None and self._clock() >= expires_at:
            _refuse(
                "keyid",
                "The signing key has expired. Make another one: `signing-keys create` of `lingpai keys` or `lingpai clients`.",
            )

    async def accept(
        self, head: SignedHead, found: VerificationKey, body: bytes | bytearray, *, user_id: str
    ) -> None:
        """Compare the body with its digest and use the nonce up: the last step, once per request of a user's.

        Raises LingpaiError `signature_invalid`, or `server_busy` or `storage_unavailable` when nonces cannot be kept.
        """
        if body and not head.digests:
            _refuse(
                "content-digest", "The request has a body, and no Content-Digest that the signature covers."
            )
        try:
            if len(body) < LARGE_BODY_BYTES:
                check_content_digest(head.digests, body)
            else:
                await asyncio.to_thread(check_content_digest, head.digests, body)
        except ContentDigestError as error:
            _refuse("content-digest", f"Content-Digest does not fit the body: {error}.")
        now = self._clock()
        if now >= head.until:
            _refuse("expires", "The signature ended while the request was still coming. Sign again.")
        await self._nonces.claim(found.key.id, head.nonce, user_id=user_id, until=head.until, now=now)
        found.last_used_at = now


def _ed25519(public_key: bytes) -> Verify:
    # 10 MB of memory and 50 ms, for servers with such a key only; the keyring loads in a thread.
    from cryptography.exceptions import InvalidSignature  # noqa: PLC0415
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey  # noqa: PLC0415

    key = Ed25519PublicKey.from_public_bytes(public_key)

    def verifies(base: bytes, signature: bytes) -> bool:
        try:
            key.verify(signature, base)
        except InvalidSignature:
            return False
        return True

    return verifies


def _refuse(rule: str, message: str) -> NoReturn:
    raise Fault(rule, message).error() from None
