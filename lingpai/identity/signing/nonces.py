"""Nonces of one server, kept through kill -9: appended to files in the data folder, and read again at start.

One `write` per nonce, before the call goes on: from then on the kernel has it, whatever becomes of this process. A file
takes the nonces of a few minutes, and is deleted when none of them could be used again. What a power failure takes with
it are nonces of the last seconds; the machine's own start takes longer than most signatures live.
"""

import logging
import os
import struct
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final

from lingpai.errors import LingpaiError
from lingpai.identity.signing.nonce_memory import FINGERPRINT_BYTES, Answer, NonceMemory, fingerprint

log = logging.getLogger("lingpai.identity")

MAGIC: Final = b"LPNONCE1"
_RECORD: Final = struct.Struct(f">{FINGERPRINT_BYTES}sI")  # the fingerprint, and until when it counts
_CHECK: Final = struct.Struct(">I")  # CRC-32 of both
RECORD_BYTES: Final = _RECORD.size + _CHECK.size
_FILE_S: Final = 300.0
_WINDOW_S: Final = 300.0
_SUFFIX: Final = ".nonces"


class FileNonceStore:
    """The nonces of one server. Belongs to the event loop."""

    def __init__(
        self,
        folder: Path,
        *,
        most: int = 1_000_000,
        most_per_user: int = 250_000,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Read what `folder` holds; it is made when the first nonce comes. Raises OSError when it cannot be read."""
        self._folder = folder
        self._memory = NonceMemory(most=most, most_per_user=most_per_user)
        self._clock = clock
        self._descriptor: int | None = None
        self._size = 0
        self._ends_at = 0.0
        self._path = folder
        self._files: dict[Path, float] = {}
        """Each file with the time from which on it is worth nothing."""
        self._read_all()

    def __len__(self) -> int:
        return len(self._memory)

    async def claim(self, key_id: str, nonce: str, *, user_id: str, until: float, now: float) -> None:
        """Take a nonce; see `NonceStore`. Nothing is awaited, so nobody comes between asking and taking."""
        self._memory.forget(now)
        mark = fingerprint(key_id, nonce)
        answer = self._memory.ask(user_id, mark, until)
        if answer != "new":
            raise _refusal(answer)
        try:
            self._append(mark, until, now)
        except OSError as error:
            log.exception("a nonce could not be written")
            raise LingpaiError(
                "storage_unavailable",
                "Signed requests cannot be accepted now, because their nonces cannot be written (is the disk full?). "
                "Tell the operator.",
                headers={"retry-after": "5"},
            ) from error
        self._memory.add(user_id, mark, until)

    def sweep(self) -> None:
        """Let go of nonces and files that are over. Call it once a minute or so."""
        now = self._clock()
        self._memory.forget(now)
        if self._descriptor is not None and now >= self._ends_at:
            self._end_file()
        for path in [path for path, over_at in self._files.items() if over_at <= now and path != self._path]:
            del self._files[path]
            with suppress(OSError):  # it will be deleted at the next start
                path.unlink()

    def close(self) -> None:
        """Close the file; the nonces in it count after the next start, too."""
        if self._descriptor is not None:
            self._end_file()

    # -- writing

    def _append(self, mark: int, until: float, now: float) -> None:
        if self._descriptor is None or now >= self._ends_at:
            self._begin_file(now)
        record = _RECORD.pack(mark.to_bytes(FINGERPRINT_BYTES), int(until) + 1)
        self._write((b"" if self._size else MAGIC) + record + _CHECK.pack(zlib.crc32(record)))
        self._files[self._path] = max(self._files[self._path], until + 1)

    def _begin_file(self, now: float) -> None:
        self.close()
        self._folder.mkdir(mode=0o700, exist_ok=True)
        path = self._folder / f"{time.time_ns()}-{os.getpid()}{_SUFFIX}"
        self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        self._path, self._size, self._ends_at = path, 0, now + _FILE_S
        self._files[path] = now

    def _end_file(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
        self._descriptor, self._path = None, self._folder

    def _write(self, data: bytes) -> None:
        """All of `data`; what was torn off by a full disk is written over by the next record."""
        if self._descriptor is None:
            raise TypeError("no file is open")
        written = os.pwrite(self._descriptor, data, self._size)
        if written != len(data):
            raise OSError(f"{written} of {len(data)} bytes could be written")
        self._size += written

    # -- reading, at start

    def _read_all(self) -> None:
        now = self._clock()
        paths = sorted(self._folder.glob(f"*{_SUFFIX}")) if self._folder.is_dir() else []
        for path in paths:
            latest = now
            for mark, until in self._read(path, now):
                if until > now:
                    latest = max(latest, until)
                    self._memory.add("", mark, until)
            self._files[path] = latest
        self.sweep()

    def _read(self, path: Path, now: float) -> Iterator[tuple[int, float]]:
        data = path.read_bytes()
        whole = (
            len(data) - (len(data) - len(MAGIC)) % RECORD_BYTES
        )  # what is torn off at the end was never accepted
        is_damaged = len(data) >= len(MAGIC) and not data.startswith(MAGIC)
        for start in range(len(MAGIC), whole, RECORD_BYTES):
            record = data[start : start + _RECORD.size]
            (check,) = _CHECK.unpack_from(data, start + _RECORD.size)
            if check != zlib.crc32(record):
                is_damaged = True
                continue
            mark, until = _RECORD.unpack(record)
            yield int.from_bytes(mark), float(until)
        if is_damaged:
            # Nobody knows which nonces it held, so none that were signed until now can be told from used ones.
            log.warning("%s is damaged: signatures made before this start are refused", path)
            self._memory.forgotten_until = max(self._memory.forgotten_until, now + _WINDOW_S)


def _refusal(answer: Answer) -> LingpaiError:
    if answer == "used":
        return LingpaiError(
            "signature_invalid",
            "The nonce of the signature was used before. Sign every request, and every attempt, with a new random nonce.",
            param="nonce",
        )
    if answer == "forgotten":
        return LingpaiError(
            "signature_invalid",
            "The signature is so old that its nonce cannot be told from a used one. Sign again.",
            param="created",
        )
    whose = "this user" if answer == "full_for_user" else "all users together"
    return LingpaiError(
        "server_busy",
        f"As many nonces of {whose} are remembered as may be (`signing.max_nonces`, `signing.max_nonces_per_user`). "
        "They are for as long as their signatures could be used: a short `expires` makes that shorter.",
        headers={"retry-after": "10"},
    )
