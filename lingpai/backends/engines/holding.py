"""Memory of a worker that requests take until they are over, bounded for all of them together."""

import asyncio
import threading
from collections.abc import Callable

from lingpai.errors import LingpaiError


class HeldBytes:
    """What all requests of a worker may hold of something; `refusal` is what they are told when there is no more."""

    def __init__(self, most: int, *, refusal: Callable[[], LingpaiError]) -> None:
        self._free = most
        self._refusal = refusal
        self._lock = threading.Lock()

    def hold(self) -> Callable[[int], None]:
        """A function that takes so many bytes more until the request is over, and raises LingpaiError when there are
        not as many. It may be called in any thread.
        """
        held, is_over = 0, False

        def take(size: int) -> None:
            nonlocal held
            with self._lock:
                # A thread may be done only when its request is over: nobody would give back what it took.
                if is_over or size > self._free:
                    raise self._refusal()
                self._free -= size
                held += size

        def give_back(_: object) -> None:
            nonlocal is_over
            with self._lock:
                is_over = True
                self._free += held

        task = asyncio.current_task()
        if task is not None:
            task.add_done_callback(give_back)  # a request is one task
        return take
