"""Step 1: the credential in its headers, the checks on who calls, and look-ups that are shared."""

import asyncio
import ipaddress
import threading
import time

import pytest
from gateway_fakes import FakeFront, FakeKeys, principal

from lingpai.errors import LingpaiError
from lingpai.gateway.authenticate import (
    Account,
    Authenticator,
    check_principal,
    has_doubled_credential,
    read_credential,
    unknown_key,
)
from lingpai.identity.known_ids import LookUps
from lingpai.ids import mint_credential
from lingpai.jobs.runner import JobRunner
from lingpai.quotas.loader import StaleLimitsError

# -- read_credential


@pytest.mark.parametrize(
    ("fields", "credential"),
    [
        ({}, None),
        ({b"authorization": b"Bearer K"}, b"K"),
        ({b"authorization": b"bearer K"}, b"K"),
        ({b"authorization": b"BEARER   K  "}, b"K"),
        ({b"authorization": b"K"}, b"K"),
        ({b"authorization": b" K "}, b"K"),
        ({b"authorization": b"Bearer"}, None),
        ({b"authorization": b"Bearer "}, None),
        ({b"authorization": b""}, None),
        ({b"x-api-key": b"K"}, b"K"),
        ({b"api-key": b" K "}, b"K"),
        ({b"x-goog-api-key": b"K"}, b"K"),
        ({b"x-api-key": b""}, None),
        ({b"x-other": b"K"}, None),
    ],
)
def test_credential_is_read_from_every_accepted_header(fields, credential):
    assert read_credential(fields) == credential


@pytest.mark.parametrize(
    "names",
    [
        (b"authorization", b"x-api-key"),
        (b"authorization", b"api-key"),
        (b"authorization", b"x-goog-api-key"),
        (b"x-api-key", b"api-key"),
        (b"x-api-key", b"x-goog-api-key"),
        (b"authorization", b"x-api-key", b"api-key"),
    ],
)
def test_two_credentials_are_refused_even_if_they_are_the_same(names):
    with pytest.raises(LingpaiError) as caught:
        read_credential(dict.fromkeys(names, b"K"))

    assert (caught.value.code, caught.value.status) == ("ambiguous_credentials", 400)


@pytest.mark.parametrize("authorization", [b"Basic YTpi", b"Digest x", b"Token K"])
def test_other_schemes_are_no_credential_of_ours(authorization):
    """They are not taken apart into something that could be one."""
    assert read_credential({b"authorization": authorization}) not in (b"YTpi", b"x", b"K")


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        ([b"authorization", b"authorization"], True),
        ([b"x-api-key", b"accept", b"x-api-key"], True),
        ([b"accept", b"accept", b"authorization"], False),
        ([b"authorization", b"x-api-key"], False),
        ([], False),
    ],
)
def test_header_sent_twice_is_noticed_if_it_carries_a_credential(names, expected):
    assert has_doubled_credential([(name, b"K") for name in names]) is expected


def test_doubled_header_is_refused_before_anybody_is_looked_up(stage, error_of):
    front = FakeFront()

    stage.call(front=front, headers=[(b"authorization", b"Bearer other")])

    assert error_of(front)["code"] == "ambiguous_credentials"
    assert stage.keys.looked_up == []


# -- what a caller hears


def test_message_about_a_wrong_key_says_only_what_its_owner_can_see():
    good = mint_credential("sk-lp-").token.encode()
    mistyped = good[:-1] + (b"a" if good[-1:] != b"a" else b"b")

    assert "begin with `sk-lp-`" in unknown_key(b"sk-proj-x").message
    assert "checksum" in unknown_key(mistyped).message
    assert "checksum" not in unknown_key(good).message
    assert all(key.decode() not in unknown_key(key).message for key in (good, mistyped, b"sk-proj-x"))


@pytest.mark.parametrize("prefix", ["cs-lp-", "rt-lp-"])
def test_what_only_gets_tokens_is_sent_to_the_token_endpoint(prefix):
    secret = mint_credential(prefix).token

    message = unknown_key(secret.encode()).message

    assert "`/oauth/token`" in message
    assert secret not in message


