"""RFC 6749 at the token endpoint, a requirement a test (security.md 2.1)."""

import http.client
import math
import re
from collections.abc import Iterator
from contextlib import closing

import pytest

from lingpai.ids import ALPHABET, SECRET_LENGTH
from tests.e2e.oauth_server import ALIAS, FORM, TOKEN, Client, OAuthServer, basic_header, is_oauth_error
from tests.e2e.raw_http import exchange, get, get_bytes, post_bytes

GRANT = {"grant_type": "client_credentials"}


@pytest.fixture(scope="module")
def client(oauth: OAuthServer) -> Client:
    """A program that may do two things."""
    return oauth.make_client("program", scopes=["model:inference", "usage:read"])


@pytest.fixture(scope="module")
def agent(oauth: OAuthServer) -> Client:
    """A program that people give their passwords."""
    grants = ["client_credentials", "password", "refresh_token"]
    return oauth.make_client("agent", grants=grants, scopes=["model:inference", "usage:read"])


@pytest.fixture(scope="module")
def public(oauth: OAuthServer) -> Client:
    """A program on people's own machines, without a secret."""
    return oauth.make_client("public", public=True, grants=["password", "refresh_token"])


@pytest.mark.parametrize("path", [TOKEN, ALIAS])
@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "PATCH", "HEAD"])
def test_rfc6749_s3_2_only_post(oauth: OAuthServer, path: str, method: str):
    """The token endpoint answers POST and nothing else."""
    with closing(http.client.HTTPConnection("127.0.0.1", oauth.port, timeout=10)) as connection:
        connection.request(method, path, body="grant_type=client_credentials", headers={"content-type": FORM})
        answer = connection.getresponse()

        assert answer.status == 405
        assert answer.headers["allow"] == "POST"


@pytest.mark.parametrize(
    "name", ["client_secret", "grant_type", "username", "password", "refresh_token", "client_id", "scope"]
)
def test_rfc6749_s2_3_1_parameter_in_the_address_is_refused(oauth: OAuthServer, client: Client, name: str):
    """Credentials and parameters stand in the body, never in the address, where logs keep them."""
    answer = oauth.form(f"{TOKEN}?{name}=whatever-canary-1b7d", GRANT, basic=client.basic)

    assert is_oauth_error(answer, 400, "invalid_request")
    assert b"whatever" not in answer.body


@pytest.mark.parametrize("name", ["grant_type", "scope", "client_id", "unknown"])
def test_rfc6749_s3_2_repeated_parameter_is_invalid_request(oauth: OAuthServer, client: Client, name: str):
    """A parameter that is sent twice makes the request invalid, even with the same value."""
    values = {"grant_type": "client_credentials", "scope": "model:inference", "client_id": client.id}
    fields = [*GRANT.items(), (name, values.get(name, "x")), (name, values.get(name, "x"))]

    assert is_oauth_error(oauth.form(TOKEN, fields, basic=client.basic), 400, "invalid_request")


def test_rfc6749_s3_2_parameter_repeated_empty_is_invalid_request(oauth: OAuthServer, client: Client):
    """A parameter that is sent once with and once without a value is repeated, too."""
    fields = [*GRANT.items(), ("scope", ""), ("scope", "model:inference")]

    assert is_oauth_error(oauth.form(TOKEN, fields, basic=client.basic), 400, "invalid_request")


def test_rfc6749_s3_2_unknown_parameter_is_ignored(oauth: OAuthServer, client: Client):
    """Parameters that nobody knows change nothing."""
    fields = {**GRANT, "resource_hint": "x", "Grant_Type": "password", "审计": "值"}

    assert oauth.form(TOKEN, fields, basic=client.basic).status == 200


