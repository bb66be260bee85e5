"""RFC 7662: introspection, a requirement a test (security.md 2.4)."""

import time
from collections.abc import Iterator

import pytest

from lingpai.ids import mint_credential
from tests.e2e.oauth_server import (
    FORM,
    INTROSPECT,
    REVOKE,
    Client,
    OAuthServer,
    basic_header,
    is_oauth_error,
    soon,
)
from tests.e2e.raw_http import RawConnection, get, post_bytes

GRANTS = ["client_credentials", "password", "refresh_token"]
INACTIVE = {"active": False}


@pytest.fixture(scope="module")
def agent(oauth: OAuthServer) -> Client:
    return oauth.make_client("agent", grants=GRANTS, scopes=["model:inference", "usage:read"])


@pytest.fixture(scope="module")
def gateway(oauth: OAuthServer) -> Client:
    """Somebody's own server that is handed tokens and may ask about all of them."""
    return oauth.make_client("gateway", scopes=["tokens:introspect"])


def test_rfc7662_s2_2_access_token_of_a_client(oauth: OAuthServer, agent: Client, gateway: Client):
    """What is told of a client's own token."""
    before = int(time.time())
    token = oauth.token(agent, scope="usage:read")["access_token"]

    told = oauth.introspect(gateway, token)

    assert told.pop("active") is True
    assert before <= told.pop("iat") <= time.time()
    assert before + 3600 <= told.pop("exp") <= time.time() + 3600
    assert told.pop("sub") == agent.id  # nobody else is involved (RFC 9068 section 2.2)
    assert told == {
        "scope": "usage:read",
        "client_id": agent.id,
        "username": "admin",
        "token_type": "Bearer",
        "iss": oauth.base,
        "jti": token[6:18],
    }


def test_rfc7662_s2_2_access_token_of_a_user(oauth: OAuthServer, agent: Client):
    """What is told of a user's token, to the client that got it."""
    told = oauth.introspect(agent, oauth.sign_in("alice", agent)["access_token"])

    assert (told["active"], told["username"], told["client_id"]) == (True, "alice", agent.id)


def test_rfc7662_s2_2_user_without_a_client_has_no_client_id(oauth: OAuthServer, gateway: Client):
    """What came through the built-in public client names no client."""
    told = oauth.introspect(gateway, oauth.sign_in("alice")["access_token"])

    assert told["active"] is True
    assert "client_id" not in told


def test_rfc7662_s2_2_refresh_token(oauth: OAuthServer, agent: Client):
    """A refresh token is good until it is used."""
    tokens = oauth.sign_in("alice", agent)
    assert oauth.introspect(agent, tokens["refresh_token"])["active"] is True

    refreshed = oauth.refresh(tokens["refresh_token"], agent).json

    assert oauth.introspect(agent, tokens["refresh_token"]) == INACTIVE
    assert oauth.introspect(agent, refreshed["refresh_token"])["active"] is True


def test_rfc7662_s2_1_caller_must_authenticate(oauth: OAuthServer, agent: Client):
    """Nobody scans for tokens without being known: no client, none without a secret, none by its id alone."""
    public = oauth.make_client("public", public=True, grants=["password"])
    token = oauth.token(agent)["access_token"]

    for asking in ({}, {"client_id": public.id}, {"client_id": agent.id}):
        assert is_oauth_error(oauth.form(INTROSPECT, {"token": token, **asking}), 401, "invalid_client")


def test_rfc7662_s2_3_bad_credentials_are_401(oauth: OAuthServer, agent: Client):
    """A caller with a wrong secret gets 401 and a challenge."""
    answer = oauth.form(INTROSPECT, {"token": "x"}, basic=(agent.id, "guess"))

    assert is_oauth_error(answer, 401, "invalid_client")
    assert answer.headers["www-authenticate"].startswith("Basic realm=")


