"""Numbered secrets: made once, private, replaced and taken away without a moment in which something is lost."""

import json
import logging
import os
import stat
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, ClassVar

import pytest

from lingpai.storage.versioned_secrets import FixedSecretsError, SecretError, SecretKind, VersionedSecrets

HEX = "0123456789abcdef" * 4
FILES = [".lock", "key.json"]


class Keys(VersionedSecrets):
    kind: ClassVar = SecretKind(name="key", field="keys", variable="LINGPAI_KEY", loss="nothing works")
    __slots__ = ()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "secrets" / "key.json"


def values(secrets: VersionedSecrets) -> dict[int, bytes]:
    return {version: secrets.value(version) for version in secrets.versions()}


# -- what there is


def test_a_file_with_another_secret_of_the_same_number_is_refused(path: Path) -> None:
    filed = Keys.from_file(path).value(1).hex()

    Keys.from_text(f"1:{filed}").refuse_other_file(path)
    Keys.from_text(f"2:{HEX}").refuse_other_file(path)
    Keys.from_text(f"1:{HEX}").refuse_other_file(path.with_name("missing.json"))
    with pytest.raises(SecretError, match=r"LINGPAI_KEY has another key 1 than .*key\.json") as caught:
        Keys.from_text(HEX).refuse_other_file(path)

    assert filed not in str(caught.value)
    assert HEX not in str(caught.value)


def test_a_file_that_is_no_use_says_nothing_against_the_environment(path: Path) -> None:
    Keys.from_file(path)
    path.chmod(0o644)

    Keys.from_text(HEX).refuse_other_file(path)


def test_newest_version_is_the_highest() -> None:
    secrets = Keys({2: b"b" * 32, 10: b"c" * 32, 1: b"a" * 32})

    assert secrets.newest_version == 10
    assert 2 in secrets
    assert 3 not in secrets


@pytest.mark.parametrize(
    "by_version", [{}, {1: b""}, {1: b"x" * 31}, {0: b"x" * 32}, {-1: b"x" * 32}, {1_000_000: b"x" * 32}]
)
def test_missing_or_short_secrets_are_refused(by_version: dict[int, bytes]) -> None:
    with pytest.raises(SecretError):
        Keys(by_version)


def test_repr_shows_versions_only(path: Path) -> None:
    secrets = Keys.from_file(path)

    assert repr(Keys({1: b"canary-" * 5, 2: b"canary-" * 5})) == "Keys(versions=[1, 2])"
    assert secrets.value(1).hex() not in repr(secrets) + repr(secrets._held)


# -- the file


def test_file_is_made_once_and_is_for_its_owner_only(path: Path) -> None:
    first = Keys.from_file(path)
    again = Keys.from_file(path)

    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert sorted(file.name for file in path.parent.iterdir()) == FILES
    assert first.value(1) == again.value(1)
    assert len(first.value(1)) == 32


def test_file_stays_for_its_owner_only_when_it_is_rotated(path: Path) -> None:
    old = os.umask(0)
    try:
        Keys.from_file(path).rotate()
    finally:
        os.umask(old)

    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


def test_release_before_reads_a_rotated_file(path: Path) -> None:
    """It looks at the versions alone."""
    secrets = Keys.from_file(path)
    secrets.rotate()

    assert {
        int(version): bytes.fromhex(text) for version, text in json.loads(path.read_bytes())["keys"].items()
    } == values(secrets)


def test_file_of_the_release_before_knows_no_times(path: Path) -> None:
    path.parent.mkdir()
    path.write_text(json.dumps({"keys": {"1": HEX}}))
    path.chmod(0o600)
    secrets = Keys.from_file(path, clock=lambda: 1000.0)

    secrets.rotate()

    assert secrets.versions() == {1: None, 2: 1000.0}
    assert secrets.value(1) == bytes.fromhex(HEX)


def test_threads_that_start_together_agree_on_one_secret(path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(lambda _: Keys.from_file(path).value(1), range(8)))

    assert len(set(made)) == 1


_PROCESS = """
import sys
sys.path.insert(0, {tests!r})
from pathlib import Path
from test_storage_versioned_secrets import Keys
path = Path({path!r})
sys.stdin.read(1)
keys = Keys.from_file(path)
{work}
"""


def start(path: Path, work: str) -> "subprocess.Popen[str]":
    """A process that waits for a line on stdin and then works on the file."""
    code = _PROCESS.format(tests=str(Path(__file__).parent), path=str(path), work=work)
    return subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )


