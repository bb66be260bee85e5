"""A full disk under a running server: calls are turned away, nothing is lost or doubled, and it recovers by itself.

The disk is a real one of 24 MB where processes may mount one in a namespace of their own (`unshare`), and otherwise a
limit on the size of files (RLIMIT_FSIZE), set from outside while the server runs. Which of them it was is printed, and
is part of the tests' names.
"""

import asyncio
import collections
import contextlib
import json
import os
import resource
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Protocol

import pytest

from tests.e2e import bookkeeping
from tests.e2e.conftest import MakeServer
from tests.e2e.lingpai_server import LingpaiServer, read_records
from tests.e2e.load import read_unary
from tests.e2e.processes import children_of, is_alive
from tests.e2e.raw_http import RawAnswer, RawConnection, chat, get, post, post_bytes
from tests.e2e.waiting import wait_until
from tests.fakes.openai_engine import EngineCall, FakeEngine, chunk
from tests.mounts import can_mount

CHAT = "/v1/chat/completions"
MODEL = "fake/chat"
LIMITS = ["5000/month", "200000 tokens/month", "4 USD/month", "50 concurrent"]
DISK_BYTES = 24 * 2**20
JOURNAL_BYTES = 4 * 2**20

CONFIG = """
[metering]
usage_wait_s = 1.5

[[models]]
target = "{engine}"
name = "engine"

[models.prices."fake/chat"]
input = "2.5"
output = "10"
currency = "USD"
"""

_MOUNT = """
set -e
mount -t tmpfs -o size={disk} none "$1"
if [ "$2" = apart ]; then mkdir -m 700 "$1/journal"; mount -t tmpfs -o size={journal} none "$1/journal"; fi
echo mounted
exec cat
"""

_READ_ROWS = """
import json, pathlib, sys
from tests.e2e.lingpai_server import read_records
print(json.dumps(read_records(pathlib.Path(sys.argv[1]))))
"""


class Disk(Protocol):
    """Where a server has its data, and how that becomes full."""

    server: LingpaiServer

    def fill(self, *, room: int = 0) -> None:
        """Leave `room` bytes for the journal and the database together."""

    def fill_for_database(self) -> None:
        """Leave no room for the database; the journal has some."""

    def make_room(self) -> None:
        """There is room again."""

    def start_when_full(self) -> subprocess.CompletedProcess[str]:
        """Try to start the server with no room at all, and wait for its end."""

    def rows(self) -> list[dict[str, Any]]:
        """What the usage table has now."""


class MountedDisk:
    """A tmpfs of its own, in a mount namespace that ends with the test."""

    def __init__(self, folder: Path, config: str, *, is_journal_apart: bool) -> None:
        self._place = folder / "data"
        self._place.mkdir(parents=True)
        script = _MOUNT.format(disk=DISK_BYTES, journal=JOURNAL_BYTES)
        # This process keeps the namespace while servers in it are killed; it ends with its standard input.
        self._keeper = subprocess.Popen(
            ["unshare", "-rm", "sh", "-c", script, "sh", str(self._place), "apart" if is_journal_apart else ""],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        )  # fmt: skip
        assert self._keeper.stdout is not None
        assert self._keeper.stdout.readline() == b"mounted\n"
        self._data = Path(f"/proc/{self._keeper.pid}/root{self._place}")
        self.server = MountedServer(folder, self._place, self._data, self._keeper.pid, config)

    def fill(self, *, room: int = 0) -> None:
        state = os.statvfs(self._data)
        ballast = self._data / "ballast"
        size = ballast.stat().st_size if ballast.exists() else 0
        with ballast.open("ab") as file:
            os.posix_fallocate(file.fileno(), 0, max(1, size + state.f_bavail * state.f_frsize - room))

    def fill_for_database(self) -> None:
        self.fill()

    def make_room(self) -> None:
        (self._data / "ballast").unlink()

    def start_when_full(self) -> subprocess.CompletedProcess[str]:
        self.fill()
        return subprocess.run(
            self.server.command(), env=self.server.environment, capture_output=True, text=True, timeout=30,
            check=False,
        )  # fmt: skip

    def rows(self) -> list[dict[str, Any]]:
        return self.server.rows()

    def close(self) -> None:
        """Keep what was on the disk, for the scan for secrets, and let go of it."""
        with contextlib.suppress(FileNotFoundError):
            self.make_room()
        assert self._keeper.stdin is not None
        assert self._keeper.stdout is not None
        try:
            shutil.copytree(self._data, self.server.folder / "kept", ignore=shutil.ignore_patterns("*.sock"))
        finally:
            self._keeper.stdin.close()
            self._keeper.wait(10)
            self._keeper.stdout.close()


