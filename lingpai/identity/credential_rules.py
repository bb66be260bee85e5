"""What holds for every credential that people make, keys and clients alike: nobody hands on more than they have."""

from collections.abc import Callable, Sequence
from typing import Any, Protocol, TypeVar

from sqlalchemy import Connection

from lingpai.errors import LingpaiError
from lingpai.identity import restrictions
from lingpai.identity.finding import find_project, standing_in
from lingpai.identity.interfaces import ApiKey, Project, User, ValidateLimit
from lingpai.identity.member_store import SqlMemberStore
from lingpai.identity.oauth.interfaces import Client
from lingpai.identity.projects import personal_project
from lingpai.identity.rights import (
    check_is_admin,
    check_is_not_limited,
    check_keeps_project,
    check_may,
    check_may_grant_expiry,
    check_may_grant_models,
    check_may_grant_networks,
    check_may_grant_scopes,
    check_may_grant_unsigned,
    check_may_lift_signature,
)
from lingpai.identity.roles import ProjectAction, has_keys
from lingpai.identity.scopes import DEFAULT_SCOPES
from lingpai.principal import Principal
from lingpai.storage.trail import Trail

T = TypeVar("T", ApiKey, Client)


class NewCredential(Protocol):
    """What the body that makes a credential says of its restrictions; None: the default."""

    scopes: list[str] | None
    models: list[str] | None
    limits: list[str] | None
    allowed_ips: list[str] | None
    expires_at: str | None
    expires_in: str | None
    signature_required: bool | None


class CredentialChange(Protocol):
    """What the body that changes a credential says; None: it stays (`expires_at` if it is not in the body)."""

    disabled: bool | None
    scopes: list[str] | None
    models: list[str] | None
    limits: list[str] | None
    allowed_ips: list[str] | None
    expires_at: str | None
    signature_required: bool | None

    @property
    def model_fields_set(self) -> set[str]:
        """The names of the fields in the body."""


