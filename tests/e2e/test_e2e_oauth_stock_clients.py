"""The OAuth clients that programs use, unchanged: requests-oauthlib, Authlib, oauth4webapi, and the articles' own lines."""

import json
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest
import requests
from authlib.integrations.base_client.errors import OAuthError as AuthlibError
from authlib.integrations.requests_client import OAuth2Session as AuthlibSession
from oauthlib.oauth2 import BackendApplicationClient, LegacyApplicationClient
from oauthlib.oauth2.rfc6749.errors import InvalidClientError, InvalidGrantError, InvalidScopeError
from requests.auth import HTTPBasicAuth
from requests_oauthlib import OAuth2Session

from tests.e2e.lingpai_server import ROOT, clean_environment
from tests.e2e.oauth_server import MODEL, Client, OAuthServer
from tests.e2e.raw_http import note_error
from tests.secrets_scan import SCAN

GRANTS = ["client_credentials", "password", "refresh_token"]
METHODS = ["client_secret_basic", "client_secret_post"]
MODEL_ID = "damo/nlp_structbert_sentiment-classification_chinese-base"
PEOPLE = {"alice": "alices: päss+word %41", "bob": "bobs plain pass+word %41"}
MODELS = f"""
import lingpai as lp

@lp.model("{MODEL_ID}", task="text-classification")
def sentiment(text: str):
    return [{{"label": "positive", "score": 0.9}}]

@lp.model("{MODEL}", task="chat")
async def parrot(messages: list[lp.Message]):
    yield messages[-1].text
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OAuthServer]:
    """A platform with the article's model; calls without a model go to a chat model."""
    folder = tmp_path_factory.mktemp("stock")
    (folder / "models.py").write_text(MODELS)
    config = f'[server]\ndefault_model = "{MODEL}"\n\n[[models]]\ntarget = "models.py"\nname = "models"\n'
    server = OAuthServer(folder, people=PEOPLE, config=config).start()
    yield server
    server.stop()


@pytest.fixture(scope="module")
def agent(server: OAuthServer) -> Client:
    return server.make_client("agent", grants=GRANTS)


@pytest.fixture(autouse=True)
def _plain_http(monkeypatch: pytest.MonkeyPatch) -> None:
    """oauthlib asks for TLS unless told that this is a test."""
    monkeypatch.setenv("OAUTHLIB_INSECURE_TRANSPORT", "1")


def listen(session: requests.Session) -> requests.Session:
    """The same session, with the scan for secrets listening."""
    session.trust_env = False
    session.hooks["response"].append(_note)
    return session


def _note(response: requests.Response, **_: Any) -> None:
    SCAN.secrets.add_credentials(response.content)
    if response.status_code >= 400:
        note_error(response.status_code, dict(response.headers), response.content)


def inference(server: OAuthServer) -> str:
    return f"{server.base}/api/v1/models/{MODEL_ID}/inference"


# -- requests-oauthlib


@pytest.mark.parametrize("method", METHODS)
def test_requests_oauthlib_client_credentials(server: OAuthServer, agent: Client, method: str):
    """A program gets a token and calls a model with it."""
    session = listen(OAuth2Session(client=BackendApplicationClient(agent.id, scope=["model:inference"])))
    options: dict[str, Any] = (
        {"auth": HTTPBasicAuth(*agent.basic)}
        if method == "client_secret_basic"
        else {"client_secret": agent.secret, "include_client_id": True}
    )

    token = session.fetch_token(f"{server.base}/oauth/token", **options)
    answer = session.post(inference(server), json={"input": "很好"})

    assert token["expires_in"] == 3600
    assert answer.json()["output"] == [{"label": "positive", "score": 0.9}]


