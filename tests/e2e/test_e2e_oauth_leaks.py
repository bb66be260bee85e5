"""Reports of leaked tokens, client secrets and all the rest on a real server: what was reported is refused with the next call."""

import json
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest

from lingpai import ids
from lingpai.ids import mint_credential
from tests.e2e.oauth_server import TOKEN, Client, OAuthServer, is_oauth_error
from tests.e2e.raw_http import RawAnswer, RawConnection, chat, exchange, get, post, post_bytes
from tests.e2e.signed_caller import SignedCaller
from tests.e2e.waiting import wait_until
from tests.secrets_scan import SCAN

GRANTS = ["client_credentials", "password", "refresh_token"]
PATH = "/api/v1/keys/leaked"
OWNER = "alice"
NEW_PASSWORD = "another quiet harbour lamp"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OAuthServer]:
    """A server of its own: a test more does not run into the rate of reports, which are counted per address."""
    server = OAuthServer(tmp_path_factory.mktemp("leaks"), people={OWNER: "alices long password"}).start()
    yield server
    server.stop()


@pytest.fixture
def agent(server: OAuthServer, request: pytest.FixtureRequest) -> Client:
    name = request.node.name.partition("[")[0].removeprefix("test_")[:60]
    return server.make_client(name, grants=GRANTS, user=OWNER)


@pytest.fixture(scope="module")
def reader(server: OAuthServer) -> str:
    """A key of the owner's that reads events."""
    return server.make_key("reader", user=OWNER, scopes=["events:read"])


def report(server: OAuthServer, *tokens: str) -> RawAnswer:
    while True:
        answer = post(server.port, PATH, {"keys": list(tokens)})
        if answer.status != 429:
            assert answer.status == 202, answer.body
            return answer
        time.sleep(int(answer.headers["retry-after"]))


def told(server: OAuthServer, reader: str, kind: str, id_: str) -> list[dict[str, Any]]:
    """The events that the owner sees of this leak."""
    events = get(server.port, "/api/v1/events?type=key.leaked&limit=200", key=reader).json["data"]
    return [event for event in events if (event["data"]["kind"], event["data"]["id"]) == (kind, id_)]


def wait_for_event(server: OAuthServer, reader: str, kind: str, id_: str) -> dict[str, Any]:
    wait_until(lambda: len(told(server, reader, kind, id_)) == 1)
    return told(server, reader, kind, id_)[0]


def audited(server: OAuthServer, target: str) -> list[tuple[str, str]]:
    """Action and reason of what the trail has on a target, without what was done by somebody."""
    records = server.admin("GET", f"/api/v1/audit?target={target}")["data"]
    return [
        (each["action"], each["reason"]) for each in records if each.get("reason") == "reported as leaked"
    ]


def with_wrong_secret(token: str) -> str:
    body = f"{token[:18]}{mint_credential('sk-lp-').token[18:61]}"
    return body + ids._checksum(body.encode())


def test_access_token_is_refused_from_the_next_call_on(server: OAuthServer, agent: Client, reader: str):
    token = server.token(agent)["access_token"]
    with RawConnection(server.port) as connection:

        def ask() -> int:
            connection.send(post_bytes("/v1/chat/completions", chat(model="lingpai/eliza"), key=token))
            return connection.read_answer().status

        assert ask() == 200

        report(server, token)

        assert ask() == 401, "on a connection that knows the token, too"
    assert server.call(token).error["code"] == "invalid_api_key"
    assert server.introspect(agent, token) == {"active": False}
    event = wait_for_event(server, reader, "access_token", token[6:18])
    assert (event["subject"], event["subject_id"]) == ("client", agent.id)
    assert f"Access token `{token[6:18]}` of `{OWNER}` was reported as leaked." in event["message"]
    assert token[18:61] not in json.dumps(event)
    assert audited(server, token[6:18]) == [("token.revoke", "reported as leaked")]
    assert server.call(server.token(agent)["access_token"]).status == 200, "the client goes on"


