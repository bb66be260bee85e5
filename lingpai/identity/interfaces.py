"""What identity hands out: users, projects and keys as values, without anything secret."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from lingpai.principal import Role

ChangeKind = Literal["key", "project", "user"]
OnChange = Callable[[ChangeKind, str, float], None]
"""Told after the commit which key, project or user changed, and when that began (time.monotonic); in any thread.

Between that time and this call somebody may have read the change already.
"""

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
    signature_required: bool = False


@dataclass(frozen=True, slots=True)
class CreatedKey:
    """A key just made and its credential, which exists nowhere else."""

    key: ApiKey
    token: str = field(repr=False)


class KeyUse(NamedTuple):
    """When and from where a key was last used."""

    key_id: str
    time: float
    address: str | None
