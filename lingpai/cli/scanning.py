"""Looks for credentials in files. Exact, because each has a checksum; and quiet, because no credential leaves this file."""

import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from mmap import ACCESS_READ, mmap
from pathlib import Path
from typing import Final

from lingpai.ids import ID_LENGTH, find_credentials

_KINDS: Final = {
    "sk-lp-": "API key",
    "at-lp-": "access token",
    "rt-lp-": "refresh token",
    "cs-lp-": "client secret",
    "ss-lp-": "session",
    "in-lp-": "invitation",
    "sg-lp-": "signing secret",
}
_PREFIX_LENGTH: Final = 6


@dataclass(frozen=True, slots=True)
class Found:
    """A credential in a file, without the credential: its kind, public id, and a hint as lists of keys show it."""

    path: Path
    line: int
    kind: str
    id: str
    hint: str


def scan_paths(paths: Iterable[Path], *, on_unreadable: Callable[[Path, str], None]) -> Iterator[Found]:
    """The credentials in files, and in all files below folders, in the order of their names.

    Links below a folder are not followed; what is no file (a socket, a device) is passed over. `on_unreadable` is told of
    what cannot be read, and why.
    """
    for path in paths:
        for file in _files(path, on_unreadable):
            try:
                yield from _scan_file(file)
            except OSError as error:
                on_unreadable(file, error.strerror or str(error))


def _files(path: Path, on_unreadable: Callable[[Path, str], None]) -> Iterator[Path]:
    if not path.is_dir():
        yield path
        return

    def complain(error: OSError) -> None:
        on_unreadable(Path(error.filename), error.strerror or str(error))

    for folder, folders, names in os.walk(path, onerror=complain):
        folders.sort()
        for name in sorted(names):
            file = Path(folder, name)
            if file.is_file() and not file.is_symlink():
                yield file


def _scan_file(path: Path) -> Iterator[Found]:
    with path.open("rb") as file:
        if os.fstat(file.fileno()).st_size == 0:
            return  # nothing that could be mapped
        with mmap(file.fileno(), 0, access=ACCESS_READ) as content:
            line, seen = 1, 0
            for start, token in find_credentials(content):
                line += content[seen:start].count(b"\n")
                seen = start
                yield _found(path, line, token.decode())


def _found(path: Path, line: int, token: str) -> Found:
    public_id = token[_PREFIX_LENGTH : _PREFIX_LENGTH + ID_LENGTH]
    prefix = token[:_PREFIX_LENGTH]
    return Found(path, line, _KINDS[prefix], public_id, f"{prefix}…{token[-4:]}")
