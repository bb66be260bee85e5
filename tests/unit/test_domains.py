"""What the parts that stand on the database tell each other."""

import time
from types import SimpleNamespace
from typing import Any

import pytest

from lingpai.domains import Domains, _network_of
from lingpai.identity.leaks import Leak
from lingpai.quotas.amounts import Amounts
from lingpai.quotas.limiter import MemoryLimiter, limit_set

KEY = ("key", "k1")


class NoHistory:
    def charged_since(self, *_: Any) -> int:
        return 0

    def charges_since(self, *_: Any) -> list[tuple[float, int]]:
        return []


def test_leak_event_is_about_what_leaked_and_says_what_became_of_it():
    told: list[tuple[Any, ...]] = []
    events = SimpleNamespace(
        emit=lambda type_, message, *, data, subject: told.append((type_, message, data, subject))
    )
    leak = Leak(kind="key", id="k1", what="Key `ci` of `ada`", done="It is disabled.")

    Domains.note_leak(SimpleNamespace(events=events), leak)  # type: ignore[arg-type]

    message = "Key `ci` of `ada` was reported as leaked. It is disabled."
    assert told == [("key.leaked", message, {"kind": "key", "id": "k1"}, KEY)]


def test_leak_event_of_what_is_gone_is_for_the_owner_of_what_is_left():
    told: list[tuple[Any, ...]] = []
    events = SimpleNamespace(emit=lambda *_, data, subject: told.append((data, subject)))
    leak = Leak(kind="access_token", id="t1", what="It", done="It is revoked.", about=("user", "u1"))

    Domains.note_leak(SimpleNamespace(events=events), leak)  # type: ignore[arg-type]

    assert told == [({"kind": "access_token", "id": "t1"}, ("user", "u1"))]


def test_threshold_event_tells_what_is_used_for_good_beside_calls_under_way():
    """What these hold comes back for the most part: 950 of 1000 would not be 80 %."""
    told: list[tuple[int, int]] = []
    events = SimpleNamespace(
        emit_threshold=lambda subject, **data: told.append((data["percent"], data["used"]))
    )
    limiter = MemoryLimiter(NoHistory(), warn_at=(80, 100))
    limiter.on_threshold = lambda *warning: Domains.note_threshold(SimpleNamespace(events=events), *warning)  # type: ignore[arg-type]
    texts = ("1000 tokens/day", "3/day")
    limits = limit_set(limiter.attach(KEY, texts, limiter.read_history(KEY, texts)))
    now, hundred, most = time.time(), Amounts(tokens=100), Amounts(tokens=850)
    limiter.reserve(limits, now, most, most)
    limiter.reserve(limits, now + 0.001, hundred, hundred)

    limiter.settle(limits, now, most, Amounts(tokens=820))
    limiter.settle(limits, now + 0.001, hundred, Amounts(tokens=180))
    limiter.reserve(limits, now + 0.002, Amounts(), Amounts())

    assert told == [(80, 820), (100, 1000), (80, 3), (100, 3)]


@pytest.mark.parametrize(
    ("address", "network"),
    [
        ("203.0.113.7", "203.0.113.7"),
        ("::ffff:203.0.113.7", "203.0.113.7"),
        ("2001:db8:0:1:2:3:4:5", "2001:db8:0:1::/64"),
        ("2001:db8:0:1::9", "2001:db8:0:1::/64"),
        ("127.0.0.1", None),
        ("::1", None),
        ("::ffff:127.0.0.1", None),
        ("", None),
    ],
)
def test_passwords_are_guessed_from_networks_and_this_machine_is_none(
    address: str, network: str | None
) -> None:
    assert _network_of(address) == network
