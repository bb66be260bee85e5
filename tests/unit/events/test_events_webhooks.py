"""Webhooks over real sockets: signed, tried again, over restarts too, and no receiver holds up another."""

import asyncio
import base64
import hashlib
import hmac
import json
import logging
import sqlite3

import pytest
from event_fakes import BREAK_OFF, FLOOD, HANG, KEY, NOW, SECRET

from lingpai.events import webhooks as webhooks_module
from lingpai.events.webhooks import CONCURRENCY, RETRY_DELAYS_S
from lingpai.jobs.runner import JobRunner
from lingpai.principal import Principal

ADMIN = Principal("usr_admin", "admin", "admin")


def is_genuine(received, key=KEY):
    """What a receiver does, from the specification's text alone: HMAC-SHA256 over id.timestamp.payload, in base64."""
    headers = received.headers
    signed = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + received.body
    expected = base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest())
    given = [part.split(",", 1) for part in headers["webhook-signature"].split(" ")]
    return any(version == "v1" and hmac.compare_digest(sign.encode(), expected) for version, sign in given)


def run(test):
    async def bounded():
        async with asyncio.timeout(20):
            return await test()

    return asyncio.run(bounded())


def deliveries(post):
    return [delivery for event in post.events.list(ADMIN) for delivery in event.deliveries]


def test_event_arrives_signed_and_is_noted_as_delivered(start, receiver, clock):
    hook = receiver(204)
    post = start(hook)

    async def test():
        await post.happen("Backend b1 is down.")
        await post.round()

    run(test)

    (received,) = hook.received
    assert received.path == "/hook?token=part-of-the-address"
    assert is_genuine(received)
    assert not is_genuine(received, b"another key" * 3)
    assert received.headers["webhook-timestamp"] == str(int(NOW))
    assert received.headers["webhook-id"] == post.events.list(ADMIN)[0].id
    assert received.headers["content-type"] == "application/json"
    assert json.loads(received.body) == {
        "type": "backend.down",
        "timestamp": "2026-11-18T11:06:40Z",
        "data": {"message": "Backend b1 is down.", "backend": "b1"},
    }
    (delivery,) = deliveries(post)
    assert (delivery.state, delivery.attempts, delivery.last_status) == ("delivered", 1, 204)


def test_delivered_event_is_not_sent_again(start, receiver, clock):
    hook = receiver()
    post = start(hook)

    async def test():
        await post.happen()
        for _ in range(3):
            await post.round()
            clock.now += 86_400
            post.webhooks.wake()

    run(test)

    assert len(hook.received) == 1


@pytest.mark.parametrize(
    ("behaviour", "status", "error"),
    [
        (500, 500, "status 500"),
        (404, 404, "status 404"),
        (BREAK_OFF, None, "RemoteProtocolError"),
        (HANG, None, "no answer within 1 s"),
    ],
)
def test_failure_is_tried_again_later_with_the_same_id_and_a_new_timestamp(
    *, start, receiver, clock, behaviour, status, error
):
    hook = receiver(behaviour, 200)
    post = start(hook)

    async def test():
        await post.happen()
        await post.round()
        (failed,) = deliveries(post)
        await post.round()  # too early
        assert len(hook.received) == 1
        clock.now += 6
        await post.round()
        return failed

    failed = run(test)

    assert (failed.state, failed.attempts, failed.last_status) == ("waiting", 1, status)
    assert error in failed.last_error
    assert NOW + 5 <= failed.next_at <= NOW + 5.5
    first, second = hook.received
    assert first.headers["webhook-id"] == second.headers["webhook-id"]
    assert first.body == second.body
    assert int(second.headers["webhook-timestamp"]) == int(NOW) + 6
    assert is_genuine(second)
    assert deliveries(post)[0].state == "delivered"


def test_owasp_api7_a_redirect_is_a_failure_and_not_followed(start, receiver):
    elsewhere = receiver()
    hook = receiver((307, {"location": elsewhere.url}))
    post = start(hook)

    async def test():
        await post.happen()
        await post.round()

    run(test)

    assert elsewhere.received == []
    assert deliveries(post)[0].last_status == 307


