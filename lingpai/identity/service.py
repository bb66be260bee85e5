"""The rules of API keys and users; those of projects are in `projects`. What callers may not see does not exist for them: not_found, as for unknown ids."""

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from sqlalchemy import Connection
from sqlalchemy.exc import IntegrityError

from lingpai.errors import LingpaiError
from lingpai.identity import restrictions
from lingpai.identity.finding import find_key, find_project, find_user
from lingpai.identity.interfaces import (
    ApiKey,
    CreatedKey,
    KeyUse,
    OnChange,
    Project,
    User,
    ValidateLimit,
)
from lingpai.identity.peppers import Peppers
from lingpai.identity.projects import make_personal_project, personal_project
from lingpai.identity.rights import (
    already_exists,
    check_is_admin,
    check_is_not_limited,
    check_keeps_project,
    check_may_enable,
    check_may_grant_expiry,
    check_may_grant_models,
    check_may_grant_networks,
    check_may_grant_scopes,
    check_may_grant_unsigned,
    check_may_lift_signature,
    check_may_widen,
    visible_user,
)
from lingpai.identity.schemas import KeyCreate, KeyUpdate, UserCreate, UserUpdate
from lingpai.identity.scopes import ALL_SCOPES, DEFAULT_SCOPES
from lingpai.identity.signing.store import SqlSigningKeyStore
from lingpai.identity.store import Position, SqlKeyStore, SqlProjectStore, SqlUserStore
from lingpai.ids import MintedCredential, mint_credential, new_id
from lingpai.principal import Principal
from lingpai.storage.database import Database

ADMIN_NAME = "admin"


