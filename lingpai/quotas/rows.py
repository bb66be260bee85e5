"""One limit as the limits API shows it."""

from collections.abc import Iterable

from typing_extensions import TypedDict

from lingpai.quotas.amounts import Unit
from lingpai.quotas.description import Quantity, describe
from lingpai.quotas.grammar import parse_limit
from lingpai.quotas.interfaces import SubjectKind
from lingpai.quotas.meter import Meter
from lingpai.quotas.subjects import LimitedSubject, LimitSource


class LimitRow(TypedDict):
    """One limit of one subject, and how far it is used.

    `used` includes `reserved`, what calls under way hold. Nothing is known of limits that hold for each user of a model
    (id `* MODEL`): every user has their own count. `resets_at` is null where nothing resets: concurrent calls.
    `waits_s`: how many seconds a call may wait for room before it is refused.
    """

    subject: SubjectKind
    id: str
    name: str
    limit: str
    unit: Unit
    source: LimitSource
    used: Quantity | None
    reserved: Quantity | None
    remaining: Quantity | None
    resets_at: str | None
    waits_s: float


def rows_of(subject: LimitedSubject, meters: Iterable[Meter], now: float) -> list[LimitRow]:
    """A row per limit of `subject` at `now` (Unix seconds); `meters` are its own. Runs on the event loop."""
    if subject.is_everybody:
        return [_row_without_count(subject, text) for text in subject.limits]
    return [row_of(subject, meter, now) for meter in meters]


def row_of(subject: LimitedSubject, meter: Meter, now: float) -> LimitRow:
    """The row of one meter."""
    [state] = describe([meter], now)
    return LimitRow(
        subject=subject.kind,
        id=subject.id,
        name=subject.name,
        limit=state["limit"],
        unit=state["unit"],
        source=subject.source,
        used=state["used"],
        reserved=state["reserved"],
        remaining=state["remaining"],
        resets_at=state["resets_at"],
        waits_s=meter.limit.wait_s,
    )


def _row_without_count(subject: LimitedSubject, text: str) -> LimitRow:
    limit = parse_limit(text)
    return LimitRow(
        subject=subject.kind,
        id=subject.id,
        name=subject.name,
        limit=text,
        unit=limit.unit,
        source=subject.source,
        used=None,
        reserved=None,
        remaining=None,
        resets_at=None,
        waits_s=limit.wait_s,
    )
