"""The log at its most talkative: neither a prompt nor a provider's key is in it, whatever a backend says back."""

import asyncio
import json

import pytest

from tests.e2e.raw_http import RawConnection, chat, post_bytes
from tests.fakes.openai_engine import EngineCall, FakeEngine, completion

PROVIDER_KEY = "provider-key-canary-5b0e7c"
PROMPT = "Hello, prompt-canary-e41d7a"
CONFIG = """
[server]
log_level = "debug"
log_format = "{form}"
log_calls = true

[[models]]
target = "{engine}"
name = "echoing"
api_key_env = "ECHOING_KEY"
"""


def echo(call: EngineCall) -> str:
    """What came in, as engines that are too helpful put it into their errors."""
    return f"{call.headers['authorization']} said {call.json['messages'][0]['content']}"


async def error_500(call: EngineCall) -> None:
    await call.answer({"error": {"message": echo(call)}}, status="500 Internal Server Error")


async def plain_503(call: EngineCall) -> None:
    await call.answer(echo(call).encode(), "content-type: text/plain", status="503 Service Unavailable")


async def reason(call: EngineCall) -> None:
    await call.answer({}, f"retry-after: {echo(call)}", status=f"500 {echo(call)}")


async def redirect(call: EngineCall) -> None:
    await call.answer(b"", f"location: http://127.0.0.1/{echo(call).replace(' ', '+')}", status="302 Found")


async def no_json(call: EngineCall) -> None:
    await call.answer(echo(call).encode())


async def wrong_shape(call: EngineCall) -> None:
    await call.answer({"choices": echo(call), "usage": {"prompt_tokens": echo(call)}})


async def no_http(call: EngineCall) -> None:
    await call.send(f"{echo(call)}\r\n\r\n".encode())


async def bad_header(call: EngineCall) -> None:
    await call.send(f"HTTP/1.1 200 OK\r\n{echo(call)}\r\n\r\n".encode())


async def compressed(call: EngineCall) -> None:
    await call.answer(completion(call.json), f"content-encoding: {echo(call)}")


async def broken_stream(call: EngineCall) -> None:
    await call.stream_head()
    await call.event({"choices": [{"index": 0, "delta": {"content": echo(call)}}]})
    await call.event(echo(call).encode())
    await asyncio.sleep(0.05)
    call.close(reset=True)


async def failing_stream(call: EngineCall) -> None:
    await call.stream_head()
    await call.event({"error": {"message": echo(call)}})
    await call.chunk(b"")


SAYINGS = [
    error_500, plain_503, reason, redirect, no_json, wrong_shape, no_http, bad_header, compressed, broken_stream,
    failing_stream,
]  # fmt: skip


@pytest.mark.parametrize("form", ["text", "json"])
def test_what_a_backend_says_back_is_not_in_the_log(make_server, engine: FakeEngine, form):
    """Each failure is told with the id of a call, and without what the backend said."""
    config = CONFIG.format(engine=engine.url, form=form)
    server = make_server(config=config, environment={"ECHOING_KEY": PROVIDER_KEY}).start()
    key = server.make_key("talker")

    ids = set()
    for saying in SAYINGS:
        body = chat(PROMPT, script=engine.script(saying), stream="stream" in saying.__name__)
        with RawConnection(server.port) as connection:
            connection.send(post_bytes("/v1/chat/completions", body, key=key))
            ids.add(connection.read_head()[1]["x-request-id"])
            connection.is_closed_within(0.1)  # a stream goes on until the backend breaks it off

    assert all(PROVIDER_KEY in call.headers["authorization"] for call in engine.calls_of(PROMPT))
    log = server.stderr
    assert "canary" not in log + server.stdout
    complaints = [line for line in log.splitlines() if "backend echoing" in line]
    assert len(complaints) >= 6
    if form == "json":
        assert {json.loads(line)["request_id"] for line in complaints} <= ids
    else:
        assert all(any(f"({each})" in line for each in ids) for line in complaints)
    assert server.stop() == 0
