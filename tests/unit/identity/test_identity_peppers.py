"""Peppers: what a stored HMAC is made with. That they are private, durable and versioned is tested in storage."""

import hashlib
import hmac
from pathlib import Path

import pytest

from lingpai.identity.peppers import Peppers

HEX = "0123456789abcdef" * 4


def test_hmac_is_hmac_sha256_of_the_whole_token() -> None:
    peppers = Peppers({1: b"p" * 32})

    assert peppers.hmac(b"token", 1) == hmac.new(b"p" * 32, b"token", hashlib.sha256).digest()


def test_hmac_under_a_version_that_is_not_held_is_a_key_error() -> None:
    with pytest.raises(KeyError):
        Peppers({1: b"p" * 32}).hmac(b"token", 2)


def test_two_servers_have_different_peppers(tmp_path: Path) -> None:
    one, other = Peppers.from_file(tmp_path / "one.json"), Peppers.from_file(tmp_path / "other.json")

    assert one.hmac(b"token", 1) != other.hmac(b"token", 1)


def test_environment_gives_the_same_pepper_to_several_servers() -> None:
    assert Peppers.from_text(HEX).hmac(b"t", 1) == Peppers.from_text(f"2:{HEX[::-1]},1:{HEX}").hmac(b"t", 1)


def test_rotated_pepper_is_used_at_once_by_whoever_holds_the_object(tmp_path: Path) -> None:
    peppers = Peppers.from_file(tmp_path / "pepper.json")
    before = peppers.hmac(b"token", 1)

    peppers.rotate()

    assert peppers.newest_version == 2
    assert peppers.hmac(b"token", 2) != before == peppers.hmac(b"token", 1)
