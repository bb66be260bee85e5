"""The server's own secrets, on real servers: rotated under load, killed at any moment, lost, taken from the environment."""

import asyncio
import contextlib
import http.client
import json
import random
import shutil
import signal
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from lingpai.identity.peppers import Peppers
from lingpai.secrets.resealing import BATCH
from lingpai.storage.sealing import RootKeys, Sealer, sealed_version
from tests.e2e.conftest import MakeServer
from tests.e2e.lingpai_server import LingpaiServer, StartFailed
from tests.e2e.load import call_many
from tests.e2e.raw_http import chat, post
from tests.e2e.waiting import wait_until
from tests.fakes.openai_engine import EngineCall, FakeEngine

CHAT = "/v1/chat/completions"
PROVIDER_KEY = "provider-canary-4f0d9a71c2e8"


@pytest.fixture
def provider() -> Iterator[FakeEngine]:
    """An engine that wants a key."""
    engine = FakeEngine(api_key=PROVIDER_KEY).start()
    yield engine
    engine.stop()


def status_of(server: LingpaiServer, key: str | None = None) -> int:
    return post(server.port, CHAT, chat(), key=key or server.key).status


def add_provider(server: LingpaiServer, provider: FakeEngine) -> None:
    outcome = server.cli("models", "add", provider.url, "--api-key-stdin", stdin=f"{PROVIDER_KEY}\n")
    assert outcome.returncode == 0, outcome.stderr


def rotate(server: LingpaiServer, kind: str) -> str:
    made = server.admin("POST", f"/api/v1/secrets/{kind}/rotate", {})["data"]
    return str(made[0]["version"])


def versions(server: LingpaiServer, kind: str) -> dict[str, Any]:
    listed = server.admin("GET", "/api/v1/secrets")["data"]
    return {each["version"]: each for each in listed if each["kind"] == kind}


def make_older(server: LingpaiServer, file: str) -> None:
    """As if its versions had been made long ago, so that other servers must have noticed them."""
    path = server.data / "secrets" / file
    content = json.loads(path.read_text())
    content["created_at"] = dict.fromkeys(content["created_at"], 1.0)
    path.write_text(json.dumps(content))
    assert server.process is not None
    server.process.send_signal(signal.SIGHUP)
    kind = file.removesuffix(".json")
    wait_until(lambda: all(each["created_at"] < "1971" for each in versions(server, kind).values()))


def pepper_versions(server: LingpaiServer) -> set[int]:
    with contextlib.closing(sqlite3.connect(server.data / "lingpai.db")) as connection:
        return {version for (version,) in connection.execute("SELECT pepper_version FROM api_keys")}


# -- rotation


def test_pepper_rotates_under_load_and_the_old_one_can_go(
    make_server: MakeServer, engine: FakeEngine
) -> None:
    server = make_server(engine.url).start()
    keys = [server.make_key(f"key-{number}") for number in range(3)]
    statuses: list[int] = []
    callers = [
        threading.Thread(
            target=lambda key=key: statuses.extend(
                asyncio.run(call_many(server.port, key, calls=400, callers=3))
            )
        )
        for key in keys
    ]
    for caller in callers:
        caller.start()
    made = [rotate(server, "pepper") for _ in range(3)]
    time.sleep(1.2)  # the keys in memory are loaded again while they are in use
    for caller in callers:
        caller.join(60)
    used = [status_of(server, key) for key in (*keys, server.key)]
    server.stop()  # which writes what was noted
    server.start()

    assert made == ["2", "3", "4"]
    assert set(statuses) == {200}
    assert len(statuses) == 1200
    assert set(used) == {200}
    assert pepper_versions(server) == {4}
    make_older(server, "pepper.json")
    for version in ("1", "2", "3"):
        server.admin("DELETE", f"/api/v1/secrets/pepper/{version}")
    assert set(versions(server, "pepper")) == {"4"}
    assert {status_of(server, key) for key in (*keys, server.key)} == {200}