@pytest.mark.parametrize(
    "name", ["scope", "username", "password", "refresh_token", "client_secret", "client_id"]
)
def test_rfc6749_s3_2_parameter_without_a_value_counts_as_absent(
    oauth: OAuthServer, client: Client, name: str
):
    """An empty value means that the parameter was not sent."""
    assert oauth.form(TOKEN, {**GRANT, name: ""}, basic=client.basic).status == 200


def test_rfc6749_s3_2_empty_grant_type_is_a_missing_one(oauth: OAuthServer, client: Client):
    """Without a grant type the request is invalid."""
    answer = oauth.form(TOKEN, {"grant_type": ""}, basic=client.basic)

    assert is_oauth_error(answer, 400, "invalid_request")


def test_rfc6749_s2_3_two_ways_to_authenticate_are_invalid_request(oauth: OAuthServer, client: Client):
    """A client authenticates in one way per request."""
    answer = oauth.form(TOKEN, {**GRANT, **client.form}, basic=client.basic)

    assert is_oauth_error(answer, 400, "invalid_request")


def test_rfc6749_s2_3_two_client_ids_are_invalid_request(oauth: OAuthServer, client: Client, agent: Client):
    """A client id in the body that is not the one in HTTP Basic makes the request invalid."""
    answer = oauth.form(TOKEN, {**GRANT, "client_id": agent.id}, basic=client.basic)

    assert is_oauth_error(answer, 400, "invalid_request")


def test_rfc6749_s2_3_doubled_authorization_is_invalid_request(oauth: OAuthServer, client: Client):
    """The Authorization header is sent once."""
    headers = (f"authorization: {basic_header(*client.basic)}",)

    answer = oauth.form(TOKEN, GRANT, basic=client.basic, headers=headers)

    assert is_oauth_error(answer, 400, "invalid_request")


def test_rfc6749_s2_3_1_basic_authenticates_a_client(oauth: OAuthServer, client: Client):
    """Clients with a secret can use HTTP Basic."""
    assert oauth.form(TOKEN, GRANT, basic=client.basic).status == 200


def test_rfc6749_s2_3_1_basic_takes_the_form_encoding(oauth: OAuthServer, client: Client):
    """Id and secret are form-encoded before they go into HTTP Basic, by clients that follow the letter."""
    encoded = ("".join(f"%{ord(each):02X}" for each in part) for part in client.basic)

    answer = oauth.form(TOKEN, GRANT, basic=(next(encoded), next(encoded)))

    assert answer.status == 200, answer.body


def test_rfc7617_s2_basic_is_known_in_any_case(oauth: OAuthServer, client: Client):
    """The scheme's name is not sensitive to case."""
    value = basic_header(*client.basic).replace("Basic", "bAsIc")

    assert oauth.form(TOKEN, GRANT, headers=(f"authorization: {value}",)).status == 200


def test_rfc6749_s2_3_1_form_fields_authenticate_a_client(oauth: OAuthServer, client: Client):
    """Clients can authenticate in the body."""
    assert oauth.form(TOKEN, {**GRANT, **client.form}).status == 200


def test_rfc6749_s5_2_failed_basic_is_401_with_a_challenge(oauth: OAuthServer, client: Client):
    """A client that tried HTTP Basic and failed gets 401, a Basic challenge with a realm, and invalid_client."""
    answer = oauth.form(TOKEN, GRANT, basic=(client.id, client.secret[:-1] + "x"))

    assert is_oauth_error(answer, 401, "invalid_client")
    assert re.match(r'Basic realm="[^"]+"', answer.headers["www-authenticate"])


def test_rfc6749_s5_2_failed_form_fields_are_invalid_client(oauth: OAuthServer, client: Client):
    """A client that authenticates in the body with a wrong secret hears invalid_client."""
    answer = oauth.form(TOKEN, {**GRANT, "client_id": client.id, "client_secret": "guess"})

    assert is_oauth_error(answer, 401, "invalid_client")
    assert answer.headers["www-authenticate"].startswith("Basic realm=")


