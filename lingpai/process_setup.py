"""What a server process stands on: its data folder, its port, its descriptors, its garbage collector."""

import errno
import fcntl
import gc
import os
import shutil
import socket
import tempfile
from pathlib import Path
from typing import Final

from sqlalchemy.exc import OperationalError

from lingpai.lane.doorman import Bounds
from lingpai.lane.server import most_connections, raise_descriptor_limit
from lingpai.settings import ServerSettings

LEAST_ROOM_BYTES: Final = 1024 * 1024
"""With less on the disk, a failure to write there is put down to that."""


class StartError(Exception):
    """The server cannot start. The message says why and what to try."""


def tune_garbage_collection() -> None:
    """Keep what start-up made out of every collection, and collect less often: calls leave no cycles behind (a test says so)."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 50)


def bounds(settings: ServerSettings) -> Bounds:
    """How many connections and calls the lane takes, as far as descriptors allow."""
    return Bounds(
        connections=most_connections(settings.max_connections, raise_descriptor_limit()),
        connections_per_address=settings.max_connections_per_address,
        calls_per_address=settings.max_calls_per_address,
    )


def lock_data(data: Path) -> int:
    """Make the data folder, closed to others, and hold it for this process alone."""
    try:
        data.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(data / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise StartError(
            f"Another server is running on {data}. Stop it, or choose another folder with --data."
        ) from None
    except OSError as error:
        raise StartError(
            f"The data folder {data} cannot be used: {error}. Choose another one with --data."
        ) from error
    return descriptor


def cannot_store(data: Path, error: OSError | OperationalError) -> StartError:
    """What to say when nothing can be stored in the data folder."""
    reason = error.orig if isinstance(error, OperationalError) else error
    left = shutil.disk_usage(data).free
    hint = (
        f"The disk is full ({left} bytes are left): make room" if left < LEAST_ROOM_BYTES else "Look after it"
    )
    return StartError(
        f"The data folder {data} cannot be used: {reason}. {hint}, or choose another folder with --data."
    )


def bind(host: str, port: int) -> socket.socket:
    """A socket bound to the address that callers use. Raises StartError."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        is_taken = error.errno == errno.EADDRINUSE
        advice = (
            "A server is running there already; choose another port with --port."
            if is_taken
            else "Check --host and --port."
        )
        raise StartError(f"Cannot listen on {host}:{port}: {error.strerror or error}. {advice}") from error
    return listener


def temporary_folder() -> "tempfile.TemporaryDirectory[str]":
    """A folder for the workers' sockets, whose path is short. Raises StartError."""
    try:
        return tempfile.TemporaryDirectory(prefix="lingpai-")
    except OSError as error:
        raise StartError(f"No temporary folder can be made: {error}. Is the disk full?") from error
