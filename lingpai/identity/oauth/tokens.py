"""Making tokens: what a grant hands out, and what is stored of it."""

import hmac
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

from sqlalchemy import Connection

from lingpai.identity.oauth.errors import OAuthError, printable
from lingpai.identity.oauth.interfaces import Client
from lingpai.identity.oauth.jwt_tokens import BUILT_IN_CLIENT, Claims
from lingpai.identity.oauth.settings import OAuthSettings
from lingpai.identity.oauth.token_store import SqlTokenStore
from lingpai.identity.peppers import Peppers
from lingpai.identity.scopes import ALL_SCOPES
from lingpai.ids import ID_LENGTH, MintedCredential, derived_credential, mint_credential, random_base62

_SUCCESSOR: Final = b"lingpai refresh token successor\0"
"""Sets this use of a pepper apart from that on credentials, which begin otherwise."""


class KnownTokens(Protocol):
    """Hears of new access tokens, so that they are not taken for garbage."""

    def add(self, key_id: str) -> None: ...


@dataclass(frozen=True, slots=True)
class Family:
    """All tokens that come from one sign-in. None of them lives longer than until `ends_at` (Unix seconds)."""

    id: str
    ends_at: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Holder:
    """Whose a token is: a client on its own behalf, or a user through a client (None: the built-in public one)."""

    user_id: str
    user_name: str
    client: Client | None = None
    family: Family | None = None

    @property
    def client_row_id(self) -> str | None:
        """The client's id in tables."""
        return None if self.client is None else self.client.id

    @property
    def subject(self) -> str:
        """Whom a token is about: its user, or a client that acts for itself (RFC 9068 section 2.2)."""
        return self.client.client_id if self.client is not None and self.family is None else self.user_id


@dataclass(frozen=True, slots=True)
class Granted:
    """What the token endpoint answers (RFC 6749 section 5.1). `expires_in` is in seconds.

    A JWT has its `claims` first, and becomes an `access_token` when its row is on the disk: signing is slow, and nobody
    shall wait for it with the write lock.
    """

    access_token: str = field(repr=False)
    access_token_id: str
    expires_in: int
    scopes: tuple[str, ...]
    refresh_token: str | None = field(default=None, repr=False)
    claims: Claims | None = None

    def body(self) -> dict[str, Any]:
        """The JSON object. `scope` is always there, so that nobody has to know what was left out."""
        body: dict[str, Any] = {
            "access_token": self.access_token,
            "token_type": "Bearer",
            "expires_in": self.expires_in,
            "scope": " ".join(self.scopes),
        }
        return body if self.refresh_token is None else body | {"refresh_token": self.refresh_token}