@pytest.mark.parametrize(
    "value", ["Basic", "Basic %%%", "Basic bm9jb2xvbg==", "Basic /////w==", "Bearer x", "Digest y"]
)
def test_rfc6749_s5_2_broken_authorization_is_invalid_client(oauth: OAuthServer, value: str):
    """What is no HTTP Basic authenticates nobody."""
    answer = oauth.form(TOKEN, GRANT, headers=(f"authorization: {value}",))

    assert is_oauth_error(answer, 401, "invalid_client")


def _refusals(
    oauth: OAuthServer, client: Client, public: Client
) -> Iterator[tuple[str, dict[str, str], Client]]:
    yield "invalid_request", {}, client
    yield "invalid_request", {"grant_type": "refresh_token"}, Client("")
    yield "invalid_grant", {"grant_type": "refresh_token", "refresh_token": "rt-lp-unknown"}, Client("")
    yield "invalid_grant", {"grant_type": "password", "username": "alice", "password": "no"}, Client("")
    yield "unauthorized_client", {"grant_type": "password", "username": "alice", "password": "no"}, client
    yield "unauthorized_client", {"grant_type": "refresh_token", "refresh_token": "x"}, client
    yield "unauthorized_client", GRANT, public
    yield "unsupported_grant_type", {"grant_type": "authorization_code"}, client
    yield "unsupported_grant_type", {"grant_type": '密码\\"\r\n'}, client
    yield "invalid_scope", {**GRANT, "scope": "no:such"}, client
    yield "invalid_scope", {**GRANT, "scope": '密码\\" \x7f'}, client
    yield "invalid_scope", {**GRANT, "scope": "users:write"}, client


def test_rfc6749_s5_2_each_refusal_has_its_code(oauth: OAuthServer, client: Client, public: Client):
    """Refusals are 400 with one of the codes of section 5.2, described in characters that it allows."""
    for error, fields, asking in _refusals(oauth, client, public):
        answer = oauth.form(TOKEN, {**fields, **(asking.form if asking.id else {})})

        assert is_oauth_error(answer, 400, error), (error, fields, answer.body)
        assert answer.headers["content-type"] == "application/json"


def test_rfc6749_s5_2_errors_are_not_stored(oauth: OAuthServer, client: Client):
    """Caches keep no refusal."""
    for basic in (client.basic, ("cl-lp-nobody", "no secret")):
        answer = oauth.form(TOKEN, {"grant_type": "no"}, basic=basic)

        assert answer.status >= 400
        assert (answer.headers["cache-control"], answer.headers["pragma"]) == ("no-store", "no-cache")


def test_rfc6749_s5_1_answer_has_what_it_must(oauth: OAuthServer, client: Client):
    """An answer has access_token, token_type and, as a number, expires_in; caches keep nothing of it."""
    answer = oauth.form(TOKEN, GRANT, basic=client.basic)

    assert answer.status == 200
    assert answer.headers["content-type"] == "application/json"
    assert (answer.headers["cache-control"], answer.headers["pragma"]) == ("no-store", "no-cache")
    assert answer.json["token_type"] == "Bearer"
    assert answer.json["expires_in"] == 3600
    assert type(answer.json["expires_in"]) is int
    assert oauth.call(answer.json["access_token"]).status == 200


def test_rfc6749_s5_1_password_grant_is_not_stored(oauth: OAuthServer):
    """The answer with a refresh token is kept by no cache either."""
    fields = {"grant_type": "password", "username": "alice", "password": oauth.people["alice"]}

    answer = oauth.form(TOKEN, fields)

    assert answer.json["refresh_token"].startswith("rt-lp-")
    assert (answer.headers["cache-control"], answer.headers["pragma"]) == ("no-store", "no-cache")


def test_rfc6749_s3_3_granted_scope_is_told(oauth: OAuthServer, client: Client):
    """The answer says which scopes the token has."""
    assert oauth.token(client, scope="model:inference")["scope"] == "model:inference"
    assert oauth.token(client, scope="usage:read model:inference")["scope"] == "model:inference usage:read"


