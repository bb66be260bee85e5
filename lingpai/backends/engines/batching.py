"""Calls put together: one list of payloads in, one list of results out (`lp.Batch`).

Calls with equal parameters form a group. A group is due when it can fill a batch or its oldest call has waited long
enough; due groups take turns, so a busy one does not keep the others waiting. At most `concurrency` batches run at
once, and what comes meanwhile makes the next ones larger. A caller who leaves is taken out; a batch that runs goes on
for the others, and is cancelled when nobody is left.
"""

import asyncio
import contextvars
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import islice
from typing import Any, Final

import msgspec

from lingpai.authoring import Batch, InputError, Usage
from lingpai.backends.engines.calls import Bounds, FunctionRunner, ModelCodeError, located
from lingpai.backends.engines.gate import Pace, busy
from lingpai.backends.engines.repeating import Effort
from lingpai.backends.engines.told_usage import note, split_result, usage_object
from lingpai.backends.engines.values import ResultError
from lingpai.errors import LingpaiError

_UNBOUNDED: Final = 1 << 62
_KEYS: Final = msgspec.msgpack.Encoder(order="deterministic")


@dataclass(slots=True, eq=False)
class _Item:
    payload: Any
    came_at: float
    result: asyncio.Future[Any]
    batch: "_RunningBatch | None" = None


@dataclass(slots=True, eq=False)
class _RunningBatch:
    items: list[_Item]
    awaited: int
    task: asyncio.Task[None] | None = None


@dataclass(slots=True, eq=False)
class _Group:
    """Calls with equal parameters that wait, oldest first (a dictionary, so that any of them can be taken out)."""

    key: Any
    arguments: Mapping[str, Any]
    items: dict[_Item, None] = field(default_factory=dict)
    timer: asyncio.TimerHandle | None = None


class BatchRunner:
    """Calls one function with lists of payloads (a `Runner` for single payloads)."""

    def __init__(self, function: Callable[..., Any], batch: Batch, *, bounds: Bounds, name: str) -> None:
        self._slots = bounds.concurrency or 1
        self._function = FunctionRunner(
            function, bounds=replace(bounds, concurrency=self._slots, max_queue=_UNBOUNDED), name=name
        )
        self._max_size, self._max_wait_s = batch.max_size, batch.max_wait_ms / 1000
        self._max_queue, self._name = bounds.max_queue, name
        self._pace = Pace()
        self._groups: dict[Any, _Group] = {}
        self._due: dict[_Group, None] = {}
        self._running: set[asyncio.Task[None]] = set()
        self._waiting = 0
        self._context = contextvars.copy_context()  # a batch belongs to no caller in particular

    @property
    def streams(self) -> bool:
        return False

    async def pieces(self, payload: Any, arguments: Mapping[str, Any]) -> AsyncGenerator[Any]:
        ((value, usage),) = await self._results([payload], arguments, field=None)
        yield value
        if usage is not None:
            yield {"text": "", "usage": usage_object(usage)}

    async def value(self, payload: Any, arguments: Mapping[str, Any]) -> Any:
        return (await self.values([payload], arguments))[0]

    async def values(
        self, payloads: Sequence[Any], arguments: Mapping[str, Any], *, field: str | None = None
    ) -> list[Any]:
        results = await self._results(payloads, arguments, field=field)
        for _, usage in results:
            note(usage)
        return [value for value, _ in results]

    def close(self) -> None:
        self._function.close()

    # -- waiting

    async def _results(
        self, payloads: Sequence[Any], arguments: Mapping[str, Any], *, field: str | None
    ) -> list[tuple[Any, Usage | None]]:
        # A request is let in whole or not at all: half of it would be worth nothing.
        if self._is_full():
            rounds = self._waiting / (self._max_size * self._slots)
            raise busy(self._name, self._waiting, self._pace.retry_after(rounds))
        key = _key(arguments)
        results = [self._add(payload, key, arguments) for payload in payloads]
        try:
            return [split_result(result) for result in await asyncio.gather(*results)]
        except InputError as error:
            number = next(number for number, result in enumerate(results) if _error_of(result) is error)
            raise located(error, field, number, len(payloads)) from error
        finally:
            for result in results:
                if not result.cancel():
                    _error_of(result)  # looked at, so that asyncio does not report it as forgotten

    def _is_full(self) -> bool:
        """Calls that are only gathering, with a slot free for their batch, are not in a queue."""
        gathering = 0 if len(self._running) >= self._slots else self._max_size * self._slots
        return self._waiting >= self._max_queue + gathering

    def _add(self, payload: Any, key: Any, arguments: Mapping[str, Any]) -> asyncio.Future[Any]:
        loop = asyncio.get_running_loop()
        group = self._groups.get(key)
        if group is None:
            group = self._groups[key] = _Group(key, arguments)
        item = _Item(payload, loop.time(), loop.create_future())
        item.result.add_done_callback(partial(self._done, group, item))
        group.items[item] = None
        self._waiting += 1
        if len(group.items) >= self._max_size:
            self._make_due(group)
        elif group.timer is None and group not in self._due:
            group.timer = loop.call_later(self._max_wait_s, self._make_due, group)
        return item.result

    def _done(self, group: _Group, item: _Item, result: asyncio.Future[Any]) -> None:
        """A result is there, or its caller has left."""
        if not result.cancelled():
            return
        if item.batch is not None:
            item.batch.awaited -= 1
            if not item.batch.awaited and item.batch.task is not None:
                item.batch.task.cancel()
        elif item in group.items:
            del group.items[item]
            self._waiting -= 1
            if not group.items:
                self._forget(group)

    def _forget(self, group: _Group) -> None:
        if group.timer is not None:
            group.timer.cancel()
            group.timer = None
        self._due.pop(group, None)
        if self._groups.get(group.key) is group:
            del self._groups[group.key]

    # -- running

    def _make_due(self, group: _Group) -> None:
        if group.timer is not None:
            group.timer.cancel()
            group.timer = None
        self._due[group] = None
        self._run_due()

    def _run_due(self) -> None:
        while self._due and len(self._running) < self._slots:
            group = next(iter(self._due))
            del self._due[group]
            items = list(islice(group.items, self._max_size))
            for item in items:
                del group.items[item]
            self._waiting -= len(items)
            self._schedule_rest(group)
            self._run(group.arguments, [item for item in items if not item.result.done()])

    def _schedule_rest(self, group: _Group) -> None:
        if not group.items:
            self._forget(group)
            return
        loop = asyncio.get_running_loop()
        wait = next(iter(group.items)).came_at + self._max_wait_s - loop.time()
        if wait <= 0 or len(group.items) >= self._max_size:
            self._due[group] = None  # behind the others
        else:
            group.timer = loop.call_later(wait, self._make_due, group)

    def _run(self, arguments: Mapping[str, Any], items: list[_Item]) -> None:
        if not items:
            return
        batch = _RunningBatch(items, awaited=len(items))
        for item in items:
            item.batch = batch
        loop = asyncio.get_running_loop()
        batch.task = loop.create_task(self._call(arguments, items), context=self._context.copy())
        self._running.add(batch.task)
        batch.task.add_done_callback(partial(self._ended, items))

    async def _call(self, arguments: Mapping[str, Any], items: list[_Item]) -> None:
        began = asyncio.get_running_loop().time()
        try:
            payloads = [item.payload for item in items]
            results = _as_results(await self._function.result(payloads, arguments), len(items))
        except (InputError, ModelCodeError, ResultError, LingpaiError) as error:
            _fail(items, error)
            return
        finally:
            self._pace.learn(asyncio.get_running_loop().time() - began)
        effort = Effort()
        for item, result in zip(items, results, strict=True):
            _give(item, result, payloads, effort)

    def _ended(self, items: list[_Item], task: asyncio.Task[None]) -> None:
        self._running.discard(task)
        error = asyncio.CancelledError() if task.cancelled() else task.exception()
        if (
            error is not None
        ):  # the author's code let a cancellation escape, or a fault of ours: nobody may wait on
            _fail(items, _caused_by(error))
        self._run_due()


