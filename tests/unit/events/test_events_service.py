"""Events: stored in order, once where once is meant, kept while the database is away, shown to whom they concern."""

import asyncio
import sqlite3
import threading
from dataclasses import replace

import pytest
from event_fakes import NOW

from lingpai.events import service
from lingpai.events.interfaces import EVENT_TYPES
from lingpai.events.service import Events
from lingpai.principal import Principal
from lingpai.storage import database as database_module

ADMIN = Principal("usr_admin", "admin", "admin")
BOB = Principal("usr_bob", "bob", "member")
EVE = Principal("usr_eve", "eve", "member")
DAY = (1_794_960_000.0, 1_795_046_400.0)


@pytest.fixture
def events(store, owners, clock):
    return Events(store, owners=owners, recipients={}, clock=clock)


def flush(events):
    asyncio.run(events.flush())


def threshold(
    events, subject=("key", "k1"), *, percent=80, limit="10/day", window=DAY, unit="requests", **amounts
):
    events.emit_threshold(
        subject,
        label="key `ci`",
        limit=limit,
        unit=unit,
        percent=percent,
        used=amounts.get("used", 8),
        amount=amounts.get("amount", 10),
        window=window,
        now=NOW,
    )


def test_event_is_stored_with_everything_about_it(events):
    events.emit("backend.down", "Backend b1 does not answer.", data={"backend": "b1"})
    flush(events)

    (found,) = events.list(ADMIN)

    assert (found.type, found.occurred_at, found.message) == (
        "backend.down",
        NOW,
        "Backend b1 does not answer.",
    )
    assert (found.data, found.subject, found.user_id) == ({"backend": "b1"}, None, None)
    assert found.id.startswith("evt_")
    assert "." not in found.id  # it is signed with full stops around it


def test_threshold_says_whose_limit_how_much_and_until_when(events):
    threshold(events)
    flush(events)

    (found,) = events.list(ADMIN)

    assert found.subject == ("key", "k1")
    assert found.data == {
        "label": "key `ci`", "limit": "10/day", "unit": "requests", "percent": 80, "used": 8, "amount": 10,
        "window_start": "2026-11-18T00:00:00Z", "window_end": "2026-11-19T00:00:00Z",
    }  # fmt: skip
    assert found.message == (
        "80 % of the limit 10/day of key `ci` is used: 8 of 10. It starts anew at 2026-11-19T00:00:00Z."
    )


def test_money_is_decimal_text(events):
    threshold(events, unit="USD", limit="5 USD/month", used=4_000_000_001, amount=5_000_000_000)
    flush(events)

    assert (events.list(ADMIN)[0].data["used"], events.list(ADMIN)[0].data["amount"]) == ("4.000000001", "5")


def test_threshold_is_told_once_for_subject_limit_window_and_percentage(events, store, owners, clock):
    for _ in range(3):
        threshold(events)
    flush(events)
    after_a_restart = Events(store, owners=owners, recipients={}, clock=clock)
    threshold(after_a_restart)
    flush(after_a_restart)
    assert len(events.list(ADMIN)) == 1

    threshold(events, percent=100)
    threshold(events, limit="20/day")
    threshold(events, window=(DAY[1], DAY[1] + 86_400))
    threshold(events, subject=("key", "k2"))
    threshold(events, subject=("user", "k1"))
    flush(events)

    assert len(events.list(ADMIN)) == 6


def test_what_may_happen_again_is_stored_again(events):
    for _ in range(3):
        events.emit("backend.down", "Down.", data={})
    flush(events)

    assert len(events.list(ADMIN)) == 3


def test_members_see_what_is_about_theirs_and_administrators_all(events):
    threshold(events)
    threshold(events, subject=("model", "acme/x"))
    events.emit("journal.damaged", "Damaged.", data={})
    flush(events)

    assert [event.subject for event in events.list(BOB)] == [("key", "k1")]
    assert events.list(EVE) == []
    assert len(events.list(ADMIN)) == 3


def test_events_of_a_project_are_for_those_with_a_role_in_it_now(events, owners):
    """Whoever owned it when they happened included: a role that has ended shows nothing more."""
    owners["project", "p1"] = "usr_bob"
    threshold(events, subject=("project", "p1"))
    flush(events)
    assert events.list(BOB) == []

    owners.roles = {"usr_bob": ["p1", "p2"]}

    assert [event.subject for event in events.list(BOB)] == [("project", "p1")]
    assert events.list(EVE) == []


