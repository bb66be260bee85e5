"""What the command line hands to the server process, as one argument."""

import os
import sys
from typing import Any, NoReturn

import msgspec


class ServeOptions(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What was typed after `lingpai serve`; what was not is absent."""

    targets: tuple[str, ...] = ()
    config: str | None = None
    data: str | None = None
    reload: bool = False
    server: dict[str, Any] = {}
    """The flags that stand for settings in `[server]`, under the names they have there."""

    def become_server(self) -> NoReturn:
        """Replace this program by the server: the same process id, surroundings, and standard streams."""
        sys.stdout.flush()
        sys.stderr.flush()
        # -P: a module in the folder that the server was started from must not stand in for one of ours
        command = [sys.executable, "-P", "-m", "lingpai.serving", msgspec.json.encode(self).decode()]
        os.execv(sys.executable, command)  # noqa: S606  our own interpreter, no shell


def read_options(argument: str) -> ServeOptions:
    """The options in `argument`. Raises msgspec.MsgspecError for anything that `become_server` does not write."""
    return msgspec.json.decode(argument, type=ServeOptions)
