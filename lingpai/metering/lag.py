"""How far the database is behind the journal: figures for the metrics and for the operator."""

import contextlib

from lingpai.metering.journal import Journal
from lingpai.metering.segments import list_segments, segment_path
from lingpai.metering.supervisor import IngesterProcess


class JournalLag:
    """What is written and not yet loaded. Cheap enough for every scrape; belongs to the event loop."""

    def __init__(self, journal: Journal, ingester: IngesterProcess) -> None:
        self._journal = journal
        self._ingester = ingester
        self._loaded_before = ingester.loaded - journal.written

    def records(self) -> int:
        """How many records are waiting. Exact, but for what a killed ingester loaded without saying so.

        That is put right whenever the ingester has caught up.
        """
        if self._ingester.position >= self._journal.position:
            self._loaded_before = self._ingester.loaded - self._journal.written
            return 0
        return max(0, self._journal.written + self._loaded_before - self._ingester.loaded)

    def bytes(self) -> int:
        """How many bytes of the journal are waiting, damaged ones included."""
        segment, offset = self._ingester.position
        waiting = 0
        for number in list_segments(self._journal.directory):
            if number >= segment:
                with contextlib.suppress(FileNotFoundError):  # the ingester has just deleted it
                    size = segment_path(self._journal.directory, number).stat().st_size
                    waiting += size - offset if number == segment else size
        return max(0, waiting)

    def skipped(self) -> int:
        """How many damaged places of the journal were skipped since the server started."""
        return self._ingester.skipped
