"""A million keys, each with a history: as many calls per second as with ten, and a fresh key recognised at once."""

import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Final

from bench.caller import Caller
from bench.figures import Comparison, Figure, GroupResult, percentile, ratio_of_pairs
from bench.key_rows import insert_history, insert_keys
from bench.nginx import static_upstream
from bench.payloads import MODEL
from bench.run import Run
from bench.server import Server, address, lingpai
from bench.wrk import put_under_load

USED: Final = 10
FRESH: Final = 200
TEMPLATE: Final = "template"


def measure(run: Run) -> GroupResult:
    """Two servers, one with ten keys and one with a million, in turn under the same load over ten keys."""
    many = int(run.pick(1_000_000, 50_000))
    with static_upstream(run) as upstream:
        target = address(upstream.port)
        few_data, few_keys = _prepare(run, target, filler=0, real=USED)
        run.say(f"writing {many:,} keys")
        many_data, many_keys = _prepare(run, target, filler=many - USED - FRESH, real=USED + FRESH)
        with lingpai(run, target, data=few_data) as few, lingpai(run, target, data=many_data) as full:
            first_calls = (_first_call(few, few_keys[0]), _first_call(full, many_keys[0]))
            with_few, with_many = [], []
            for number in range(1, run.rounds + 1):
                with_few.append(_calls_per_s(run, few, few_keys))
                with_many.append(_calls_per_s(run, full, many_keys[:USED]))
                run.say(
                    f"round {number}: {with_few[-1]:,.0f} calls/s, with {many:,} keys {with_many[-1]:,.0f}"
                )
            first_uses = _first_uses(full, many_keys)
    return _result(many, with_few, with_many, first_uses, first_calls)


def _prepare(run: Run, target: str, *, filler: int, real: int) -> tuple[Path, list[str]]:
    """A data directory with so many keys that were each used this month, and the credentials of the real ones."""
    with lingpai(run, target) as server:
        server.create_key(TEMPLATE)
    keys = insert_keys(server.data, TEMPLATE, real=real, filler=filler)
    now = time.time()
    insert_history(server.data, TEMPLATE, model=MODEL, since=_start_of_month(now), until=now)
    return server.data, keys


def _start_of_month(now: float) -> float:
    """UTC; at least a day ago, so that there is a history on the first of a month as well."""
    today = datetime.fromtimestamp(now, UTC)
    start = today.replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    return min(start.timestamp(), now - 86_400)


def _first_call(server: Server, key: str) -> float:
    """Milliseconds of the first call since the start: the limits of the model and the user ask what was used."""
    with Caller(server.port, key=key) as caller:
        return caller.call() / 1e6


def _calls_per_s(run: Run, server: Server, keys: Sequence[str]) -> float:
    load = put_under_load(run, server.port, keys=keys, seconds=int(run.pick(3, 1)))
    server.wait_until_drained()
    return load.calls_per_s


def _first_uses(server: Server, keys: Sequence[str]) -> list[float]:
    """Milliseconds of the first call with each key that has not been used, on a connection that has."""
    with Caller(server.port, key=keys[0]) as caller:
        caller.calls(200)
        found = []
        for key in keys[USED:]:
            caller.use_key(key)
            found.append(caller.call() / 1e6)
    return found


def _result(
    many: int,
    with_few: Sequence[float],
    with_many: Sequence[float],
    first_uses: Sequence[float],
    first_calls: tuple[float, float],
) -> GroupResult:
    p99 = percentile(first_uses, 0.99)
    return GroupResult(
        name="keys",
        figures=[
            Figure(
                name=f"calls/s with {many:,} keys against 10 keys",
                measured=ratio_of_pairs(with_many, with_few),
                unit="×",
                must=0.95,
                goal=1.0,
                is_higher_better=True,
                detail="the same, within what two runs of the same thing differ by (5 %)",
            ),
            Figure(
                name="first use of a key, whole call, p99",
                measured=p99,
                unit="ms",
                must=2.0,
                detail=f"of {len(first_uses)}: p50 {median(first_uses):.2f} ms, max {max(first_uses):.2f} ms",
            ),
            Figure(
                name=f"first call on a limited model and user, {many:,} keys with a history",
                measured=first_calls[1],
                unit="ms",
                must=250.0,
                detail=f"whole call right after a start, limits of a month; with 10 keys {first_calls[0]:.0f} ms",
            ),
        ],
        comparisons=[
            Comparison(
                title="Calls per second over 10 keys",
                unit="calls/s",
                values={"of 10": median(with_few), f"of {many:,}": median(with_many)},
            )
        ],
        raw={
            "keys": many,
            "calls_per_s_few": list(with_few),
            "calls_per_s_many": list(with_many),
            "first_limited_call_ms": {"few": first_calls[0], "many": first_calls[1]},
            "first_use_ms": {
                "p50": median(first_uses),
                "p99": p99,
                "max": max(first_uses),
                "count": len(first_uses),
            },
        },
    )