def test_rfc7662_s2_1_access_token_does_not_authenticate_the_caller(oauth: OAuthServer, agent: Client):
    """Clients authenticate as such; a bearer token is not offered, so it is refused and not taken for one."""
    token = oauth.token(agent)["access_token"]

    answer = oauth.form(INTROSPECT, {"token": token}, headers=(f"authorization: Bearer {token}",))

    assert is_oauth_error(answer, 401, "invalid_client")


@pytest.mark.slow
def test_rfc7662_s2_1_scanning_for_tokens_is_slowed_down(oauth: OAuthServer, agent: Client):
    """Who asks for what there is not, again and again, has to wait; good tokens and other clients are answered."""
    scanner = oauth.make_client("scanner")
    good = oauth.token(scanner)["access_token"]
    statuses = []
    with RawConnection(oauth.port) as connection:
        headers = (f"authorization: {basic_header(*scanner.basic)}",)
        for _ in range(1200):
            body = f"token={mint_credential('at-lp-').token}".encode()
            connection.send(post_bytes(INTROSPECT, body, content_type=FORM, headers=headers))
            statuses.append(connection.read_answer().status)

    assert statuses[0] == 200
    assert 429 in statuses
    assert oauth.introspect(scanner, good)["active"] is True
    assert oauth.introspect(agent, "x") == INACTIVE


def _inactive(oauth: OAuthServer, agent: Client) -> Iterator[tuple[str, str]]:
    token = oauth.token(agent)["access_token"]
    yield "wrong secret", mint_credential("at-lp-", public_id=token[6:18]).token
    yield "unknown", mint_credential("at-lp-").token
    yield "unknown refresh token", mint_credential("rt-lp-").token
    yield "mistyped", token[:-1] + ("a" if token[-1] != "a" else "b")
    yield "API key", oauth.key
    yield "client secret", agent.secret
    yield "no token", "x"
    yield "hostile", "at-lp-' OR 1=1 --"
    yield "other script", "at-lp-令牌"
    oauth.form(REVOKE, {"token": token}, basic=agent.basic)
    yield "revoked", token
    tokens = oauth.sign_in("alice", agent)
    oauth.form(REVOKE, {"token": tokens["refresh_token"]}, basic=agent.basic)
    yield "of a revoked sign-in", tokens["access_token"]
    yield "revoked refresh token", tokens["refresh_token"]


def test_rfc7662_s2_2_whatever_is_not_good_is_inactive_and_nothing_else(
    oauth: OAuthServer, agent: Client, gateway: Client
):
    """Unknown, mistyped, revoked, of another kind: 200 with `active: false` and no other member."""
    for why, token in _inactive(oauth, agent):
        for asking in (agent, gateway):
            assert oauth.introspect(asking, token) == INACTIVE, why


def test_rfc7662_s2_2_token_of_another_client_is_inactive(oauth: OAuthServer, agent: Client):
    """Without the scope for it, a client sees only its own tokens."""
    other = oauth.make_client("other")
    tokens = oauth.sign_in("alice", agent)

    for token in (tokens["access_token"], tokens["refresh_token"], oauth.sign_in("bob")["access_token"]):
        assert oauth.introspect(other, token) == INACTIVE


def test_rfc7662_s2_1_missing_token_is_400(oauth: OAuthServer, agent: Client):
    """Without a token there is nothing to look at."""
    assert is_oauth_error(oauth.form(INTROSPECT, {}, basic=agent.basic), 400, "invalid_request")


def test_rfc7662_s4_response_is_not_stored(oauth: OAuthServer, agent: Client):
    """Caches keep nothing of an answer, good or not."""
    for token in (oauth.token(agent)["access_token"], "x"):
        answer = oauth.form(INTROSPECT, {"token": token}, basic=agent.basic)

        assert (answer.headers["cache-control"], answer.headers["pragma"]) == ("no-store", "no-cache")
        assert answer.headers["content-type"] == "application/json"


