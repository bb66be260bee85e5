"""What the database knows of the journal: damage that was skipped, and from when on records are kept."""

from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import Row, func, select

from lingpai.metering.tables import usage_damage, usage_retention
from lingpai.storage.database import Database

_MOST_DAMAGE: Final = 100


@dataclass(frozen=True, slots=True)
class JournalState:
    """`damage` has the newest rows of usage_damage, newest first, of `damage_count` in all.

    `kept_since` (unix seconds) is None when no record was ever deleted.
    """

    damage: list[Row[Any]]
    damage_count: int
    kept_since: int | None


def read_journal_state(database: Database) -> JournalState:
    """The state as it is now. Blocks."""
    newest = select(usage_damage).order_by(usage_damage.c.id.desc()).limit(_MOST_DAMAGE)
    with database.read() as connection:
        return JournalState(
            damage=list(connection.execute(newest)),
            damage_count=connection.scalar(select(func.count()).select_from(usage_damage)) or 0,
            kept_since=connection.scalar(select(usage_retention.c.kept_since)) or None,
        )
