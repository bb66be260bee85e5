"""RFC 6750: tokens on model calls and on management calls, a requirement a test (security.md 2.2)."""

import re

import openai
import pytest

from lingpai.ids import mint_credential
from tests.e2e.oauth_server import MODEL, REVOKE, Client, OAuthServer, soon
from tests.e2e.raw_http import RawAnswer, chat, exchange, get, get_bytes, post_bytes
from tests.e2e.waiting import wait_until
from tests.secrets_scan import SCAN

CHAT = "/v1/chat/completions"
WAYS = ["chat", "inference", "management", "own key"]


@pytest.fixture(scope="module")
def client(oauth: OAuthServer) -> Client:
    return oauth.make_client("program", scopes=["model:inference", "keys:read"])


@pytest.fixture(scope="module")
def token(oauth: OAuthServer, client: Client) -> str:
    return str(oauth.token(client)["access_token"])


def ask(oauth: OAuthServer, way: str, *headers: str, query: str = "") -> RawAnswer:
    """One of the kinds of requests that a token opens."""
    if way == "chat":
        request = post_bytes(CHAT + query, chat("hello", model=MODEL), headers=headers)
    elif way == "inference":
        path = f"/api/v1/models/{MODEL}/inference{query}"
        request = post_bytes(path, {"input": "hello"}, headers=headers)
    else:
        request = get_bytes(("/api/v1/keys" if way == "management" else "/v1/key") + query, headers=headers)
    return exchange(oauth.port, request)


def challenge(answer: RawAnswer) -> dict[str, str]:
    """The parameters of a Bearer challenge."""
    scheme, _, parameters = answer.headers["www-authenticate"].partition(" ")
    assert scheme == "Bearer"
    return dict(re.findall(r'(\w+)="([^"]*)"', parameters))


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("scheme", ["Bearer ", "bearer ", "BEARER ", "bEaReR   ", ""])
def test_rfc6750_s2_1_token_in_the_header(oauth: OAuthServer, token: str, way: str, scheme: str):
    """The Authorization header carries the token, its scheme in any case, or (an article's curl) without one."""
    assert ask(oauth, way, f"authorization: {scheme}{token}").status == 200


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    "wrong",
    [
        "",
        "x",
        "at-lp-",
        "a" * 8000,
        "at lp x",
        "at-lp-\u00fc",
        "at-lp-' OR 1=1 --",
        "at-lp-\t",
        "${jndi:x}",
        "at-lp-a,b",
    ],
)
def test_rfc6750_s2_1_malformed_token_is_refused(oauth: OAuthServer, way: str, wrong: str):
    """What cannot be a token is refused for its form, without a look-up."""
    before = oauth.metric("lingpai_key_lookups_total")

    answer = ask(oauth, way, f"authorization: Bearer {wrong}")

    assert answer.status == 401
    assert oauth.metric("lingpai_key_lookups_total") == before


@pytest.mark.parametrize("way", WAYS)
def test_rfc6750_s2_1_token_of_the_right_form_is_looked_up_once(oauth: OAuthServer, client: Client, way: str):
    """The count that malformed ones leave alone moves for a token that is new to the server's memory."""
    token = oauth.token(client)["access_token"]
    before = oauth.metric("lingpai_key_lookups_total")

    answers = [ask(oauth, way, f"authorization: Bearer {token}") for _ in range(3)]

    assert [answer.status for answer in answers] == [200] * 3
    assert oauth.metric("lingpai_key_lookups_total") == before + 1


