"""Cookies and the defence against pages of others: OWASP ASVS 5.0, sections 3.3 and 3.5."""

from http.cookies import SimpleCookie
from typing import Any

import pytest
from starlette.requests import Request
from starlette.responses import Response

from lingpai.errors import LingpaiError
from lingpai.identity.sessions import cookies
from lingpai.ids import mint_credential

TOKEN = mint_credential("ss-lp-").token
HERE = ("127.0.0.1", 5000)
AWAY = ("203.0.113.7", 5000)


def request(
    method: str = "POST",
    *,
    scheme: str = "http",
    client: tuple[str, int] | None = HERE,
    host: str = "localhost:8741",
    state: dict[str, Any] | None = None,
    **headers: str,
) -> Request:
    sent = {"host": host, **{name.replace("_", "-"): value for name, value in headers.items()}}
    raw = [(name.encode(), value.encode()) for name, value in sent.items()]
    return Request(
        {
            "type": "http",
            "method": method,
            "scheme": scheme,
            "client": client,
            "headers": raw,
            "state": state or {},
        }
    )


def tls(method: str = "POST", **headers: str) -> Request:
    return request(method, scheme="https", client=AWAY, host="models.example", **headers)


def code_of(check: Any, *arguments: Any) -> str | None:
    try:
        check(*arguments)
    except LingpaiError as error:
        return error.code
    return None


def test_asvs_3_3_1_cookie_over_tls_is_for_this_host_secure_and_out_of_reach_of_scripts() -> None:
    response = Response()
    cookies.set_cookies(tls(), response, token=TOKEN, device="1.d.p", max_age=60)

    session, device = response.headers.getlist("set-cookie")
    for header, name in ((session, "__Host-lingpai"), (device, "__Host-lingpai-device")):
        morsel = SimpleCookie(header)[name]
        assert morsel["secure"] is True
        assert morsel["httponly"] is True
        assert (morsel["samesite"], morsel["path"], morsel["domain"]) == ("strict", "/", "")
    assert SimpleCookie(session)["__Host-lingpai"].value == TOKEN


def test_cookie_in_clear_text_between_this_machine_and_itself_has_another_name_and_no_secure() -> None:
    response = Response()
    cookies.set_cookies(request(), response, token=TOKEN, device=None, max_age=60)

    (header,) = response.headers.getlist("set-cookie")
    morsel = SimpleCookie(header)["lingpai-session"]
    assert (morsel["secure"], morsel["httponly"], morsel["samesite"]) == ("", True, "strict")


@pytest.mark.parametrize(
    "elsewhere",
    [
        request(client=AWAY, host="203.0.113.1:8741"),
        request(client=HERE, host="models.example"),  # a name that was bent to this machine
        request(
            client=HERE, host="localhost", x_forwarded_for="203.0.113.7"
        ),  # a proxy that nobody has declared
        request(client=HERE, host="localhost", forwarded="for=203.0.113.7"),
        request(client=HERE, host="localhost.evil.example"),
        request(client=HERE, host=""),
        request(client=None, host="localhost"),
    ],
)
def test_nobody_signs_in_in_clear_text_from_elsewhere_and_no_cookie_counts_there(elsewhere: Request) -> None:
    assert code_of(cookies.check_may_sign_in, elsewhere) == "tls_required"
    for name in ("lingpai-session", "__Host-lingpai"):
        headers = [*elsewhere.scope["headers"], (b"cookie", f"{name}={TOKEN}".encode())]
        assert cookies.session_cookie(Request({**elsewhere.scope, "headers": headers})) is None


@pytest.mark.parametrize("host", ["localhost", "localhost:8741", "127.0.0.1:8741", "[::1]:8741"])
def test_this_machine_is_known_by_both_ends(host: str) -> None:
    assert code_of(cookies.check_may_sign_in, request(host=host)) is None


def test_admin_socket_counts_as_this_machine() -> None:
    assert code_of(cookies.check_may_sign_in, request(client=None, state={"is_local": True})) is None


def test_cookie_counts_only_under_the_name_of_its_transport() -> None:
    assert cookies.session_cookie(tls(cookie=f"__Host-lingpai={TOKEN}")) == TOKEN.encode()
    assert cookies.session_cookie(tls(cookie=f"lingpai-session={TOKEN}")) is None
    assert cookies.session_cookie(request(cookie=f"lingpai-session={TOKEN}")) == TOKEN.encode()
    assert cookies.session_cookie(request(cookie=f"__Host-lingpai={TOKEN}")) is None


