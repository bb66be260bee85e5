"""A person at a terminal: the command line behind a pseudo-terminal."""

import os
import pty
import select
import subprocess
import sys
import time
from collections.abc import Mapping

# Ctrl-C on a terminal reaches only the process whose controlling terminal it is, and a shell that runs the tests in the
# background has it ignored.
PROGRAM = """
import fcntl, signal, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
signal.signal(signal.SIGINT, signal.default_int_handler)
from lingpai.cli import main
main()
"""


class Terminal:
    """Starts `lingpai ARGUMENTS…` on a terminal of its own; `wait_for` text, `type` keys, `end` for the exit code."""

    def __init__(self, *arguments: str, environment: Mapping[str, str]) -> None:
        self._master, slave = pty.openpty()
        self.seen = ""
        self._process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, *arguments],
            env={**environment, "TERM": "xterm", "COLUMNS": "120"},
            stdin=slave,
            stdout=slave,
            stderr=slave,
            start_new_session=True,
        )
        os.close(slave)

    def wait_for(self, text: str, timeout: float = 20) -> None:
        """Until `text` has been shown since the last `type`."""
        deadline = time.monotonic() + timeout
        while text not in self.seen:
            if time.monotonic() > deadline or not self._read():
                raise AssertionError(f"{text!r} was not shown; only {self.seen!r}")

    def type(self, keys: str) -> None:
        """Press keys; what was shown before is forgotten."""
        self.seen = ""
        os.write(self._master, keys.encode())

    def end(self, timeout: float = 20) -> int:
        """The exit code."""
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline and self._read():
            pass
        return self._process.wait(timeout=timeout)

    def close(self) -> None:
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()
        os.close(self._master)

    def _read(self) -> bool:
        """Take what is there; False when the other end is closed."""
        ready, _, _ = select.select([self._master], [], [], 0.5)
        if not ready:
            return True
        try:
            piece = os.read(self._master, 65536)
        except OSError:  # EIO: the process has gone
            return False
        self.seen += piece.decode(errors="replace")
        return bool(piece)
