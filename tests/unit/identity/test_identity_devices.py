"""Device cookies: who may have made them, and for whom they count."""

import pytest

from lingpai.identity.passwords.devices import Devices
from lingpai.identity.peppers import Peppers


@pytest.fixture
def devices(peppers: Peppers) -> Devices:
    return Devices(peppers)


def test_device_is_recognised_for_the_user_who_signed_in_on_it_and_no_other(devices: Devices) -> None:
    cookie = devices.issue("alice")

    assert devices.recognise(cookie, "alice")
    assert devices.recognise(cookie, "bob") is None
    assert devices.recognise(cookie, "alic") is None


def test_every_changed_character_makes_it_worthless(devices: Devices) -> None:
    cookie = devices.issue("alice")

    for place, character in enumerate(cookie):
        changed = cookie[:place] + ("x" if character != "x" else "y") + cookie[place + 1 :]
        assert (
            devices.recognise(changed, "alice") is None
            or changed.rpartition(".")[0] == cookie.rpartition(".")[0]
        )


@pytest.mark.parametrize(
    "garbage",
    [
        None,
        "",
        ".",
        "..",
        "1..",
        "1.x.y",
        "9" * 20 + ".x.y",
        "²." + "a" * 22 + ".x",
        "a.b.c.d",
        "1." + "é" * 22 + ".é",
    ],
)
def test_garbage_is_nobodys_device(devices: Devices, garbage: str | None) -> None:
    assert devices.recognise(garbage, "alice") is None


def test_cookie_of_another_server_is_worthless(devices: Devices) -> None:
    other = Devices(Peppers({1: b"q" * 32}))

    assert devices.recognise(other.issue("alice"), "alice") is None


def test_cookie_outlives_a_new_pepper_as_long_as_the_old_one_is_kept() -> None:
    cookie = Devices(Peppers({1: b"p" * 32})).issue("alice")

    assert Devices(Peppers({1: b"p" * 32, 2: b"q" * 32})).recognise(cookie, "alice")
    assert Devices(Peppers({2: b"q" * 32})).recognise(cookie, "alice") is None
