"""Refresh tokens rotate, and using one twice ends the sign-in: RFC 9700 section 4.14, RFC 6749 section 6 (security.md 2.7)."""

import sqlite3
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import Any

import pytest

from tests.e2e.oauth_server import TOKEN, Client, OAuthServer, is_oauth_error
from tests.e2e.raw_http import RawAnswer

GRANTS = ["client_credentials", "password", "refresh_token"]
PARALLEL = 50


@pytest.fixture(scope="module")
def agent(oauth: OAuthServer) -> Client:
    return oauth.make_client("agent", grants=GRANTS)


@pytest.fixture(scope="module")
def patient(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OAuthServer]:
    """A server that gives those who lost an answer ten seconds to ask again."""
    server = OAuthServer(
        tmp_path_factory.mktemp("patient"),
        people={"carol": "carols long password"},
        config="[oauth]\nrefresh_grace = 10\n",
    ).start()
    yield server
    server.stop()


def all_at_once(count: int, ask) -> list[RawAnswer]:
    """The answers to `count` calls of `ask` that begin at the same moment."""
    barrier = threading.Barrier(count)

    def one(_: int) -> RawAnswer:
        barrier.wait(20)
        return ask()

    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(one, range(count)))


def rows(server: OAuthServer, statement: str, *parameters: Any) -> list[tuple[Any, ...]]:
    with closing(sqlite3.connect(f"file:{server.data}/lingpai.db?mode=ro", uri=True)) as connection:
        return connection.execute(statement, parameters).fetchall()


def family_of(server: OAuthServer, refresh_token: str) -> tuple[Any, ...]:
    """`revoked_because` of its family, and how many refresh tokens of that are unused."""
    return rows(
        server,
        "SELECT revoked_because, (SELECT count(*) FROM refresh_tokens r WHERE r.family_id = f.id AND used_at IS NULL)"
        " FROM token_families f JOIN refresh_tokens t ON t.family_id = f.id WHERE t.id = ?",
        refresh_token[6:18],
    )[0]


def test_rfc9700_s2_2_2_refresh_tokens_of_public_clients_rotate(oauth: OAuthServer):
    """Each use gives another refresh token, also without a registered client."""
    public = oauth.make_client("public", public=True, grants=["password", "refresh_token"])
    for client in (public, None):
        tokens = [oauth.sign_in("alice", client)]
        for _ in range(3):
            tokens.append(oauth.refresh(tokens[-1]["refresh_token"], client).json)

        assert len({each["refresh_token"] for each in tokens}) == 4
        assert len({each["access_token"] for each in tokens}) == 4
        assert all(oauth.call(each["access_token"]).status == 200 for each in tokens)


def test_rfc9700_s4_14_2_reuse_ends_the_sign_in(oauth: OAuthServer, agent: Client):
    """A refresh token that comes again ends all tokens of that sign-in, at once, and no other one's."""
    first = oauth.sign_in("alice", agent)
    second = oauth.refresh(first["refresh_token"], agent).json
    third = oauth.refresh(second["refresh_token"], agent).json
    other = oauth.sign_in("alice", agent)
    assert all(oauth.call(each["access_token"]).status == 200 for each in (first, second, third, other))

    reused = oauth.refresh(first["refresh_token"], agent)

    assert is_oauth_error(reused, 400, "invalid_grant")
    assert "used before" in reused.json["error_description"]
    assert [oauth.call(each["access_token"]).status for each in (first, second, third)] == [401] * 3
    assert is_oauth_error(oauth.refresh(third["refresh_token"], agent), 400, "invalid_grant")
    assert oauth.call(other["access_token"]).status == 200
    assert oauth.refresh(other["refresh_token"], agent).status == 200
    assert family_of(oauth, first["refresh_token"])[0] == "refresh token reused"