class CredentialRules:
    """The rules for one kind of credential. Raises LingpaiError where somebody asks for too much."""

    def __init__(
        self,
        noun: str,
        validate_limit: ValidateLimit,
        default_limits: Sequence[str],
        clock: Callable[[], float],
    ) -> None:
        """`noun` is how messages call it; `default_limits` are for new ones when neither owner nor project has any."""
        self._noun = noun
        self._validate_limit = validate_limit
        self._clock = clock
        self.set_default_limits(default_limits)

    def set_default_limits(self, limits: Sequence[str]) -> None:
        """Change the limits that new ones get when none are given."""
        self._default_limits = restrictions.checked_limits(limits, self._validate_limit)

    def project_of_new(
        self, connection: Connection, caller: Principal, owner: User, reference: str | None, *, trail: Trail
    ) -> Project:
        """The project of a credential that `caller` makes for `owner`: the one named so, else the owner's personal one.

        Raises LingpaiError: `not_found` for a project that the caller does not see, `insufficient_scope` where their role
        makes no keys, `invalid_request` where the owner's does not.
        """
        if reference is None:
            project = personal_project(connection, owner, trail=trail, caller=caller)
        else:
            project = find_project(connection, reference, caller=caller, param="project")
            check_may(standing_in(connection, caller, project.id), ProjectAction.MAKE_KEYS, project)
            self._check_has_role(connection, owner, project)
        check_keeps_project(caller, project.id, f"make {self._noun}s of another one", param="project")
        return project

    def _check_has_role(self, connection: Connection, owner: User, project: Project) -> None:
        role = SqlMemberStore().role(connection, project.id, owner.id)
        if owner.role != "admin" and not has_keys(role):
            raise LingpaiError(
                "invalid_request",
                f"`{owner.name}` may not have {self._noun}s in `{project.name}`. Make them a member first: "
                f"`lingpai projects members add`.",
                param="user",
            )

    def of_new(
        self, caller: Principal, body: NewCredential, *, owner: User, project: Project
    ) -> dict[str, Any]:
        """The columns that restrict a credential that `caller` makes for `owner`. Raises LingpaiError."""
        check_is_not_limited(caller, f"make {self._noun}s")
        now = self._clock()
        scopes = restrictions.checked_scopes(body.scopes if body.scopes is not None else DEFAULT_SCOPES)
        check_may_grant_scopes(caller, scopes, owner=owner)
        models = restrictions.checked_models(body.models or caller.models)
        check_may_grant_models(caller, models)
        return {
            "scopes": scopes,
            "models": models,
            "limits": self._limits_of_new(caller, owner, project, body.limits),
            "allowed_ips": _networks_of_new(caller, body.allowed_ips),
            "created_at": now,
            "expires_at": _expiry_of_new(caller, body, now),
            "signature_required": _signature_of_new(caller, body.signature_required),
        }

    def _limits_of_new(
        self, caller: Principal, owner: User, project: Project, limits: Sequence[str] | None
    ) -> tuple[str, ...]:
        if not limits:
            return () if owner.limits or project.limits else self._default_limits
        checked = restrictions.checked_limits(limits, self._validate_limit)
        if not checked:
            check_is_admin(caller, f"make a {self._noun} without any limit")
        return checked

    def changes(
        self, caller: Principal, present: T, body: CredentialChange, *, owner: User
    ) -> dict[str, Any]:
        """The columns that change when `caller` asks for `body`. Raises LingpaiError.

        Whether the credential as a whole may become what it will be, and be enabled, is for the caller of this to check.
        """
        values: dict[str, Any] = {}
        if body.disabled is not None:
            values["disabled_at"] = (present.disabled_at or self._clock()) if body.disabled else None
        if body.scopes is not None:
            values["scopes"] = self._changed_scopes(caller, present, body.scopes, owner)
        if body.models is not None:
            values["models"] = restrictions.checked_models(body.models)
            check_may_grant_models(caller, values["models"])
        if body.limits is not None:
            values["limits"] = self._changed_limits(caller, present, body.limits)
        if body.allowed_ips is not None:
            values["allowed_ips"] = restrictions.checked_networks(body.allowed_ips)
            check_may_grant_networks(caller, values["allowed_ips"])
        if "expires_at" in body.model_fields_set:
            values["expires_at"] = _expiry(body.expires_at, self._clock())
            check_may_grant_expiry(caller, values["expires_at"])
        if body.signature_required is not None:
            values["signature_required"] = body.signature_required
            check_may_lift_signature(caller, present, required=body.signature_required)
        return values

    def _changed_scopes(
        self, caller: Principal, present: T, scopes: Sequence[str], owner: User
    ) -> tuple[str, ...]:
        checked = restrictions.checked_scopes(scopes)
        check_may_grant_scopes(caller, set(checked) - set(present.scopes), owner=owner)
        return checked

    def _changed_limits(self, caller: Principal, present: T, limits: Sequence[str]) -> tuple[str, ...]:
        check_is_not_limited(caller, "change limits", param="limits")
        checked = restrictions.checked_limits(limits, self._validate_limit)
        if not set(present.limits) <= set(checked):
            check_is_admin(caller, "lift limits; send the present ones and those you add")
        return checked


def _networks_of_new(caller: Principal, networks: Sequence[str] | None) -> tuple[str, ...]:
    if not networks:
        return () if caller.is_admin else tuple(map(str, caller.allowed_ips))
    checked = restrictions.checked_networks(networks)
    check_may_grant_networks(caller, checked)
    return checked


def _signature_of_new(caller: Principal, required: bool | None) -> bool:
    if required is None:
        return caller.signature_required and not caller.is_admin
    check_may_grant_unsigned(caller, required=required)
    return required


def _expiry_of_new(caller: Principal, body: NewCredential, now: float) -> float | None:
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


def _expiry(text: str | None, now: float) -> float | None:
    return None if text is None else restrictions.checked_expiry(text, now=now)
