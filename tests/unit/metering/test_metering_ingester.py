"""The ingester as a real process: every record exactly once, whatever is killed when."""

import asyncio
import fcntl
import random
import select
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from zlib import crc32

import msgspec
import pytest

from lingpai.metering.framing import pack_frame_header, unpack_header
from lingpai.metering.journal import Journal
from lingpai.metering.segments import list_segments
from lingpai.metering.settings import MeteringSettings


class Child:
    """An ingester and the pipes to it."""

    def __init__(self, directory, database_path, setting="") -> None:
        code = f"import sys; from lingpai.metering import ingester, loader; loader.{setting}; sys.exit(ingester.main())"
        program = ["-c", code] if setting else ["-m", "lingpai.metering.ingester"]
        command = [sys.executable, *program, str(directory), str(database_path)]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, bufsize=0
        )

    def wait_for(self, position, timeout=10.0) -> None:
        """Read progress until the position is reached."""
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            if select.select([self.process.stdout], [], [], 0.1)[0]:
                line = self.process.stdout.readline()
                if not line:
                    break
                if tuple(map(int, line.split()[:2])) >= position:
                    return
        raise AssertionError(f"the ingester did not get to {position}")

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def finish(self) -> int:
        """Close its stdin, as the death of the server does, and wait for its end."""
        self.process.stdin.close()
        return self.process.wait(10)

    def wait_for_words(self, words: str) -> None:
        assert select.select([self.process.stderr], [], [], 10)[0]
        assert words in self.process.stderr.readline().decode()


@pytest.fixture
def start(journal_directory, database, database_path):
    children = []

    def start_one(setting="") -> Child:
        children.append(Child(journal_directory, database_path, setting))
        return children[-1]

    yield start_one
    for child in children:
        child.kill()
        for pipe in (child.process.stdin, child.process.stdout, child.process.stderr):
            pipe.close()


@pytest.fixture
def loaded(database_path):
    """The request ids in the table, in order; the roll-ups must add up to as many."""

    def ids() -> list[str]:
        with closing(sqlite3.connect(database_path)) as connection:
            connection.execute("BEGIN")
            found = [row[0] for row in connection.execute("SELECT request_id FROM usage_records ORDER BY id")]
            total = connection.execute("SELECT coalesce(sum(requests), 0) FROM usage_rollups").fetchone()[0]
        assert total == len(found)
        return found

    return ids


@pytest.fixture
def records(make_record):
    return lambda *ids: [make_record(request_id=str(each)) for each in ids]


def end_of(path):
    return int(path.stem), path.stat().st_size


def test_it_loads_what_is_there_and_what_comes_and_deletes_finished_segments(
    start, write_segment, records, loaded, journal_directory
):
    """Only the newest segment stays."""
    write_segment(records("a", "b"))
    child = start()
    newest = write_segment(records("c"))

    child.wait_for(end_of(newest))

    assert loaded() == ["a", "b", "c"]
    assert list_segments(journal_directory) == [int(newest.stem)]


def test_when_the_server_dies_it_loads_what_is_there_and_ends(start, write_segment, records, loaded):
    """The pipe's end is all it hears of a kill -9."""
    child = start()
    write_segment(records("a", "b"))

    assert child.finish() == 0

    assert loaded() == ["a", "b"]


def test_a_torn_tail_is_reported_and_the_rest_is_loaded(start, write_segment, records, loaded, database_path):
    """Once a new server has begun a new segment; the database knows of it as well, once."""
    torn = write_segment(records("a", "b"))
    torn.write_bytes(torn.read_bytes()[:-3])
    write_segment(records("c"))

    child = start()
    child.wait_for_words("is damaged")

    assert child.finish() == 0
    assert start().finish() == 0
    assert loaded() == ["a", "c"]
    with closing(sqlite3.connect(database_path)) as connection:
        ((segment, description),) = connection.execute("SELECT segment, description FROM usage_damage")
    assert segment == int(torn.stem)
    assert "is damaged" in description


