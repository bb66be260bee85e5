"""OWASP API Security 2023, API4 and API6: what one caller can make the server hold or do."""

from typing import Any

import pytest

from lingpai.identity.scopes import SCOPES_OF_ROLE
from tests.e2e.api_operations import operations_of
from tests.e2e.conftest import MakeServer
from tests.e2e.raw_http import RawAnswer, chat, get, post
from tests.secrets_scan import SCAN

CHAT = "/v1/chat/completions"
MEMBER = sorted(SCOPES_OF_ROLE["member"])


# -- API4: bounds


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"n": 17}, "n"),
        ({"n": 10**30}, "n"),
        ({"n": 0}, "n"),
        ({"n": -1}, "n"),
        ({"n": 1.5}, "n"),
        ({"max_tokens": 10**30}, "max_tokens"),
        ({"max_tokens": -1}, "max_tokens"),
        ({"max_tokens": 1e300}, "max_tokens"),
        ({"max_completion_tokens": 10**30}, "max_completion_tokens"),
        ({"messages": []}, "messages"),
    ],
    ids=lambda value: str(value)[:40],
)
@pytest.mark.parametrize("stream", [False, True])
def test_owasp_api4_every_quantity_of_a_call_is_bounded(*, relay, key_name, engine, fields, param, stream):
    """Also for a key whose limits count what these would multiply: nothing is admitted, nothing is charged."""
    key = relay.make_key(key_name, limits=["100000 tokens/day"])
    before = len(engine.calls)

    answer = post(relay.port, CHAT, chat(stream=stream, **fields), key=key)

    assert (answer.status, answer.error["param"]) == (400, param), answer.body
    assert len(engine.calls) == before
    assert get(relay.port, "/v1/key", key=key).json["limits"][0]["used"] == 0


@pytest.mark.parametrize("path", [CHAT, "/api/v1/keys", "/api/v1/limits"])
def test_owasp_api4_json_that_nests_too_deeply_is_refused(root, path):
    method = "PUT" if path.endswith("limits") else "POST"
    for depth in (65, 1000, 100_000):
        body = (
            '{"model": "lingpai/eliza", "messages": [], "name": "a", "limits": '
            + "[" * depth
            + "]" * depth
            + "}"
        )
        answer = root.request(method, path, content=body, headers={"content-type": "application/json"})
        assert answer.status_code == 400, (depth, answer.text)


@pytest.mark.parametrize("limit", [0, -1, 201, 10**20])
def test_owasp_api4_a_page_has_a_largest_size(root, document, limit):
    lists = 0
    for method, path, operation in operations_of(document):
        names = {parameter["name"] for parameter in operation.get("parameters", [])}
        if method == "GET" and {"limit", "cursor"} <= names and "{" not in path:
            answer = root.get(path, params={"limit": limit})
            assert (answer.status_code, answer.json()["error"]["param"]) == (400, "limit"), path
            lists += 1
    assert lists >= 9


def test_owasp_api4_the_messages_of_a_call_are_bounded(tried):
    many = [{"role": "user", "content": "a"}] * 10_001

    answer = post(tried.port, CHAT, {"model": "lingpai/eliza", "messages": many}, key=tried.key)

    assert (answer.status, answer.error["param"]) == (400, "messages")


# -- API6: flows that hurt when they are automated


def test_owasp_api6_members_make_so_many_credentials_an_hour_and_administrators_any_number(
    make_server: MakeServer,
):
    """Keys, clients, signing keys and new secrets count together; what was made goes on working."""
    server = make_server(config="[identity]\ncredentials_per_hour = 5\n").start()
    keys = {}
    for name in ("bob", "eve"):
        server.admin("POST", "/api/v1/users", {"name": name, "limits": ["100/day"]})
        keys[name] = server.make_key(f"of-{name}", user=name, limits=[], scopes=MEMBER)
    made = [
        ("/api/v1/keys", {"name": "a"}), ("/api/v1/clients", {"name": "a"}), ("/api/v1/keys/a/rotate", {"overlap": "1h"}),
        ("/api/v1/keys/a/signing-keys", {"name": "a", "algorithm": "hmac-sha256"}), ("/api/v1/keys", {"name": "b"}),
    ]  # fmt: skip

    def make(path: str, body: dict[str, Any], name: str = "bob") -> RawAnswer:
        answer = post(server.port, path, body, key=keys[name])
        SCAN.secrets.add_credentials(answer.body)
        return answer

    assert [make(path, body).status // 100 for path, body in made] == [2] * 5
    for path, body in (*made[1:4], ("/api/v1/keys", {"name": "c"})):
        refused = make(path, {**body, "name": "c"} if "name" in body else body)
        assert (refused.status, refused.error["code"]) == (429, "rate_limit_exceeded"), path
        assert 1 <= int(refused.headers["retry-after"]) <= 720
    assert make("/api/v1/keys", {"name": "a"}, "eve").status == 201
    assert len([server.make_key(f"many-{number}") for number in range(20)]) == 20
    assert post(server.port, CHAT, chat(model="lingpai/eliza"), key=keys["bob"]).status == 200
    assert get(server.port, "/api/v1/keys", key=keys["bob"]).status == 200


def test_owasp_api6_nobody_signs_up_without_an_administrator(tried):
    for path, body in (
        ("/api/v1/users", {"name": "walk-in"}),
        ("/api/v1/keys", {"name": "walk-in"}),
        ("/api/v1/clients", {"name": "walk-in"}),
        ("/api/v1/users/admin/invitation", {}),
    ):
        assert post(tried.port, path, body).status == 401
    accepted = {"invitation": "in-lp-" + "a" * 40, "password": "quiet harbour lamp of nobody"}
    assert post(tried.port, "/api/v1/invitations/accept", accepted).status == 401
