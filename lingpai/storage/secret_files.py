"""Files that hold secrets: for their owner only, on the disk before anybody relies on them, and whole at any moment.

Who writes holds the lock of the folder, so that processes which read, change and write do not lose each other's work.
Who reads needs no lock, because a file is replaced as a whole. A process may be killed between any two steps: the file is
then the old one or the new one, and the next writer deletes a draft that was left.
"""

import fcntl
import os
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

LOCK_NAME: Final = ".lock"
LOCK_TIMEOUT_S: Final = 10.0
_TRY_AGAIN_S: Final = 0.02
_DRAFT: Final = ".draft"


class ExposedFileError(Exception):
    """Others than the owner may read or change the file, so its secret is no secret."""


def read_secret_file(path: Path) -> bytes:
    """The content of `path`. Raises FileNotFoundError, and ExposedFileError when its mode lets others in."""
    with path.open("rb") as file:
        if stat.S_IMODE(os.fstat(file.fileno()).st_mode) & 0o077:
            raise ExposedFileError(
                f"{path} can be read by others, so its secret is no secret. Run: chmod 600 {path}"
            )
        return file.read()


@contextmanager
def sole_writer(folder: Path) -> Iterator[None]:
    """Hold the lock of `folder`, which is made with mode 0700 when it is missing.

    Waits up to ten seconds for another writer, in this process or another one; then raises TimeoutError.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    # A file, not the folder itself: network file systems lock only what is open for writing.
    descriptor = os.open(folder / LOCK_NAME, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        _lock(descriptor, folder)
        for draft in folder.glob(f"*{_DRAFT}"):  # of a writer that was killed
            draft.unlink(missing_ok=True)
        yield
    finally:
        os.close(descriptor)  # which gives the lock back


def replace_secret_file(path: Path, content: bytes) -> None:
    """Make `content` all that `path` holds, with mode 0600. Inside `sole_writer` of its folder only.

    When this returns, the content is on the disk; when it raises, or the process is killed, the file may be either.
    """
    draft = path.with_name(path.name + _DRAFT)
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        draft.rename(path)
    finally:
        draft.unlink(missing_ok=True)
    _sync_folder(path.parent)


def _lock(descriptor: int, folder: Path) -> None:
    deadline = time.monotonic() + LOCK_TIMEOUT_S
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > deadline:
                raise TimeoutError(f"another process has been writing to {folder} for too long") from None
            time.sleep(_TRY_AGAIN_S)
        else:
            return


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
