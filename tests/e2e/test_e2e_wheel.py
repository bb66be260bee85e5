"""The wheel, installed into an empty environment, serves from an empty folder."""

import os
import re
import subprocess
import sys
import time
import venv
from pathlib import Path

import pytest

from tests.e2e.lingpai_server import ROOT, clean_environment
from tests.e2e.raw_http import chat, get, post

PIP = ("-m", "pip", "--disable-pip-version-check", "--quiet")


def run(*command: str, cwd: Path, **options: object) -> str:
    environment = clean_environment()
    environment.pop("PYTHONPATH")
    outcome = subprocess.run(
        command, cwd=cwd, env=environment, capture_output=True, text=True, check=False, **options
    )
    assert outcome.returncode == 0, outcome.stdout + outcome.stderr
    return outcome.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of the working tree, built without network."""
    folder = tmp_path_factory.mktemp("wheel")
    run(
        sys.executable,
        *PIP,
        "wheel",
        "--no-deps",
        "--no-build-isolation",
        "--wheel-dir",
        str(folder),
        str(ROOT),
        cwd=folder,
    )
    (wheel,) = folder.glob("lingpai-*.whl")
    return wheel


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory, wheel: Path) -> Path:
    """An environment with the locked dependencies and the wheel, and nothing else; its bin folder."""
    folder = tmp_path_factory.mktemp("venv")
    venv.create(folder, symlinks=True)
    install = (sys.executable, *PIP, "--python", str(folder / "bin" / "python"), "install", "--no-compile")
    run(*install, "--require-hashes", "-r", str(ROOT / "requirements" / "server.lock"), cwd=folder)
    run(*install, "--no-deps", "--no-index", str(wheel), cwd=folder)
    return folder / "bin"


@pytest.mark.slow
def test_wheel_has_what_it_needs_and_nothing_else(wheel):
    """Migrations, type marker and templates are in it; tests and caches are not."""
    names = run(sys.executable, "-m", "zipfile", "-l", str(wheel), cwd=wheel.parent)

    assert "lingpai/migrations/versions/0001_identity.py" in names
    assert "lingpai/migrations/script.py.mako" in names
    assert "lingpai/py.typed" in names
    for unwanted in ("tests/", "__pycache__", "bench/", ".venv"):
        assert unwanted not in names


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_wheel_serves_from_an_empty_folder(environment, tmp_path):
    """Installed from the wheel, `lingpai serve` starts in an empty folder, answers a call, and stops."""
    run(sys.executable, *PIP, "--python", str(environment / "python"), "check", cwd=tmp_path)
    surroundings = {name: value for name, value in clean_environment().items() if name != "PYTHONPATH"}
    surroundings["PATH"] = f"{environment}{os.pathsep}{surroundings['PATH']}"
    with (tmp_path / "out.txt").open("wb") as out:
        process = subprocess.Popen(
            [str(environment / "lingpai"), "serve", "--port", "0"],
            cwd=tmp_path,
            env=surroundings,
            stdout=out,
            stderr=out,
        )
    try:
        deadline = time.monotonic() + 30
        while "Ctrl-C" not in (text := (tmp_path / "out.txt").read_text()) and time.monotonic() < deadline:
            assert process.poll() is None, text
            time.sleep(0.05)
        port = int(re.search(r"http://127\.0\.0\.1:(\d+)/v1", text)[1])
        key = re.search(r"sk-lp-\w+", text)[0]

        answer = post(port, "/v1/chat/completions", chat(model="lingpai/eliza"), key=key)
        models = get(port, "/v1/models", key=key)
        usage = run(str(environment / "lingpai"), "usage", "--by", "model", "--json", cwd=tmp_path)
    finally:
        process.terminate()

    assert process.wait(20) == 0
    assert answer.status == 200
    assert len(models.json["data"]) == 3
    assert '"lingpai/eliza"' in usage
    assert (tmp_path / "lingpai-data" / "lingpai.db").exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["lingpai-data", "out.txt"]
