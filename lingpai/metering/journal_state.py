"""What the database knows of the journal: damage that was skipped, and from when on records are kept."""

from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import Connection, Row, func, select

from lingpai.metering.tables import usage_damage, usage_retention
from lingpai.storage.database import Database

_MOST_DAMAGE: Final = 100
_KEPT_SINCE: Final = select(usage_retention.c.kept_since)


@dataclass(frozen=True, slots=True)
class JournalState:
    """`damage` has the newest rows of usage_damage, newest first, of `damage_count` in all.

    `kept_since` (unix seconds) is None when no record was ever deleted.
    """

    damage: list[Row[Any]]
    damage_count: int
    kept_since: int | None


def kept_since(connection: Connection) -> int:
    """From when on (unix seconds, the start of a bucket) all records are there; 0 when none was ever deleted."""
    found: int | None = connection.scalar(_KEPT_SINCE)
    return found or 0


def read_journal_state(database: Database) -> JournalState:
    """The state as it is now. Blocks."""
    newest = select(usage_damage).order_by(usage_damage.c.id.desc()).limit(_MOST_DAMAGE)
    with database.read() as connection:
        return JournalState(
            damage=list(connection.execute(newest)),
            damage_count=connection.scalar(select(func.count()).select_from(usage_damage)) or 0,
            kept_since=kept_since(connection) or None,
        )