def test_pepper_that_keys_need_stays_and_says_how_many(make_server: MakeServer, engine: FakeEngine) -> None:
    server = make_server(engine.url).start()
    unused = [server.make_key(f"unused-{number}") for number in range(2)]
    rotate(server, "pepper")
    status_of(server)
    make_older(server, "pepper.json")

    refused = server.cli("secrets", "retire", "pepper", "1")
    listed = server.cli("secrets", "list")

    assert refused.returncode == 1
    assert "still needed (API keys: 3)" in refused.stderr
    assert "API keys: 3" in listed.stdout
    assert status_of(server, unused[0]) == 200
    server.admin("DELETE", "/api/v1/keys/unused-1")
    server.stop()
    server.start()
    assert server.cli("secrets", "retire", "pepper", "1").returncode == 0
    assert [status_of(server, key) for key in (server.key, *unused)] == [200, 200, 401]


def test_commands_show_versions_and_never_a_secret(make_server: MakeServer) -> None:
    server = make_server().start()

    rotated = server.cli("secrets", "rotate", "root")
    as_json = server.cli_json("secrets", "list")
    unknown = server.cli("secrets", "retire", "root", "9")
    newest = server.cli("secrets", "retire", "root", "2")

    assert "Made root 2." in rotated.stderr
    assert [(each["kind"], each["version"], each["state"]) for each in as_json] == [
        ("pepper", "1", "current"),
        ("root", "1", "old"),
        ("root", "2", "current"),
    ]
    assert (unknown.returncode, newest.returncode) == (1, 1)
    assert "There is no root key `9`" in unknown.stderr
    assert "is the one in use" in newest.stderr
    hexes = [
        text for file in ("pepper.json", "root.json") for text in secrets_in(server.data / "secrets" / file)
    ]
    said = (
        rotated.stdout + rotated.stderr + json.dumps(as_json) + unknown.stderr + newest.stderr + server.stderr
    )
    assert len(hexes) == 3
    assert not any(text in said for text in hexes)


def secrets_in(path: Path) -> list[str]:
    content = json.loads(path.read_text())
    return [text for name, texts in content.items() if name != "created_at" for text in texts.values()]


def test_keys_of_the_network_do_not_reach_secrets(make_server: MakeServer) -> None:
    server = make_server().start()
    key = server.make_key("everything", scopes=["secrets:read", "secrets:write"])

    answer = post(server.port, "/api/v1/secrets/pepper/rotate", {}, key=key)

    assert answer.status == 403
    assert "on its own machine only" in answer.error["message"]
    assert set(versions(server, "pepper")) == {"1"}


# -- kill -9


def in_thread(work: Callable[[], object]) -> threading.Thread:
    def quietly() -> None:
        with contextlib.suppress(OSError, http.client.HTTPException, ValueError, AssertionError):
            work()  # until the server is killed

    thread = threading.Thread(target=quietly)
    thread.start()
    return thread


@pytest.mark.slow
def test_server_killed_while_it_rotates_loses_nothing(
    make_server: MakeServer, provider: FakeEngine, new_seed: int
) -> None:
    """At a random moment of several rotations; that each single step may be the last is tested in storage."""
    chance = random.Random(new_seed)
    server = make_server().start()
    add_provider(server, provider)
    keys = [server.key, server.make_key("other")]
    for _ in range(6):
        rotating = in_thread(lambda: [rotate(server, kind) for kind in ("pepper", "root") * 20])
        time.sleep(chance.uniform(0.0, 0.15))
        status_of(server, keys[0])
        server.kill()
        rotating.join(30)
        server.start()

        wait_until(lambda: served(server, provider), seconds=40)
        assert {post(server.port, CHAT, chat(model="fake/chat"), key=key).status for key in keys} == {200}
        numbers = sorted(map(int, versions(server, "pepper")))
        assert numbers == list(range(1, len(numbers) + 1))
    rotate(server, "pepper")  # whoever writes next removes what a killed writer left
    assert sorted(file.name for file in (server.data / "secrets").iterdir()) == [
        ".lock", "audit.json", "pepper.json", "root.json",
    ]  # fmt: skip


