"""Fuzz requests and upstream answers on a whole server: ``python -m tests.fuzz [--minutes N] [--seed N]``.

Looked for: an exception that escapes, a hang, bytes of one caller in another's answer, a reservation left over, a
prompt or key in the log. Hypothesis makes the rounds, and shrinks one that fails to the smallest that still does.
"""

import argparse
import asyncio
import contextlib
import random
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

import uvloop
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from tests.fuzz.calls import Connection, connections
from tests.fuzz.stage import CALLERS, FuzzError, Stage
from tests.fuzz.upstream import answers

_BATCH: Final = 50
"""Rounds per run of hypothesis, after which the time is looked at."""


def fuzz(
    folder: Path,
    *,
    seed: int | None,
    seconds: float,
    on_progress: Callable[[int, float], None] = lambda _rounds, _left: None,
) -> Stage:
    """Fuzz for `seconds`; the stage, which knows how many `rounds` there were and what they brought about (`seen`).

    Raises FuzzError in the first round that shows a fault, after shrinking it as long as there is time; a note on it
    says how to begin at this round. `seed` None takes a new one, which is printed.
    """
    first = random.randrange(2**32) if seed is None else seed
    print(f"fuzz: seed {first}", flush=True)
    deadline = time.monotonic() + seconds
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        stage = Stage(folder)
        runner.run(stage.start())
        try:
            batch = 0
            while (left := deadline - time.monotonic()) > 0:
                on_progress(stage.rounds, left)
                try:
                    _run_batch(runner, stage, first + batch, deadline)
                except Exception as error:
                    error.add_note(f'Found by the rounds of: make fuzz ARGS="--seed {first + batch}"')
                    raise
                batch += 1
        except BaseException:
            with contextlib.suppress(FuzzError):
                runner.run(stage.stop())
            raise
        runner.run(stage.stop())
        return stage


@st.composite
def _rounds(draw: st.DrawFn, keys: tuple[str, ...]) -> list[Connection]:
    who = draw(st.lists(st.integers(0, CALLERS - 1), min_size=1, max_size=5))
    return [draw(connections(keys[caller], number)) for number, caller in enumerate(who)]


def _run_batch(runner: asyncio.Runner, stage: Stage, batch_seed: int, deadline: float) -> None:
    found: dict[str, Exception] = {}

    @seed(batch_seed)
    @settings(
        max_examples=_BATCH,
        deadline=None,
        database=None,
        phases=(Phase.generate, Phase.shrink),
        suppress_health_check=list(HealthCheck),
        print_blob=True,
    )
    @given(_rounds(tuple(stage.keys)), st.lists(answers(), min_size=1, max_size=4))
    def play(round_: list[Connection], recipes: list[tuple[bytes, str]]) -> None:
        if time.monotonic() < deadline:
            try:
                runner.run(stage.play(round_, recipes))
            except Exception as error:
                found[repr((round_, recipes))] = error
                raise
        elif error := found.get(repr((round_, recipes))):
            raise error  # no time to shrink any further; without this, hypothesis would call the fault unreliable

    play()


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10, help="how long to fuzz (default: 10)")
    parser.add_argument("--seed", type=int, help="repeat a run")
    arguments = parser.parse_args()
    started = time.monotonic()

    def show(rounds: int, left: float) -> None:
        sys.stdout.write(
            f"\r{rounds} rounds in {time.monotonic() - started:.0f} s, {left:.0f} s to go \x1b[K"
        )
        sys.stdout.flush()

    with tempfile.TemporaryDirectory(prefix="lingpai-fuzz-") as folder:
        stage = fuzz(Path(folder), seed=arguments.seed, seconds=arguments.minutes * 60, on_progress=show)
    seen = ", ".join(f"{count} {what}" for what, count in sorted(stage.seen.items()))
    print(f"\n{stage.rounds} rounds ({seen}), nothing found")
    return 0


if __name__ == "__main__":
    sys.exit(main())