def test_refusals_for_want_of_a_key_carry_the_challenge(stage):
    """RFC 6750, section 3.1: no error code when no credential was sent at all."""
    fronts = FakeFront(), FakeFront()
    stage.keys.garbage.add(b"sk-lp-bad")

    stage.call(front=fronts[0], key=None)
    stage.call(front=fronts[1], key=b"sk-lp-bad")

    missing, wrong = (front.head for front in fronts)
    assert missing["status"] == wrong["status"] == "401 Unauthorized"
    assert missing["www-authenticate"] == 'Bearer realm="lingpai"'
    assert wrong["www-authenticate"] == 'Bearer realm="lingpai", error="invalid_token"'


def test_key_without_the_scope_is_refused_with_the_scope(stage, error_of):
    front = FakeFront()
    stage.allow(principal(scopes=frozenset({"keys:read"})))

    stage.call(front=front)

    assert error_of(front)["code"] == "insufficient_scope"
    assert 'scope="model:inference"' in front.head["www-authenticate"]


def test_admin_socket_needs_no_key_and_other_sockets_do(stage, error_of):
    local = stage.allow_local(principal(role="admin", key_id=None))
    here, there = FakeFront(is_local=True, caller_address=""), FakeFront()

    call = stage.open(front=here, key=None)
    stage.call(front=there, key=None)

    assert call.principal is local
    assert error_of(there)["code"] == "missing_api_key"


# -- check_principal


def refusal_of(caller, address="192.0.2.7", now=1000.0) -> str | None:
    caller.account = caller.account or Account(caller, ())
    try:
        check_principal(caller, address, now)
    except LingpaiError as error:
        return error.code
    return None


def test_disabled_key_is_refused():
    assert refusal_of(principal(disabled=True)) == "key_disabled"


@pytest.mark.parametrize(("now", "code"), [(999.999, None), (1000.0, "key_expired"), (1001.0, "key_expired")])
def test_key_expires_at_its_time(now, code):
    assert refusal_of(principal(expires_at=1000.0), now=now) == code


def test_key_is_bound_to_its_addresses_in_every_call():
    """An address that was allowed once is remembered; another one is not covered by that."""
    caller = principal(allowed_ips=(ipaddress.ip_network("192.0.2.0/24"),))

    codes = [
        refusal_of(caller, address)
        for address in ("192.0.2.7", "198.51.100.1", "192.0.2.7", "", "198.51.100.1")
    ]

    assert codes == [None, "ip_not_allowed", None, "ip_not_allowed", "ip_not_allowed"]


def test_last_use_is_noted_only_for_a_call_that_was_let_in():
    good, bad = principal(), principal(disabled=True)

    refusal_of(good, "192.0.2.9", 5.0)
    refusal_of(bad, "192.0.2.9", 5.0)

    assert (good.last_used_at, good.last_used_ip) == (5.0, "192.0.2.9")
    assert (bad.last_used_at, bad.last_used_ip) == (0.0, None)


# -- look-ups


class Meters:
    """Quotas' loader: notes what is asked, and can be told that limits went stale."""

    def __init__(self, *, on_load=lambda: None):
        self.asked = []
        self._on_load = on_load

    async def __call__(self, subject, limits, label, *, is_current):
        await asyncio.sleep(0)
        self._on_load()
        if not is_current():
            raise StaleLimitsError
        self.asked.append((subject, limits, label))
        return (f"meter of {subject[1]}",) if limits else ()


def look_up(keys, meters, test):
    """Runs `test(authenticator)` on a loop."""

    async def run():
        jobs = JobRunner()
        authenticator = Authenticator(keys, meters, jobs=jobs)
        try:
            async with asyncio.timeout(10):
                return await test(authenticator)
        finally:
            await jobs.stop()
            authenticator.close()

    return asyncio.run(run())


def test_many_first_uses_of_a_key_make_one_look_up():
    caller = principal(key_limits=("5/day",))
    keys, meters = FakeKeys({b"K": caller}), Meters()

    async def test(authenticator):
        return await asyncio.gather(*(authenticator.principal_for(b"K") for _ in range(50)))

    found = look_up(keys, meters, test)

    assert found == [caller] * 50
    assert keys.looked_up == [b"K"]
    assert [subject for subject, _, _ in meters.asked] == [("key", "k1"), ("user", "usr_1")]
    assert caller.account.meters == ("meter of k1",)


