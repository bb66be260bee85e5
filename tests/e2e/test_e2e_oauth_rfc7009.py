"""RFC 7009: revocation, a requirement a test (security.md 2.3)."""

import time
from collections.abc import Iterator

import pytest

from lingpai.ids import mint_credential
from tests.e2e.oauth_server import REVOKE, Client, OAuthServer, is_oauth_error, soon
from tests.e2e.raw_http import RawAnswer, get

GRANTS = ["client_credentials", "password", "refresh_token"]


@pytest.fixture(scope="module")
def agent(oauth: OAuthServer) -> Client:
    return oauth.make_client("agent", grants=GRANTS)


@pytest.fixture(scope="module")
def other(oauth: OAuthServer) -> Client:
    return oauth.make_client("other", grants=GRANTS)


def revoke(oauth: OAuthServer, token: str, client: Client | None, **fields: str) -> RawAnswer:
    return oauth.form(REVOKE, {"token": token, **fields}, basic=None if client is None else client.basic)


def is_success(answer: RawAnswer) -> bool:
    headers = {name: answer.headers.get(name) for name in ("cache-control", "pragma")}
    return (answer.status, answer.body) == (200, b"") and headers == {
        "cache-control": "no-store",
        "pragma": "no-cache",
    }


def test_rfc7009_s2_1_access_token_is_revoked_at_once(oauth: OAuthServer, agent: Client):
    """The next call with a revoked token is refused, in memory as the token was."""
    token = oauth.token(agent)["access_token"]
    assert oauth.call(token).status == 200

    assert is_success(revoke(oauth, token, agent))

    answer = oauth.call(token)
    assert (answer.status, answer.error["code"]) == (401, "invalid_api_key")
    assert 'error="invalid_token"' in answer.headers["www-authenticate"]
    assert get(oauth.port, "/v1/key", key=token).status == 401


def test_rfc7009_s2_1_revoking_an_access_token_leaves_the_sign_in(oauth: OAuthServer, agent: Client):
    """Who revokes an access token can still refresh."""
    tokens = oauth.sign_in("alice", agent)

    assert is_success(revoke(oauth, tokens["access_token"], agent))

    assert oauth.call(tokens["access_token"]).status == 401
    assert oauth.refresh(tokens["refresh_token"], agent).status == 200


def test_rfc7009_s2_1_refresh_token_takes_its_access_tokens_along(oauth: OAuthServer, agent: Client):
    """With the refresh token all access tokens of that sign-in end, of earlier refreshes as well, at once."""
    first = oauth.sign_in("alice", agent)
    second = oauth.refresh(first["refresh_token"], agent).json
    other_sign_in = oauth.sign_in("alice", agent)
    everything = [first["access_token"], second["access_token"], other_sign_in["access_token"]]
    assert [oauth.call(token).status for token in everything] == [200, 200, 200]

    assert is_success(revoke(oauth, second["refresh_token"], agent))

    assert [oauth.call(token).status for token in everything] == [401, 401, 200]
    assert is_oauth_error(oauth.refresh(second["refresh_token"], agent), 400, "invalid_grant")
    assert oauth.refresh(other_sign_in["refresh_token"], agent).status == 200


def test_rfc7009_s2_1_used_refresh_token_ends_the_sign_in_too(oauth: OAuthServer, agent: Client):
    """A program that revokes an old refresh token wants the sign-in to end."""
    first = oauth.sign_in("alice", agent)
    second = oauth.refresh(first["refresh_token"], agent).json

    assert is_success(revoke(oauth, first["refresh_token"], agent))

    assert oauth.call(second["access_token"]).status == 401
    assert is_oauth_error(oauth.refresh(second["refresh_token"], agent), 400, "invalid_grant")


def test_rfc7009_s2_1_token_of_another_client_stays(oauth: OAuthServer, agent: Client, other: Client):
    """No client ends another one's tokens, nor does somebody without a client; the answer does not tell."""
    tokens = oauth.sign_in("alice", agent)
    own = oauth.token(agent)["access_token"]

    for thief in (other, None):
        for token in (tokens["access_token"], tokens["refresh_token"], own):
            assert is_success(revoke(oauth, token, thief))

    assert oauth.call(tokens["access_token"]).status == oauth.call(own).status == 200
    assert oauth.refresh(tokens["refresh_token"], agent).status == 200


