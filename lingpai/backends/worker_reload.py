"""Notices that source files have changed, by looking: no library, and it works on every file system."""

import asyncio
import contextlib
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Final

LOOK_EVERY_S: Final = 0.3

Stamps = dict[str, tuple[int, int, int]]


class SourceWatch:
    """Watches what `files` names at any time. A file counts as seen in the state it has when it is first named."""

    def __init__(self, files: Callable[[], Iterable[str]]) -> None:
        self._files = files
        self._seen = stamps(files())

    async def changed(self) -> list[str]:
        """Wait until some files are other than last seen, and no longer change: editors write in several steps."""
        before: Stamps = {}
        while True:
            await asyncio.sleep(LOOK_EVERY_S)
            now = stamps(self._files())
            changed = sorted(file for file, stamp in now.items() if self._seen.get(file, stamp) != stamp)
            if changed and now == before:
                self._seen |= now
                return changed
            self._seen = now | self._seen
            before = now


def stamps(files: Iterable[str]) -> Stamps:
    """What tells one version of a file from another; files that are not there are left out."""
    found: Stamps = {}
    for file in files:
        with contextlib.suppress(OSError):
            status = Path(file).stat()
            found[file] = (status.st_mtime_ns, status.st_size, status.st_ino)
    return found
