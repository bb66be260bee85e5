"""Small writes of many callers in one transaction: what one call would wait for a disk, hundreds wait for together.

While one group is on its way to the disk, the next one gathers; so a lone write waits for nobody, and under load a
transaction carries as many as came in the meantime.
"""

import asyncio
import contextvars
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final, NamedTuple, TypeVar

from sqlalchemy import Connection

from lingpai.storage.database import Database

T = TypeVar("T")
Job = Callable[[Connection], Any]
Then = Callable[[Any], object]

_MOST_PER_GROUP: Final = 500


class _Waiting(NamedTuple):
    job: Job
    then: Then | None
    future: "asyncio.Future[Any]"


class GroupCommit:
    """Belongs to the running event loop; the writes themselves happen in one thread."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="lingpai-commit")
        self._waiting: deque[_Waiting] = deque()
        self._is_writing = False

    async def run(self, job: Callable[[Connection], T], then: Callable[[T], object] | None = None) -> T:
        """What `job` returns, once it is on the disk for good. Jobs run one after the other, in the order of the calls.

        `job` gets a connection in a transaction that holds the write lock; it runs in a thread. What it raises is
        raised here; its own writes are undone then, and those of others stay. Raises sqlalchemy.exc.OperationalError
        when the transaction as a whole fails.

        `then` is called on the event loop with what `job` returned, as soon as it is on the disk, also when nobody waits
        for this any more: for what must follow from it in memory, whoever has hung up.
        """
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        # The context says which request it was, and from where: what is recorded has that in it.
        context = contextvars.copy_context()
        self._waiting.append(_Waiting(lambda connection: context.run(job, connection), then, future))
        if not self._is_writing:
            self._begin_group(asyncio.get_running_loop())
        return await future

    def close(self) -> None:
        """Let go of the thread, when it has written what it is at."""
        self._thread.shutdown(wait=True)

    def _begin_group(self, loop: asyncio.AbstractEventLoop) -> None:
        self._is_writing = True
        count = min(len(self._waiting), _MOST_PER_GROUP)
        group = [self._waiting.popleft() for _ in range(count)]
        self._thread.submit(self._write, loop, group)

    def _write(self, loop: asyncio.AbstractEventLoop, group: list[_Waiting]) -> None:
        outcomes: list[tuple[Any, BaseException | None]] = []
        try:
            with self._database.write() as connection:
                outcomes = [_outcome(each.job, connection) for each in group]
        except BaseException as error:  # noqa: BLE001  the outermost edge of a thread: whoever waits must hear of it
            outcomes = [(None, error)] * len(group)
        loop.call_soon_threadsafe(self._tell, loop, group, outcomes)

    def _tell(
        self,
        loop: asyncio.AbstractEventLoop,
        group: list[_Waiting],
        outcomes: list[tuple[Any, BaseException | None]],
    ) -> None:
        for waiting, (result, error) in zip(group, outcomes, strict=True):
            _settle(waiting, result, error or _told(waiting.then, result))
        self._is_writing = False
        if self._waiting:
            self._begin_group(loop)


def _outcome(job: Job, connection: Connection) -> tuple[Any, BaseException | None]:
    try:
        with connection.begin_nested():
            return job(connection), None
    except Exception as error:
        if not _is_in_transaction(connection):
            # SQLite gave the whole transaction up (the disk is full). Another job would be one of its own, and could
            # be there for good although everybody is told that it failed.
            raise
        return None, error


def _is_in_transaction(connection: Connection) -> bool:
    raw: Any = connection.connection.dbapi_connection
    return bool(raw.in_transaction)


def _told(then: Then | None, result: Any) -> BaseException | None:
    try:
        if then is not None:
            then(result)
    except Exception as error:  # noqa: BLE001  it is the caller's, and raised there
        return error
    return None


def _settle(waiting: _Waiting, result: Any, error: BaseException | None) -> None:
    if waiting.future.cancelled():
        return
    if error is None:
        waiting.future.set_result(result)
    else:
        waiting.future.set_exception(error)
