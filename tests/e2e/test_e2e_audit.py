"""The audit trail of real servers: who did what, kill -9, a locked database, and a verification that needs no server."""

import json
import resource
import shutil
import sqlite3
import threading
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tests.e2e.conftest import MakeServer
from tests.e2e.lingpai_server import LingpaiServer
from tests.e2e.raw_http import chat, exchange, get, post
from tests.e2e.signed_caller import SignedCaller
from tests.secrets_scan import SCAN


def records(server: LingpaiServer) -> list[dict[str, object]]:
    """Every record in the database, oldest first."""
    with closing(sqlite3.connect(f"file:{server.data}/lingpai.db?mode=ro", uri=True)) as connection:
        return [
            json.loads(line)
            for (line,) in connection.execute("SELECT line FROM audit_records ORDER BY number")
        ]


def tamper(server: LingpaiServer, statement: str, *parameters: object) -> None:
    """As somebody does who owns the file: the triggers are gone for that time."""
    with closing(sqlite3.connect(server.data / "lingpai.db")) as connection:
        triggers = connection.execute("SELECT name, sql FROM sqlite_master WHERE type = 'trigger'").fetchall()
        for name, _ in triggers:
            connection.execute(f"DROP TRIGGER {name}")
        connection.execute(statement, parameters)
        for _, sql in triggers:
            connection.execute(sql)
        connection.commit()


def test_the_command_line_shows_who_did_what(make_server: MakeServer) -> None:
    server = make_server().start()
    server.cli("keys", "create", "my-app", "--limit", "10/day")
    server.cli("keys", "disable", "my-app")

    shown = server.cli_json("audit", "list", "--target", "my-app")

    assert [(record["action"], record["actor"]["name"]) for record in shown] == [
        ("key.disable", "admin"),
        ("key.create", "admin"),
    ]
    assert shown[0]["actor"]["credential"] == {"kind": "admin_socket", "id": None}
    assert (shown[0]["before"], shown[0]["after"]) == (
        {"disabled": False, "disabled_because": None, "state": "active"},
        {"disabled": True, "disabled_because": "disabled", "state": "disabled"},
    )
    assert shown[1]["after"]["limits"] == ["10/day"]
    table = server.cli("audit", "list", "--action", "key.disable").stdout
    assert "key my-app" in table
    assert "disabled" in table


def refusals(server: LingpaiServer) -> list[tuple[str, str, str, int]]:
    """Who was refused, why, where and how often, sorted. The server is stopped, so that all is written."""
    server.stop()
    found = []
    for record in records(server):
        if record["action"] == "access.refuse":
            actor: Any = record["actor"]
            credential = actor["credential"]
            who = actor["kind"] if credential is None else f"{actor['name']} by {credential['kind']}"
            target: Any = record["target"]
            after: Any = record["after"]
            assert record["address"] == "127.0.0.1", record
            found.append((who, str(record["reason"]), target["id"], after["count"]))
    return sorted(found)


def test_refusals_of_who_is_signed_in_are_recorded(make_server: MakeServer) -> None:
    server = make_server().start()
    password = "quiet orchard of the audit trail"
    SCAN.secrets.add("password", password)
    server.admin("POST", "/api/v1/users", {"name": "bob", "password": password})
    server.make_key("admins")
    sign_in = {"name": "bob", "password": password}
    theirs = {"sec-fetch-site": "cross-site"}
    with httpx2.Client(base_url=server.base, trust_env=False, timeout=30) as browser:
        assert browser.post("/api/v1/sessions", json=sign_in, headers=theirs).status_code == 403
        proxied = {"x-forwarded-for": "203.0.113.9"}  # what a proxy adds that is not declared
        assert browser.post("/api/v1/sessions", json=sign_in, headers=proxied).status_code == 403
        csrf = browser.post("/api/v1/sessions", json=sign_in).json()["csrf_token"]
        ours = {"sec-fetch-site": "same-origin", "x-lingpai-csrf": csrf}
        for _ in range(2):
            assert browser.get("/api/v1/keys/admins").status_code == 404
        assert browser.get("/api/v1/audit", headers=ours).status_code == 403
        assert browser.post("/api/v1/keys", json={"name": "k"}).status_code == 403
        assert browser.delete("/api/v1/keys/admins", headers=theirs).status_code == 403

    assert refusals(server) == [
        ("bob by session", "csrf_refused", "DELETE /api/v1/keys/{id}", 1),
        ("bob by session", "csrf_refused", "POST /api/v1/keys", 1),
        ("bob by session", "insufficient_scope", "GET /api/v1/audit", 1),
        ("bob by session", "not_found", "GET /api/v1/keys/{id}", 2),
        ("unknown", "csrf_refused", "POST /api/v1/sessions", 1),
        ("unknown", "tls_required", "POST /api/v1/sessions", 1),
    ]


