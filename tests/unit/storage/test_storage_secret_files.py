"""Files with secrets: private, whole, one writer at a time."""

import os
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

from lingpai.storage import secret_files
from lingpai.storage.secret_files import (
    ExposedFileError,
    read_secret_file,
    replace_secret_file,
    sole_writer,
)

HOLD = """
import sys, time
from pathlib import Path
from lingpai.storage.secret_files import sole_writer
with sole_writer(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


def write(path: Path, content: bytes) -> None:
    with sole_writer(path.parent):
        replace_secret_file(path, content)


def test_content_is_replaced_as_a_whole_and_is_the_owners(tmp_path: Path) -> None:
    path = tmp_path / "secrets" / "a.json"
    write(path, b"first, and longer")
    write(path, b"second")

    assert read_secret_file(path) == b"second"
    assert [stat.S_IMODE(each.stat().st_mode) for each in path.parent.iterdir()] == [0o600, 0o600]
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


def test_readers_see_the_old_or_the_new_content_only(tmp_path: Path) -> None:
    """Who reads holds no lock: an open file stays what it was."""
    path = tmp_path / "a.json"
    write(path, b"old")
    with path.open("rb") as reader:
        write(path, b"new")
        assert reader.read() == b"old"

    assert read_secret_file(path) == b"new"


def test_content_is_on_the_disk_before_it_has_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.json"
    steps: list[str] = []
    fsync, rename = os.fsync, Path.rename

    def noted_fsync(descriptor: int) -> None:
        steps.append("folder" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "file")
        fsync(descriptor)

    def noted_rename(source: Path, target: Path) -> Path:
        steps.append("name")
        return rename(source, target)

    monkeypatch.setattr(os, "fsync", noted_fsync)
    monkeypatch.setattr(Path, "rename", noted_rename)
    write(path, b"content")

    assert steps == ["file", "name", "folder"]


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o666, 0o602])
def test_file_of_others_is_refused_with_advice(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "a.json"
    write(path, b"canary")
    path.chmod(mode)

    with pytest.raises(ExposedFileError, match="chmod 600") as caught:
        read_secret_file(path)

    assert "canary" not in str(caught.value)


def test_draft_of_a_killed_writer_is_deleted_by_the_next_one(tmp_path: Path) -> None:
    (tmp_path / "a.json.draft").write_bytes(b"half")
    (tmp_path / "audit.json").write_bytes(b"of somebody else")

    write(tmp_path / "b.json", b"content")

    assert {file.name for file in tmp_path.iterdir()} == {".lock", "audit.json", "b.json"}


def test_writer_waits_for_another_process_and_not_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        holder.stdout.readline()
        monkeypatch.setattr(secret_files, "LOCK_TIMEOUT_S", 0.1)
        with pytest.raises(TimeoutError, match="too long"):
            write(tmp_path / "a.json", b"content")
        holder.kill()
        holder.wait(10)
        write(tmp_path / "a.json", b"content")

    assert read_secret_file(tmp_path / "a.json") == b"content"


def test_lock_is_given_back_when_writing_fails(tmp_path: Path) -> None:
    def fail() -> None:
        with sole_writer(tmp_path):
            raise InterruptedError

    with pytest.raises(InterruptedError):
        fail()
    began = time.monotonic()
    write(tmp_path / "a.json", b"content")

    assert time.monotonic() - began < 5
