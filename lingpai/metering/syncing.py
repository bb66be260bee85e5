"""Forcing the journal to the disk, off the event loop."""

import os
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Protocol

Done = Callable[[bool], None]


class Loop(Protocol):
    """What the journal needs of an event loop."""

    def call_soon(self, callback: Callable[[], object], /) -> object: ...
    def call_later(self, delay: float, callback: Callable[[], object], /) -> object: ...
    def call_soon_threadsafe(self, callback: Callable[..., object], /, *args: object) -> object: ...
    def call_exception_handler(self, context: dict[str, object], /) -> None: ...


class Syncer:
    """Runs fsync in one worker thread: one at a time, and what came together is confirmed together.

    Descriptors are closed in that thread too, in order, so that none is closed while it is being synced.
    """

    def __init__(self, loop: Loop, *, fsync: Callable[[int], None] = os.fsync) -> None:
        self._loop = loop
        self._fsync = fsync
        self._executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="journal-fsync")
        self._waiting: list[Done] = []
        self._retired: list[int] = []
        self._descriptor = -1
        self._running: Future[bool] | None = None
        self._running_for: list[Done] = []

    def retire(self, descriptor: int) -> None:
        """Nothing more will be written to `descriptor`: the next sync includes it and closes it."""
        self._retired.append(descriptor)

    def sync(self, descriptor: int, done: Done) -> None:
        """Sync `descriptor` and everything retired, then call `done` on the loop with whether it worked."""
        self._descriptor = descriptor
        self._waiting.append(done)
        if self._running is None:
            self._start()

    def probe(self, check: Callable[[], bool], done: Done) -> None:
        """Run `check` in the same thread, after the syncs that run, then call `done` on the loop with its answer."""
        running = self._executor.submit(check)
        running.add_done_callback(lambda finished: self._loop.call_soon_threadsafe(done, finished.result()))

    def stop(self) -> None:
        """End the thread, without syncing anything."""
        self._executor.shutdown()

    def close(self, descriptor: int) -> None:
        """Sync everything in the calling thread, tell all who wait, and close `descriptor`."""
        if self._running is not None:
            self._settle(self._running)
        self._executor.shutdown()
        synced = self._sync_all(self._retired, descriptor)
        os.close(descriptor)
        self._retired = []
        for done in self._take_waiting():
            done(synced)

    def _start(self) -> None:
        retired, self._retired = self._retired, []
        self._running_for = self._take_waiting()
        self._running = self._executor.submit(self._sync_all, retired, self._descriptor)
        self._running.add_done_callback(self._hand_over)

    def _take_waiting(self) -> list[Done]:
        waiting, self._waiting = self._waiting, []
        return waiting

    def _sync_all(self, retired: Sequence[int], descriptor: int) -> bool:
        synced = True
        for each in retired:
            synced &= self._sync_one(each)
            os.close(each)
        return self._sync_one(descriptor) and synced

    def _sync_one(self, descriptor: int) -> bool:
        try:
            self._fsync(descriptor)
        except OSError:
            return False
        return True

    def _hand_over(self, finished: Future[bool]) -> None:
        self._loop.call_soon_threadsafe(self._finished, finished)

    def _finished(self, finished: Future[bool]) -> None:
        if finished is not self._running:  # close() came first and has told them
            return
        self._settle(finished)
        if self._waiting:
            self._start()

    def _settle(self, running: Future[bool]) -> None:
        synced = running.result()
        told, self._running_for, self._running = self._running_for, [], None
        for done in told:
            done(synced)