def test_refresh_token_ends_its_family(server: OAuthServer, agent: Client, reader: str):
    tokens = server.sign_in(OWNER, agent)
    newer = server.refresh(tokens["refresh_token"], agent).json
    both = [tokens["access_token"], newer["access_token"]]
    assert [server.call(token).status for token in both] == [200, 200]

    report(server, newer["refresh_token"])

    assert [server.call(token).status for token in both] == [401, 401]
    assert server.introspect(agent, newer["refresh_token"]) == {"active": False}
    assert is_oauth_error(server.refresh(newer["refresh_token"], agent), 400, "invalid_grant")
    with closing(sqlite3.connect(f"file:{server.data}/lingpai.db?mode=ro", uri=True)) as connection:
        [(family, because)] = connection.execute(
            "SELECT f.id, revoked_because FROM token_families f JOIN refresh_tokens t ON t.family_id = f.id WHERE t.id = ?",
            (newer["refresh_token"][6:18],),
        )
    assert because == "reported as leaked"
    assert family not in {each["id"] for each in server.admin("GET", "/api/v1/tokens?limit=200")["data"]}
    event = wait_for_event(server, reader, "refresh_token", newer["refresh_token"][6:18])
    assert event["subject"] == "user"
    assert audited(server, family) == [("token.revoke", "reported as leaked")]


def test_client_secret_disables_its_client_and_the_owner_sees_why(
    server: OAuthServer, agent: Client, reader: str
):
    token = server.token(agent)["access_token"]

    report(server, agent.secret)

    answer = server.form(TOKEN, {"grant_type": "client_credentials"}, basic=agent.basic)
    assert is_oauth_error(answer, 401, "invalid_client")
    assert server.call(token).status == 401
    shown = server.cli_json("clients", "show", agent.id)
    assert (shown["disabled"], shown["disabled_because"]) == (True, "reported as leaked")
    assert "disabled: reported as leaked" in server.cli("clients", "show", agent.id).stdout
    wait_for_event(server, reader, "client_secret", agent.id)
    assert audited(server, agent.id) == [("client.disable", "reported as leaked")]

    refused = server.cli("clients", "enable", agent.id)
    assert refused.returncode == 1
    assert f"lingpai clients rotate {agent.id}" in refused.stderr
    new = Client(agent.id, server.cli("clients", "rotate", agent.id).stdout.strip())
    assert server.cli("clients", "enable", agent.id).returncode == 0
    answer = server.form(TOKEN, {"grant_type": "client_credentials"}, basic=agent.basic)
    assert is_oauth_error(answer, 401, "invalid_client")
    assert server.call(server.token(new)["access_token"]).status == 200
    assert server.call(token).status == 401, "who had the secret may have got it"


def test_old_client_secret_ends_alone(server: OAuthServer, agent: Client, reader: str):
    made = server.admin("POST", f"/api/v1/clients/{agent.id}/rotate", {"overlap": "1h"})
    new = Client(agent.id, made["client_secret"])
    token = server.token(agent)["access_token"]

    report(server, agent.secret)

    answer = server.form(TOKEN, {"grant_type": "client_credentials"}, basic=agent.basic)
    assert is_oauth_error(answer, 401, "invalid_client")
    assert server.call(server.token(new)["access_token"]).status == 200
    assert server.call(token).status == 200
    assert server.admin("GET", f"/api/v1/clients/{agent.id}")["disabled"] is False
    wait_for_event(server, reader, "client_secret", agent.id)
    assert audited(server, agent.id) == [("client.end_old_secret", "reported as leaked")]


def test_signing_key_is_deleted_and_its_key_goes_on(server: OAuthServer, reader: str):
    caller = SignedCaller(server, "signs", user=OWNER)
    body = json.dumps(chat(model="lingpai/eliza")).encode()
    assert exchange(server.port, caller.request(body)).status == 200

    report(server, caller.secret)

    assert exchange(server.port, caller.request(body)).error["code"] == "signature_invalid"
    assert server.admin("GET", caller.path)["data"] == []
    assert server.call(caller.key).status == 200
    event = wait_for_event(server, reader, "signing_key", caller.signing_key_id)
    assert (event["subject"], event["subject_id"]) == ("key", caller.key_id)
    assert audited(server, caller.signing_key_id) == [("signing_key.delete", "reported as leaked")]


