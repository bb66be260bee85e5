"""Running an author's function, whatever kind it is, as an asynchronous stream of pieces or as one value.

- asynchronous functions and generators run on the event loop; leaving cancels them where they wait
- synchronous ones run in a pool of `concurrency` threads, and further calls queue. A generator stays in one thread
  for its whole life (autograd modes and database connections belong to a thread) and is closed at its next `yield`
  once the caller has left; a plain function that runs already cannot be stopped, so it ends for nobody
"""

import asyncio
import inspect
import threading
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing
from functools import partial
from typing import Any, Final

from lingpai.authoring import InputError

PIECES_AHEAD: Final = 64
"""How far a thread's generator may run ahead of the caller who reads it."""

_END: Final = object()


class ModelCodeError(Exception):
    """The author's code raised something other than InputError; `__cause__` is what."""


class FunctionRunner:
    """Calls one function. `concurrency` bounds the synchronous calls that run at once."""

    def __init__(self, function: Callable[..., Any], *, concurrency: int, name: str) -> None:
        self._function = function
        self._generates_in_thread = inspect.isgeneratorfunction(function)
        self._is_async = inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function)
        self._threads = ThreadPoolExecutor(concurrency, thread_name_prefix=name)

    @property
    def streams(self) -> bool:
        return self._generates_in_thread or inspect.isasyncgenfunction(self._function)

    async def pieces(self, payload: Any, arguments: Mapping[str, Any]) -> AsyncGenerator[Any]:
        """What the function yields, or the one thing it returns. Close the iterator to stop the function.

        Raises InputError as the author raised it and ModelCodeError for every other exception of theirs.
        """
        result = await self._start(payload, arguments)
        if isinstance(result, AsyncIterator):
            async with aclosing(_guarded(result)) as pieces:
                async for piece in pieces:
                    yield piece
        else:
            yield result

    async def value(self, payload: Any, arguments: Mapping[str, Any]) -> Any:
        """What the function returns; of a generator, its strings joined, or the list of what it yields."""
        result = await self._start(payload, arguments)
        if not isinstance(result, AsyncIterator):
            return result
        async with aclosing(_guarded(result)) as pieces:
            items = [piece async for piece in pieces]
        return "".join(items) if all(isinstance(item, str) for item in items) else items

    def close(self) -> None:
        """Take no further calls; those in threads are not waited for."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def _start(self, payload: Any, arguments: Mapping[str, Any]) -> Any:
        """A value, or an asynchronous iterator where the function generates."""
        call = partial(self._function, payload, **arguments)
        if self._generates_in_thread:
            return self._generate(call)
        if self._is_async:
            result = _guard(call)
        else:
            result = await asyncio.get_running_loop().run_in_executor(self._threads, _guard, call)
        if inspect.isawaitable(result):
            result = await _guard_awaitable(result)
        return self._generate(lambda: result) if inspect.isgenerator(result) else result

    def _generate(self, make: Callable[[], Iterable[Any]]) -> AsyncGenerator[Any]:
        return _ThreadStream(make).read(self._threads)


class _ThreadStream:
    """Hands what a generator yields in a thread over to the event loop, at most `PIECES_AHEAD` pieces ahead."""

    def __init__(self, make: Callable[[], Iterable[Any]]) -> None:
        self._make = make
        self._loop = asyncio.get_running_loop()
        self._items: asyncio.Queue[Any] = asyncio.Queue()
        self._space = threading.Semaphore(PIECES_AHEAD)
        self._stopped = False

    async def read(self, threads: ThreadPoolExecutor) -> AsyncGenerator[Any]:
        done = self._loop.run_in_executor(threads, _guard, self._produce)
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