def test_rfc9700_s4_14_2_refresh_token_is_bound_to_its_scope(oauth: OAuthServer):
    """What a client lost, its refresh tokens lost; what it got later, they do not get."""
    client = oauth.make_client("changing", grants=GRANTS, scopes=["model:inference", "usage:read"])
    tokens = oauth.sign_in("alice", client)

    oauth.admin("PATCH", f"/api/v1/clients/{client.id}", {"scopes": ["usage:read", "keys:read"]})
    refreshed = oauth.refresh(tokens["refresh_token"], client).json

    assert refreshed["scope"] == "usage:read"
    for lost in ("model:inference", "keys:read"):
        answer = oauth.refresh(refreshed["refresh_token"], client, scope=lost)
        assert is_oauth_error(answer, 400, "invalid_scope")


def test_rfc9700_s4_14_2_refused_attempt_uses_nothing_up(oauth: OAuthServer, agent: Client):
    """A wrong client, a wrong secret, a wrong scope: the token is still good, and nothing was revoked."""
    tokens = oauth.sign_in("alice", agent)
    token = tokens["refresh_token"]

    oauth.refresh(token, None)
    oauth.refresh(token, Client(agent.id, agent.secret[:-1] + "x"))
    oauth.refresh(token, agent, scope="no:such")

    assert oauth.call(tokens["access_token"]).status == 200
    assert oauth.refresh(token, agent).status == 200


def test_rfc9700_s4_14_2_client_without_the_grant_cannot_refresh(oauth: OAuthServer):
    """Taking the grant from a client stops its refresh tokens."""
    client = oauth.make_client("restricted", grants=GRANTS)
    tokens = oauth.sign_in("alice", client)

    oauth.admin("PATCH", f"/api/v1/clients/{client.id}", {"grants": ["password"]})

    assert is_oauth_error(oauth.refresh(tokens["refresh_token"], client), 400, "unauthorized_client")


def test_client_without_the_grant_gets_no_refresh_token(oauth: OAuthServer):
    """A client that may not refresh is given nothing to refresh with; its sign-in can be ended all the same."""
    client = oauth.make_client("once", grants=["password"])

    tokens = oauth.sign_in("alice", client)

    assert "refresh_token" not in tokens
    statement = (
        "SELECT count(*) FROM access_tokens a JOIN token_families f ON f.id = a.family_id WHERE a.id = ?"
    )
    assert rows(oauth, statement, tokens["access_token"][6:18]) == [(1,)]


@pytest.mark.parametrize("round_", range(20))
def test_rfc9700_s4_14_2_fifty_at_once_have_one_successor(oauth: OAuthServer, agent: Client, round_: int):
    """50 uses of one refresh token at the same time: one gets the successor, all others invalid_grant, and it ends."""
    tokens = oauth.sign_in("alice", agent)

    answers = all_at_once(PARALLEL, lambda: oauth.refresh(tokens["refresh_token"], agent))

    winners = [answer.json for answer in answers if answer.status == 200]
    losers = [answer for answer in answers if answer.status != 200]
    assert len(winners) == 1
    assert all(is_oauth_error(answer, 400, "invalid_grant") for answer in losers)
    assert family_of(oauth, tokens["refresh_token"]) == ("refresh token reused", 1)
    assert is_oauth_error(oauth.refresh(winners[0]["refresh_token"], agent), 400, "invalid_grant")
    assert [oauth.call(each["access_token"]).status for each in (tokens, winners[0])] == [401, 401]


@pytest.mark.timeout(120)
def test_rfc9700_s4_14_2_reuse_after_a_restart_ends_the_sign_in(tmp_path):
    """What was answered just before a kill -9 is known after it: which tokens are used, and which sign-ins have ended.

    On twenty sign-ins at once, and then again on one after the other.
    """
    server = OAuthServer(tmp_path / "restarted", people={"dave": "daves long password"}).start()
    try:
        for count in (20, 1, 1):
            _check_reuse_after_kills(server, count)
    finally:
        server.stop()