def test_different_keys_are_looked_up_side_by_side():
    """Two look-ups meet at a barrier: one after the other would never get past it."""
    keys = FakeKeys({b"A": principal(), b"B": principal()})
    barrier = threading.Barrier(2, timeout=5)
    keys.on_load = barrier.wait

    async def test(authenticator):
        return await asyncio.gather(authenticator.principal_for(b"A"), authenticator.principal_for(b"B"))

    assert look_up(keys, Meters(), test) == [keys.principals[b"A"], keys.principals[b"B"]]


def test_known_key_and_known_garbage_are_not_looked_up():
    keys = FakeKeys()
    keys.known[b"K"] = principal()
    keys.garbage.add(b"G")

    async def test(authenticator):
        return await authenticator.principal_for(b"K"), await authenticator.principal_for(b"G")

    assert look_up(keys, Meters(), test) == (keys.known[b"K"], None)
    assert keys.looked_up == []


def test_unknown_key_is_remembered_as_garbage():
    keys = FakeKeys()

    async def test(authenticator):
        return [await authenticator.principal_for(b"X") for _ in range(3)]

    assert look_up(keys, Meters(), test) == [None] * 3
    assert keys.looked_up == [b"X"]


def test_meters_of_key_and_user_are_both_loaded():
    caller = principal(key_limits=("5/day",), user_limits=("9/day", "1/1s"))
    meters = Meters()

    async def test(authenticator):
        return await authenticator.principal_for(b"K")

    look_up(FakeKeys({b"K": caller}), meters, test)

    assert meters.asked == [
        (("key", "k1"), ("5/day",), "key `laptop`"),
        (("user", "usr_1"), ("9/day", "1/1s"), "user `ada`"),
    ]
    assert caller.account.meters == ("meter of k1", "meter of usr_1")


def test_key_that_changes_during_the_look_up_is_read_again():
    """What was read before the change must not be attached: its limits are the old ones."""
    old, new = principal(key_limits=("5/day",)), principal(key_limits=("7/day",))
    keys = FakeKeys({b"K": old})

    def change_once():
        if keys.generation == 0:
            keys.generation += 1
            keys.principals[b"K"] = new

    meters = Meters(on_load=change_once)

    async def test(authenticator):
        return await authenticator.principal_for(b"K")

    assert look_up(keys, meters, test) is new
    assert len(keys.looked_up) == 2
    assert [limits for _, limits, _ in meters.asked] == [("7/day",), ()]
    assert keys.known == {b"K": new}


def test_key_that_is_deleted_during_the_look_up_is_unknown():
    keys = FakeKeys({b"K": principal(key_limits=("5/day",))})

    def delete():
        keys.generation += 1
        keys.principals.clear()

    async def test(authenticator):
        return await authenticator.principal_for(b"K")

    assert look_up(keys, Meters(on_load=delete), test) is None
    assert b"K" in keys.garbage


def test_database_that_fails_is_told_to_all_who_wait_and_nothing_is_remembered(caplog):
    keys = FakeKeys({b"K": principal()})

    def fail():
        raise OSError("disk gone")

    keys.on_load = fail

    async def test(authenticator):
        waiting = (authenticator.principal_for(b"K") for _ in range(3))
        failures = await asyncio.gather(*waiting, return_exceptions=True)
        keys.on_load = lambda: None
        return failures, await authenticator.principal_for(b"K")

    failures, later = look_up(keys, Meters(), test)

    assert [error.code for error in failures] == ["storage_unavailable"] * 3
    assert "disk gone" not in failures[0].message
    assert "disk gone" in caplog.text
    assert later is keys.principals[b"K"]


def test_refusal_of_the_loader_reaches_the_caller_as_it_is():
    """When what was used cannot be read yet, the call is refused: without knowing, a limit could be exceeded."""

    async def refuse(*_, **__):
        raise LingpaiError("storage_unavailable", "Not yet.", headers={"retry-after": "5"})

    keys = FakeKeys({b"K": principal(key_limits=("5/day",))})

    async def test(authenticator):
        with pytest.raises(LingpaiError) as caught:
            await authenticator.principal_for(b"K")
        return caught.value

    error = look_up(keys, refuse, test)

    assert (error.message, error.headers) == ("Not yet.", {"retry-after": "5"})
    assert keys.known == {}


