"""Heads that come long before their bodies: what counts is who may call what when the body is there."""

import json

import pytest

from tests.e2e.lingpai_server import LingpaiServer
from tests.e2e.raw_http import RawConnection, get, post_bytes

REQUEST = {"model": "fake/chat", "messages": [{"role": "user", "content": "late-canary-77ab02c1"}]}


@pytest.fixture
def late(relay: LingpaiServer, key_name: str):
    """A key, and two connections on which the head of a call with it has come."""
    key = relay.make_key(key_name)
    get(relay.port, "/v1/key", key=key)  # in memory from here on
    whole = post_bytes("/v1/chat/completions", REQUEST, key=key)
    head, body = whole[: whole.index(b"\r\n\r\n") + 4], json.dumps(REQUEST).encode()
    assert whole == head + body
    with RawConnection(relay.port) as one, RawConnection(relay.port) as two:
        for connection in (one, two):
            connection.send(head)
        get(relay.port, "/v1/key", key=key)  # the heads have been read, as they came before
        yield lambda: [_finish(connection, body) for connection in (one, two)]


def _finish(connection: RawConnection, body: bytes):
    connection.send(body)
    return connection.read_answer()


def test_key_that_is_disabled_meanwhile(relay: LingpaiServer, key_name: str, late):
    relay.cli("keys", "disable", key_name)

    answers = late()

    assert [(answer.status, answer.error["code"]) for answer in answers] == [(401, "key_disabled")] * 2


def test_key_that_is_deleted_meanwhile(relay: LingpaiServer, key_name: str, late):
    relay.cli("keys", "delete", key_name, "--yes")

    answers = late()

    assert [(answer.status, answer.error["code"]) for answer in answers] == [(401, "invalid_api_key")] * 2


def test_key_that_may_call_once_a_month_from_now_on(relay: LingpaiServer, key_name: str, late):
    relay.admin("PATCH", f"/api/v1/keys/{key_name}", {"limits": ["1/month"]})

    answers = late()

    assert [answer.status for answer in answers] == [200, 429]
