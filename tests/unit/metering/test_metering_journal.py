"""Answered means recorded: what the journal confirms is in its file."""

import asyncio
import errno
import logging
import os
import threading
from pathlib import Path

import msgspec
import pytest

from lingpai.metering import journal as journal_module
from lingpai.metering.journal import Journal
from lingpai.metering.reader import JournalReader
from lingpai.metering.segments import START, list_segments
from lingpai.metering.settings import MeteringSettings


class Disk:
    """Writes and syncs for real until told that there is no more room or that the disk is broken."""

    def __init__(self) -> None:
        self.room: int | None = None
        self.broken = False
        self.written: list[int] = []
        self.synced: list[int] = []
        self.may_sync = threading.Event()
        self.may_sync.set()

    def write(self, descriptor: int, data: bytes) -> int:
        if self.room == 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        if self.room is not None:
            data = data[: self.room]
            self.room -= len(data)
        self.written.append(len(data))
        return os.write(descriptor, data)

    def fsync(self, descriptor: int) -> None:
        self.may_sync.wait(5)
        if self.broken:
            raise OSError(errno.EIO, "Input/output error")
        os.fsync(descriptor)
        self.synced.append(descriptor)


@pytest.fixture
def disk():
    return Disk()


@pytest.fixture
def run(journal_directory, disk):
    """Runs a scenario with an open journal and closes it."""

    def run_scenario(scenario, **settings):
        async def main():
            settings.setdefault("fsync", "never")
            loop = asyncio.get_running_loop()
            journal = Journal(
                journal_directory, loop, MeteringSettings(**settings), write=disk.write, fsync=disk.fsync
            )
            try:
                return await scenario(journal)
            finally:
                disk.may_sync.set()
                journal.close()
                await asyncio.sleep(0)

        return asyncio.run(main())

    return run_scenario


def recorded(directory) -> list[str]:
    """The request ids in the journal, as the ingester would read them."""
    reader = JournalReader(directory, START, report=pytest.fail)
    found = [record.request_id for record in iter(reader.read, []) for record in record]
    reader.close()
    return found


async def turns(count: int = 2) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


async def until(condition) -> None:
    async with asyncio.timeout(5):
        while not condition():
            await asyncio.sleep(0.005)


def test_records_of_one_turn_go_out_in_one_write_and_then_the_callbacks_run_in_order(
    run, disk, make_record, journal_directory
):
    """When a callback runs, every record of that turn is in the file already."""
    seen = []

    async def scenario(journal):
        for name in "abc":
            journal.append(
                make_record(request_id=name),
                lambda ok, name=name: seen.append((name, ok, recorded(journal_directory))),
            )
        assert seen == []
        await turns()

    run(scenario)

    everything = ["a", "b", "c"]
    assert seen == [("a", True, everything), ("b", True, everything), ("c", True, everything)]
    assert len(disk.written) == 1


def test_the_position_is_the_end_of_what_is_written(run, make_record, journal_directory):
    """It moves with the write, not with the append, and matches the file."""

    async def scenario(journal):
        before = journal.position
        journal.append(make_record(), lambda ok: None)
        assert journal.position == before
        await turns()
        size = max(journal_directory.glob("*.journal")).stat().st_size
        assert journal.position == (before[0], size) > before

    run(scenario)


def test_a_callback_that_fails_does_not_keep_the_others_from_running(run, make_record):
    """The loop's exception handler hears of it; the other answers go out."""
    told, answers = [], []

    def fail(ok):
        raise RuntimeError("this answer cannot be sent")

    async def scenario(journal):
        asyncio.get_running_loop().set_exception_handler(
            lambda loop, context: told.append(context["exception"])
        )
        journal.append(make_record(), fail)
        journal.append(make_record(), answers.append)
        await turns()

    run(scenario)

    assert answers == [True]
    assert [str(error) for error in told] == ["this answer cannot be sent"]


