"""Behind a declared proxy, everything that asks for an address sees the caller's; from anybody else it is ignored."""

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from lingpai.ids import SECRET_LENGTH, _checksum, random_base62
from tests.e2e.conftest import MakeServer
from tests.e2e.lingpai_server import LingpaiServer
from tests.e2e.raw_http import RawConnection, chat, get, post, post_bytes
from tests.e2e.test_e2e_addresses import SLOW
from tests.fakes.openai_engine import FakeEngine

CALLER, OTHER = "203.0.113.7", "198.51.100.1"
CHAT = "/v1/chat/completions"


def via(*hops: str, proto: str | None = None) -> tuple[str, ...]:
    """The headers that a proxy on this machine adds."""
    headers = (f"x-forwarded-for: {', '.join(hops)}",)
    return headers if proto is None else (*headers, f"x-forwarded-proto: {proto}")


@pytest.fixture(scope="module")
def proxied(tmp_path_factory: pytest.TempPathFactory, engine: FakeEngine) -> Iterator[LingpaiServer]:
    """A server whose only proxy is on this machine: the tests are the proxy."""
    config = (
        '[server]\ntrusted_proxies = ["127.0.0.1", "10.0.0.0/8"]\nlog_calls = true\nlog_format = "json"\n'
    )
    server = LingpaiServer(tmp_path_factory.mktemp("proxied"), engine.url, config=config).start()
    yield server
    server.stop()


@pytest.fixture(scope="module")
def guarded_key(proxied: LingpaiServer) -> str:
    """A key for one network."""
    return proxied.make_key("guarded", allowed_ips=["203.0.113.0/24"])


# -- IP rules


@pytest.mark.parametrize(
    ("hops", "status"),
    [
        ((CALLER,), 200),
        ((f"{CALLER}:55555",), 200),
        ((OTHER, CALLER), 200),
        ((CALLER, "10.0.0.9"), 200),
        ((CALLER, OTHER), 403),  # the caller wrote the first one
        ((CALLER, "2001:db8::1"), 403),
        ((CALLER, "unknown"), 403),
        (("garbage",), 403),
        ((), 403),
    ],
)
def test_ip_rule_of_a_key_goes_by_the_caller_that_the_proxy_saw(proxied, guarded_key, hops, status):
    headers = via(*hops) if hops else ()

    call = post(proxied.port, CHAT, chat(), key=guarded_key, headers=headers)
    elsewhere = get(proxied.port, "/v1/key", key=guarded_key, headers=headers)

    assert (call.status, elsewhere.status) == (status, status)
    if status == 403:
        assert {call.error["code"], elsewhere.error["code"]} == {"ip_not_allowed"}


def test_one_connection_of_a_proxy_carries_many_callers(proxied, guarded_key):
    """Heads that are alike but for the caller are not taken for known; nor does one caller's right pass to the next."""
    seen = []
    with RawConnection(proxied.port) as connection:
        for caller in (CALLER, CALLER, CALLER, OTHER, CALLER, OTHER, OTHER, CALLER):
            connection.send(post_bytes(CHAT, chat(), key=guarded_key, headers=via(caller)))
            seen.append(connection.read_answer().status)

    assert seen == [200, 200, 200, 403, 200, 403, 403, 200]


@pytest.mark.parametrize(
    "header", ["x-forwarded-for", "forwarded", "x-real-ip", "x-client-ip", "true-client-ip"]
)
def test_rfc9700_s4_13_headers_of_who_is_no_declared_proxy_are_ignored(relay, header):
    """RFC 9700, section 4.13; incident class 14: else lists of addresses are void."""
    key = relay.make_key(f"spoofed-{header}", allowed_ips=[CALLER])
    written = f"for={CALLER}" if header == "forwarded" else CALLER

    answers = [
        post(relay.port, CHAT, chat(), key=key, headers=(f"{header}: {written}",)),
        get(relay.port, "/v1/key", key=key, headers=(f"{header}: {written}",)),
    ]

    assert [(answer.status, answer.error["code"]) for answer in answers] == [(403, "ip_not_allowed")] * 2


@pytest.mark.parametrize("header", ["forwarded", "x-real-ip", "x-client-ip"])
def test_rfc9700_s4_13_headers_that_the_proxy_does_not_write_are_ignored(proxied, guarded_key, header):
    """Proxies pass on what callers send in them."""
    spoofed = (f"{header}: {f'for={CALLER}' if header == 'forwarded' else CALLER}", *via(OTHER))

    assert post(proxied.port, CHAT, chat(), key=guarded_key, headers=spoofed).status == 403


# -- what is kept of an address


