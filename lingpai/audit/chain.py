"""Verifying: does each record lead to the next, and does the chain pass through what was signed? Says where it does not.

Records come in their order, each followed by its checkpoint if it has one. After something that is wrong the check goes
on from there, so that one change is told of once and a second one is found as well.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

from lingpai.audit.canonical import FIRST_PREVIOUS, hash_of

MOST_FINDINGS: Final = 1000
"""More are only counted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """Something that is not as it was written: which record it is about, when that was made, where it stands in a file."""

    message: str
    number: int | None = None
    time: str | None = None
    line: int | None = None


@dataclass(slots=True)
class Report:
    """What was looked at, and what was found."""

    records: int = 0
    first: int | None = None
    last: int | None = None
    checkpoints: int = 0
    signed_up_to: int = 0
    """The last record that a signature vouches for; what comes after it could have been made up since."""
    findings: list[Finding] = field(default_factory=list)
    more_findings: int = 0

    @property
    def is_intact(self) -> bool:
        return not self.findings

    def add(
        self, message: str, *, number: int | None = None, time: str | None = None, line: int | None = None
    ) -> None:
        """Note a finding."""
        if len(self.findings) < MOST_FINDINGS:
            self.findings.append(Finding(message=message, number=number, time=time, line=line))
        else:
            self.more_findings += 1


class Vouch(Protocol):
    """`PublicKeys`: whose signatures count."""

    def vouch_for(self, statement: Mapping[str, Any]) -> bool:
        """Whether `statement` was signed as it is with a known key."""
        ...


class Chain:
    """The check of one trail."""

    def __init__(
        self, report: Report, keys: Vouch, *, is_whole: bool = True, begins_at: int | None = None
    ) -> None:
        """`begins_at` is the number that must come first (None: any). Without `is_whole` records may be left out."""
        self._report = report
        self._keys = keys
        self._is_whole = is_whole
        self._last = None if begins_at is None else begins_at - 1
        self._last_hash = FIRST_PREVIOUS if begins_at == 1 else None
        """None: not known, because the record before is missing or another one stands in its place."""
        self._checked_up_to = 0

    def record(self, record: Mapping[str, Any], text: str, hash_: str, *, line: int | None = None) -> None:
        """Check the next record: its fields, the line that was hashed, and the hash that is kept with it."""
        report, number, time = self._report, record["number"], record.get("time")
        if hash_of(text) != hash_:
            report.add("was changed: its hash is another one", number=number, time=time, line=line)
        report.records += 1
        if self._is_out_of_order(record, line):
            return
        if report.first is None:
            report.first = number
        previous = FIRST_PREVIOUS if number == 1 else self._last_hash
        if previous is not None and record.get("previous") != previous:
            behind = f"record {number - 1}" if number > 1 else "the beginning"
            message = f"does not lead on from {behind}: one of the two was changed, or put in"
            report.add(message, number=number, time=time, line=line)
        self._last, self._last_hash = number, hash_
        report.last = number

    def tell(self, message: str, *, number: int, time: str | None = None) -> None:
        """Note something else that is wrong with a record."""
        self._report.add(message, number=number, time=time)

    def missing(self, number: int, message: str) -> None:
        """The record with this number cannot be used; the check goes on behind it."""
        self._report.add(message, number=number)
        self._last, self._last_hash = number, None

    def checkpoint(self, statement: Mapping[str, Any], *, line: int | None = None) -> None:
        """Check the checkpoint that stands behind the last record."""
        report = self._report
        number, time = statement["number"], statement.get("time")
        report.checkpoints += 1
        if not self._keys.vouch_for(statement):
            report.add("its checkpoint is not signed by a known key", number=number, time=time, line=line)
        elif number != self._last:
            report.add("its checkpoint stands where the record is not", number=number, time=time, line=line)
        elif self._last_hash is not None and statement["hash"] != self._last_hash:
            first = self._checked_up_to + 1
            message = f"records {first} to {number} are not those that were signed: at least one was changed or put in"
            report.add(message, number=number, time=time, line=line)
        else:
            report.signed_up_to = number
        self._checked_up_to = number

    def _is_out_of_order(self, record: Mapping[str, Any], line: int | None) -> bool:
        number, time, last = record["number"], record.get("time"), self._last
        if last is None or number == last + 1:
            return False
        if number <= last:
            message = f"stands behind record {last}: it was moved or put in"
            self._report.add(message, number=number, time=time, line=line)
            return True
        if self._is_whole:
            missing = (
                f"record {last + 1} is" if number == last + 2 else f"records {last + 1} to {number - 1} are"
            )
            self._report.add(f"{missing} missing before this one", number=number, time=time, line=line)
        self._last_hash = None
        return False