def test_a_callback_may_append_the_next_record(run, make_record, journal_directory):
    """It goes out with the next turn."""

    async def scenario(journal):
        journal.append(
            make_record(request_id="a"),
            lambda ok: journal.append(make_record(request_id="b"), lambda ok: None),
        )
        await turns(4)

    run(scenario)

    assert recorded(journal_directory) == ["a", "b"]


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"prompt_tokens": 2**64}, OverflowError),
        ({"model": "\ud800"}, UnicodeEncodeError),
        ({"model": "x" * 70_000}, ValueError),
    ],
)
def test_a_record_that_cannot_be_written_is_refused_without_harm_to_others(
    run, make_record, journal_directory, changes, error
):
    """The caller that made it gets the exception; records before and after are kept."""

    async def scenario(journal):
        journal.append(make_record(request_id="a"), lambda ok: None)
        with pytest.raises(error):
            journal.append(make_record(**changes), lambda ok: None)
        journal.append(make_record(request_id="b"), lambda ok: None)
        await turns()

    run(scenario)

    assert recorded(journal_directory) == ["a", "b"]


def test_a_full_disk_refuses_the_records_and_later_ones_are_recorded_again(
    run, disk, make_record, journal_directory, monkeypatch
):
    """`then(False)`, `healthy` False until a probe has worked, nothing torn in the file."""
    monkeypatch.setattr(journal_module, "_PROBE_INTERVAL_S", 0.01)
    answers = []

    async def scenario(journal):
        disk.room = 0
        journal.append(make_record(request_id="a"), answers.append)
        await turns()
        assert not journal.healthy
        disk.room = None
        journal.append(make_record(request_id="b"), answers.append)
        await turns()
        assert not journal.healthy  # one record that fits is no room yet
        await until(lambda: journal.healthy)

    run(scenario)

    assert answers == [False, True]
    assert recorded(journal_directory) == ["b"]


def test_records_that_fit_before_the_disk_was_full_count_and_the_torn_one_is_cut_off(
    run, disk, make_record, journal_directory
):
    """The ingester may have loaded the whole ones already, so they stay and their calls are answered."""
    answers = []

    async def scenario(journal):
        size = 8 + len(msgspec.msgpack.encode(make_record(request_id="a")))
        disk.room = 2 * size + size // 2
        for name in "abc":
            journal.append(make_record(request_id=name), answers.append)
        await turns()
        disk.room = None
        journal.append(make_record(request_id="d"), answers.append)
        await turns()

    run(scenario)

    assert answers == [True, True, False, True]
    assert recorded(journal_directory) == ["a", "b", "d"]


def test_a_short_write_is_completed(run, disk, make_record, journal_directory):
    """A write may take a part only, without an error."""
    answers = []

    async def scenario(journal):
        whole = disk.write
        journal._write = lambda descriptor, data: whole(descriptor, data[:50])
        journal.append(make_record(request_id="a"), answers.append)
        await turns()

    run(scenario)

    assert answers == [True]
    assert recorded(journal_directory) == ["a"]


def test_a_segment_that_cannot_be_truncated_is_left_behind(
    run, disk, make_record, journal_directory, monkeypatch
):
    """The next records go to a new segment; the torn frame is damage that the reader skips."""
    answers, damage = [], []

    def no_truncate(descriptor, size):
        raise OSError(errno.EIO, "Input/output error")

    async def scenario(journal):
        monkeypatch.setattr(journal_module.os, "ftruncate", no_truncate)
        disk.room = 30
        journal.append(make_record(request_id="a"), answers.append)
        await turns()
        disk.room = None
        journal.append(make_record(request_id="b"), answers.append)
        await turns()

    run(scenario)

    reader = JournalReader(journal_directory, START, report=damage.append)
    assert [record.request_id for record in reader.read()] == ["b"]
    reader.close()
    assert answers == [False, True]
    assert len(damage) == 1


def test_health_comes_back_by_itself(run, disk, make_record, caplog, monkeypatch):
    """A server that turns every call away would otherwise never find out that there is room again."""
    monkeypatch.setattr(journal_module, "_PROBE_INTERVAL_S", 0.01)

    async def scenario(journal):
        disk.room = 0
        journal.append(make_record(), lambda ok: None)
        await turns()
        await asyncio.sleep(0.03)
        assert not journal.healthy
        disk.room = None
        await until(lambda: journal.healthy)

    run(scenario)

    assert ["No space left" in caplog.messages[0], "again" in caplog.messages[1]] == [True, True]


