"""What a caller may hand on, and what they hear when they may not. Which role allows what is in `roles`.

Whoever is no administrator can pass restrictions of their key on and add to them, never shed them: neither by changing
a key nor by making another one, nor by getting another secret of one.
"""

import ipaddress
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import TypeVar

from lingpai.errors import LingpaiError
from lingpai.identity.interfaces import ApiKey, Project, User
from lingpai.identity.oauth.interfaces import Client
from lingpai.identity.roles import PROJECT_RIGHTS, PROJECT_ROLES, KeyAction, ProjectAction, Standing
from lingpai.identity.schemas import utc_text
from lingpai.identity.scopes import SCOPES_OF_ROLE
from lingpai.principal import Network, Principal

Credential = ApiKey | Client
T = TypeVar("T", ApiKey, Client)


def visible_user(caller: Principal) -> str | None:
    """The one user whom `caller` sees as a user, or None for an administrator, who sees everybody."""
    return None if caller.is_admin else caller.user_id


def check_may_grant_scopes(caller: Principal, scopes: Iterable[str], *, owner: User) -> None:
    """Raise LingpaiError unless `caller` holds all of `scopes` and they can take effect for `owner`."""
    _check_holds(caller, scopes)
    useless = sorted(set(scopes) - SCOPES_OF_ROLE[owner.role])
    if useless:
        raise LingpaiError(
            "invalid_request",
            f"`{'`, `'.join(useless)}` is for administrators only, and `{owner.name}` is a {owner.role}.",
            param="scopes",
        )


def check_may_grant_models(caller: Principal, models: tuple[str, ...]) -> None:
    """Raise LingpaiError unless everything that `models` allows is allowed to `caller`, too."""
    if not _models_within(models, caller.models):
        raise LingpaiError(
            "model_not_allowed",
            f"You can only hand on models you may call yourself: `{'`, `'.join(caller.models)}`.",
            param="models",
        )


def check_may_grant_networks(caller: Principal, networks: Sequence[str]) -> None:
    """Raise LingpaiError unless `caller` may give a key `networks` (canonical; none: anywhere).

    Members whose own key is bound to networks can only give addresses that lie in these.
    """
    if not caller.is_admin and not _networks_within(_parsed(networks), caller.allowed_ips):
        own = "`, `".join(map(str, caller.allowed_ips))
        raise LingpaiError(
            "invalid_request",
            f"Your own key works from `{own}` only, and so must this one: choose networks within these.",
            param="allowed_ips",
        )


def check_may_grant_expiry(caller: Principal, expires_at: float | None, *, param: str = "expires_at") -> None:
    """Raise LingpaiError unless `caller` may let a key live until `expires_at` (Unix seconds; None: for ever).

    No key that a member makes or changes outlives the key they do it with. `param` is the field that says so.
    """
    own = caller.expires_at
    if own is not None and not caller.is_admin and _is_later(expires_at, own):
        raise LingpaiError(
            "invalid_request",
            f"Your own key expires at {utc_text(own)}. Choose that time or an earlier one, or ask an administrator.",
            param=param,
        )


def check_is_not_limited(caller: Principal, action: str, *, param: str | None = None) -> None:
    """Raise LingpaiError if `caller` is a member whose key has limits of its own, as every key more multiplies them.

    `action` completes “A key with limits of its own cannot …”.
    """
    if caller.own_limits and not caller.is_admin:
        raise LingpaiError(
            "insufficient_scope",
            f"A key with limits of its own cannot {action}. "
            "Use a key without limits of its own, or ask an administrator.",
            param=param,
        )


def check_keeps_project(caller: Principal, project_id: str, action: str, *, param: str | None = None) -> None:
    """Raise LingpaiError if `caller` is a member whose key is held to a project's limits and acts outside of it.

    `action` completes “A key of a project with limits cannot …”.
    """
    if caller.project_limits and project_id != caller.project_id and not caller.is_admin:
        raise LingpaiError(
            "insufficient_scope",
            f"A key of a project with limits cannot {action}; yours belongs to `{caller.project_name}`. "
            "Use a key of a project without limits, or ask an administrator.",
            param=param,
        )


def check_may(standing: Standing, action: ProjectAction, project: Project) -> None:
    """Raise LingpaiError unless whoever stands so to `project` may do this with it."""
    if standing.may(action):
        return
    allowed = [f"its {role}s" for role in PROJECT_ROLES if action in PROJECT_RIGHTS[role]]
    who = " and ".join([*allowed, "administrators"])
    raise LingpaiError("insufficient_scope", f"`{project.name}`: only {who} may {action}.")