def served(server: LingpaiServer, provider: FakeEngine) -> bool:
    listed = server.admin("GET", "/api/v1/targets")["data"]
    return [each["is_served"] for each in listed if each["target"] == provider.url] == [True]


@pytest.mark.slow
def test_server_killed_while_it_seals_anew_goes_on_after_the_start(
    make_server: MakeServer, new_seed: int
) -> None:
    chance = random.Random(new_seed)
    server = make_server().start()
    server.stop()
    rows = BATCH * 30
    root_keys = RootKeys.from_file(server.data / "secrets" / "root.json")
    sealer = Sealer(root_keys)
    with contextlib.closing(sqlite3.connect(server.data / "lingpai.db")) as connection, connection:
        (key_id,) = connection.execute("SELECT id FROM api_keys").fetchone()
        connection.executemany(
            "INSERT INTO signing_keys (id, name, key_id, algorithm, sealed_secret, created_at)"
            " VALUES (?, 'x', ?, 'hmac-sha256', ?, 0)",
            [
                (
                    f"sgk_{number:05}",
                    key_id,
                    sealer.seal("signing key", f"sgk_{number:05}", b"%d" % number),
                )
                for number in range(rows)
            ],
        )
    server.start()
    rotate(server, "root")
    seen = []
    for _ in range(4):
        seen.append(sealed_under(server, 2))
        time.sleep(chance.uniform(1.9, 2.6))  # it begins two seconds after the start
        server.kill()
        server.start()

    wait_until(lambda: sealed_under(server, 2) == rows, seconds=30)
    assert seen == sorted(seen)
    with contextlib.closing(sqlite3.connect(server.data / "lingpai.db")) as connection:
        stored = connection.execute("SELECT id, sealed_secret FROM signing_keys").fetchall()
    opener = Sealer(RootKeys.from_file(server.data / "secrets" / "root.json"))
    assert {id_: opener.open("signing key", id_, sealed) for id_, sealed in stored} == {
        f"sgk_{number:05}": b"%d" % number for number in range(rows)
    }
    make_older(server, "root.json")
    server.admin("DELETE", "/api/v1/secrets/root/1")


def sealed_under(server: LingpaiServer, version: int) -> int:
    with contextlib.closing(sqlite3.connect(server.data / "lingpai.db")) as connection:
        stored = connection.execute("SELECT sealed_secret FROM signing_keys").fetchall()
    return sum(sealed_version(sealed) == version for (sealed,) in stored)


# -- another process, the environment, loss


def test_version_made_by_another_process_is_used_after_sighup(make_server: MakeServer) -> None:
    server = make_server().start()
    Peppers.from_file(server.data / "secrets" / "pepper.json").rotate()
    assert server.process is not None
    server.process.send_signal(signal.SIGHUP)

    wait_until(lambda: versions(server, "pepper").get("2", {}).get("state") == "current", seconds=3)
    server.make_key("new")
    assert pepper_versions(server) == {1, 2}


def test_version_made_by_another_process_is_noticed_without_being_told(
    make_server: MakeServer, engine: FakeEngine
) -> None:
    """A row is enough to make a server look; and it looks every few seconds anyway."""
    server = make_server(engine.url).start()
    key = server.make_key("moved")
    others = Peppers.from_file(server.data / "secrets" / "pepper.json")
    others.rotate()
    with (
        contextlib.closing(sqlite3.connect(server.data / "lingpai.db", timeout=10)) as connection,
        connection,
    ):
        connection.execute(
            "UPDATE api_keys SET secret_hmac = ?, pepper_version = 2 WHERE name = 'moved'",
            [others.hmac(key.encode(), 2)],
        )

    assert status_of(server, key) == 200
    others.rotate()
    wait_until(lambda: "3" in versions(server, "pepper"), seconds=8)