def test_nobody_there_is_a_failure(start, receiver):
    hook = receiver()
    post = start(hook)
    hook.close()

    async def test():
        await post.happen()
        await post.round()

    run(test)

    assert (deliveries(post)[0].state, deliveries(post)[0].last_error) == ("waiting", "cannot connect")


def test_delays_grow_until_the_event_is_given_up_which_is_shown_and_logged(start, receiver, clock, caplog):
    hook = receiver(500)
    post = start(hook)
    delays = []

    async def test():
        await post.happen()
        await post.round()
        while (next_at := deliveries(post)[0].next_at) is not None:
            delays.append(next_at - clock.now)
            clock.now = next_at
            await post.round()

    run(test)

    assert len(hook.received) == len(RETRY_DELAYS_S) + 1
    assert all(least <= delay <= least * 1.1 for delay, least in zip(delays, RETRY_DELAYS_S, strict=True))
    assert delays == sorted(delays)
    (delivery,) = deliveries(post)
    assert (delivery.state, delivery.attempts, delivery.last_status) == ("given_up", 10, 500)
    assert "is given up: status 500" in caplog.text


def test_receiver_that_asks_for_more_time_gets_it(start, receiver, clock):
    hook = receiver(
        (429, {"retry-after": "120"}), (503, {"retry-after": "Fri, 20 Nov 2026 08:00:00 GMT"}), 200
    )
    post = start(hook)

    async def test():
        await post.happen()
        await post.round()
        first = deliveries(post)[0].next_at
        clock.now = first
        await post.round()
        return first

    assert run(test) == NOW + 120
    assert deliveries(post)[0].next_at >= clock.now + 300


def test_what_waits_survives_a_restart(start, receiver, clock):
    hook = receiver(500, 200)

    async def first_start():
        post = start(hook)
        await post.happen()
        await post.round()

    async def next_start():
        post = start(hook)
        await post.webhooks.give_up_removed()
        await post.round()
        assert len(hook.received) == 1
        clock.now += 60
        await post.round()
        return post

    run(first_start)
    post = run(next_start)

    assert [received.headers["webhook-id"] for received in hook.received] == [
        post.events.list(ADMIN)[0].id
    ] * 2
    assert (deliveries(post)[0].state, deliveries(post)[0].attempts) == ("delivered", 2)


def test_receiver_that_is_gone_gets_nothing_more_until_the_next_start(start, receiver, clock, caplog):
    hook = receiver(410, 200)
    post = start(hook)

    async def test():
        await post.happen("first")
        await post.round()
        for _ in range(3):
            await post.happen("later")
            await post.round()

    run(test)
    assert len(hook.received) == 1
    assert {delivery.state for delivery in deliveries(post)} == {"given_up"}
    assert caplog.text.count("410 (gone)") == 1

    async def next_start():
        again = start(hook)
        await again.happen("after the restart")
        await again.round()

    run(next_start)
    assert json.loads(hook.received[-1].body)["data"]["message"] == "after the restart"


def test_webhook_that_left_the_settings_gets_nothing_and_its_events_are_given_up(start, receiver):
    left, stays = receiver(500), receiver(500)
    run(lambda: _happen_and_round(start(left, stays)))
    post = start(stays)

    run(post.webhooks.give_up_removed)

    states = {delivery.webhook: (delivery.state, delivery.last_error) for delivery in deliveries(post)}
    (name,) = [courier.endpoint.name for courier in post.webhooks.couriers]
    assert states.pop(name) == ("waiting", "status 500")
    assert list(states.values()) == [("given_up", "no longer in the settings")]


async def _happen_and_round(post):
    await post.happen()
    await post.round()


def test_only_the_types_that_were_asked_for_are_sent(start, receiver):
    hook = receiver()
    post = start(hook, types=("journal.damaged",))

    async def test():
        await post.happen("not wanted")
        post.events.emit("journal.damaged", "wanted", data={})
        await post.events.flush()
        await post.round()

    run(test)

    assert [json.loads(received.body)["type"] for received in hook.received] == ["journal.damaged"]


