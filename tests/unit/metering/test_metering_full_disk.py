"""A disk that is really full, at every point of the way: a small file system of its own, filled to the last page.

Where nobody may mount one, and in one test everywhere, files that cannot grow stand for it: a limit of the operating
system, which writes meet as they meet a full disk.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.mounts import can_mount

ROOT = Path(__file__).parents[3]

_COMMON = """
import asyncio, json, os, random, resource, subprocess, sys
from pathlib import Path
from lingpai.metering import journal as journal_module
from lingpai.metering.journal import Journal
from lingpai.metering.reader import JournalReader
from lingpai.metering.records import UsageRecord
from lingpai.metering.segments import START
from lingpai.metering.settings import MeteringSettings

journal_module._PROBE_INTERVAL_S = 0.005
place, kind = Path(sys.argv[1]), sys.argv[2]
random.seed(int(sys.argv[3]))
confirmed = []
number = 0

def append_some(journal, count):
    global number
    for _ in range(count):
        name = f"r{number}"
        record = UsageRecord(name, "k", "u", "m" * random.randint(1, 90), "b", "chat", "/", 1.8e9, None, 1.0,
                             1, 1, 0, 0, "reported", 200, "complete", 1, 0, "::1")
        journal.append(record, lambda ok, name=name: confirmed.append(name) if ok else None)
        number += 1

def in_journal(directory):
    damage = []
    reader = JournalReader(directory, START, damage.append)
    found = [record.request_id for records in iter(reader.read, []) for record in records]
    reader.close()
    return found, damage

def fill(pages, bytes_):
    # Leaves so many pages on the disk; or lets no file be larger than so many bytes.
    if kind == "limited":
        resource.setrlimit(resource.RLIMIT_FSIZE, (bytes_, resource.RLIM_INFINITY))
        return
    with open(place / "ballast", "wb", buffering=0) as ballast:
        try:
            while True:
                ballast.write(bytes(4096))
        except OSError:
            pass
        ballast.truncate(max(0, ballast.seek(0, os.SEEK_END) - pages * 4096))

def make_room(*pids):
    if kind == "mounted":
        (place / "ballast").unlink()
        return
    for pid in (0, *pids):
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY,) * 2)

async def healthy(journal):
    async with asyncio.timeout(20):
        while not journal.healthy:
            await asyncio.sleep(0.002)
"""

_FULL_AGAIN_AND_AGAIN = """
async def main():
    settings = MeteringSettings(fsync=sys.argv[4], segment_bytes=4096)
    journal = Journal(place / "journal", asyncio.get_running_loop(), settings)
    refusals = 0
    for _ in range(25):
        fill(random.randint(0, 3), journal.position[1] + random.randint(0, 700))
        for _ in range(12):
            append_some(journal, random.randint(1, 12))
            await asyncio.sleep(0)
            await asyncio.sleep(0)
        refusals += not journal.healthy
        make_room()
        await healthy(journal)
        append_some(journal, 3)
        await asyncio.sleep(0.002)
    journal.close()
    await asyncio.sleep(0)
    found, damage = in_journal(place / "journal")
    print(json.dumps({"same": found == confirmed, "damage": damage, "refusals": refusals, "confirmed": len(confirmed)}))

asyncio.run(main())
"""

_DATABASE_FULL = """
import select, sqlite3
from lingpai.storage.database import Database

async def main():
    database = Database(f"sqlite:///{place}/lingpai.db")
    database.migrate()
    database.close()
    journal = Journal(place / "journal", asyncio.get_running_loop(), MeteringSettings())
    append_some(journal, 400)
    await asyncio.sleep(0.01)
    fill(0, 0)
    command = [sys.executable, "-m", "lingpai.metering.ingester", str(place / "journal"), str(place / "lingpai.db")]
    child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert select.select([child.stderr], [], [], 20)[0]
    words = child.stderr.readline().decode()
    make_room(child.pid)
    child.stdin.close()
    status = child.wait(20)
    journal.close()
    connection = sqlite3.connect(place / "lingpai.db")
    found = [row[0] for row in connection.execute("SELECT request_id FROM usage_records ORDER BY id")]
    total = connection.execute("SELECT sum(requests) FROM usage_rollups").fetchone()[0]
    print(json.dumps({"same": found == confirmed, "total": total, "words": words, "status": status}))

asyncio.run(main())
"""

_FILE_SIZE_LIMIT = """
async def main():
    settings = MeteringSettings(fsync="interval", segment_bytes=1_000_000)
    journal = Journal(place / "journal", asyncio.get_running_loop(), settings)
    refusals = 0
    for _ in range(30):
        fill(0, journal.position[1] + random.randint(0, 700))
        append_some(journal, 10)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        refusals += not journal.healthy
        make_room()
        await healthy(journal)
    journal.close()
    found, damage = in_journal(place / "journal")
    print(json.dumps({"same": found == confirmed, "damage": damage, "refusals": refusals, "confirmed": len(confirmed)}))

asyncio.run(main())
"""


def run_script(script: str, place: Path, kind: str, *arguments: str) -> dict:
    """What the script prints at its end. A `mounted` disk has one megabyte, and ends with its mount namespace."""
    mount = ["unshare", "-rm", "sh", "-c", f'mount -t tmpfs -o size=1m none {place} && exec "$@"', "sh"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", _COMMON + script, str(place), kind, *arguments]
    command = [*mount, *command] if kind == "mounted" else command
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.fixture(params=["mounted" if can_mount() else "limited"])
def on_small_disk(request, tmp_path):
    """Runs a script at `tmp_path`; in a test's name stands how the disk there becomes full."""
    return lambda script, *arguments: run_script(script, tmp_path, request.param, *arguments)


@pytest.mark.parametrize(("seed", "fsync"), [("1", "never"), ("2", "interval"), ("3", "always")])
def test_what_was_confirmed_is_in_the_journal_and_nothing_else(on_small_disk, seed, fsync):
    """Full in the middle of a record, between two, and when a segment is to begin: nothing lost, doubled or torn."""
    outcome = on_small_disk(_FULL_AGAIN_AND_AGAIN, seed, fsync)

    assert (outcome["same"], outcome["damage"]) == (True, [])
    assert outcome["refusals"] > 5
    assert outcome["confirmed"] > 75


def test_a_database_without_room_is_loaded_when_there_is_some(on_small_disk):
    """The journal holds meanwhile, and every record arrives once."""
    outcome = on_small_disk(_DATABASE_FULL, "4")

    assert "cannot load usage records" in outcome["words"]
    assert (outcome["same"], outcome["total"], outcome["status"]) == (True, 400, 0)


def test_a_file_that_may_not_grow_is_as_good_as_a_full_disk(tmp_path):
    """The same with a limit of the operating system on the size of files, which needs no file system of its own."""
    outcome = run_script(_FILE_SIZE_LIMIT, tmp_path, "limited", "5")

    assert (outcome["same"], outcome["damage"]) == (True, [])
    assert outcome["refusals"] > 5
