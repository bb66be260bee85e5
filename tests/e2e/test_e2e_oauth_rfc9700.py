"""RFC 9700, what is not about refresh tokens: redirects, forwarded headers, logs, names, passwords (security.md 2.7)."""

import http.client
from collections.abc import Iterator
from contextlib import closing
from urllib.parse import urlencode

import pytest

from tests.e2e.oauth_server import (
    ALIAS,
    FORM,
    INTROSPECT,
    MODEL,
    REVOKE,
    TOKEN,
    Client,
    OAuthServer,
    basic_header,
    is_oauth_error,
)
from tests.e2e.raw_http import chat, exchange, post_bytes
from tests.secrets_scan import SCAN

GRANTS = ["client_credentials", "password", "refresh_token"]


@pytest.fixture(scope="module")
def agent(oauth: OAuthServer) -> Client:
    return oauth.make_client("agent", grants=GRANTS)


@pytest.fixture(scope="module")
def talkative(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OAuthServer]:
    """A server that logs all that it can."""
    server = OAuthServer(
        tmp_path_factory.mktemp("talkative"),
        people={"pia": "pias long password"},
        arguments=("--log-level", "debug"),
        config="[server]\nlog_calls = true\n",
    ).start()
    yield server
    server.stop()


@pytest.mark.parametrize("path", [TOKEN, ALIAS, REVOKE, INTROSPECT, "/api/v1/sessions"])
@pytest.mark.parametrize("form", ["{}/", "/{}", "{}//", "{}/.", "{}?x=1"])
def test_rfc9700_s4_12_credentials_are_never_redirected(
    oauth: OAuthServer, agent: Client, path: str, form: str
):
    """A request with credentials is answered or refused where it came to: no 3xx, least of all 307."""
    with closing(http.client.HTTPConnection("127.0.0.1", oauth.port, timeout=10)) as connection:
        headers = {"content-type": FORM, "authorization": basic_header(*agent.basic)}
        connection.request("POST", form.format(path), "grant_type=client_credentials&token=x", headers)
        answer = connection.getresponse()
        answer.read()

    assert not 300 <= answer.status < 400
    assert "location" not in answer.headers


@pytest.mark.parametrize(
    "header",
    [
        "x-forwarded-for: 10.0.0.1",
        "x-real-ip: 10.0.0.1",
        "forwarded: for=10.0.0.1",
        "x-forwarded-for: 10.0.0.1, 127.0.0.1",
    ],
)
def test_rfc9700_s4_13_caller_does_not_choose_the_address(oauth: OAuthServer, header: str):
    """Forwarded addresses count from declared proxies only; without any, they are nothing but text."""
    client = oauth.make_client(f"elsewhere {header}")
    token = oauth.token(client)["access_token"]
    oauth.admin("PATCH", f"/api/v1/clients/{client.id}", {"allowed_ips": ["10.0.0.0/8"]})

    call = post_bytes("/v1/chat/completions", chat("hello", model=MODEL), key=token, headers=(header,))
    asked = oauth.form(TOKEN, {"grant_type": "client_credentials", **client.form}, headers=(header,))

    assert exchange(oauth.port, call).status == 403
    assert is_oauth_error(asked, 400, "unauthorized_client")


@pytest.mark.parametrize(
    ("host", "headers", "status"),
    [
        ("127.0.0.1", (), 200),
        ("localhost", (), 200),
        ("models.example", (), 400),
        ("127.0.0.1", ("x-forwarded-for: 127.0.0.1",), 400),
        ("127.0.0.1", ("forwarded: for=127.0.0.1",), 400),
        ("127.0.0.1", ("via: 1.1 proxy",), 400),
    ],
)
def test_rfc9700_s2_4_proxy_that_nobody_declared_does_not_make_its_callers_local(
    oauth: OAuthServer, host: str, headers: tuple[str, ...], status: int
):
    """What comes from loopback for somebody else does not count as from this machine, where passwords get tokens."""
    fields = {"grant_type": "password", "username": "alice", "password": oauth.people["alice"]}
    request = post_bytes(TOKEN, urlencode(fields).encode(), content_type=FORM, headers=headers)

    answer = exchange(oauth.port, request.replace(b"host: 127.0.0.1", b"host: " + host.encode()))

    SCAN.secrets.add_credentials(answer.body)
    assert answer.status == status, answer.body
    assert status == 200 or is_oauth_error(answer, 400, "unauthorized_client")