def test_requests_oauthlib_password_and_automatic_refresh(server: OAuthServer, agent: Client):
    """A user's token is refreshed by the library when it has expired, and the new one kept."""
    kept: list[dict[str, Any]] = []
    session = listen(
        OAuth2Session(
            client=LegacyApplicationClient(agent.id),
            auto_refresh_url=f"{server.base}/oauth/token",
            auto_refresh_kwargs={"client_id": agent.id, "client_secret": agent.secret},
            token_updater=kept.append,
        )
    )
    auth = HTTPBasicAuth(*agent.basic)
    first = session.fetch_token(
        f"{server.base}/oauth/token", username="alice", password=server.people["alice"], auth=auth
    )
    session.token = {**first, "expires_at": 1}

    answer = session.post(inference(server), json={"input": "hi"})

    assert answer.status_code == 200
    assert len(kept) == 1
    assert kept[0]["refresh_token"] != first["refresh_token"]


@pytest.mark.parametrize("method", [*METHODS, "none"])
@pytest.mark.parametrize("kind", ["access_token", "refresh_token"])
def test_requests_oauthlib_revocation(server: OAuthServer, agent: Client, method: str, kind: str):
    """The request that the library prepares ends the token (RFC 7009): a refresh token with all of its sign-in."""
    sender = agent
    if method == "none":
        sender = server.make_client(f"public {kind}", public=True, grants=GRANTS[1:])
    library = LegacyApplicationClient(sender.id)
    session = listen(OAuth2Session(client=library))
    token = session.fetch_token(
        f"{server.base}/oauth/token",
        username="bob",
        password=server.people["bob"],
        include_client_id=True,
        client_secret=sender.secret or None,
    )
    assert session.post(inference(server), json={"input": "hi"}).status_code == 200

    in_basic = method == "client_secret_basic"
    url, headers, body = library.prepare_token_revocation_request(
        f"{server.base}/oauth/revoke", token[kind], kind, **({} if in_basic else sender.form)
    )
    auth = HTTPBasicAuth(*sender.basic) if in_basic else None
    revoked = session.post(url, data=body, headers=headers, auth=auth, withhold_token=True)

    assert (revoked.status_code, revoked.text) == (200, "")
    assert session.post(inference(server), json={"input": "hi"}).status_code == 401
    refreshed = server.refresh(token["refresh_token"], sender)
    assert refreshed.status == (200 if kind == "access_token" else 400), refreshed.body


def test_requests_oauthlib_raises_what_was_refused(server: OAuthServer, agent: Client):
    """Refusals arrive as the library's own errors."""
    url = f"{server.base}/oauth/token"
    auth = HTTPBasicAuth(*agent.basic)

    unscoped = listen(OAuth2Session(client=BackendApplicationClient(agent.id)))
    scoped = listen(OAuth2Session(client=BackendApplicationClient(agent.id, scope=["no:such"])))
    of_user = listen(OAuth2Session(client=LegacyApplicationClient(agent.id)))

    with pytest.raises(InvalidScopeError):
        scoped.fetch_token(url, auth=auth)
    with pytest.raises(InvalidClientError):
        unscoped.fetch_token(url, auth=HTTPBasicAuth(agent.id, "wrong"))
    with pytest.raises(InvalidGrantError):
        of_user.fetch_token(url, username="alice", password="wrong", auth=auth)


# -- Authlib


def authlib_session(server: OAuthServer, client: Client, method: str, **options: Any) -> AuthlibSession:
    session = AuthlibSession(
        client_id=client.id,
        client_secret=client.secret or None,
        token_endpoint=f"{server.base}/oauth/token",
        token_endpoint_auth_method=method,
        revocation_endpoint_auth_method=method,
        **options,
    )
    listen(session)
    return session


@pytest.mark.parametrize("method", METHODS)
def test_authlib_client_credentials(server: OAuthServer, agent: Client, method: str):
    """A token is got, used, looked at and revoked."""
    session = authlib_session(server, agent, method, scope="model:inference")

    token = session.fetch_token(grant_type="client_credentials")
    called = session.post(inference(server), json={"input": "hi"})
    active = session.introspect_token(f"{server.base}/oauth/introspect", token["access_token"])
    revoked = session.revoke_token(f"{server.base}/oauth/revoke", token["access_token"])
    afterwards = session.introspect_token(f"{server.base}/oauth/introspect", token["access_token"])

    assert called.status_code == 200
    assert active.json()["active"] is True
    assert revoked.status_code == 200
    assert afterwards.json() == {"active": False}
    assert session.post(inference(server), json={"input": "hi"}).status_code == 401