def go(processes: "list[subprocess.Popen[str]]") -> None:
    """Let all of them work at the same time."""
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("x")
        process.stdin.flush()


def test_processes_that_start_together_agree_on_one_secret(path: Path) -> None:
    processes = [start(path, "print(keys.value(1).hex())") for _ in range(4)]

    go(processes)
    said = {process.communicate(timeout=60)[0] for process in processes}

    assert said == {f"{Keys.from_file(path).value(1).hex()}\n"}


def test_processes_that_rotate_together_lose_no_version(path: Path) -> None:
    processes = [start(path, "for _ in range(5): keys.rotate()") for _ in range(3)]

    go(processes)
    for process in processes:
        process.communicate(timeout=60)

    assert list(Keys.from_file(path).versions()) == list(range(1, 17))
    assert len(set(values(Keys.from_file(path)).values())) == 16


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o666, 0o620])
def test_file_that_others_can_touch_is_refused(path: Path, mode: int) -> None:
    Keys.from_file(path)
    path.chmod(mode)

    with pytest.raises(SecretError, match="chmod 600"):
        Keys.from_file(path)


@pytest.mark.parametrize(
    "content",
    [
        b"", b"{", b"[]", b"1", b'{"keys": {"1": "canary"}}', b'{"keys": {"x": "00"}}', b"\xff", b'{"a": 1}',
        b'{"keys": {"1": "00"}}', b'{"keys": {}}', b'{"keys": {"0": "%s"}}' % HEX.encode(),
        b'{"keys": {"1": "%s"}, "created_at": {"1": "canary"}}' % HEX.encode(),
    ],
)  # fmt: skip
def test_damaged_file_is_refused_without_being_shown(path: Path, content: bytes) -> None:
    path.parent.mkdir()
    path.write_bytes(content)
    path.chmod(0o600)

    with pytest.raises(SecretError, match=r"damaged.*nothing works") as caught:
        Keys.from_file(path)

    assert "canary" not in str(caught.value)
    assert caught.value.__suppress_context__


# -- the environment


def test_text_is_one_secret_or_several_with_versions() -> None:
    assert Keys.from_text(HEX).newest_version == 1
    assert Keys.from_text(f"1:{HEX},3:{HEX[::-1]}").newest_version == 3
    assert Keys.from_text(f" 2:{HEX} ").value(2) == bytes.fromhex(HEX)


def test_marked_version_stays_in_use_while_servers_learn_of_the_next() -> None:
    staged = Keys.from_text(f"3:{HEX[::-1]},*1:{HEX}")

    assert staged.newest_version == 1
    assert 3 in staged


@pytest.mark.parametrize(
    "text",
    [
        f"*1:{HEX},*2:{HEX}",
        f"1*:{HEX}",
        f"**{HEX}",
        "*",
        "",
        "canary",
        HEX[:62],
        f"{HEX}x",
        f"1:{HEX},1:{HEX}",
        f"x:{HEX}",
        f":{HEX}",
        f"0:{HEX}",
    ],
)
def test_other_texts_are_refused_without_being_shown(text: str) -> None:
    with pytest.raises(SecretError) as caught:
        Keys.from_text(text)

    assert "canary" not in str(caught.value)
    assert HEX[:62] not in str(caught.value)


def test_secrets_of_the_environment_cannot_be_changed_but_say_how() -> None:
    secrets = Keys.from_text(f"1:{HEX},4:{HEX[::-1]}")

    with pytest.raises(FixedSecretsError, match=r"LINGPAI_KEY=5:NEW,1:OLD,\*4:OLD"):
        secrets.rotate()
    with pytest.raises(FixedSecretsError, match="out of it and restart"):
        secrets.retire(1)

    assert secrets.is_fixed
    assert not secrets.learn(5)
    assert secrets.place == "LINGPAI_KEY"


# -- rotating and retiring


def test_rotating_adds_a_version_and_keeps_the_others(path: Path) -> None:
    secrets = Keys.from_file(path, clock=iter([100.0, 200.0]).__next__)
    before = values(secrets)

    version = secrets.rotate()

    assert version == secrets.newest_version == 2
    assert values(Keys.from_file(path)) == values(secrets) == {**before, 2: secrets.value(2)}
    assert secrets.versions() == {1: 100.0, 2: 200.0}


def test_retired_version_is_gone_from_memory_and_disk(path: Path) -> None:
    secrets = Keys.from_file(path)
    secrets.rotate()
    retired = secrets.value(1).hex()

    secrets.retire(1)

    assert 1 not in secrets
    assert retired not in path.read_text()
    assert list(Keys.from_file(path).versions()) == [2]