def test_receiver_that_hangs_holds_up_no_other_and_gets_a_few_at_a_time(start, receiver):
    """Both run as the server runs them: a job each."""
    slow, quick = receiver(HANG), receiver()
    post = start(slow, quick)

    async def test():
        jobs = JobRunner()
        for courier in post.webhooks.couriers:
            jobs.every(0.01, "deliver", courier.deliver_due)
        for number in range(20):
            post.events.emit("backend.down", str(number), data={})
        await post.events.flush()
        while len(quick.received) < 20:
            await asyncio.sleep(0.01)
        slow_ones = len(slow.received)
        await jobs.stop()
        return slow_ones

    slow_ones = run(test)

    # Twenty attempts at a slow one take five time-outs; the quick one was through before.
    assert slow_ones < 20
    assert slow.most_at_once <= CONCURRENCY
    assert quick.most_at_once <= CONCURRENCY


def test_owasp_api10_an_answer_without_end_is_not_read(start, receiver):
    hook = receiver(FLOOD)
    post = start(hook)

    async def test():
        await post.happen()
        await post.round()

    run(test)

    assert deliveries(post)[0].state == "delivered"
    assert hook.flooded < 50_000_000  # what the sockets buffer, and not what a reader would take


def test_neither_log_nor_database_nor_error_shows_secret_address_or_answer(start, receiver, database, caplog):
    hook = receiver(500, 410)
    post = start(hook)

    async def test():
        await post.happen()
        with caplog.at_level(logging.DEBUG):
            await post.round()
            post.webhooks.wake()
            await post.webhooks.try_out()

    run(test)

    with sqlite3.connect(database.path) as connection:
        stored = "\n".join(connection.iterdump())
    connection.close()
    # The HTTP client names addresses on its own logger, at a level that telemetry.logs keeps silent.
    logged = "\n".join(record.getMessage() for record in caplog.records if record.name.startswith("lingpai"))
    for secret in (SECRET, SECRET.removeprefix("whsec_"), "part-of-the-address", "words of the receiver"):
        assert secret not in logged
        assert secret not in stored


def test_attempt_that_could_not_be_noted_is_made_again_with_the_same_id(
    start, receiver, store, clock, monkeypatch
):
    """At least once: the database was away when the answer came."""
    from sqlalchemy.exc import OperationalError

    hook = receiver()
    post = start(hook)
    note = store.note

    def away(webhook, attempts):
        raise OperationalError("UPDATE", {}, Exception("database is locked"))

    async def test():
        await post.happen()
        monkeypatch.setattr(store, "note", away)
        await post.round()
        monkeypatch.setattr(store, "note", note)
        clock.now += webhooks_module._PAUSE_S
        await post.round()

    run(test)

    assert len({received.headers["webhook-id"] for received in hook.received}) == 1
    assert len(hook.received) == 2
    assert deliveries(post)[0].state == "delivered"


def test_round_that_fails_unexpectedly_is_followed_by_others(start, receiver, store, clock, monkeypatch):
    hook = receiver()
    post = start(hook)
    note = store.note

    def broken(webhook, attempts):
        raise RuntimeError("a mistake of ours")

    async def test():
        await post.happen()
        monkeypatch.setattr(store, "note", broken)
        with pytest.raises(RuntimeError):
            await post.round()
        monkeypatch.setattr(store, "note", note)
        clock.now += webhooks_module._PAUSE_S
        await post.round()

    run(test)

    assert deliveries(post)[0].state == "delivered"


def test_idle_courier_asks_the_database_nothing(start, receiver, store, monkeypatch):
    post = start(receiver())
    run(post.round)
    monkeypatch.setattr(store, "due", None)  # would raise when called

    run(post.round)


def test_without_webhooks_there_is_no_client(store):
    """It takes time and memory that few servers need."""
    made = []

    webhooks = webhooks_module.Webhooks((), store, make_client=lambda: made.append("a client"))
    run(webhooks.close)

    assert (made, webhooks.couriers) == ([], ())


def test_trying_out_sends_a_signed_test_to_every_webhook_and_stores_nothing(start, receiver):
    good, bad = receiver(200), receiver(403)
    post = start(good, bad)

    trials = run(post.webhooks.try_out)

    assert [(trial.answer.status, trial.answer.is_success) for trial in trials] == [(200, True), (403, False)]
    assert is_genuine(good.received[0])
    assert json.loads(good.received[0].body)["type"] == "webhook.test"
    assert post.events.list(ADMIN) == []
