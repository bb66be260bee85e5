"""Running an author's function, whatever kind it is, as an asynchronous stream of pieces or as one value.

- asynchronous functions and generators run on the event loop; leaving, or a time-out, cancels them where they wait
- synchronous ones run in a pool of `concurrency` threads, and further calls queue. A generator stays in one thread
  for its whole life (autograd modes and database connections belong to a thread) and is closed at its next `yield`
  once nobody waits; a plain function that runs already cannot be stopped, so it ends for nobody, and keeps its thread
  until then. One that goes on long after its time-out is told to `on_overrun`: only a new process gets rid of it
"""

import asyncio
import contextlib
import inspect
import threading
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future as Job
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, Protocol

from lingpai.authoring import InputError, Usage
from lingpai.backends.engines.gate import Gate
from lingpai.backends.engines.repeating import Effort
from lingpai.backends.engines.told_usage import note, split_result, usage_object
from lingpai.errors import LingpaiError

PIECES_AHEAD: Final = 64
"""How far a thread's generator may run ahead of the caller who reads it."""

OVERRUN_GRACE_S: Final = 10.0
"""How long after its time-out a call may still hold its place before it counts as stuck."""

_END: Final = object()

OnOverrun = Callable[[str, float], None]
"""Told the model and the seconds after which a call of it is stuck."""


class ModelCodeError(Exception):
    """The author's code raised something other than InputError; `__cause__` is what.

    `is_repeated` when another call was told of the same failure, so that one traceback in the log is enough. `payloads`
    are those of all calls of a batch: what the exception says may be about any of them. `effort` is what may be spent on
    finding out, by all failures of a batch together.
    """

    is_repeated = False

    def __init__(self, payloads: Sequence[Any] = (), *, effort: Effort | None = None) -> None:
        super().__init__()
        self.payloads = payloads
        self.effort = Effort() if effort is None else effort