def check_may_with_key(
    caller: Principal, standing: Standing, action: KeyAction, key: Credential, *, param: str | None = None
) -> None:
    """Raise LingpaiError unless `caller`, who stands so to the project of a key or client, may do this with it."""
    is_own = key.user_id == caller.user_id
    if standing.may_with_key(action, is_own=is_own):
        return
    if action is KeyAction.ENABLE:
        # It may be an administrator who disabled it.
        message = f"`{key.name}` is disabled. Ask an administrator to enable it."
    elif is_own:
        message = f"Your role in `{key.project_name}` does not let you {action}. Ask one of its admins."
    else:
        noun = _noun_of(key)
        message = f"`{key.name}` is a {noun} of `{key.user_name}`, and your role in `{key.project_name}` does not let you {action}."
    raise LingpaiError("insufficient_scope", message, param)


def check_may_enable(caller: Principal, standing: Standing, key: Credential) -> None:
    """Raise LingpaiError if a key or client is disabled and `caller` may not enable it, or if others know its secret."""
    if key.disabled_at is None:
        return
    check_may_with_key(caller, standing, KeyAction.ENABLE, key, param="disabled")
    if key.needs_another_secret:
        command = f"keys rotate {key.id}" if isinstance(key, ApiKey) else f"clients rotate {key.client_id}"
        raise LingpaiError(
            "invalid_request",
            f"`{key.name}` was reported as leaked: others know its secret. Give it a new one first: "
            f"`lingpai {command}`.",
            param="disabled",
        )


def check_may_grant_unsigned(caller: Principal, *, required: bool) -> None:
    """Raise LingpaiError if `caller` must sign and wants a key or client that need not."""
    if caller.signature_required and not required and not caller.is_admin:
        raise LingpaiError(
            "insufficient_scope",
            "Your own key is for signed requests only, and so must this one be: set `signature_required` to true.",
            param="signature_required",
        )


def check_may_lift_signature(caller: Principal, key: Credential, *, required: bool) -> None:
    """Raise LingpaiError if a key or client is for signed requests only, is to be so no more, and `caller` is no administrator."""
    if key.signature_required and not required and not caller.is_admin:
        raise LingpaiError(
            "insufficient_scope",
            f"`{key.name}` is for signed requests only. Ask an administrator to lift that.",
            param="signature_required",
        )


def check_may_change(caller: Principal, standing: Standing, before: T, after: T) -> None:
    """Raise LingpaiError if `caller` may not make `after` of `before`.

    If `after` can do more, it must not do anything that `caller` cannot do. The fields together matter, those that stay
    included: a scope handed to a key that works from anywhere would work from anywhere, too. Whatever only narrows a
    key or client is allowed to whoever may change it.
    """
    action = _action_of(before, after)
    check_may_with_key(caller, standing, action, before)
    if action is not KeyAction.WIDEN:
        return
    check_is_not_limited(caller, f"give a {_noun_of(before)} more rights")
    check_keeps_project(caller, before.project_id, "give more rights to one of another project")
    check_holds_all(caller, after)


def check_may_rotate(caller: Principal, standing: Standing, key: Credential) -> None:
    """Raise LingpaiError unless `caller` may have a new secret of a key or client: with it they can do what that can do.

    That goes for administrators, too: a key of theirs with few scopes is not all that they are. A key may renew itself, with
    its present secret: an old one would outlive its time that way. A client may not, because its token ends before it does.
    """
    check_may_with_key(caller, standing, KeyAction.ROTATE, key)
    if isinstance(key, Client) or caller.key_id != key.id:
        noun = _noun_of(key)
        check_is_not_limited(caller, f"get a new secret of another {noun}")
        check_keeps_project(caller, key.project_id, f"get a new secret of a {noun} of another one")
    check_holds_all(caller, key, param="id")


def check_holds_all(caller: Principal, credential: Credential, *, param: str | None = None) -> None:
    """Raise LingpaiError if `credential` has a scope, model, network or time that `caller` has not."""
    _check_holds(caller, credential.scopes)
    check_may_grant_models(caller, credential.models)
    check_may_grant_networks(caller, credential.allowed_ips)
    check_may_grant_expiry(caller, credential.expires_at, param=param or "expires_at")
    check_may_grant_unsigned(caller, required=credential.signature_required)


