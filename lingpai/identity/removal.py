"""Users leave for good: whatever could act in their name dies at once, what shows what they did stays.

The row stays for usage and audit, under a name that nobody can choose (`alice~4fK…`), so that the name is free again. Their
personal project is renamed along, and so are projects in which nobody else has a share; projects with other members, or
with keys of others, stay as they are.
"""

import time
from collections.abc import Callable
from typing import Final

from sqlalchemy import Connection, delete, or_, select, update

from lingpai.errors import LingpaiError
from lingpai.identity.finding import find_user
from lingpai.identity.interfaces import OnChange, User
from lingpai.identity.oauth.tables import access_tokens, clients, refresh_tokens, token_families
from lingpai.identity.restrictions import MAX_NAME_LENGTH
from lingpai.identity.rights import check_is_admin, visible_user
from lingpai.identity.sessions.ending import SessionEnder
from lingpai.identity.sessions.tables import invitations, sign_in_places
from lingpai.identity.signing.store import SqlSigningKeyStore
from lingpai.identity.store import SqlUserStore
from lingpai.identity.tables import api_keys, project_members, projects, users
from lingpai.principal import Principal
from lingpai.storage.database import Database
from lingpai.storage.trail import Deed, Trail

MARK: Final = "~"
"""What no user can have in their name."""


class UserRemoval:
    """Deletes users. Blocks."""

    def __init__(
        self,
        database: Database,
        *,
        operator: str,
        on_change: OnChange,
        trail: Trail,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`operator` is the name of the user who calls through the admin socket, who has to stay."""
        self._database = database
        self._operator = operator
        self._on_change = on_change
        self._trail = trail
        self._clock = clock
        self._ender = SessionEnder(trail)

    def remove(self, caller: Principal, reference: str) -> None:
        """Delete a user, and all of their keys, clients, tokens, sessions and invitations.

        Raises LingpaiError: for unknown ones, oneself, the last administrator and the operator.
        """
        began = time.monotonic()
        with self._database.write() as connection:
            user = find_user(connection, reference, only=visible_user(caller))
            check_is_admin(caller, "delete users")
            self._check_may_leave(connection, caller, user)
            self._delete_credentials(connection, user)
            self._ender.end_of_user(connection, caller, user.id, "the user was deleted")
            self._rename(connection, user)
            self._trail.record(connection, caller, _deed(user))
        self._on_change("user", user.id, began)

    def _check_may_leave(self, connection: Connection, caller: Principal, user: User) -> None:
        if user.id == caller.user_id:
            raise LingpaiError("invalid_request", "You cannot delete yourself. Ask another administrator.")
        if user.name == self._operator:
            raise LingpaiError(
                "invalid_request",
                f"`{user.name}` is who manages this server through its admin socket, and has to stay. Disable them to end"
                f" their keys: `lingpai users disable {user.name}`.",
            )
        if user.role == "admin" and not SqlUserStore().has_other_admin(connection, user.id):
            raise LingpaiError(
                "invalid_request",
                f"`{user.name}` is the last administrator. Make another one first:"
                " `lingpai users create NAME --role admin`.",
            )

    def _delete_credentials(self, connection: Connection, user: User) -> None:
        now = self._clock()
        live_keys = (api_keys.c.user_id == user.id, api_keys.c.deleted_at.is_(None))
        gone = {"deleted_at": now, "secret_hmac": None, "old_secret_hmac": None}
        connection.execute(update(api_keys).where(*live_keys).values(gone))
        live_clients = (clients.c.user_id == user.id, clients.c.deleted_at.is_(None))
        connection.execute(update(clients).where(*live_clients).values(gone))
        SqlSigningKeyStore().delete_of_deleted(connection)
        own_clients = select(clients.c.id).where(clients.c.user_id == user.id)
        theirs = or_(token_families.c.user_id == user.id, token_families.c.client_id.in_(own_clients))
        families = select(token_families.c.id).where(theirs)
        connection.execute(
            delete(access_tokens).where(
                or_(
                    access_tokens.c.user_id == user.id,
                    access_tokens.c.client_id.in_(own_clients),
                    access_tokens.c.family_id.in_(families),
                )
            )
        )
        connection.execute(delete(refresh_tokens).where(refresh_tokens.c.family_id.in_(families)))
        connection.execute(
            update(token_families)
            .where(theirs, token_families.c.revoked_at.is_(None))
            .values(revoked_at=now, revoked_because="the user was deleted")
        )
        connection.execute(delete(invitations).where(invitations.c.user_id == user.id))
        connection.execute(delete(sign_in_places).where(sign_in_places.c.user_id == user.id))

    def _rename(self, connection: Connection, user: User) -> None:
        now = self._clock()
        values = {
            "name": _name_of_gone(user.name, user.id),
            "deleted_at": now,
            "disabled_at": user.disabled_at or now,
            "password_hash": None,
            "password_changed_at": None,
        }
        connection.execute(update(users).where(users.c.id == user.id).values(values))
        others_in = (
            select(project_members.c.project_id)
            .join(users, users.c.id == project_members.c.user_id)
            .where(users.c.id != user.id, users.c.deleted_at.is_(None))
        )
        keys_in = select(api_keys.c.project_id).where(
            api_keys.c.user_id != user.id, api_keys.c.deleted_at.is_(None), api_keys.c.project_id.is_not(None)
        )
        left_alone = select(projects.c.id, projects.c.name).where(
            projects.c.owner_id == user.id,
            or_(
                projects.c.is_personal,
                projects.c.id.not_in(others_in) & projects.c.id.not_in(keys_in),
            ),
        )
        alone = connection.execute(left_alone).all()
        connection.execute(delete(project_members).where(project_members.c.user_id == user.id))
        for project in alone:
            # The personal one has the name of its user, also now.
            id_ = user.id if project.name == user.name else project.id
            name = _name_of_gone(project.name, id_)
            connection.execute(update(projects).where(projects.c.id == project.id).values(name=name))


def _name_of_gone(name: str, id_: str) -> str:
    mark = f"{MARK}{id_.partition('_')[2]}"
    return f"{name[: MAX_NAME_LENGTH - len(mark)]}{mark}"


def _deed(user: User) -> Deed:
    return Deed(
        action="user.delete",
        target_kind="user",
        target_id=user.id,
        target_name=user.name,
        before={"name": user.name, "role": user.role, "disabled": user.disabled_at is not None},
    )