class Runner(Protocol):
    """A function that can be called. All three raise InputError as the author raised it, ModelCodeError for every other
    exception of theirs, and LingpaiError `backend_unavailable` (the queue is full) and `backend_timeout`.
    """

    @property
    def streams(self) -> bool:
        """Whether the function yields its answer piece by piece."""

    def pieces(self, payload: Any, arguments: Mapping[str, Any]) -> AsyncGenerator[Any]:
        """What the function yields, or the one thing it returns. Close the iterator to stop the function.

        A usage that it tells comes out as ``{"text": "", "usage": {…}}``.
        """

    async def value(self, payload: Any, arguments: Mapping[str, Any]) -> Any:
        """What the function returns; of a generator, its strings joined, or the list of what it yields.

        A usage beside it is noted (`told_usage`) and left out.
        """

    async def values(
        self, payloads: Sequence[Any], arguments: Mapping[str, Any], *, field: str | None = None
    ) -> list[Any]:
        """The value of each of `payloads`, in order; together where the function takes batches.

        An InputError that names no parameter gets ``field[3]`` when payload 3 of several was at fault.
        """

    def close(self) -> None:
        """Take no further calls; those in threads are not waited for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """How much a function takes on. `concurrency` None is one thread, or no bound for an asynchronous function."""

    concurrency: int | None = None
    max_queue: int = 256
    timeout_s: float | None = None
    on_overrun: OnOverrun = lambda _name, _seconds: None


class FunctionRunner:
    """Calls one function once per payload (a `Runner`)."""

    def __init__(self, function: Callable[..., Any], *, bounds: Bounds, name: str) -> None:
        self._function = function
        self._name = name
        self._bounds = bounds
        self._generates_in_thread = inspect.isgeneratorfunction(function)
        self._is_async = inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function)
        threads = bounds.concurrency or 1
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix=name)
        size = bounds.concurrency if self._is_async else threads
        self._gate = Gate(size, most_waiting=bounds.max_queue, name=name)

    @property
    def streams(self) -> bool:
        return self._generates_in_thread or inspect.isasyncgenfunction(self._function)

    async def pieces(self, payload: Any, arguments: Mapping[str, Any]) -> AsyncGenerator[Any]:
        turn = await self._turn()
        try:
            result = await self._start(turn, partial(self._function, payload, **arguments))
            if isinstance(result, AsyncIterator):
                async with aclosing(_guarded(result)) as pieces:
                    while (piece := await turn.wait(anext(pieces, _END))) is not _END:
                        yield _told(piece) if isinstance(piece, Usage) else piece
            else:
                value, usage = split_result(result)
                yield value
                if usage is not None:
                    yield _told(usage)
        finally:
            turn.release()

    async def value(self, payload: Any, arguments: Mapping[str, Any]) -> Any:
        value, usage = split_result(await self.result(payload, arguments))
        note(usage)
        return value

    async def values(
        self, payloads: Sequence[Any], arguments: Mapping[str, Any], *, field: str | None = None
    ) -> list[Any]:
        values = []
        for number, payload in enumerate(payloads):
            try:
                values.append(await self.value(payload, arguments))
            except InputError as error:
                raise located(error, field, number, len(payloads)) from error
        return values

    async def result(self, payload: Any, arguments: Mapping[str, Any]) -> Any:
        """As `value`, with the usage beside it where the function told one."""
        turn = await self._turn()
        try:
            result = await self._start(turn, partial(self._function, payload, **arguments))
            if not isinstance(result, AsyncIterator):
                return result
            async with aclosing(_guarded(result)) as pieces:
                return _joined(await turn.wait(_collect(pieces)))
        finally:
            turn.release()

    def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def _turn(self) -> "Turn":
        await self._gate.enter()
        return Turn(self._gate, self._name, self._bounds)

    async def _start(self, turn: "Turn", call: Callable[[], Any]) -> Any:
        """A value, or an asynchronous iterator where the function generates."""
        if self._generates_in_thread:
            return self._generate(turn, call)
        result = _guard(call) if self._is_async else await turn.wait(turn.run(self._threads, call))
        if inspect.isawaitable(result):
            result = await turn.wait(_guard_awaitable(result))
        return self._generate(turn, lambda: result) if inspect.isgenerator(result) else result

    def _generate(self, turn: "Turn", make: Callable[[], Iterable[Any]]) -> AsyncGenerator[Any]:
        return _ThreadStream(make).read(turn, self._threads)


class Turn:
    """One call's place in the gate, held until its code has really ended, and its time-out."""

    __slots__ = ("_began", "_bounds", "_deadline", "_gate", "_holds", "_loop", "_name", "_overrun")

    def __init__(self, gate: Gate, name: str, bounds: Bounds) -> None:
        self._gate, self._name, self._bounds = gate, name, bounds
        self._loop = asyncio.get_running_loop()
        self._began = self._loop.time()
        self._holds = 1
        self._deadline: float | None = None
        self._overrun: asyncio.TimerHandle | None = None
        if bounds.timeout_s is not None:
            self._deadline = self._began + bounds.timeout_s
            patience = bounds.timeout_s + OVERRUN_GRACE_S
            self._overrun = self._loop.call_later(patience, bounds.on_overrun, name, patience)

    async def wait(self, awaitable: Awaitable[Any]) -> Any:
        """The awaitable's result. Raises LingpaiError `backend_timeout` when the call's time is up before."""
        if self._deadline is None:
            return await awaitable
        try:
            async with asyncio.timeout_at(self._deadline):
                return await awaitable
        except TimeoutError:  # of ours: what the author's code raises comes as ModelCodeError
            raise LingpaiError(
                "backend_timeout", f"`{self._name}` did not answer within {self._bounds.timeout_s:g} s."
            ) from None

    def run(self, threads: ThreadPoolExecutor, call: Callable[[], Any]) -> "asyncio.Future[Any]":
        """Run the author's code in a thread, which keeps the place until it is done, whoever has left by then."""
        self._holds += 1
        result: asyncio.Future[Any] = self._loop.create_future()
        job = threads.submit(_guard, call)
        job.add_done_callback(partial(self._tell_loop, result))
        return result

    def release(self) -> None:
        """The caller is done."""
        self._holds -= 1
        if self._holds:
            return
        if self._overrun is not None:
            self._overrun.cancel()
        self._gate.leave(self._loop.time() - self._began)

    def _tell_loop(self, result: "asyncio.Future[Any]", job: Job[Any]) -> None:
        # Place and result in one go: to wake the event loop from a thread is what costs most in a short call.
        with contextlib.suppress(RuntimeError):  # the loop is closed: the process ends
            self._loop.call_soon_threadsafe(self._end, result, job)

    def _end(self, result: "asyncio.Future[Any]", job: Job[Any]) -> None:
        self.release()
        if result.cancelled():
            return
        if job.cancelled():
            result.cancel()
        elif (error := job.exception()) is not None:
            result.set_exception(error)
        else:
            result.set_result(job.result())


