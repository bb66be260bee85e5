"""Limits of an OAuth client: one count for all of its tokens, exact, over restarts and changes."""

import asyncio
import collections
import contextlib

import pytest

from tests.e2e.client_tokens import TokenClient, ask, call, make_client
from tests.e2e.conftest import MakeServer
from tests.e2e.lingpai_server import LingpaiServer
from tests.e2e.load import call_many, read_unary
from tests.e2e.raw_http import chat, post_bytes
from tests.e2e.waiting import wait_until

pytestmark = pytest.mark.usefixtures("no_window_ends")


def charged(server: LingpaiServer, client: TokenClient, column: str = "charged") -> int:
    """What the records say that the client's calls have taken."""
    return sum(row[column] for row in server.records("client_id = ?", client.id))


def used(server: LingpaiServer, name: str) -> list[tuple[int, int]]:
    return [(row["used"], row["remaining"]) for row in server.cli_json("limits", "list", "--client", name)]


def test_tokens_of_a_client_share_its_limit_to_the_call(make_server: MakeServer, engine):
    """Several tokens at once, over many connections: the sum is exact, and another client has its own count."""
    server = make_server(engine.url).start()
    nightly = make_client(server, "nightly", limits=["300/day@Asia/Shanghai"])
    other = make_client(server, "other", limits=["300/day@Asia/Shanghai"])
    tokens = [nightly.token() for _ in range(5)]

    async def all_at_once() -> list[list[int]]:
        return await asyncio.gather(
            *(call_many(server.port, token, calls=100, callers=8) for token in tokens)
        )

    statuses = [status for each in asyncio.run(all_at_once()) for status in each]
    late = call(server, nightly.token())

    assert collections.Counter(statuses) == {200: 300, 429: 200}
    assert (late.status, late.error["code"]) == (429, "insufficient_quota")
    assert "client `nightly`" in late.error["message"]
    assert call(server, other.token()).status == 200
    assert charged(server, nightly) == 300
    assert used(server, "nightly") == [(300, 0)]


def test_token_and_money_limits_of_a_client_are_never_exceeded(make_server: MakeServer, engine):
    config = (
        f'[[models]]\ntarget = "{engine.url}"\nname = "engine"\n'
        'price = { input = "2.5", output = "10", currency = "USD" }\n'
    )
    server = make_server(config=config).start()
    nightly = make_client(server, "nightly", limits=["600 tokens/day", "0.003 USD/day"])
    tokens = [nightly.token() for _ in range(4)]

    async def all_at_once() -> None:
        await asyncio.gather(*(call_many(server.port, token, calls=60, callers=4) for token in tokens))

    asyncio.run(all_at_once())
    statuses = [call(server, tokens[number % 4]).status for number in range(80)]

    assert statuses[-1] == 429, "what others have reserved is free again, and soon used up"
    taken, paid = charged(server, nightly, "charged_tokens"), charged(server, nightly, "charged_cost")
    assert 0 < taken <= 600
    assert 0 < paid <= 3_000_000
    assert taken > 550 or paid > 2_700_000
    assert [row["client"] for row in server.cli_json("usage", "--by", "client")] == ["nightly"]


def test_count_goes_on_after_kill_9_with_old_and_new_tokens(make_server: MakeServer, engine):
    """Killed in the middle of calls: what was taken is still taken, what was not is still there, call for call."""
    server = make_server(engine.url).start()
    nightly = make_client(server, "nightly", limits=["200/month"])
    tokens = [nightly.token() for _ in range(4)]
    answered = asyncio.run(_call_until_killed(server, tokens, kill_after=60))

    server.start()
    again = [*tokens, nightly.token()]
    statuses = [call(server, again[number % 5]).status for number in range(210 - answered)]

    after = statuses.count(200)
    assert answered >= 60
    assert charged(server, nightly) == 200, (
        "of which the killed server may have recorded some that nobody heard of"
    )
    assert answered + after <= 200
    assert statuses == [200] * after + [429] * (len(statuses) - after)


