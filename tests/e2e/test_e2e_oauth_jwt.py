"""Access tokens as JWTs (RFC 9068): others verify them by themselves, and here they are as revocable as any token."""

import base64
import hashlib
import hmac
import json
import signal
import subprocess
import time
from collections.abc import Iterator
from typing import Any

import pytest
from joserfc import jwk

from tests.e2e.lingpai_server import ROOT, clean_environment
from tests.e2e.oauth_server import REVOKE, Client, OAuthServer
from tests.e2e.raw_http import get, post
from tests.e2e.waiting import wait_until

GRANTS = ["client_credentials", "password", "refresh_token"]
INACTIVE = {"active": False}
ISSUER = "https://models.example"
KEY_SET = "/.well-known/jwks.json"


def config(algorithm: str) -> str:
    return f'[oauth]\naccess_token_format = "jwt"\njwt_algorithm = "{algorithm}"\n'


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OAuthServer]:
    folder = tmp_path_factory.mktemp("jwt")
    server = OAuthServer(folder, people={"alice": "a long password of alice"}, config=config("RS256")).start()
    yield server
    server.stop()


@pytest.fixture(scope="module")
def agent(server: OAuthServer) -> Client:
    return server.make_client("agent", grants=GRANTS, scopes=["model:inference", "usage:read"])


@pytest.fixture(scope="module")
def watcher(server: OAuthServer) -> Client:
    return server.make_client("watcher", scopes=["tokens:introspect"])


def new_token(server: OAuthServer, client: Client, **fields: str) -> str:
    return str(server.token(client, **fields)["access_token"])


def key_set(server: OAuthServer) -> list[dict[str, Any]]:
    answer = get(server.port, KEY_SET)
    assert answer.status == 200
    assert answer.headers["content-type"] == "application/json"
    return list(answer.json["keys"])


def parts(token: str) -> tuple[dict[str, Any], dict[str, Any]]:
    header, claims, _ = token.split(".")
    return decoded(header), decoded(claims)


def decoded(part: str) -> dict[str, Any]:
    return dict(json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))))


def encoded(part: Any) -> str:
    raw = part if isinstance(part, bytes) else json.dumps(part).encode()
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def verified_elsewhere(server: OAuthServer, *tokens: str) -> list[dict[str, Any]]:
    """What oauth4webapi says of tokens, with nothing but the server's address."""
    outcome = subprocess.run(
        ["node", ROOT / "tests" / "node" / "jwt.mjs"], input=json.dumps({"issuer": server.base, "tokens": tokens}),
        capture_output=True, text=True, timeout=60, check=False, env=clean_environment(),
    )  # fmt: skip
    assert outcome.returncode == 0, outcome.stderr
    return list(json.loads(outcome.stdout))


# -- what they are


@pytest.mark.parametrize("algorithm", ["RS256", "EdDSA"])
def test_rfc9068_s4_a_strict_resource_server_verifies_them(
    tmp_path_factory: pytest.TempPathFactory, algorithm: str
):
    """oauth4webapi discovers the keys, and finds every claim that section 2.2 wants; changed tokens it refuses."""
    server = OAuthServer(tmp_path_factory.mktemp("strict"), people={}, config=config(algorithm)).start()
    try:
        client = server.make_client("agent")
        token = new_token(server, client)
        head, claims, signature = token.split(".")
        wider = encoded({**decoded(claims), "scope": "admin:all"})

        good, changed = verified_elsewhere(server, token, f"{head}.{wider}.{signature}")

        assert parts(token)[0] == {"alg": algorithm, "typ": "at+jwt", "kid": key_set(server)[0]["kid"]}
        assert good["iss"] == good["aud"] == server.base
        assert good["sub"] == good["client_id"] == client.id
        assert good["scope"] == "model:inference"
        assert good["exp"] - good["iat"] == 300
        assert len(good["jti"]) == 12
        assert "error" in changed
        assert server.call(token).status == 200
        assert server.call(f"{head}.{wider}.{signature}").status == 401
    finally:
        server.stop()