class MountedServer(LingpaiServer):
    """A server inside of the namespace of `keeper`. It has its data at `place`, which is `data` from outside."""

    def __init__(self, folder: Path, place: Path, data: Path, keeper: int, config: str) -> None:
        super().__init__(folder, config=config, data=data)
        self._place = place
        self._keeper = keeper

    def command(self) -> list[str]:
        """How it is started."""
        serve = [sys.executable, "-m", "lingpai.cli", "serve", "--data", str(self._place), "--port", "0"]
        return [*self._enter(), "env", "-C", str(self.folder), *serve]

    def _enter(self) -> list[str]:
        return ["nsenter", "-t", str(self._keeper), "-U", "-m", "--preserve-credentials"]

    def rows(self) -> list[dict[str, Any]]:
        """What the usage table has now. Asked inside: SQLite goes by real paths, and those lead to another disk here."""
        command = [*self._enter(), sys.executable, "-c", _READ_ROWS, str(self._place)]
        done = subprocess.run(command, env=self.environment, capture_output=True, text=True, check=True)
        return list(json.loads(done.stdout))

    def launch(self) -> None:
        out_path = self.folder / "stdout.txt"
        self._out_start = out_path.stat().st_size if out_path.exists() else 0
        with out_path.open("ab") as out, (self.folder / "stderr.txt").open("ab") as err:
            self.process = subprocess.Popen(
                self.command(), env=self.environment, stdout=out, stderr=err, stdin=subprocess.DEVNULL
            )


class LimitedDisk:
    """No disk of its own: the server's files cannot grow beyond a limit, which writes meet as they meet a full disk."""

    def __init__(self, folder: Path, config: str) -> None:
        self.server = LingpaiServer(folder, config=config)

    def fill(self, *, room: int = 0) -> None:
        # The limit is on each file; the journal's is the one that calls write to.
        newest = max((self.server.data / "journal").glob("*.journal"))
        limit = max(newest.stat().st_size + room, (self.server.folder / "stderr.txt").stat().st_size + 4000)
        for pid in self._pids():
            _set_limit(pid, limit)

    def fill_for_database(self) -> None:
        for pid in self._pids()[1:]:
            _set_limit(pid, 0)

    def make_room(self) -> None:
        for pid in self._pids():
            with contextlib.suppress(ProcessLookupError):  # the server was killed
                _set_limit(pid, resource.RLIM_INFINITY)

    def start_when_full(self) -> subprocess.CompletedProcess[str]:
        return start_with_limit(self.server, 16)  # so much must be possible in the folder for temporary files

    def rows(self) -> list[dict[str, Any]]:
        return read_records(self.server.data)

    def _pids(self) -> list[int]:
        """The server's, and after it the ingester's."""
        assert self.server.process is not None
        children = children_of(self.server.process.pid)
        return [self.server.process.pid, *(pid for pid, command in children.items() if "ingester" in command)]

    def close(self) -> None:
        """Nothing is left to do."""


def start_with_limit(server: LingpaiServer, size: int) -> subprocess.CompletedProcess[str]:
    """Try to start a server whose files cannot grow beyond `size`, and wait for its end."""
    command = [sys.executable, "-m", "lingpai.cli", "serve", "--data", str(server.data), "--port", "0"]
    return subprocess.run(
        command, env=server.environment, cwd=server.folder, capture_output=True, text=True, timeout=30,
        check=False, preexec_fn=lambda: _set_limit(0, size),
    )  # fmt: skip


def _set_limit(pid: int, size: int) -> None:
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))


KIND = "mounted" if can_mount() else "limited"
MakeDisk = Callable[..., Disk]


@pytest.fixture(params=[KIND])
def make_disk(request: pytest.FixtureRequest, tmp_path: Path, engine: FakeEngine) -> Iterator[MakeDisk]:
    """A disk with a server that is not started yet; in a test's name stands which kind it is."""
    disks: list[MountedDisk | LimitedDisk] = []
    print(f"the disk is {request.param}")

    def make(*, is_journal_apart: bool = False) -> Disk:
        config, folder = CONFIG.format(engine=engine.url), tmp_path / f"server-{len(disks)}"
        if request.param == "mounted":
            disks.append(MountedDisk(folder, config, is_journal_apart=is_journal_apart))
        else:
            disks.append(LimitedDisk(folder, config))
        return disks[-1]

    yield make
    for disk in disks:
        if disk.server.process is not None and disk.server.process.poll() is None:
            disk.server.keep_what_it_shows()
            kill_with_ingester(disk.server)
        disk.close()


def kill_with_ingester(server: LingpaiServer) -> None:
    """Kill it, and wait for its children too.

    The ingester ends after its server, and is the last to close the database: that removes files next to it, and makes
    room on the disk.
    """
    children = children_of(server.process.pid)
    server.kill()
    wait_until(lambda: not any(is_alive(pid) for pid in children))


