"""The grant `password` with the server's own passwords: guessing is slowed down, and a change ends what the old one gave."""

import itertools
from collections.abc import Callable, Iterator
from urllib.parse import urlencode

import pytest

from tests.e2e.oauth_server import FORM, TOKEN, Client, OAuthServer, is_oauth_error
from tests.e2e.raw_http import RawAnswer, exchange, post_bytes
from tests.secrets_scan import SCAN

PASSWORD = "quiet lantern of the token endpoint"
OTHER = "another lantern of the token endpoint"
SignIn = Callable[..., RawAnswer]
ELSEWHERE = ("x-forwarded-for: 198.51.100.8", "x-forwarded-proto: https")
_numbers = itertools.count()

for _password in (PASSWORD, OTHER):
    SCAN.secrets.add("password", _password)


def person(server: OAuthServer) -> str:
    """The name of somebody new, whom nobody has guessed at yet."""
    return server.make_person(f"person-{next(_numbers)}", PASSWORD)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OAuthServer]:
    """Behind a proxy on this machine, so that a request can come from elsewhere, too."""
    config = '[server]\ntrusted_proxies = ["127.0.0.1"]\n'
    server = OAuthServer(tmp_path_factory.mktemp("passwords"), people={}, config=config).start()
    yield server
    server.stop()


@pytest.fixture(scope="module")
def public(server: OAuthServer) -> Client:
    return server.make_client("public", public=True, grants=["password", "refresh_token"])


@pytest.fixture(scope="module")
def agent(server: OAuthServer) -> Client:
    return server.make_client("agent", grants=["password", "refresh_token"])


@pytest.fixture
def address() -> str:
    """Where nobody has failed yet."""
    return f"203.0.113.{next(_numbers)}"


@pytest.fixture
def sign_in(server: OAuthServer, agent: Client, public: Client, address: str) -> SignIn:
    """Send a password in one of the forms in which it comes."""

    def ask(way: str, name: str, password: str, scheme: str = "https") -> RawAnswer:
        headers = (f"x-forwarded-for: {address}", f"x-forwarded-proto: {scheme}")
        form = {"grant_type": "password"}
        user = {"username": name, "password": password}
        if way == "user and client in the body":
            return server.form(TOKEN, form | user | agent.form, headers=headers)
        if way == "client in Basic":
            return server.form(TOKEN, form | user, basic=agent.basic, headers=headers)
        return server.form(TOKEN, form | public.form, basic=(name, password), headers=headers)

    return ask


WAYS = ["user and client in the body", "client in Basic", "user in Basic"]


@pytest.mark.parametrize("way", WAYS)
def test_rfc6749_s4_3_2_guessing_passwords_is_slowed_down(server: OAuthServer, sign_in: SignIn, way: str):
    """After a few wrong ones it takes time, whichever way they come, and whether the user exists or not."""
    for name in (person(server), f"nobody-{next(_numbers)}"):
        answers = [sign_in(way, name, f"wrong {number}") for number in range(12)]

        assert is_oauth_error(answers[0], 400, "invalid_grant")
        assert is_oauth_error(answers[-1], 429, "temporarily_unavailable")
        assert int(answers[-1].headers["retry-after"]) >= 1
        assert sum(answer.status == 400 for answer in answers) < 9  # five, unless seconds pass between them


def test_rfc6749_s4_3_2_one_address_guesses_at_many_names_no_faster(
    server: OAuthServer, sign_in: SignIn, agent: Client
):
    """Trying one password on everybody is slowed down by address, and nobody elsewhere has to wait for it."""
    name = person(server)

    answers = [sign_in("client in Basic", f"nobody-{next(_numbers)}", "Summer2026") for _ in range(40)]

    assert is_oauth_error(answers[0], 400, "invalid_grant")
    assert is_oauth_error(answers[-1], 429, "temporarily_unavailable")
    form = {"grant_type": "password", "username": name, "password": PASSWORD, **agent.form}
    assert server.form(TOKEN, form, headers=ELSEWHERE).status == 200


def test_rfc6749_s4_3_2_token_endpoint_and_sign_in_share_one_count(server: OAuthServer, sign_in: SignIn):
    """Who has used up the guesses at one door has none left at the other."""
    name = person(server)
    for number in range(12):
        sign_in("client in Basic", name, f"wrong {number}")

    headers = ("x-forwarded-for: 198.51.100.7", "x-forwarded-proto: https", "sec-fetch-site: same-origin")
    body = {"name": name, "password": "wrong again"}
    answer = exchange(server.port, post_bytes("/api/v1/sessions", body, headers=headers))

    assert answer.status == 429, answer.body


