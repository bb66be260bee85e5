"""How long until the first call is answered, and how much memory that takes."""

import re
import time
from contextlib import closing
from pathlib import Path
from statistics import median
from typing import Final

from bench.caller import Caller
from bench.figures import Figure, GroupResult
from bench.nginx import static_upstream
from bench.processes import BenchError
from bench.run import Run
from bench.server import Server, address, lingpai, starting

_FIRST_KEY: Final = re.compile(r"LINGPAI_API_KEY=(sk-lp-\w+)")
_PATIENCE_S: Final = 30.0


def measure(run: Run) -> GroupResult:
    """Seconds from starting the process to the first answered call: in a new data directory, and again in it."""
    first, again = [], []
    with static_upstream(run) as upstream:
        for number in range(1, run.rounds + 1):
            data = run.new_folder("data") / "data"
            key, seconds = _start(run, address(upstream.port), data)
            first.append(seconds)
            again.append(_start(run, address(upstream.port), data, key=key)[1])
            run.say(
                f"round {number}: {first[-1]:.2f} s in a new data directory, {again[-1]:.2f} s after that"
            )
    return GroupResult(
        name="start",
        figures=[
            Figure(
                name="start to first answered call",
                measured=median(again),
                unit="s",
                must=2.0,
                goal=1.0,
                detail="`lingpai serve http://…`",
            ),
            Figure(
                name="the very first start to first answered call",
                measured=median(first),
                unit="s",
                must=2.0,
                goal=1.0,
                detail="makes the data directory, the database and the first key",
            ),
        ],
        raw={"first_s": first, "again_s": again},
    )


def measure_memory(run: Run) -> GroupResult:
    """Resident memory of server and ingester after a thousand calls, models elsewhere; the very first start is judged.

    It takes more than later ones, because it makes the database.
    """
    with static_upstream(run) as upstream:
        target = address(upstream.port)
        data = run.new_folder("data") / "data"
        own, total = _memory(run, target, data, key_name="first-run")
        own_later, total_later = _memory(run, target, data, key_name="second-run")
    run.say(f"{total / 1e6:.0f} MB, of which the server {own / 1e6:.0f} MB; {total_later / 1e6:.0f} MB later")
    return GroupResult(
        name="memory",
        figures=[
            Figure(
                name="memory without models",
                measured=total / 1e6,
                unit="MB",
                must=120,
                goal=80,
                detail=f"resident, very first start: server {own / 1e6:.0f} MB, ingester {(total - own) / 1e6:.0f} MB; "
                f"after a restart {total_later / 1e6:.0f} MB together",
            )
        ],
        raw={
            "first_start": {"server_bytes": own, "total_bytes": total},
            "later_start": {"server_bytes": own_later, "total_bytes": total_later},
        },
    )


def _memory(run: Run, target: str, data: Path, *, key_name: str) -> tuple[int, int]:
    """Bytes of the server process and of it together with its ingester, after some work."""
    with lingpai(run, target, data=data) as server:
        with Caller(server.port, key=server.create_key(key_name)) as caller:
            caller.calls(1000)
        server.wait_until_drained()
        return server.process.own_resident_bytes(), server.process.resident_bytes()


def _start(run: Run, target: str, data: Path, *, key: str | None = None) -> tuple[str, float]:
    """Start a server and call it as soon as it answers; the key that was used and the seconds it took.

    Without `key` the one is used that the very first start prints.
    """
    began = time.perf_counter()
    with starting(run, target, data=data) as server:
        while time.perf_counter() - began < _PATIENCE_S:
            key = key or _printed_key(server)
            if key is not None and _is_answered(server, key):
                return key, time.perf_counter() - began
            server.process.check_alive()
            time.sleep(0.005)
    raise BenchError(f"no call was answered {_PATIENCE_S:g} s after the start")


def _printed_key(server: Server) -> str | None:
    """The key that the very first start prints, once it has."""
    found = _FIRST_KEY.search(server.process.log.read_text(encoding="utf-8", errors="replace"))
    return found[1] if found else None


def _is_answered(server: Server, key: str) -> bool:
    """Whether a call is answered now. Before that nobody listens, or the models are still loading."""
    try:
        with closing(Caller(server.port, key=key)) as caller:
            caller.call()
    except (OSError, BenchError):
        return False
    return True
