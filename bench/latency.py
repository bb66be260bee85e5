"""What Lingpai adds to a call's latency, for one caller on one connection."""

from statistics import median
from typing import Final

from bench.caller import Caller
from bench.figures import Comparison, Figure, GroupResult, percentile
from bench.nginx import nginx_proxy, static_upstream
from bench.run import Run
from bench.server import address, lingpai

BATCH: Final = 200
"""Calls on one connection before the next contestant has its turn: long enough for its caches to be its own."""

DIRECT: Final = "direct"
NGINX: Final = "nginx"
LINGPAI: Final = "Lingpai"

Latencies = dict[str, list[int]]


def measure(run: Run) -> GroupResult:
    """The same call direct, through nginx and through Lingpai, in turn."""
    batches = int(run.pick(25, 5))
    with static_upstream(run) as upstream, lingpai(run, address(upstream.port)) as server:
        key = server.create_key("bench")
        with (
            nginx_proxy(run, upstream.port, key=key) as nginx,
            Caller(upstream.port, key=key) as direct,
            Caller(nginx.port, key=key) as via_nginx,
            Caller(server.port, key=key) as via_lingpai,
        ):
            callers = {DIRECT: direct, NGINX: via_nginx, LINGPAI: via_lingpai}
            _one_round(callers, batches=2)  # warm-up
            rounds = []
            for number in range(1, run.rounds + 1):
                rounds.append(_one_round(callers, batches=batches))
                added = _added(rounds[-1], LINGPAI, 0.5)
                run.say(f"round {number}: Lingpai adds {added:.3f} ms (p50)")
    return _result(rounds)


def _one_round(callers: dict[str, Caller], *, batches: int) -> Latencies:
    found: Latencies = {name: [] for name in callers}
    for _ in range(batches):
        for name, caller in callers.items():
            found[name] += caller.calls(BATCH)
    return found


def _added(found: Latencies, name: str, share: float) -> float:
    """Milliseconds that going through `name` adds at this percentile."""
    return (percentile(found[name], share) - percentile(found[DIRECT], share)) / 1e6


def _result(rounds: list[Latencies]) -> GroupResult:
    def added(name: str, share: float) -> float:
        return median(_added(found, name, share) for found in rounds)

    def typical(name: str, share: float) -> float:
        return median(percentile(found[name], share) for found in rounds) / 1e6

    names = (DIRECT, NGINX, LINGPAI)
    return GroupResult(
        name="latency",
        figures=[
            Figure(
                name="added latency, one connection, p50",
                measured=added(LINGPAI, 0.5),
                unit="ms",
                must=0.25,
                goal=0.1,
                detail=f"nginx adds {added(NGINX, 0.5):.3f} ms",
            ),
            Figure(
                name="added latency, one connection, p99",
                measured=added(LINGPAI, 0.99),
                unit="ms",
                must=1.0,
                goal=0.5,
                detail=f"difference of the p99s; nginx adds {added(NGINX, 0.99):.3f} ms",
            ),
        ],
        comparisons=[
            Comparison(
                title="Latency of a whole call, one connection, p50",
                unit="ms",
                values={name: typical(name, 0.5) for name in names},
            )
        ],
        raw={
            "calls_each": len(rounds[0][DIRECT]),
            "rounds": [{name: _summary(values) for name, values in found.items()} for found in rounds],
        },
    )


def _summary(values: list[int]) -> dict[str, float]:
    return {
        f"p{share * 100:g}_ms": round(percentile(values, share) / 1e6, 4) for share in (0.5, 0.9, 0.99, 0.999)
    }
