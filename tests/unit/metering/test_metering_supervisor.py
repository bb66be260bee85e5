"""The ingester is kept running, and waiting for it needs no polling."""

import asyncio
import os
import signal
import sys
from types import SimpleNamespace

import pytest
import uvloop

from lingpai.metering import supervisor as supervisor_module
from lingpai.metering.supervisor import IngesterProcess


@pytest.fixture(params=[asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def run(request, journal_directory, database, database_path):
    """Runs a scenario with an ingester and stops it, on the loop of the standard library and on the server's."""

    def run_scenario(scenario):
        async def main():
            ingester = IngesterProcess(journal_directory, database_path)
            await ingester.start()
            try:
                await scenario(ingester)
            finally:
                await ingester.stop()

        with asyncio.Runner(loop_factory=request.param) as runner:
            runner.run(main())

    return run_scenario


def end_of(path):
    return int(path.stem), path.stat().st_size


async def child_of(ingester) -> int:
    async with asyncio.timeout(5):
        while ingester.pid is None:
            await asyncio.sleep(0.005)
    return ingester.pid


def test_waiting_ends_when_the_ingester_reports_the_position(run, write_segment, make_record):
    """Several may wait for several positions."""
    old = write_segment([make_record()])
    new = write_segment([make_record()])
    ends = [end_of(path) for path in (new, old, old)]

    async def scenario(ingester):
        assert await asyncio.gather(*(ingester.wait_for(end, 10) for end in ends)) == [True, True, True]
        assert ingester.position == ends[0]
        assert await ingester.wait_for(ends[1], 0) is True

    run(scenario)


def test_waiting_is_bounded(run):
    """A position that does not come is answered with False, and forgotten."""

    async def scenario(ingester):
        assert await ingester.wait_for((9**15, 0), 0.05) is False
        assert ingester._waiting == []

    run(scenario)


def test_a_killed_ingester_is_started_again_and_says_so(run, write_segment, make_record, caplog, monkeypatch):
    """Who waits meanwhile gets the answer from the next one."""
    monkeypatch.setattr(supervisor_module, "_FIRST_DELAY_S", 0.01)

    newest = write_segment([make_record()])

    async def scenario(ingester):
        first = await child_of(ingester)
        os.kill(first, signal.SIGKILL)
        assert await ingester.wait_for(end_of(newest), 10)
        assert ingester.pid != first

    run(scenario)

    assert any("exit status -9" in message for message in caplog.messages)


@pytest.fixture(params=["print('1 2 three 4')", "sys.stderr.write('x' * 200_000)"], ids=["stdout", "stderr"])
def nonsense(request, monkeypatch, tmp_path):
    """The first ingester says what nobody can read, and would live for ever; a file with its process id."""
    said = (
        f"import os, sys, time; open('pid', 'w').write(str(os.getpid())); {request.param}; sys.stdout.flush()"
    )
    program = tmp_path / "python"
    program.write_text(
        f"""#!/bin/sh
cd {tmp_path}
[ -e pid ] || exec {sys.executable} -c "{said}; time.sleep(99)"
exec {sys.executable} "$@"
"""
    )
    program.chmod(0o755)
    monkeypatch.setattr(supervisor_module, "sys", SimpleNamespace(executable=str(program)))
    monkeypatch.setattr(supervisor_module, "_FIRST_DELAY_S", 0.01)
    return tmp_path / "pid"


def test_ingester_that_says_what_cannot_be_read_is_replaced(
    run, nonsense, write_segment, make_record, caplog
):
    """Records are loaded all the same."""
    newest = write_segment([make_record()])

    async def scenario(ingester):
        assert await ingester.wait_for(end_of(newest), 10)

    run(scenario)

    assert any("it was stopped: ValueError" in message for message in caplog.messages)
    with pytest.raises(ProcessLookupError):
        os.kill(int(nonsense.read_text()), 0)


def test_what_the_ingester_says_is_logged(run, write_segment, make_record, caplog):
    """And the number of damaged places is known."""
    torn = write_segment([make_record(), make_record()])
    torn.write_bytes(torn.read_bytes()[:-3])
    newest = write_segment([])

    async def scenario(ingester):
        assert await ingester.wait_for(end_of(newest), 10)
        assert (ingester.skipped, ingester.loaded) == (1, 1)

    run(scenario)

    assert [record.name for record in caplog.records if "is damaged" in record.message] == [
        "lingpai.metering"
    ]


def test_figures_go_on_after_the_ingester_was_killed(run, write_segment, make_record, monkeypatch):
    """A counter that jumps back would be a fall in every chart."""
    monkeypatch.setattr(supervisor_module, "_FIRST_DELAY_S", 0.01)

    def write_damaged():
        path = write_segment([make_record(), make_record()])
        path.write_bytes(path.read_bytes()[:-3])
        return write_segment([])

    async def scenario(ingester):
        assert await ingester.wait_for(end_of(await asyncio.to_thread(write_damaged)), 10)
        os.kill(await child_of(ingester), signal.SIGKILL)
        assert await ingester.wait_for(end_of(await asyncio.to_thread(write_damaged)), 10)
        assert (ingester.skipped, ingester.loaded) == (2, 2)

    run(scenario)


def test_stop_loads_what_is_there_first(
    journal_directory, database, database_path, write_segment, make_record
):
    """A graceful stop leaves nothing for the next start."""
    newest = write_segment([make_record()])

    async def scenario():
        ingester = IngesterProcess(journal_directory, database_path)
        await ingester.start()
        pid = await child_of(ingester)
        await ingester.stop()
        return ingester.position, pid

    position, pid = asyncio.run(scenario())

    assert position == end_of(newest)
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_stop_before_and_right_after_start_works(journal_directory, database, database_path):
    """A server may be stopped while it starts."""

    async def scenario():
        ingester = IngesterProcess(journal_directory, database_path)
        await ingester.stop()
        ingester = IngesterProcess(journal_directory, database_path)
        await ingester.start()
        async with asyncio.timeout(8):
            await ingester.stop()
        assert ingester.pid is None

    asyncio.run(scenario())
