"""The connection of a command to its server.

`DATA/admin.sock` when it is there (the caller is then the local administrator and needs no key), else LINGPAI_SERVER
with LINGPAI_API_KEY. What goes wrong becomes a `CommandError` with the exit code that design.md §8 fixes.
"""

import os
import ssl
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

import httpx2

from lingpai.cli.failures import FAILED, NOT_SIGNED_IN, REFUSED, CommandError, UsageError
from lingpai.cli.options import Options
from lingpai.client import (
    AddressError,
    APIError,
    AuthenticationError,
    Client,
    ClientError,
    CredentialError,
    PermissionDeniedError,
    ServerUnreachableError,
)
from lingpai.socket_paths import socket_address

SOCKET_NAME = "admin.sock"
_COMMANDS: Final = {
    "GET /v1/models": "lingpai models list",
    "GET /api/v1/users": "lingpai users list",
    "GET /api/v1/keys": "lingpai keys list",
    "GET /api/v1/projects": "lingpai projects list",
    "GET /api/v1/projects/{id}/members": "lingpai projects members list PROJECT",
    "GET /api/v1/clients": "lingpai clients list",
    "GET /api/v1/tokens": "lingpai tokens list",
}


@dataclass(frozen=True, slots=True)
class Place:
    """Where the server is: a socket on this machine, or an address (None: from the environment)."""

    socket: Path | None = None
    server: str | None = None


def data_directory(options: Options) -> Path:
    """`--data`, else LINGPAI_DATA, else ./lingpai-data."""
    return options.data or Path(os.environ.get("LINGPAI_DATA") or "lingpai-data")


def find_place(options: Options) -> Place:
    """Where the command should go. Raises `CommandError` when there is nothing to go to."""
    if options.server is not None:
        if options.data is not None:
            raise UsageError("--data and --server name two servers; give one of them.")
        return Place(server=options.server)
    socket = data_directory(options) / SOCKET_NAME
    if has_socket(socket):
        return Place(socket=socket)
    if options.data is not None:
        raise CommandError(
            f"No server is running on {options.data} (it has no {SOCKET_NAME})."
            f" Start one with `lingpai serve --data {options.data}`."
        )
    if os.environ.get("LINGPAI_SERVER") or os.environ.get("LINGPAI_API_KEY"):
        return Place()
    raise CommandError(
        f"No server is running here ({socket} does not exist). Start one with `lingpai serve`; name the data directory"
        " of one that runs on this machine with --data; or name a server: LINGPAI_SERVER / --server, with your key in"
        " LINGPAI_API_KEY."
    )


@contextmanager
def connect(options: Options, *, is_open: bool = False) -> Iterator[Client]:
    """A client for the command's server; what the client raises inside ends the command with a clear sentence.

    With `is_open` it needs no key: anybody may do what the command does.
    """
    place = find_place(options)
    try:
        with open_client(place, is_open=is_open) as client:
            yield client
    except ClientError as exc:
        raise command_error(exc, place) from exc


def open_client(place: Place, *, is_open: bool = False) -> Client:
    """The client for `place`; with `is_open` without a key. Raises `CommandError` when one is needed and there is none."""
    if place.socket is not None:
        # The caller is known by the socket; a key beside it would only be a second, weaker credential.
        # verify: no TLS on a socket, and loading the certificates takes longer than the call.
        transport = httpx2.HTTPTransport(uds=socket_address(place.socket), verify=False)
        return Client("http://localhost", api_key="", transport=transport)
    if is_open:
        return Client(place.server, api_key="")
    if not os.environ.get("LINGPAI_API_KEY"):
        raise CommandError(
            "Not signed in: LINGPAI_API_KEY is not set. Put your key there"
            " (an administrator makes one with `lingpai keys create NAME`).",
            exit_code=NOT_SIGNED_IN,
        )
    return Client(place.server)


def all_pages(client: Client, path: str, params: Mapping[str, Any] | None = None) -> list[dict[str, Any]]:
    """Every item of a list, page after page."""
    items: list[dict[str, Any]] = []
    query = {name: value for name, value in (params or {}).items() if value is not None}
    while True:
        page = client.request("GET", path, params=query)
        items += page["data"]
        if not page.get("next_cursor"):
            return items
        query["cursor"] = page["next_cursor"]


def segment(name: str) -> str:
    """A name or id as one segment of a path."""
    return quote(name, safe="")


def model_path(model: str) -> str:
    """A model's address in the management API; its id may contain slashes."""
    return f"/api/v1/models/{quote(model, safe='/:@')}"


def command_error(error: ClientError, place: Place) -> CommandError:
    """How `error` ends the command. Where the server's words name a call of the API, ours name the command."""
    words = _in_commands(str(error))
    if isinstance(error, ServerUnreachableError):
        return CommandError(explain_unreachable(error, place))
    if isinstance(error, AuthenticationError | CredentialError):
        return CommandError(f"Not signed in: {words}", exit_code=NOT_SIGNED_IN)
    if isinstance(error, PermissionDeniedError):
        return CommandError(f"Refused: {words}", exit_code=REFUSED)
    if isinstance(error, AddressError):
        return UsageError(str(error))
    return CommandError(f"{words}{_reference(error)}", exit_code=FAILED)


def _in_commands(message: str) -> str:
    for call, command in _COMMANDS.items():
        message = message.replace(f"`{call}` lists", f"`{command}` lists")
    return message


def _reference(error: ClientError) -> str:
    """Where the operator finds the details of a server's fault."""
    request_id = error.request_id if isinstance(error, APIError) and error.status >= 500 else None
    return f" (request id {request_id})" if request_id else ""


def explain_unreachable(error: BaseException, place: Place) -> str:
    """Why there is no answer, and what to do."""
    cause = system_error(error)
    if isinstance(cause, ssl.SSLError):
        return str(error)
    if place.socket is None:
        return f"{error} Start it with `lingpai serve`, or check LINGPAI_SERVER; `lingpai doctor` finds out more."
    if isinstance(cause, PermissionError):
        return _permission_message(place.socket)
    if isinstance(cause, ConnectionRefusedError | FileNotFoundError):
        return (
            f"{place.socket} is there but no server answers: it has stopped."
            f" Start one with `lingpai serve --data {place.socket.parent}`."
        )
    return f"The server at {place.socket} does not answer: {cause or error}"


def system_error(error: BaseException | None) -> OSError | None:
    """The operating system's error that `error` comes from, if any."""
    while error is not None:
        if isinstance(error, OSError):
            return error
        error = error.__cause__ or error.__context__
    return None


def has_socket(path: Path) -> bool:
    """Whether there is a socket at `path`. Raises `CommandError` when the directory may not be looked into."""
    try:
        return stat.S_ISSOCK(path.stat().st_mode)
    except (FileNotFoundError, NotADirectoryError):
        return False
    except PermissionError as exc:
        raise CommandError(_permission_message(path)) from exc


def _permission_message(path: Path) -> str:
    return (
        f"You may not use {path}: it belongs to the user that runs the server."
        " Run the command as that user (`sudo -u USER lingpai …`), or set LINGPAI_SERVER and LINGPAI_API_KEY"
        " and pass --server."
    )