@pytest.mark.parametrize("method", METHODS)
def test_authlib_password_and_refresh(server: OAuthServer, agent: Client, method: str):
    """A user's tokens are refreshed, by hand and by the library itself."""
    kept: list[dict[str, Any]] = []
    session = authlib_session(server, agent, method, update_token=lambda token, **_: kept.append(dict(token)))

    first = dict(session.fetch_token(username="alice", password=server.people["alice"]))
    second = dict(session.refresh_token(f"{server.base}/oauth/token", first["refresh_token"]))
    session.token = {**second, "expires_at": 1}
    called = session.post(inference(server), json={"input": "hi"})

    assert called.status_code == 200
    assert len({first["refresh_token"], second["refresh_token"], kept[-1]["refresh_token"]}) == 3


def test_authlib_renews_client_credentials_by_itself(server: OAuthServer, agent: Client):
    """Without a refresh token the library asks for another token before the end."""
    session = authlib_session(server, agent, "client_secret_basic", grant_type="client_credentials")
    first = dict(session.fetch_token())
    session.token = {**first, "expires_at": 1}

    assert session.post(inference(server), json={"input": "hi"}).status_code == 200
    assert session.token["access_token"] != first["access_token"]


def test_authlib_public_client(server: OAuthServer):
    """A client without a secret signs a user in and out."""
    public = server.make_client("authlib public", public=True, grants=["password", "refresh_token"])
    session = authlib_session(server, public, "none")

    token = session.fetch_token(username="alice", password=server.people["alice"])
    token = session.refresh_token(f"{server.base}/oauth/token", token["refresh_token"])
    assert session.revoke_token(f"{server.base}/oauth/revoke", token["refresh_token"]).status_code == 200

    assert session.post(inference(server), json={"input": "hi"}).status_code == 401


def test_authlib_raises_what_was_refused(server: OAuthServer, agent: Client):
    """Refusals arrive with the codes of RFC 6749."""
    session = authlib_session(server, agent, "client_secret_basic")

    for error, options in {
        "invalid_scope": {"grant_type": "client_credentials", "scope": "no:such"},
        "invalid_grant": {"username": "alice", "password": "wrong"},
        "unsupported_grant_type": {"grant_type": "urn:none"},
    }.items():
        with pytest.raises(AuthlibError) as refused:
            session.fetch_token(**options)
        assert refused.value.error == error
        assert refused.value.description


# -- oauth4webapi


@pytest.mark.parametrize("method", ["basic", "post", "none"])
def test_oauth4webapi(server: OAuthServer, agent: Client, method: str):
    """A strict certified client discovers, gets, uses, refreshes, looks at and revokes tokens, and hears of errors."""
    client = agent if method != "none" else server.make_client("js", public=True, grants=GRANTS[1:])

    seen = run_node("oauth.mjs", server, client, method)

    assert seen["discovered"] == f"{server.base}/oauth/token"
    assert seen["resource"] == [server.base]
    assert seen["password"]["called"] == 200
    assert seen["password"]["rotated"] is True
    assert seen["password"]["challenge"]["status"] == 401
    assert seen["password"]["challenge"]["challenges"][0]["parameters"]["error"] == "invalid_token"
    if method == "none":
        assert seen["errors"][2] == "400 unauthorized_client"
    else:
        assert seen["clientCredentials"].pop("challenge")["status"] == 401
        assert seen["clientCredentials"] == {
            "type": "bearer",
            "expires_in": 3600,
            "scope": "model:inference",
            "called": 200,
            "active": True,
            "afterwards": False,
        }
        assert seen["errors"][2] == "400 invalid_scope"
    assert seen["errors"][:2] == ["400 invalid_grant", "400 unsupported_grant_type"]
    assert seen["errors"][3].startswith("401 ")


