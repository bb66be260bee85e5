"""The limits of a model, and of a user on it: found once per account, loaded when they must be, and never stale."""

import asyncio
import time

import pytest
from gateway_fakes import GOOD, FakeBackend, FakeFront, model, principal
from gateway_limits import chat, limit, turn, wait

from lingpai.errors import LingpaiError
from lingpai.quotas.loader import StaleLimitsError

MODEL = (("model", "acme/chat"), ("2/day",), "model `acme/chat`")
USER = (("user_model", "usr_1 acme/chat"), ("1/day",), "user `ada` on model `acme/chat`")
NOBODY = (("user_model", "usr_1 acme/chat"), (), "user `ada` on model `acme/chat`")


def go(stage):
    """Let a load in a thread come to its end."""
    wait(stage, 0.05)


def test_call_waits_for_the_limits_of_its_model_and_then_goes_on(limited):
    limited.book.entries = (MODEL,)

    call, front = chat(limited)
    assert (limited.link.sent, front.sent) == ([], b"")
    go(limited)

    assert len(limited.link.sent) == 1
    assert [meter.subject for meter in call.limits.meters] == [("model", "acme/chat")]


def test_limits_of_key_and_model_and_of_the_user_on_it_all_hold(limited, error_of):
    limit(limited, "5/day")
    limited.book.entries = (MODEL, USER)

    fronts = [chat(limited)[1] for _ in range(2)]
    go(limited)

    assert [front.head["status"] for front in fronts if front.sent] == ["429 Too Many Requests"]
    assert "user `ada` on model `acme/chat`" in error_of(fronts[1])["message"]


def test_limits_are_loaded_once_for_all_calls_and_then_known(limited):
    limited.book.entries = (MODEL,)
    loads = []
    load = limited.gateway.call_limits._load_meters

    async def counting(*args, **kwargs):
        loads.append(args[0])
        return await load(*args, **kwargs)

    limited.gateway.call_limits._load_meters = counting

    chat(limited)
    chat(limited)
    go(limited)
    chat(limited)

    assert loads == [("model", "acme/chat")]


def test_model_is_one_whatever_name_it_is_called_by(limited):
    limited.serve_only(model(aliases=("gpt-4",)))
    limited.book.entries = (MODEL,)

    chat(limited)
    go(limited)
    call, _ = chat(limited, model="gpt-4")

    assert len(limited.link.sent) == 2
    assert call.limits is call.account.accesses["acme/chat"].limits


def test_subject_without_limits_needs_no_loading_and_is_let_go_of(limited):
    """Meters of limits that were taken away must not come back without the calls made meanwhile."""
    limited.book.entries = (NOBODY,)

    chat(limited)

    assert len(limited.link.sent) == 1
    assert limited.let_go == [NOBODY[0]]


def test_change_of_limits_holds_from_the_next_call_on(limited):
    chat(limited)
    limited.book.entries = (USER,)
    limited.book.version += 1

    chat(limited)
    go(limited)
    _, front = chat(limited)

    assert len(limited.link.sent) == 2
    assert front.head["status"] == "429 Too Many Requests"


def test_change_while_limits_are_read_reads_them_again(limited):
    limited.book.entries = (MODEL,)
    load = limited.gateway.call_limits._load_meters
    asked = []

    async def overtaken(subject, limits, label, *, is_current):
        asked.append(limits)
        if len(asked) == 1:
            limited.book.entries = (USER,)
            limited.book.version += 1
            raise StaleLimitsError
        return await load(subject, limits, label, is_current=is_current)

    limited.gateway.call_limits._load_meters = overtaken

    chat(limited)
    go(limited)

    assert asked == [("2/day",), ("1/day",)]
    assert len(limited.link.sent) == 1


def test_key_that_is_revoked_while_limits_are_read_does_not_enter(limited):
    limited.book.entries = (MODEL,)

    _, front = chat(limited)
    limited.keys.revoke(b"sk-lp-known")
    go(limited)

    assert (limited.link.sent, front.head["status"]) == ([], "401 Unauthorized")