class Users:
    """Users: made and changed by administrators; everybody sees themselves. All methods block.

    Errors are LingpaiError: ``not_found``, ``already_exists``, ``invalid_request``, ``insufficient_scope``.
    """

    def __init__(
        self,
        database: Database,
        *,
        on_change: OnChange,
        validate_limit: ValidateLimit,
        default_limits: Sequence[str],
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`default_limits` are those of a new user for whom none are given."""
        self._database = database
        self._on_change = on_change
        self._validate_limit = validate_limit
        self._default_limits = restrictions.checked_limits(default_limits, validate_limit)
        self._clock = clock
        self._store = SqlUserStore()

    @property
    def default_limits(self) -> tuple[str, ...]:
        """The limits that new ones get when none are given, in canonical form."""
        return self._default_limits

    def set_default_limits(self, limits: Sequence[str]) -> None:
        """Change the limits that new ones get when none are given."""
        self._default_limits = restrictions.checked_limits(limits, self._validate_limit)

    def ensure_admin(self) -> bool:
        """Create the user `admin`, without limits, when there is no user. Returns whether this was the first start."""
        with self._database.write() as connection:
            if not self._store.is_empty(connection):
                return False
            self._insert(connection, name=ADMIN_NAME, role="admin", limits=())
            return True

    def local_administrator(self) -> Principal:
        """Who calls through the admin socket: the user `admin`, with every scope and no key, and with its limits."""
        with self._database.read() as connection:
            user = find_user(connection, ADMIN_NAME, only=None)
            project = SqlProjectStore().personal(connection, user.id)
        if project is None:
            with self._database.write() as connection:
                project = personal_project(connection, user)
        return Principal(
            user.id,
            user.name,
            "admin",
            scopes=ALL_SCOPES,
            user_limits=user.limits,
            project_id=project.id,
            project_name=project.name,
            project_limits=project.limits,
            created_at=user.created_at,
        )

    def create(self, caller: Principal, body: UserCreate) -> User:
        """Make a user, and their personal project."""
        check_is_admin(caller, "make users")
        name = restrictions.checked_user_name(body.name)
        limits = self._checked(body.limits) if body.limits else self._default_limits
        began = time.monotonic()
        with self._database.write() as connection:
            try:
                user = self._insert(connection, name=name, role=body.role, limits=limits)
            except IntegrityError as exc:
                raise already_exists("user", name) from exc
        self._on_change("user", user.id, began)
        return user

    def list(self, caller: Principal, *, after: Position | None = None, limit: int = 50) -> list[User]:
        """Up to `limit` of the users that `caller` sees, oldest first."""
        with self._database.read() as connection:
            return self._store.page(connection, only=visible_user(caller), after=after, limit=limit)

    def get(self, caller: Principal, reference: str) -> User:
        """The user with this id or name."""
        with self._database.read() as connection:
            return find_user(connection, reference, only=visible_user(caller))

    def update(self, caller: Principal, reference: str, body: UserUpdate) -> User:
        """Change a user. Disabling one disables all their keys at once; the last administrator cannot be lost."""
        began = time.monotonic()
        with self._database.write() as connection:
            user = find_user(connection, reference, only=visible_user(caller))
            check_is_admin(caller, "change users")
            values = self._changes(user, body)
            if values.get("disabled_at") is not None or values.get("role") == "member":
                self._check_not_last_admin(connection, user)
            if values:
                self._store.update(connection, user.id, values)
            user = find_user(connection, user.id, only=None)
        self._on_change("user", user.id, began)
        return user

    def _insert(self, connection: Connection, *, name: str, role: str, limits: tuple[str, ...]) -> User:
        user_id = new_id("usr")
        row = {"id": user_id, "name": name, "role": role, "limits": limits, "created_at": self._clock()}
        self._store.insert(connection, row)
        user = find_user(connection, user_id, only=None)
        make_personal_project(connection, user)
        return user

    def _checked(self, limits: Sequence[str]) -> tuple[str, ...]:
        return restrictions.checked_limits(limits, self._validate_limit)

    def _changes(self, user: User, body: UserUpdate) -> dict[str, Any]:
        values: dict[str, Any] = {}
        if body.role is not None:
            values["role"] = body.role
        if body.limits is not None:
            values["limits"] = self._checked(body.limits)
        if body.disabled is not None:
            values["disabled_at"] = (user.disabled_at or self._clock()) if body.disabled else None
        return values

    def _check_not_last_admin(self, connection: Connection, user: User) -> None:
        if user.role == "admin" and not self._store.has_other_admin(connection, user.id):
            raise LingpaiError(
                "invalid_request",
                f"`{user.name}` is the last administrator. Make another one first: `lingpai users create NAME --role admin`.",
            )


class Keys:
    """API keys: administrators see and change all of them, members their own. All methods block.

    Errors are LingpaiError: ``not_found``, ``already_exists``, ``invalid_request``, ``insufficient_scope``,
    ``model_not_allowed``.
    """

    def __init__(
        self,
        database: Database,
        *,
        on_change: OnChange,
        peppers: Peppers,
        validate_limit: ValidateLimit,
        default_limits: Sequence[str],
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`default_limits` are those of a new key for which none are given and whose owner and project have none."""
        self._database = database
        self._on_change = on_change
        self._peppers = peppers
        self._validate_limit = validate_limit
        self._default_limits = restrictions.checked_limits(default_limits, validate_limit)
        self._clock = clock
        self._store = SqlKeyStore()

    def set_default_limits(self, limits: Sequence[str]) -> None:
        """Change the limits that new ones get when none are given."""
        self._default_limits = restrictions.checked_limits(limits, self._validate_limit)

    def create(self, caller: Principal, body: KeyCreate) -> CreatedKey:
        """Make a key for the caller or, by an administrator, for anybody. The token is in the answer and nowhere else.

        A member's new key inherits the networks, the expiry and the need of signatures of the key that makes it, unless
        narrower ones are sent.
        It belongs to a project that the member owns; administrators may name any.
        """
        name = restrictions.checked_name(body.name)
        minted = mint_credential("sk-lp-")
        began = time.monotonic()
        with self._database.write() as connection:
            owner = self._owner(connection, caller, body.user)
            project = self._project_of_new_key(connection, caller, owner, body.project)
            restricted = self._restrictions_of_new_key(caller, owner, project, body)
            belongs = {"user_id": owner.id, "project_id": project.id}
            row = {"name": name, **belongs, **self._stored_credential(minted), **restricted}
            try:
                self._store.insert(connection, row)
            except IntegrityError as exc:
                raise already_exists("key", name) from exc
            key = self._find(connection, minted.id, owner=None)
        self._on_change("key", key.id, began)
        return CreatedKey(key, minted.token)

    def list(
        self,
        caller: Principal,
        *,
        user: str | None = None,
        name: str | None = None,
        project: str | None = None,
        after: Position | None = None,
        limit: int = 50,
    ) -> list[ApiKey]:
        """Up to `limit` of the keys that `caller` sees, oldest first; of one user, project or name if given."""
        with self._database.read() as connection:
            owner = visible_user(caller) if user is None else self._owner(connection, caller, user).id
            project_id = None if project is None else self._visible_project(connection, caller, project).id
            return self._store.page(
                connection, owner=owner, name=name, project=project_id, after=after, limit=limit
            )

    def get(self, caller: Principal, reference: str) -> ApiKey:
        """The key with this id, or with this name when only one that `caller` sees has it."""
        with self._database.read() as connection:
            return self._find(connection, reference, owner=visible_user(caller))

    def update(self, caller: Principal, reference: str, body: KeyUpdate) -> ApiKey:
        """Change a key. Nobody hands on more than they have; only administrators lift limits and enable keys."""
        began = time.monotonic()
        with self._database.write() as connection:
            key = self._find(connection, reference, owner=visible_user(caller))
            values = self._changes(connection, caller, key, body)
            try:
                if values:
                    self._store.update(connection, key.id, values)
            except IntegrityError as exc:
                raise already_exists("key", body.name or "") from exc
            key = self._find(connection, key.id, owner=None)
        self._on_change("key", key.id, began)
        return key

    def delete(self, caller: Principal, reference: str) -> None:
        """Delete a key for good: its secret is wiped, its name stays for the sake of usage reports."""
        began = time.monotonic()
        with self._database.write() as connection:
            key = self._find(connection, reference, owner=visible_user(caller))
            self._store.update(connection, key.id, {"deleted_at": self._clock(), "secret_hmac": None})
            SqlSigningKeyStore().delete_of_key(connection, key.id)
        self._on_change("key", key.id, began)

    def were_ever_made(self) -> bool:
        """Whether there is a key, or was one that has been deleted since."""
        with self._database.read() as connection:
            return not self._store.is_empty(connection)

    def touch(self, uses: Sequence[KeyUse]) -> None:
        """Note when and from where keys were last used."""
        if uses:
            with self._database.write() as connection:
                self._store.touch(connection, uses)

    def _find(self, connection: Connection, reference: str, *, owner: str | None) -> ApiKey:
        return find_key(connection, reference, owner=owner)

    def _owner(self, connection: Connection, caller: Principal, reference: str | None) -> User:
        return find_user(connection, reference or caller.user_id, only=visible_user(caller), param="user")

    def _visible_project(self, connection: Connection, caller: Principal, reference: str) -> Project:
        return find_project(connection, reference, owner=visible_user(caller), param="project")

    def _project_of_new_key(
        self, connection: Connection, caller: Principal, owner: User, reference: str | None
    ) -> Project:
        if reference is None:
            project = personal_project(connection, owner)
        else:
            project = self._visible_project(connection, caller, reference)
        check_keeps_project(caller, project.id, "make keys of another one", param="project")
        return project

    def _stored_credential(self, minted: MintedCredential) -> dict[str, Any]:
        version = self._peppers.newest_version
        return {
            "id": minted.id,
            "hint": minted.hint,
            "secret_hmac": self._peppers.hmac(minted.token.encode(), version),
            "pepper_version": version,
        }

    def _restrictions_of_new_key(
        self, caller: Principal, owner: User, project: Project, body: KeyCreate
    ) -> dict[str, Any]:
        check_is_not_limited(caller, "make keys")
        now = self._clock()
        scopes = restrictions.checked_scopes(body.scopes if body.scopes is not None else DEFAULT_SCOPES)
        check_may_grant_scopes(caller, scopes, owner=owner)
        models = restrictions.checked_models(body.models or caller.models)
        check_may_grant_models(caller, models)
        return {
            "scopes": scopes,
            "models": models,
            "limits": self._limits_of_new_key(caller, owner, project, body.limits),
            "allowed_ips": _networks_of_new_key(caller, body.allowed_ips),
            "created_at": now,
            "expires_at": _expiry_of_new_key(caller, body, now),
            "signature_required": _signature_of_new_key(caller, body),
        }

    def _limits_of_new_key(
        self, caller: Principal, owner: User, project: Project, limits: Sequence[str] | None
    ) -> tuple[str, ...]:
        if not limits:
            return () if owner.limits or project.limits else self._default_limits
        checked = restrictions.checked_limits(limits, self._validate_limit)
        if not checked:
            check_is_admin(caller, "make a key without any limit")
        return checked

    def _changes(
        self, connection: Connection, caller: Principal, key: ApiKey, body: KeyUpdate
    ) -> dict[str, Any]:
        values: dict[str, Any] = {}
        if body.name is not None:
            values["name"] = restrictions.checked_name(body.name)
        if body.disabled is not None:
            values["disabled_at"] = self._changed_disabling(caller, key, body.disabled)
        if body.scopes is not None:
            values["scopes"] = self._changed_scopes(connection, caller, key, body.scopes)
        if body.models is not None:
            values["models"] = restrictions.checked_models(body.models)
            check_may_grant_models(caller, values["models"])
        if body.limits is not None:
            values["limits"] = self._changed_limits(caller, key, body.limits)
        if body.allowed_ips is not None:
            values["allowed_ips"] = restrictions.checked_networks(body.allowed_ips)
            check_may_grant_networks(caller, values["allowed_ips"])
        if "expires_at" in body.model_fields_set:
            values["expires_at"] = _expiry(body.expires_at, self._clock())
            check_may_grant_expiry(caller, values["expires_at"])
        if body.signature_required is not None:
            values["signature_required"] = body.signature_required
            check_may_lift_signature(caller, key, required=body.signature_required)
        check_may_widen(caller, key, replace(key, **values))
        return values

    def _changed_disabling(self, caller: Principal, key: ApiKey, disabled: bool) -> float | None:
        if disabled:
            return key.disabled_at or self._clock()
        check_may_enable(caller, key)
        return None

    def _changed_scopes(
        self, connection: Connection, caller: Principal, key: ApiKey, scopes: Sequence[str]
    ) -> tuple[str, ...]:
        checked = restrictions.checked_scopes(scopes)
        owner = self._owner(connection, caller, key.user_id)
        check_may_grant_scopes(caller, set(checked) - set(key.scopes), owner=owner)
        return checked

    def _changed_limits(self, caller: Principal, key: ApiKey, limits: Sequence[str]) -> tuple[str, ...]:
        check_is_not_limited(caller, "change limits", param="limits")
        checked = restrictions.checked_limits(limits, self._validate_limit)
        if not set(key.limits) <= set(checked):
            check_is_admin(caller, "lift limits; send the present ones and those you add")
        return checked


def _networks_of_new_key(caller: Principal, networks: Sequence[str] | None) -> tuple[str, ...]:
    if not networks:
        return () if caller.is_admin else tuple(map(str, caller.allowed_ips))
    checked = restrictions.checked_networks(networks)
    check_may_grant_networks(caller, checked)
    return checked


def _expiry_of_new_key(caller: Principal, body: KeyCreate, now: float) -> float | None:
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


def _signature_of_new_key(caller: Principal, body: KeyCreate) -> bool:
    if body.signature_required is None:
        return caller.signature_required and not caller.is_admin
    check_may_grant_unsigned(caller, required=body.signature_required)
    return body.signature_required


def _expiry(text: str | None, now: float) -> float | None:
    return None if text is None else restrictions.checked_expiry(text, now=now)