def test_two_session_cookies_are_ambiguous() -> None:
    """A neighbouring site can set one of its own beside ours."""
    twice = request(cookie=f"lingpai-session={TOKEN}; other=1; lingpai-session=ss-lp-x")

    assert code_of(cookies.session_cookie, twice) == "ambiguous_credentials"


@pytest.mark.parametrize("header", ["", ";;;", "=x", "lingpai-session", "lingpai-session=", "a=b=c", "\x7f"])
def test_cookies_of_others_are_none_of_ours(header: str) -> None:
    assert cookies.session_cookie(request(cookie=header)) is None


def ours(method: str = "POST", **headers: str) -> Request:
    return request(method, **{"x_lingpai_csrf": cookies.csrf_token(TOKEN.encode()), **headers})


@pytest.mark.parametrize("proof", [{"sec_fetch_site": "same-origin"}, {"origin": "http://localhost:8741"}])
def test_asvs_3_5_1_our_own_page_with_the_right_header_passes(proof: dict[str, str]) -> None:
    assert code_of(cookies.check_page, ours(**proof), TOKEN.encode()) is None


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "PROPFIND"])
@pytest.mark.parametrize(
    "proof",
    [
        {},
        {"sec_fetch_site": "cross-site"},
        {"sec_fetch_site": "same-site"},
        {"sec_fetch_site": "none"},
        {"sec_fetch_site": "cross-site", "origin": "http://localhost:8741"},
        {"origin": "null"},
        {"origin": ""},
        {"origin": "http://localhost:8742"},
        {"origin": "https://localhost:8741"},
        {"origin": "http://localhost:8741.evil.example"},
        {"referer": "http://localhost:8741/"},
    ],
)
def test_asvs_3_5_1_pages_of_others_change_nothing_even_with_the_right_header(
    method: str, proof: dict[str, str]
) -> None:
    assert code_of(cookies.check_page, ours(method, **proof), TOKEN.encode()) == "csrf_refused"


@pytest.mark.parametrize("value", ["", "1", "x" * 43, "é", cookies.csrf_token(b"another session")])
def test_asvs_3_5_1_our_own_page_needs_the_header_with_the_value_of_this_session(value: str) -> None:
    page = ours(sec_fetch_site="same-origin", x_lingpai_csrf=value)

    assert code_of(cookies.check_page, page, TOKEN.encode()) == "csrf_refused"


@pytest.mark.parametrize(
    ("headers", "code"),
    [
        ({}, None),
        ({"sec_fetch_site": "same-origin"}, None),
        ({"sec_fetch_site": "none"}, None),
        ({"sec_fetch_site": "same-site"}, "csrf_refused"),
        ({"sec_fetch_site": "cross-site"}, "csrf_refused"),
        ({"origin": "https://evil.example"}, "csrf_refused"),
    ],
)
def test_reading_needs_no_header_but_pages_of_others_read_nothing(
    headers: dict[str, str], code: str | None
) -> None:
    assert code_of(cookies.check_page, request("GET", **headers), TOKEN.encode()) == code


@pytest.mark.parametrize(
    "headers", [{"sec_fetch_site": "cross-site"}, {"origin": "https://evil.example"}, {"origin": "null"}]
)
def test_page_of_another_origin_signs_nobody_in(headers: dict[str, str]) -> None:
    """Else it would make its visitor work in an account of the attacker."""
    assert code_of(cookies.check_may_sign_in, request(**headers)) == "csrf_refused"


def test_csrf_token_is_bound_to_the_session_and_says_nothing_of_it() -> None:
    first, second = (
        cookies.csrf_token(TOKEN.encode()),
        cookies.csrf_token(mint_credential("ss-lp-").token.encode()),
    )

    assert first == cookies.csrf_token(TOKEN.encode()) != second
    assert len(first) == 43
    assert first not in TOKEN


def test_cleared_cookie_has_the_attributes_that_make_browsers_drop_it() -> None:
    header = cookies.cookie_that_clears(tls())["set-cookie"]

    morsel = SimpleCookie(header)["__Host-lingpai"]
    assert (morsel.value, morsel["max-age"], morsel["path"], morsel["secure"]) == ("", "0", "/", True)
