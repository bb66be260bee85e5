"""Access tokens as JWTs (RFC 9068), for servers elsewhere that verify them by themselves.

Here they are known by their `jti` as opaque ones are by their id, so that revoking one takes effect at once all the same.
"""

import base64
import re
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, Protocol

import msgspec

from lingpai.ids import is_public_id

Algorithm = Literal["EdDSA", "RS256"]
TYPE: Final = "at+jwt"  # RFC 9068 section 2.1
MAX_TOKEN_BYTES: Final = 8 * 1024
PREFIX: Final = "eyJ"
"""How every JWT begins: `{"` in base64url."""
BUILT_IN_CLIENT: Final = "lingpai"
"""The `client_id` of the built-in public client, which RFC 9068 section 2.2 wants; no registered one can have it."""
_ANYWHERE: Final = re.compile(
    # Possessive, and never from the middle of a word: any text is read once, however it was made up. 86 characters are
    # the signature of Ed25519, the shortest there is.
    rb"(?<![A-Za-z0-9_-])eyJ[A-Za-z0-9_-]++\.eyJ[A-Za-z0-9_-]++\.[A-Za-z0-9_-]{86,}+"
)
_KEY_ID: Final = re.compile(r"[A-Za-z0-9_-]{1,64}")
_CLOCK_SKEW_S: Final = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Claims:
    """What one token says (RFC 9068 section 2.2), beside who issues it and for whom. Times are Unix seconds."""

    token_id: str
    subject: str
    client_id: str
    scopes: tuple[str, ...]
    issued_at: float
    expires_at: float


class TokenKey(Protocol):
    """A key whose signatures are accepted."""

    @property
    def id(self) -> str: ...
    @property
    def algorithm(self) -> Algorithm: ...
    @property
    def public_key(self) -> bytes:
        """SubjectPublicKeyInfo in DER."""
        ...


class SigningTokenKey(Protocol):
    """The key that signs now."""

    @property
    def id(self) -> str: ...
    @property
    def algorithm(self) -> Algorithm: ...
    @property
    def private_key(self) -> bytes:
        """PKCS #8 in DER."""
        ...


class TokenKeys(Protocol):
    """The server's keys for tokens. All methods block."""

    def current(self, algorithm: Algorithm) -> SigningTokenKey:
        """The key that signs now."""
        ...

    def published(self) -> Sequence[TokenKey]:
        """Every key whose tokens are accepted, or soon will be."""
        ...

    def find(self, id_: str) -> TokenKey | None:
        """The published key with this id, or None."""
        ...


class JwtTokens:
    """Signs and verifies. Methods block, and load a library of 17 MB at first use."""

    def __init__(
        self, keys: TokenKeys, *, issuer: Callable[[], str], clock: Callable[[], float] = time.time
    ) -> None:
        """`issuer` is the address that the server is known by: the `iss` and `aud` of every token."""
        self._keys = keys
        self._issuer = issuer
        self._clock = clock
        self._imported: dict[tuple[str, str], Any] = {}

    def make_key(self, algorithm: Algorithm) -> None:
        """Have a key to sign with, so that the key set has it before the first token does."""
        self._keys.current(algorithm)

    def signer(self, algorithm: Algorithm) -> Callable[[Claims], str]:
        """What signs with the key that is in use now. Nothing that it needs is read later, so it does not fail."""
        key = self._keys.current(algorithm)
        jose_key = self._jose_key("private", key.id, key.algorithm, key.private_key)
        return lambda claims: self._signed(claims, key, jose_key)

    def _signed(self, claims: Claims, key: SigningTokenKey, jose_key: Any) -> str:
        """A token with all claims of RFC 9068 section 2.2. Its `sub` is given; `iss` and `aud` are this server."""
        said = {
            "iss": self._issuer(),
            "aud": self._issuer(),
            "sub": claims.subject,
            "client_id": claims.client_id,
            "scope": " ".join(claims.scopes),
            "iat": int(claims.issued_at),
            "exp": int(claims.expires_at),
            "jti": claims.token_id,
        }
        header = {"alg": key.algorithm, "typ": TYPE, "kid": key.id}
        return str(_jwt().encode(header, said, jose_key, algorithms=[key.algorithm]))

    def claimed_id(self, token: bytes) -> str | None:
        """The `jti` of what looks like a JWT; not verified, so good for nothing but to tell garbage. Does not block."""
        claims = peek(token, part=1)
        id_ = None if claims is None else claims.get("jti")
        return id_ if isinstance(id_, str) and is_public_id(id_) else None

    def verified_id(self, token: bytes) -> str | None:
        """The `jti` of a token of ours that is good now; None for whatever is anything else.

        RFC 9068 section 4, RFC 8725 sections 3.1 to 3.12: the key decides on the algorithm and not the header; nothing
        else that the header says leads anywhere; `iss`, `aud` and `typ` are compared exactly.
        """
        header = peek(token, part=0)
        if header is None or not _is_acceptable(header):
            return None
        key = self._keys.find(header["kid"])
        if key is None or header["alg"] != key.algorithm:
            return None
        jose_key = self._jose_key("public", key.id, key.algorithm, key.public_key)
        try:
            decoded = _jwt().decode(token.decode("ascii"), jose_key, algorithms=[key.algorithm])
        except (_jose_error(), ValueError):
            return None
        return self._good_id(decoded.claims)

    def key_set(self) -> dict[str, Any]:
        """What `/.well-known/jwks.json` answers (RFC 7517 section 5): public keys only."""
        keys = []
        for key in self._keys.published():
            public = self._jose_key("public", key.id, key.algorithm, key.public_key).as_dict(private=False)
            keys.append({**public, "kid": key.id, "use": "sig", "alg": key.algorithm})
        return {"keys": keys}

    def _good_id(self, claims: Mapping[str, Any]) -> str | None:
        issuer, now = self._issuer(), self._clock()
        expires_at, issued_at, token_id = claims.get("exp"), claims.get("iat"), claims.get("jti")
        if claims.get("iss") != issuer or claims.get("aud") != issuer:
            return None
        if type(expires_at) is not int or type(issued_at) is not int or not isinstance(token_id, str):
            return None
        if not isinstance(claims.get("sub"), str) or not isinstance(claims.get("client_id"), str):
            return None
        is_in_time = issued_at <= now + _CLOCK_SKEW_S and now < expires_at
        return token_id if is_in_time and is_public_id(token_id) else None

    def _jose_key(self, kind: str, id_: str, algorithm: Algorithm, der: bytes) -> Any:
        found = self._imported.get((kind, id_))
        if found is None:
            if len(self._imported) > 100:  # far more than are ever published
                self._imported.clear()
            found = self._imported[kind, id_] = _imported(algorithm, der, is_private=kind == "private")
        return found


