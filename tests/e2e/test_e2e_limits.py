"""Limits are exact, and say what is left."""

import asyncio
import collections
import datetime
import re
import threading
import time

import pytest

from tests.e2e.conftest import MakeServer
from tests.e2e.limit_world import assert_spaced
from tests.e2e.load import call_many
from tests.e2e.raw_http import RawConnection, chat, get, post, post_bytes
from tests.e2e.waiting import wait_until
from tests.fakes.openai_engine import EngineCall

pytestmark = pytest.mark.usefixtures("no_window_ends")

CHAT = "/v1/chat/completions"
SHANGHAI = datetime.timezone(datetime.timedelta(hours=8))


def call(server, key, **fields):
    return post(server.port, CHAT, chat(**fields), key=key)


def limits_of(server, key):
    return get(server.port, "/v1/key", key=key).json["limits"]


def test_exactly_2000_of_3000_calls_by_64_callers_succeed(make_server: MakeServer, engine):
    """On 2000/day not one call more or less is answered, and the next refusal names the limit and its reset."""
    server = make_server(engine.url).start()
    made = server.cli("keys", "create", "batch", "--limit", "2000/day@Asia/Shanghai")
    key = made.stdout.strip()

    statuses = asyncio.run(call_many(server.port, key, calls=3000, callers=64))
    refused = call(server, key)

    assert collections.Counter(statuses) == {200: 2000, 429: 1000}
    message = refused.error["message"]
    assert refused.error["code"] == "insufficient_quota"
    assert "2000" in message
    assert "(2000 of 2000)" in message
    midnight = (datetime.datetime.now(SHANGHAI) + datetime.timedelta(days=1)).strftime("%Y-%m-%d 00:00")
    assert midnight in message
    assert "Asia/Shanghai" in message
    (row,) = server.cli_json("usage", "--by", "key")
    assert (row["key"], row["requests"], row["refused"]) == ("batch", 2000, 1001)
    (limit,) = server.cli_json("limits", "list", "--key", "batch")
    assert (limit["used"], limit["remaining"]) == (2000, 0)


def test_refusal_s_headers(relay, key_name):
    """A spent quota carries Retry-After until the reset, x-should-retry: false, and both families of limit headers."""
    key = relay.make_key(key_name, limits=["1/day@Asia/Shanghai", "100/10m"])
    admitted = call(relay, key)

    refused = call(relay, key)

    now = datetime.datetime.now(SHANGHAI)
    midnight = (now + datetime.timedelta(days=1)).replace(hour=0, minute=0, second=0, microsecond=0)
    left = (midnight - now).total_seconds()
    headers = refused.headers
    assert refused.status == 429
    assert set(refused.error) == {"message", "type", "param", "code"}
    assert int(headers["retry-after"]) == pytest.approx(left, abs=2)
    assert int(headers["retry-after"]) >= left - 0.1  # never earlier than the reset
    assert float(headers["retry-after-ms"]) == pytest.approx(left * 1000, abs=2000)
    assert headers["x-should-retry"] == "false"
    assert headers["x-ratelimit-limit-requests"] == "1"
    assert headers["x-ratelimit-remaining-requests"] == "0"
    assert re.fullmatch(r"(\d+h)?(\d+m)?\d+s", headers["x-ratelimit-reset-requests"])
    assert headers["ratelimit-policy"] == '"key-day";q=1;w=86400, "key-10m";q=100;w=600'
    day = re.search(r'"key-day";r=0;t=(\d+)', headers["ratelimit"])
    assert day
    assert int(day[1]) <= int(headers["retry-after"])
    assert '"key-10m";r=99;' in headers["ratelimit"]  # the refused call took nothing from the other limit
    assert admitted.headers["x-ratelimit-remaining-requests"] == "0"
    assert "retry-after" not in admitted.headers


def test_headers_are_on_streams_and_on_errors_too(relay, key_name):
    """What is left is told with every model call, also one that streams or is refused for another reason."""
    key = relay.make_key(key_name, limits=["50/day"])

    stream = call(relay, key, stream=True)
    unknown = call(relay, key, model="no/such")

    assert stream.headers["x-ratelimit-remaining-requests"] == "49"
    assert unknown.status == 404
    assert unknown.headers["x-ratelimit-remaining-requests"] == "49"


def test_no_limit_no_headers(relay, relay_key):
    """A key without limits gets no limit headers and an empty list in /v1/key."""
    answer = call(relay, relay_key)

    assert not [name for name in answer.headers if "ratelimit" in name]
    assert limits_of(relay, relay_key) == []


