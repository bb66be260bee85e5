"""argon2id (RFC 9106) in a few threads with a short queue: never on the event loop, and within a bound of memory.

At most `password_threads` × `password_memory_kib` are in use at a time, 38 MiB with the defaults, and given back to the
system after each password.
"""

import ctypes
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Final, TypeVar

from lingpai.errors import LingpaiError
from lingpai.identity.settings import IdentitySettings

if TYPE_CHECKING:
    from argon2 import PasswordHasher

T = TypeVar("T")

_M_MMAP_THRESHOLD: Final = -3  # mallopt(3)
_LARGE_BLOCK_BYTES: Final = 8 * 1024 * 1024
SALT_BYTES: Final = 16
TAG_BYTES: Final = 32


class HashingPool:
    """Hashes passwords and compares them with hashes. May be shared by threads."""

    def __init__(self, settings: IdentitySettings) -> None:
        self._settings = settings
        self._threads = ThreadPoolExecutor(settings.password_threads, thread_name_prefix="lingpai-passwords")
        self._room = threading.Semaphore(settings.password_threads + settings.password_queue)
        self._made: PasswordHasher | None = None

    def hash(self, password: bytes) -> "Future[str]":
        """The hash of `password` in PHC form, salted. Raises LingpaiError (server_busy) when too many wait already."""
        return self._run(lambda: self._hasher().hash(password))

    def is_right(self, stored: str, password: bytes) -> "Future[bool]":
        """Whether `password` is the one that was hashed to `stored`. Raises LingpaiError (server_busy)."""
        return self._run(lambda: self._matches(stored, password))

    def is_outdated(self, stored: str) -> bool:
        """Whether `stored` was made with other parameters than those of the settings."""
        return self._hasher().check_needs_rehash(stored)

    def close(self) -> None:
        """Let go of the threads."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _run(self, work: Callable[[], T]) -> "Future[T]":
        if not self._room.acquire(blocking=False):
            raise LingpaiError(
                "server_busy",
                "Too many people are signing in at this moment. Try again in 2 s.",
                headers={"retry-after": "2"},
            )
        future = self._threads.submit(work)
        future.add_done_callback(lambda _: self._room.release())
        return future

    def _matches(self, stored: str, password: bytes) -> bool:
        from argon2.exceptions import InvalidHashError, VerificationError  # noqa: PLC0415  see `_hasher`

        try:
            return self._hasher().verify(stored, password)
        except (VerificationError, InvalidHashError):
            return False

    def _hasher(self) -> "PasswordHasher":
        # Late: argon2 brings cffi along, and most servers run for days before anybody types a password.
        from argon2 import PasswordHasher  # noqa: PLC0415

        if self._made is None:
            _give_large_blocks_back()
            self._made = PasswordHasher(
                time_cost=self._settings.password_passes,
                memory_cost=self._settings.password_memory_kib,
                parallelism=self._settings.password_lanes,
                hash_len=TAG_BYTES,
                salt_len=SALT_BYTES,
            )
        return self._made


def _give_large_blocks_back() -> None:
    """Tell glibc to map blocks of this size one by one, and to unmap them when they are freed.

    By itself it learns from the first such block to keep the next ones: 38 MiB for ever, after a handful of sign-ins.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:  # other C libraries have none
        mallopt(_M_MMAP_THRESHOLD, _LARGE_BLOCK_BYTES)
