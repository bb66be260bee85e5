"""Which backends are away: told once when it changes, looked at while it lasts."""

from dataclasses import dataclass

import pytest

from lingpai.catalog.health import LOOK_AGAIN_S, BackendHealth


@dataclass
class Backend:
    """As much of one as matters here."""

    name: str = "gpu-1"
    kind: str = "openai"


class World:
    """A clock, and what was told."""

    def __init__(self):
        self.now = 1000.0
        self.told = []
        self.health = BackendHealth(
            lambda backend, why, down_s: self.told.append((backend.name, why, down_s)), clock=lambda: self.now
        )


@pytest.fixture
def world():
    return World()


def test_a_suspect_is_looked_at_once_and_nothing_is_told_yet(world):
    world.health.suspect(Backend())
    world.health.suspect(Backend())

    assert world.health.due() == {"gpu-1"}
    assert world.health.due() == set()
    assert world.told == []


def test_down_and_up_are_told_once_each(world):
    backend = Backend()
    world.health.up(backend)
    world.health.down(backend, "Nothing answers.")
    world.health.down(backend, "Nothing answers.")
    world.now += 12

    world.health.up(backend)
    world.health.up(backend)

    assert world.told == [("gpu-1", "Nothing answers.", 0.0), ("gpu-1", None, 12.0)]


def test_one_that_is_down_is_looked_at_every_few_seconds_until_it_is_up(world):
    backend = Backend()
    world.health.down(backend, "Nothing answers.")
    world.health.suspect(backend)  # calls go on failing
    at_once = world.health.due()
    world.now += LOOK_AGAIN_S

    later = world.health.due(), world.health.due()
    world.health.up(backend)
    world.now += LOOK_AGAIN_S

    assert at_once == set()
    assert later == ({"gpu-1"}, set())
    assert world.health.due() == set()


def test_workers_are_left_to_their_supervisor(world):
    """A call that gets no connection does not make one suspect, and nobody asks it for its models."""
    worker = Backend("app", kind="worker")
    world.health.suspect(worker)
    world.health.down(worker, "It is started again.")
    world.now += LOOK_AGAIN_S

    assert world.health.due() == set()


def test_one_that_is_removed_is_forgotten(world):
    backend = Backend()
    world.health.down(backend, "Nothing answers.")
    world.health.forget(backend)
    world.now += LOOK_AGAIN_S

    world.health.up(backend)

    assert world.health.due() == set()
    assert len(world.told) == 1