def test_user_limit_is_shared_by_two_keys(relay, key_name):
    """Both keys of a user draw on the user's limit, and both refusals name the user's."""
    relay.admin("POST", "/api/v1/users", {"name": f"u-{key_name}", "limits": ["5/day"]})
    one = relay.make_key(f"{key_name}-a", user=f"u-{key_name}")
    two = relay.make_key(f"{key_name}-b", user=f"u-{key_name}")

    statuses = [call(relay, key).status for key in (one, two, one, two, one, two, one)]

    assert statuses == [200] * 5 + [429] * 2
    refused = call(relay, two)
    assert f"u-{key_name}" in refused.error["message"]
    assert '"user-day"' in refused.headers["ratelimit-policy"]
    for key in (one, two):
        (limit,) = limits_of(relay, key)
        assert (limit["subject"], limit["used"], limit["remaining"]) == ("user", 5, 0)


def test_new_users_get_the_default_limit(demo, key_name):
    """A user made without limits has 2000/day@Asia/Shanghai, shared by the keys."""
    demo.admin("POST", "/api/v1/users", {"name": f"u-{key_name}"})
    key = demo.admin("POST", "/api/v1/keys", {"name": key_name, "user": f"u-{key_name}"})["key"]

    (limit,) = limits_of(demo, key)

    assert (limit["subject"], limit["limit"], limit["remaining"]) == ("user", "2000/day@Asia/Shanghai", 2000)


def test_all_or_nothing_of_key_and_user_limit(relay, key_name):
    """When the key's limit refuses, the user's limit keeps the call."""
    relay.admin("POST", "/api/v1/users", {"name": f"u-{key_name}", "limits": ["10/day"]})
    key = relay.make_key(key_name, user=f"u-{key_name}", limits=["2/day"])

    statuses = [call(relay, key).status for _ in range(5)]

    by_subject = {limit["subject"]: limit for limit in limits_of(relay, key)}
    assert statuses == [200, 200, 429, 429, 429]
    assert (by_subject["key"]["used"], by_subject["user"]["used"]) == (2, 2)


def test_limits_changed_at_run_time_keep_what_was_used(relay, key_name):
    """A new amount for the same window counts on from what was used, up and down."""
    key = relay.make_key(key_name, limits=["3/day"])
    assert [call(relay, key).status for _ in range(4)] == [200, 200, 200, 429]

    relay.admin("PUT", "/api/v1/limits", {"subject": "key", "id": key_name, "limits": ["5/day"]})
    raised = [call(relay, key).status for _ in range(3)]
    relay.admin("PUT", "/api/v1/limits", {"subject": "key", "id": key_name, "limits": ["4/day", "9/hour"]})
    lowered = call(relay, key)
    limits = {limit["limit"]: limit for limit in limits_of(relay, key)}
    relay.admin("PUT", "/api/v1/limits", {"subject": "key", "id": key_name, "limits": ["none"]})
    lifted = call(relay, key)

    assert raised == [200, 200, 429]
    assert lowered.status == 429
    assert lowered.headers["x-ratelimit-remaining-requests"] == "0"
    assert limits["4/day"]["remaining"] == 0
    assert limits["9/hour"]["used"] == 5  # a window that is new to the key is counted from the records
    assert lifted.status == 200


def test_limit_taken_away_and_set_again_still_knows_what_was_used(relay, key_name):
    """Lifting a limit and setting it again is no way to get the day's quota twice."""
    key = relay.make_key(key_name, limits=["3/day"])
    assert [call(relay, key).status for _ in range(4)] == [200, 200, 200, 429]

    relay.admin("PUT", "/api/v1/limits", {"subject": "key", "id": key_name, "limits": []})
    call(relay, key)
    relay.admin("PUT", "/api/v1/limits", {"subject": "key", "id": key_name, "limits": ["5/day"]})

    assert [call(relay, key).status for _ in range(2)] == [200, 429]


def test_smooth_rate_spaces_calls(relay, key_name):
    """5/2s lets five through at once, then one every 0.4 seconds: never more than that, and not much less."""
    key = relay.make_key(key_name, limits=["5/2s"])
    call(relay, key)
    time.sleep(0.5)

    statuses = []
    started = time.monotonic()
    while statuses.count(200) < 8:
        statuses.append(call(relay, key).status)
        time.sleep(0.01)
    took = time.monotonic() - started

    key_id = relay.admin("GET", f"/api/v1/keys/{key_name}")["id"]
    admitted = relay.records("key_id = ? AND status = 200 ORDER BY started_at", key_id)
    assert statuses[:5] == [200] * 5
    assert set(statuses) == {200, 429}
    assert_spaced([record["started_at"] for record in admitted], at_once=5, per_s=2.5)
    assert took < 5  # 1.2 where nothing is late


def test_waiting_as_long_as_retry_after_ms_says_is_enough(relay, key_name):
    """Whoever waits exactly as long as told finds room."""
    key = relay.make_key(key_name, limits=["2/3s"])
    call(relay, key), call(relay, key)

    for _ in range(2):
        refused = call(relay, key)
        time.sleep(float(refused.headers["retry-after-ms"]) / 1000)

        assert call(relay, key).status == 200