def test_rfc9068_s2_2_a_users_token_is_about_the_user(server: OAuthServer, agent: Client):
    """With a client and through the built-in public one; refreshing gives another JWT."""
    through = server.sign_in("alice", agent)
    alone = server.sign_in("alice")
    again = server.refresh(through["refresh_token"], agent).json
    claims = [parts(each["access_token"])[1] for each in (through, alone, again)]

    assert {each["sub"] for each in claims} == {claims[0]["sub"]}
    assert claims[0]["sub"].startswith("usr_")
    assert [each["client_id"] for each in claims] == [agent.id, "lingpai", agent.id]
    assert len({each["jti"] for each in claims}) == 3
    assert through["refresh_token"].startswith("rt-lp-")
    for each in (through, alone, again):
        assert server.call(each["access_token"]).status == 200


def test_they_live_five_minutes_whatever_the_client_says(server: OAuthServer):
    """The lifetime of a client's tokens can only be shorter."""
    long = server.make_client("long", token_lifetime_s=3600)
    short = server.make_client("short", token_lifetime_s=30)

    assert server.token(long)["expires_in"] in (299, 300)  # it ends with a whole second
    assert server.token(short)["expires_in"] in (29, 30)


def test_rfc7517_s5_keys_are_published_before_the_first_token(tmp_path_factory: pytest.TempPathFactory):
    """Whoever reads the key set at start can verify the first token."""
    server = OAuthServer(tmp_path_factory.mktemp("first"), people={}, config=config("EdDSA")).start()
    try:
        published = key_set(server)
        token = new_token(server, server.make_client("agent"))

        assert [each["kid"] for each in published] == [parts(token)[0]["kid"]]
        assert {frozenset(each) for each in published} == {
            frozenset({"kty", "crv", "x", "kid", "use", "alg"})
        }, "public parts only"
    finally:
        server.stop()


def test_server_without_jwts_has_no_keys_and_takes_none(
    oauth: OAuthServer, server: OAuthServer, agent: Client
):
    """The default is opaque; another server's token is nobody there, and nothing is looked up for it."""
    assert key_set(oauth) == []
    assert oauth.call(new_token(server, agent)).status == 401


def test_rfc7517_s5_keys_may_be_kept_no_longer_than_they_are_published_before_use(server: OAuthServer):
    """A key is published an hour before it signs."""
    cache = get(server.port, KEY_SET).headers["cache-control"]

    assert int(cache.partition("max-age=")[2]) <= 3600


# -- they end like any token


def test_rfc7009_s2_1_revoked_jwt_is_refused_on_the_next_call(
    server: OAuthServer, agent: Client, watcher: Client
):
    """And introspection says so. Another client cannot revoke it."""
    token = new_token(server, agent)
    assert server.call(token).status == 200

    foreign = server.form(REVOKE, {"token": token}, basic=watcher.basic)
    assert (foreign.status, server.call(token).status) == (200, 200)
    assert server.form(REVOKE, {"token": token}, basic=agent.basic).status == 200

    refused = server.call(token)
    assert refused.status == 401
    assert refused.json["error"]["code"] == "invalid_api_key"
    assert 'error="invalid_token"' in refused.headers["www-authenticate"]
    assert server.introspect(watcher, token) == INACTIVE


def test_rfc7662_s2_2_introspection_says_what_the_token_says(
    server: OAuthServer, agent: Client, watcher: Client
):
    """The same claims, whether a server reads them or asks."""
    token = new_token(server, agent, scope="usage:read")
    claims = parts(token)[1]

    told = server.introspect(watcher, token)

    for name in ("iss", "sub", "client_id", "scope", "iat", "exp", "jti"):
        assert told[name] == claims[name], name
    assert told["active"] is True


