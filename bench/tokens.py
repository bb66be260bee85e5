"""The token endpoint: tokens a second, each of them on the disk, and calls with a token beside calls with a key."""

import json
import time
from collections.abc import Sequence
from statistics import median
from typing import Any

import httpx2

from bench.figures import Comparison, Figure, GroupResult, ratio_of_pairs
from bench.nginx import static_upstream
from bench.processes import BenchError
from bench.run import Run
from bench.server import LIMITS, Server, address, lingpai
from bench.wrk import CONNECTIONS, Load, Posted, put_under_load

FORM = "application/x-www-form-urlencoded"


def measure(run: Run) -> GroupResult:
    """One client that asks for tokens as fast as it can; then calls with one of them and with a key in turn."""
    seconds = int(run.pick(5, 2))
    with static_upstream(run) as upstream, lingpai(run, address(upstream.port)) as server:
        client = _create_client(server)
        wish = Posted("/oauth/token", FORM, _form(client))
        key, token = server.create_key("bench"), _token(server, wish)
        loads, with_key, with_token = [], [], []
        put_under_load(run, server.port, posted=wish, seconds=1)
        missing = 0
        for number in range(1, run.rounds + 1):
            before = _stored_at_last(server)
            loads.append(put_under_load(run, server.port, posted=wish, seconds=seconds))
            stored = _stored_at_last(server) - before
            missing += max(loads[-1].requests - stored, stored - loads[-1].requests - CONNECTIONS, 0)
            with_key.append(_calls(run, server, key, seconds))
            with_token.append(_calls(run, server, token, seconds))
            run.say(
                f"round {number}: {loads[-1].calls_per_s:,.0f} tokens/s; "
                f"{with_token[-1].calls_per_s:,.0f} calls/s with a token, {with_key[-1].calls_per_s:,.0f} with a key"
            )
    return _result(loads, with_key, with_token, missing)


def _stored_at_last(server: Server) -> int:
    """How many tokens are stored when the last request that wrk has left behind is done."""
    count = -1
    while count != (now := server.stored_tokens()):
        count = now
        time.sleep(0.1)
    return count


def _calls(run: Run, server: Server, credential: str, seconds: int) -> Load:
    load = put_under_load(run, server.port, keys=[credential], seconds=seconds)
    server.wait_until_drained()
    return load


def _create_client(server: Server) -> dict[str, Any]:
    transport = httpx2.HTTPTransport(uds=str(server.data / "admin.sock"))
    with httpx2.Client(transport=transport, base_url="http://localhost") as client:
        answer = client.post("/api/v1/clients", json={"name": "bench", "limits": list(LIMITS)})
    if answer.status_code != 201:
        raise BenchError(f"no client could be made: {answer.text}")
    made: dict[str, Any] = answer.json()
    return made


def _form(client: dict[str, Any]) -> str:
    return (
        "grant_type=client_credentials&scope=model%3Ainference"
        f"&client_id={client['client_id']}&client_secret={client['client_secret']}"
    )


def _token(server: Server, wish: Posted) -> str:
    answer = httpx2.post(
        f"http://127.0.0.1:{server.port}{wish.path}",
        content=wish.body,
        headers={"content-type": wish.content_type},
    )
    if answer.status_code != 200:
        raise BenchError(f"no token: {answer.text}")
    return str(json.loads(answer.text)["access_token"])


def _result(
    loads: Sequence[Load], with_key: Sequence[Load], with_token: Sequence[Load], missing: int
) -> GroupResult:
    speed = [load.calls_per_s for load in loads]
    key_speed = [load.calls_per_s for load in with_key]
    token_speed = [load.calls_per_s for load in with_token]
    return GroupResult(
        name="tokens",
        figures=[
            Figure(
                name="access tokens a second, client credentials",
                measured=median(speed),
                unit="/s",
                must=1000,
                goal=3000,
                is_higher_better=True,
                detail=f"each with its record in the database, on the disk before the answer; "
                f"p50 {median(load.p50_ms for load in loads):.0f} ms, {CONNECTIONS} connections",
            ),
            Figure(
                name="tokens answered and not stored, or the other way round",
                measured=missing,
                unit="tokens",
                must=0,
                detail="within the 64 requests under way when wrk stops",
            ),
            Figure(
                name="calls/s with a token against a key",
                measured=ratio_of_pairs(token_speed, key_speed),
                unit="×",
                must=0.95,
                goal=1.0,
                is_higher_better=True,
                detail="the same, within what two runs of the same thing differ by (5 %)",
            ),
        ],
        comparisons=[
            Comparison(
                title="Calls per second by credential",
                unit="calls/s",
                values={"API key": median(key_speed), "access token": median(token_speed)},
            )
        ],
        raw={"tokens_per_s": speed, "calls_per_s_key": key_speed, "calls_per_s_token": token_speed},
    )
