"""Refusals: gathered within a minute, bounded in memory, recorded in batches, and none lost without a count."""

import asyncio

import pytest
from audit_world import ALICE, BOB, NOW

from lingpai.audit import refusals as refusals_module
from lingpai.audit.refusals import Refusals
from lingpai.errors import LingpaiError
from lingpai.ids import mint_credential
from lingpai.lane.doorman import network_of
from lingpai.principal import Principal
from lingpai.storage.trail import PolicyRefusal


class Still:
    """A clock that stands still."""

    def __init__(self):
        self.now = NOW

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Still()


@pytest.fixture
def refusals(world, clock):
    return Refusals(world.database, world.trail, network_of=network_of, clock=clock)


def refusal(caller=BOB, code="model_not_allowed", target="acme/chat", **fields):
    given = {"address": "203.0.113.7", "request_id": "req_1", **fields}
    return PolicyRefusal(caller=caller, code=code, target_kind="model", target_id=target, **given)


def write_due(refusals):
    asyncio.run(refusals.write_due())


def write_all(refusals):
    asyncio.run(refusals.write_all())


def recorded(world):
    return [
        (record["reason"], record["target"]["id"], record["address"], record["after"]["count"])
        for record in world.records()
    ]


def test_what_is_alike_within_a_minute_is_one_record_with_a_count(world, refusals, clock):
    for second in range(50):
        clock.now = NOW + second
        refusals.note(refusal(request_id=f"req_{second}", user_agent="curl/8"))
    write_due(refusals)
    assert world.records() == []

    clock.now = NOW + 61
    write_due(refusals)

    [record] = world.records()
    assert record["after"] == {
        "count": 50,
        "first": "2026-11-18T11:06:40.000Z",
        "last": "2026-11-18T11:07:29.000Z",
        "references": [],
    }
    assert (record["action"], record["result"], record["reason"]) == (
        "access.refuse",
        "refused",
        "model_not_allowed",
    )
    assert record["actor"]["credential"] == {"kind": "key", "id": "bobs"}
    assert (record["address"], record["user_agent"], record["request_id"]) == (
        "203.0.113.7",
        "curl/8",
        "req_0",
    )


def test_a_new_minute_is_a_new_record(world, refusals, clock):
    refusals.note(refusal())
    clock.now += 61
    write_due(refusals)
    refusals.note(refusal())
    write_all(refusals)

    assert [count for *_, count in recorded(world)] == [1, 1]


def test_credential_code_model_and_address_are_told_apart(world, refusals):
    for each in (
        refusal(),
        refusal(caller=ALICE),
        refusal(code="ip_not_allowed"),
        refusal(target="acme/other"),
        refusal(address="203.0.113.8"),
    ):
        refusals.note(each)
        refusals.note(each)
    write_all(refusals)

    assert [count for *_, count in recorded(world)] == [2] * 5


def test_addresses_of_one_ipv6_network_are_one_caller(world, refusals):
    for number in range(100):
        refusals.note(refusal(address=f"2001:db8::{number:x}"))
    write_all(refusals)

    assert recorded(world) == [("model_not_allowed", "acme/chat", "2001:db8::0", 100)]


def test_of_one_credential_so_many_different_ones_are_kept_apart(world, refusals):
    for number in range(500):
        refusals.note(refusal(address=f"10.0.{number // 250}.{number % 250}"))
    refusals.note(refusal(caller=ALICE))
    write_all(refusals)

    found = recorded(world)
    assert len(found) == refusals_module.MOST_PER_CREDENTIAL + 2
    assert sum(count for *_, count in found) == 501
    assert found[refusals_module.MOST_PER_CREDENTIAL] == ("model_not_allowed", "", None, 480)
    assert refusals.dropped == 0


def test_beyond_the_bound_of_all_the_rest_is_counted_and_the_count_recorded(world, refusals, monkeypatch):
    monkeypatch.setattr(refusals_module, "MOST", 10)
    for number in range(25):
        refusals.note(refusal(caller=Principal(f"usr_{number}", "x", "member", key_id=f"key-{number}")))
    assert len(refusals._gathered) == 10
    write_all(refusals)

    records = world.records()
    assert [record["action"] for record in records] == ["access.refuse"] * 10 + ["refusals.drop"]
    assert records[-1]["after"] == {"count": 15}
    assert records[-1]["actor"]["kind"] == "server"
    assert refusals.dropped == 15
    write_all(refusals)
    assert len(world.records()) == 11


def test_memory_is_free_again_when_all_is_written(world, refusals):
    for number in range(100):
        refusals.note(refusal(target=f"m{number}"))
    write_all(refusals)

    assert not refusals._gathered
    assert not refusals._kinds