def test_leaked_jwt_is_refused_on_the_next_call(server: OAuthServer, agent: Client, watcher: Client):
    token, other = new_token(server, agent), new_token(server, agent)
    assert server.call(token).status == 200

    answer = post(server.port, "/api/v1/keys/leaked", {"keys": [token]})

    assert answer.status == 202
    assert server.call(token).error["code"] == "invalid_api_key"
    assert server.introspect(watcher, token) == INACTIVE
    assert server.call(other).status == 200
    token_id = parts(token)[1]["jti"]
    [record] = server.admin("GET", f"/api/v1/audit?target={token_id}&action=token.revoke")["data"]
    assert record["reason"] == "reported as leaked"
    events = "/api/v1/events?type=key.leaked"
    wait_until(lambda: server.admin("GET", events)["data"])
    [event] = server.admin("GET", events)["data"]
    assert event["subject_id"] == agent.id
    assert event["data"] == {"kind": "access_token", "id": token_id}


def test_narrowed_and_disabled_client_takes_its_jwts_along(server: OAuthServer, watcher: Client):
    """What the token says is what it may have at most; what holds now is in the database."""
    client = server.make_client("narrow", scopes=["model:inference", "usage:read"])
    token = new_token(server, client)
    assert server.call(token).status == 200

    server.admin("PATCH", f"/api/v1/clients/{client.id}", {"scopes": ["usage:read"]})
    assert server.call(token).status == 403
    assert server.introspect(watcher, token)["scope"] == "usage:read"
    server.admin("PATCH", f"/api/v1/clients/{client.id}", {"scopes": ["model:inference"], "disabled": True})
    assert server.call(token).status == 401
    assert server.introspect(watcher, token) == INACTIVE


def test_it_ends_by_itself(server: OAuthServer, watcher: Client):
    """To the second that it says."""
    client = server.make_client("brief", token_lifetime_s=5)
    token = new_token(server, client)
    assert server.call(token).status == 200

    time.sleep(max(0, parts(token)[1]["exp"] - time.time()) + 0.05)

    assert server.call(token).json["error"]["code"] == "token_expired"
    assert server.introspect(watcher, token) == INACTIVE


def test_it_is_listed_and_ended_by_its_id(server: OAuthServer):
    """`lingpai tokens revoke` takes the `jti`."""
    client = server.make_client("listed")
    token = new_token(server, client)
    id_ = parts(token)[1]["jti"]
    listed = server.cli_json("tokens", "list", "--client", "listed")

    assert [each["id"] for each in listed] == [id_]
    assert server.call(token).status == 200
    server.cli("tokens", "revoke", id_)

    assert server.call(token).status == 401


def test_doctor_knows_the_form(server: OAuthServer, agent: Client):
    """`lingpai doctor` with a JWT in the place of the key."""
    outcome = server.cli(
        "doctor", server.base, environment={"LINGPAI_API_KEY": new_token(server, agent)}, at_data=False
    )

    assert "an access token, a JWT" in outcome.stdout
    assert "key agent of user admin" in outcome.stdout


# -- forgeries


def test_rfc8725_s2_1_forged_jwts_are_refused(server: OAuthServer, agent: Client):
    """No algorithm, the public key as a shared secret, keys that the token brings along, hostile key ids, other types."""
    token = new_token(server, agent)
    assert server.call(token).status == 200
    header, claims = parts(token)
    public = jwk.RSAKey.import_key(key_set(server)[0])
    own = jwk.RSAKey.generate_key(2048)
    forged = {
        "no algorithm": jwt({**header, "alg": "none"}, claims, b""),
        "no signature": jwt(header, claims, b""),
        "public key as secret": hs256({**header, "alg": "HS256"}, claims, public.as_pem(private=False)),
        "embedded key": rs256({**header, "jwk": own.as_dict(private=False)}, claims, own),
        "address of a key set": rs256({**header, "jku": f"{server.base}{KEY_SET}"}, claims, own),
        "key id that is a path": rs256({**header, "kid": "../../etc/passwd"}, claims, own),
        "key id that is SQL": rs256({**header, "kid": "' OR '1'='1"}, claims, own),
        "other key": rs256(header, claims, own),
        "critical header": rs256({**header, "crit": ["exp"]}, claims, own),
        "other type": rs256({**header, "typ": "JWT"}, claims, own),
        "oversized": jwt({**header, "pad": "x" * 9000}, claims, b"x"),
        "two parts": token.rpartition(".")[0],
        "four parts": token + ".e30",
        "garbage": "eyJ" + "A" * 100,
    }

    for what, each in forged.items():
        answer = server.call(each)
        assert answer.status == 401, what
        assert 'error="invalid_token"' in answer.headers["www-authenticate"], what
        assert server.introspect(agent, each) == INACTIVE, what
    assert server.call(token).status == 200


