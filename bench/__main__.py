"""`python -m bench`: measure, show, keep. Exit code 0 when every must is held, 1 when one is missed, 2 when nginx or wrk
are missing, 3 when something cannot be measured."""

import argparse
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final, NoReturn

from bench import calls, keys, latency, open_streams, report, start, stream, tls, tokens
from bench.figures import GroupResult
from bench.machine import choose_cpus, describe_machine, raise_descriptor_limit
from bench.processes import BenchError
from bench.run import Run

GROUPS: Final[Mapping[str, Callable[[Run], GroupResult]]] = {
    "start": start.measure,
    "memory": start.measure_memory,
    "calls": calls.measure,
    "latency": latency.measure,
    "stream": stream.measure,
    "open-streams": open_streams.measure,
    "keys": keys.measure,
    "tokens": tokens.measure,
    "tls": tls.measure,
}
RESULTS: Final = Path(__file__).with_name("results")


def main() -> int:
    options = _options()
    nginx, wrk = _find("nginx"), _find("wrk")
    if nginx is None or wrk is None:
        missing = " and ".join(name for name, path in (("nginx", nginx), ("wrk", wrk)) if path is None)
        print(f"The bench needs {missing}. On Debian: apt-get install nginx-light wrk", file=sys.stderr)
        return 2
    signal.signal(signal.SIGTERM, _end)
    cpus = choose_cpus()
    os.sched_setaffinity(0, {cpus.load})
    with tempfile.TemporaryDirectory(prefix="lingpai-bench-") as folder:
        run = Run(
            folder=Path(folder),
            cpus=cpus,
            rounds=options.rounds or (1 if options.quick else 3),
            is_quick=options.quick,
            descriptors=raise_descriptor_limit(),
            nginx=nginx,
            wrk=wrk,
            say=_say,
        )
        return _measure(run, options.only)


def _measure(run: Run, names: Sequence[str]) -> int:
    machine = describe_machine(nginx=run.nginx, wrk=run.wrk)
    load_before = os.getloadavg()[0]
    if not run.cpus.are_separate:
        _say("only one processor: server and load generator share it, the ratios say little")
    results, failed = _results(run, names)
    document = report.Document(
        machine=machine,
        results=results,
        rounds=run.rounds,
        is_quick=run.is_quick,
        load_before=load_before,
        load_after=os.getloadavg()[0],
    )
    report.show(document)
    if failed:
        _say(f"not kept: {', '.join(failed)} could not be measured")
    elif set(names) == set(GROUPS) and not run.is_quick:
        _say(f"kept as {report.keep(document, RESULTS)}")
    else:
        _say("not kept: only a whole run, without --only and --quick, is")
    return 3 if failed else 0 if document.holds else 1


def _results(run: Run, names: Sequence[str]) -> tuple[list[GroupResult], list[str]]:
    """What could be measured, and the names of the groups that could not: one must not take minutes of others along."""
    results, failed = [], []
    for name in names:
        _say(f"— {name} —")
        try:
            results.append(GROUPS[name](run))
        except BenchError as error:
            _say(f"cannot measure {name}: {error}")
            failed.append(name)
    return results, failed


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench", description="Measure speed against nginx.")
    parser.add_argument(
        "--only", type=_group_names, default=list(GROUPS), metavar="GROUP,…", help=f"of {', '.join(GROUPS)}"
    )
    parser.add_argument("--rounds", type=int, default=0, metavar="N", help="pairs measured (default 3)")
    parser.add_argument("--quick", action="store_true", help="short and rough: does the bench work?")
    return parser.parse_args()


def _group_names(text: str) -> list[str]:
    wanted = {name.strip() for name in text.split(",") if name.strip()}
    unknown = wanted - set(GROUPS)
    if unknown or not wanted:
        raise argparse.ArgumentTypeError(f"use any of {', '.join(GROUPS)}")
    return [name for name in GROUPS if name in wanted]


def _find(program: str) -> str | None:
    """The program's path. Debian keeps nginx where only the administrator's PATH looks."""
    return shutil.which(program) or shutil.which(program, path="/usr/sbin:/usr/local/sbin")


_began: Final = time.monotonic()


def _say(text: str) -> None:
    print(f"[{time.monotonic() - _began:5.0f} s] {text}", file=sys.stderr, flush=True)


def _end(*_: object) -> NoReturn:
    sys.exit(143)  # unlike the default action, this runs what stops the processes


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
