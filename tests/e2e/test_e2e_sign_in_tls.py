"""Signing in over TLS: the cookies that browsers keep to this host, and what they open."""

from collections.abc import Iterator
from http.cookies import Morsel, SimpleCookie

import httpx2
import pytest

from tests.certificates import Authority
from tests.e2e.lingpai_server import LingpaiServer
from tests.e2e.test_e2e_sign_in import PASSWORD, Browser, code_of, make_user

SESSION, DEVICE = "__Host-lingpai", "__Host-lingpai-device"


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, authority: Authority) -> Iterator[LingpaiServer]:
    """A server that speaks TLS."""
    certificate, key = authority.issue("secure")
    arguments = ("--tls-cert", str(certificate), "--tls-key", str(key))
    server = LingpaiServer(tmp_path_factory.mktemp("secure"), arguments=arguments).start()
    yield server
    server.stop()


@pytest.fixture
def browser(server: LingpaiServer, authority: Authority) -> Iterator[Browser]:
    """One that trusts the authority."""
    with Browser(server, verify=authority.client_context()) as browser:
        yield browser


@pytest.fixture
def user(server: LingpaiServer) -> str:
    return make_user(server)


def cookies_of(answer: httpx2.Response) -> dict[str, Morsel[str]]:
    """What an answer sets, by name."""
    return {
        name: morsel
        for header in answer.headers.get_list("set-cookie")
        for name, morsel in SimpleCookie(header).items()
    }


def test_cookies_over_tls_are_for_this_host_alone(user: str, browser: Browser) -> None:
    """RFC 6265bis, section 4.1.3.2: a browser takes `__Host-` with Secure, with `Path=/` and without Domain only."""
    answer = browser.sign_in(user)

    assert answer.status_code == 201
    cookies = cookies_of(answer)
    assert set(cookies) == {SESSION, DEVICE}
    for morsel in cookies.values():
        assert (morsel["secure"], morsel["httponly"]) == (True, True)
        assert (morsel["path"], morsel["domain"], morsel["samesite"].lower()) == ("/", "", "strict")
        assert int(morsel["max-age"]) > 0


def test_session_over_tls_works_until_it_is_ended(user: str, browser: Browser) -> None:
    """It reads, changes with its CSRF token and not without, and is taken from the browser by the rules of its name."""
    browser.sign_in(user)
    token = browser.client.cookies[SESSION]

    assert browser.is_signed_in
    made = browser.send("POST", "/api/v1/keys", {"name": "made-over-tls"})
    # The server may close behind a refusal whose body it has not read.
    forgery = {"x-lingpai-csrf": "x", "connection": "close"}
    forged = browser.send("POST", "/api/v1/keys", {"name": "never"}, **forgery)
    ended = browser.send("DELETE", "/api/v1/sessions/current")

    assert made.status_code == 201
    assert code_of(forged) == (403, "csrf_refused")
    assert ended.status_code == 204
    cleared = cookies_of(ended)[SESSION]
    assert (cleared.value, cleared["max-age"], cleared["secure"], cleared["path"]) == ("", "0", True, "/")
    assert not browser.is_signed_in
    browser.client.cookies.set(SESSION, token, domain="127.0.0.1")
    assert not browser.is_signed_in, "the session itself has ended, and not its cookie alone"


def test_cookie_without_the_prefix_opens_nothing_over_tls(user: str, browser: Browser) -> None:
    """A neighbouring site, or a page without TLS, can set one of any other name."""
    browser.sign_in(user)
    token = browser.client.cookies[SESSION]
    browser.client.cookies.clear()

    statuses = [
        browser.send("GET", "/api/v1/sessions/current", cookie=f"{name}={token}").status_code
        for name in (SESSION, "lingpai-session", "lingpai", SESSION.lower(), "__Secure-lingpai")
    ]

    assert statuses == [200, 401, 401, 401, 401]


def test_wrong_password_over_tls_sets_no_session(user: str, browser: Browser) -> None:
    answer = browser.sign_in(user, PASSWORD + "x")

    assert code_of(answer) == (401, "invalid_credentials")
    assert SESSION not in cookies_of(answer)
