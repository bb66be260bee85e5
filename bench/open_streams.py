"""Ten thousand open streams in one process, or as many as descriptors allow, with one event a second each."""

import asyncio
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

import uvloop

from bench.figures import Figure, GroupResult
from bench.run import Run
from bench.server import Server, address, lingpai
from bench.stream_caller import Tally, open_streams, stream_upstream

KEY_NAME: Final = "bench"
WANTED: Final = 10_000
SPARE_DESCRIPTORS: Final = 200
"""What the server has open besides streams: listeners, journal, database, threads' pipes."""

_PORT_RANGE: Final = Path("/proc/sys/net/ipv4/ip_local_port_range")


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """What holding the streams open was like."""

    open: int
    bytes_before: int
    bytes_after: int
    events_per_s: float
    cpu_share: float
    errors: dict[str, int]


def measure(run: Run) -> GroupResult:
    """Open the streams, hold them, and see what each takes."""
    fitting = (run.descriptors - SPARE_DESCRIPTORS) // 2
    count = int(run.pick(min(WANTED, fitting), min(500, fitting)))
    with (
        stream_upstream(run, interval_ms=1000, events=0) as upstream,
        lingpai(run, address(upstream.port)) as server,
        asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner,
    ):
        key = server.create_key(KEY_NAME)
        run.say(f"opening {count:,} streams ({run.descriptors:,} descriptors are allowed)")
        held = runner.run(_hold(server, key, count, seconds=run.pick(8, 3)))
        reported = _reported(server, count)
    return _result(count, held, reported)


async def _hold(server: Server, key: str, count: int, *, seconds: float) -> Held:
    loop = asyncio.get_running_loop()
    tally = Tally()
    first = await open_streams(1, server.port, tally, key=key, events=0)
    await asyncio.sleep(1)
    before = server.process.own_resident_bytes()
    callers = await open_streams(
        count - 1, server.port, tally, key=key, events=0, sources=source_addresses(count)
    )
    await asyncio.sleep(2)
    began, cpu, events = loop.time(), server.process.cpu_seconds(), tally.events
    await asyncio.sleep(seconds)
    elapsed = loop.time() - began
    held = Held(
        open=len(first) + len(callers) - sum(tally.errors.values()),
        bytes_before=before,
        bytes_after=server.process.own_resident_bytes(),
        events_per_s=(tally.events - events) / elapsed,
        cpu_share=(server.process.cpu_seconds() - cpu) / elapsed,
        errors=dict(tally.errors),
    )
    for caller in first + callers:
        caller.close()
    await asyncio.sleep(1)
    return held


def _reported(server: Server, expected: int, *, patience_s: float = 15.0) -> int:
    """What the usage report says once the server has noticed that all callers have left, or after `patience_s`."""
    deadline = time.monotonic() + patience_s
    while (found := server.reported_requests(KEY_NAME)) != expected and time.monotonic() < deadline:
        time.sleep(0.5)
    return found


def source_addresses(connections: int) -> list[str]:
    """Loopback addresses to connect from, so many that outgoing ports do not run short."""
    first, last = map(int, _PORT_RANGE.read_text(encoding="ascii").split())
    ports = (
        last - first + 1
    ) // 2  # half: others use ports too, and closed connections keep theirs for a minute
    return [f"127.0.0.{number}" for number in range(1, 2 + connections // ports)]


def _result(count: int, held: Held, reported: int) -> GroupResult:
    per_stream = (held.bytes_after - held.bytes_before) / (count - 1)  # the first was open before
    failed = sum(held.errors.values()) + abs(count - reported)
    return GroupResult(
        name="open-streams",
        figures=[
            Figure(
                name=f"errors with {count:,} open streams",
                measured=failed,
                unit="errors",
                must=0,
                detail=f"{reported:,} in the usage report" + (f"; {held.errors}" if held.errors else ""),
            ),
            Figure(
                name="events a second that each of them gets",
                measured=held.events_per_s / count,
                unit="events/s",
                must=0.95,
                is_higher_better=True,
                detail=f"its backend sends one a second; all together take {held.cpu_share:.0%} of a core",
            ),
            Figure(
                name="memory per open stream",
                measured=per_stream / 1000,
                unit="kB",
                must=30,
                goal=12,
                detail="resident memory of the server process, both connections",
            ),
        ],
        raw={"streams": count, "reported": reported, **asdict(held)},
    )