def test_rfc6749_s4_3_2_right_password_gets_tokens(server: OAuthServer, sign_in: SignIn):
    """In every form; otherwise the tests around this one would show nothing."""
    for way in WAYS:
        answer = sign_in(way, person(server), PASSWORD)

        assert answer.status == 200, (way, answer.body)
        assert server.call(answer.json["access_token"]).status == 200


@pytest.mark.parametrize("way", WAYS)
def test_rfc6749_s10_3_password_in_clear_text_from_elsewhere_gets_no_tokens(
    server: OAuthServer, sign_in: SignIn, way: str
):
    """A registered client's user is refused as at the sign-in page, and whether the password is right is not told."""
    name = person(server)

    right = sign_in(way, name, PASSWORD, scheme="http")
    wrong = sign_in(way, name, "wrong", scheme="http")

    assert is_oauth_error(right, 400, "invalid_request")
    assert "TLS" in right.json["error_description"]
    assert wrong.json == right.json
    assert sign_in(way, name, PASSWORD).status == 200


def test_rfc6749_s10_3_password_to_another_name_than_this_machines_needs_tls(
    server: OAuthServer, agent: Client
):
    """Without a proxy, the name in the Host header tells that others may have heard it (DNS rebinding)."""
    name = person(server)
    form = {"grant_type": "password", "username": name, "password": PASSWORD, **agent.form}

    request = post_bytes(TOKEN, urlencode(form).encode(), content_type=FORM)

    other = exchange(server.port, request.replace(b"host: 127.0.0.1", b"host: models.example"))

    assert is_oauth_error(other, 400, "invalid_request")
    assert server.form(TOKEN, form).status == 200


def test_rfc9700_s2_2_2_changed_password_ends_what_the_old_one_gave(server: OAuthServer, agent: Client):
    """Refresh tokens and access tokens of every client, at once; those of others stay."""
    name, other = person(server), person(server)
    given = [server.sign_in(name, client) for client in (agent, None)]
    others = server.sign_in(other, agent)
    assert [server.call(each["access_token"]).status for each in (*given, others)] == [200] * 3

    changed = server.cli("users", "set-password", name, "--password-stdin", stdin=f"{OTHER}\n")
    assert changed.returncode == 0, changed.stderr

    assert [server.call(each["access_token"]).status for each in (*given, others)] == [401, 401, 200]
    for tokens, client in zip(given, (agent, None), strict=True):
        assert is_oauth_error(server.refresh(tokens["refresh_token"], client), 400, "invalid_grant")
    assert server.refresh(others["refresh_token"], agent).status == 200


def test_rfc9700_s2_4_password_from_elsewhere_needs_a_registered_client(server: OAuthServer, agent: Client):
    """By default the grant is for this machine, and for clients that an administrator has allowed it."""
    name = person(server)
    form = {"grant_type": "password", "username": name, "password": PASSWORD}

    proxied = (
        "x-forwarded-for: 203.0.113.7", "x-real-ip: 203.0.113.7", "x-forwarded-host: models.example",
        "x-forwarded-proto: https", "forwarded: for=203.0.113.7", "via: 1.1 proxy", "cf-connecting-ip: 203.0.113.7",
        "true-client-ip: 203.0.113.7",
    )  # fmt: skip
    for header in proxied:
        assert is_oauth_error(server.form(TOKEN, form, headers=(header,)), 400, "unauthorized_client"), header
    alone = server.form(TOKEN, form, headers=ELSEWHERE)
    other = server.form(TOKEN, form | server.make_client("other").form, headers=ELSEWHERE)
    allowed = server.form(TOKEN, form | agent.form, headers=ELSEWHERE)

    assert is_oauth_error(alone, 400, "unauthorized_client")
    assert is_oauth_error(other, 400, "unauthorized_client")
    assert allowed.status == 200


def test_rfc9700_s2_4_grant_that_is_off_is_refused_here_as_well(tmp_path):
    """`oauth.password_grant = "off"` closes it on this machine, too."""
    config = '[oauth]\npassword_grant = "off"\n'
    server = OAuthServer(tmp_path / "off", people={}, config=config).start()
    try:
        form = {"grant_type": "password", "username": person(server), "password": PASSWORD}

        assert is_oauth_error(server.form(TOKEN, form), 400, "unauthorized_client")
    finally:
        server.stop()