def test_refusals_of_who_signs_are_recorded(make_server: MakeServer) -> None:
    server = make_server().start()
    caller = SignedCaller(server, "signs", scopes=["model:inference"], signature_required=True)
    assert caller.send(method="GET", path="/api/v1/keys").status == 403
    assert caller.send(b'{"name": "x"}', path="/api/v1/users").status == 403
    replayed = caller.request(method="GET", path="/v1/key")
    assert [exchange(server.port, replayed).status for _ in range(3)] == [200, 401, 401]
    late = caller.send(method="GET", path="/v1/key", clock_offset_s=-4000)
    assert late.error["code"] == "signature_invalid"
    call = json.dumps(chat("hello", model="lingpai/eliza")).encode()
    assert caller.send(call, clock_offset_s=-4000).error["code"] == "signature_invalid"
    unsigned = post(server.port, "/v1/chat/completions", call, key=caller.key)
    assert unsigned.error["code"] == "signature_required"
    assert get(server.port, "/v1/key", key=caller.key).error["code"] == "signature_required"

    assert refusals(server) == [
        ("admin by key", "insufficient_scope", "GET /api/v1/keys", 1),
        ("admin by key", "insufficient_scope", "POST /api/v1/users", 1),
        ("admin by key", "signature_invalid", "GET /v1/key", 2),
        ("admin by key", "signature_required", "/v1/chat/completions", 1),
        ("admin by key", "signature_required", "GET /v1/key", 1),
        ("unknown", "signature_invalid", "/v1/chat/completions", 1),
        ("unknown", "signature_invalid", "GET /v1/key", 1),
    ]


def test_a_trail_is_verified_beside_a_running_server_and_after_it(make_server: MakeServer) -> None:
    server = make_server().start()

    beside = server.cli("audit", "verify")
    server.stop()
    after = server.cli("audit", "verify")

    assert (beside.returncode, after.returncode) == (0, 0)
    assert "all is as it was written" in beside.stderr
    assert "1 checkpoints checked: all is as it was written, and signed." in after.stderr


def test_an_exported_file_is_verified_with_nothing_but_the_public_key(
    make_server: MakeServer, tmp_path: Path
) -> None:
    server = make_server().start()
    server.make_key("my-app")
    file = tmp_path / "audit.jsonl"
    assert server.cli("audit", "export", "--output", str(file)).returncode == 0
    key = server.cli_json("audit", "keys")[0]["key"]
    away = {"environment": {"LINGPAI_DATA": str(tmp_path / "nowhere")}}

    intact = server.cli("audit", "verify", str(file), "--key", key, **away)
    assert (intact.returncode, intact.stdout) == (0, "")

    lines = file.read_text().splitlines(keepends=True)
    file.write_text("".join(lines).replace("my-app", "my-apx", 1))
    changed = server.cli("audit", "verify", str(file), "--key", key, **away)
    assert changed.returncode == 1
    assert "was changed: its hash is another one" in changed.stdout
    file.write_text("".join(lines[:-2]))
    cut = server.cli("audit", "verify", str(file), "--key", key, "--json", **away)
    assert cut.returncode == 1
    assert "the end of the file is missing" in json.loads(cut.stdout)["findings"][0]["message"]
    assert server.cli("audit", "verify", str(file), **away).returncode == 1
    assert server.cli("audit", "verify", str(file), "--key", "x", **away).returncode == 2


def test_whoever_tampers_with_the_database_is_found_out(make_server: MakeServer) -> None:
    server = make_server().start()
    server.make_key("my-app")
    server.stop()
    kept = server.folder / "kept.db"
    shutil.copyfile(server.data / "lingpai.db", kept)

    for statement, said in (
        ("UPDATE audit_records SET line = replace(line, 'my-app', 'my-apx')", "was changed"),
        ("DELETE FROM audit_records WHERE number = 3", "record 3 is missing before this one"),
        ("DELETE FROM audit_records WHERE number > 4", "are missing at the end"),
    ):
        shutil.copyfile(kept, server.data / "lingpai.db")
        tamper(server, statement)
        found = server.cli("audit", "verify")
        assert found.returncode == 1, statement
        assert said in found.stdout


