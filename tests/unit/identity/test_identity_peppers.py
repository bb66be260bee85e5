"""Peppers: made once, private, versioned, never shown."""

import hashlib
import hmac
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from lingpai.identity.peppers import PepperError, Peppers, peppers_from_file, peppers_from_text

HEX = "0123456789abcdef" * 4


def test_hmac_is_hmac_sha256_of_the_whole_token() -> None:
    peppers = Peppers({1: b"p" * 32})

    assert peppers.hmac(b"token", 1) == hmac.new(b"p" * 32, b"token", hashlib.sha256).digest()


def test_newest_version_is_the_highest() -> None:
    peppers = Peppers({2: b"b" * 32, 10: b"c" * 32, 1: b"a" * 32})

    assert peppers.newest_version == 10
    assert 2 in peppers
    assert 3 not in peppers


@pytest.mark.parametrize("by_version", [{}, {1: b""}, {1: b"x" * 31}, {0: b"x" * 32}])
def test_missing_or_short_peppers_are_refused(by_version: dict[int, bytes]) -> None:
    with pytest.raises(PepperError):
        Peppers(by_version)


def test_repr_shows_versions_only() -> None:
    assert repr(Peppers({1: b"canary-" * 5, 2: b"canary-" * 5})) == "Peppers(versions=[1, 2])"


def test_file_is_made_once_and_is_for_its_owner_only(tmp_path: Path) -> None:
    path = tmp_path / "secrets" / "pepper.json"

    first = peppers_from_file(path)
    again = peppers_from_file(path)

    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert [file.name for file in path.parent.iterdir()] == ["pepper.json"]
    assert first.hmac(b"token", 1) == again.hmac(b"token", 1)


def test_two_servers_have_different_peppers(tmp_path: Path) -> None:
    one, other = peppers_from_file(tmp_path / "one.json"), peppers_from_file(tmp_path / "other.json")

    assert one.hmac(b"token", 1) != other.hmac(b"token", 1)


def test_processes_that_start_together_agree_on_one_pepper(tmp_path: Path) -> None:
    path = tmp_path / "pepper.json"

    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(lambda _: peppers_from_file(path).hmac(b"token", 1), range(8)))

    assert len(set(made)) == 1


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o666, 0o620])
def test_file_that_others_can_touch_stops_the_start(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "pepper.json"
    peppers_from_file(path)
    path.chmod(mode)

    with pytest.raises(PepperError, match="chmod 600"):
        peppers_from_file(path)


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[]", b'{"peppers": {"1": "canary"}}', b'{"peppers": {"x": "00"}}', b"\xff", b'{"a": 1}'],
)
def test_damaged_file_stops_the_start_without_being_shown(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "pepper.json"
    path.write_bytes(content)
    path.chmod(0o600)

    with pytest.raises(PepperError, match="damaged") as caught:
        peppers_from_file(path)

    assert "canary" not in str(caught.value)
    assert caught.value.__suppress_context__


def test_text_is_one_pepper_or_several_with_versions() -> None:
    assert peppers_from_text(HEX).newest_version == 1
    assert peppers_from_text(f"1:{HEX},3:{HEX[::-1]}").newest_version == 3
    assert peppers_from_text(f" 2:{HEX} ").hmac(b"t", 2) == Peppers({2: bytes.fromhex(HEX)}).hmac(b"t", 2)


@pytest.mark.parametrize(
    "text", ["", "canary", HEX[:62], f"{HEX}x", f"1:{HEX},1:{HEX}", f"x:{HEX}", f":{HEX}", f"0:{HEX}"]
)
def test_other_texts_are_refused_without_being_shown(text: str) -> None:
    with pytest.raises(PepperError) as caught:
        peppers_from_text(text)

    assert "canary" not in str(caught.value)
    assert HEX[:62] not in str(caught.value)
