"""The SQL of events and deliveries. All methods block; those that take a connection work in the caller's transaction."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import (
    ColumnElement,
    Connection,
    Row,
    and_,
    delete,
    func,
    literal_column,
    or_,
    select,
    tuple_,
    update,
)

from lingpai.events.interfaces import Delivery, DeliveryState, Event
from lingpai.events.tables import events, webhook_deliveries
from lingpai.storage.database import Database

Position = tuple[float, str]
"""The sort key of lists: when something happened, and its id."""

_PART: Final = 500  # SQLite bounds the variables of one statement

# Spelled out rather than bound: SQLite uses a partial index only when it sees the index's own condition.
_IS_WAITING: Final[ColumnElement[bool]] = webhook_deliveries.c.state == literal_column("'waiting'")


@dataclass(frozen=True, slots=True, kw_only=True)
class EventFilter:
    """Which events a list shows; None does not restrict. `since` and `until` (excluded) are in Unix seconds.

    With `user_id` those that are this user's, and those about the projects `project_ids`.
    """

    user_id: str | None = None
    project_ids: tuple[str, ...] = ()
    type: str | None = None
    since: float | None = None
    until: float | None = None
    before: Position | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class DueDelivery:
    """An event that one webhook should get now, after `attempts` that failed."""

    event: Event
    attempts: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """What came of sending an event: the delivery's new state, and the answer or why there was none."""

    event_id: str
    state: DeliveryState
    at: float
    next_at: float | None
    status: int | None
    error: str | None