def test_rfc6749_s3_3_without_scope_the_client_gets_all_of_its_own(oauth: OAuthServer, client: Client):
    """The documented default of client_credentials: everything that the client may do."""
    assert oauth.token(client)["scope"] == "model:inference usage:read"


def test_rfc6749_s3_3_without_scope_a_person_gets_to_call_models(oauth: OAuthServer):
    """The documented default of a password without a registered client: calling models."""
    assert oauth.sign_in("alice")["scope"] == "model:inference"


@pytest.mark.parametrize(
    "scope", ["no:such", "MODEL:INFERENCE", "model:inference  usage:read", " ", "users:write"]
)
def test_rfc6749_s3_3_scope_that_cannot_be_had_is_invalid_scope(
    oauth: OAuthServer, client: Client, scope: str
):
    """An unknown, malformed or excessive scope is refused and not left out in silence."""
    answer = oauth.form(TOKEN, {**GRANT, "scope": scope}, basic=client.basic)

    assert is_oauth_error(answer, 400, "invalid_scope")


def test_rfc6749_s3_3_less_than_the_client_may_have_is_told(oauth: OAuthServer):
    """A member gets less through a client than an administrator does, and is told what."""
    powerful = oauth.make_client("powerful", grants=["password"], scopes=["model:inference", "users:write"])

    assert oauth.sign_in("bob", powerful)["scope"] == "model:inference"


def test_rfc6749_s3_3_no_token_without_any_scope(oauth: OAuthServer):
    """Where nothing can be granted, no token is given out that can do nothing."""
    admins = oauth.make_client("admins", grants=["password"], scopes=["users:write"])
    fields = {"grant_type": "password", "username": "bob", "password": oauth.people["bob"], **admins.form}

    assert is_oauth_error(oauth.form(TOKEN, fields), 400, "invalid_scope")


def test_rfc6749_s4_3_2_client_with_a_secret_must_authenticate(oauth: OAuthServer, agent: Client):
    """A right password does not help somebody who pretends to be a client with a secret."""
    fields = {"grant_type": "password", "username": "alice", "password": oauth.people["alice"]}

    for attempt in ({"client_id": agent.id}, {"client_id": agent.id, "client_secret": "guess"}):
        assert is_oauth_error(oauth.form(TOKEN, fields | attempt), 401, "invalid_client")


def test_rfc6749_s4_3_2_client_in_basic_and_user_in_the_body(oauth: OAuthServer, agent: Client):
    """The form that the RFC describes."""
    fields = {"grant_type": "password", "username": "bob", "password": oauth.people["bob"]}

    answer = oauth.form(TOKEN, fields, basic=agent.basic)

    assert answer.status == 200
    assert oauth.introspect(agent, answer.json["access_token"])["username"] == "bob"


def test_rfc6749_s4_3_2_user_in_basic_alone_is_a_user(oauth: OAuthServer):
    """The form of the article: without a user name in the body, HTTP Basic is the user, whose password is taken raw."""
    answer = oauth.form(TOKEN, {"grant_type": "password"}, basic=("bob", oauth.people["bob"]))

    assert answer.status == 200, answer.body
    assert oauth.call(answer.json["access_token"]).status == 200


def test_rfc6749_s4_3_2_client_in_basic_without_a_user_is_invalid_request(oauth: OAuthServer, agent: Client):
    """A client that forgot the user is told so, and its secret is not tried as a password."""
    answer = oauth.form(TOKEN, {"grant_type": "password"}, basic=agent.basic)

    assert is_oauth_error(answer, 400, "invalid_request")
    assert "username" in answer.json["error_description"]