def jwt(header: dict[str, Any], claims: dict[str, Any], signature: bytes) -> str:
    return f"{encoded(header)}.{encoded(claims)}.{encoded(signature)}"


def hs256(header: dict[str, Any], claims: dict[str, Any], secret: bytes) -> str:
    body = f"{encoded(header)}.{encoded(claims)}"
    return f"{body}.{encoded(hmac.digest(secret, body.encode(), hashlib.sha256))}"


def rs256(header: dict[str, Any], claims: dict[str, Any], key: jwk.RSAKey) -> str:

    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import padding

    body = f"{encoded(header)}.{encoded(claims)}"
    signature = key.private_key.sign(body.encode(), padding.PKCS1v15(), hashes.SHA256())
    return f"{body}.{encoded(signature)}"


# -- keys come and go


@pytest.fixture
def own_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OAuthServer]:
    """Known by one address, although each start listens on another port."""
    settings = config("EdDSA") + f'issuer = "{ISSUER}"\n'
    server = OAuthServer(tmp_path_factory.mktemp("rotation"), people={}, config=settings).start()
    yield server
    server.stop()


def test_rfc7517_s5_rotated_key_is_published_first_and_the_one_before_stays(own_server: OAuthServer):
    """A rotation publishes; tokens are signed by the old key for another hour, and those that are out stay good."""
    client = own_server.make_client("agent")
    token = new_token(own_server, client)

    own_server.cli("secrets", "rotate", "signing")

    assert len(key_set(own_server)) == 2
    later = new_token(own_server, client)
    assert parts(later)[0]["kid"] == parts(token)[0]["kid"]
    assert [own_server.call(each).status for each in (token, later)] == [200, 200]


def test_leaked_key_ends_everything_it_has_signed(own_server: OAuthServer):
    """Within a second, also tokens that were in use; new ones come from the new key."""
    client = own_server.make_client("agent")
    token = new_token(own_server, client)
    assert own_server.call(token).status == 200

    own_server.cli("secrets", "rotate", "signing", "--leaked")
    deadline = time.monotonic() + 1.5
    while own_server.call(token).status == 200:
        assert time.monotonic() < deadline
        time.sleep(0.05)

    later = new_token(own_server, client)
    assert [each["kid"] for each in key_set(own_server)] == [parts(later)[0]["kid"]]
    assert parts(later)[0]["kid"] != parts(token)[0]["kid"]
    assert own_server.call(later).status == 200


def test_restart_loses_nothing(own_server: OAuthServer):
    """Keys and tokens are in the database, after `kill -9` too; a revoked one stays revoked."""
    client = own_server.make_client("agent")
    token, revoked = new_token(own_server, client), new_token(own_server, client)
    assert own_server.call(revoked).status == 200
    own_server.form(REVOKE, {"token": revoked}, basic=client.basic)
    before = key_set(own_server)

    own_server.kill()
    own_server.start()

    assert key_set(own_server) == before
    assert own_server.call(token).status == 200
    assert own_server.call(revoked).status == 401


def test_format_changes_with_a_reload(own_server: OAuthServer):
    """Tokens of both kinds go on; the key set stays while there are JWTs."""
    client = own_server.make_client("agent")
    token = new_token(own_server, client)

    (own_server.folder / "lingpai.toml").write_text(
        f'[oauth]\naccess_token_format = "opaque"\nissuer = "{ISSUER}"\n'
    )
    assert own_server.process is not None
    own_server.process.send_signal(signal.SIGHUP)
    wait_until(lambda: "settings reloaded" in own_server.stderr)
    opaque = own_server.token(client)["access_token"]

    assert opaque.startswith("at-lp-")
    assert [own_server.call(each).status for each in (token, opaque)] == [200, 200]
    assert len(key_set(own_server)) == 1
