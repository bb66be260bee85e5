"""What the command line hands to the server process, as one argument.

In plain JSON: the command line is loaded only to be replaced, so it should load little.
"""

import json
import os
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, NoReturn


@dataclass(frozen=True, slots=True, kw_only=True)
class ServeOptions:
    """What was typed after `lingpai serve`."""

    targets: tuple[str, ...] = ()
    config: str | None = None
    data: str | None = None
    reload: bool = False
    server: Mapping[str, Any] = field(default_factory=dict)
    """The flags that were given and stand for settings in `[server]`, under the names they have there."""

    def become_server(self) -> NoReturn:
        """Replace this program by the server: the same process id, surroundings, and standard streams."""
        sys.stdout.flush()
        sys.stderr.flush()
        # -P: a module in the folder that the server was started from must not stand in for one of ours
        command = [sys.executable, "-P", "-m", "lingpai.serving", json.dumps(asdict(self))]
        os.execv(sys.executable, command)  # noqa: S606  our own interpreter, no shell


def read_options(argument: str) -> ServeOptions:
    """The options in an argument that `become_server` wrote."""
    options = json.loads(argument)
    return ServeOptions(**{**options, "targets": tuple(options.get("targets", ()))})
