"""Rotation, roles and leaks on a real server: what changes holds from the next call on, on connections that stay open, too."""

import json
import subprocess
import sys
import time
from datetime import datetime
from typing import Any

import pytest

from lingpai.identity.oauth.jwt_tokens import MAX_TOKEN_BYTES
from lingpai.ids import mint_credential
from tests.e2e.conftest import MakeServer
from tests.e2e.lingpai_server import LingpaiServer
from tests.e2e.raw_http import RawConnection, chat, get, post, post_bytes
from tests.e2e.waiting import wait_until
from tests.secrets_scan import SCAN

CHAT = "/v1/chat/completions"
BODY = chat(model="lingpai/eliza")


@pytest.fixture
def server(make_server: MakeServer) -> LingpaiServer:
    return make_server().start()


def call(server: LingpaiServer, key: str) -> tuple[int, str]:
    """Status and, of a refusal, the code."""
    answer = post(server.port, CHAT, BODY, key=key)
    return answer.status, "" if answer.status == 200 else answer.error["code"]


def rotate(server: LingpaiServer, name: str, overlap: str) -> dict[str, Any]:
    rotated: dict[str, Any] = server.admin("POST", f"/api/v1/keys/{name}/rotate", {"overlap": overlap})
    return rotated


def test_both_secrets_work_and_share_the_limit(server: LingpaiServer) -> None:
    old = server.make_key("ci", limits=["5/day"])
    assert call(server, old)[0] == 200

    new = rotate(server, "ci", "1h")["key"]

    statuses = [call(server, key)[0] for key in (old, new, new, old, new, old)]
    assert statuses == [200, 200, 200, 200, 429, 429], "one of five was used before the rotation"
    records = server.records("key_id = ?", old[6:18])
    assert len([record for record in records if record["status"] == 200]) == 5


def test_both_secrets_share_the_limit_after_a_restart(server: LingpaiServer) -> None:
    old = server.make_key("ci", limits=["3/day"])
    new = rotate(server, "ci", "1h")["key"]
    assert [call(server, key)[0] for key in (old, new)] == [200, 200]
    server.stop()

    server.start()

    assert [call(server, key)[0] for key in (old, new, old)] == [200, 429, 429]


def test_old_secret_ends_at_its_time_on_a_connection_that_stays_open(server: LingpaiServer) -> None:
    """The principal is remembered, and the connection remembers it as well: neither outlives the overlap."""
    old = server.make_key("ci")
    with RawConnection(server.port) as connection:

        def ask() -> tuple[int, float]:
            connection.send(post_bytes(CHAT, BODY, key=old))
            return connection.read_answer().status, time.time()

        assert ask()[0] == 200
        shown = rotate(server, "ci", "2s")
        ends_at = time.time() + 2
        new = shown["key"]
        answers = []
        while time.time() < ends_at + 0.5:
            answers.append(ask())
            time.sleep(0.02)

    # The server took its time of the rotation within the request for it, so the end lies between these two.
    begun = ends_at - 0.5
    assert {status for status, at in answers if at < begun} == {200}
    assert {status for status, at in answers if at > ends_at + 0.1} == {401}
    assert [status for status, _ in answers] == sorted(status for status, _ in answers)
    assert call(server, old) == (401, "key_expired")
    assert call(server, new)[0] == 200


def test_a_second_rotation_ends_the_first_secret_at_once(server: LingpaiServer) -> None:
    first = server.make_key("ci")
    second = rotate(server, "ci", "1h")["key"]
    assert [call(server, key)[0] for key in (first, second)] == [200, 200]

    third = rotate(server, "ci", "1h")["key"]

    assert call(server, first) == (401, "invalid_api_key")
    assert [call(server, key)[0] for key in (second, third)] == [200, 200]


def test_command_line_rotates_and_shows_which_secret_is_still_used(server: LingpaiServer) -> None:
    old = server.make_key("ci")
    outcome = server.cli("keys", "rotate", "ci", "--overlap", "7d")
    new = outcome.stdout.strip()
    assert [call(server, key)[0] for key in (old, new, old)] == [200, 200, 200]
    server.stop()  # last uses are written once a minute, and at the stop
    server.start()

    shown = server.cli_json("keys", "show", "ci")

    present, before = shown["secrets"]
    assert (present["expires_at"], present["hint"][-4:], before["hint"][-4:]) == (None, new[-4:], old[-4:])
    left = datetime.fromisoformat(before["expires_at"]).timestamp() - time.time()
    assert 6.9 * 86_400 < left <= 7 * 86_400
    assert present["last_used_at"] is not None
    assert before["last_used_at"] is not None
    words = server.cli("keys", "show", "ci").stdout
    assert "old secret" in words
    assert f"…{old[-4:]}, works until" in words