class TokenMint:
    """Makes tokens and stores their HMACs. Its methods run in a transaction of the caller's, in any thread."""

    def __init__(self, peppers: Peppers, settings: OAuthSettings) -> None:
        self._peppers = peppers
        self._settings = settings
        self._store = SqlTokenStore()

    def reconfigure(self, settings: OAuthSettings) -> None:
        """New tokens live as long as `settings` say; those that are out keep their end."""
        self._settings = settings

    def access_token(
        self, connection: Connection, holder: Holder, scopes: Sequence[str], *, now: float
    ) -> Granted:
        """A new access token of `holder`. It outlives neither its client nor its family."""
        minted = None if self._settings.has_jwts else mint_credential("at-lp-")
        id_ = random_base62(ID_LENGTH) if minted is None else minted.id
        family = holder.family
        ends = (
            now + self._lifetime_s(holder.client),
            None if holder.client is None else holder.client.expires_at,
            None if family is None else family.ends_at,
        )
        expires_at = min(end for end in ends if end is not None)
        if minted is None:
            expires_at = float(int(expires_at))  # `exp` is in whole seconds, and its row ends with it
        self._store.add_access_token(
            connection,
            {
                "id": id_,
                "client_id": holder.client_row_id,
                "user_id": holder.user_id,
                "family_id": None if family is None else family.id,
                "scopes": tuple(scopes),
                "created_at": now,
                "expires_at": expires_at,
                **_proof(minted, self._peppers),
            },
        )
        expires_in = max(0, int(expires_at - now))
        if minted is not None:
            return Granted(minted.token, id_, expires_in, tuple(scopes))
        claims = Claims(
            token_id=id_,
            subject=holder.subject,
            client_id=BUILT_IN_CLIENT if holder.client is None else holder.client.client_id,
            scopes=tuple(scopes),
            issued_at=now,
            expires_at=expires_at,
        )
        return Granted("", id_, expires_in, tuple(scopes), claims=claims)

    def family(
        self,
        connection: Connection,
        holder: Holder,
        scopes: Sequence[str],
        *,
        now: float,
        can_refresh: bool,
        address: str,
        user_agent: str,
    ) -> Family:
        """A new family: what a user has agreed to by signing in. One without refresh tokens ends with its access token."""
        own_s = self._settings.refresh_family_lifetime
        family = Family(
            f"fam_{random_base62(16)}", now + (own_s if can_refresh else self._lifetime_s(holder.client))
        )
        self._store.add_family(
            connection,
            {
                "id": family.id,
                "client_id": holder.client_row_id,
                "user_id": holder.user_id,
                "scopes": tuple(scopes),
                "created_at": now,
                "expires_at": family.ends_at,
                "address": address,
                "user_agent": user_agent[:200],
            },
        )
        return family

    def refresh_token(self, connection: Connection, family: Family, *, now: float) -> str:
        """The first refresh token of a family."""
        minted = mint_credential("rt-lp-")
        self._add_refresh_token(connection, minted, self._peppers.newest_version, family, now=now)
        return minted.token

    def successor(self, connection: Connection, used: str, family: Family, *, now: float) -> str | None:
        """The refresh token that takes the place of `used`, or None when that was used before.

        Its secret is made of the used one and the pepper: who comes with the used one within the grace period gets the
        same successor again, although it is stored nowhere.
        """
        id_ = random_base62(ID_LENGTH)
        version = self._peppers.newest_version  # asked once: another one may become the newest at any time
        minted = self.derived(used, id_, version)
        is_first = self._store.use_refresh_token(connection, used[6:18], now=now, successor_id=id_)
        if not is_first:
            return None
        self._add_refresh_token(connection, minted, version, family, now=now)
        return minted.token

    def derived(self, used: str, successor_id: str, version: int) -> MintedCredential:
        """The successor of `used` that has this id, made under the pepper of `version`."""
        material = _SUCCESSOR + successor_id.encode() + b"\0" + used.encode()
        return derived_credential("rt-lp-", successor_id, self._peppers.hmac(material, version))

    def is_secret(self, token: str, version: int, stored: bytes) -> bool:
        """Whether `token` is what was stored."""
        if not self._peppers.learn(version):
            return False
        return hmac.compare_digest(self._peppers.hmac(token.encode(), version), stored)

    def _lifetime_s(self, client: Client | None) -> int:
        settings = self._settings
        own = None if client is None else client.token_lifetime_s
        lifetime_s = settings.access_token_lifetime if own is None else own
        return min(lifetime_s, settings.jwt_lifetime) if settings.has_jwts else lifetime_s

    def _add_refresh_token(
        self,
        connection: Connection,
        minted: MintedCredential,
        version: int,
        family: Family,
        *,
        now: float,
    ) -> None:
        self._store.add_refresh_token(
            connection,
            {
                "id": minted.id,
                "family_id": family.id,
                "created_at": now,
                "expires_at": min(now + self._settings.refresh_token_lifetime, family.ends_at),
                "secret_hmac": self._peppers.hmac(minted.token.encode(), version),
                "pepper_version": version,
            },
        )


def _proof(minted: MintedCredential | None, peppers: Peppers) -> dict[str, Any]:
    """What an access token is recognised by; of a JWT (None) nothing is stored, its signature proves it."""
    version = peppers.newest_version
    stored = None if minted is None else peppers.hmac(minted.token.encode(), version)
    return {"secret_hmac": stored, "pepper_version": None if stored is None else version}


def wanted_scopes(
    form: Mapping[str, str], may_have: Sequence[str], *, default: Sequence[str]
) -> tuple[str, ...]:
    """The scopes asked for, sorted, or `default` where none are (RFC 6749 section 3.3).

    Raises OAuthError invalid_scope for a scope that there is not, or that is not among `may_have`, and where the default
    is none at all: a token that can do nothing helps nobody, and an empty `scope` is none (appendix A.4).
    """
    if "scope" not in form:
        if not default:
            raise OAuthError(
                "invalid_scope", "No scope can be had here: what the client may do, its user may not."
            )
        return tuple(sorted(default))
    asked = form["scope"].split(" ")
    for scope in asked:
        if scope not in ALL_SCOPES:
            description = f"There is no scope {printable(scope) or '(empty)'}."
            raise OAuthError("invalid_scope", description, is_echo=True)
        if scope not in may_have:
            raise OAuthError("invalid_scope", f"The scope {scope} cannot be had here.")
    return tuple(sorted(set(asked)))