def _check_reuse_after_kills(server: OAuthServer, count: int) -> None:
    firsts = [server.sign_in("dave") for _ in range(count)]
    seconds = [server.refresh(each["refresh_token"]).json for each in firsts]
    server.kill()
    server.start()
    assert [server.call(each["access_token"]).status for each in seconds] == [200] * count

    reused = [server.refresh(each["refresh_token"]) for each in firsts]
    server.kill()
    server.start()

    assert all(is_oauth_error(answer, 400, "invalid_grant") for answer in reused)
    assert [server.call(each["access_token"]).status for each in (*firsts, *seconds)] == [401] * 2 * count
    assert [family_of(server, each["refresh_token"]) for each in firsts] == [
        ("refresh token reused", 1)
    ] * count
    successors = [server.refresh(each["refresh_token"]) for each in seconds]
    assert all(is_oauth_error(answer, 400, "invalid_grant") for answer in successors)


def test_grace_gives_the_same_successor_again(patient: OAuthServer):
    """Whoever lost the answer gets the same refresh token, and with it an access token of their own."""
    tokens = patient.sign_in("carol")

    answers = [patient.refresh(tokens["refresh_token"]).json for _ in range(4)]

    assert len({each["refresh_token"] for each in answers}) == 1
    assert len({each["access_token"] for each in answers}) == 4
    assert all(patient.call(each["access_token"]).status == 200 for each in answers)
    assert patient.refresh(answers[0]["refresh_token"]).status == 200


def test_grace_never_gives_what_was_revoked(patient: OAuthServer):
    """Within the grace period a revoked sign-in stays so (django-oauth-toolkit #702)."""
    tokens = patient.sign_in("carol")
    refreshed = patient.refresh(tokens["refresh_token"]).json
    patient.form("/oauth/revoke", {"token": refreshed["refresh_token"]})

    assert is_oauth_error(patient.refresh(tokens["refresh_token"]), 400, "invalid_grant")
    assert is_oauth_error(patient.refresh(refreshed["refresh_token"]), 400, "invalid_grant")


def test_grace_is_for_the_immediate_predecessor_only(patient: OAuthServer):
    """A token two generations old ends the sign-in however soon it comes (django-oauth-toolkit #1617)."""
    first = patient.sign_in("carol")
    second = patient.refresh(first["refresh_token"]).json
    third = patient.refresh(second["refresh_token"]).json

    assert is_oauth_error(patient.refresh(first["refresh_token"]), 400, "invalid_grant")

    assert is_oauth_error(patient.refresh(third["refresh_token"]), 400, "invalid_grant")
    assert patient.call(third["access_token"]).status == 401


@pytest.mark.parametrize("round_", range(5))
def test_grace_holds_for_fifty_at_once(patient: OAuthServer, round_: int):
    """50 uses at the same time all get the same successor, in whatever order they are written."""
    tokens = patient.sign_in("carol")

    answers = all_at_once(PARALLEL, lambda: patient.refresh(tokens["refresh_token"]))

    assert {answer.status for answer in answers} == {200}
    assert len({answer.json["refresh_token"] for answer in answers}) == 1
    assert family_of(patient, tokens["refresh_token"]) == (None, 1)


def test_no_client_is_confused_with_another_in_a_crowd(oauth: OAuthServer):
    """Many clients at the same time: each gets its own tokens and nobody else's (CVE-2023-28858 and its like)."""
    clients = [oauth.make_client(f"crowd-{number}", grants=GRANTS) for number in range(10)]

    def one(number: int) -> bool:
        client = clients[number % len(clients)]
        answer = oauth.form(TOKEN, {"grant_type": "client_credentials", **client.form})
        return oauth.introspect(client, answer.json["access_token"])["client_id"] == client.id

    with ThreadPoolExecutor(20) as pool:
        assert all(pool.map(one, range(200)))