def test_removed_members_keys_stop_with_the_next_call_and_come_back_with_them(server: LingpaiServer) -> None:
    for name in ("ada", "bob"):
        server.cli("users", "create", name)
    server.cli("projects", "create", "search", "--owner", "ada")
    assert server.cli("projects", "members", "add", "search", "bob").returncode == 0
    inside = server.make_key("inside", user="bob", project="search")
    outside = server.make_key("outside", user="bob")
    with RawConnection(server.port) as connection:

        def ask() -> int:
            connection.send(post_bytes(CHAT, BODY, key=inside))
            return connection.read_answer().status

        assert ask() == 200
        server.admin("DELETE", "/api/v1/projects/search/members/bob")
        assert ask() == 401
        assert call(server, inside) == (401, "key_disabled")
        assert call(server, outside)[0] == 200
        server.admin("POST", "/api/v1/projects/search/members", {"user": "bob", "role": "viewer"})
        assert ask() == 401, "viewers have no keys"
        server.admin("PATCH", "/api/v1/projects/search/members/bob", {"role": "member"})
        assert ask() == 200


def test_deleted_project_takes_its_keys_with_it_and_usage_keeps_its_name(server: LingpaiServer) -> None:
    server.cli("projects", "create", "search")
    key = server.make_key("inside", project="search")
    assert call(server, key)[0] == 200
    refused = server.cli("projects", "delete", "search", "--yes")
    assert refused.returncode == 1
    assert "1 key and no clients" in refused.stderr

    assert server.cli("projects", "delete", "search", "--force", "--yes").returncode == 0

    assert call(server, key) == (401, "invalid_api_key")
    [row] = server.admin("GET", "/api/v1/usage?by=project")["data"]
    assert row["project"].startswith("search (deleted 20")


def test_reported_key_stops_and_its_owner_is_told(server: LingpaiServer) -> None:
    for name in ("ada", "bob"):
        server.cli("users", "create", name)
    leaked = server.make_key("ci", user="ada")
    readers = {name: server.make_key("reader", user=name, scopes=["events:read"]) for name in ("ada", "bob")}
    assert call(server, leaked)[0] == 200

    outcome = server.cli(
        "keys", "report-leaked", "--server", server.base, stdin=f"found in a log: {leaked}\n", at_data=False
    )

    assert outcome.returncode == 0, outcome.stderr
    assert call(server, leaked) == (401, "key_disabled")
    shown = server.cli_json("keys", "show", "ci")
    assert (shown["state"], shown["disabled_because"]) == ("disabled", "reported as leaked")

    def events_of(name: str) -> list[dict[str, Any]]:
        answer = get(server.port, "/api/v1/events?type=key.leaked", key=readers[name])
        return list(answer.json["data"])

    wait_until(lambda: len(events_of("ada")) == 1)
    [event] = events_of("ada")
    assert (event["subject"], event["subject_id"]) == ("key", leaked[6:18])
    assert "Key `ci` of `ada` was reported as leaked." in event["message"]
    assert events_of("bob") == []
    assert leaked[18:61] not in json.dumps(event)


def test_reports_are_answered_alike_and_at_the_same_time(server: LingpaiServer) -> None:
    """Whether keys work cannot be told by the answer, nor by the time it takes."""
    keys = [server.make_key(f"key-{number}") for number in range(30)]
    unknown = [mint_credential("sk-lp-").token for _ in keys]

    def report(tokens: list[str]) -> tuple[int, bytes, float]:
        began = time.monotonic()
        answer = post(server.port, "/api/v1/keys/leaked", {"keys": tokens})
        return answer.status, answer.body, time.monotonic() - began

    first = report(keys)  # disables thirty
    again = [report(tokens) for tokens in (keys, unknown, [], ["sk-lp-nothing"])]

    assert {(status, body) for status, body, _ in (first, *again)} == {(202, b'{"status":"received"}')}
    assert all(seconds >= 0.25 for _, _, seconds in (first, *again))
    assert {call(server, key) for key in keys[:3]} == {(401, "key_disabled")}


def test_owasp_api6_anybody_may_report_but_not_too_much(server: LingpaiServer) -> None:
    answers = [
        post(server.port, "/api/v1/keys/leaked", {"keys": ["x" * (MAX_TOKEN_BYTES + 1)]}) for _ in range(14)
    ]

    assert {answer.status for answer in answers} == {400, 429}
    assert int(answers[-1].headers["retry-after"]) >= 1


def test_scan_finds_the_key_of_a_real_server(server: LingpaiServer) -> None:
    key = server.make_key("ci")
    planted = server.folder / "planted"
    planted.mkdir()
    (planted / "notes.txt").write_text(f"export LINGPAI_API_KEY={key}\n")

    outcome = subprocess.run(
        [sys.executable, "-m", "lingpai.cli", "keys", "scan", str(planted), "--json"],
        env=server.environment, cwd=server.folder, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip

    SCAN.note("output of keys scan", outcome.stdout + outcome.stderr)
    assert outcome.returncode == 1
    [found] = json.loads(outcome.stdout)
    assert (found["id"], found["line"]) == (key[6:18], 1)