class HeldStreams:
    """Streams that have begun, and end when they are told to."""

    def __init__(self, engine: FakeEngine, port: int, key: str, count: int) -> None:
        self._may_end = threading.Event()
        script = engine.script(self._hold)
        self._connections = [RawConnection(port) for _ in range(count)]
        self.request_ids = []
        for connection in self._connections:
            connection.send(post_bytes(CHAT, chat(stream=True, script=script), key=key))
            _, headers = connection.read_head()
            self.request_ids.append(headers["x-request-id"])
            connection.read_until(b'"word"')

    async def _hold(self, call: EngineCall) -> None:
        await call.stream_head()
        await call.event(chunk(call.json, {"content": "word"}))
        while not self._may_end.is_set():
            await asyncio.sleep(0.005)
        await call.event(chunk(call.json, {"content": "end"}, "stop"))
        await call.event(b"[DONE]")
        await call.chunk(b"")

    def end(self) -> dict[str, bytes]:
        """Let them end; what still came of each, by request id."""
        self._may_end.set()
        rests = [_read_stream_end(connection) for connection in self._connections]
        for connection in self._connections:
            connection.close()
        return dict(zip(self.request_ids, rests, strict=True))


def _read_stream_end(connection: RawConnection) -> bytes:
    """What comes until the stream ends, properly or by a close."""
    data = b""
    while not data.endswith(b"\r\n0\r\n\r\n") and (piece := connection.receive()):
        data += piece
    return data


def call_until_refused(server: LingpaiServer, key: str, *, most: int = 4000) -> tuple[list[str], RawAnswer]:
    """Request ids of the answers until there is another one than 200, and that one."""
    answered = []
    with RawConnection(server.port) as connection:
        for _ in range(most):
            connection.send(post_bytes(CHAT, chat(), key=key))
            answer = connection.read_answer()
            if answer.status != 200:
                return answered, answer
            answered.append(answer.headers["x-request-id"])
    raise AssertionError(f"the disk never was full: {len(answered)} calls")


def assert_storage_unavailable(answer: RawAnswer) -> None:
    assert answer.status == 503
    assert answer.error["code"] == "storage_unavailable"
    assert "disk" in answer.error["message"]
    assert "operator" in answer.error["message"]


def check_books(disk: Disk, key: str, answered: list[str]) -> list[dict[str, Any]]:
    """Each answer once, nothing twice, and the limits count what is recorded."""
    bookkeeping.wait_until_free(disk.server, "batch", MODEL)
    records = all_records(disk)
    counts = collections.Counter(each["request_id"] for each in records)
    charged = {each["request_id"] for each in records if each["charged"]}
    assert set(answered) <= set(counts)
    assert [id_ for id_, count in counts.items() if count > 1] == []
    assert charged == set(answered)
    bookkeeping.check_counters(disk.server, {"batch": key}, MODEL, records)
    return records


def all_records(disk: Disk) -> list[dict[str, Any]]:
    """The usage table, once everything answered until now has reached it."""
    disk.server.admin("GET", "/api/v1/usage")  # answers when everything is loaded
    return disk.rows()


def test_full_disk_turns_calls_away_until_there_is_room(make_disk: MakeDisk, engine: FakeEngine):
    """Answered calls are recorded once, new ones get a 503 with the reason, streams break off; then it goes on."""
    disk = make_disk()
    server = disk.server.start()
    key = server.make_key("batch", limits=LIMITS)
    answered = [post(server.port, CHAT, chat(), key=key).headers["x-request-id"] for _ in range(20)]
    streams = HeldStreams(engine, server.port, key, 4)

    disk.fill(room=100_000)
    until_full, withheld = call_until_refused(server, key)
    answered += until_full
    refused = [post(server.port, CHAT, chat(stream=number % 2 == 0), key=key) for number in range(20)]
    ready = get(server.port, "/readyz")
    disk.fill()
    ends = streams.end()

    for each in (withheld, *refused):
        assert_storage_unavailable(each)
    assert all(int(each.headers["retry-after"]) > 0 for each in refused)
    assert (ready.status, "usage cannot be recorded" in ready.body.decode()) == (503, True)
    ended = [id_ for id_, rest in ends.items() if rest.endswith(b"0\r\n\r\n")]
    assert len(ended) <= 1  # the last bytes on the disk may be enough for the record of one
    assert all((b"[DONE]" in rest) == (id_ in ended) for id_, rest in ends.items())

    disk.make_room()
    wait_until_it_recovers(server, key, answered)
    answered += ended
    records = check_books(disk, key, answered)
    assert not {each["request_id"] for each in records} & (set(ends) - set(ended))

    answered += [post(server.port, CHAT, chat(), key=key).headers["x-request-id"] for _ in range(20)]
    server.kill()
    server.start()
    check_books(disk, key, answered)


