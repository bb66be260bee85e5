"""How requests to Lingpai are signed: the profile of RFC 9421 that the server asks for, and a signer that follows it.

Pure but for the clock and the random nonce, and without any cryptography of its own beside HMAC: the SDK hands in
whatever signs with its Ed25519 key. docs/guides/signing.md describes the profile, docs/decisions/0014-signed-requests.md
why it is so.
"""

import hmac
import secrets
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Final, Literal
from urllib.parse import urlsplit

from lingpai.wire.content_digest import DigestAlgorithm, content_digest
from lingpai.wire.message_signatures import Message, signature_base
from lingpai.wire.structured_fields import BareItem, InnerList, Item, serialize_dictionary

TAG: Final = "lingpai"
MOST_AGE_S: Final = 300
"""How far `created` may be from the server's clock, and `expires` from `created`."""
ALWAYS_COVERED: Final = ("@method", "@authority", "@path", "@query")
COVERED_WITH_CONTENT: Final = ("content-type", "content-digest")
CREDENTIAL_FIELDS: Final = ("authorization", "x-api-key", "api-key", "x-goog-api-key")

SignatureAlgorithm = Literal["ed25519", "hmac-sha256"]
Sign = Callable[[bytes], bytes]

_LABEL: Final = "lingpai"


def wanted_components(names: Iterable[str], *, has_content: bool) -> tuple[str, ...]:
    """What a signature must cover of a request with fields called `names` (in lower case).

    Method, authority, path and query, always; what says how to read a body, and the body's digest, when there is a body
    or the field; the credential when one is sent.
    """
    present = set(names)
    content = tuple(name for name in COVERED_WITH_CONTENT if has_content or name in present)
    credentials = tuple(name for name in CREDENTIAL_FIELDS if name in present)
    return (*ALWAYS_COVERED, *content, *credentials)


ACCEPT_SIGNATURE: Final = serialize_dictionary(
    {
        _LABEL: InnerList(
            tuple(Item(name) for name in wanted_components((), has_content=True)),
            {"created": True, "nonce": True, "keyid": True, "tag": TAG},
        )
    }
)
"""How a server asks for the signature of a request with a body (section 5.1)."""


def hmac_sha256(secret: str) -> Sign:
    """Signs with HMAC-SHA-256 (RFC 9421, section 3.3.3); the key is the text of `secret` itself."""
    key = secret.encode()
    return lambda base: hmac.digest(key, base, "sha256")


class RequestSigner:
    """Signs requests with one key."""

    def __init__(
        self,
        key_id: str,
        algorithm: SignatureAlgorithm,
        sign: Sign,
        *,
        digest: DigestAlgorithm = "sha-256",
        lifetime_s: int = 60,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`sign` gives the signature of the bytes it gets. A signature is good for `lifetime_s`, 300 at the most."""
        if not 0 < lifetime_s <= MOST_AGE_S:
            raise ValueError(f"a signature may live for 1 to {MOST_AGE_S} seconds, not {lifetime_s}")
        self._key_id = key_id
        self._algorithm = algorithm
        self._sign = sign
        self._digest = digest
        self._lifetime_s = lifetime_s
        self._clock = clock

    def __repr__(self) -> str:
        return f"RequestSigner({self._key_id!r}, {self._algorithm!r})"

    def sign(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str],
        body: bytes = b"",
        *,
        nonce: str | None = None,
    ) -> dict[str, str]:
        """The fields to add to the request: `content-digest` when there is a body, `signature-input`, `signature`.

        `headers` are those that the request has already; a body needs a `content-type` among them, or ComponentError is
        raised. Sign again for every attempt: a nonce is good for one.
        """
        added = {"content-digest": content_digest(body, self._digest)} if body else {}
        fields = {name.lower(): value for name, value in headers.items()} | added
        message = _message(method, url, fields)
        names = wanted_components(fields, has_content=bool(body))
        covered = InnerList(tuple(Item(name) for name in names), self._parameters(nonce))
        signature = self._sign(signature_base(message, covered))
        added["signature-input"] = serialize_dictionary({_LABEL: covered})
        added["signature"] = serialize_dictionary({_LABEL: Item(signature)})
        return added

    def _parameters(self, nonce: str | None) -> dict[str, BareItem]:
        created = int(self._clock())
        return {
            "created": created,
            "expires": created + self._lifetime_s,
            "nonce": nonce or secrets.token_urlsafe(18),
            "keyid": self._key_id,
            "alg": self._algorithm,
            "tag": TAG,
        }


def _message(method: str, url: str, fields: Mapping[str, str]) -> Message:
    parts = urlsplit(url)
    query = f"?{parts.query}" if parts.query else ""
    return Message(
        method=method.upper(),
        scheme=parts.scheme,
        authority=fields.get("host") or parts.netloc.rpartition("@")[2],
        target=f"{parts.path or '/'}{query}",
        fields=tuple(fields.items()),
    )
