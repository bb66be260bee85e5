"""Addresses as people paste them."""

import pytest

from lingpai.client import AddressError, is_local, normalize_server


@pytest.mark.parametrize(
    ("pasted", "server"),
    [
        ("https://models.example", "https://models.example"),
        ("https://models.example/", "https://models.example"),
        ("https://models.example/v1", "https://models.example"),
        ("https://models.example/v1/", "https://models.example"),
        ("https://models.example/v1/v1", "https://models.example"),
        ("https://models.example/v1/chat/completions", "https://models.example"),
        ("https://models.example/v1/chat/completions#", "https://models.example"),
        ("https://models.example/api/v1/models/a/b/inference?x=1", "https://models.example"),
        ("https://models.example/console/keys", "https://models.example"),
        ("https://models.example/gateway/v1", "https://models.example/gateway"),
        ("https://models.example/v1beta", "https://models.example/v1beta"),
        ("  'http://127.0.0.1:8741/v1'\n", "http://127.0.0.1:8741"),
        ("HTTP://localhost:8741", "http://localhost:8741"),
        ("localhost:8741/v1", "http://localhost:8741"),
        ("127.0.0.1:8741", "http://127.0.0.1:8741"),
        ("[::1]:8741", "http://[::1]:8741"),
        ("models.example", "https://models.example"),
        ("models.example:8443/v1", "https://models.example:8443"),
        ("10.0.0.5:8741", "https://10.0.0.5:8741"),
    ],
)
def test_everything_that_means_the_same_server(pasted, server):
    assert normalize_server(pasted) == server


@pytest.mark.parametrize(
    "pasted",
    [
        "",
        " ",
        "http://",
        "ftp://h",
        "http://h:port",
        "http://h:99999",
        "http://[::1",
        "two words",
        "/v1",
        "http:// h",
    ],
)
def test_what_is_no_address(pasted):
    with pytest.raises(AddressError):
        normalize_server(pasted)


def test_a_password_in_the_address_is_refused_and_not_repeated():
    with pytest.raises(AddressError) as caught:
        normalize_server("https://me:secret@models.example")

    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("server", "local"),
    [
        ("http://localhost:1", True),
        ("http://127.0.0.2", True),
        ("http://[::1]:8741", True),
        ("http://127.example", False),
        ("http://localhost.example", False),
        ("https://10.0.0.5", False),
    ],
)
def test_what_is_this_machine(server, local):
    assert is_local(server) is local