def test_look_up_that_is_cancelled_does_not_call_the_key_wrong():
    """The server is stopping; clients take a 401 for final, so nobody may hear one for a key that was never read."""
    keys = FakeKeys({b"K": principal()})
    release = threading.Event()
    keys.on_load = lambda: release.wait(5)
    heard = []

    async def run():
        jobs = JobRunner()
        authenticator = Authenticator(keys, Meters(), jobs=jobs)
        authenticator.load(b"K", lambda principal, error: heard.append((principal, error.code)))
        while not keys.looked_up:
            await asyncio.sleep(0.001)
        await jobs.stop()
        release.set()
        authenticator.close()

    asyncio.run(run())

    assert heard == [(None, "shutting_down")]


def test_failing_look_ups_of_other_routes_are_bounded_too():
    """The management API must not be a way around the bound on model calls; of IPv6 a /64 is one caller."""
    keys, look_ups = FakeKeys(), LookUps(per_s=0.001, burst=3)

    async def test(authenticator):
        for number in range(3):
            address = f"2001:db8::{number}"
            assert await authenticator.principal_for(b"K%d" % number, look_ups, address) is None
        with pytest.raises(LingpaiError) as caught:
            await authenticator.principal_for(b"K9", look_ups, "2001:db8::9")
        await authenticator.principal_for(b"K9", look_ups, "2001:db8:1::9")
        return caught.value

    error = look_up(keys, Meters(), test)

    assert error.code == "rate_limit_exceeded"
    assert int(error.headers["retry-after"]) > 0
    assert keys.looked_up == [b"K0", b"K1", b"K2", b"K9"]


def test_call_without_a_key_is_worth_nothing_either(served, front):
    served.call(front=front, key=None)

    assert front.told_to_slow_down


# -- a body that comes long after its head


BODY = b'{"model": "acme/chat", "messages": [{"role": "user", "content": "hi"}]}'


def test_key_that_is_revoked_while_the_body_comes_does_not_get_in(served, front, error_of):
    call = served.open(front=front)
    served.keys.revoke(b"sk-lp-known")

    call.body_part(BODY)
    call.body_complete()

    assert error_of(front)["code"] == "invalid_api_key"
    assert served.link.sent == []


def test_key_that_expires_while_the_body_comes_does_not_get_in(served, front, error_of):
    caller = served.allow(principal(expires_at=time.time() + 60))
    call = served.open(front=front)
    caller.expires_at = time.time() - 0.001

    call.body_part(BODY)
    call.body_complete()

    assert error_of(front)["code"] == "key_expired"
    assert served.link.sent == []


def test_key_that_gets_a_limit_while_the_body_comes_is_held_to_it(served, front):
    call = served.open(front=front)
    served.keys.generation += 1
    caller = served.allow(principal(key_name="limited"), meters=(served.meter,))

    call.body_part(BODY)
    call.body_complete()

    assert call.principal is caller
    assert len(served.link.sent) == 1


def test_change_of_another_key_does_not_matter(served, front):
    call = served.open(front=front)
    served.keys.generation += 1

    call.body_part(BODY)
    call.body_complete()

    assert len(served.link.sent) == 1


# -- the same head again


def test_key_is_not_looked_up_again_for_the_same_head_until_a_key_changes(served, front):
    found = []
    served.gateway.authenticator.find = lambda token: found.append(token) or served.keys.find(token)

    calls = [served.open(front=front) for _ in range(2)]
    served.keys.generation += 1
    calls.append(served.open(front=front))

    assert found == [b"sk-lp-known"] * 2
    assert {call.principal for call in calls} == {served.keys.known[b"sk-lp-known"]}


def test_key_that_was_revoked_is_not_remembered_for_the_same_head(served, front, error_of):
    served.call(front=front)
    served.keys.revoke(b"sk-lp-known")

    front.sent = b""
    served.call(front=front)

    assert error_of(front)["code"] == "invalid_api_key"
