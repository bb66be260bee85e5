"""The headers about limits as another implementation of structured fields reads them (RFC 9651), from a real server.

Sections are those of draft-ietf-httpapi-ratelimit-headers, revision 11, unless another document is named.
"""

import re
import time
from collections.abc import Iterator
from typing import Any

import http_sf
import pytest

from tests.e2e.limit_world import World
from tests.e2e.raw_http import RawAnswer, RawConnection, chat, get, post, post_bytes

pytestmark = pytest.mark.usefixtures("no_window_ends")

CHAT = "/v1/chat/completions"
LIMITS = ("100/day@Asia/Shanghai", "50/10m", "90000 tokens/day", "70000 tokens/1h", "8 concurrent")
REGISTERED_UNITS = {"requests", "content-bytes", "concurrent-requests"}
Items = dict[str, dict[str, Any]]


def call(server, key, **fields) -> RawAnswer:
    return post(server.port, CHAT, chat(**fields), key=key)


def items(text: str) -> Items:
    """A list of strings with parameters, by string."""
    found = http_sf.parse(text.encode(), tltype="list")
    assert all(type(name) is str for name, _ in found)
    assert len({name for name, _ in found}) == len(found)
    return dict(found)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    world = World.start(tmp_path_factory.mktemp("headers"))
    yield world
    world.stop()


@pytest.fixture(params=["USD", "CNY"])
def told(world, request) -> tuple[Items, Items, RawAnswer]:
    """Policies, what is left, and the whole answer to a good call under limits of every kind."""
    caller = world.caller(of=request.param.lower())
    caller.limit("key", [*LIMITS, f"5 {request.param}/month"])
    answer = post(world.server.port, CHAT, chat(model=caller.model), key=caller.sdk.api_key)
    assert answer.status == 200
    return items(answer.headers["ratelimit-policy"]), items(answer.headers["ratelimit"]), answer


def test_ratelimit_s3_policies_are_a_list_of_strings_with_the_parameters_of_the_draft(told):
    policies, _, _ = told

    assert len(policies) == len(LIMITS) + 1
    for name, parameters in policies.items():
        assert type(parameters["q"]) is int, name
        assert parameters["q"] >= 0, name
        if "w" in parameters:
            assert type(parameters["w"]) is int, name
            assert parameters["w"] > 0, name
        assert parameters.get("qu", "requests") in REGISTERED_UNITS, name
        assert type(parameters.get("pk", b"")) is bytes, name
        assert set(parameters) <= {"q", "w", "qu", "pk", "lingpai-unit"}, name
    assert policies["key-day"] == {"q": 100, "w": 86400}
    assert policies["key-10m"] == {"q": 50, "w": 600}
    assert policies["key-concurrent"] == {"q": 8, "qu": "concurrent-requests"}


def test_ratelimit_s3_a_unit_that_is_not_registered_has_a_parameter_of_our_own(told):
    policies, _, _ = told

    units = {
        name: parameters["lingpai-unit"]
        for name, parameters in policies.items()
        if "lingpai-unit" in parameters
    }
    assert {name for name in units if units[name] == "tokens"} == {"key-day-tokens", "key-1h-tokens"}
    assert {unit.rpartition(" ")[2] for unit in units.values()} in ({"tokens", "USD"}, {"tokens", "CNY"})
    assert all("qu" not in policies[name] for name in units)


def test_ratelimit_s4_what_is_left_is_a_list_of_the_policies_names(told):
    policies, left, _ = told

    assert set(left) == set(policies)
    for name, parameters in left.items():
        assert type(parameters["r"]) is int, name
        assert 0 <= parameters["r"] <= policies[name]["q"], name
        assert type(parameters.get("t", 0)) is int, name
        assert parameters.get("t", 0) >= 0, name
        assert set(parameters) <= {"r", "t"}, name
    assert left["key-day"]["r"] == 99
    assert 0 < left["key-day"]["t"] <= 86400
    assert "t" not in left["key-concurrent"]  # nobody knows when a call ends


def test_ratelimit_s4_the_obsolete_three_fields_are_not_sent(told):
    _, _, answer = told

    names = {name for name in answer.headers if "ratelimit" in name}
    assert names == {
        "ratelimit", "ratelimit-policy", "x-ratelimit-limit-requests", "x-ratelimit-remaining-requests",
        "x-ratelimit-reset-requests", "x-ratelimit-limit-tokens", "x-ratelimit-remaining-tokens", "x-ratelimit-reset-tokens",
    }  # fmt: skip


@pytest.mark.parametrize("stream", [False, True])
def test_ratelimit_s4_they_stand_in_the_head_and_not_in_trailers(relay, key_name, stream):
    key = relay.make_key(key_name, limits=["9/day"])
    with RawConnection(relay.port) as connection:
        connection.send(
            post_bytes(CHAT, chat(stream=stream), key=key, headers=("te: trailers", "connection: close"))
        )
        head, _, rest = connection.read_rest().partition(b"\r\n\r\n")

    assert b"\r\nratelimit: " in head
    assert b"\r\nratelimit-policy: " in head
    assert b"\r\ntrailer:" not in head.lower()
    assert b"ratelimit" not in rest
    assert not stream or rest.endswith(b"\r\n0\r\n\r\n")


