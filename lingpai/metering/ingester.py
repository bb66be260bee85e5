"""The process that loads the usage journal into the database: ``python -m lingpai.metering.ingester DIRECTORY DATABASE``.

It is started by `lingpai.metering.supervisor` and talks with it over three pipes:

- stdin: any byte means "look now"; the end of file means that the server is gone: load what there is and exit.
- stdout: after each commit a line ``<segment> <offset> <skipped> <loaded>``: the position in the journal, and how many
  damaged places were skipped and records loaded since the line before.
- stderr: what an operator should know.

It may be killed at any moment. Records and position are committed together, so each record arrives exactly once.
"""

import fcntl
import os
import select
import signal
import sqlite3
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Final, TypeVar

from lingpai.metering.loader import Damage, SqliteLoader
from lingpai.metering.reader import JournalReader
from lingpai.metering.segments import Position, journal_end, list_segments, remove_segment, segment_path

_STDIN: Final = 0
_STDOUT: Final = 1
_IDLE_WAIT_S: Final = 0.05
_RETRY_WAIT_S: Final = 1.0
_LAST_TRIES: Final = 3
_NICENESS: Final = 5

Result = TypeVar("Result")


def main() -> int:
    """Run until the server is gone. Exits with 1 when records had to be left for the next start, 2 for bad usage."""
    if len(sys.argv) != 3:
        report("usage: python -m lingpai.metering.ingester DIRECTORY DATABASE_PATH")
        return 2
    directory, database = Path(sys.argv[1]), Path(sys.argv[2])
    # Ctrl-C and a service manager signal the whole group. The server decides when this process has nothing left to do.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    os.nice(_NICENESS)  # answering calls comes first
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    parent = Parent()
    lock = take_lock(directory, parent)
    if lock is None:
        return 0  # the ingester that has the lock loads everything
    try:
        Ingester(directory, database, parent).run()
    except (sqlite3.Error, OSError) as error:  # OSError: the journal itself cannot be read
        report(f"usage records stay in the journal until the next start: {error}")
        return 1
    return 0


def report(message: str) -> None:
    """Tell the operator."""
    sys.stderr.write(f"{message}\n")
    sys.stderr.flush()


def take_lock(directory: Path, parent: "Parent") -> int | None:
    """The descriptor that holds the lock of `directory`, once no other ingester works there.

    None when the parent went away before that. The kernel releases the lock when this process ends, however it ends.
    """
    descriptor = os.open(directory / "ingester.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    has_told = False
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if not has_told:
                report("waiting for another ingester to finish")
                has_told = True
            if not parent.is_there(wait=_IDLE_WAIT_S):
                return None
        else:
            return descriptor


class Parent:
    """The server at the other end of the pipes."""

    def __init__(self) -> None:
        self._is_gone = False

    def is_there(self, *, wait: float) -> bool:
        """Whether the server lives; waits up to `wait` seconds, less when it sends a byte or goes away."""
        if not self._is_gone and select.select([_STDIN], [], [], wait)[0]:
            self._is_gone = os.read(_STDIN, 4096) == b""
        return not self._is_gone

    def tell(self, position: Position, skipped: int = 0, loaded: int = 0) -> None:
        """Say how far the journal is loaded, and how much was skipped and loaded since the last time."""
        try:
            os.write(_STDOUT, b"%d %d %d %d\n" % (*position, skipped, loaded))
        except BrokenPipeError:
            self._is_gone = True


class Ingester:
    """Moves records from the journal in `directory` into the database, until the parent is gone and all is loaded.

    A database that is locked, full or broken is tried again until it works: the journal holds meanwhile. When the
    parent is gone too, the error is raised after a few tries.
    """

    def __init__(self, directory: Path, database: Path, parent: Parent) -> None:
        self._directory = directory
        self._parent = parent
        self._loader = SqliteLoader(database)
        self._loaded = self._retry(self._loader.position)
        self._damage: list[Damage] = []
        self._reader = JournalReader(directory, self._loaded, self._note_damage)
        self._delete_segments_before(self._loaded[0])  # the one before may have been killed before it could
        self._parent.tell(self._loaded)

    def run(self) -> None:
        """Load what comes until the parent is gone, then what is there at that moment."""
        while self._parent.is_there(wait=0 if self._reader.is_behind else _IDLE_WAIT_S):
            self._load_some()
        # A new server may be writing already: what comes after this moment is for its own ingester.
        end = journal_end(self._directory)
        while self._loaded < end and self._load_some():
            pass

    def _load_some(self) -> bool:
        """Load the next batch; False when there was nothing to load."""
        records = self._reader.read()
        position = self._reader.position
        if position == self._loaded:
            return False
        is_new_segment = position[0] != self._loaded[0]
        damage, self._damage = self._damage, []
        self._retry(partial(self._loader.load, records, position, damage=damage, durable=is_new_segment))
        self._loaded = position
        if is_new_segment:
            self._delete_segments_before(position[0])
        self._parent.tell(position, len(damage), len(records))
        return True

    def _note_damage(self, message: str) -> None:
        report(message)
        self._damage.append((time.time(), self._reader.position[0], message))

    def _delete_segments_before(self, number: int) -> None:
        for each in list_segments(self._directory):
            if each < number:
                try:
                    remove_segment(segment_path(self._directory, each))
                except OSError as error:
                    report(f"cannot delete segment {each} of the usage journal, which is loaded: {error}")

    def _retry(self, attempt: Callable[[], Result]) -> Result:
        last_tries = _LAST_TRIES
        told = ""
        while True:
            try:
                return attempt()
            except sqlite3.Error as error:
                if str(error) != told:
                    told = str(error)
                    report(f"cannot load usage records, trying again: {error}")
                if not self._parent.is_there(wait=_RETRY_WAIT_S):
                    last_tries -= 1
                    if last_tries == 0:
                        raise
                    time.sleep(_RETRY_WAIT_S)


if __name__ == "__main__":
    sys.exit(main())