def test_rfc6749_s4_3_2_user_twice_is_invalid_request(oauth: OAuthServer, agent: Client):
    """A user in HTTP Basic and a client secret in the body: nobody can tell who is meant."""
    fields = {"grant_type": "password", **agent.form}

    answer = oauth.form(TOKEN, fields, basic=("alice", oauth.people["alice"]))

    assert is_oauth_error(answer, 400, "invalid_request")


def test_rfc6749_s4_3_2_password_grant_is_for_clients_that_may(oauth: OAuthServer, client: Client):
    """A client gets tokens for passwords only where it was allowed to."""
    fields = {"grant_type": "password", "username": "alice", "password": oauth.people["alice"]}

    answer = oauth.form(TOKEN, fields, basic=client.basic)

    assert is_oauth_error(answer, 400, "unauthorized_client")


def test_rfc6749_s4_4_public_client_gets_no_token_of_its_own(oauth: OAuthServer, public: Client):
    """client_credentials is for clients with a secret."""
    assert is_oauth_error(oauth.form(TOKEN, {**GRANT, **public.form}), 400, "unauthorized_client")


def test_rfc6749_s4_4_nobody_gets_no_token(oauth: OAuthServer):
    """client_credentials without a client is refused."""
    assert is_oauth_error(oauth.form(TOKEN, GRANT), 401, "invalid_client")


def test_rfc6749_s4_4_public_client_cannot_be_made_with_it(oauth: OAuthServer):
    """A client without a secret cannot even be allowed to use client_credentials."""
    status, answer = oauth.try_admin(
        "POST", "/api/v1/clients", {"name": "x", "public": True, "grants": ["client_credentials"]}
    )

    assert (status, answer["error"]["param"]) == (400, "grants")


def test_rfc6749_s4_4_3_no_refresh_token_for_a_client_itself(oauth: OAuthServer, agent: Client):
    """A client can always get another token, so it needs no refresh token."""
    assert "refresh_token" not in oauth.token(agent)


def test_rfc6749_s6_refresh_token_is_bound_to_its_client(oauth: OAuthServer, agent: Client, public: Client):
    """No other client, known or not, can use a refresh token; and its trying does no harm."""
    tokens = oauth.sign_in("alice", agent)
    other = oauth.make_client("other agent", grants=["password", "refresh_token"])

    for thief in (other, public, None):
        assert is_oauth_error(oauth.refresh(tokens["refresh_token"], thief), 400, "invalid_grant")
    assert oauth.refresh(tokens["refresh_token"], agent).status == 200


def test_rfc6749_s6_client_with_a_secret_must_authenticate(oauth: OAuthServer, agent: Client):
    """The id alone is not enough to refresh."""
    tokens = oauth.sign_in("alice", agent)

    answer = oauth.refresh(tokens["refresh_token"], Client(agent.id))

    assert is_oauth_error(answer, 401, "invalid_client")


def test_rfc6749_s6_public_client_refreshes_with_its_id(oauth: OAuthServer, public: Client):
    """A client without a secret says which one it is, and nothing more."""
    tokens = oauth.sign_in("alice", public)

    assert oauth.refresh(tokens["refresh_token"], public).status == 200


def test_rfc6749_s6_scope_must_be_a_subset(oauth: OAuthServer, agent: Client):
    """Refreshing never widens what was granted; a refusal does not use the token up."""
    tokens = oauth.sign_in("alice", agent, scope="model:inference")

    wider = oauth.refresh(tokens["refresh_token"], agent, scope="model:inference usage:read")

    assert is_oauth_error(wider, 400, "invalid_scope")
    assert oauth.refresh(tokens["refresh_token"], agent).status == 200


def test_rfc6749_s6_narrower_access_token_leaves_the_refresh_token_as_it_was(
    oauth: OAuthServer, agent: Client
):
    """Asking for less now does not mean less for ever."""
    tokens = oauth.sign_in("alice", agent)

    narrow = oauth.refresh(tokens["refresh_token"], agent, scope="usage:read")
    wide = oauth.refresh(narrow.json["refresh_token"], agent)

    assert narrow.json["scope"] == "usage:read"
    assert oauth.call(narrow.json["access_token"]).error["code"] == "insufficient_scope"
    assert wide.json["scope"] == tokens["scope"] == "model:inference usage:read"


