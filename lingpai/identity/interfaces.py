"""What identity hands out: users, projects and keys as values, without anything secret."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal, NamedTuple, Protocol

from sqlalchemy import Connection

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

    Every user has one personal project, which has the user's name.
    """

    id: str
    name: str
    owner_id: str
    owner_name: str
    is_personal: bool
    limits: tuple[str, ...]
    created_at: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiKey:
    """An API key as everybody may know it: without its secret. Times are Unix seconds.

    `scopes` are those that take effect for the owner's role. Empty `models` and `allowed_ips` do not restrict.
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
    last_used_at: float | None = None
    last_used_ip: str | None = None


@dataclass(frozen=True, slots=True)
class CreatedKey:
    """A key just made and its credential, which exists nowhere else."""

    key: ApiKey
    token: str = field(repr=False)


class Use(NamedTuple):
    """When and from where a key, or a token of a client, was last used."""

    kind: Literal["client", "key"]
    id: str
    time: float
    address: str | None


class RevokesTokens(Protocol):
    """Ends what a user has handed out by signing in."""

    def revoke_of_user(self, connection: Connection, user_id: str, because: str) -> None:
        """Revoke every token family of the user, and the access tokens that came out of them, in this transaction.

        Tokens that clients have got on their own behalf stay.
        """
