"""What is said of the server's secrets, without anything secret, and what this domain needs to know of the others."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, Protocol

from sqlalchemy import Connection

Kind = Literal["pepper", "root", "signing"]
State = Literal["next", "current", "old"]
Algorithm = Literal["EdDSA", "RS256"]


@dataclass(frozen=True, slots=True, kw_only=True)
class SecretVersion:
    """One version of one kind. Times are Unix seconds."""

    kind: Kind
    version: str
    state: State
    """`next`: known to everybody, but not used before `use_from`."""
    place: str
    """Where it is kept: a path, `LINGPAI_…`, or `database`."""
    created_at: float | None = None
    """None where that is not known."""
    algorithm: Algorithm | None = None
    use_from: float | None = None
    verify_until: float | None = None
    """What it has signed is accepted until then; None for what has no successor, and for the other kinds."""
    uses: Mapping[str, int] = field(default_factory=dict)
    """How many of what need it: `{"API keys": 12}`."""


class VersionUses(Protocol):
    """Rows that need one version of a numbered secret each."""

    @property
    def what(self) -> str:
        """What the rows are, in the plural, for people."""
        ...

    def count(self, connection: Connection, now: float) -> Mapping[int, int]:
        """How many rows need each version; those that have ended by `now` need none."""
        ...


class ManagedSecrets(Protocol):
    """The secrets of one kind. All methods block."""

    def versions(self, connection: Connection) -> list[SecretVersion]:
        """All versions, the oldest first, with what needs them."""
        ...

    def rotate(self, connection: Connection, *, leaked: bool) -> list[SecretVersion]:
        """Make new versions, on the disk first, and use them; those of before go on.

        `leaked` ends the old ones at once, where that makes sense. Returns the new ones. Raises LingpaiError.
        """
        ...

    def retire(self, connection: Connection, version: str) -> None:
        """Take a version away for good.

        Raises LingpaiError: ``not_found``, or ``invalid_request`` while anything needs it.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenKey:
    """A key whose signatures on tokens are accepted. Times are Unix seconds."""

    id: str
    """The `kid` of its tokens."""
    algorithm: Algorithm
    public_key: bytes
    """SubjectPublicKeyInfo in DER (RFC 5280, section 4.1)."""
    created_at: float
    use_from: float
    verify_until: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SigningTokenKey:
    """The key that signs tokens now."""

    id: str
    algorithm: Algorithm
    private_key: bytes = field(repr=False)
    """PKCS #8 in DER, not encrypted (RFC 5958)."""
