"""The commands of the Makefile, as the README tells a newcomer to type them."""

import os
import re
import signal
import subprocess
import time
import urllib.request
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture
def make_serve(tmp_path):
    """`make serve` on a free port with an empty data directory; what it printed until it was ready."""
    output = tmp_path / "output"
    with output.open("wb") as file:
        process = subprocess.Popen(
            ["make", "serve", f"ARGS=--port 0 --data {tmp_path / 'data'}"],
            cwd=ROOT,
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            env={
                name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "LINGPAI"))
            },
        )
    deadline = time.monotonic() + 60
    while "Stop with Ctrl-C" not in output.read_text() and process.poll() is None:
        assert time.monotonic() < deadline, output.read_text()
        time.sleep(0.05)
    yield output.read_text()
    os.killpg(process.pid, signal.SIGINT)
    process.wait(20)


def test_make_serve_serves(make_serve):
    """It prints the address, the models and one key, and the address answers a call with that key."""
    address = re.search(r"http://127\.0\.0\.1:\d+/v1", make_serve)
    key = re.search(r"sk-lp-[0-9A-Za-z]{61}", make_serve)
    assert address is not None, make_serve
    assert key is not None, make_serve
    request = urllib.request.Request(f"{address[0]}/models", headers={"authorization": f"Bearer {key[0]}"})

    with urllib.request.urlopen(request, timeout=10) as answer:
        listed = answer.read().decode()

    assert "lingpai/eliza" in make_serve
    assert "lingpai/eliza" in listed


def test_make_help_lists_every_command():
    """`make` alone says what there is."""
    listed = subprocess.run(["make"], cwd=ROOT, capture_output=True, text=True, check=True).stdout

    commands = re.search(r"^\.PHONY: (.+)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert commands is not None
    assert sorted(re.findall(r"^  make (\S+)", listed, re.MULTILINE)) == sorted(commands[1].split())