def test_key_that_expires_while_limits_are_read_does_not_enter(limited):
    limited.book.entries = (MODEL,)
    caller = principal()
    limited.allow(caller)

    _, front = chat(limited)
    caller.expires_at = time.time()
    go(limited)

    assert (limited.link.sent, front.head["status"]) == ([], "401 Unauthorized")


def test_limits_of_the_key_that_change_while_those_of_the_model_are_read_hold_the_call(limited):
    """The meters that the call came with are dropped: what they counted, nobody would hear of."""
    limited.book.entries = (MODEL,)
    limit(limited, "5/day")
    load = limited.gateway.call_limits._load_meters
    changes = [lambda: limit(limited, "9/day")]

    async def overtaken(*args, **kwargs):
        if changes:
            changes.pop()()
            limited.keys.generation += 1
            raise StaleLimitsError
        return await load(*args, **kwargs)

    limited.gateway.call_limits._load_meters = overtaken

    call, _ = chat(limited)
    go(limited)

    assert [str(meter.limit) for meter in call.limits.meters] == ["9/day", "2/day"]
    assert len(limited.link.sent) == 1


@pytest.mark.parametrize(
    "error", [LingpaiError("storage_unavailable", "The records are being loaded."), RuntimeError("broken")]
)
def test_limits_that_cannot_be_loaded_refuse_the_call_and_are_tried_again(limited, error_of, error):
    limited.book.entries = (MODEL,)
    load, failures = limited.gateway.call_limits._load_meters, [error]

    async def failing(*args, **kwargs):
        if failures:
            raise failures.pop()
        return await load(*args, **kwargs)

    limited.gateway.call_limits._load_meters = failing

    _, front = chat(limited)
    turn(limited)
    chat(limited)
    go(limited)

    assert error_of(front)["code"] == "storage_unavailable"
    assert "broken" not in error_of(front)["message"]
    assert len(limited.link.sent) == 1


def test_caller_who_leaves_while_limits_are_loaded_takes_nothing(limited):
    limited.book.entries = (MODEL,)
    call, front = chat(limited)

    front.call = None
    call.caller_left()
    go(limited)

    assert limited.link.sent == []
    assert limited.journal.records == []


def test_accounts_have_their_own(limited):
    """One user's limits on a model are not another's."""
    limited.allow(principal(user_id="usr_2", key_id="k2"), key=b"other")
    entries = {"usr_1": (USER,), "usr_2": ((("user_model", "usr_2 acme/chat"), ("9/day",), "x"),)}
    limited.book.for_call = lambda user_id, model_id, *, user_name: entries[user_id]

    mine, _ = chat(limited)
    other, _ = chat(limited, key=b"other")
    go(limited)

    assert [meter.amount for meter in mine.limits.meters] == [1]
    assert [meter.amount for meter in other.limits.meters] == [9]


def test_call_under_way_is_found_by_every_subject_it_counts_against(limited, answer):
    limit(limited, "1000 tokens/day", project_id="prj_1", client_id="cl_1")
    call, front = chat(limited)
    subjects = [
        ("key", "k1"), ("client", "cl_1"), ("user", "usr_1"), ("project", "prj_1"),
        ("model", "acme/chat"), ("user_model", "usr_1 acme/chat"),
    ]  # fmt: skip

    held = [limited.gateway.held_for(subject, [front.call, None]) for subject in subjects]
    other = limited.gateway.held_for(("key", "k2"), [front.call])
    answer(call, GOOD)
    after = limited.gateway.held_for(("key", "k1"), [call])

    assert [[each[:2] for each in calls] for calls in held] == [[(call.started_at, call.reserved)]] * len(
        subjects
    )
    assert (other, after) == ([], [])


def test_models_of_other_backends_keep_their_limits_apart(limited):
    limited.serve(model("acme/other", backend=FakeBackend("gpu-2")))
    limited.book.for_call = lambda user_id, model_id, *, user_name: (
        (("model", model_id), ("1/day",), model_id),
    )

    fronts = [chat(limited, model=name)[1] for name in ("acme/chat", "acme/other", "acme/chat")]
    go(limited)

    assert [front.head["status"][:3] if front.sent else "" for front in fronts] == ["", "", "429"]
    assert isinstance(fronts[0], FakeFront)
    assert asyncio.all_tasks(limited.gateway.loop) == set()
