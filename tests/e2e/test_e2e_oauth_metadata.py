"""RFC 8414 and RFC 9728: what programs find out by themselves (security.md 2.6)."""

from collections.abc import Iterator
from typing import Any

import pytest

from lingpai.identity.scopes import ALL_SCOPES
from tests.e2e.conftest import MakeServer
from tests.e2e.lingpai_server import LingpaiServer, StartFailed
from tests.e2e.oauth_server import INTROSPECT, REVOKE, TOKEN, OAuthServer
from tests.e2e.raw_http import RawAnswer, exchange, get, get_bytes

SERVER = "/.well-known/oauth-authorization-server"
RESOURCE = "/.well-known/oauth-protected-resource"
ISSUER = "https://models.example/lingpai"


@pytest.fixture(scope="module")
def behind(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LingpaiServer]:
    """A server that is known by another address, which has a path, and takes no passwords."""
    config = f'[oauth]\nissuer = "{ISSUER}"\npassword_grant = "off"\n'
    server = LingpaiServer(tmp_path_factory.mktemp("behind"), config=config).start()
    yield server
    server.stop()


def metadata(server: LingpaiServer, path: str = SERVER) -> dict[str, Any]:
    answer = get(server.port, path)
    assert answer.status == 200
    return dict(answer.json)


def test_rfc8414_s3_metadata_is_there(oauth: OAuthServer):
    """It is a JSON object that anybody may read."""
    answer = get(oauth.port, SERVER)

    assert answer.status == 200
    assert answer.headers["content-type"] == "application/json"


def test_rfc8414_s3_3_issuer_is_the_servers_address(oauth: OAuthServer):
    """The issuer is the address that the metadata was asked from; all endpoints lie on it."""
    found = metadata(oauth)

    assert found["issuer"] == oauth.base
    assert found["token_endpoint"] == oauth.base + TOKEN
    assert found["revocation_endpoint"] == oauth.base + REVOKE
    assert found["introspection_endpoint"] == oauth.base + INTROSPECT


def test_rfc8414_s2_issuer_is_as_configured(behind: LingpaiServer):
    """Where the settings name the issuer, the metadata does, and the endpoints are below it."""
    found = metadata(behind)

    assert found["issuer"] == ISSUER
    assert found["token_endpoint"] == ISSUER + TOKEN


def test_rfc8414_s3_1_issuer_with_a_path_has_it_behind_the_well_known_one(behind: LingpaiServer):
    """The path of the issuer is put behind the well-known path; other paths are nobody's."""
    assert metadata(behind, f"{SERVER}/lingpai") == metadata(behind)
    assert get(behind.port, f"{SERVER}/other").status == 404


def test_rfc8414_s3_1_no_other_path_without_one(oauth: OAuthServer):
    """An issuer without a path is known at no other one."""
    assert get(oauth.port, f"{SERVER}/v1").status == 404


@pytest.mark.parametrize(
    "issuer",
    ["models.example", "http://models.example", "https://", "https://a.example?x=1", "https://a.example/#x",
     "https://user@a.example", "ftp://a.example", "https://a.example:port", "https://a.example/ x"],
)  # fmt: skip
def test_rfc8414_s2_issuer_that_cannot_be_stops_the_start(make_server: MakeServer, issuer: str):
    """The issuer is an https address without query and fragment; a wrong one is told by its key."""
    server = make_server(config=f'[oauth]\nissuer = "{issuer}"\n')

    with pytest.raises(StartFailed, match=r"`oauth\.issuer`"):
        server.start()


def test_rfc8414_s2_only_what_is_there_is_listed(oauth: OAuthServer):
    """Grants and ways to authenticate are those that work, and nothing that does not exist is named."""
    found = metadata(oauth)
    client = oauth.make_client("asks", grants=["client_credentials", "password", "refresh_token"])

    assert set(found["scopes_supported"]) == ALL_SCOPES
    assert found["response_types_supported"] == []
    assert set(found["token_endpoint_auth_methods_supported"]) == {
        "client_secret_basic",
        "client_secret_post",
        "none",
    }
    assert "none" not in found["introspection_endpoint_auth_methods_supported"]
    for grant in found["grant_types_supported"]:
        answer = oauth.form(TOKEN, {"grant_type": grant, **client.form})
        assert answer.status == 200 or answer.json["error"] == "invalid_request", grant
    for endpoint in ("authorization_endpoint", "jwks_uri", "registration_endpoint"):
        assert endpoint not in found or get(oauth.port, found[endpoint].removeprefix(oauth.base)).status < 400


def test_rfc8414_s2_grant_that_is_off_is_not_listed(behind: LingpaiServer):
    """Where passwords are off, nobody is invited to send them."""
    assert metadata(behind)["grant_types_supported"] == ["client_credentials", "refresh_token"]


@pytest.mark.parametrize("path", ["", "/v1", "/api/v1"])
def test_rfc9728_s3_3_resource_is_the_address_used(oauth: OAuthServer, path: str):
    """`resource` is identical to the address that the metadata was made for; else clients must not use it."""
    answer = get(oauth.port, RESOURCE + path)

    assert answer.status == 200
    assert answer.headers["content-type"] == "application/json"
    assert answer.json["resource"] == oauth.base + path
    assert answer.json["authorization_servers"] == [metadata(oauth)["issuer"]]


@pytest.mark.parametrize("path", ["", "/v1", "/api/v1"])
def test_rfc9728_s3_1_resource_of_an_issuer_with_a_path(behind: LingpaiServer, path: str):
    """The whole path of the resource is put behind the well-known one."""
    found = metadata(behind, f"{RESOURCE}/lingpai{path}")

    assert found["resource"] == ISSUER + path
    assert found["authorization_servers"] == [ISSUER]


@pytest.mark.parametrize("path", ["/nothing", "/v1/models", "/v1x", "/../v1", "/%2e%2e", "//"])
def test_rfc9728_s3_unprotected_resource_has_no_metadata(oauth: OAuthServer, path: str):
    """Nothing is told of what is not protected; whoever is answered gets the resource that was asked for."""
    answer = get(oauth.port, RESOURCE + path)

    assert answer.status == 404 or answer.json["resource"].rstrip("/") == (oauth.base + path).rstrip("/")


def test_rfc9728_s3_address_of_somebody_elses_resource_is_404(behind: LingpaiServer):
    """On a host that is shared, only what lies below the issuer is ours."""
    assert get(behind.port, RESOURCE).status == 404
    assert get(behind.port, f"{RESOURCE}/v1").status == 404


def test_rfc9728_s2_no_member_is_empty_and_no_alg_none(oauth: OAuthServer):
    """Members without a value are left out, and tokens go in the header only."""
    found = metadata(oauth, RESOURCE)

    assert all(found.values())
    assert found["bearer_methods_supported"] == ["header"]
    assert "none" not in str(found)


def test_rfc8414_s3_3_host_header_does_not_choose_the_issuer(oauth: OAuthServer):
    """What a caller writes into `Host` is in none of it (security.md D7)."""
    for path in (SERVER, RESOURCE, f"{RESOURCE}/v1"):
        request = get_bytes(path).replace(b"host: 127.0.0.1", b"host: evil-canary.example")
        answer: RawAnswer = exchange(oauth.port, request)

        assert answer.status == 200
        assert b"evil-canary" not in answer.body