def test_kill_9_leaves_a_trail_that_is_whole_and_goes_on(make_server: MakeServer) -> None:
    """Whatever was answered is recorded, and each record belongs to a change that happened."""
    server = make_server().start()
    answered: list[str] = []

    def make_keys(number: int) -> None:
        for turn in range(1000):
            name = f"key-{number}-{turn}"
            try:
                server.make_key(name)
            except Exception:  # noqa: BLE001  the server is killed under it, at any point
                return
            answered.append(name)

    threads = [threading.Thread(target=make_keys, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    while len(answered) < 20:
        time.sleep(0.01)
    server.kill()
    for thread in threads:
        thread.join(30)

    assert server.cli("audit", "verify").returncode == 0
    server.start()
    made = {record["target"]["name"] for record in records(server) if record["action"] == "key.create"}  # type: ignore[index]
    kept = {key["name"] for key in server.cli_json("keys", "list")}
    assert set(answered) <= made
    assert kept == made
    server.stop()
    assert server.cli("audit", "verify").returncode == 0


def test_a_locked_database_refuses_administration_with_503_and_changes_nothing(
    make_server: MakeServer,
) -> None:
    server = make_server().start()
    key = server.make_key("caller")
    assert (
        post(server.port, "/v1/chat/completions", chat("hello", model="lingpai/eliza"), key=key).status == 200
    )
    before = records(server)
    with closing(sqlite3.connect(server.data / "lingpai.db", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")

        status, answer = server.try_admin("POST", "/api/v1/keys", {"name": "refused"})
        served = post(server.port, "/v1/chat/completions", chat("hello", model="lingpai/eliza"), key=key)

    assert (status, answer["error"]["code"]) == (503, "storage_unavailable")
    assert served.status == 200
    assert "refused" not in {each["name"] for each in server.cli_json("keys", "list")}
    assert records(server) == before


def test_a_full_disk_refuses_administration_with_503_and_changes_nothing(make_server: MakeServer) -> None:
    """The size of files is limited from outside while the server runs: writing fails as on a full disk."""
    server = make_server().start()
    assert server.process is not None
    server.make_key("before")
    before = records(server)
    limits = resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE)
    resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE, (1, limits[1]))

    status, answer = server.try_admin("POST", "/api/v1/keys", {"name": "refused"})
    resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE, limits)

    assert (status, answer["error"]["code"]) == (503, "storage_unavailable")
    assert records(server) == before
    server.make_key("after")
    server.stop()
    assert server.cli("audit", "verify").returncode == 0


def test_a_rotated_key_signs_and_the_old_one_still_verifies(make_server: MakeServer) -> None:
    server = make_server().start()
    server.stop()
    server.start()

    assert server.cli("audit", "rotate-key").returncode == 0
    server.stop()

    assert [key["signs"] for key in server.cli_json("audit", "keys")] == [False, True]
    assert server.cli("audit", "verify").returncode == 0
    with closing(sqlite3.connect(server.data / "lingpai.db")) as connection:
        lines = [json.loads(line) for (line,) in connection.execute("SELECT line FROM audit_checkpoints")]
    assert len({line["key"] for line in lines}) == 2
    rotated = next(record for record in records(server) if record["action"] == "audit.rotate-key")
    assert rotated["actor"]["kind"] == "command"  # type: ignore[index]


def test_a_rebuild_of_the_sums_is_recorded_with_who_ran_it(make_server: MakeServer) -> None:
    server = make_server().start()

    assert server.cli("usage", "rebuild").returncode == 0

    began, ended = records(server)[-2:]
    assert (began["action"], ended["action"]) == ("usage.rebuild", "usage.rebuilt")
    assert began["actor"]["kind"] == "command"  # type: ignore[index]
    assert ended["after"]["repaired"] == 0  # type: ignore[index]


def test_a_checkpoint_kept_elsewhere_tells_what_was_cut(make_server: MakeServer, tmp_path: Path) -> None:
    server = make_server().start()
    server.stop()
    copy = shutil.copy(server.data / "audit" / "checkpoint.json", tmp_path / "copy.json")
    tamper(server, "DELETE FROM audit_records WHERE number > 3")
    tamper(server, "DELETE FROM audit_checkpoints")
    (server.data / "audit" / "checkpoint.json").unlink()

    assert server.cli("audit", "verify").returncode == 0
    found = server.cli("audit", "verify", "--checkpoint", str(copy))

    assert found.returncode == 1
    assert "missing at the end" in found.stdout


@pytest.mark.parametrize(
    "arguments",
    [
        ("verify", "--server", "http://x"),
        ("keys", "--server", "http://x"),
        ("list", "--limit", "0"),
        ("export", "--json"),
    ],
)
def test_a_wrong_command_line_is_2(demo: LingpaiServer, arguments: tuple[str, ...]) -> None:
    assert demo.cli("audit", *arguments).returncode == 2


def test_a_member_is_refused(demo: LingpaiServer, key_name: str) -> None:
    demo.admin("POST", "/api/v1/users", {"name": f"user-of-{key_name}"})
    key = demo.make_key(key_name, user=f"user-of-{key_name}", scopes=["keys:read"])

    shown = demo.cli(
        "audit", "list", "--server", demo.base, environment={"LINGPAI_API_KEY": key}, at_data=False
    )

    assert shown.returncode == 4
    assert "audit:read" in shown.stderr
