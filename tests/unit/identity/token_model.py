"""What tokens are good for, thought out slowly: a list of everything, and rules that look at all of it each time."""

from __future__ import annotations

from dataclasses import dataclass, field
from math import floor, inf

ACCESS_S, JWT_S, REFRESH_S, FAMILY_S = 1000, 300, 5000, 12_000


@dataclass(eq=False)
class ModelClient:
    name: str
    scopes: frozenset[str]
    is_disabled: bool = False


@dataclass(eq=False)
class ModelUser:
    name: str
    is_disabled: bool = False


@dataclass(eq=False)
class ModelFamily:
    """A sign-in."""

    user: ModelUser
    client: ModelClient | None
    scopes: frozenset[str]
    ends_at: float
    is_revoked: bool = False


@dataclass(eq=False)
class ModelAccessToken:
    scopes: frozenset[str]
    expires_at: float
    client: ModelClient | None
    family: ModelFamily | None = None
    is_revoked: bool = False


@dataclass(eq=False)
class ModelRefreshToken:
    family: ModelFamily
    expires_at: float
    used_at: float | None = None
    successor: str | None = None


@dataclass(eq=False)
class TokenModel:
    """Every token there ever was, by itself, and what is to be expected of it."""

    grace_s: float
    now: float
    has_jwts: bool = False
    access: dict[str, ModelAccessToken] = field(default_factory=dict)
    refresh: dict[str, ModelRefreshToken] = field(default_factory=dict)

    def effective(self, token: str) -> frozenset[str] | None:
        """The scopes that a call with an access token has now; None when it is refused."""
        access = self.access[token]
        family, client = access.family, access.client
        if access.is_revoked or self.now >= access.expires_at:
            return None
        if client is not None and client.is_disabled:
            return None
        if family is not None and (family.is_revoked or family.user.is_disabled):
            return None
        return access.scopes if client is None else access.scopes & client.scopes

    def is_good_refresh_token(self, token: str) -> bool:
        """Whether introspection should call it active."""
        refresh = self.refresh[token]
        family = refresh.family
        is_disabled = family.user.is_disabled or (family.client is not None and family.client.is_disabled)
        is_over = self.now >= min(refresh.expires_at, family.ends_at)
        return not (family.is_revoked or is_disabled or is_over or refresh.used_at is not None)

    def outcome_of_refresh(self, token: str, client: ModelClient | None) -> str:
        """`new`, `again` or an error's code. Nothing is changed."""
        refresh = self.refresh[token]
        family = refresh.family
        if client is not None and client.is_disabled:
            return "invalid_client"
        if client is not family.client or family.is_revoked or family.user.is_disabled:
            return "invalid_grant"
        if refresh.used_at is not None:
            return self._outcome_of_reuse(refresh)
        if self.now >= min(refresh.expires_at, family.ends_at):
            return "invalid_grant"
        return "new" if self.scopes_of(family) else "invalid_scope"

    def _outcome_of_reuse(self, refresh: ModelRefreshToken) -> str:
        successor = self.refresh[str(refresh.successor)]
        is_late = self.now - (refresh.used_at or 0) >= self.grace_s
        if is_late or successor.used_at is not None:
            return "reuse"
        if self.now >= successor.expires_at:
            return "invalid_grant"
        return "again" if self.scopes_of(refresh.family) else "invalid_scope"

    def scopes_of(self, family: ModelFamily) -> frozenset[str]:
        return family.scopes if family.client is None else family.scopes & family.client.scopes

    def heads(self, family: ModelFamily) -> int:
        """How many refresh tokens of a family were never used."""
        return sum(each.family is family and each.used_at is None for each in self.refresh.values())

    def end(self, latest: float = inf) -> float:
        """When an access token ends that is made now. JWTs know whole seconds only."""
        return floor(min(self.now + JWT_S, latest)) if self.has_jwts else min(self.now + ACCESS_S, latest)

    # -- what happens

    def signed_in(
        self, user: ModelUser, client: ModelClient | None, scopes: frozenset[str], access: str, refresh: str
    ) -> None:
        family = ModelFamily(user, client, scopes, self.now + FAMILY_S)
        self.access[access] = ModelAccessToken(scopes, self.end(), client, family)
        self.refresh[refresh] = ModelRefreshToken(family, self.now + REFRESH_S)

    def given_to_client(self, client: ModelClient, access: str) -> None:
        self.access[access] = ModelAccessToken(client.scopes, self.end(), client)

    def refreshed(self, used: str, access: str, successor: str) -> None:
        refresh = self.refresh[used]
        family = refresh.family
        if refresh.used_at is None:
            refresh.used_at, refresh.successor = self.now, successor
            self.refresh[successor] = ModelRefreshToken(family, min(self.now + REFRESH_S, family.ends_at))
        self.access[access] = ModelAccessToken(
            self.scopes_of(family), self.end(family.ends_at), family.client, family
        )

    def reused(self, token: str) -> None:
        self.refresh[token].family.is_revoked = True

    def revoked(self, token: str, client: ModelClient | None) -> None:
        """Somebody asks for the end of a token; only its own client can bring it about."""
        if client is not None and client.is_disabled:
            return
        if token in self.refresh:
            family = self.refresh[token].family
            family.is_revoked |= family.client is client
        elif self.access[token].client is client:
            self.access[token].is_revoked = True
