"""The rules of API keys and users; those of projects are in `projects`. What callers may not see does not exist for them: not_found, as for unknown ids."""

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from sqlalchemy import Connection
from sqlalchemy.exc import IntegrityError

from lingpai.errors import LingpaiError
from lingpai.identity import restrictions
from lingpai.identity.credential_service import CredentialService
from lingpai.identity.deeds import key_changed, key_created, key_deleted, user_changed, user_created
from lingpai.identity.finding import find_key, find_person, find_project, find_user, standing_to
from lingpai.identity.interfaces import (
    ApiKey,
    CreatedKey,
    EndSessions,
    KeyState,
    OnChange,
    Use,
    User,
    UserState,
    ValidateLimit,
)
from lingpai.identity.key_secrets import secret_columns
from lingpai.identity.key_states import KeyFilter
from lingpai.identity.project_store import SqlProjectStore
from lingpai.identity.projects import make_personal_project, personal_project
from lingpai.identity.rights import (
    already_exists,
    check_is_admin,
    check_may_change,
    check_may_enable,
    check_may_with_key,
    visible_user,
)
from lingpai.identity.roles import KeyAction
from lingpai.identity.schemas import KeyCreate, KeyUpdate, UserCreate, UserUpdate
from lingpai.identity.scopes import ALL_SCOPES
from lingpai.identity.store import Position, SqlKeyStore, SqlUserStore
from lingpai.ids import mint_credential, new_id
from lingpai.principal import Principal, Role
from lingpai.storage.database import Database
from lingpai.storage.trail import Trail

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
        trail: Trail,
        end_sessions: EndSessions | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`default_limits` are those of a new user for whom none are given; `end_sessions` ends those of a disabled one."""
        self._database = database
        self._on_change = on_change
        self._validate_limit = validate_limit
        self._default_limits = restrictions.checked_limits(default_limits, validate_limit)
        self._end_sessions = end_sessions
        self._trail = trail
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
            self._insert(connection, None, name=ADMIN_NAME, role="admin", limits=())
            return True

    def local_administrator(self) -> Principal:
        """Who calls through the admin socket: the user `admin`, with every scope and no key, and with its limits."""
        with self._database.read() as connection:
            user = find_user(connection, ADMIN_NAME, only=None)
            project = SqlProjectStore().personal(connection, user.id)
        if project is None:
            with self._database.write() as connection:
                project = personal_project(connection, user, trail=self._trail)
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
            is_local=True,
        )

    def create(self, caller: Principal, body: UserCreate, *, password_hash: str | None = None) -> User:
        """Make a user, and their personal project. Without a password an invitation lets them choose one."""
        check_is_admin(caller, "make users")
        name = restrictions.checked_user_name(body.name)
        limits = self._checked(body.limits) if body.limits else self._default_limits
        began = time.monotonic()
        with self._database.write() as connection:
            try:
                user = self._insert(
                    connection,
                    caller,
                    name=name,
                    role=body.role,
                    limits=limits,
                    password_hash=password_hash,
                )
            except IntegrityError as exc:
                raise already_exists("user", name) from exc
        self._on_change("user", user.id, began)
        return user

    def list(
        self,
        caller: Principal,
        *,
        search: str | None = None,
        state: UserState | None = None,
        role: Role | None = None,
        after: Position | None = None,
        limit: int = 50,
    ) -> list[User]:
        """Up to `limit` of the users that `caller` sees, oldest first; only those that fit everything given."""
        with self._database.read() as connection:
            return self._store.page(
                connection,
                only=visible_user(caller),
                search=search,
                state=state,
                role=role,
                after=after,
                limit=limit,
            )

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
            if values.get("disabled_at") is not None and self._end_sessions is not None:
                self._end_sessions(connection, caller, user.id, "the user was disabled")
            before, user = user, find_user(connection, user.id, only=None)
            self._trail.record(connection, caller, user_changed(before, user))
        self._on_change("user", user.id, began)
        return user

    def _insert(
        self,
        connection: Connection,
        caller: Principal | None,
        *,
        name: str,
        role: str,
        limits: tuple[str, ...],
        password_hash: str | None = None,
    ) -> User:
        user_id, now = new_id("usr"), self._clock()
        row = {"id": user_id, "name": name, "role": role, "limits": limits, "created_at": now}
        if password_hash is not None:
            row |= {"password_hash": password_hash, "password_changed_at": now}
        self._store.insert(connection, row)
        user = find_user(connection, user_id, only=None)
        self._trail.record(connection, caller, user_created(user))
        make_personal_project(connection, user, trail=self._trail, caller=caller)
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


class Keys(CredentialService):
    """API keys: everybody sees and changes what their roles allow (`roles`). All methods block.

    Errors are LingpaiError: ``not_found``, ``already_exists``, ``invalid_request``, ``insufficient_scope``,
    ``model_not_allowed``.
    """

    noun = "key"
    _store = SqlKeyStore()

    def create(self, caller: Principal, body: KeyCreate) -> CreatedKey:
        """Make a key for the caller or, by an administrator, for anybody. The token is in the answer and nowhere else.

        A member's new key inherits the networks, the expiry and the need of signatures of the key that makes it, unless
        narrower ones are sent. It belongs to a project in which its owner has a role that makes keys; those of
        administrators to any.
        """
        name = restrictions.checked_name(body.name)
        self._minting.begin(caller)
        minted = mint_credential("sk-lp-")
        began = time.monotonic()
        with self._database.write() as connection:
            owner = find_user(
                connection, body.user or caller.user_id, only=visible_user(caller), param="user"
            )
            project = self._rules.project_of_new(connection, caller, owner, body.project, trail=self._trail)
            restricted = self._rules.of_new(caller, body, owner=owner, project=project)
            belongs = {"user_id": owner.id, "project_id": project.id}
            row = {
                "id": minted.id,
                "name": name,
                **belongs,
                **secret_columns(minted, self._peppers),
                **restricted,
            }
            try:
                self._store.insert(connection, row)
            except IntegrityError as exc:
                raise already_exists("key", name) from exc
            key = find_key(connection, minted.id)
            self._trail.record(connection, caller, key_created(key, self.clock()))
        self._on_change("key", key.id, began)
        return CreatedKey(key, minted.token)

    def list(
        self,
        caller: Principal,
        *,
        user: str | None = None,
        name: str | None = None,
        search: str | None = None,
        project: str | None = None,
        scope: str | None = None,
        state: KeyState | None = None,
        after: Position | None = None,
        limit: int = 50,
    ) -> list[ApiKey]:
        """Up to `limit` of the keys that `caller` sees, oldest first; only those that fit everything given."""
        restrictions.check_scope_filter(scope)
        with self._database.read() as connection:
            wanted = KeyFilter(
                name=name,
                search=search,
                user_id=user and find_person(connection, user, caller=caller, param="user").id,
                project_id=project and find_project(connection, project, caller=caller, param="project").id,
                scope=scope,
                state=state,
                now=self.clock(),
            )
            return self._store.page(connection, wanted, caller=caller, after=after, limit=limit)

    def get(self, caller: Principal, reference: str) -> ApiKey:
        """The key with this id, or with this name: the caller's own, or the only one that they see."""
        with self._database.read() as connection:
            return find_key(connection, reference, caller=caller)

    def update(self, caller: Principal, reference: str, body: KeyUpdate) -> ApiKey:
        """Change a key. Nobody hands on more than they have; only administrators lift limits and enable keys."""
        began = time.monotonic()
        with self._database.write() as connection:
            key = find_key(connection, reference, caller=caller)
            values = self._changes(connection, caller, key, body)
            try:
                if values:
                    self._store.update(connection, key.id, values)
            except IntegrityError as exc:
                raise already_exists("key", body.name or "") from exc
            before, key = key, find_key(connection, key.id)
            self._trail.record(connection, caller, key_changed(before, key, self.clock()))
        self._on_change("key", key.id, began)
        return key

    def delete(self, caller: Principal, reference: str) -> None:
        """Delete a key for good: its secrets are wiped, its name stays for the sake of usage reports."""
        began = time.monotonic()
        with self._database.write() as connection:
            key = find_key(connection, reference, caller=caller)
            check_may_with_key(caller, standing_to(connection, caller, key), KeyAction.SWITCH_OFF, key)
            self._store.delete(connection, [key.id], now=self.clock())
            self._trail.record(connection, caller, key_deleted(key, self.clock()))
        self._on_change("key", key.id, began)

    def were_ever_made(self) -> bool:
        """Whether there is a key, or was one that has been deleted since."""
        with self._database.read() as connection:
            return not self._store.is_empty(connection)

    def touch(self, uses: Sequence[Use]) -> None:
        """Note when and from where keys were last used."""
        if uses:
            with self._database.write(durable=False) as connection:
                self._store.touch(connection, uses)

    def _changes(
        self, connection: Connection, caller: Principal, key: ApiKey, body: KeyUpdate
    ) -> dict[str, Any]:
        standing = standing_to(connection, caller, key)
        if body.disabled is False:
            check_may_enable(caller, standing, key)
        owner = find_user(connection, key.user_id, only=None)
        values = self._rules.changes(caller, key, body, owner=owner)
        if body.name is not None:
            values["name"] = restrictions.checked_name(body.name)
        if body.disabled is False:
            values["disabled_because"] = None
        check_may_change(caller, standing, key, replace(key, **values))
        return values