@pytest.mark.parametrize("way", WAYS)
def test_rfc6750_s2_two_authorization_headers_are_400(oauth: OAuthServer, token: str, way: str):
    """Nobody guesses which of two is meant, be they equal."""
    answer = ask(oauth, way, f"authorization: Bearer {token}", f"authorization: Bearer {token}")

    assert (answer.status, answer.error["code"]) == (400, "ambiguous_credentials")


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("header", ["x-api-key", "api-key", "x-goog-api-key"])
def test_rfc6750_s2_two_ways_at_once_are_400(oauth: OAuthServer, token: str, way: str, header: str):
    """A token in the Authorization header and another credential beside it are one too many."""
    answer = ask(oauth, way, f"authorization: Bearer {token}", f"{header}: {token}")

    assert (answer.status, answer.error["code"]) == (400, "ambiguous_credentials")


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", ["access_token", "api_key", "key", "whatever"])
def test_rfc6750_s2_3_token_in_the_address_is_refused(
    oauth: OAuthServer, client: Client, way: str, name: str
):
    """A token in the query is refused, alone or beside a header, and no log keeps it (RFC 9700 section 4.3.2)."""
    token = oauth.token(client)["access_token"]
    query = f"?beta=true&{name}={token}"

    for headers in ((), (f"authorization: Bearer {token}",)):
        answer = ask(oauth, way, *headers, query=query)

        assert (answer.status, answer.error["code"]) == (400, "invalid_request")
        assert challenge(answer) == {"realm": "lingpai", "error": "invalid_request"}
        assert token.encode() not in answer.body
    assert token not in oauth.stdout + oauth.stderr


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", ["access_token", "api_key"])
def test_rfc6750_s2_3_anything_by_these_names_in_the_address_is_refused(
    oauth: OAuthServer, token: str, way: str, name: str
):
    """Also what is no credential of ours: somebody else's may be a secret, too."""
    answer = ask(oauth, way, f"authorization: Bearer {token}", query=f"?{name}=somebody-elses-canary")

    assert answer.status == 400


@pytest.mark.parametrize("way", WAYS)
def test_rfc6750_s2_3_other_queries_do_no_harm(oauth: OAuthServer, token: str, way: str):
    """Clients that add a query of their own to calls are answered; management refuses what it does not know by its name."""
    answer = ask(oauth, way, f"authorization: Bearer {token}", query="?limit=5&x_api_key_id=1")

    if way == "management":
        assert (answer.status, answer.error["param"]) == (400, "x_api_key_id")
    else:
        assert answer.status == 200


@pytest.mark.parametrize("way", ["chat", "inference"])
def test_rfc6750_s2_2_token_in_the_body_is_none(oauth: OAuthServer, token: str, way: str):
    """A token as a field of a form or of JSON opens nothing."""
    path = CHAT if way == "chat" else f"/api/v1/models/{MODEL}/inference"
    form = post_bytes(
        path, f"access_token={token}".encode(), content_type="application/x-www-form-urlencoded"
    )
    json = post_bytes(path, {**chat("hello", model=MODEL), "access_token": token})

    assert [exchange(oauth.port, request).status for request in (form, json)] == [401, 401]


@pytest.mark.parametrize("way", WAYS)
def test_rfc6750_s3_1_without_credentials_there_is_no_error_code(oauth: OAuthServer, way: str):
    """Who sent nothing is asked for a token and told of no error."""
    answer = ask(oauth, way)

    assert answer.status == 401
    assert challenge(answer) == {"realm": "lingpai"}


def _bad(oauth: OAuthServer) -> dict[str, str]:
    client = oauth.make_client("bad ones")
    revoked = oauth.token(client)["access_token"]
    oauth.form(REVOKE, {"token": revoked}, basic=client.basic)
    brief = oauth.make_client("brief", expires_at=soon())
    expired = oauth.token(brief)["access_token"]
    disabled = oauth.make_client("disabled")
    of_disabled = oauth.token(disabled)["access_token"]
    oauth.admin("PATCH", f"/api/v1/clients/{disabled.id}", {"disabled": True})
    deleted = oauth.make_client("deleted")
    of_deleted = oauth.token(deleted)["access_token"]
    oauth.admin("DELETE", f"/api/v1/clients/{deleted.id}")
    wait_until(lambda: oauth.call(expired).status == 401)
    live = oauth.token(client)["access_token"]
    return {
        "revoked": revoked,
        "expired": expired,
        "of a disabled client": of_disabled,
        "of a deleted client": of_deleted,
        "unknown": mint_credential("at-lp-").token,
        "wrong secret": mint_credential("at-lp-", public_id=live[6:18]).token,
        "mistyped": live[:-1] + ("a" if live[-1] != "a" else "b"),
        "refresh token": oauth.sign_in("alice")["refresh_token"],
        "client secret": client.secret,
        "garbage": "garbage",
    }


def test_rfc6750_s3_each_401_has_realm_and_error(oauth: OAuthServer):
    """Revoked, expired, unknown, mistyped, of the wrong kind: 401, `realm`, `error="invalid_token"`, on every way in."""
    for why, bad in _bad(oauth).items():
        for way in WAYS:
            answer = ask(oauth, way, f"authorization: Bearer {bad}")

            assert answer.status == 401, (why, way)
            assert challenge(answer) == {"realm": "lingpai", "error": "invalid_token"}, (why, way)
            assert set(answer.error) == {"message", "type", "param", "code"}


