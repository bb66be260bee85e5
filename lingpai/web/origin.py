"""From where a request comes: set at the web's boundary, read by whoever has to write it down."""

import getpass
import os
from collections.abc import MutableMapping
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, Final, Literal

_MOST_CHARACTERS: Final = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """Where a call came from: the network, the admin socket, or a command that works on the data directory itself.

    `address` is None but for the network; `user` is who runs the command, by their name on this machine.
    """

    kind: Literal["network", "socket", "command"]
    address: str | None = None
    user_agent: str | None = None
    user: str | None = None


current_origin: Final[ContextVar[Origin | None]] = ContextVar("lingpai_origin", default=None)
"""Where the request that the running task serves came from; None where there is no request."""


def origin_of(scope: MutableMapping[str, Any]) -> Origin:
    """The origin of an ASGI request."""
    if scope.get("state", {}).get("is_local"):
        return Origin(kind="socket", user_agent=_user_agent(scope))
    client = scope.get("client")
    return Origin(kind="network", address=client[0] if client else None, user_agent=_user_agent(scope))


def command_origin() -> Origin:
    """The origin of what a command does on the data directory itself: by whoever runs it."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # nobody has a name for this user id
        user = str(os.getuid())
    return Origin(kind="command", user=user[:_MOST_CHARACTERS])


def _user_agent(scope: MutableMapping[str, Any]) -> str | None:
    for name, value in scope["headers"]:
        if name == b"user-agent":
            text: str = value.decode("latin-1")
            return text[:_MOST_CHARACTERS]
    return None
