"""The restrictions of a key that is made: those asked for, if its maker may hand them on, else its maker's or the server's."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from lingpai.errors import LingpaiError
from lingpai.identity import restrictions
from lingpai.identity.interfaces import Project, User, ValidateLimit
from lingpai.identity.rights import (
    check_is_admin,
    check_is_not_limited,
    check_may_grant_expiry,
    check_may_grant_models,
    check_may_grant_networks,
    check_may_grant_scopes,
)
from lingpai.identity.schemas import KeyCreate
from lingpai.identity.scopes import DEFAULT_SCOPES
from lingpai.principal import Principal


@dataclass(frozen=True, slots=True)
class NewKey:
    """Who asks for which key, for whom and in which project."""

    caller: Principal
    owner: User
    project: Project
    body: KeyCreate


def restrictions_of_new_key(
    new: NewKey, *, now: float, validate_limit: ValidateLimit, default_limits: tuple[str, ...]
) -> dict[str, Any]:
    """The columns of the new key. Raises LingpaiError for what is wrong or more than the caller may hand on.

    `now` is in Unix seconds; `default_limits` are those of a key whose owner and project have none.
    """
    caller, body = new.caller, new.body
    check_is_not_limited(caller, "make keys")
    scopes = restrictions.checked_scopes(body.scopes if body.scopes is not None else DEFAULT_SCOPES)
    check_may_grant_scopes(caller, scopes, owner=new.owner)
    models = restrictions.checked_models(body.models or caller.models)
    check_may_grant_models(caller, models)
    return {
        "scopes": scopes,
        "models": models,
        "limits": _limits(new, validate_limit, default_limits),
        "allowed_ips": _networks(caller, body.allowed_ips),
        "created_at": now,
        "expires_at": _expiry(caller, body, now),
    }


def _limits(new: NewKey, validate_limit: ValidateLimit, default_limits: tuple[str, ...]) -> tuple[str, ...]:
    if not new.body.limits:
        return () if new.owner.limits or new.project.limits else default_limits
    checked = restrictions.checked_limits(new.body.limits, validate_limit)
    if not checked:
        check_is_admin(new.caller, "make a key without any limit")
    return checked


def _networks(caller: Principal, networks: Sequence[str] | None) -> tuple[str, ...]:
    if not networks:
        return () if caller.is_admin else tuple(map(str, caller.allowed_ips))
    checked = restrictions.checked_networks(networks)
    check_may_grant_networks(caller, checked)
    return checked


def _expiry(caller: Principal, body: KeyCreate, now: float) -> float | None:
    if body.expires_in is not None and body.expires_at is not None:
        raise LingpaiError("invalid_request", "Send `expires_at` or `expires_in`, not both.", "expires_in")
    if body.expires_in is not None:
        expires_at = restrictions.checked_lifetime(body.expires_in, now=now)
        check_may_grant_expiry(caller, expires_at, param="expires_in")
        return expires_at
    if body.expires_at is None:
        return None if caller.is_admin else caller.expires_at
    expires_at = restrictions.checked_expiry(body.expires_at, now=now)
    check_may_grant_expiry(caller, expires_at)
    return expires_at
