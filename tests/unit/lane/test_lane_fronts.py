"""All fronts together: who goes when too much waits to be read."""

import pytest

from lingpai.lane import fronts as fronts_module
from lingpai.lane.doorman import Bounds, Doorman
from lingpai.lane.front import Front
from lingpai.lane.fronts import CountingFront, free_memory, front_protocol


class Unread:
    """A connection whose caller leaves some bytes unread."""

    def __init__(self, unsent_bytes):
        self.unsent_bytes = unsent_bytes
        self.transport = self
        self.is_dropped = False

    def abort(self):
        self.is_dropped = True


@pytest.mark.parametrize(
    ("unsent", "dropped"),
    [
        ([300, 300, 300], [False] * 3),
        ([100, 700, 0, 500], [False, True, False, False]),
        ([900, 2000], [False, True]),
    ],
)
def test_those_who_leave_most_unread_go_first_and_no_more_than_needed(monkeypatch, unsent, dropped):
    monkeypatch.setattr(fronts_module, "MAX_UNSENT_BYTES", 1000)
    fronts = [Unread(size) for size in unsent]

    free_memory(fronts)

    assert [front.is_dropped for front in fronts] == dropped


@pytest.mark.parametrize(
    ("calls", "is_local", "base"), [(0, False, Front), (5, False, CountingFront), (5, True, Front)]
)
def test_calls_are_counted_only_where_that_is_asked_for(calls, is_local, base):
    """Counting costs every call a little; the administration socket is never held to a share."""
    doorman = Doorman(Bounds(calls_per_address=calls))

    protocol = front_protocol(None, doorman=doorman, is_local=is_local)

    assert protocol.__bases__ == (base,)
