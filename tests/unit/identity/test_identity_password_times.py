"""How long a refused password takes says nothing about who exists (OWASP ASVS 5.0, 6.3.8).

The measure is the share of pairs in which another refusal was faster than that of a wrong password: the area under the ROC
curve, 0.5 for whoever cannot tell them apart.
"""

import random
import time
from collections.abc import Awaitable, Callable
from itertools import product

import pytest
from argon2 import PasswordHasher
from oauth_stage import Stage
from sqlalchemy import update

from lingpai.identity.oauth.passwords import CheckedPasswords
from lingpai.identity.passwords.service import Refusal
from lingpai.identity.people import People
from lingpai.identity.settings import IdentitySettings
from lingpai.identity.tables import users as users_table
from lingpai.storage.database import Database

ELSEWHERE = "203.0.113.7"
WITHOUT_WAITS = IdentitySettings(
    sign_in_failures_per_account=10**6, sign_in_failures_per_address=10**6, sign_in_failures_per_s=10**6
)
KINDS = ("wrong password", "disabled", "without", "nobody")
BLOCKS, BLOCK = 48, 10
MOST_OFF = 0.1
"""Each block has ten of each kind in random order, and only times of one block are compared: a machine that gets slower or
faster meanwhile moves all of them.

If the kinds are alike, all orders within a block are equally likely, and the area of a block with k of each has the variance
(2k+1)/(12k²), that of 48 blocks 21/1200/48 = 0.000365: a standard deviation of 0.0191. The bound is 5.2 of these away, which
chance alone passes with 1.6e-7 on either side together, and in one of the six comparisons (three kinds, two ways)
less than once in 10^6.
"""

Try = Callable[[str], Awaitable[None]]


@pytest.fixture
def identity_settings() -> IdentitySettings:
    return WITHOUT_WAITS


@pytest.fixture
def kinds(people: People, stage: Stage, database: Database) -> People:
    """A user of each kind. Their hashes are old and cheap, and so are those that unknown names are compared with.

    One pass over the least memory: a third of what argon2id costs at the least. The cheaper it is, the smaller a difference
    comes to light. At a tenth of this it is that a row of the database is made into a user: 20 microseconds.
    """
    for name in KINDS[:3]:
        stage.person(name.replace(" ", "-"))
    stage.change_person("disabled", disabled=True)
    cheap = PasswordHasher(time_cost=1, memory_cost=12_288, parallelism=1).hash("quiet harbour lamp")
    with database.write() as connection:
        for name in ("wrong-password", "disabled"):
            connection.execute(
                update(users_table).where(users_table.c.name == name).values(password_hash=cheap)
            )
    return people


@pytest.mark.timeout(120)
@pytest.mark.parametrize("way", ["sign-in", "token endpoint"])
def test_asvs_6_3_8_time_does_not_tell_who_exists(
    kinds: People, stage: Stage, way: str, new_seed: int
) -> None:
    """Neither where people sign in nor at the token endpoint: of several hundred tries each, none is told from a wrong password."""
    checked = CheckedPasswords(kinds.passwords)
    stage.verify = checked.verify  # type: ignore[method-assign]  # the real check in place of the stage's

    async def sign_in(name: str) -> None:
        assert await kinds.passwords.verify(name, "wrong", ELSEWHERE) == Refusal("wrong")

    async def ask_for_token(name: str) -> None:
        form = {"grant_type": "password", "username": name, "password": "wrong"}
        assert (await stage.post(stage.server.token, form)).error == "invalid_grant"

    blocks = stage.run(_measured(sign_in if way == "sign-in" else ask_for_token, random.Random(new_seed)))

    areas = {kind: _area(blocks, kind) for kind in KINDS[1:]}
    assert all(abs(area - 0.5) < MOST_OFF for area in areas.values()), areas


def test_the_comparison_of_times_notices_what_takes_longer() -> None:
    """A twentieth more, of times that vary by a fifth."""
    pick = random.Random(1)
    blocks = [
        {
            kind: [pick.uniform(1, 1.2) * (1.05 if kind == "nobody" else 1) for _ in range(BLOCK)]
            for kind in KINDS
        }
        for _ in range(BLOCKS)
    ]

    assert _area(blocks, "nobody") < 0.5 - MOST_OFF
    assert abs(_area(blocks, "disabled") - 0.5) < MOST_OFF


async def _measured(attempt: Try, pick: random.Random) -> list[dict[str, list[float]]]:
    """Seconds by kind, for each block; the first attempts, which load and learn, are left out."""
    for kind in KINDS:
        await attempt(kind.replace(" ", "-"))
    blocks: list[dict[str, list[float]]] = []
    for _ in range(BLOCKS):
        order = list(KINDS) * BLOCK
        pick.shuffle(order)
        times: dict[str, list[float]] = {kind: [] for kind in KINDS}
        for kind in order:
            name = kind.replace(" ", "-")
            began = time.perf_counter()
            await attempt(name)
            times[kind].append(time.perf_counter() - began)
        blocks.append(times)
    return blocks


def _area(blocks: list[dict[str, list[float]]], kind: str) -> float:
    """How often a time of this kind is smaller than one of a wrong password in the same block."""
    pairs = [pair for times in blocks for pair in product(times[kind], times[KINDS[0]])]
    return sum((this < that) + (this == that) / 2 for this, that in pairs) / len(pairs)
