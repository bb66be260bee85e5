"""Unix sockets in folders with long names."""

import os
from pathlib import Path
from typing import Final

LONGEST: Final = 107
"""What fits into the kernel's address of a Unix socket, in bytes (unix(7))."""


def socket_address(path: Path) -> str:
    """A name for `path` that fits into a socket address, however long the folder's name is.

    For a long path the folder stays open as long as this process lives, and the name goes through its descriptor
    (Linux). Raises OSError when the folder cannot be opened.
    """
    if len(os.fsencode(path)) <= LONGEST:
        return str(path)
    folder = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    return f"/proc/self/fd/{folder}/{path.name}"