def test_session_and_invitation_end(server: OAuthServer, reader: str):
    session = accept(server, invite(server))
    assert is_signed_in(server, session)
    invitation = invite(server)

    report(server, session, invitation)

    assert not is_signed_in(server, session)
    answer = post(server.port, "/api/v1/invitations/look-up", {"invitation": invitation})
    assert (answer.status, answer.error["code"]) == (401, "invalid_invitation")
    for kind, token, action in (
        ("session", session, "session.end"),
        ("invitation", invitation, "invitation.delete"),
    ):
        event = wait_for_event(server, reader, kind, token[6:18])
        assert event["subject"] == "user"
        assert token[18:61] not in json.dumps(event)
        assert audited(server, token[6:18]) == [(action, "reported as leaked")]


def invite(server: OAuthServer) -> str:
    token = str(server.admin("POST", f"/api/v1/users/{OWNER}/invitation")["invitation"])
    SCAN.secrets.add_credentials(token)
    return token


def accept(server: OAuthServer, invitation: str) -> str:
    """The secret of the session in which it signs in."""
    SCAN.secrets.add("password", NEW_PASSWORD)
    server.people[OWNER] = NEW_PASSWORD
    answer = post(
        server.port, "/api/v1/invitations/accept", {"invitation": invitation, "password": NEW_PASSWORD}
    )
    assert answer.status == 201, answer.body
    token = next(iter(credentials_of(str(answer.headers))))
    SCAN.secrets.add_credentials(token)
    return token


def credentials_of(text: str) -> list[str]:
    return [token.decode() for _, token in ids.find_credentials(text.encode())]


def is_signed_in(server: OAuthServer, session: str) -> bool:
    answer = get(server.port, "/api/v1/sessions/current", headers=(f"cookie: lingpai-session={session}",))
    assert answer.status in (200, 401), answer.body
    return answer.status == 200


def test_wrong_secret_of_a_right_id_changes_nothing(server: OAuthServer, agent: Client):
    tokens = server.sign_in(OWNER, agent)

    report(server, *map(with_wrong_secret, (agent.secret, tokens["access_token"], tokens["refresh_token"])))

    assert server.call(tokens["access_token"]).status == 200
    refreshed = server.refresh(tokens["refresh_token"], agent)
    assert refreshed.status == 200
    assert server.call(server.token(agent)["access_token"]).status == 200
    for target in (agent.id, tokens["access_token"][6:18]):
        assert audited(server, target) == []


def test_reports_are_answered_alike_whatever_works(server: OAuthServer, agent: Client, reader: str):
    """Valid, reported before, unknown, with a wrong secret: to the byte, but for what every answer has of its own."""
    tokens = server.sign_in(OWNER, agent)
    access, refresh = server.token(agent)["access_token"], tokens["refresh_token"]
    owns = {"date", "x-request-id", "request-id", "openai-processing-ms"}

    def shape(*reported: str) -> tuple[int, bytes, dict[str, str]]:
        began = time.monotonic()
        answer = report(server, *reported)
        assert time.monotonic() - began >= 0.25
        return (
            answer.status,
            answer.body,
            {name: value for name, value in answer.headers.items() if name not in owns},
        )

    kinds = [access, refresh, agent.secret]
    answers = [
        shape("nothing"),
        *(shape(with_wrong_secret(token)) for token in kinds),
        *(
            shape(mint_credential(prefix).token)
            for prefix in ("at-lp-", "rt-lp-", "cs-lp-", "sg-lp-", "ss-lp-", "in-lp-")
        ),
        *(shape(token) for token in kinds),
        *(shape(token) for token in kinds),
        shape(*kinds),
    ]

    assert all(answer == answers[0] for answer in answers)
    assert answers[0][:2] == (202, b'{"status":"received"}')
    for kind, id_ in (
        ("access_token", access[6:18]),
        ("refresh_token", refresh[6:18]),
        ("client_secret", agent.id),
    ):
        wait_for_event(server, reader, kind, id_)  # one, although each was reported three times