def wait_until_it_recovers(server: LingpaiServer, key: str, answered: list[str]) -> None:
    """Call until there is an answer; it is added to `answered`."""
    deadline = time.monotonic() + 10
    while (answer := post(server.port, CHAT, chat(), key=key)).status != 200:
        assert time.monotonic() < deadline, answer
        time.sleep(0.05)
    answered.append(answer.headers["x-request-id"])


def test_killed_while_the_disk_is_full(make_disk: MakeDisk, engine: FakeEngine):
    """kill -9 in the midst of calls that meet a full disk: what was answered is there after the restart, once."""
    disk = make_disk()
    server = disk.server.start()
    key = server.make_key("batch", limits=LIMITS)
    answered = [post(server.port, CHAT, chat(), key=key).headers["x-request-id"] for _ in range(20)]
    disk.fill(room=60_000)

    async def caller() -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        try:
            while True:
                writer.write(post_bytes(CHAT, chat(), key=key))
                status, request_id, _ = await read_unary(reader)
                if status == 200:
                    answered.append(request_id)
        except (OSError, asyncio.IncompleteReadError):
            writer.transport.abort()

    async def play() -> None:
        asyncio.get_running_loop().call_later(1.5, server.process.kill)
        await asyncio.gather(*(caller() for _ in range(8)))

    asyncio.run(play())
    server.kill()
    disk.make_room()
    server.start()

    records = all_records(disk)
    charged = collections.Counter(each["request_id"] for each in records if each["charged"])
    assert set(answered) <= set(charged)
    assert set(charged.values()) == {1}
    assert len(charged) - len(answered) <= 8  # recorded, and killed before the answer was out
    bookkeeping.check_counters(server, {"batch": key}, MODEL, records)


def test_database_on_a_full_disk_while_the_journal_has_room(make_disk: MakeDisk, engine: FakeEngine):
    """Calls go on, usage questions are told to wait, and everything arrives once there is room."""
    disk = make_disk(is_journal_apart=True)
    server = disk.server.start()
    key = server.make_key("batch", limits=LIMITS)
    answered = [post(server.port, CHAT, chat(), key=key).headers["x-request-id"] for _ in range(5)]
    before = len(all_records(disk))

    disk.fill_for_database()
    answers = [post(server.port, CHAT, chat(), key=key) for _ in range(300)]
    asked, told = server.try_admin("GET", "/api/v1/usage")
    rows_meanwhile = len(disk.rows())
    health = get(server.port, "/readyz").status
    disk.make_room()

    assert {answer.status for answer in answers} == {200}
    answered += [answer.headers["x-request-id"] for answer in answers]
    assert (asked, told["error"]["code"]) == (503, "storage_unavailable")
    assert health == 200
    assert before <= rows_meanwhile < len(answered)
    wait_until(lambda: server.try_admin("GET", "/api/v1/usage")[0] == 200)
    check_books(disk, key, answered)
    server.keep_what_it_shows()
    server.kill()
    server.start()
    check_books(disk, key, answered)


@pytest.mark.parametrize("is_first_start", [True, False], ids=["first start", "later start"])
def test_start_on_a_full_disk_says_so(make_disk: MakeDisk, engine: FakeEngine, is_first_start: bool):
    """A server that finds no room says what is wrong and where, without a stack trace, and exits with 1."""
    disk = make_disk()
    if not is_first_start:
        server = disk.server.start()
        post(server.port, CHAT, chat(), key=server.key)
        server.keep_metrics()
        kill_with_ingester(server)

    outcome = disk.start_when_full()

    assert_told_of_full_disk(outcome)
    assert f"data folder {disk.server.folder / 'data'} cannot be used" in outcome.stderr
    if isinstance(disk, MountedDisk):
        assert "The disk is full" in outcome.stderr
        disk.make_room()
    server = disk.server.start()
    assert post(server.port, CHAT, chat(), key=server.key).status == 200


def test_start_without_room_for_temporary_files_says_so(make_server: MakeServer):
    """When data and temporary files share the full disk, the folder for sockets is the first that cannot be made."""
    outcome = start_with_limit(make_server(), 0)

    assert_told_of_full_disk(outcome)
    assert "temporary" in outcome.stderr


def assert_told_of_full_disk(outcome: subprocess.CompletedProcess[str]) -> None:
    assert outcome.returncode == 1, outcome.stderr
    assert "Traceback" not in outcome.stderr
    assert "disk" in outcome.stderr.lower()