def test_rfc6750_s3_1_expired_token_says_so(oauth: OAuthServer):
    """Who comes with an expired token is told what to do next."""
    brief = oauth.make_client("says so", expires_at=soon())
    token = oauth.token(brief)["access_token"]
    assert oauth.call(token).status == 200

    wait_until(lambda: oauth.call(token).status == 401)

    answer = oauth.call(token)
    assert answer.error["code"] == "token_expired"
    assert "/oauth/token" in answer.error["message"]


@pytest.mark.parametrize(
    ("way", "scope"),
    [("chat", "model:inference"), ("inference", "model:inference"), ("management", "keys:read")],
)
def test_rfc6750_s3_1_missing_scope_is_403_and_named(oauth: OAuthServer, way: str, scope: str):
    """A token without the scope gets 403, `insufficient_scope`, and the scope that it takes."""
    other = oauth.make_client(f"lacks it for {way}", scopes=["usage:read"])
    token = oauth.token(other)["access_token"]

    answer = ask(oauth, way, f"authorization: Bearer {token}")

    assert (answer.status, answer.error["code"]) == (403, "insufficient_scope")
    assert challenge(answer) == {"realm": "lingpai", "error": "insufficient_scope", "scope": scope}


@pytest.mark.parametrize("way", WAYS)
def test_rfc6750_s3_1_ambiguous_request_is_told_as_invalid(oauth: OAuthServer, token: str, way: str):
    """A 400 for too many credentials names `invalid_request` in its challenge."""
    answer = ask(oauth, way, f"authorization: Bearer {token}", f"x-api-key: {token}")

    assert challenge(answer) == {"realm": "lingpai", "error": "invalid_request"}


def test_rfc6750_s3_answers_are_openai_errors_to_the_stock_sdk(oauth: OAuthServer, client: Client):
    """The OpenAI SDK takes tokens, and raises the class that belongs to each refusal."""
    good = oauth.openai(oauth.token(client)["access_token"])
    narrow = oauth.openai(oauth.token(client, scope="keys:read")["access_token"])
    unknown = oauth.openai(mint_credential("at-lp-").token)
    messages = [{"role": "user", "content": "hello"}]

    assert good.chat.completions.create(model=MODEL, messages=messages).choices[0].message.content
    assert good.models.list().data
    with pytest.raises(openai.PermissionDeniedError) as refused:
        narrow.chat.completions.create(model=MODEL, messages=messages)
    assert refused.value.code == "insufficient_scope"
    with pytest.raises(openai.AuthenticationError) as rejected:
        unknown.chat.completions.create(model=MODEL, messages=messages)
    assert (rejected.value.code, rejected.value.type) == ("invalid_api_key", "authentication_error")
    assert rejected.value.request_id


def test_rfc6750_s5_3_token_as_a_callable_for_the_stock_sdk(oauth: OAuthServer, client: Client):
    """`api_key` of the SDK may be a function that gets a fresh token for each call (security.md D10)."""
    handed: list[str] = []

    def fresh() -> str:
        handed.append(oauth.token(client)["access_token"])
        return handed[-1]

    sdk = openai.OpenAI(base_url=oauth.v1, api_key=fresh, max_retries=0)
    for _ in range(2):
        sdk.chat.completions.create(model=MODEL, messages=[{"role": "user", "content": "hello"}])

    assert len(set(handed)) == 2


def test_rfc6750_s5_3_answers_to_tokens_are_stored_by_no_cache(oauth: OAuthServer, token: str):
    """Whatever a token opened, no shared cache keeps."""
    for way in WAYS:
        answer = ask(oauth, way, f"authorization: Bearer {token}")

        assert "no-store" in answer.headers.get("cache-control", ""), way


def test_rfc6750_s5_2_one_token_says_nothing_of_another(oauth: OAuthServer, client: Client):
    """Two tokens with the same beginning are two credentials (CVE-2026-35030)."""
    token = oauth.token(client)["access_token"]
    assert oauth.call(token).status == 200

    forged = mint_credential("at-lp-", public_id=token[6:18]).token
    SCAN.secrets.add_credentials(forged)

    assert oauth.call(forged).status == 401
    assert oauth.call(token).status == 200


def test_rfc9728_s5_1_challenge_is_well_formed(oauth: OAuthServer):
    """A challenge has one scheme, and its parameters are quoted."""
    answer = get(oauth.port, "/v1/models")

    assert re.fullmatch(r'Bearer \w+="[^"]*"(, \w+="[^"]*")*', answer.headers["www-authenticate"])