def test_newest_and_unknown_versions_cannot_be_retired(path: Path) -> None:
    secrets = Keys.from_file(path)

    with pytest.raises(ValueError, match="newest"):
        secrets.retire(1)
    with pytest.raises(KeyError):
        secrets.retire(7)

    assert list(Keys.from_file(path).versions()) == [1]


def test_number_of_a_retired_version_is_not_used_again(path: Path) -> None:
    secrets = Keys.from_file(path)
    secrets.rotate()
    secrets.retire(1)

    assert secrets.rotate() == 3


def test_failing_disk_changes_nothing(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    secrets = Keys.from_file(path)
    before = path.read_bytes()

    def fail(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="No space"):
        secrets.rotate()

    assert secrets.newest_version == 1
    assert path.read_bytes() == before
    assert sorted(file.name for file in path.parent.iterdir()) == FILES


# -- another process changes the file


def test_version_of_another_process_is_learned_when_it_is_met(path: Path) -> None:
    mine, others = Keys.from_file(path), Keys.from_file(path)
    others.rotate()

    assert 2 not in mine
    assert mine.learn(2)
    assert mine.value(2) == others.value(2)
    assert mine.newest_version == 2


def test_unknown_version_costs_one_look_and_is_refused(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    secrets = Keys.from_file(path)
    reads: list[int] = []
    monkeypatch.setattr(Keys, "_read", lambda _: reads.append(1))

    assert not any(secrets.learn(9) for _ in range(100))
    assert reads == []


def test_file_that_becomes_unusable_changes_nothing_and_is_told_once(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    secrets = Keys.from_file(path)
    path.write_text("canary")

    assert not any(secrets.reread() for _ in range(3))
    path.unlink()
    assert not any(secrets.reread() for _ in range(3))

    assert secrets.newest_version == 1
    assert len(caplog.records) == 2
    assert "what was read before stays" in caplog.text
    assert "canary" not in caplog.text


def test_version_that_another_process_retired_goes(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    mine, others = Keys.from_file(path), Keys.from_file(path)
    others.rotate()
    mine.reread()
    others.retire(1)

    with caplog.at_level(logging.INFO):
        assert mine.reread()

    assert list(mine.versions()) == [2]
    assert "now has the versions 2" in caplog.text


# -- kill -9 between any two steps


_KILLED = """
import os, pathlib, signal
left = {steps}
def counted(function):
    def step(*arguments, **options):
        global left
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        left -= 1
        return function(*arguments, **options)
    return step
for place, name in ((os, "open"), (os, "fsync"), (os, "close"), (os, "fdopen"), (pathlib.Path, "rename"),
                    (pathlib.Path, "unlink"), (pathlib.Path, "mkdir")):
    setattr(place, name, counted(getattr(place, name)))
{work}
os._exit(0)
"""


def killed_at_every_step(path: Path, work: str, prepare: Any) -> Iterator[int]:
    """Run `work` in processes that are killed before their first, second, … system call, until one gets to the end."""
    for steps in range(60):
        for file in path.parent.glob("*"):
            file.unlink()
        prepare()
        process = start(path, _KILLED.format(steps=steps, work=work))
        process.communicate("x", timeout=60)
        yield steps
        if process.returncode == 0:
            assert steps > 5, "hardly any step was seen"
            return
        assert process.returncode == -9
    raise AssertionError("it never got to the end")


def test_rotation_killed_at_any_step_loses_nothing(path: Path) -> None:
    for steps in killed_at_every_step(path, "keys.rotate()", lambda: Keys.from_file(path)):
        found = Keys.from_file(path)

        assert list(found.versions()) in ([1], [1, 2]), steps
        assert found.rotate() == len(found.versions())
        assert sorted(file.name for file in path.parent.iterdir()) == FILES


def test_retirement_killed_at_any_step_loses_nothing(path: Path) -> None:
    for steps in killed_at_every_step(path, "keys.retire(1)", lambda: Keys.from_file(path).rotate()):
        found = Keys.from_file(path)

        assert list(found.versions()) in ([1, 2], [2]), steps
        assert found.rotate() == 3


def test_making_killed_at_any_step_can_be_done_again(path: Path) -> None:
    work = "path.unlink(); Keys.from_file(path)"
    for _ in killed_at_every_step(path, work, lambda: Keys.from_file(path)):
        assert list(Keys.from_file(path).versions()) == [1]
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
