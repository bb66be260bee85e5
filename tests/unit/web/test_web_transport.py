"""How a request came is decided by its connection, and the Host header can only take trust away."""

import pytest
from starlette.requests import Request

from lingpai.web.transport import host_of, is_from_this_machine, transport_of

HERE, AWAY = ("127.0.0.1", 1), ("203.0.113.7", 1)


def request(
    scheme: str = "http", client: tuple[str, int] | None = HERE, *, is_local: bool = False, **headers: str
) -> Request:
    raw = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    state = {"is_local": True} if is_local else {}
    return Request(
        {"type": "http", "method": "GET", "scheme": scheme, "client": client, "headers": raw, "state": state}
    )


@pytest.mark.parametrize(
    ("host", "name"),
    [
        ("models.example", "models.example"),
        ("models.example:443", "models.example"),
        ("[::1]:8741", "::1"),
        ("[::1]", "::1"),
        ("127.0.0.1:8741", "127.0.0.1"),
        ("", ""),
        ("[", ""),
    ],
)
def test_host_without_port_and_brackets(host: str, name: str) -> None:
    assert host_of(request(host=host)) == name


def test_tls_is_known_by_the_scheme_of_the_connection_alone() -> None:
    assert transport_of(request("https", AWAY, host="models.example")) == "tls"
    assert transport_of(request("http", AWAY, host="models.example", x_forwarded_proto="https")) == "clear"
    assert transport_of(request("http", AWAY, host="https://models.example/?")) == "clear"


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1:8741", "127.8.9.1", "[::1]:8741"])
@pytest.mark.parametrize("client", [HERE, ("::1", 1), ("::ffff:127.0.0.1", 1)])
def test_loopback_needs_both_ends(host: str, client: tuple[str, int]) -> None:
    assert transport_of(request(client=client, host=host)) == "loopback"
    assert transport_of(request(client=AWAY, host=host)) == "clear"
    assert transport_of(request(client=client, host="models.example")) == "clear"


@pytest.mark.parametrize("header", ["forwarded", "x_forwarded_for", "via"])
def test_who_comes_through_a_proxy_here_is_not_from_here(header: str) -> None:
    assert not is_from_this_machine(request(host="localhost", **{header: "x"}))


def test_admin_socket_is_this_machine_whatever_the_headers_say() -> None:
    assert transport_of(request(client=None, is_local=True, host="anything", via="x")) == "loopback"


@pytest.mark.parametrize(
    "host", ["localhost.evil.example", "127.0.0.1.evil.example", "0.0.0.0", "x@127.0.0.1", "localhost#"]
)
def test_names_that_look_like_loopback_are_none(host: str) -> None:
    assert transport_of(request(host=host)) == "clear"