class _ThreadStream:
    """Hands what a generator yields in a thread over to the event loop, at most `PIECES_AHEAD` pieces ahead."""

    def __init__(self, make: Callable[[], Iterable[Any]]) -> None:
        self._make = make
        self._loop = asyncio.get_running_loop()
        self._items: asyncio.Queue[Any] = asyncio.Queue()
        self._space = threading.Semaphore(PIECES_AHEAD)
        self._stopped = False

    async def read(self, turn: Turn, threads: ThreadPoolExecutor) -> AsyncGenerator[Any]:
        done = turn.run(threads, self._produce)
        done.add_done_callback(lambda _: self._items.put_nowait(_END))
        try:
            while (item := await self._items.get()) is not _END:
                self._space.release()
                yield item
            await done
        finally:
            self._stopped = True
            self._space.release()
            if not done.cancel() and not done.cancelled():
                done.exception()  # looked at, so that asyncio does not report it as forgotten

    def _produce(self) -> None:
        generator = self._make()
        try:
            for item in generator:
                self._space.acquire()
                if self._stopped:
                    return
                self._loop.call_soon_threadsafe(self._items.put_nowait, item)
        finally:
            if inspect.isgenerator(generator):
                generator.close()


def located(error: InputError, field: str | None, number: int, count: int) -> InputError:
    """`error`, saying which of `count` payloads it is about when it does not name a parameter itself."""
    if error.param is not None or field is None:
        return error
    return InputError(error.message, param=f"{field}[{number}]" if count > 1 else field)


async def _collect(pieces: AsyncIterator[Any]) -> list[Any]:
    return [piece async for piece in pieces]


def _joined(items: list[Any]) -> Any:
    usage = next((item for item in reversed(items) if isinstance(item, Usage)), None)
    values = [item for item in items if not isinstance(item, Usage)]
    value = "".join(values) if all(isinstance(item, str) for item in values) else values
    return value if usage is None else (value, usage)


def _told(usage: Usage) -> dict[str, Any]:
    return {"text": "", "usage": usage_object(usage)}


def _guard(call: Callable[[], Any]) -> Any:
    try:
        return call()
    except InputError:
        raise
    # Everything else an author's code raises ends here, StopIteration and SystemExit too: let through, the first
    # would leave the caller waiting for ever and the second would end the worker.
    except (Exception, SystemExit) as error:
        raise ModelCodeError from error


async def _guard_awaitable(awaitable: Any) -> Any:
    try:
        return await awaitable
    except InputError:
        raise
    except (Exception, SystemExit) as error:
        raise ModelCodeError from error


async def _guarded(source: AsyncIterator[Any]) -> AsyncGenerator[Any]:
    try:
        async for item in source:
            yield item
    except (InputError, ModelCodeError):
        raise
    except (Exception, SystemExit) as error:
        raise ModelCodeError from error
    finally:
        if isinstance(source, AsyncGenerator):
            await source.aclose()
