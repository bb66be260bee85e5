"""What a caller may see and hand on."""

from collections.abc import Iterable

from lingpai.errors import LingpaiError
from lingpai.identity.interfaces import User
from lingpai.identity.scopes import SCOPES_OF_ROLE
from lingpai.principal import Principal


def visible_user(caller: Principal) -> str | None:
    """The one user whose things `caller` sees, or None for an administrator, who sees everybody's."""
    return None if caller.is_admin else caller.user_id


def check_may_grant_scopes(caller: Principal, scopes: Iterable[str], *, owner: User) -> None:
    """Raise LingpaiError unless `caller` holds all of `scopes` and they can take effect for `owner`."""
    beyond = sorted(set(scopes) - caller.scopes)
    if beyond:
        raise LingpaiError(
            "insufficient_scope",
            f"You can only hand on scopes you hold yourself, and `{'`, `'.join(beyond)}` is not among them.",
            param="scopes",
        )
    useless = sorted(set(scopes) - SCOPES_OF_ROLE[owner.role])
    if useless:
        raise LingpaiError(
            "invalid_request",
            f"`{'`, `'.join(useless)}` is for administrators only, and `{owner.name}` is a {owner.role}.",
            param="scopes",
        )


def check_may_grant_models(caller: Principal, models: tuple[str, ...]) -> None:
    """Raise LingpaiError unless everything that `models` allows is allowed to `caller`, too."""
    if not caller.models:
        return
    beyond = [model for model in models if not any(_covers(own, model) for own in caller.models)]
    if beyond or not models:
        raise LingpaiError(
            "model_not_allowed",
            f"You can only hand on models you may call yourself: `{'`, `'.join(caller.models)}`.",
            param="models",
        )


def check_is_admin(caller: Principal, action: str) -> None:
    """Raise LingpaiError unless `caller` is an administrator. `action` completes “Only administrators may …”."""
    if not caller.is_admin:
        raise LingpaiError("insufficient_scope", f"Only administrators may {action}.")


def _covers(own: str, wanted: str) -> bool:
    if not own.endswith("*"):
        return own == wanted
    return wanted.removesuffix("*").startswith(own[:-1])
