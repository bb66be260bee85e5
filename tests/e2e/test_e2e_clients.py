"""OAuth clients from the command line to the reports: made, used, seen, ended, and nobody else's business."""

import json
import subprocess
import sys

import pytest

from tests.e2e.client_tokens import TokenClient, ask, call, delete, make_client
from tests.e2e.conftest import MakeServer
from tests.e2e.lingpai_server import ROOT, LingpaiServer, clean_environment
from tests.e2e.raw_http import RawConnection, chat, get_bytes, post_bytes
from tests.e2e.waiting import wait_until

READERS = [
    "clients:read",
    "keys:read",
    "limits:read",
    "tokens:read",
    "tokens:write",
    "usage:read",
    "model:inference",
]


@pytest.fixture
def server(make_server: MakeServer, engine) -> LingpaiServer:
    return make_server(engine.url).start()


@pytest.fixture
def alice(server: LingpaiServer) -> str:
    """The key of a member."""
    server.admin("POST", "/api/v1/users", {"name": "alice", "limits": ["none"]})
    return server.make_key("alices", user="alice", scopes=[*READERS, "clients:write"])


def test_secret_from_the_command_line_gets_tokens_that_call_models(server: LingpaiServer):
    """`SECRET=$(lingpai clients create x)`; rotated without overlap, the secret before ends at once and tokens stay."""
    secret = server.cli("clients", "create", "nightly", "--limit", "100/day").stdout.strip()
    shown = server.cli_json("clients", "show", "nightly")
    client = TokenClient(server, shown["client_id"], secret)
    token = client.token()

    rotated = server.cli("clients", "rotate", "nightly", "--overlap", "0s").stdout.strip()

    assert client.ask_for_token().status == 401
    assert call(server, token).status == 200
    assert call(server, TokenClient(server, client.id, rotated).token()).status == 200
    assert shown["limits"] == ["100/day"]
    assert server.stop() == 0
    server.start()
    again = server.cli_json("clients", "show", "nightly")
    assert (again["client_id"], again["last_used_ip"]) == (client.id, "127.0.0.1")


def test_clients_are_searched_and_filtered_by_the_server(server: LingpaiServer):
    server.cli("clients", "create", "Nightly_1", "--scope", "usage:read")
    server.cli("clients", "create", "nightly-2")
    server.cli("clients", "create", "hourly")
    server.cli("clients", "disable", "nightly-2")

    def found(*filters: str) -> set[str]:
        return {client["name"] for client in server.cli_json("clients", "list", *filters)}

    assert found() == {"Nightly_1", "nightly-2", "hourly"}
    assert found("--search", "nightly") == {"Nightly_1", "nightly-2"}
    assert found("--search", "_") == {"Nightly_1"}
    assert found("--search", "nightly", "--state", "active") == {"Nightly_1"}
    assert found("--state", "disabled") == {"nightly-2"}
    assert found("--scope", "usage:read") == {"Nightly_1"}


def test_update_disable_and_delete_act_on_the_next_call(server: LingpaiServer):
    client = make_client(server, "nightly")
    token = client.token()
    assert call(server, token).status == 200

    server.cli("clients", "update", "nightly", "--model", "fake/embed-small")
    narrowed = call(server, token, model="fake/chat")
    server.cli("clients", "update", "nightly", "--model", "all")
    widened = call(server, token)
    server.cli("clients", "disable", "nightly")
    disabled, no_token = call(server, token), client.ask_for_token()
    server.cli("clients", "enable", "nightly")
    enabled = call(server, token)
    server.cli("clients", "delete", "nightly", "--yes")
    deleted = call(server, token)

    assert (narrowed.status, narrowed.error["code"]) == (403, "model_not_allowed")
    assert (widened.status, enabled.status) == (200, 200)
    assert (disabled.error["code"], no_token.status) == ("key_disabled", 401)
    assert (deleted.status, deleted.error["code"]) == (401, "invalid_api_key")


def test_usage_is_told_by_client_and_keeps_the_name_of_one_that_is_gone(server: LingpaiServer):
    nightly, hourly = make_client(server, "nightly"), make_client(server, "hourly")
    for client, times in ((nightly, 3), (hourly, 1)):
        for _ in range(times):
            assert call(server, client.token()).status == 200
    assert call(server, server.key).status == 200
    server.cli("clients", "delete", "nightly", "--yes")

    by_client = {row["client"]: row["requests"] for row in server.cli_json("usage", "--by", "client")}
    both = server.cli_json("usage", "--by", "client,key", "--client", "nightly")
    calls = server.cli_json("requests", "list", "--client", "nightly")
    exported = server.cli(
        "requests", "export", "--client", nightly.id, "--format", "jsonl"
    ).stdout.splitlines()
    table = server.cli("requests", "list").stdout

    assert by_client == {"nightly": 3, "hourly": 1, None: 1}
    assert [(row["client"], row["client_id"], row["key"], row["requests"]) for row in both] == [
        ("nightly", nightly.id, None, 3)
    ]
    assert [(each["client"], each["client_id"], each["key"]) for each in calls] == [
        ("nightly", nightly.id, None)
    ] * 3
    assert [json.loads(line)["client"] for line in exported] == ["nightly"] * 3
    assert "hourly" in table