def _key(arguments: Mapping[str, Any]) -> Any:
    """Equal for equal arguments; what cannot be compared this way is equal to nothing."""
    if not arguments:
        return b""
    try:
        return _KEYS.encode(arguments)
    except (TypeError, ValueError, OverflowError, RecursionError):
        return object()


def _as_results(returned: Any, count: int) -> list[Any]:
    """One result per payload from a list, a tuple or an array. Raises ResultError."""
    if split_result(returned)[1] is not None:
        raise ResultError(
            "returned one lp.Usage for a batch; return a list of (result, lp.Usage(…)) instead."
        )
    is_list = isinstance(returned, list | tuple) or (
        hasattr(returned, "tolist") and hasattr(returned, "__len__")
    )
    if not is_list:
        kind = type(returned).__name__
        raise ResultError(
            f"returned {kind} for a batch; a function with batch= returns a list, one per payload."
        )
    try:
        results = list(returned)
    except TypeError:  # an array without dimensions
        results = []
    if len(results) != count:
        raise ResultError(f"returned {len(results)} results for a batch of {count}.")
    return results


def _give(item: _Item, result: Any, payloads: Sequence[Any], effort: Effort) -> None:
    if item.result.done():
        return
    if isinstance(result, InputError):
        item.result.set_exception(result)
    elif isinstance(result, BaseException):
        item.result.set_exception(_caused_by(result, payloads, effort))
    else:
        item.result.set_result(result)


def _fail(items: list[_Item], error: Exception) -> None:
    """All items of a batch share its failure; each gets an exception of its own to raise."""
    awaited = [item for item in items if not item.result.done()]
    payloads = [item.payload for item in items]
    for number, item in enumerate(awaited):
        item.result.set_exception(_own(error, payloads, is_repeated=number > 0))


def _own(error: Exception, payloads: Sequence[Any], *, is_repeated: bool) -> Exception:
    if isinstance(error, LingpaiError):
        return replace(error)
    if isinstance(error, ResultError):
        return ResultError(*error.args)
    if isinstance(error, InputError) and len(payloads) == 1:
        return error
    # Raised for several calls at once, an InputError does not say whose input is at fault, and most are innocent.
    cause = error.__cause__ if isinstance(error, ModelCodeError) and error.__cause__ else error
    own = _caused_by(cause, payloads)
    own.is_repeated = is_repeated
    return own


def _caused_by(
    cause: BaseException, payloads: Sequence[Any] = (), effort: Effort | None = None
) -> ModelCodeError:
    error = ModelCodeError(payloads, effort=effort)
    error.__cause__ = cause
    return error


def _error_of(result: asyncio.Future[Any]) -> BaseException | None:
    return None if not result.done() or result.cancelled() else result.exception()
