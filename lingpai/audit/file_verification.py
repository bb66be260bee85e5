"""Verifying an exported JSON Lines file, anywhere: it needs the file and the public key.

Each byte counts: a line must be spelled as it was written (`canonical`), have its own hash, and lead on from the one
before; and the signed last line holds a digest of all that stands before it. So nothing can be changed unnoticed; hashes
and checkpoints are there to say where.
"""

import hashlib
import json
from collections.abc import Callable, Mapping
from typing import IO, Any, Final

from lingpai.audit.canonical import canonical
from lingpai.audit.chain import Chain, Report, Vouch

MOST_LINE_BYTES: Final = 16 * 1024 * 1024


def verify_file(
    file: IO[bytes], keys: Vouch, *, on_progress: Callable[[int], None] = lambda _: None
) -> Report:
    """Check an export. `on_progress` hears how many bytes are done. Raises OSError when it cannot be read."""
    check = _FileCheck(keys)
    done = number = 0
    while content := file.readline(MOST_LINE_BYTES):
        number += 1
        check.line(number, content)
        done += len(content)
        on_progress(done)
    check.finish(number)
    return check.report


class _FileCheck:
    def __init__(self, keys: Vouch) -> None:
        self.report = Report()
        self._keys = keys
        self._chain = Chain(self.report, keys)
        self._digest = hashlib.sha256()
        self._end: Mapping[str, Any] | None = None
        self._last_time: str | None = None
        self._is_whole = True

    def line(self, number: int, content: bytes) -> None:
        """Check the line with this number, counted from 1."""
        if self._end is not None:
            self.report.add("stands behind the end of the export", line=number)
            return
        found = _parsed(content)
        kind = None if found is None else found.get("type")
        if found is not None and kind == "end":
            self._end = found
            return
        self._digest.update(content)
        if number == 1:
            self._begin(found if kind == "begin" else None)
            if kind == "begin":
                return
        try:
            self._check(number, kind, found or {})
        except (KeyError, TypeError, ValueError):
            self.report.add("is damaged: it lacks what such a line has", line=number)

    def finish(self, lines: int) -> None:
        """Check what only the end tells."""
        report, end = self.report, self._end
        if end is None:
            last = "at its beginning" if report.last is None else f"behind record {report.last}"
            report.add(
                f"the end of the file is missing: it breaks off {last}",
                number=report.last,
                time=self._last_time,
                line=lines,
            )
            return
        if not self._keys.vouch_for(end):
            report.add("the end of the file is not signed by a known key", line=lines)
            return
        if end.get("digest") == self._digest.hexdigest():
            report.signed_up_to = report.last or 0
        elif report.is_intact:
            report.add(self._where_unknown(end), line=lines)

    def _begin(self, begin: Mapping[str, Any] | None) -> None:
        if begin is None:
            self.report.add("the beginning of the file is missing, or was changed", line=1)
            return
        self._is_whole = begin.get("whole") is not False
        self._chain = Chain(self.report, self._keys, is_whole=self._is_whole)

    def _check(self, number: int, kind: Any, found: dict[str, Any]) -> None:
        if kind == "record":
            hash_ = found.pop("hash")
            if type(found["number"]) is not int:
                raise ValueError
            self._chain.record(found, canonical(found), hash_, line=number)
            self._last_time = found["time"]
        elif kind == "checkpoint":
            self._chain.checkpoint(found, line=number)
        else:
            self.report.add("was changed: it is not written as any line of an export is", line=number)

    def _where_unknown(self, end: Mapping[str, Any]) -> str:
        """All hashes fit, and yet the file is another one: somebody has worked them out anew, or cut at the beginning."""
        report = self.report
        first, last = end.get("first"), end.get("last")
        if report.first != first and self._is_whole and report.first is not None:
            return f"the file begins with record {report.first}, and began with record {first} when it was exported"
        if report.last != last and self._is_whole and report.last is not None:
            return (
                f"the file ends with record {report.last}, and ended with record {last} when it was exported"
            )
        differing = [
            f"it had {end.get(name)} {name}, and has {counted}"
            for name, counted in (("records", report.records), ("checkpoints", report.checkpoints))
            if end.get(name) != counted
        ]
        if differing:
            return f"lines were taken out or put in since it was exported: {', '.join(differing)}"
        if self._is_whole and report.last is not None:
            first = max(report.signed_up_to + 1, report.first or 1)
            among = (
                f"records {first} to {report.last}" if first <= report.last else "the lines at the beginning"
            )
            return f"at least one line was changed since it was exported, among {among}, and hashes worked out anew"
        return "at least one line was changed since it was exported, and hashes worked out anew"


def _parsed(content: bytes) -> dict[str, Any] | None:
    """What a line says; None when it is not spelled, to the byte, as it was written."""
    if not content.endswith(b"\n"):
        return None
    try:
        text = content[:-1].decode()
        found = json.loads(text)
        return found if isinstance(found, dict) and canonical(found) == text else None
    except (ValueError, TypeError, RecursionError):
        return None