def test_unknown_credentials_are_counted_and_never_recorded(world, refusals):
    for _ in range(1000):
        refusals.note(refusal(caller=None, code="invalid_api_key"))
    write_all(refusals)

    assert world.records() == []
    assert refusals.unknown_credentials == 1000


def test_who_is_unknown_is_recorded_with_their_address(world, refusals):
    refusals.note(refusal(caller=None, code="csrf_refused"))
    refusals.note(refusal(caller=None, code="csrf_refused"))
    refusals.note(refusal(caller=None, code="csrf_refused", address="203.0.113.8"))
    write_all(refusals)

    assert recorded(world) == [
        ("csrf_refused", "acme/chat", "203.0.113.7", 2),
        ("csrf_refused", "acme/chat", "203.0.113.8", 1),
    ]
    assert world.records()[0]["actor"] == {"kind": "unknown", "id": None, "name": None, "credential": None}


def test_which_rule_it_was_is_told_apart_and_not_without_bound(world, refusals):
    for number in range(100):
        refusals.note(refusal(code="invalid_scope", detail=f"The scope {number} cannot be had here."))
        refusals.note(refusal(code="invalid_scope", detail="The scope 0 cannot be had here."))
    write_all(refusals)

    reasons = [(record["reason"], record["after"]["count"]) for record in world.records()]
    assert len(reasons) == refusals_module.MOST_PER_CREDENTIAL + 1
    assert reasons[0] == ("invalid_scope: The scope 0 cannot be had here.", 101)
    assert reasons[-1] == ("invalid_scope", 80)


def test_of_one_unknown_network_few_are_kept_apart(world, refusals):
    for number in range(100):
        refusals.note(refusal(caller=None, code="tls_required", target=f"route {number}"))
    write_all(refusals)

    found = recorded(world)
    assert len(found) == refusals_module.MOST_PER_UNKNOWN + 1
    assert found[-1] == ("tls_required", "", "203.0.113.7", 100 - refusals_module.MOST_PER_UNKNOWN)


def test_unknown_ones_from_everywhere_are_few_records_and_crowd_nobody_out(world, refusals):
    for number in range(5000):
        address = f"10.{number // 62500}.{number // 250 % 250}.{number % 250}"
        refusals.note(refusal(caller=None, code="tls_required", address=address))
        refusals.note(refusal(caller=None, code="csrf_refused", address=address))
    refusals.note(refusal())
    assert len(refusals._gathered) == refusals_module.MOST_UNKNOWN + 3
    write_all(refusals)

    found = recorded(world)
    assert sum(count for *_, count in found) == 10_001
    assert found[-1] == ("model_not_allowed", "acme/chat", "203.0.113.7", 1)
    assert ("tls_required", "", None, 5000 - refusals_module.MOST_UNKNOWN // 2) in found
    assert refusals.dropped == 0
    assert (refusals._unknown, len(refusals._kinds)) == (0, 0)


def test_some_of_what_was_asked_for_is_named_without_credentials(world, refusals):
    token = mint_credential("sk-lp-").token
    for reference in (token, "a", "a", "b", "c", "d", "e", "f"):
        refusals.note(refusal(code="not_found", reference=reference))
    write_all(refusals)

    assert world.records()[0]["after"]["references"] == ["sk-lp-[hidden]", "a", "b", "c", "d"]


def test_who_calls_through_the_socket_is_known_by_it(world, refusals):
    refusals.note(refusal(caller=Principal("usr_admin", "admin", "admin"), address=None))
    write_all(refusals)

    assert world.records()[0]["actor"]["credential"] == {"kind": "admin_socket", "id": None}


def test_what_cannot_be_written_waits_and_goes_on_counting(world, refusals, clock):
    def let(is_possible):
        with world.database.write() as connection:
            connection.exec_driver_sql(
                "DROP TRIGGER full"
                if is_possible
                else "CREATE TRIGGER full BEFORE INSERT ON audit_records BEGIN SELECT RAISE(ABORT, 'no'); END"
            )

    refusals.note(refusal())
    refusals.note(refusal(target="acme/other"))
    let(False)
    write_all(refusals)
    assert world.records() == []
    refusals.note(refusal())
    let(True)
    write_all(refusals)

    assert sorted(count for *_, count in recorded(world)) == [1, 2]


def test_what_comes_while_it_is_written_is_not_lost_when_that_fails(world, refusals, monkeypatch):
    def fail(_):
        refusals.note(refusal())
        raise LingpaiError("storage_unavailable", "no room")

    refusals.note(refusal())
    with monkeypatch.context() as patch:
        patch.setattr(refusals, "_record", fail)
        write_all(refusals)
    write_all(refusals)

    assert [count for *_, count in recorded(world)] == [2]
