"""What becomes of a project that is deleted, and of all that belongs to it."""

import time
from typing import Final

from sqlalchemy import Connection, delete, func, select, update

from lingpai.errors import LingpaiError
from lingpai.identity.interfaces import Project
from lingpai.identity.member_store import SqlMemberStore
from lingpai.identity.oauth.tables import access_tokens, clients, token_families
from lingpai.identity.project_store import SqlProjectStore
from lingpai.identity.restrictions import MAX_NAME_LENGTH
from lingpai.identity.signing.store import SqlSigningKeyStore
from lingpai.identity.store import SqlKeyStore

_WHY: Final = "its project was deleted"


class ProjectEnd:
    """The end of one project, at `now` (Unix seconds), in the transaction of `connection`."""

    def __init__(self, connection: Connection, project: Project, *, now: float) -> None:
        self._connection = connection
        self._project = project
        self._now = now
        self._projects = SqlProjectStore()
        self._clients = select(clients.c.id).where(
            clients.c.project_id == project.id, clients.c.deleted_at.is_(None)
        )

    def check(self, *, force: bool) -> None:
        """Raise LingpaiError (invalid_request) if the project stays: it is personal, or used and not to be deleted by `force`."""
        if self._project.is_personal:
            raise LingpaiError(
                "invalid_request", f"`{self._project.name}` is personal: it goes when its user does."
            )
        keys = len(SqlKeyStore().of_project(self._connection, self._project.id))
        count = self._connection.scalar(select(func.count()).select_from(self._clients.subquery())) or 0
        if (keys or count) and not force:
            raise LingpaiError(
                "invalid_request",
                f"`{self._project.name}` still has {_counted(keys, 'key')} and {_counted(count, 'client')}. Delete them "
                "first, or everything together: `?force=true`, `lingpai projects delete --force`.",
                param="force",
            )

    def carry_out(self) -> list[str]:
        """Delete the project with everything in it. Returns the ids of the keys that were deleted."""
        key_ids = SqlKeyStore().of_project(self._connection, self._project.id)
        self._delete_clients()
        SqlKeyStore().delete(self._connection, key_ids, now=self._now)
        SqlSigningKeyStore().delete_of_deleted(self._connection)
        SqlMemberStore().remove_all(self._connection, self._project.id)
        values = {"name": self._last_name(), "deleted_at": self._now}
        self._projects.update(self._connection, self._project.id, values)
        return key_ids

    def _delete_clients(self) -> None:
        families = update(token_families).where(
            token_families.c.client_id.in_(self._clients), token_families.c.revoked_at.is_(None)
        )
        self._connection.execute(families.values(revoked_at=self._now, revoked_because=_WHY))
        self._connection.execute(delete(access_tokens).where(access_tokens.c.client_id.in_(self._clients)))
        ended = update(clients).where(clients.c.id.in_(self._clients))
        self._connection.execute(ended.values(deleted_at=self._now, secret_hmac=None, old_secret_hmac=None))

    def _last_name(self) -> str:
        """What usage shows from now on. The name itself is free for another project."""
        day = time.strftime("%Y-%m-%d", time.gmtime(self._now))
        for ending in (f" (deleted {day})", f" (deleted {day}, {self._project.id})"):
            name = self._project.name[: MAX_NAME_LENGTH - len(ending)] + ending
            if not self._projects.is_taken(self._connection, name):
                return name
        raise LookupError(name)  # no two projects have the same id


def _counted(number: int, noun: str) -> str:
    return f"{number or 'no'} {noun}{'' if number == 1 else 's'}"