def test_secrets_of_the_environment_are_rotated_there(make_server: MakeServer, engine: FakeEngine) -> None:
    old, new = "ab" * 32, "cd" * 32
    environment = {"LINGPAI_PEPPER": old, "LINGPAI_ROOT_KEY": old}
    server = make_server(engine.url, environment=environment).start()

    refused = server.cli("secrets", "rotate", "pepper")
    assert refused.returncode == 1
    assert "LINGPAI_PEPPER=2:NEW,*1:OLD" in refused.stderr
    assert {"pepper.json", "root.json"}.isdisjoint(file.name for file in (server.data / "secrets").iterdir())
    for mark in ("*", ""):  # the new one is made known first, and used then
        server.stop()
        text = f"2:{new},{mark}1:{old}"
        server.environment.update(LINGPAI_PEPPER=text, LINGPAI_ROOT_KEY=text)
        server.start()
        assert status_of(server) == 200
        assert pepper_versions(server) == {1}
    server.stop()
    assert pepper_versions(server) == {2}
    server.environment.update(LINGPAI_PEPPER=f"2:{new}", LINGPAI_ROOT_KEY=f"2:{new}")
    server.start()
    assert status_of(server) == 200
    assert old not in server.stderr + server.stdout


def test_another_pepper_in_the_environment_than_in_the_file_stops_the_start(make_server: MakeServer) -> None:
    """Else every key would be refused, and nothing would say why."""
    server = make_server().start()
    server.stop()
    server.environment.update(LINGPAI_PEPPER="cd" * 32)

    with pytest.raises(StartFailed, match="LINGPAI_PEPPER has another pepper 1"):
        server.start()

    content = json.loads((server.data / "secrets" / "pepper.json").read_text())
    server.environment.update(LINGPAI_PEPPER=f"1:{content['peppers']['1']}")
    server.start()
    assert server.cli("keys", "list").returncode == 0


def test_lost_pepper_is_told_at_the_start(make_server: MakeServer) -> None:
    server = make_server().start()
    server.stop()
    (server.data / "secrets" / "pepper.json").unlink()

    server.start()

    assert "pepper.json is missing, so a new pepper is made, and no existing key works" in server.stderr
    assert "root.json" not in server.stderr


def test_file_that_others_can_read_stops_the_start(make_server: MakeServer) -> None:
    server = make_server().start()
    server.stop()
    (server.data / "secrets" / "root.json").chmod(0o640)

    with pytest.raises(StartFailed, match="chmod 600"):
        server.start()


# -- providers' keys


def test_provider_key_is_used_and_never_shown_again(make_server: MakeServer, provider: FakeEngine) -> None:
    server = make_server().start()
    without = server.cli("models", "add", provider.url)
    add_provider(server, provider)

    shown = server.cli_json("models", "targets")
    table = server.cli("models", "targets")
    status = post(server.port, CHAT, chat(model="fake/chat"), key=server.key).status

    assert without.returncode == 1
    assert "--api-key-stdin" in without.stderr
    assert status == 200
    assert provider.calls[-1].headers["authorization"] == f"Bearer {PROVIDER_KEY}"
    assert [each["api_key"]["hint"] for each in shown] == [f"…{PROVIDER_KEY[-4:]}"]
    assert f"…{PROVIDER_KEY[-4:]}" in table.stdout
    listed = [server.admin("GET", f"/api/v1/{name}") for name in ("models", "targets", "secrets", "events")]
    everything = json.dumps(listed) + server.stderr + server.stdout + table.stdout + table.stderr
    assert PROVIDER_KEY not in everything