def test_rfc7009_s2_1_token_of_a_user_without_a_client_is_not_a_clients(oauth: OAuthServer, agent: Client):
    """What came through the built-in public client, only that can revoke."""
    tokens = oauth.sign_in("bob")

    assert is_success(revoke(oauth, tokens["refresh_token"], agent))
    assert oauth.call(tokens["access_token"]).status == 200

    assert is_success(revoke(oauth, tokens["refresh_token"], None))
    assert oauth.call(tokens["access_token"]).status == 401


@pytest.mark.parametrize("hint", ["refresh_token", "access_token", "no_such_type", "\x00", "令牌"])
def test_rfc7009_s2_1_wrong_hint_is_no_obstacle(oauth: OAuthServer, agent: Client, hint: str):
    """Whatever the hint says, all types of tokens are searched."""
    tokens = oauth.sign_in("alice", agent)

    assert is_success(revoke(oauth, tokens["access_token"], agent, token_type_hint=hint))
    assert oauth.call(tokens["access_token"]).status == 401

    assert is_success(revoke(oauth, tokens["refresh_token"], agent, token_type_hint=hint))
    assert is_oauth_error(oauth.refresh(tokens["refresh_token"], agent), 400, "invalid_grant")


def test_rfc7009_s2_1_client_with_a_secret_must_authenticate(oauth: OAuthServer, agent: Client):
    """A wrong secret, or none, revokes nothing."""
    token = oauth.token(agent)["access_token"]

    wrong = oauth.form(REVOKE, {"token": token}, basic=(agent.id, "guess"))
    none = oauth.form(REVOKE, {"token": token, "client_id": agent.id})

    assert is_oauth_error(wrong, 401, "invalid_client")
    assert is_oauth_error(none, 401, "invalid_client")
    assert oauth.call(token).status == 200


def _worthless(oauth: OAuthServer, agent: Client) -> Iterator[str]:
    revoked = oauth.token(agent)["access_token"]
    revoke(oauth, revoked, agent)
    yield revoked
    yield revoked[:-1] + ("a" if revoked[-1] != "a" else "b")
    yield mint_credential("at-lp-").token
    yield mint_credential("rt-lp-").token
    yield mint_credential("at-lp-", public_id=oauth.token(agent)["access_token"][6:18]).token
    yield oauth.key
    yield agent.secret
    yield "x"
    yield "a" * 10_000
    yield "' OR 1=1 --"


def test_rfc7009_s2_2_unknown_token_is_200(oauth: OAuthServer, agent: Client):
    """Unknown, revoked, mistyped and malformed tokens are answered like success, to the last header."""
    success = revoke(oauth, oauth.token(agent)["access_token"], agent)
    varying = {"date", "x-request-id", "request-id", "openai-processing-ms"}
    headers = {name: value for name, value in success.headers.items() if name not in varying}

    for token in _worthless(oauth, agent):
        answer = revoke(oauth, token, agent)

        assert is_success(answer), token
        assert {name: value for name, value in answer.headers.items() if name not in varying} == headers


def test_rfc7009_s2_2_keys_and_secrets_are_no_tokens(oauth: OAuthServer, agent: Client):
    """Sent here by mistake, an API key and a client secret go on working."""
    for mistaken in (oauth.key, agent.secret):
        assert is_success(revoke(oauth, mistaken, agent))

    assert oauth.call(oauth.key).status == 200
    assert oauth.token(agent)


def test_rfc7009_s2_2_expired_token_is_200(oauth: OAuthServer):
    """A token past its end is answered like any other."""
    brief = oauth.make_client("brief", expires_at=soon())
    long = oauth.make_client("long")
    token = oauth.token(brief)["access_token"]
    while oauth.call(token).status == 200:
        time.sleep(0.05)

    assert is_success(revoke(oauth, token, long))


@pytest.mark.parametrize("fields", [{}, {"token": ""}, {"token_type_hint": "access_token"}])
def test_rfc7009_s2_1_missing_token_is_400(oauth: OAuthServer, agent: Client, fields: dict[str, str]):
    """Without a token there is nothing to revoke."""
    assert is_oauth_error(oauth.form(REVOKE, fields, basic=agent.basic), 400, "invalid_request")


def test_rfc7009_s2_only_post(oauth: OAuthServer):
    """Revocation is a POST; nothing changes on GET."""
    assert get(oauth.port, REVOKE).status == 405


def test_rfc7009_s2_1_token_in_the_address_is_refused(oauth: OAuthServer, agent: Client):
    """The token stands in the body."""
    token = oauth.token(agent)["access_token"]

    answer = oauth.form(f"{REVOKE}?token={token}", {}, basic=agent.basic)

    assert is_oauth_error(answer, 400, "invalid_request")
    assert oauth.call(token).status == 200