@pytest.mark.parametrize("fsync", ["always", "interval"])
def test_a_disk_that_writes_but_does_not_sync_is_not_healthy_in_between(
    run, disk, make_record, monkeypatch, fsync
):
    """Writing into the page cache works on a broken disk; only a probe that was synced says that it is whole."""
    monkeypatch.setattr(journal_module, "_PROBE_INTERVAL_S", 0.005)
    monkeypatch.setattr(journal_module, "_SYNC_INTERVAL_S", 0.005)
    answers = []

    async def scenario(journal):
        disk.broken = True
        journal.append(make_record(), answers.append)
        await until(lambda: not journal.healthy)
        for _ in range(20):
            journal.append(make_record(), answers.append)
            await asyncio.sleep(0.005)
            assert not journal.healthy
        disk.broken = False
        await until(lambda: journal.healthy)
        journal.append(make_record(), answers.append)
        await until(lambda: len(answers) == 22)

    run(scenario, fsync=fsync)

    assert answers == ([None] * 21 if fsync == "always" else [True] * 21) + [True]


def test_a_probe_that_hangs_does_not_hold_the_loop_and_close_waits_for_it(
    run, disk, make_record, monkeypatch
):
    """A broken disk may take its time to say so."""
    monkeypatch.setattr(journal_module, "_PROBE_INTERVAL_S", 0.001)

    async def scenario(journal):
        disk.broken = True
        journal.append(make_record(), lambda ok: None)
        await until(lambda: not journal.healthy)
        disk.may_sync.clear()
        await asyncio.sleep(0.02)
        assert not journal.healthy

    run(scenario, fsync="always")


def test_when_the_folder_cannot_be_opened_the_segment_in_use_stays_the_newest(
    run, disk, make_record, journal_directory, monkeypatch
):
    """Out of descriptors. A newer segment would lead the reader away from the one that is written to."""
    real_open = os.open

    def no_more_descriptors(path, flags, *rest):
        if flags & os.O_DIRECTORY:
            raise OSError(errno.EMFILE, "Too many open files")
        return real_open(path, flags, *rest)

    async def scenario(journal):
        monkeypatch.setattr(journal_module.os, "open", no_more_descriptors)
        for number in range(10):
            journal.append(make_record(request_id=str(number)), lambda ok: None)
            await turns()
        assert len(list_segments(journal_directory)) == 1
        monkeypatch.undo()
        journal.append(make_record(request_id="10"), lambda ok: None)
        await turns()

    run(scenario, fsync="interval", segment_bytes=200)

    assert recorded(journal_directory) == [str(number) for number in range(11)]


def test_a_torn_segment_without_a_successor_takes_nothing(
    run, disk, make_record, journal_directory, monkeypatch
):
    """Not even when writing works again: what comes behind a torn frame could be lost with it."""
    monkeypatch.setattr(journal_module, "_PROBE_INTERVAL_S", 0.005)
    answers = []

    def no_truncate(descriptor, size):
        raise OSError(errno.EIO, "Input/output error")

    def no_segment(directory, salt):
        raise OSError(errno.ENOSPC, "No space left on device")

    async def scenario(journal):
        monkeypatch.setattr(journal_module.os, "ftruncate", no_truncate)
        disk.room = 30
        journal.append(make_record(request_id="a"), answers.append)
        await turns()
        disk.room = None
        with monkeypatch.context() as full:
            full.setattr(journal_module, "create_segment", no_segment)
            journal.append(make_record(request_id="b"), answers.append)
            await asyncio.sleep(0.05)
            assert not journal.healthy
        await until(lambda: journal.healthy)
        journal.append(make_record(request_id="c"), answers.append)
        await turns()

    run(scenario)

    assert answers == [False, False, True]


def test_what_a_killed_process_began_is_removed(run, journal_directory):
    """A segment without a name and a probe hold nothing."""
    for name in ("000000000000001.new", "probe"):
        (journal_directory / name).write_bytes(b"LPUS")

    async def scenario(journal):
        assert journal.written == 0

    run(scenario)

    assert [path.suffix for path in journal_directory.iterdir()] == [".journal"]


def test_a_full_segment_is_followed_by_a_new_one(run, make_record, journal_directory):
    """Records go on in order across segments."""

    async def scenario(journal):
        for number in range(20):
            journal.append(make_record(request_id=str(number)), lambda ok: None)
            await turns()

    run(scenario, segment_bytes=500)

    assert len(list_segments(journal_directory)) > 3
    assert recorded(journal_directory) == [str(number) for number in range(20)]


def test_every_start_begins_a_new_segment(run, make_record, journal_directory):
    """A torn tail that a crash left is then at the end of a segment that nobody writes to."""

    async def scenario(journal):
        journal.append(make_record(), lambda ok: None)

    run(scenario)
    run(scenario)

    assert len(list_segments(journal_directory)) == 2