def _noun_of(credential: Credential) -> str:
    return "client" if isinstance(credential, Client) else "key"


def _action_of(before: T, after: T) -> KeyAction:
    if _widens(before, after):
        return KeyAction.WIDEN
    kept = replace(after, disabled_at=before.disabled_at, disabled_because=before.disabled_because)
    return KeyAction.SWITCH_OFF if kept == before else KeyAction.NARROW


def no_such_key(reference: str) -> LingpaiError:
    """What callers hear about a key that does not exist, or that they may not see."""
    return LingpaiError("not_found", f"There is no key `{reference}`. `GET /api/v1/keys` lists yours.")


def no_such_client(reference: str) -> LingpaiError:
    """What callers hear about a client that does not exist, or that they may not see."""
    return LingpaiError("not_found", f"There is no client `{reference}`. `GET /api/v1/clients` lists yours.")


def no_such_user(reference: str, *, param: str | None = None) -> LingpaiError:
    """What callers hear about a user who does not exist, or whom they may not see."""
    return LingpaiError(
        "not_found", f"There is no user `{reference}`. `GET /api/v1/users` lists those you can see.", param
    )


def no_such_project(reference: str, *, param: str | None = None) -> LingpaiError:
    """What callers hear about a project that does not exist, or that they may not see."""
    return LingpaiError(
        "not_found",
        f"There is no project `{reference}`. `GET /api/v1/projects` lists those you can see.",
        param,
    )


def already_exists(kind: str, name: str) -> LingpaiError:
    """What callers hear when a name is taken. `kind` is a noun: key, project, user."""
    return LingpaiError("already_exists", f"There is a {kind} `{name}` already. Choose another name.", "name")


def check_is_admin(caller: Principal, action: str) -> None:
    """Raise LingpaiError unless `caller` is an administrator. `action` completes “Only administrators may …”."""
    if not caller.is_admin:
        raise LingpaiError("insufficient_scope", f"Only administrators may {action}.")


def _check_holds(caller: Principal, scopes: Iterable[str]) -> None:
    beyond = sorted(set(scopes) - caller.scopes)
    if beyond:
        raise LingpaiError(
            "insufficient_scope",
            f"You can only hand on scopes you hold yourself, and `{'`, `'.join(beyond)}` is not among them.",
            param="scopes",
        )


def _widens(before: Credential, after: Credential) -> bool:
    return not (
        set(after.scopes) <= set(before.scopes)
        and _models_within(after.models, before.models)
        and _networks_within(_parsed(after.allowed_ips), _parsed(before.allowed_ips))
        and not _is_later(after.expires_at, before.expires_at)
        and after.signature_required >= before.signature_required
    ) or (isinstance(before, Client) and isinstance(after, Client) and _widens_tokens(before, after))


def _widens_tokens(before: Client, after: Client) -> bool:
    """Whether there are more ways to tokens, or they may live longer. None is what the settings say, which may be either."""
    was, is_ = before.token_lifetime_s, after.token_lifetime_s
    may_live_longer = was != is_ and (was is None or is_ is None or is_ > was)
    return may_live_longer or not set(after.grants) <= set(before.grants)


def _is_later(expires_at: float | None, own: float | None) -> bool:
    return own is not None and (expires_at is None or expires_at > own)


def _models_within(wanted: Sequence[str], own: Sequence[str]) -> bool:
    if not own:
        return True
    return bool(wanted) and all(any(_covers(each, model) for each in own) for model in wanted)


def _covers(own: str, wanted: str) -> bool:
    if not own.endswith("*"):
        return own == wanted
    return wanted.removesuffix("*").startswith(own[:-1])


def _parsed(networks: Iterable[str]) -> tuple[Network, ...]:
    return tuple(ipaddress.ip_network(network) for network in networks)


def _networks_within(wanted: Sequence[Network], own: Sequence[Network]) -> bool:
    if not own:
        return True
    v4 = list(ipaddress.collapse_addresses(n for n in own if isinstance(n, ipaddress.IPv4Network)))
    v6 = list(ipaddress.collapse_addresses(n for n in own if isinstance(n, ipaddress.IPv6Network)))
    return bool(wanted) and all(
        any(network.subnet_of(each) for each in v4)
        if isinstance(network, ipaddress.IPv4Network)
        else any(network.subnet_of(each) for each in v6)
        for network in wanted
    )