def test_rfc7662_s4_expired_is_inactive(oauth: OAuthServer, gateway: Client):
    """A token past its end is not good, although it is stored still."""
    brief = oauth.make_client("brief", expires_at=soon())
    token = oauth.token(brief)["access_token"]
    while oauth.call(token).status == 200:
        time.sleep(0.05)

    assert oauth.introspect(gateway, token) == INACTIVE


def test_rfc7662_s4_disabled_client_has_no_good_token(oauth: OAuthServer, gateway: Client):
    """While a client is disabled none of its tokens is good, refresh tokens included; afterwards they are again."""
    client = oauth.make_client("to disable", grants=GRANTS)
    tokens = oauth.sign_in("alice", client)
    everything = [oauth.token(client)["access_token"], tokens["access_token"], tokens["refresh_token"]]

    def are_active() -> list[bool]:
        return [oauth.introspect(gateway, token)["active"] for token in everything]

    assert are_active() == [True, True, True]
    oauth.admin("PATCH", f"/api/v1/clients/{client.id}", {"disabled": True})
    assert are_active() == [False, False, False]
    oauth.admin("PATCH", f"/api/v1/clients/{client.id}", {"disabled": False})
    assert are_active() == [True, True, True]


def test_rfc7662_s4_disabled_user_has_no_good_token(oauth: OAuthServer, agent: Client, gateway: Client):
    """While a user is disabled none of their tokens is good."""
    tokens = oauth.sign_in("bob", agent)
    everything = [tokens["access_token"], tokens["refresh_token"]]

    oauth.admin("PATCH", "/api/v1/users/bob", {"disabled": True})
    during = [oauth.introspect(gateway, token) for token in everything]
    oauth.admin("PATCH", "/api/v1/users/bob", {"disabled": False})

    assert during == [INACTIVE, INACTIVE]
    assert [oauth.introspect(gateway, token)["active"] for token in everything] == [True, True]


def test_rfc7662_s4_deleted_client_has_no_good_token(oauth: OAuthServer, gateway: Client):
    """With the client go its tokens."""
    client = oauth.make_client("to delete", grants=GRANTS)
    tokens = oauth.sign_in("alice", client)
    everything = [oauth.token(client)["access_token"], tokens["access_token"], tokens["refresh_token"]]

    oauth.admin("DELETE", f"/api/v1/clients/{client.id}")

    assert [oauth.introspect(gateway, token) for token in everything] == [INACTIVE] * 3


def test_rfc7662_s4_expired_client_has_no_good_token(oauth: OAuthServer, gateway: Client):
    """A client's end is the end of all that it has."""
    client = oauth.make_client("to expire", grants=GRANTS)
    tokens = oauth.sign_in("alice", client)
    everything = [oauth.token(client)["access_token"], tokens["access_token"], tokens["refresh_token"]]

    oauth.admin("PATCH", f"/api/v1/clients/{client.id}", {"expires_at": soon()})
    while oauth.call(everything[0]).status == 200:
        time.sleep(0.05)

    assert [oauth.introspect(gateway, token) for token in everything] == [INACTIVE] * 3


def test_rfc7662_s2_2_scope_is_what_takes_effect_now(oauth: OAuthServer, gateway: Client):
    """A client that lost a scope has tokens that lost it, too, refresh tokens included."""
    client = oauth.make_client("to narrow", grants=GRANTS, scopes=["model:inference", "usage:read"])
    tokens = oauth.sign_in("alice", client)

    oauth.admin("PATCH", f"/api/v1/clients/{client.id}", {"scopes": ["usage:read"]})

    for token in (tokens["access_token"], tokens["refresh_token"]):
        assert oauth.introspect(gateway, token)["scope"] == "usage:read"


def test_rfc7662_s2_only_post(oauth: OAuthServer):
    """Introspection is a POST."""
    assert get(oauth.port, INTROSPECT).status == 405