def test_revoked_token_is_refused_on_the_next_call_of_the_same_connection(server: LingpaiServer):
    client = make_client(server, "nightly")
    tokens = [client.token() for _ in range(3)]
    listed = server.cli_json("tokens", "list", "--client", "nightly")

    with RawConnection(server.port) as connection:
        connection.send(post_bytes("/v1/chat/completions", chat(), key=tokens[0]))
        before = connection.read_answer().status
        server.cli("tokens", "revoke", tokens[0][6:18])
        connection.send(post_bytes("/v1/chat/completions", chat(), key=tokens[0]))
        after = connection.read_answer()

    left = [token["id"] for token in server.cli_json("tokens", "list")]
    assert {token["id"] for token in listed} == {token[6:18] for token in tokens}
    assert (before, after.status, after.error["code"]) == (200, 401, "invalid_api_key")
    assert 'error="invalid_token"' in after.headers["www-authenticate"]
    assert sorted(left) == sorted(token[6:18] for token in tokens[1:])
    assert call(server, tokens[1]).status == 200


def test_token_that_ends_itself(server: LingpaiServer, alice: str):
    """A program with the scope may log itself out."""
    client = make_client(server, "tidy", user="alice", scopes=["tokens:write", "model:inference"])
    token = client.token()

    ended = delete(server, f"/api/v1/tokens/{token[6:18]}", token)

    assert ended == 204
    assert ask(server, "/v1/key", token).status == 401


def test_clients_tokens_and_usage_of_another_do_not_exist(server: LingpaiServer, alice: str):
    """Each id and name in each place answers as one that is not there."""
    client = make_client(server, "nightly", limits=["100/day"])
    token = client.token()
    assert call(server, token).status == 200
    own = server.admin("GET", "/api/v1/clients")

    for name in (client.id, "nightly"):
        for method, path in (
            ("GET", f"/api/v1/clients/{name}"),
            ("DELETE", f"/api/v1/clients/{name}"),
            ("GET", f"/api/v1/limits?client={name}"),
            ("GET", f"/api/v1/limits/explain?client={name}"),
            ("GET", f"/api/v1/usage?client={name}"),
            ("GET", f"/api/v1/usage/export?client={name}"),
            ("GET", f"/api/v1/requests?client={name}"),
            ("GET", f"/api/v1/requests/export?client={name}"),
            ("GET", f"/api/v1/tokens?client={name}"),
            ("DELETE", f"/api/v1/tokens/{token[6:18]}"),
        ):
            with RawConnection(server.port) as connection:
                connection.send(get_bytes(path, key=alice, method=method))
                answer = connection.read_answer()
            assert (answer.status, answer.error["code"]) == (404, "not_found"), (method, path)

    assert ask(server, "/api/v1/tokens", alice).json["data"] == []
    assert ask(server, "/api/v1/clients", alice).json["data"] == []
    assert server.admin("GET", "/api/v1/clients") == own
    assert call(server, token).status == 200


def test_threshold_of_a_clients_limit_is_told_to_its_owner(server: LingpaiServer, alice: str):
    client = make_client(server, "nightly", user="alice", limits=["5/day"])
    key = server.make_key("watching", user="alice", scopes=["events:read"])
    token = client.token()

    statuses = [call(server, token).status for _ in range(6)]
    server.admin("GET", "/api/v1/usage")

    assert statuses == [200] * 5 + [429]
    events = _events_of(server, key)
    assert {(event["subject"], event["subject_id"]) for event in events} == {("client", client.id)}
    assert sorted(event["data"]["percent"] for event in events) == [80, 100]
    assert "client `nightly`" in events[0]["message"]


def _events_of(server: LingpaiServer, key: str) -> list[dict[str, object]]:
    found: list[dict[str, object]] = []

    def are_there() -> bool:
        found[:] = ask(server, "/api/v1/events?type=limit.threshold", key).json["data"]
        return len(found) == 2

    wait_until(are_there)
    return found


def test_openai_sdk_with_a_library_that_keeps_its_token_fresh(server: LingpaiServer):
    """The program in the guide: its token is renewed before it ends, and nobody notices."""
    guide = (ROOT / "docs" / "guides" / "tokens.md").read_text(encoding="utf-8")
    program = guide.partition("```python\n")[2].partition("```")[0]
    client = make_client(server, "nightly", token_lifetime_s=61)  # Authlib renews 60 s before the end
    program = program.replace("http://127.0.0.1:8741", server.base)
    calls = (
        "for _ in range(3):\n"
        "    answer = client.chat.completions.create(model='fake/chat', messages=[{'role': 'user', 'content': 'hi'}])\n"
        "    time.sleep(1.2)\n"
        "print(answer.object)\n"
    )

    outcome = subprocess.run(
        [sys.executable, "-c", f"import os, time\nID, SECRET = os.environ['ID'], os.environ['SECRET']\n{program}\n{calls}"],
        env=clean_environment({"ID": client.id, "SECRET": client.secret}),
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip

    assert (outcome.stdout, outcome.returncode) == ("chat.completion\n", 0), outcome.stderr
    assert len(server.cli_json("tokens", "list", "--client", "nightly")) >= 3
    assert len(server.records("client_id = ?", client.id)) == 3