def test_close_writes_what_is_pending(run, make_record, journal_directory):
    """And answers it."""
    answers = []

    async def scenario(journal):
        journal.append(make_record(request_id="a"), answers.append)

    run(scenario)

    assert answers == [True]
    assert recorded(journal_directory) == ["a"]


def test_after_close_nothing_is_confirmed(run, make_record):
    """A record that comes too late is not recorded, and its caller learns it."""
    answers = []

    async def scenario(journal):
        late.append(journal)

    late = []
    run(scenario)

    async def append_late():
        journal = late[0]
        journal._loop = asyncio.get_running_loop()
        journal.append(make_record(), answers.append)
        await turns()

    asyncio.run(append_late())
    assert answers == [False]


def test_always_confirms_after_the_sync_in_groups_and_in_order(run, disk, make_record):
    """While one sync runs, what comes meanwhile waits for the next, together."""
    answers = []

    async def scenario(journal):
        disk.may_sync.clear()
        for name in "abcd":
            journal.append(make_record(), lambda ok, name=name: answers.append((name, ok)))
            await turns()
        await asyncio.sleep(0.02)
        assert answers == []
        disk.may_sync.set()
        await until(lambda: len(answers) == 4)

    run(scenario, fsync="always")

    assert answers == [("a", True), ("b", True), ("c", True), ("d", True)]


def test_always_refuses_when_the_disk_does_not_sync_and_goes_on_in_a_new_segment(
    run, disk, make_record, journal_directory
):
    """After a failed sync the same file could call lost pages clean."""
    answers = []

    async def scenario(journal):
        first = journal.position[0]
        disk.broken = True
        journal.append(make_record(), answers.append)
        await until(lambda: answers)
        assert not journal.healthy
        disk.broken = False
        journal.append(make_record(), answers.append)
        await until(lambda: len(answers) == 2)
        assert journal.position[0] > first

    run(scenario, fsync="always")

    assert answers == [None, True]


def test_always_answers_on_close(run, disk, make_record):
    """What waits for a sync is synced and answered before close returns."""
    answers = []

    async def scenario(journal):
        for name in "ab":
            journal.append(make_record(), lambda ok, name=name: answers.append((name, ok)))
            await turns()

    run(scenario, fsync="always")

    assert answers == [("a", True), ("b", True)]


def test_interval_confirms_at_once_and_syncs_later_in_another_thread(run, disk, make_record, monkeypatch):
    """A slow disk does not hold the event loop."""
    monkeypatch.setattr(journal_module, "_SYNC_INTERVAL_S", 0.01)
    answers = []

    async def scenario(journal):
        disk.may_sync.clear()
        journal.append(make_record(), answers.append)
        await turns()
        assert answers == [True]
        await asyncio.sleep(0.03)
        assert disk.synced == []
        disk.may_sync.set()
        await until(lambda: disk.synced)

    run(scenario, fsync="interval")


def test_interval_notices_a_broken_disk(run, disk, make_record, monkeypatch):
    """The server turns calls away rather than lose a second's records again and again."""
    monkeypatch.setattr(journal_module, "_SYNC_INTERVAL_S", 0.01)

    async def scenario(journal):
        disk.broken = True
        journal.append(make_record(), lambda ok: None)
        await until(lambda: not journal.healthy)

    run(scenario, fsync="interval")


def test_segments_left_behind_are_synced_and_closed(run, disk, make_record, journal_directory):
    """Rotation loses no sync: one for each segment, and no descriptor stays open."""
    before = len(list(Path("/proc/self/fd").iterdir()))

    async def scenario(journal):
        for _ in range(10):
            journal.append(make_record(), lambda ok: None)
            await turns()

    run(scenario, fsync="interval", segment_bytes=200)

    segments = len(list_segments(journal_directory))
    assert segments >= 5
    assert len(disk.synced) == 2 * segments  # each segment, and the folder once for each
    assert len(list(Path("/proc/self/fd").iterdir())) <= before


def test_the_log_says_what_happened_once(run, disk, make_record, caplog):
    """A full disk under load does not fill the log as well."""

    async def scenario(journal):
        disk.room = 0
        for _ in range(5):
            journal.append(make_record(), lambda ok: None)
            await turns()

    with caplog.at_level(logging.WARNING, "lingpai.metering"):
        run(scenario)

    assert len(caplog.messages) == 1
