"""The limit engine against the slow model, for a million random steps.

The environment can say how many (LINGPAI_STEPS) and which (LINGPAI_SEED, shown for new ones at the end of the run).
"""

import os
import random
from datetime import UTC, datetime

from engine_driver import CALLERS, CHOICES, SUBJECTS, EngineAgainstModel

from lingpai.quotas.amounts import NOTHING, Amounts
from lingpai.quotas.grammar import parse_limit

STEPS = int(os.environ.get("LINGPAI_STEPS", "1000000"))
SEED = int(os.environ.get("LINGPAI_SEED", "8741"))

STEPS_OF_A_SCENE = 10_000
CHECK_EVERY = 100
MOST_OPEN = 40
DAY_S = 86_400.0
# Each scene begins just before clocks change (in Berlin, New York, on Lord Howe Island, the Azores, and in Cairo), or a
# month ends: it leaps away soon.
BEGINNINGS = [
    datetime(2026, 10, 25, 0, 59, tzinfo=UTC),
    datetime(2026, 11, 1, 5, 59, tzinfo=UTC),
    datetime(2026, 10, 3, 15, 29, tzinfo=UTC),
    datetime(2026, 3, 29, 0, 59, 30, tzinfo=UTC),
    datetime(2026, 10, 29, 20, 59, 30, tzinfo=UTC),
    datetime(2028, 2, 29, 15, 59, tzinfo=UTC),
]


def test_a_million_random_steps_with_a_fixed_seed_agree_with_the_slow_model():
    run(STEPS, SEED)


def test_random_steps_with_a_new_seed_agree_with_the_slow_model(new_seed: int):
    run(min(STEPS, 50_000), new_seed)


def run(steps: int, seed: int) -> None:
    """Scenes of some thousand steps, each with other limits and another beginning."""
    admitted = refused = 0
    for scene in range(-(-steps // STEPS_OF_A_SCENE)):
        length = min(STEPS_OF_A_SCENE, steps - scene * STEPS_OF_A_SCENE)
        driver = play(random.Random(f"{seed}/{scene}"), length, f"LINGPAI_SEED={seed}, scene {scene}")
        admitted += driver.outcomes["admitted"]
        refused += driver.outcomes["refused"]
    print(f"{admitted} calls admitted, {refused} refused")
    assert admitted > steps / 20
    assert refused > steps / 20


def play(dice: random.Random, steps: int, where: str) -> EngineAgainstModel:
    driver = EngineAgainstModel(dice.choice(BEGINNINGS).timestamp())
    for subject in SUBJECTS:
        driver.replace_limits(subject, some_limits(dice))
    step = 0
    try:
        for step in range(steps):
            one_step(driver, dice)
            if step % CHECK_EVERY == 0:
                driver.check()
        driver.check_nothing_is_left_over()
    except AssertionError as exc:
        exc.add_note(f"{where}, step {step}")
        raise
    return driver


def one_step(driver: EngineAgainstModel, dice: random.Random) -> None:
    kind = dice.random()
    if kind < 0.45 and len(driver.open) < MOST_OPEN:
        call(driver, dice)
    elif kind < 0.80:
        if driver.open:
            settle(driver, dice)
    elif kind < 0.82:
        driver.look_back(dice.choice(CALLERS), dice.expovariate(1 / dice.choice([1.0, 100.0, DAY_S])))
    elif kind < 0.985:
        driver.advance(abs(dice.gauss(0, dice.choice([0.01, 1.0, 5.0, 30.0]))))
    elif kind < 0.993:
        jump(driver, dice)
    elif kind < 0.996:
        driver.change_amount(dice.choice(SUBJECTS), dice.randrange(9), dice.choice([0.5, 0.7, 1.5, 2.0]))
    else:
        driver.replace_limits(dice.choice(SUBJECTS), some_limits(dice))
        driver.model.forget_before(driver.clock.now - 35 * DAY_S)


def call(driver: EngineAgainstModel, dice: random.Random) -> None:
    tokens, nano = dice.randrange(1, 600), dice.randrange(0, 6000)
    share = dice.choice([0.1, 0.5, 1.0])
    most = Amounts(tokens=tokens, usd=nano, cny=dice.choice([0, nano]))
    least = Amounts(tokens=int(tokens * share), usd=int(nano * share), cny=int(most.cny * share))
    driver.call(dice.choice(CALLERS), least, most)


def settle(driver: EngineAgainstModel, dice: random.Random) -> None:
    number = dice.choice([0, dice.randrange(len(driver.open))])
    reserved = driver.open[number].reserved
    kind = dice.random()
    if kind < 0.15:
        used = NOTHING
    elif kind < 0.3:
        used = reserved
    else:
        share = dice.random() if kind < 0.85 else 1 + dice.random()
        used = reserved._replace(
            tokens=int(reserved.tokens * share),
            usd=int(reserved.usd * share),
            cny=int(reserved.cny * share),
        )
    if dice.random() < 0.7 and any(amount > held for amount, held in zip(used, reserved, strict=True)):
        driver.extend(number, used)  # and is settled another time
    else:
        driver.settle(number, used)


def jump(driver: EngineAgainstModel, dice: random.Random) -> None:
    """To about the end of a window, far ahead, or back."""
    where = dice.random()
    if where < 0.4:
        meters = [meter for meters in driver.meters.values() for meter in meters]
        ends = [meter.resets_at(driver.clock.now) - driver.clock.now for meter in meters] or [0.0]
        driver.advance(dice.choice(ends) + dice.choice([-0.5, -0.000001, 0.0, 0.3]))
    elif where < 0.7:
        driver.advance(dice.expovariate(1 / dice.choice([600.0, 20_000.0, DAY_S])))
    else:
        driver.advance(-dice.expovariate(1 / dice.choice([10.0, 90.0, 5000.0])))


def some_limits(dice: random.Random) -> tuple[str, ...]:
    chosen = dice.sample(CHOICES, dice.choice([0, 1, 2, 3]))
    return tuple(str(parse_limit(text)) for text in chosen)