def test_rfc6749_s10_10_tokens_cannot_be_guessed(oauth: OAuthServer, client: Client):
    """Tokens of all kinds and client secrets have far more than 160 random bits: each of 43 characters is drawn anew."""
    signed_in = [oauth.sign_in("alice") for _ in range(30)]
    made = {
        "at-lp-": [oauth.token(client)["access_token"] for _ in range(30)],
        "rt-lp-": [each["refresh_token"] for each in signed_in],
        "cs-lp-": [oauth.make_client(f"one of many {number}").secret for number in range(30)],
    }
    made["at-lp-"] += [each["access_token"] for each in signed_in]

    assert SECRET_LENGTH * math.log2(len(ALPHABET)) >= 160
    for prefix, tokens in made.items():
        assert all(re.fullmatch(prefix + "[0-9A-Za-z]{61}", token) for token in tokens)
        assert len({token[18:61] for token in tokens}) == len(tokens)
        for place in zip(*(token[18:61] for token in tokens), strict=True):
            assert (
                len(set(place)) > 8
            )  # of 30, about 24 differ; fewer than 9 are seen less than once in 10^12 places


def test_rfc6749_s10_3_nothing_stored_can_be_used(oauth: OAuthServer, agent: Client):
    """Neither tokens nor client secrets stand in the database, whose files are their owner's alone."""
    tokens = oauth.sign_in("alice", agent)
    secrets = [tokens["access_token"], tokens["refresh_token"], agent.secret]

    files = list(oauth.data.glob("lingpai.db*"))

    assert files
    assert all(path.stat().st_mode & 0o077 == 0 for path in files)
    stored = b"".join(path.read_bytes() for path in files)
    for secret in secrets:
        assert secret[6:18].encode() in stored  # its id is, so it would be seen
        assert secret[18:61].encode() not in stored


def test_rfc6749_s3_2_body_must_be_a_form(oauth: OAuthServer, client: Client):
    """Parameters come as an HTML form; JSON is refused with a word on what to do."""
    body = b'{"grant_type": "client_credentials"}'

    answer = oauth.form(TOKEN, body, basic=client.basic, content_type="application/json")

    assert is_oauth_error(answer, 400, "invalid_request")
    assert FORM in answer.json["error_description"]


def test_rfc6749_appendix_b_charset_parameter_is_no_obstacle(oauth: OAuthServer, client: Client):
    """Clients may add a charset to the media type, in any case."""
    kind = "Application/X-WWW-Form-URLencoded; charset=UTF-8"

    assert oauth.form(TOKEN, GRANT, basic=client.basic, content_type=kind).status == 200


def test_rfc9110_s15_5_6_405_names_the_method(oauth: OAuthServer):
    """A wrong method is told the right one."""
    answer = get(oauth.port, TOKEN)

    assert (answer.status, answer.headers["allow"]) == (405, "POST")


def test_alias_is_the_token_endpoint(oauth: OAuthServer, client: Client):
    """`/api/v1/token` answers as `/oauth/token` does."""
    assert oauth.form(ALIAS, GRANT, basic=client.basic).status == 200
    assert is_oauth_error(oauth.form(ALIAS, {}, basic=client.basic), 400, "invalid_request")


def test_token_endpoint_answers_on_a_connection_that_goes_on(oauth: OAuthServer, client: Client):
    """The same connection can ask again, also after a refusal."""
    request = post_bytes(TOKEN, b"grant_type=no", content_type=FORM)

    answers = [exchange(oauth.port, request + get_bytes("/healthz"))]

    assert answers[0].status == 400
