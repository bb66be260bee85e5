"""From where a request comes."""

import os

import pytest

from lingpai.web.origin import Origin, command_origin, origin_of


def scope(**fields):
    return {"type": "http", "headers": [], "client": ("203.0.113.7", 4711), **fields}


def test_a_request_from_the_network_has_an_address():
    found = origin_of(scope(headers=[(b"host", b"x"), (b"user-agent", b"curl/8")]))

    assert found == Origin(kind="network", address="203.0.113.7", user_agent="curl/8")


def test_a_request_through_the_admin_socket_has_none():
    assert origin_of(scope(state={"is_local": True}, client=None)) == Origin(kind="socket")


def test_a_caller_without_an_address_is_from_the_network_all_the_same():
    assert origin_of(scope(client=None)) == Origin(kind="network")


@pytest.mark.parametrize("value", [b"\xff\x00\r\n", b"x" * 10_000, b""])
def test_any_user_agent_is_text_of_bounded_length(value):
    found = origin_of(scope(headers=[(b"user-agent", value)]))

    assert found.user_agent == value.decode("latin-1")[:200]


def test_a_command_is_run_by_whoever_runs_it(monkeypatch):
    monkeypatch.setattr("getpass.getuser", lambda: "ops")
    assert command_origin() == Origin(kind="command", user="ops")


def test_somebody_without_a_name_is_told_by_number(monkeypatch):
    def fail():
        raise KeyError

    monkeypatch.setattr("getpass.getuser", fail)

    assert command_origin().user == str(os.getuid())
