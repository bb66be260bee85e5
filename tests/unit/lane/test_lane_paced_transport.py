"""What TLS cannot pass on waits where it can be seen, in order, and is not lost when the connection is closed."""

import asyncio

import pytest

from lingpai.lane import paced_transport
from lingpai.lane.paced_transport import PIECE_BYTES, PacedTransport


class Inner(asyncio.Transport):
    """A TLS transport with room for so many bytes, which tells its protocol when there is none."""

    def __init__(self, room):
        super().__init__()
        self.room, self.sent, self.paced = room, b"", None
        self.is_closed = self.is_aborted = False
        self.is_read = True

    def set_write_buffer_limits(self, high=None, low=None):
        self.limits = high, low

    def write(self, data):
        self.sent += bytes(data)
        self.room -= len(data)
        if self.room <= 0:
            self.paced.pause()

    def take(self, room):
        """The caller has read. Answers whether nothing waits any more."""
        self.room = room
        return self.paced.resume()

    def get_write_buffer_size(self):
        return 0

    def is_closing(self):
        return self.is_closed

    def close(self):
        self.is_closed = True

    def abort(self):
        self.is_aborted = True

    def pause_reading(self):
        self.is_read = False

    def resume_reading(self):
        self.is_read = True


class Loop:
    """Its clock stands still: what was asked to be called is kept."""

    def __init__(self):
        self.later = []

    def call_later(self, delay, callback):
        self.later.append(callback)


@pytest.fixture
def loop():
    return Loop()


@pytest.fixture
def in_kernel(monkeypatch):
    """How many bytes the kernel holds."""
    held = [0]
    monkeypatch.setattr(paced_transport, "unacknowledged_bytes", lambda transport: held[0])
    return held


def paced(loop, room):
    inner = Inner(room)
    inner.paced = PacedTransport(inner, loop)
    return inner, inner.paced


def test_small_data_passes_at_once(loop):
    inner, transport = paced(loop, 1000)

    transport.write(b"a")
    transport.writelines([b"b", bytearray(b"c"), memoryview(b"d")])

    assert (inner.sent, transport.get_write_buffer_size()) == (b"abcd", 0)
    assert inner.limits == (PIECE_BYTES, 0)


def test_what_does_not_fit_waits_in_order(loop):
    inner, transport = paced(loop, PIECE_BYTES)
    data = bytes(range(256)) * (5 * PIECE_BYTES // 256)

    transport.write(data)
    transport.write(b"the end")

    assert inner.sent == data[:PIECE_BYTES]
    assert transport.get_write_buffer_size() == 4 * PIECE_BYTES + 7
    assert not inner.take(2 * PIECE_BYTES)
    assert not inner.take(2 * PIECE_BYTES)
    assert inner.take(PIECE_BYTES)
    assert inner.sent == data + b"the end"
    assert transport.get_write_buffer_size() == 0


def test_close_waits_for_what_waits_here_and_in_the_kernel(loop, in_kernel):
    inner, transport = paced(loop, PIECE_BYTES)
    transport.write(b"x" * (2 * PIECE_BYTES))
    in_kernel[0] = 100_000

    transport.close()
    transport.close()
    transport.write(b"too late")
    transport.resume_reading()
    before = transport.is_closing(), inner.is_closed, inner.is_read
    inner.take(2 * PIECE_BYTES)
    is_early = inner.is_closed
    in_kernel[0] = 10
    loop.later.pop()()

    assert before == (True, False, False)
    assert not is_early
    assert inner.is_closed
    assert inner.sent == b"x" * (2 * PIECE_BYTES)
    assert loop.later == []


@pytest.mark.usefixtures("in_kernel")
def test_close_is_immediate_when_nothing_waits(loop):
    inner, transport = paced(loop, 1000)
    transport.write(b"x")

    transport.close()

    assert inner.is_closed


def test_abort_drops_what_waits(loop):
    inner, transport = paced(loop, 1)
    transport.write(b"x" * (2 * PIECE_BYTES))

    transport.abort()

    assert inner.is_aborted
    assert transport.get_write_buffer_size() == 0
