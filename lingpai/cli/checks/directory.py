"""Is the data directory closed to others, and does its admin.sock answer."""

import stat
from collections.abc import Iterator
from pathlib import Path

from lingpai.cli.checks.step import Step, failed, ok, skipped
from lingpai.cli.failures import CommandError
from lingpai.cli.server import SOCKET_NAME, Place, explain_unreachable, has_socket, open_client
from lingpai.client import ClientError, ServerUnreachableError


def check_directory(directory: Path) -> Iterator[Step]:
    """The permissions of `directory` and of its secrets, then the socket."""
    try:
        yield _writable(directory)
        yield _secrets(directory / "secrets")
    except PermissionError as exc:
        todo = "Run the command as the user that runs the server."
        yield failed("data directory", f"{exc.filename}: you may not look into it", todo)
        return
    yield check_socket(directory / SOCKET_NAME)


def _writable(directory: Path) -> Step:
    mode = directory.stat().st_mode
    if mode & (stat.S_IWGRP | stat.S_IWOTH):
        detail = f"{directory} can be changed by other users (mode {stat.S_IMODE(mode):04o})"
        return failed("data directory", detail, f"chmod go-w {directory}")
    return ok("data directory", f"{directory}, mode {stat.S_IMODE(mode):04o}")


def _secrets(secrets: Path) -> Step:
    if not secrets.exists():
        return skipped("secrets", "none yet: the server makes them at its first start")
    for path in (secrets, *sorted(secrets.iterdir())):
        mode = stat.S_IMODE(path.stat().st_mode)
        if mode & 0o077:
            detail = f"{path} is open to other users (mode {mode:04o})"
            return failed("secrets", detail, f"chmod {'700' if path is secrets else '600'} {path}")
    return ok("secrets", "only their owner can read them")


def check_socket(path: Path) -> Step:
    """Whether a server answers on `path`."""
    place = Place(socket=path)
    try:
        if not has_socket(path):
            todo = f"Start one: lingpai serve --data {path.parent}"
            return failed("admin.sock", "not there: no server runs on this directory", todo)
        with open_client(place) as client:
            client.request("GET", "/healthz")
    except CommandError as exc:
        return failed("admin.sock", str(exc), "Run the command as the user that runs the server.")
    except ServerUnreachableError as exc:
        return failed(
            "admin.sock", explain_unreachable(exc, place), f"Start one: lingpai serve --data {path.parent}"
        )
    except ClientError as exc:
        return failed("admin.sock", str(exc), "Look at the server's log.")
    mode = stat.S_IMODE(path.stat().st_mode)
    if mode & 0o077:
        return failed("admin.sock", f"it is open to other users (mode {mode:04o})", f"chmod 600 {path}")
    return ok("admin.sock", "a server answers")