def find_jwts(text: bytes) -> Iterator[tuple[int, bytes]]:
    """Where in `text` there is what looks like an access token of RFC 9068, and that; nothing is verified.

    Its header and its `jti` have the form of ours, so that the JWTs of others are passed over.
    """
    for match in _ANYWHERE.finditer(text):
        header, claims = peek(match[0], part=0), peek(match[0], part=1)
        id_ = None if claims is None else claims.get("jti")
        if header is not None and _is_acceptable(header) and isinstance(id_, str) and is_public_id(id_):
            yield match.start(), match[0]


def peek(token: bytes, *, part: Literal[0, 1]) -> dict[str, Any] | None:
    """The header (0) or the claims (1) of what looks like a JWT, not verified; None for anything else."""
    if len(token) > MAX_TOKEN_BYTES or token.count(b".") != 2:
        return None
    encoded = token.split(b".")[part]
    try:
        found = msgspec.json.decode(_base64url(encoded))
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def _is_acceptable(header: Mapping[str, Any]) -> bool:
    key_id, algorithm = header.get("kid"), header.get("alg")
    return (
        header.get("typ") == TYPE
        and isinstance(key_id, str)
        and _KEY_ID.fullmatch(key_id) is not None
        and isinstance(algorithm, str)
        and header.keys()
        <= {"alg", "kid", "typ"}  # no `crit`, no key or address of a key that a caller chooses
    )


def _base64url(encoded: bytes) -> bytes:
    return base64.urlsafe_b64decode(encoded + b"=" * (-len(encoded) % 4))


def _jwt() -> Any:
    # Loaded with the first JWT: 17 MB of memory that a server with opaque tokens does without.
    from joserfc import jwt  # noqa: PLC0415
    from joserfc.errors import SecurityWarning  # noqa: PLC0415

    # RFC 9864 calls it `Ed25519` since 2025; verifiers in the field know the name of RFC 8037.
    warnings.filterwarnings("ignore", "EdDSA is deprecated", SecurityWarning)
    return jwt


def _jose_error() -> type[Exception]:
    from joserfc.errors import JoseError  # noqa: PLC0415  as above

    return JoseError


def _imported(algorithm: Algorithm, der: bytes, *, is_private: bool) -> Any:
    from cryptography.hazmat.primitives import serialization  # noqa: PLC0415  as above
    from joserfc.jwk import OKPKey, RSAKey  # noqa: PLC0415  as above

    key: Any = (
        serialization.load_der_private_key(der, None)
        if is_private
        else serialization.load_der_public_key(der)
    )
    return (OKPKey if algorithm == "EdDSA" else RSAKey).import_key(key)