def test_rfc9700_s4_9_3_no_token_is_in_a_log(talkative: OAuthServer):
    """Whatever is logged, at the most talkative level too, no token, secret or password is in it."""
    client = talkative.make_client("logged", grants=GRANTS)
    tokens = talkative.sign_in("pia", client)
    talkative.call(tokens["access_token"])
    talkative.refresh(tokens["refresh_token"], client)
    talkative.refresh(tokens["refresh_token"], client)
    talkative.call(tokens["access_token"])
    talkative.introspect(client, tokens["access_token"])
    talkative.form(REVOKE, {"token": tokens["refresh_token"]}, basic=client.basic)
    talkative.form(TOKEN, b"grant_type=password&username=pia&password=wrong-canary-77a1", basic=client.basic)
    talkative.form(f"{TOKEN}?client_secret={client.secret}", b"grant_type=client_credentials")

    logged = talkative.stdout + talkative.stderr
    assert logged.count("lingpai.calls") == 2  # the two calls; else nothing below would say anything
    assert "wrong-canary-77a1" not in logged
    for secret in (tokens["access_token"], tokens["refresh_token"], client.secret, talkative.people["pia"]):
        assert secret not in logged
        assert secret[18:40] not in logged or len(secret) < 40
        assert basic_header(client.id, client.secret)[10:] not in logged


@pytest.mark.parametrize("name", ["cl-lp-0123456789ab", "cl-lp-x", "CL-LP-x", "cl-lp-"])
def test_rfc9700_s4_15_user_cannot_pass_for_a_client(oauth: OAuthServer, name: str):
    """No user is called as clients are, in any case of letters."""
    status, answer = oauth.try_admin("POST", "/api/v1/users", {"name": name})

    assert (status, answer["error"]["param"]) == (400, "name")


def test_rfc9700_s4_15_client_cannot_pass_for_a_user(oauth: OAuthServer, agent: Client):
    """A client's own token says that it is a client's, and has no more of its owner than it was given."""
    told = oauth.introspect(agent, oauth.token(agent)["access_token"])

    assert told["client_id"] == agent.id
    assert told["scope"] == "model:inference"


def test_rfc9700_s2_3_token_does_only_what_it_is_for(oauth: OAuthServer, agent: Client):
    """By default a token calls models and manages nothing, whoever owns the client."""
    token = oauth.token(agent)["access_token"]

    assert oauth.call(token).status == 200
    for path in ("/api/v1/clients", "/api/v1/keys", "/api/v1/users"):
        answer = exchange(oauth.port, post_bytes(path, {"name": "more"}, key=token))
        assert (answer.status, answer.error["code"]) == (403, "insufficient_scope")


@pytest.mark.parametrize("path", [TOKEN, ALIAS, REVOKE, INTROSPECT])
def test_rfc6749_s2_3_1_each_endpoint_bounds_guesses(make_server, tmp_path, path: str):
    """Wherever a client secret is checked, guessing it is slowed down."""
    server = OAuthServer(tmp_path / "guessed", people={}).start()
    try:
        client = server.make_client("guessed")
        fields = {"grant_type": "client_credentials", "token": "x"}
        wrong = (client.id, client.secret[:-1] + "x")

        answers = [server.form(path, fields, basic=wrong) for _ in range(60)]

        assert answers[0].status == 401
        assert is_oauth_error(answers[-1], 429, "temporarily_unavailable")
        assert server.form(path, fields, basic=client.basic).status == 200
    finally:
        server.stop()