def test_lists_are_filtered_and_go_on_where_the_last_page_ended(events, clock):
    for number in range(5):
        clock.now = NOW + number // 2  # some happen at the same instant
        events.emit(EVENT_TYPES[number % 2], str(number), data={})
    flush(events)

    seen = events.list(ADMIN, limit=2)
    while page := events.list(ADMIN, before=(seen[-1].occurred_at, seen[-1].id), limit=2):
        seen += page

    assert sorted(event.message for event in seen) == list("01234")
    assert [event.occurred_at for event in seen] == sorted(
        (event.occurred_at for event in seen), reverse=True
    )
    assert {event.message for event in events.list(ADMIN, type_=EVENT_TYPES[1])} == {"1", "3"}
    assert {event.message for event in events.list(ADMIN, since=NOW + 1)} == {"2", "3", "4"}


def test_emitting_does_not_wait_for_a_locked_database_and_nothing_is_lost(
    events, database, monkeypatch, caplog
):
    monkeypatch.setattr(database_module, "BUSY_TIMEOUT_S", 0.01)
    short = database_module.Database(f"sqlite:///{database.path}")
    events._store._database = short
    blocker = sqlite3.connect(database.path, isolation_level=None)
    blocker.execute("BEGIN IMMEDIATE")

    for number in range(3):
        events.emit("backend.down", str(number), data={})
    flush(events)
    assert events.list(ADMIN) == []
    blocker.execute("ROLLBACK")
    flush(events)

    assert sorted(event.message for event in events.list(ADMIN)) == ["0", "1", "2"]
    assert "3 events wait in memory" in caplog.text
    blocker.close()
    short.close()


def test_memory_of_events_is_bounded_and_the_log_says_what_was_dropped(events, monkeypatch, caplog):
    monkeypatch.setattr(service, "MOST_PENDING", 5)

    for number in range(8):
        events.emit("backend.down", str(number), data={})
    flush(events)

    assert len(events.list(ADMIN)) == 5
    assert "3 events were dropped" in caplog.text


def test_more_than_one_batch_is_stored(events):
    for number in range(1_203):
        events.emit("limit.threshold", str(number), data={}, subject=("key", str(number)), once=str(number))
    flush(events)

    seen = []
    while page := events.list(ADMIN, before=(seen[-1].occurred_at, seen[-1].id) if seen else None, limit=200):
        seen += page
    assert len({event.message for event in seen}) == 1_203


def test_flush_that_is_cancelled_stores_every_event_exactly_once(events, store, monkeypatch):
    """Cancelled while a thread writes, only the thread knows whether the batch arrived."""
    has_begun, may_go_on = threading.Event(), threading.Event()
    add = store.add

    def slowly(rows, recipients):
        has_begun.set()
        may_go_on.wait(10)
        return add(rows, recipients)

    async def test():
        events.emit("backend.down", "Down.", data={})
        monkeypatch.setattr(store, "add", slowly)
        flushing = asyncio.create_task(events.flush())
        await asyncio.to_thread(has_begun.wait, 10)
        flushing.cancel()
        asyncio.get_running_loop().call_later(0.02, may_go_on.set)
        with pytest.raises(asyncio.CancelledError):
            await flushing
        monkeypatch.setattr(store, "add", add)
        await events.flush()

    asyncio.run(test())

    assert len(events.list(ADMIN)) == 1


def test_old_events_are_removed_with_their_deliveries(store, owners, clock):
    events = Events(store, owners=owners, recipients={"backend.down": ("hook",)}, clock=clock)
    events.emit("backend.down", "old", data={})
    flush(events)
    clock.now += 91 * 86_400
    events.emit("backend.down", "new", data={})
    flush(events)

    asyncio.run(events.remove_old(90))

    assert [event.message for event in events.list(ADMIN)] == ["new"]
    assert len(store.due("hook", now=clock.now, limit=10)) == 1


def test_error_that_is_not_the_databases_absence_is_logged_by_its_job(events):
    """Data that JSON cannot hold is a mistake of ours; it must not stop the events after it for ever."""
    events.emit("backend.down", "bad", data={"bad": object()})
    with pytest.raises(Exception, match="JSON"):
        flush(events)
    events.emit("backend.down", "good", data={})
    flush(events)

    assert [event.message for event in events.list(ADMIN)] == ["good"]


def test_role_and_not_the_name_decides_what_is_seen(events):
    threshold(events, subject=("model", "acme/x"))
    flush(events)

    assert events.list(replace(ADMIN, role="member")) == []
