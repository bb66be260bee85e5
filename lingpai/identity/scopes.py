"""Scopes: what a key may do, ``<resource>:<action>``.

A key's rights are its scopes *and* its owner's role: a scope that the role does not carry has no effect, whatever is
stored with the key, so that taking a role away takes the rights away at once. A scope that a release adds is held by no
key made before it: an upgrade never widens what somebody can do with a key that is out there.
"""

from collections.abc import Iterable, Mapping
from enum import StrEnum
from typing import Final

from lingpai.principal import Role


class Scope(StrEnum):
    """Every scope there is."""

    AUDIT_READ = "audit:read"
    CLIENTS_READ = "clients:read"
    CLIENTS_WRITE = "clients:write"
    EVENTS_READ = "events:read"
    EVENTS_WRITE = "events:write"
    KEYS_READ = "keys:read"
    KEYS_WRITE = "keys:write"
    LIMITS_READ = "limits:read"
    LIMITS_WRITE = "limits:write"
    MODEL_INFERENCE = "model:inference"
    MODELS_READ = "models:read"
    MODELS_WRITE = "models:write"
    PROJECTS_READ = "projects:read"
    PROJECTS_WRITE = "projects:write"
    SECRETS_READ = "secrets:read"
    SECRETS_WRITE = "secrets:write"
    SESSIONS_READ = "sessions:read"
    SESSIONS_WRITE = "sessions:write"
    TOKENS_INTROSPECT = "tokens:introspect"
    TOKENS_READ = "tokens:read"
    TOKENS_WRITE = "tokens:write"
    USAGE_READ = "usage:read"
    USERS_READ = "users:read"
    USERS_WRITE = "users:write"


ALL_SCOPES: Final = frozenset(scope.value for scope in Scope)
DEFAULT_SCOPES: Final = (Scope.MODEL_INFERENCE.value,)

# What a member's key can hold: nothing that shows the audit trail, sends test events, looks into others' tokens, shows or
# changes the server's secrets, or changes models, users or anybody's limits. What it may do with projects is a matter of
# roles in them.
_ADMINS_ONLY: Final = frozenset(
    {
        Scope.AUDIT_READ,
        Scope.EVENTS_WRITE,
        Scope.LIMITS_WRITE,
        Scope.MODELS_WRITE,
        Scope.SECRETS_READ,
        Scope.SECRETS_WRITE,
        Scope.TOKENS_INTROSPECT,
        Scope.USERS_WRITE,
    }
)
SCOPES_OF_ROLE: Final[Mapping[Role, frozenset[str]]] = {
    "admin": ALL_SCOPES,
    "member": ALL_SCOPES - _ADMINS_ONLY,
}


def effective_scopes(stored: Iterable[str], role: Role) -> frozenset[str]:
    """The scopes that take effect for a key whose owner has `role`."""
    return SCOPES_OF_ROLE[role].intersection(stored)
