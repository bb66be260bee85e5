"""Small files that must be whole and on the disk, and readable by their owner only."""

import os
import secrets
from pathlib import Path


def create_durably(path: Path, content: bytes) -> None:
    """Make a file with mode 0600, and its folder with 0700; leave one that is there as it is."""
    draft = _draft(path, content)
    try:
        os.link(draft, path)  # unlike a rename, this does not replace what another process made meanwhile
    except FileExistsError:
        return
    finally:
        draft.unlink(missing_ok=True)
    sync_folder(path.parent)


def replace_durably(path: Path, content: bytes) -> None:
    """Write a file with mode 0600, in the place of one that is there: readers see all of the old one or of the new one."""
    draft = _draft(path, content)
    try:
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Force to the disk which files a folder has."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _draft(path: Path, content: bytes) -> Path:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    draft = path.with_name(f"{path.name}.{os.getpid()}.{secrets.token_hex(4)}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
    except BaseException:
        draft.unlink(missing_ok=True)
        raise
    return draft