def test_caller_is_in_usage_records_key_and_call_log(proxied, key_name):
    key = proxied.make_key(key_name)
    with RawConnection(proxied.port) as connection:
        ids = []
        for caller in (CALLER, OTHER, OTHER, CALLER):
            connection.send(post_bytes(CHAT, chat(), key=key, headers=via(caller)))
            ids.append(connection.read_answer().headers["x-request-id"])

    recorded = [proxied.record_of(each)["client_address"] for each in ids]
    lines = [json.loads(line) for line in proxied.stderr.splitlines() if "lingpai.calls" in line]
    logged = {line["request_id"]: line["address"] for line in lines}

    assert recorded == [CALLER, OTHER, OTHER, CALLER]
    assert [logged[each] for each in ids] == recorded


def test_refused_call_is_logged_with_its_caller(proxied):
    answer = post(proxied.port, CHAT, chat(), headers=via("192.0.2.99"))

    assert answer.status == 401
    assert '"address": "192.0.2.99"' in proxied.stderr


# -- bounds


def test_look_ups_of_unknown_keys_are_bounded_by_caller(proxied, key_name):
    """Not for all who come through the proxy together."""
    # Ids that there are, each tried once: nobody looks for others, nor again for the same.
    key_ids = [proxied.make_key(f"{key_name}-{number}")[:18] for number in range(32)]

    def guess(caller: str, path: str) -> int:
        body = key_ids.pop() + random_base62(SECRET_LENGTH)
        unknown = body + _checksum(body.encode())
        if path == CHAT:
            return post(proxied.port, path, chat(), key=unknown, headers=via(caller)).status
        return get(proxied.port, path, key=unknown, headers=via(caller)).status

    guesses = [guess("192.0.2.50", path) for path in (CHAT, "/v1/key") * 15]
    other = [guess("192.0.2.51", path) for path in (CHAT, "/v1/key")]

    assert 429 in guesses
    assert other == [401, 401]


def test_shares_of_calls_and_connections_are_the_callers(make_server: MakeServer, tmp_path: Path):
    """The proxy has as many connections as it likes, and each caller behind it a share of its own."""
    (tmp_path / "slow.py").write_text(SLOW)
    config = '[server]\ntrusted_proxies = ["127.0.0.1"]\nmax_calls_per_address = 2\nmax_connections_per_address = 1\n'
    server = make_server(str(tmp_path / "slow.py"), config=config).start()
    body = {"model": "acme/slow", "input_data": 1.0}

    def call(caller: str) -> int:
        return post(server.port, "/predict", body, key=server.key, headers=via(caller)).status

    with ThreadPoolExecutor(8) as pool:
        answers = [(caller, pool.submit(call, caller)) for caller in (CALLER, OTHER) for _ in range(4)]
        by_caller = {
            caller: sorted(done.result() for who, done in answers if who == caller)
            for caller in (CALLER, OTHER)
        }

    assert by_caller == {CALLER: [200, 200, 429, 429], OTHER: [200, 200, 429, 429]}
    assert call(CALLER) == 200


# -- loopback


@pytest.mark.parametrize("headers", [(), via("127.0.0.1"), via(CALLER), via("::1"), via("garbage")])
def test_rfc9700_s4_13_a_proxy_here_does_not_make_its_callers_local(proxied, headers):
    """Metrics are for this machine; through a proxy on it, with or without a word about the caller, comes anybody."""
    answer = get(proxied.port, "/metrics", headers=headers)

    assert (answer.status, answer.error["code"]) == (403, "metrics_not_allowed")


def test_administration_socket_has_no_callers_behind_it(proxied):
    assert proxied.admin("GET", "/api/v1/keys")["data"]


# -- scheme


@pytest.mark.parametrize(
    ("headers", "is_secure"),
    [(via(CALLER, proto="https"), True), (via(CALLER, proto="http"), False), (via(CALLER), False)],
)
def test_scheme_is_the_one_that_the_proxy_speaks_with_the_caller(proxied, headers, is_secure):
    answer = get(proxied.port, "/healthz", headers=headers)

    assert ("strict-transport-security" in answer.headers) == is_secure


def test_scheme_is_not_the_callers_to_choose(relay):
    assert (
        "strict-transport-security"
        not in get(relay.port, "/healthz", headers=via(CALLER, proto="https")).headers
    )


def test_proxies_may_write_the_standard_header(make_server: MakeServer, engine: FakeEngine):
    config = '[server]\ntrusted_proxies = ["127.0.0.1"]\nforwarded_header = "forwarded"\n'
    server = make_server(engine.url, config=config).start()
    key = server.make_key("guarded", allowed_ips=[CALLER])

    def status(*headers: str) -> int:
        return post(server.port, CHAT, chat(), key=key, headers=headers).status

    assert status(f'forwarded: for="{CALLER}:1234";proto=https') == 200
    assert status(f"forwarded: for={CALLER}, for={OTHER}") == 403
    assert status(f"x-forwarded-for: {CALLER}") == 403
