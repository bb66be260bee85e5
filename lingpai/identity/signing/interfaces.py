"""What signing hands out, and what it needs of others."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from lingpai.wire.request_signing import SignatureAlgorithm


@dataclass(frozen=True, slots=True, kw_only=True)
class SigningKey:
    """A key that requests are signed with, as everybody may know it. Times are Unix seconds.

    It signs for an API key (`key_id`) or for a client (`client_id`, `cl-lp-…`). `public_key` is that of Ed25519, 32 bytes.
    """

    id: str
    name: str
    algorithm: SignatureAlgorithm
    key_id: str | None = None
    client_id: str | None = None
    public_key: bytes | None = None
    created_at: float
    expires_at: float | None = None
    last_used_at: float | None = None

    @property
    def owner_id(self) -> str | None:
        """For what it signs."""
        return self.key_id or self.client_id


@dataclass(frozen=True, slots=True)
class CreatedSigningKey:
    """A signing key just made, and for HMAC its secret, which is shown once."""

    key: SigningKey
    secret: str | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class SignedHead:
    """What a signed request's head says, when it keeps to the profile; not verified yet.

    `until` is the last moment (Unix seconds) at which the signature can be accepted. `digests` is empty where the
    request has no `Content-Digest`, which it may leave out only when it has no body.
    """

    key_id: str
    algorithm: str | None
    nonce: str
    until: float
    base: bytes = field(repr=False)
    signature: bytes = field(repr=False)
    digests: Mapping[str, bytes] = field(repr=False)


class Sealer(Protocol):
    """Encrypts what must be read again, so that the database alone gives nothing away."""

    def seal(self, purpose: str, context: str, plaintext: bytes) -> bytes:
        """Encrypt for a `purpose` and bind to a `context`, such as the id of the row: it opens with the same two only."""

    def open(self, purpose: str, context: str, sealed: bytes) -> bytes:
        """What was sealed. Raises ValueError when it was changed, or sealed for something else, or the key is gone."""


class NonceStore(Protocol):
    """Remembers nonces for as long as the signatures with them could be accepted."""

    async def claim(self, key_id: str, nonce: str, *, user_id: str, until: float, now: float) -> None:
        """Take a nonce of a signing key, which nobody can then take again until `until` (Unix seconds).

        It counts among those of the key's user: one who makes many keys shall not crowd out the others.

        Atomic: of any number of callers one gets it. What was taken stays so through a crash of this process. Raises
        LingpaiError ``signature_invalid`` when it was taken, or when that cannot be told any more; ``server_busy`` when
        no more can be remembered; ``storage_unavailable`` when it could not be written.
        """