def run_node(script: str, server: OAuthServer, client: Client, method: str) -> Any:
    given = {
        "issuer": server.base,
        "client_id": client.id,
        "client_secret": client.secret,
        "method": method,
        "username": "alice",
        "password": server.people["alice"],
        "call": inference(server),
    }
    outcome = subprocess.run(
        ["node", ROOT / "tests" / "node" / script],
        input=json.dumps(given), capture_output=True, text=True, timeout=60, check=False, env=clean_environment(),
    )  # fmt: skip
    SCAN.note(f"stderr of {script}", outcome.stderr)
    assert outcome.returncode == 0, outcome.stderr
    return json.loads(outcome.stdout)


# -- the articles, as they are written there


@pytest.mark.parametrize("username", ["alice", "bob"])
def test_article_password_then_inference(server: OAuthServer, username: str):
    """User name and password in HTTP Basic, `grant_type=password` in the body, then a call with the token.

    As text: what is not ASCII in a password, `requests` sends in latin-1.
    """
    password = server.people[username]
    model_id = MODEL_ID
    with listen(requests.Session()) as requests_:
        token_url = f"{server.base}/api/v1/token"
        data = {"grant_type": "password"}
        response = requests_.post(token_url, auth=(username, password), data=data)
        if response.status_code == 200:
            access_token = response.json()["access_token"]
        else:
            raise AssertionError(f"Failed to obtain access token: {response.text}")

        inference_url = f"{server.base}/api/v1/models/{model_id}/inference"
        headers = {"Authorization": f"Bearer {access_token}", "Content-Type": "application/json"}
        response = requests_.post(inference_url, headers=headers, json={"input": "Sample input data"})

    assert response.status_code == 200
    assert response.json()["output"] == [{"label": "positive", "score": 0.9}]


def test_article_password_that_is_wrong_says_why(server: OAuthServer):
    """Anything else is not 200, with a text that says why."""
    with listen(requests.Session()) as requests_:
        response = requests_.post(
            f"{server.base}/api/v1/token", auth=("alice", "wrong"), data={"grant_type": "password"}
        )

    assert response.status_code == 400
    assert "password is wrong" in response.text


def test_article_token_is_refreshed_without_the_password(server: OAuthServer):
    """The refresh token of the built-in public client needs no client authentication."""
    with listen(requests.Session()) as requests_:
        token_url = f"{server.base}/api/v1/token"
        basic = ("alice", server.people["alice"])
        first = requests_.post(token_url, auth=basic, data={"grant_type": "password"}).json()
        again = {"grant_type": "refresh_token", "refresh_token": first["refresh_token"]}
        second = requests_.post(token_url, data=again).json()

    assert server.call(second["access_token"]).status == 200


def test_article_job_that_never_stops(server: OAuthServer, agent: Client):
    """client_credentials in form fields with a scope, then calls without a model; a 401 means: authenticate, once more."""
    data = {
        "grant_type": "client_credentials",
        "client_id": agent.id,
        "client_secret": agent.secret,
        "scope": "model:inference",
    }
    with listen(requests.Session()) as requests_:
        answer = requests_.post(f"{server.base}/oauth/token", data=data, timeout=10).json()
        assert answer["expires_in"] == 3600
        headers = {"Authorization": f"Bearer {answer['access_token']}", "Content-Type": "application/json"}
        body = {"prompt": "Once upon a time", "max_tokens": 100}
        answers = [
            requests_.post(f"{server.base}{path}", json=body, headers=headers, timeout=10)
            for path in ("/v1/completions", "/api/v1/generate")
        ]
        requests_.post(f"{server.base}/oauth/revoke", data={**data, "token": answer["access_token"]})
        refused = requests_.post(f"{server.base}/v1/completions", json=body, headers=headers, timeout=10)
        renewed = requests_.post(f"{server.base}/oauth/token", data=data, timeout=10).json()

    assert [each.status_code for each in answers] == [200, 200], [each.text for each in answers]
    assert refused.status_code == 401
    assert server.call(renewed["access_token"]).status == 200
