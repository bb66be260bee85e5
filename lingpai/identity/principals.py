"""Principals from what the database holds of a key or an access token."""

import ipaddress
import math
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Row

from lingpai.identity.key_states import disabled_because
from lingpai.identity.oauth.interfaces import CLIENT_ID_PREFIX
from lingpai.identity.scopes import effective_scopes
from lingpai.principal import Principal
from lingpai.storage.versioned_secrets import HIGHEST_VERSION


@dataclass(slots=True, eq=False)
class LoadedPrincipal(Principal):
    """A principal that knows how old it is."""

    as_of: int = 0
    """The keyring's `changes` when the database was read."""
    is_old_secret: bool = False
    """It came with the secret of a key before the last rotation, which ends by itself."""
    is_jwt: bool = False
    """It came with a token that a signature has proven, by a key that may be ended."""
    client_owner_id: str | None = None
    """Of a client's token, whose the client is: without them it stops, for whomever it acts."""
    pepper_version: int = HIGHEST_VERSION
    """Of a key, the newest one then: one made under an older one is on its way to it. What does not move, stays."""


def principal_of_key(row: Row[Any], as_of: int, *, is_old_secret: bool = False) -> LoadedPrincipal:
    """Who calls with an API key; `row` is what `SqlCredentialStore.key` reads."""
    # The old secret's end is that of its principal, so whoever is remembered is refused to the second, too.
    expires_at = row.expires_at
    if is_old_secret:
        expires_at = min(row.old_expires_at, math.inf if expires_at is None else expires_at)
    return LoadedPrincipal(
        user_id=row.user_id,
        user_name=row.user_name,
        role=row.role,
        key_id=row.id,
        key_name=row.name,
        scopes=effective_scopes(row.scopes, row.role),
        models=tuple(row.models),
        allowed_ips=tuple(ipaddress.ip_network(network) for network in row.allowed_ips),
        key_limits=tuple(row.limits),
        user_limits=tuple(row.user_limits),
        project_id=row.project_id or "",
        project_name=row.project_name,
        project_limits=tuple(row.project_limits or ()),
        expires_at=expires_at,
        created_at=row.created_at,
        disabled=disabled_because(row) is not None,
        signature_required=bool(row.signature_required),
        last_used_at=row.last_used_at or 0.0,
        last_used_ip=row.last_used_ip,
        as_of=as_of,
        is_old_secret=is_old_secret,
    )


def principal_of_token(row: Row[Any], as_of: int) -> LoadedPrincipal:
    """Who calls with an access token; `row` is what `SqlCredentialStore.access_token` reads.

    A token can do what it was given for, as far as its client and its owner's role can do that now. With a client that is
    off, or whose owner may not have clients in its project any more, it can do nothing.
    """
    scopes, expires_at = frozenset(row.scopes), row.expires_at
    if row.client_id is not None:
        scopes &= frozenset(row.client_scopes)
        expires_at = min(expires_at, row.client_expires_at or expires_at)
    return LoadedPrincipal(
        user_id=row.user_id,
        user_name=row.user_name,
        role=row.role,
        token_id=row.id,
        scopes=effective_scopes(scopes, row.role),
        models=tuple(row.client_models or ()),
        allowed_ips=tuple(ipaddress.ip_network(network) for network in row.client_allowed_ips or ()),
        client_id=None if row.client_id is None else CLIENT_ID_PREFIX + row.client_id,
        client_name=row.client_name,
        client_limits=tuple(row.client_limits or ()),
        user_limits=tuple(row.user_limits),
        project_id=row.project_id or "",
        project_name=row.project_name,
        project_limits=tuple(row.project_limits or ()),
        expires_at=expires_at,
        created_at=row.created_at,
        signature_required=bool(row.client_signature_required),
        disabled=row.user_disabled_at is not None or bool(row.client_is_off),
        client_owner_id=row.client_owner_id,
        as_of=as_of,
        is_jwt=row.secret_hmac is None,
    )