class SqlEventStore:
    """Events and deliveries in the database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def add(self, rows: Sequence[Mapping[str, Any]], recipients: Mapping[str, Collection[str]]) -> int:
        """Add events (rows of the table) and a delivery for each of the `recipients` of its type, in one transaction.

        Of events with one `once_key` only the first ever is added. Returns how many were added.
        """
        with self._database.write(durable=False) as connection:
            known = self._known(connection, [row["once_key"] for row in rows if row["once_key"]])
            new = _first_of_each(rows, known)
            if new:
                connection.execute(events.insert(), [dict(row) for row in new])
            deliveries = [
                {"event_id": row["id"], "webhook": webhook, "state": "waiting", "attempts": 0}
                | {"next_at": row["occurred_at"]}
                for row in new
                for webhook in recipients.get(row["type"], ())
            ]
            if deliveries:
                connection.execute(webhook_deliveries.insert(), deliveries)
        return len(new)

    def page(self, wanted: EventFilter, *, limit: int) -> list[Event]:
        """Up to `limit` events with their deliveries, the newest first."""
        query = select(events).where(*_conditions(wanted))
        query = query.order_by(events.c.occurred_at.desc(), events.c.id.desc()).limit(limit)
        with self._database.read() as connection:
            rows = connection.execute(query).all()
            deliveries = self._deliveries(connection, [row.id for row in rows])
        return [_event(row, tuple(deliveries.get(row.id, ()))) for row in rows]

    def due(self, webhook: str, *, now: float, limit: int) -> list[DueDelivery]:
        """Up to `limit` deliveries of a webhook that should be tried at `now`, the longest due first."""
        columns = webhook_deliveries.c
        query = (
            select(events, columns.attempts)
            .join_from(webhook_deliveries, events)
            .where(columns.webhook == webhook, _IS_WAITING, columns.next_at <= now)
            .order_by(columns.next_at)
            .limit(limit)
        )
        with self._database.read() as connection:
            return [
                DueDelivery(event=_event(row), attempts=row.attempts) for row in connection.execute(query)
            ]

    def next_due_at(self, webhook: str) -> float | None:
        """When the next delivery of a webhook should be tried, or None when none is waiting."""
        columns = webhook_deliveries.c
        query = select(func.min(columns.next_at)).where(columns.webhook == webhook, _IS_WAITING)
        with self._database.read() as connection:
            found: float | None = connection.scalar(query)
        return found

    def note(self, webhook: str, attempts: Iterable[Attempt]) -> None:
        """Note what came of sending."""
        columns = webhook_deliveries.c
        with self._database.write(durable=False) as connection:
            for attempt in attempts:
                connection.execute(
                    update(webhook_deliveries)
                    .where(columns.event_id == attempt.event_id, columns.webhook == webhook)
                    .values(
                        state=attempt.state,
                        attempts=columns.attempts + 1,
                        next_at=attempt.next_at,
                        last_at=attempt.at,
                        last_status=attempt.status,
                        last_error=attempt.error,
                    )
                )

    def give_up(self, *, error: str, webhook: str | None = None, but: Collection[str] = ()) -> int:
        """Give up what waits for `webhook` (None: for any webhook that is not in `but`). Returns how many those were."""
        columns = webhook_deliveries.c
        which = columns.webhook.not_in(but) if webhook is None else columns.webhook == webhook
        statement = update(webhook_deliveries).where(_IS_WAITING, which)
        with self._database.write(durable=False) as connection:
            result = connection.execute(statement.values(state="given_up", next_at=None, last_error=error))
        return result.rowcount

    def remove_before(self, time: float) -> int:
        """Remove events that happened before `time`, and their deliveries. Returns how many events those were."""
        old = select(events.c.id).where(events.c.occurred_at < time)
        with self._database.write(durable=False) as connection:
            connection.execute(delete(webhook_deliveries).where(webhook_deliveries.c.event_id.in_(old)))
            return connection.execute(delete(events).where(events.c.occurred_at < time)).rowcount

    def _known(self, connection: Connection, once_keys: Sequence[str]) -> set[str]:
        known: set[str] = set()
        for start in range(0, len(once_keys), _PART):
            part = once_keys[start : start + _PART]
            known.update(connection.scalars(select(events.c.once_key).where(events.c.once_key.in_(part))))
        return known

    def _deliveries(self, connection: Connection, event_ids: Sequence[str]) -> dict[str, list[Delivery]]:
        found: dict[str, list[Delivery]] = {}
        columns = webhook_deliveries.c
        query = select(webhook_deliveries).where(columns.event_id.in_(event_ids)).order_by(columns.webhook)
        for row in connection.execute(query):
            found.setdefault(row.event_id, []).append(_delivery(row))
        return found


def _first_of_each(rows: Iterable[Mapping[str, Any]], known: set[str]) -> list[Mapping[str, Any]]:
    new = []
    for row in rows:
        if row["once_key"] is None:
            new.append(row)
        elif row["once_key"] not in known:
            known.add(row["once_key"])
            new.append(row)
    return new


def _conditions(wanted: EventFilter) -> list[ColumnElement[bool]]:
    conditions: list[ColumnElement[bool]] = []
    if wanted.user_id is not None:
        is_of_project = events.c.subject_kind == "project"
        in_projects = and_(is_of_project, events.c.subject_id.in_(wanted.project_ids))
        # Whoever owned a project when it happened may have left it since.
        is_own = and_(events.c.user_id == wanted.user_id, events.c.subject_kind != "project")
        conditions.append(or_(is_own, in_projects))
    if wanted.type is not None:
        conditions.append(events.c.type == wanted.type)
    if wanted.since is not None:
        conditions.append(events.c.occurred_at >= wanted.since)
    if wanted.until is not None:
        conditions.append(events.c.occurred_at < wanted.until)
    if wanted.before is not None:
        conditions.append(tuple_(events.c.occurred_at, events.c.id) < wanted.before)
    return conditions


def _event(row: Row[Any], deliveries: tuple[Delivery, ...] = ()) -> Event:
    return Event(
        id=row.id,
        type=row.type,
        occurred_at=row.occurred_at,
        message=row.message,
        data=row.data,
        subject=None if row.subject_kind is None else (row.subject_kind, row.subject_id),
        user_id=row.user_id,
        deliveries=deliveries,
    )


def _delivery(row: Row[Any]) -> Delivery:
    return Delivery(
        webhook=row.webhook,
        state=row.state,
        attempts=row.attempts,
        next_at=row.next_at,
        last_at=row.last_at,
        last_status=row.last_status,
        last_error=row.last_error,
    )