@pytest.mark.parametrize(
    "limits", [["1/day"], ["1/5m"], ["1/5m", "1/hour"], ["1/5m", "1 concurrent"], ["1/day", "1/minute"]]
)
def test_ratelimit_s5_retry_after_is_never_earlier_than_t(relay, key_name, limits):
    """RFC 9110, section 10.2.3: it is a number of seconds. A caller may go by either field and is not refused again."""
    key = relay.make_key(key_name, limits=limits)
    assert call(relay, key).status == 200

    refused = call(relay, key)

    assert refused.status == 429
    assert re.fullmatch(r"[0-9]+", refused.headers["retry-after"])
    spent = [
        each["t"] for each in items(refused.headers["ratelimit"]).values() if each["r"] == 0 and "t" in each
    ]
    assert spent
    assert int(refused.headers["retry-after"]) >= max(spent)


def test_ratelimit_s5_who_waits_until_retry_after_is_not_refused_again(relay, key_name):
    key = relay.make_key(key_name, limits=["1/2s"])
    assert call(relay, key).status == 200
    refused = call(relay, key)

    time.sleep(int(refused.headers["retry-after"]))

    assert (refused.status, call(relay, key).status) == (429, 200)


def test_ratelimit_s8_no_name_and_no_id_of_anybody_is_in_a_header(relay, key_name):
    """Names of policies say which kind of thing a limit is on, not whose; there is no partition key."""
    user, project = f"user-of-{key_name}", f"project-of-{key_name}"
    relay.admin("POST", "/api/v1/users", {"name": user, "limits": ["9/day"]})
    relay.admin("POST", "/api/v1/projects", {"name": project, "owner": user, "limits": ["8/day"]})
    key = relay.make_key(f"of-{key_name}", user=user, project=project, limits=["7/day"])
    ids = {relay.admin("GET", f"/api/v1/{path}")["id"] for path in (f"users/{user}", f"projects/{project}")}

    answer = call(relay, key)

    shown = "\n".join(value for name, value in answer.headers.items() if "ratelimit" in name)
    assert set(items(answer.headers["ratelimit"])) == {"key-day", "user-day", "project-day"}
    assert not [word for word in (user, project, key_name, key[6:18], *ids) if word in shown]
    assert "pk=" not in shown


def test_ratelimit_s8_who_is_refused_uses_up_nobodys_quota(relay, key_name):
    """The key that was guessed at, or used from a wrong place or for a wrong model, keeps all it has."""
    good = relay.make_key(key_name, limits=["3/day"])
    bound = relay.make_key(f"{key_name}-bound", limits=["3/day"], allowed_ips=["203.0.113.7"])
    narrow = relay.make_key(f"{key_name}-narrow", limits=["3/day"], models=["acme/*"])
    mistyped = good[:20] + ("a" if good[20] != "a" else "b") + good[21:]

    for key, status in ((mistyped, 401), (bound, 403), (narrow, 403)):
        answers = [call(relay, key) for _ in range(5)]
        assert {answer.status for answer in answers} == {status}
    relay.admin("PATCH", f"/api/v1/keys/{key_name}-bound", {"allowed_ips": []})

    assert [call(relay, good).status for _ in range(4)] == [200, 200, 200, 429]
    assert [call(relay, bound).status for _ in range(4)] == [200, 200, 200, 429]
    assert get(relay.port, "/v1/key", key=narrow).json["limits"][0]["used"] == 0


def test_ratelimit_s3_openais_fields_are_sent_beside_them(told):
    """As OpenAI's clients read them: the tightest limit of each unit, the reset as a duration such as `6m0s`."""
    _, _, answer = told
    headers = answer.headers

    assert (headers["x-ratelimit-limit-requests"], headers["x-ratelimit-remaining-requests"]) == ("50", "49")
    assert headers["x-ratelimit-limit-tokens"] in ("70000", "90000")
    assert 0 < int(headers["x-ratelimit-remaining-tokens"]) < int(headers["x-ratelimit-limit-tokens"])
    for unit in ("requests", "tokens"):
        reset = headers[f"x-ratelimit-reset-{unit}"]
        assert re.fullmatch(r"(?=.)([0-9]+h)?([0-9]+m(?!s))?([0-9]+s)?|[0-9]+ms", reset), reset


@pytest.mark.parametrize("stream", [False, True])
def test_rfc6585_s4_a_429_is_stored_by_no_cache(relay, key_name, stream):
    key = relay.make_key(key_name, limits=["1/day"])
    call(relay, key)

    refused = call(relay, key, stream=stream)

    assert refused.status == 429
    assert refused.headers["cache-control"] == "no-store"
