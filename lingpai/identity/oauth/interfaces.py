"""What the authorization server hands out, as values without anything secret."""

from dataclasses import dataclass, field
from typing import Final, Literal

from lingpai.identity.interfaces import LEAKED

Grant = Literal["client_credentials", "password", "refresh_token"]
GRANTS: Final[tuple[Grant, ...]] = ("client_credentials", "password", "refresh_token")

LiveTokenKind = Literal["family", "access_token"]
"""All tokens of one sign-in together, or a single access token."""

CLIENT_ID_PREFIX: Final = "cl-lp-"
"""No user name begins so: a client cannot pass for a user, nor a user for a client (RFC 9700 section 4.15)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Client:
    """An OAuth client as everybody may know it: without its secret. Times are Unix seconds.

    `scopes` are those that take effect for the owner's role; tokens never have more. Empty `models` and `allowed_ips`
    do not restrict. `token_lifetime_s` None: as the server's settings say. A public client has no secret, and `hint`
    is None. `disabled_because` says why it does not work, whoever is the cause; `disabled_at` is for its own switch.
    """

    id: str
    name: str
    user_id: str
    user_name: str
    project_id: str
    project_name: str
    hint: str | None
    grants: tuple[Grant, ...]
    scopes: tuple[str, ...]
    models: tuple[str, ...]
    limits: tuple[str, ...]
    allowed_ips: tuple[str, ...]
    signature_required: bool
    token_lifetime_s: int | None
    created_at: float
    old_hint: str | None = None
    old_expires_at: float | None = None
    rotated_at: float | None = None
    expires_at: float | None = None
    disabled_at: float | None = None
    disabled_because: str | None = None
    last_used_at: float | None = None
    last_used_ip: str | None = None

    @property
    def is_leaked(self) -> bool:
        """Whether it is disabled because somebody reported its secret."""
        return self.disabled_because == LEAKED

    @property
    def needs_another_secret(self) -> bool:
        """Whether others know its present secret, as far as was reported."""
        return self.is_leaked and (self.rotated_at or 0.0) < (self.disabled_at or 0.0)

    @property
    def client_id(self) -> str:
        """What it is called on the wire."""
        return CLIENT_ID_PREFIX + self.id

    @property
    def is_public(self) -> bool:
        """Whether it has no secret: it cannot authenticate itself (RFC 6749 section 2.1)."""
        return self.hint is None


@dataclass(frozen=True, slots=True)
class CreatedClient:
    """A client just made, or given another secret; the secret exists nowhere else. A public client has none."""

    client: Client
    secret: str | None = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveToken:
    """A family or an access token that has not ended, without anything secret. Times are Unix seconds.

    `client_id` (`cl-lp-…`) is None for the built-in public client. `scopes` are those that take effect now. `ends_at` is
    the end that cannot be moved, by which lists are ordered; `expires_at` when it ends if nobody refreshes it.
    """

    id: str
    kind: LiveTokenKind
    client_id: str | None
    client_name: str | None
    user_id: str
    user_name: str
    scopes: tuple[str, ...]
    created_at: float
    ends_at: float
    expires_at: float
    refreshed_at: float | None = None
    address: str | None = None
    user_agent: str | None = None