_EXIT = "sys.modules['os']._exit(9)"
_DIES = {
    "before": f"SqliteLoader.load = lambda *_, **__: {_EXIT}",
    "after": f"SqliteLoader.load = (lambda load: lambda *a, **k: (load(*a, **k), {_EXIT}))(loader.SqliteLoader.load)",
    "never": "",
}
"""What kills an ingester before or after it has stored something."""


@pytest.mark.parametrize("dies", _DIES)
def test_a_segment_without_a_header_is_set_aside_once_the_database_knows_of_it(
    start, write_segment, records, database_path, dies
):
    """Its contents may be good, so a person should look at it; a kill before or after that is stored makes no difference."""
    bad = write_segment(records("a"))
    bad.write_bytes(bytes(20) + bad.read_bytes()[20:])
    newest = write_segment(records("b"))
    child = start(_DIES[dies])
    if dies != "never":
        child.process.wait(10)
        child = start()

    child.wait_for(end_of(newest))

    with closing(sqlite3.connect(database_path)) as connection:
        [(segment, words)] = connection.execute("SELECT segment, description FROM usage_damage").fetchall()
        stored = connection.execute("SELECT request_id FROM usage_records").fetchall()
    assert (segment, bad.with_suffix(".unreadable").name in words) == (int(bad.stem), True)
    assert [path.name for path in bad.parent.glob("*.unreadable")] == [bad.with_suffix(".unreadable").name]
    assert stored == [("b",)]


def test_segments_that_a_killed_ingester_left_are_deleted(
    start, write_segment, records, loaded, journal_directory
):
    """It had loaded them and was killed before it could."""
    first = write_segment(records("a"))
    kept = first.read_bytes()
    newest = write_segment(records("b"))
    assert start().finish() == 0
    first.write_bytes(kept)

    assert start().finish() == 0

    assert list_segments(journal_directory) == [int(newest.stem)]
    assert loaded() == ["a", "b"]


def test_a_segment_that_cannot_be_read_is_told_and_tried_at_the_next_start(
    start, write_segment, records, loaded, journal_directory
):
    """A disk may come back; nothing is skipped that was not read."""
    path = write_segment(records("a"))
    whole = path.read_bytes()
    path.unlink()
    path.mkdir()
    child = start()
    child.wait_for_words("Is a directory")
    assert child.process.wait(10) == 1

    path.rmdir()
    path.write_bytes(whole)

    assert start().finish() == 0
    assert loaded() == ["a"]


def test_records_of_the_release_before_are_loaded(
    start, write_segment, journal_directory, loaded, make_record
):
    """They were in the journal while the server was upgraded: their new fields have their defaults."""
    path = write_segment([])
    fields = list(msgspec.structs.astuple(make_record(request_id="old")))[:20]
    payload = msgspec.msgpack.encode(fields)
    salt = unpack_header(path.read_bytes())
    with path.open("ab") as file:
        file.write(pack_frame_header(len(payload), crc32(payload, salt)) + payload)

    assert start().finish() == 0

    assert loaded() == ["old"]


def test_signals_meant_for_the_server_do_not_end_it(start, write_segment, records, loaded):
    """Ctrl-C reaches every process of a terminal."""
    child = start()
    child.wait_for((0, 0))
    child.process.send_signal(signal.SIGINT)
    child.process.send_signal(signal.SIGTERM)

    newest = write_segment(records("a"))
    child.wait_for(end_of(newest))

    assert loaded() == ["a"]