def test_calls_the_engine_did_not_answer_are_not_charged(relay, engine, key_name):
    """An engine's failure gives the request back."""

    async def fails(engine_call):
        await engine_call.answer({"error": {"message": "boom"}}, status="500 Internal Server Error")

    key = relay.make_key(key_name, limits=["2/day"])
    script = engine.script(fails)

    failed = [call(relay, key, script=script).status for _ in range(4)]

    assert failed == [502] * 4
    assert [call(relay, key).status for _ in range(3)] == [200, 200, 429]


@pytest.mark.parametrize(
    "limit",
    ["2000", "0/day", "-5/day", "5/fortnight", "5/day@Mars/Olympus", "10 potatoes/day", "0 concurrent", ""],
)
def test_limits_that_make_no_sense_are_refused_with_an_example(relay, limit, key_name):
    """A limit that cannot be understood or enforced is a 400 that helps."""
    status, answer = relay.try_admin("POST", "/api/v1/keys", {"name": key_name, "limits": [limit]})

    assert status == 400, answer
    assert answer["error"]["param"].startswith("limits")
    assert len(answer["error"]["message"]) > 20


def set_limits(server, name, *limits):
    server.admin("PUT", "/api/v1/limits", {"subject": "key", "id": name, "limits": list(limits)})


def test_calls_under_way_count_when_the_limits_change(relay, engine, key_name):
    """Neither taking a limit away and setting it again nor setting a new one forgets a call that is under way."""

    may_end = threading.Event()

    async def held(engine_call: EngineCall) -> None:
        await engine_call.stream_head()
        while not may_end.is_set():
            await engine_call.chunk(b": not yet\n\n")  # or the relay would lose its patience
            await asyncio.sleep(0.05)
        await engine_call.event(b"[DONE]")
        await engine_call.chunk(b"")

    script = engine.script(held)
    key = relay.make_key(key_name, limits=["5/day"])
    connections = [RawConnection(relay.port) for _ in range(5)]
    for connection in connections:
        connection.send(post_bytes(CHAT, chat(stream=True, script=script), key=key))
    wait_until(lambda: len(engine.calls_of(script)) == 5)

    set_limits(relay, key_name, "100/hour")
    set_limits(relay, key_name, "5/day", "5/10m")
    statuses = [call(relay, key).status for _ in range(3)]
    may_end.set()
    answered = [connection.read_answer().status for connection in connections]

    assert statuses == [429, 429, 429]
    assert answered == [200] * 5
    assert {row["limit"]: row["used"] for row in limits_of(relay, key)} == {"5/day": 5, "5/10m": 5}
    for connection in connections:
        connection.close()


def test_limits_of_a_user_over_several_keys_go_on_after_a_kill(make_server: MakeServer, engine):
    """What all keys of a user have used together is known again after kill -9 and a restart."""
    server = make_server(engine.url).start()
    server.admin("POST", "/api/v1/users", {"name": "bob", "limits": ["6/day"]})
    keys = [server.make_key(f"k{number}", user="bob", limits=[]) for number in range(3)]
    before = [call(server, key).status for key in keys for _ in range(1)]

    server.process.kill()
    server.process.wait()
    server.start()
    after = [call(server, key).status for key in keys for _ in range(2)]

    assert before == [200, 200, 200]
    assert sorted(after) == [200, 200, 200, 429, 429, 429]


def test_calls_over_the_admin_socket_count_against_admin_and_its_project_before_and_after_a_restart(
    make_server: MakeServer, engine
):
    """They have no key, and are held to the limits of user and project like any other, from when these are set."""
    server = make_server(engine.url).start()
    key = server.make_key("ops")

    def call_locally() -> int:
        return server.try_admin(
            "POST", CHAT, {"model": "fake/chat", "messages": [{"role": "user", "content": "Hi"}]}
        )[0]

    def used() -> dict[str, int]:
        rows = server.admin("GET", "/api/v1/limits/explain?key=ops&model=fake/chat")["data"]
        return {row["limit"]: row["used"] for row in rows if row["subject"] in ("user", "project")}

    before = [call_locally(), call(server, key).status]
    server.admin("PUT", "/api/v1/limits", {"subject": "user", "id": "admin", "limits": ["6/day"]})
    server.admin("PUT", "/api/v1/limits", {"subject": "project", "id": "admin", "limits": ["9/month"]})
    statuses = [call_locally(), call(server, key).status, call_locally()]
    counted = used()
    server.kill()
    server.start()
    counted_again = used()
    last = [call_locally(), call_locally(), call(server, key).status]
    server.admin("PUT", "/api/v1/limits", {"subject": "user", "id": "admin", "limits": ["7/day"]})
    raised = [call_locally(), call_locally()]

    assert (before, statuses) == ([200] * 2, [200] * 3)
    assert counted == counted_again == {"6/day": 5, "9/month": 5}
    assert last == [200, 429, 429]
    assert raised == [200, 429]
    assert used() == {"7/day": 7, "9/month": 7}