def test_provider_key_survives_restarts_and_rotations(make_server: MakeServer, provider: FakeEngine) -> None:
    server = make_server().start()
    add_provider(server, provider)
    rotate(server, "root")
    wait_until(lambda: versions(server, "root")["2"]["uses"] == {"provider keys": 1}, seconds=10)
    make_older(server, "root.json")
    server.admin("DELETE", "/api/v1/secrets/root/1")
    server.kill()

    server.start()

    wait_until(lambda: served(server, provider), seconds=40)
    assert post(server.port, CHAT, chat(model="fake/chat"), key=server.key).status == 200


def test_provider_key_is_replaced_without_breaking_a_stream(
    make_server: MakeServer, provider: FakeEngine
) -> None:
    go_on = threading.Event()

    async def slow(call: EngineCall) -> None:
        await call.stream_head()
        await call.event({"choices": [{"index": 0, "delta": {"content": "a"}, "finish_reason": None}]})
        while not go_on.is_set():
            await asyncio.sleep(0.01)
        await call.event({"choices": [{"index": 0, "delta": {"content": "b"}, "finish_reason": "stop"}]})
        await call.event(b"[DONE]")
        await call.chunk(b"")

    server = make_server().start()
    add_provider(server, provider)
    script = provider.script(slow)
    answers: list[Any] = []
    body = {**chat(model="fake/chat"), "stream": True, "script": script}
    streaming = threading.Thread(target=lambda: answers.append(post(server.port, CHAT, body, key=server.key)))
    streaming.start()
    wait_until(lambda: bool(provider.calls_of(script)))
    provider.api_key = "another-canary-key-8d21b6f0a3"
    wrong = server.cli("models", "key", provider.url, "--api-key-stdin", stdin="wrong-canary-key-5b7c")
    right = server.cli("models", "key", provider.url, "--api-key-stdin", stdin=provider.api_key)
    status = post(server.port, CHAT, chat(model="fake/chat"), key=server.key).status
    go_on.set()
    streaming.join(10)

    assert wrong.returncode == 1
    assert "refuses the key that it was sent (401). Nothing was changed." in wrong.stderr
    assert right.returncode == 0, right.stderr
    assert status == 200
    assert provider.calls[-1].headers["authorization"] == f"Bearer {provider.api_key}"
    assert [(answer.status, answer.is_complete) for answer in answers] == [(200, True)]
    removed = server.cli("models", "key", provider.url, "--remove")
    assert removed.returncode == 0
    assert post(server.port, CHAT, chat(model="fake/chat"), key=server.key).status == 502
    assert "authorization" not in provider.calls[-1].headers


def test_database_alone_opens_nothing(make_server: MakeServer, provider: FakeEngine) -> None:
    """A dump or a stolen disk image without `secrets/`: no key works, and no provider key can be read."""
    server = make_server().start()
    add_provider(server, provider)
    server.stop()
    content = b"".join(file.read_bytes() for file in server.data.glob("lingpai.db*"))
    assert provider.url.encode() in content
    assert PROVIDER_KEY.encode() not in content
    assert server.key[18:].encode() not in content
    stolen = make_server()
    stolen.data.mkdir(mode=0o700)
    for file in server.data.glob("lingpai.db*"):
        shutil.copy(file, stolen.data)
    calls = len(provider.calls)

    stolen.start()

    assert status_of(stolen, server.key) == 401
    wait_until(lambda: "does not open" in stolen.stderr, seconds=10)
    assert stolen.admin("GET", "/api/v1/targets")["data"][0]["is_served"] is False
    assert len(provider.calls) == calls


def test_idle_server_does_not_load_cryptography(make_server: MakeServer) -> None:
    """It takes 9 MB; the bound on memory is 120 MB."""
    server = make_server().start()
    time.sleep(2.5)  # the job that looks for what is to be sealed anew has run
    assert server.process is not None

    assert "cryptography" not in Path(f"/proc/{server.process.pid}/maps").read_text()