def test_count_stays_over_changes_of_limit_client_and_secret(make_server: MakeServer, engine):
    """Raised, lowered, renamed, rotated, disabled and enabled: what is used stays used, from the next call on."""
    server = make_server(engine.url).start()
    nightly = make_client(server, "nightly", limits=["5/day"])
    first, second = nightly.token(), nightly.token()

    def until_refused() -> int:
        answers = [call(server, token).status for _ in range(6) for token in (first, second)]
        return answers.count(200)

    assert until_refused() == 5
    server.cli("limits", "set", "client", "nightly", "8/day")
    assert (until_refused(), used(server, "nightly")) == (3, [(8, 0)])
    server.admin("PATCH", f"/api/v1/clients/{nightly.id}", {"name": "hourly", "limits": ["6/day"]})
    assert (until_refused(), used(server, "hourly")) == (0, [(8, 0)])
    server.admin("PATCH", "/api/v1/clients/hourly", {"limits": ["none"], "disabled": True})
    assert call(server, first).error["code"] == "key_disabled"
    rotated = server.admin("POST", "/api/v1/clients/hourly/rotate", {"overlap": "0s"})
    server.admin("PATCH", "/api/v1/clients/hourly", {"disabled": False})
    assert until_refused() == 12  # no limit now
    server.admin("PUT", "/api/v1/limits", {"subject": "client", "id": "hourly", "limits": ["21/day"]})
    third = TokenClient(server, nightly.id, rotated["client_secret"]).token()
    assert [call(server, third).status, call(server, first).status] == [200, 429]
    assert charged(server, nightly) == 21


def test_a_token_is_told_of_its_own_situation(make_server: MakeServer, engine):
    """`GET /v1/key` and the explanation are about the token that asks, without any scope but its own."""
    server = make_server(engine.url).start()
    server.admin("POST", "/api/v1/users", {"name": "alice", "limits": ["100/day"]})
    nightly = make_client(
        server, "nightly", user="alice", limits=["7/day", "2 concurrent"], models=["fake/chat"]
    )
    token = nightly.token()
    assert call(server, token).status == 200

    own = ask(server, "/v1/key", token).json
    explained = ask(server, "/api/v1/limits/explain?model=fake/chat", token).json

    assert (own["object"], own["name"], own["client"]) == ("access_token", "nightly", nightly.id)
    assert own["id"] == token[6:18]
    assert own["models"] == ["fake/chat"]
    assert [(limit["subject"], limit["limit"], limit["used"]) for limit in own["limits"]] == [
        ("client", "7/day", 1),
        ("client", "2 concurrent", 0),
        ("user", "100/day", 1),
    ]
    assert (explained["key"], explained["client"]) == (None, {"id": nightly.id, "name": "nightly"})
    assert explained["user"]["name"] == "alice"
    assert [(line["subject"], line["remaining"]) for line in explained["data"]] == [
        ("client", 6),
        ("client", 2),
        ("user", 99),
    ]
    assert ask(server, "/api/v1/limits/explain?model=fake/embed", token).status in {403, 404}
    assert ask(server, "/api/v1/limits/explain?client=other", token).status == 403
    by_operator = server.cli_json("limits", "explain", "--client", "nightly", "--model", "fake/chat")
    assert by_operator["data"] == explained["data"]


async def _call_until_killed(server: LingpaiServer, tokens: list[str], *, kill_after: int) -> int:
    """Call with all tokens, 4 connections each, and kill the server after so many answers; how many came."""
    answered = 0

    async def caller(token: str) -> None:
        nonlocal answered
        request = post_bytes("/v1/chat/completions", chat(), key=token)
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            while True:
                writer.write(request)
                status, _, _ = await read_unary(reader)
                answered += status == 200
                if status == 429:
                    break
        writer.transport.abort()

    async def kill() -> None:
        while answered < kill_after:
            await asyncio.sleep(0.001)
        await asyncio.to_thread(server.kill)

    await asyncio.wait_for(asyncio.gather(kill(), *(caller(token) for token in tokens * 4)), 30)
    wait_until(lambda: server.process is not None and server.process.poll() is not None)
    return answered
