"""The tours in the documents, done word for word: a server, a shell, an empty folder.

Every ``console`` block is run. A block that begins with `lingpai serve` is the first terminal: the server it starts
replaces the one before. All other commands go to one shell. In what a block shows, `…` stands for any text, and alone on
a line for any lines. The usual port is replaced by a free one.
"""

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
from document_parts import ROOT, shown_commands, split

from tests.secrets_scan import SCAN

PORT = "8741"
START_S = 60
KEY = re.compile(r"sk-lp-[0-9A-Za-z]{61}")
MARK = "the command ended with"

pytestmark = pytest.mark.skipif(
    shutil.which("bash") is None or shutil.which("curl") is None, reason="the tour is made of bash and curl"
)


class Terminal:
    """What both terminals have in common: the folder and the environment."""

    def __init__(self, folder, port):
        self.folder = folder
        self.port = port
        kept = {name: value for name, value in os.environ.items() if not name.startswith("LINGPAI")}
        programs = f"{Path(sys.executable).parent}:{kept['PATH']}"
        self.environment = kept | {
            "PATH": programs,
            "LINGPAI__SERVER__PORT": port,
            "TZ": "UTC",
            "PYTHONUNBUFFERED": "1",
            "LC_ALL": "C.UTF-8",
        }

    def on_our_port(self, text):
        return text.replace(PORT, self.port)


class ServerTerminal(Terminal):
    """The first terminal: one server at a time, ended with Ctrl-C."""

    process = None
    key = None

    def start(self, command):
        self.stop()
        log = self.folder.parent / "server.log"
        with log.open("wb") as file:
            self.process = subprocess.Popen(
                ["bash", "-c", f"exec {self.on_our_port(command.text)}"],
                cwd=self.folder, env=self.environment, stdout=file, stderr=subprocess.STDOUT,
            )  # fmt: skip
        deadline = time.monotonic() + START_S
        while not (is_shown := matches(self.on_our_port("\n".join(command.output)), log.read_text())):
            if time.monotonic() > deadline or self.process.poll() is not None:
                break
            time.sleep(0.05)
        assert is_shown, f"{command.text} printed:\n{log.read_text()}"
        found = KEY.search(log.read_text())
        self.key = found[0] if found else self.key

    def stop(self):
        if self.process is not None:
            self.process.send_signal(signal.SIGINT)
            assert self.process.wait(30) == 0


class Shell(Terminal):
    """The second terminal."""

    def __init__(self, folder, port):
        super().__init__(folder, port)
        self.process = subprocess.Popen(
            ["bash", "--noprofile", "--norc"], cwd=folder, env=self.environment,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, encoding="utf-8",
        )  # fmt: skip

    def run(self, command, key):
        text = self.on_our_port(command.text).replace("sk-lp-…", key or "")
        script = self.folder.parent / "command.sh"
        script.write_text(f"{text}\n", encoding="utf-8")
        self.process.stdin.write(f"source {script} </dev/null\nprintf '\\n%s %s\\n' '{MARK}' $?\n")
        self.process.stdin.flush()
        output, status = self._read()
        assert status == 0, f"{text} failed:\n{output}"
        wanted = self.on_our_port("\n".join(command.output))
        assert matches(wanted, output), f"{text} printed:\n{output}"

    def stop(self):
        self.process.stdin.close()
        self.process.wait(30)
        self.process.stdout.close()

    def _read(self):
        lines = []
        for line in self.process.stdout:
            if line.startswith(MARK):
                return "".join(lines), int(line.removeprefix(MARK))
            lines.append(line)
        raise AssertionError(f"the shell ended: {''.join(lines)}")


def matches(wanted, output):
    """Whether `output` is what a document shows; blanks at the end of lines do not matter."""
    pattern = ""
    for line in wanted.rstrip().split("\n"):
        pattern += "(?:.*\n)*?" if line == "…" else re.escape(line.rstrip()).replace("…", ".*?") + "[ ]*\n"
    return re.fullmatch(pattern, output.rstrip() + "\n") is not None


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return str(probe.getsockname()[1])


@pytest.fixture
def terminals():
    place = Path(tempfile.mkdtemp(prefix="lp-"))  # short, so that the table with it is not folded
    SCAN.take(place)
    folder = place / "tour"
    folder.mkdir()
    port = free_port()
    first, second = ServerTerminal(folder, port), Shell(folder, port)
    yield first, second
    second.stop()
    if first.process is not None and first.process.poll() is None:
        first.process.kill()
        first.process.wait(30)


@pytest.mark.parametrize(
    "document",
    [
        "README.md",
        "docs/guides/audit.md",
        "docs/guides/keys.md",
        "docs/guides/limits.md",
        "docs/guides/serving-functions.md",
        "docs/guides/signing-in.md",
        "docs/guides/tokens.md",
        "docs/guides/usage.md",
    ],
)
def test_a_tour_works_as_it_says(terminals, document):
    server, shell = terminals
    _, fences = split((ROOT / document).read_text(encoding="utf-8"))
    commands = [
        command for fence in fences if fence.language == "console" for command in shown_commands(fence)
    ]
    assert any(command.text.startswith("lingpai serve") for command in commands)
    assert len(commands) > 4

    for command in commands:
        if command.text.startswith("lingpai serve"):
            server.start(command)
        else:
            shell.run(command, server.key)

    server.stop()


def test_a_shown_line_matches_only_what_it_says():
    assert matches("a …\n…\nend", "a b  \nc\nd\nend\n")
    assert matches("", "\n\n")
    assert not matches("a …", "b a\n")
    assert not matches("a", "a\nb")