def test_a_second_ingester_waits_for_the_first(start, write_segment, records, loaded, journal_directory):
    """A new server may start while the old one's ingester still works."""
    with (journal_directory / "ingester.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        newest = write_segment(records("a"))
        child = start()
        child.wait_for_words("waiting for another ingester")
        assert loaded() == []

    child.wait_for(end_of(newest))

    assert loaded() == ["a"]


def test_an_ingester_that_waits_for_another_ends_with_its_server(start, journal_directory):
    """It has nothing to do: the other one loads everything."""
    with (journal_directory / "ingester.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        child = start()
        child.wait_for_words("waiting for another ingester")

        assert child.finish() == 0


def test_a_database_that_does_not_work_is_tried_again(start, write_segment, records, loaded, database_path):
    """The journal holds meanwhile."""
    newest = write_segment(records("a"))
    aside = database_path.with_suffix(".aside")
    database_path.rename(aside)
    child = start()
    child.wait_for_words("cannot load usage records")

    aside.rename(database_path)
    child.wait_for(end_of(newest))

    assert loaded() == ["a"]


def test_a_locked_database_is_waited_for(start, write_segment, records, loaded, database_path):
    """Another writer may take its time, longer than a statement waits; what is killed meanwhile has loaded nothing."""
    newest = write_segment(records("a", "b"))
    with closing(sqlite3.connect(database_path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        child = start()
        child.wait_for((0, 0))
        time.sleep(0.1)
        child.kill()
        assert loaded() == []
        child = start("_BUSY_TIMEOUT_S = 0.05")
        child.wait_for_words("database is locked")
        other.execute("ROLLBACK")

    child.wait_for(end_of(newest))

    assert loaded() == ["a", "b"]


def test_killed_at_any_moment_every_record_arrives_exactly_once(
    start, journal_directory, make_record, loaded, new_seed
):
    """Kill -9 again and again while records are written and segments come and go."""
    dice = random.Random(new_seed)
    count = 0

    async def write_some(journal, until):
        nonlocal count
        while time.monotonic() < until:
            for _ in range(20):
                journal.append(make_record(request_id=str(count)), lambda recorded: None)
                count += 1
            await asyncio.sleep(0.001)

    async def scenario():
        settings = MeteringSettings(fsync="never", segment_bytes=40_000)
        journal = Journal(journal_directory, asyncio.get_running_loop(), settings)
        for _ in range(20):
            child = start()
            await write_some(journal, time.monotonic() + dice.uniform(0.02, 0.25))
            child.kill()
        journal.close()
        return journal.position

    end = asyncio.run(scenario())
    last = start()
    last.wait_for(end)

    assert loaded() == [str(number) for number in range(count)]
    assert len(list_segments(journal_directory)) == 1


_SERVER = """
import asyncio, os, sys
from pathlib import Path
from lingpai.metering.journal import Journal
from lingpai.metering.records import UsageRecord
from lingpai.metering.settings import MeteringSettings

async def main():
    journal = Journal(Path(sys.argv[1]), asyncio.get_running_loop(), MeteringSettings(segment_bytes=30_000))
    number = 0
    while True:
        for _ in range(10):
            record = UsageRecord(f"{sys.argv[2]}-{number}", "k", "u", "m", "b", "chat", "/", 1.8e9, None, 1.0,
                                 1, 1, 0, 0, "reported", 200, "complete", 1, 0, "::1")
            answer = b"%d\\n" % number
            journal.append(record, lambda recorded, answer=answer: os.write(1, answer))
            number += 1
        await asyncio.sleep(0)

asyncio.run(main())
"""


def test_answered_means_recorded_when_the_server_is_killed(start, journal_directory, loaded, new_seed):
    """Every answer that left the server is in the table, each record once, over several kills of both."""
    dice = random.Random(new_seed)
    answered = []
    for round_ in range(3):
        command = [sys.executable, "-c", _SERVER, str(journal_directory), str(round_)]
        with subprocess.Popen(command, stdout=subprocess.PIPE) as server:
            server.stdout.readline()  # it serves
            child = start()
            time.sleep(dice.uniform(0.0, 0.1))
            child.kill()
            server.kill()
            lines = server.stdout.read().split(b"\n")[:-1]
        answered += [f"{round_}-{int(line)}" for line in [b"0", *lines]]

    last = start()
    assert last.finish() == 0

    found = loaded()
    assert len(found) == len(set(found))
    assert set(answered) <= set(found)


def test_wrong_usage_says_how_to_call_it():
    """It is not meant to be called by people, but they will."""
    command = [sys.executable, "-m", "lingpai.metering.ingester"]
    done = subprocess.run(command, check=False, capture_output=True, text=True)

    assert done.returncode == 2
    assert "DIRECTORY" in done.stderr
