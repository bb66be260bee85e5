"""What TLS 1.3 costs: calls over connections that stay open, new connections, and memory for open ones."""

import socket
import ssl
import threading
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from statistics import median
from typing import Final

from bench.caller import Caller
from bench.certificate import make_certificate
from bench.figures import Comparison, Figure, GroupResult, ratio_of_pairs
from bench.nginx import nginx_proxy, static_upstream
from bench.processes import BenchError, CpuWatch
from bench.run import Run
from bench.server import Server, address, lingpai
from bench.wrk import CONNECTIONS, put_under_load

_CALLERS: Final = 8
"""Threads that connect anew for each call."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Arrivals:
    """New connections with one call each. `server_share` is how busy the server and its ingester were."""

    per_s: float
    server_share: float
    cpu_ms: float
    """Of the server and its ingester, for each."""


@dataclass(frozen=True, slots=True)
class Round:
    """Calls per second of each contestant, and the new connections."""

    clear: float
    tls: float
    nginx: float
    arrivals: Arrivals


def measure(run: Run) -> GroupResult:
    """Lingpai in clear text, Lingpai with TLS and nginx with TLS in turn, in front of the same upstream."""
    certificate = make_certificate(run.new_folder("certificate"))
    context = certificate.client_context()
    with (
        static_upstream(run) as upstream,
        lingpai(run, address(upstream.port)) as clear,
        lingpai(run, address(upstream.port), certificate=certificate) as tls,
    ):
        clear_key, key = clear.create_key("bench"), tls.create_key("bench")
        kept = int(run.pick(1000, 200))
        held = _bytes_per_connection(tls, key, kept, context)
        held_clear = _bytes_per_connection(clear, clear_key, kept, None)
        run.say(f"an open connection takes {held / 1000:.0f} kB, in clear text {held_clear / 1000:.0f} kB")
        with nginx_proxy(run, upstream.port, key=key, certificate=certificate) as nginx:
            suite = _same_suite(context, tls.port, nginx.port)
            rounds = []
            for number in range(1, run.rounds + 1):
                rounds.append(
                    Round(
                        clear=_calls(run, clear.port, clear_key, clear),
                        tls=_calls(run, tls.port, key, tls, is_tls=True),
                        nginx=_calls(run, nginx.port, key, is_tls=True),
                        arrivals=_arrivals(run, tls, key, context),
                    )
                )
                run.say(_told(number, rounds[-1]))
    return _result(rounds, suite, held, held_clear, kept)


def _same_suite(context: ssl.SSLContext, *ports: int) -> str:
    """The cipher suite that all of them choose. Raises BenchError when they do not choose the same."""
    suites = []
    for port in ports:
        plain = socket.create_connection(("127.0.0.1", port), timeout=10)
        with context.wrap_socket(plain, server_hostname="127.0.0.1") as connection:
            chosen = connection.cipher()
            suites.append(chosen[0] if chosen else "none")
    if len(set(suites)) != 1:
        raise BenchError(f"the contestants choose different cipher suites: {', '.join(suites)}")
    return suites[0]


def _told(number: int, one: Round) -> str:
    return (
        f"round {number}: {one.tls:,.0f} calls/s, in clear text {one.clear:,.0f}, nginx {one.nginx:,.0f}; "
        f"{one.arrivals.per_s:,.0f} new connections/s"
    )


def _calls(run: Run, port: int, key: str, server: Server | None = None, *, is_tls: bool = False) -> float:
    """Calls per second over connections that stay open; what was recorded is in the database afterwards."""
    load = put_under_load(run, port, keys=[key], seconds=int(run.pick(3, 2)), is_tls=is_tls)
    if server is not None:
        server.wait_until_drained()
    return load.calls_per_s


def _arrivals(run: Run, server: Server, key: str, context: ssl.SSLContext) -> Arrivals:
    """Connect, shake hands in full, call once and leave, over and over. Raises BenchError unless each call is a 200."""
    seconds = run.pick(3, 1)
    counts: list[int] = []
    errors: list[Exception] = []
    watch = CpuWatch(server.process, run.cpus.server)
    deadline = time.perf_counter() + seconds

    def connect_again_and_again() -> None:
        count = 0
        try:
            while time.perf_counter() < deadline:
                with Caller(server.port, key=key, tls=context) as caller:
                    caller.call()
                count += 1
        except (OSError, BenchError) as error:
            errors.append(error)
        counts.append(count)

    threads = [threading.Thread(target=connect_again_and_again) for _ in range(_CALLERS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    use = watch.use()
    if errors or not sum(counts):
        raise BenchError(f"new connections failed: {errors[0] if errors else 'there were none'}")
    server.wait_until_drained()
    return Arrivals(
        per_s=sum(counts) / use.elapsed_s,
        server_share=use.share,
        cpu_ms=use.total_s / sum(counts) * 1000,
    )


def _bytes_per_connection(server: Server, key: str, count: int, context: ssl.SSLContext | None) -> float:
    """What the server grows by for each of `count` connections that have made a call and stay open."""
    with ExitStack() as callers:
        for _ in range(50):  # what the first ones make once, and what many make
            callers.enter_context(Caller(server.port, key=key, tls=context)).call()
        time.sleep(0.5)
        before = server.process.own_resident_bytes()
        for _ in range(count):
            callers.enter_context(Caller(server.port, key=key, tls=context)).call()
        time.sleep(0.5)
        return (server.process.own_resident_bytes() - before) / count


def _result(rounds: Sequence[Round], suite: str, held: float, held_clear: float, kept: int) -> GroupResult:
    tls, clear, nginx = ([getattr(one, name) for one in rounds] for name in ("tls", "clear", "nginx"))
    arrivals = [one.arrivals for one in rounds]
    return GroupResult(
        name="tls",
        figures=[
            Figure(
                name="calls/s over TLS 1.3 against clear text",
                measured=ratio_of_pairs(tls, clear),
                unit="×",
                is_higher_better=True,
                detail=f"{CONNECTIONS} connections that stay open",
            ),
            Figure(
                name="calls/s over TLS 1.3 against nginx with TLS 1.3",
                measured=ratio_of_pairs(tls, nginx),
                unit="×",
                is_higher_better=True,
                detail=f"the same certificate and cipher suite, {suite}",
            ),
            Figure(
                name="new TLS connections per second of CPU",
                measured=median(1000 / one.cpu_ms for one in arrivals),
                unit="/s",
                is_higher_better=True,
                detail=f"a full handshake and one call each; {median(one.per_s for one in arrivals):,.0f} a second by "
                f"the clock, which kept the server's core {median(one.server_share for one in arrivals):.0%} busy",
            ),
            Figure(
                name="memory per open TLS connection",
                measured=held / 1000,
                unit="kB",
                detail=f"{kept:,} that have made a call; in clear text {held_clear / 1000:.0f} kB",
            ),
        ],
        comparisons=[
            Comparison(
                title="Calls per second with and without TLS 1.3",
                unit="calls/s",
                values={
                    "nginx, TLS": median(nginx),
                    "Lingpai, TLS": median(tls),
                    "Lingpai, clear text": median(clear),
                },
            )
        ],
        raw={
            "rounds": [asdict(one) for one in rounds],
            "bytes_per_connection": held,
            "bytes_per_clear_connection": held_clear,
        },
    )
