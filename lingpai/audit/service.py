"""Writing the trail: each record holds the hash of the one before it, and is part of the change that it tells of."""

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import Connection, insert, select
from sqlalchemy.exc import DBAPIError

from lingpai.audit.actors import Actor, actor_of
from lingpai.audit.canonical import FIRST_PREVIOUS, canonical, hash_of, plain, time_in, time_text
from lingpai.audit.tables import audit_records
from lingpai.errors import LingpaiError
from lingpai.principal import Principal
from lingpai.storage.database import Database
from lingpai.storage.trail import Deed
from lingpai.telemetry.logs import current_request, mask
from lingpai.web.origin import Origin, current_origin

log = logging.getLogger("lingpai.audit")

_LAST: Final = (
    select(audit_records.c.number, audit_records.c.hash).order_by(audit_records.c.number.desc()).limit(1)
)
_INSERT: Final = insert(audit_records)


@dataclass(frozen=True, slots=True, kw_only=True)
class Circumstances:
    """From where a deed was done, and in which request."""

    address: str | None = None
    user_agent: str | None = None
    request_id: str | None = None


class SqlTrail:
    """The trail in the database; fulfils `lingpai.storage.trail.Trail`.

    It relies on `Database.write`, which takes SQLite's write lock before anything is read: between reading the last
    record and adding the next nobody else writes, in this process or another, so numbers have no gaps and the chain no
    branches. A database that lets several write at a time (PostgreSQL) needs a lock of its own here, such as
    ``pg_advisory_xact_lock``; the primary key refuses a second record of one number in any case.
    """

    def __init__(self, database: Database, *, clock: Callable[[], float] = time.time) -> None:
        self._database = database
        self._clock = clock

    def record(self, connection: Connection, caller: Principal | None, deed: Deed) -> None:
        """Write a record in the caller's transaction, which must be one of `Database.write`.

        Raises LingpaiError `storage_unavailable` when it cannot be written.
        """
        origin = current_origin.get()
        self.append(connection, actor_of(caller, origin), deed, _circumstances(origin))

    def note(self, caller: Principal | None, deed: Deed) -> None:
        """Write a record in a transaction of its own. Raises LingpaiError `storage_unavailable`. Blocks."""
        try:
            with self._database.write() as connection:
                self.record(connection, caller, deed)
        except DBAPIError as error:
            raise _cannot_write(error) from error

    def append(self, connection: Connection, actor: Actor, deed: Deed, circumstances: Circumstances) -> None:
        """Write a record of what `actor` did under these circumstances; else like `record`."""
        try:
            last = connection.execute(_LAST).one_or_none()
            number, previous = (1, FIRST_PREVIOUS) if last is None else (last.number + 1, last.hash)
            place = {"number": number, "previous": previous, "time": time_text(self._clock())}
            record = place | _record(actor, deed, circumstances)
            connection.execute(_INSERT, row_of(record))
        except DBAPIError as error:
            raise _cannot_write(error) from error


def row_of(record: dict[str, Any]) -> dict[str, Any]:
    """The row of a record: the columns that it is searched by, its line and the line's hash.

    Raises KeyError, TypeError or ValueError for what is no record.
    """
    line = canonical(record)
    actor, target = record["actor"], record["target"]
    return {
        "number": record["number"],
        "time": time_in(record["time"]),
        "action": record["action"],
        "result": record["result"],
        "actor_id": actor["id"],
        "actor_name": actor["name"],
        "credential": None if actor["credential"] is None else actor["credential"]["id"],
        "target_kind": target["kind"],
        "target_id": target["id"],
        "target_name": target["name"],
        "project_id": record["project_id"],
        "line": line,
        "hash": hash_of(line),
    }


def _record(actor: Actor, deed: Deed, circumstances: Circumstances) -> dict[str, Any]:
    reason, user_agent = deed.reason, circumstances.user_agent
    return {
        "action": deed.action,
        "actor": plain(actor.fields()),
        "address": circumstances.address,
        "after": plain(deed.after),
        "before": plain(deed.before),
        "project_id": deed.project_id,
        # These are free text, and somebody may have put a credential there.
        "reason": None if reason is None else plain(mask(reason[:1000])),
        "request_id": circumstances.request_id,
        "result": deed.result,
        "target": {
            "id": plain(mask(deed.target_id)[:300]),
            "kind": deed.target_kind,
            "name": plain(mask(deed.target_name)[:300]) or None,
        },
        "type": "record",
        "user_agent": None if user_agent is None else plain(mask(user_agent)[:200]),
    }


def _circumstances(origin: Origin | None) -> Circumstances:
    if origin is None:
        return Circumstances()
    return Circumstances(
        address=origin.address,
        user_agent=origin.user_agent,
        request_id=current_request.get() or None,
    )


def _cannot_write(error: DBAPIError) -> LingpaiError:
    log.error("the audit trail cannot be written, so a change was refused: %s", error.orig)
    return LingpaiError(
        "storage_unavailable",
        "This cannot be recorded in the audit trail (is the disk full, or does something lock the database?), so it was"
        " not done. Try again; tell the operator.",
        headers={"retry-after": "5"},
    )
