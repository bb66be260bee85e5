"""What relaying an event of a stream costs: 400 streams of 50 events a second."""

import asyncio
from dataclasses import asdict, dataclass
from statistics import median
from typing import Final

import uvloop

from bench.figures import Comparison, Figure, GroupResult, ratio_of_pairs
from bench.nginx import nginx_proxy
from bench.processes import CpuUse, CpuWatch, Process
from bench.run import Run
from bench.server import address, lingpai
from bench.stream_caller import Tally, open_streams, stream_upstream

STREAMS: Final = 400
EVENTS_PER_STREAM: Final = 100
EVENTS_PER_S: Final = 50
ROUNDS_MORE: Final = 3
"""So many times the rounds of other groups, each shorter: the ratios of single rounds scatter between 1.15 and 1.6."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One contestant relaying for a while."""

    events: int
    use: CpuUse
    finished: int
    errors: dict[str, int]

    @property
    def cpu_us_per_event(self) -> float:
        return self.use.total_s / self.events * 1e6


def measure(run: Run) -> GroupResult:
    """nginx and Lingpai in turn in front of the same streams."""
    seconds = run.pick(4, 2)
    interval_ms = 1000 // EVENTS_PER_S
    with (
        stream_upstream(run, interval_ms=interval_ms, events=EVENTS_PER_STREAM) as upstream,
        lingpai(run, address(upstream.port)) as server,
    ):
        key = server.create_key("bench")
        with nginx_proxy(run, upstream.port, key=key) as nginx:
            theirs, ours = [], []
            for number in range(1, ROUNDS_MORE * run.rounds + 1):
                theirs.append(_relay(run, nginx.process, nginx.port, key, seconds))
                ours.append(_relay(run, server.process, server.port, key, seconds))
                run.say(
                    f"round {number}: CPU per event nginx {theirs[-1].cpu_us_per_event:.1f} µs, "
                    f"Lingpai {ours[-1].cpu_us_per_event:.1f} µs"
                )
    return _result(theirs, ours)


def _relay(run: Run, process: Process, port: int, key: str, seconds: float) -> Sample:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(_count_events(process, port, key, seconds, cpu=run.cpus.server))


async def _count_events(process: Process, port: int, key: str, seconds: float, *, cpu: int) -> Sample:
    tally = Tally()
    callers = await open_streams(STREAMS, port, tally, key=key, events=EVENTS_PER_STREAM)
    await asyncio.sleep(1)
    watch, before = CpuWatch(process, cpu), tally.events
    await asyncio.sleep(seconds)
    use, relayed = watch.use(), tally.events - before
    for caller in callers:
        caller.close()
    await asyncio.sleep(0.2)  # until everybody has noticed
    return Sample(
        events=relayed,
        use=use,
        finished=tally.finished,
        errors=dict(tally.errors),
    )


def _result(theirs: list[Sample], ours: list[Sample]) -> GroupResult:
    our_cpu = [sample.cpu_us_per_event for sample in ours]
    their_cpu = [sample.cpu_us_per_event for sample in theirs]
    errors = sum(sum(sample.errors.values()) for sample in ours)
    rate = median(sample.events / sample.use.elapsed_s for sample in ours)
    return GroupResult(
        name="stream",
        figures=[
            Figure(
                name="CPU per relayed stream event against nginx",
                measured=ratio_of_pairs(our_cpu, their_cpu),
                unit="×",
                must=1.5,
                goal=1.2,
                detail=f"{median(our_cpu):.1f} µs against {median(their_cpu):.1f} µs",
            ),
            Figure(
                name="streams that were not complete",
                measured=errors,
                unit="streams",
                must=0,
                detail=f"of {sum(sample.finished for sample in ours):,}; {rate:,.0f} events/s relayed",
            ),
        ],
        comparisons=[
            Comparison(
                title="CPU per relayed stream event",
                unit="µs",
                values={"nginx, unbuffered": median(their_cpu), "Lingpai": median(our_cpu)},
            )
        ],
        notes=[
            "nginx relays with `proxy_buffering off`: buffered, it would be cheaper and the events would come late."
        ],
        raw={"nginx": [_raw(sample) for sample in theirs], "lingpai": [_raw(sample) for sample in ours]},
    )


def _raw(sample: Sample) -> dict[str, object]:
    return asdict(sample) | {"cpu_us_per_event": sample.cpu_us_per_event}
