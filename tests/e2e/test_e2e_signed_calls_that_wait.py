"""Signed calls between their head and their admission: what changes meanwhile counts, and no nonce is used up twice."""

import json
import threading
import time

import pytest

from tests.e2e.raw_http import RawConnection, chat, exchange
from tests.e2e.signed_caller import SignedCaller, refusal

BODY = json.dumps(chat("Hello", model="lingpai/eliza")).encode()
INVALID = 401, "signature_invalid"


@pytest.fixture
def caller(demo, key_name):
    return SignedCaller(demo, key_name)


@pytest.fixture(params=["from memory", "from the database"])
def half_sent(caller, request):
    """A connection on which all but the end of a signed call was sent, and its end."""
    if request.param == "from memory":
        assert caller.send(BODY).status == 200
    raw = caller.request(BODY)
    with RawConnection(caller.server.port) as connection:
        connection.send(raw[:-5])
        time.sleep(0.3)
        yield connection, raw[-5:]


def test_a_signing_key_that_is_deleted_while_the_body_comes_signs_nothing(caller, half_sent):
    connection, end = half_sent

    caller.server.admin("DELETE", f"{caller.path}/{caller.signing_key_id}")
    connection.send(end)

    assert refusal(connection.read_answer()) == (*INVALID, "keyid")


def test_a_key_that_is_disabled_while_the_body_comes_is_refused(caller, half_sent):
    connection, end = half_sent

    caller.server.admin("PATCH", f"/api/v1/keys/{caller.key_id}", {"disabled": True})
    connection.send(end)

    assert connection.read_answer().error["code"] == "key_disabled"


def test_another_change_while_the_body_comes_costs_the_call_nothing(caller, half_sent):
    connection, end = half_sent

    caller.server.admin("PATCH", f"/api/v1/keys/{caller.key_id}", {"name": f"renamed {caller.key_id}"})
    caller.server.make_key(f"another key beside {caller.key_id}")
    connection.send(end)

    assert connection.read_answer().status == 200


def test_a_call_that_waits_for_its_limit_keeps_its_nonce_when_all_is_asked_anew(demo, key_name):
    caller = SignedCaller(demo, key_name, limits=["1/3s wait 20s"])
    assert caller.send(BODY).status == 200
    request = caller.request(BODY)
    answers = []

    def wait():
        answers.append(exchange(demo.port, request, timeout=30))

    waiting = threading.Thread(target=wait)
    waiting.start()
    time.sleep(0.5)
    demo.admin("PATCH", f"/api/v1/keys/{caller.key_id}", {"name": f"renamed {caller.key_id}"})
    waiting.join(30)

    assert answers[0].status == 200, answers[0].body
    assert refusal(exchange(demo.port, request)) == (*INVALID, "nonce")


def test_a_signing_key_that_is_deleted_while_its_call_waits_signs_nothing(demo, key_name):
    caller = SignedCaller(demo, key_name, limits=["1/3s wait 20s"])
    assert caller.send(BODY).status == 200
    answers = []

    def wait():
        answers.append(exchange(demo.port, caller.request(BODY), timeout=30))

    waiting = threading.Thread(target=wait)
    waiting.start()
    time.sleep(0.5)
    demo.admin("DELETE", f"{caller.path}/{caller.signing_key_id}")
    waiting.join(30)

    assert refusal(answers[0]) == (*INVALID, "keyid")


def test_a_caller_who_leaves_in_the_middle_uses_no_nonce_up(caller):
    raw = caller.request(BODY)
    with RawConnection(caller.server.port) as connection:
        connection.send(raw[:-5])
        time.sleep(0.1)

    assert exchange(caller.server.port, raw).status == 200


def test_rfc9530_s6_7_a_body_that_is_too_large_is_refused_before_it_is_read(relay, key_name):
    caller = SignedCaller(relay, key_name)
    head = caller.request(b"x" * 300_000).partition(b"\r\n\r\n")[0]
    with RawConnection(relay.port) as connection:
        connection.send(head + b"\r\n\r\n")
        answer = connection.read_answer()

    assert answer.status == 413
    assert relay.record_of(answer.headers["x-request-id"])["key_id"] == caller.key_id


def test_a_large_signed_body_is_compared_in_full(demo, caller):
    body = json.dumps(chat("Hello " * 100_000, model="lingpai/eliza")).encode()
    raw = caller.request(body)

    assert refusal(exchange(demo.port, raw[:-20] + b"x" + raw[-19:])) == (*INVALID, "content-digest")
    assert exchange(demo.port, raw, timeout=30).status == 200
