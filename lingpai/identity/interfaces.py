"""What identity hands out: users, projects and keys as values, without anything secret."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, Literal, NamedTuple, Protocol

from sqlalchemy import Connection

from lingpai.identity.roles import ProjectRole
from lingpai.principal import Principal, Role

ChangeKind = Literal["client", "key", "project", "token", "user"]
OnChange = Callable[[ChangeKind, str, float], None]
"""Told after the commit which client, key, project, access token or user changed, and when that began (time.monotonic); in any thread.

Between that time and this call somebody may have read the change already.
"""

EndSessions = Callable[[Connection, Principal, str, str], object]
"""Ends all sessions of a user in the transaction of what ends them: the caller, the user's id, and why."""

ValidateLimit = Callable[[str], str]
"""Gives the canonical form of a limit, or raises ValueError with a sentence that helps."""


@dataclass(frozen=True, slots=True, kw_only=True)
class User:
    """A person or program that owns keys. Times are Unix seconds."""

    id: str
    name: str
    role: Role
    limits: tuple[str, ...]
    created_at: float
    disabled_at: float | None = None
    password_changed_at: float | None = None
    """None: the user has no password yet."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Project:
    """What keys belong to, whoever owns them: shares limits, and is what usage is added up by. Times are Unix seconds.

    Every user has one personal project, which has the user's name. `role` is that of whoever asks; None is no role.
    """

    id: str
    name: str
    owner_id: str
    owner_name: str
    is_personal: bool
    limits: tuple[str, ...]
    created_at: float
    role: ProjectRole | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """Somebody with a role in a project, since `created_at` (Unix seconds)."""

    project_id: str
    user_id: str
    user_name: str
    role: ProjectRole
    created_at: float
    is_disabled: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Secret:
    """One of the secrets of a key, as everybody may know it. Times are Unix seconds.

    `expires_at` is None for the present one; the one before it works until then.
    """

    hint: str
    created_at: float
    expires_at: float | None
    last_used_at: float | None


KeyState = Literal["active", "disabled", "expired"]
UserState = Literal["active", "disabled"]

LEAKED: Final = "reported as leaked"
"""Why a key is disabled whose secret somebody reported."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiKey:
    """An API key as everybody may know it: without its secret. Times are Unix seconds.

    `scopes` are those that take effect for the owner's role. Empty `models` and `allowed_ips` do not restrict.
    `disabled_because` says why it does not work, whoever is the cause; `disabled_at` is for the key's own switch.
    """

    id: str
    name: str
    user_id: str
    user_name: str
    project_id: str
    project_name: str
    hint: str
    scopes: tuple[str, ...]
    models: tuple[str, ...]
    limits: tuple[str, ...]
    allowed_ips: tuple[str, ...]
    created_at: float
    expires_at: float | None = None
    disabled_at: float | None = None
    disabled_because: str | None = None
    last_used_at: float | None = None
    last_used_ip: str | None = None
    rotated_at: float | None = None
    secret: Secret
    old_secret: Secret | None = None
    signature_required: bool = False

    @property
    def is_leaked(self) -> bool:
        """Whether it is disabled because somebody reported its secret."""
        return self.disabled_because == LEAKED

    @property
    def needs_another_secret(self) -> bool:
        """Whether others know its present secret, as far as was reported."""
        return self.is_leaked and (self.rotated_at or 0.0) < (self.disabled_at or 0.0)

    def state(self, now: float) -> KeyState:
        """Whether calls with it are answered at `now` (Unix seconds), as far as the key alone decides."""
        if self.disabled_because is not None:
            return "disabled"
        return "active" if self.expires_at is None or now < self.expires_at else "expired"

    def secrets(self, now: float) -> tuple[Secret, ...]:
        """Those that work at `now`: the present one, and the one before it while that still works."""
        old = self.old_secret
        if old is None or old.expires_at is None or now >= old.expires_at:
            return (self.secret,)
        return self.secret, old


@dataclass(frozen=True, slots=True)
class CreatedKey:
    """A key just made and its credential, which exists nowhere else."""

    key: ApiKey
    token: str = field(repr=False)


class Use(NamedTuple):
    """When and from where a key, or a token of a client, was last used; `is_old_secret`: with the secret before the last
    rotation of the key.
    """

    kind: Literal["client", "key"]
    id: str
    time: float
    address: str | None
    is_old_secret: bool = False


class RevokesTokens(Protocol):
    """Ends what a user has handed out by signing in."""

    def revoke_of_user(self, connection: Connection, user_id: str, because: str) -> int:
        """Revoke every token family of the user, and the access tokens that came out of them, in this transaction.

        Returns how many families were alive. Tokens that clients have got on their own behalf stay.
        """
