"""Background work: a failure is told and does not end a job, and stopping ends everything."""

import asyncio
import logging

import pytest

from lingpai.jobs.runner import JobRunner


@pytest.fixture
def run():
    """Runs a test's coroutine with a runner, and stops it."""

    def run(test):
        async def with_runner():
            jobs = JobRunner()
            try:
                async with asyncio.timeout(10):
                    return await test(jobs)
            finally:
                await jobs.stop()

        return asyncio.run(with_runner())

    return run


class Rounds:
    """Work that counts its rounds and fails in some of them."""

    def __init__(self, *, failing=(), wanted=3):
        self.count = 0
        self.enough = asyncio.Event()
        self._failing = failing
        self._wanted = wanted

    def __call__(self):
        self.count += 1
        if self.count >= self._wanted:
            self.enough.set()
        if self.count in self._failing:
            raise RuntimeError(f"round {self.count}")

    async def asynchronously(self):
        await asyncio.sleep(0)
        self()


def test_work_is_repeated(run):
    async def test(jobs):
        rounds = Rounds()
        jobs.every(0.001, "count", rounds)
        await rounds.enough.wait()

    run(test)


def test_first_round_can_come_sooner_than_the_others(run):
    async def test(jobs):
        rounds = Rounds(wanted=1)
        jobs.every(3600, "count", rounds, first_after=0.001)
        await rounds.enough.wait()
        await asyncio.sleep(0.01)
        return rounds.count

    assert run(test) == 1


@pytest.mark.parametrize("is_async", [False, True])
def test_failing_round_is_logged_and_the_next_one_comes(run, caplog, is_async):
    async def test(jobs):
        rounds = Rounds(failing=(1, 2))
        jobs.every(0.001, "count", rounds.asynchronously if is_async else rounds)
        await rounds.enough.wait()

    run(test)

    failures = [record for record in caplog.records if "count" in record.getMessage()]
    assert len(failures) >= 2
    assert str(failures[0].exc_info[1]) == "round 1"


def test_first_round_comes_after_the_pause(run):
    async def test(jobs):
        rounds = Rounds()
        jobs.every(3600, "count", rounds)
        await asyncio.sleep(0.02)
        return rounds.count

    assert run(test) == 0


def test_stop_cancels_what_runs_and_waits_for_its_end(run):
    ended = []

    async def work():
        try:
            await asyncio.sleep(3600)
        finally:
            await asyncio.sleep(0.01)
            ended.append("cleaned up")

    async def test(jobs):
        task = jobs.start("work", work())
        await asyncio.sleep(0)
        await jobs.stop()
        return task.cancelled()

    assert run(test)
    assert ended == ["cleaned up"]


def test_stop_ends_a_repeated_job(run):
    async def test(jobs):
        rounds = Rounds()
        jobs.every(0.001, "count", rounds)
        await rounds.enough.wait()
        await jobs.stop()
        count = rounds.count
        await asyncio.sleep(0.02)
        return rounds.count - count

    assert run(test) == 0


def test_stop_survives_a_task_that_fails_while_it_is_cancelled(run):
    async def stubborn():
        try:
            await asyncio.sleep(3600)
        finally:
            raise RuntimeError("while cleaning up")

    async def test(jobs):
        jobs.start("stubborn", stubborn())
        await asyncio.sleep(0)
        await jobs.stop()

    run(test)


def test_failed_task_is_reported_at_once_under_its_name(run, caplog):
    async def fail():
        raise RuntimeError("boom")

    async def test(jobs):
        task = jobs.start("load a key", fail())
        await asyncio.wait([task])
        await asyncio.sleep(0)

    run(test)

    (record,) = [record for record in caplog.records if record.name == "lingpai.jobs"]
    assert record.levelno == logging.ERROR
    assert record.getMessage() == "background task load a key failed: boom"


def test_finished_task_is_let_go_and_its_result_kept(run):
    async def work():
        return 5

    async def test(jobs):
        task = jobs.start("work", work())
        result = await task
        await asyncio.sleep(0)
        return result, len(jobs._tasks)

    assert run(test) == (5, 0)
