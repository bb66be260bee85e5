"""Calls per second, with everything switched on, and whether every one of them was recorded."""

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from statistics import median
from typing import Final

from bench.caller import Caller
from bench.figures import Comparison, Figure, GroupResult, ratio_of_pairs
from bench.nginx import Listening, nginx_proxy, static_upstream
from bench.processes import CpuUse, CpuWatch
from bench.run import Run
from bench.server import Server, address, lingpai
from bench.wrk import CONNECTIONS, Load, put_under_load

KEY_NAME: Final = "bench"
SATURATED: Final = 0.95
"""Share of a core above which the process on it is taken to be the limit."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One contestant under load once. nginx records nothing, so it has no lag and no drain."""

    load: Load
    under_load: CpuUse
    until_drained: CpuUse
    lag_records: int = 0
    drain_s: float = 0.0
    unaccounted: int = 0

    @property
    def sustained(self) -> float:
        """Calls per second until the last of them is in the database."""
        return self.load.requests / (self.load.seconds + self.drain_s)

    @property
    def cpu_us_per_call(self) -> float:
        return self.until_drained.total_s / self.load.requests * 1e6


def measure(run: Run) -> GroupResult:
    """nginx and Lingpai in turn in front of the same upstream, 64 connections."""
    seconds = int(run.pick(6, 2))
    with static_upstream(run) as upstream, lingpai(run, address(upstream.port)) as server:
        key = server.create_key(KEY_NAME)
        with nginx_proxy(run, upstream.port, key=key) as nginx:
            _warm_up(run, nginx, server, key)
            theirs, ours = [], []
            for number in range(1, run.rounds + 1):
                theirs.append(_load_nginx(run, nginx, key, seconds))
                ours.append(_load_lingpai(run, server, key, seconds))
                run.say(
                    f"round {number}: nginx {theirs[-1].load.calls_per_s:,.0f} calls/s, "
                    f"Lingpai {ours[-1].load.calls_per_s:,.0f}, sustained {ours[-1].sustained:,.0f}"
                )
        missing = _count_exactly(server, key, calls=int(run.pick(2000, 300)))
    return _result(theirs, ours, missing)


def _warm_up(run: Run, nginx: Listening, server: Server, key: str) -> None:
    for port in (nginx.port, server.port):
        put_under_load(run, port, keys=[key], seconds=1)
    server.wait_until_drained()


def _load_nginx(run: Run, nginx: Listening, key: str, seconds: int) -> Sample:
    watch = CpuWatch(nginx.process, run.cpus.server)
    load = put_under_load(run, nginx.port, keys=[key], seconds=seconds)
    use = watch.use()
    return Sample(load=load, under_load=use, until_drained=use)


def _load_lingpai(run: Run, server: Server, key: str, seconds: int) -> Sample:
    reported = server.reported_requests(KEY_NAME)
    loaded = server.loaded_records()
    watch = CpuWatch(server.process, run.cpus.server)
    load = put_under_load(run, server.port, keys=[key], seconds=seconds)
    ended = time.perf_counter()
    in_time = server.loaded_records() - loaded
    under_load = watch.use()
    server.wait_until_drained()
    return Sample(
        load=load,
        under_load=under_load,
        until_drained=watch.use(),
        lag_records=server.loaded_records() - loaded - in_time,
        drain_s=time.perf_counter() - ended,
        unaccounted=outside_bound(
            server.reported_requests(KEY_NAME) - reported, load.requests, in_flight=CONNECTIONS
        ),
    )


def outside_bound(reported: int, counted: int, *, in_flight: int) -> int:
    """By how many calls a report is wrong that may exceed what the caller counted by the calls then under way."""
    return max(counted - reported, reported - counted - in_flight, 0)


def _count_exactly(server: Server, key: str, *, calls: int) -> int:
    """By how many calls the report is wrong when every answer is counted by us."""
    before = server.reported_requests(KEY_NAME)
    with Caller(server.port, key=key) as caller:
        caller.calls(calls)
        return abs(server.reported_requests(KEY_NAME) - before - caller.answered)


def _result(theirs: Sequence[Sample], ours: Sequence[Sample], missing: int) -> GroupResult:
    nginx_speed = [sample.load.calls_per_s for sample in theirs]
    speed = [sample.load.calls_per_s for sample in ours]
    sustained = [sample.sustained for sample in ours]
    lag = median(sample.lag_records for sample in ours)
    drain = median(sample.drain_s for sample in ours)
    wrong = missing + sum(sample.unaccounted for sample in ours)
    return GroupResult(
        name="calls",
        figures=[
            Figure(
                name="calls/s against nginx, sustained",
                measured=ratio_of_pairs(sustained, nginx_speed),
                unit="×",
                must=0.35,
                goal=0.50,
                is_higher_better=True,
                detail="until the last usage record is in the database; API key, calendar limit, smooth rate, usage",
            ),
            Figure(
                name="calls per second of CPU against nginx",
                measured=ratio_of_pairs(_per_cpu_s(ours), _per_cpu_s(theirs)),
                unit="×",
                is_higher_better=True,
                detail=f"{_us(ours):.1f} µs a call, of which the ingester {_ingester_us(ours):.1f} µs, "
                f"against {_us(theirs):.1f} µs; a load generator that is the limit cannot flatter this one",
            ),
            Figure(
                name="calls/s against nginx, while the load lasts",
                measured=ratio_of_pairs(speed, nginx_speed),
                unit="×",
                is_higher_better=True,
                detail=f"then {lag:,.0f} records behind, loaded {drain:.2f} s later (medians)",
            ),
            Figure(
                name="calls that the usage report has wrong",
                measured=wrong,
                unit="calls",
                must=0,
                detail="own count of 200s: equal; wrk's count: within the 64 calls under way when it stops",
            ),
        ],
        comparisons=[
            Comparison(
                title="Calls per second, 64 connections",
                unit="calls/s",
                values={
                    "nginx, bare proxy": median(nginx_speed),
                    "Lingpai, while the load lasts": median(speed),
                    "Lingpai, sustained": median(sustained),
                },
            )
        ],
        notes=[_nginx_note(theirs)],
        raw={"nginx": [_raw(sample) for sample in theirs], "lingpai": [_raw(sample) for sample in ours]},
    )


def _us(samples: Sequence[Sample]) -> float:
    return median(sample.cpu_us_per_call for sample in samples)


def _ingester_us(samples: Sequence[Sample]) -> float:
    return median(sample.until_drained.descendants_s / sample.load.requests * 1e6 for sample in samples)


def _per_cpu_s(samples: Sequence[Sample]) -> list[float]:
    return [1e6 / sample.cpu_us_per_call for sample in samples]


def _nginx_note(theirs: Sequence[Sample]) -> str:
    share = median(sample.under_load.share for sample in theirs)
    others = median(sample.under_load.others_share for sample in theirs)
    note = f"While nginx was under load it kept {share:.0%} of its core busy, other processes {others:.0%}."
    if share + others < SATURATED:
        note += " It was waiting for the load generator and could do more: calls/s flatter Lingpai."
    return note


def _raw(sample: Sample) -> dict[str, object]:
    return asdict(sample) | {"calls_per_s": sample.load.calls_per_s, "sustained": sample.sustained}
