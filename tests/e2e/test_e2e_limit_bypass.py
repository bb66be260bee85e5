"""Requests made to use more than their limits: what the engine really spent is compared with the limit.

The engine is as lenient as all real ones together: it matches names in any case, takes the last of several, prefers
lengths of its own, puts every text of a request into its prompt, and always writes as much as it may. It says truly what
it has used. The server's own count proves nothing here, because it never goes over a limit.
"""

import asyncio
import json
from dataclasses import dataclass, field
from typing import Any

import pytest

from tests.e2e.raw_http import RawConnection, get, post, post_bytes
from tests.fakes.openai_engine import EngineCall, chunk

CHAT = "/v1/chat/completions"
GENERATE = "/api/v1/generate"
INFERENCE = "/api/v1/models/fake/chat/inference"
MODEL = "fake/chat"
LIMIT = 12_000
CALLS = 12
UNBOUNDED = 3000
"""How much the engine writes when nobody tells it to stop."""
TOKENS_PER_PICTURE = 1000
LONG = "long text " * 700
PICTURE = "data:image/png;base64," + "A" * 4000
MESSAGES = [{"role": "user", "content": "Say something."}]
LENGTHS = (
    "n_predict",
    "num_predict",
    "max_output_tokens",
    "max_new_tokens",
    "max_completion_tokens",
    "max_tokens",
)


@dataclass
class GreedyEngine:
    """Uses all that it can, and remembers how much, and for which models."""

    spent: int = 0
    calls: int = 0
    models: set[str] = field(default_factory=set)

    async def __call__(self, call: EngineCall) -> None:
        pairs = json.loads(call.body, object_pairs_hook=lambda pairs: pairs)
        fields: dict[str, Any] = {}
        for name, value in pairs:
            fields[name.casefold()] = _plain(value)
        prompt, answer = _prompt_tokens(fields), _length(fields) * _choices(fields)
        self.models.add(fields["model"])
        self.calls += 1
        self.spent += prompt + answer
        usage = {"prompt_tokens": prompt, "completion_tokens": answer, "total_tokens": prompt + answer}
        choice = {"index": 0, "message": {"content": "x"}, "text": "x", "finish_reason": "stop"}
        await call.answer({"id": "x", "choices": [choice], "usage": usage})


def _plain(value: Any) -> Any:
    """JSON with objects as lists of pairs, as dicts."""
    if isinstance(value, list):
        if value and all(isinstance(each, tuple) for each in value):
            return {name: _plain(each) for name, each in value}
        return [_plain(each) for each in value]
    return value


def _length(fields: dict[str, Any]) -> int:
    inner = {name.casefold(): each for name, each in (fields.get("options") or {}).items()}
    for name in LENGTHS:
        for place in (fields, inner):
            value = place.get(name)
            if isinstance(value, int | float):
                return int(value) if value > 0 else UNBOUNDED
    return UNBOUNDED


def _choices(fields: dict[str, Any]) -> int:
    prompts = fields.get("prompt")
    return max(fields.get("n") or 1, fields.get("best_of") or 1) * (
        len(prompts) if isinstance(prompts, list) else 1
    )


def _prompt_tokens(value: Any) -> int:
    """A word is a token; so are eight bytes without a blank. A picture counts only where a part says it is one."""
    if isinstance(value, str):
        return max(len(value.split()), len(value) // 8)
    if isinstance(value, list):
        return sum(map(_prompt_tokens, value))
    if not isinstance(value, dict):
        return 0
    if value.get("type") == "image_url" and " " not in str(value["image_url"].get("url")):
        return TOKENS_PER_PICTURE
    return sum(_prompt_tokens(each) for name, each in value.items() if name not in ("role", "type", "model"))


def raw_chat(**fields: Any) -> dict[str, Any]:
    return {"model": MODEL, "messages": MESSAGES, **fields}


def parts(*each: dict[str, Any]) -> dict[str, Any]:
    return raw_chat(messages=[{"role": "user", "content": list(each)}], max_tokens=20)


def picture(url: str) -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": url}}


WAYS: dict[str, tuple[str, dict[str, Any]]] = {
    "plain": (CHAT, raw_chat()),
    "own length": (CHAT, raw_chat(max_tokens=10, n_predict=4000)),
    "own endless length": (CHAT, raw_chat(max_tokens=10, n_predict=-1)),
    "length in options": (CHAT, raw_chat(max_tokens=10, options={"num_predict": 4000})),
    "length in another case": (CHAT, raw_chat(max_tokens=10, Max_Tokens=4000)),
    "two lengths": (CHAT, raw_chat(max_tokens=10, max_completion_tokens=500)),
    "answers in another case": (CHAT, raw_chat(max_tokens=10, N=1000)),
    "messages in another case": (CHAT, raw_chat(max_tokens=10, Messages=[{"role": "user", "content": LONG}])),
    "many answers": (CHAT, raw_chat(max_tokens=100, n=16)),
    "many prompts": ("/v1/completions", {"model": MODEL, "prompt": ["x"] * 40, "max_tokens": 100}),
    "another model in the parameters": (INFERENCE, {"input": "x", "parameters": {"Model": "plain-chat:8b"}}),
    "another model beside the prompt": (GENERATE, {"model": MODEL, "prompt": "x", "MODEL": "plain-chat:8b"}),
    "another model in another case": (CHAT, raw_chat(Model="plain-chat:8b")),
    "prompt in the parameters": (
        INFERENCE, {"input": "x", "parameters": {"messages": [{"role": "user", "content": LONG}], "max_tokens": 20}},
    ),
    "prompt in a parameter": (INFERENCE, {"input": "x", "parameters": {"chat_template": LONG, "max_tokens": 20}}),
    "text like a picture": (CHAT, parts({"type": "text", "text": PICTURE + 3 * LONG})),
    "text for a picture": (CHAT, parts(picture("data:image/png;base64," + 3 * LONG))),
    "input like a picture": (INFERENCE, {"input": "data:" + 3 * LONG, "parameters": {"max_tokens": 20}}),
    "prompt like a picture": ("/v1/completions", {"model": MODEL, "prompt": "data:" + 3 * LONG, "max_tokens": 20}),
    "prompt behind names of media": (
        "/v1/completions", {"model": MODEL, "prompt": ["input_audio", "data", 3 * LONG], "max_tokens": 20},
    ),
    "pictures": (CHAT, parts(picture(PICTURE), picture(PICTURE))),
    "addresses of pictures": (CHAT, parts(*[picture("https://a.example/b.png")] * 3)),
    "template": (CHAT, raw_chat(chat_template=LONG, max_tokens=20)),
    "template's values": (CHAT, raw_chat(chat_template_kwargs={"a": [LONG]}, max_tokens=20)),
    "prefix": (CHAT, raw_chat(prefix=LONG, max_tokens=20)),
    "file": (CHAT, parts({"type": "file", "file": {"file_data": LONG}})),
    "schema": (CHAT, raw_chat(guided_json={"description": LONG}, max_tokens=20)),
    "id": (CHAT, raw_chat(messages=[{"role": "tool", "content": "x", "tool_call_id": LONG}], max_tokens=20)),
    "unheard of": (CHAT, raw_chat(unheard_of={"deep": [{"er": LONG}]}, max_tokens=20)),
}  # fmt: skip


@pytest.mark.parametrize("blank", [b"", b"\n"], ids=["", "behind a blank"])
@pytest.mark.parametrize("way", WAYS)
def test_engine_never_spends_more_than_the_limit(relay, engine, key_name, way, blank):
    """Nobody gets more out of the engine than the limit, however they write it."""
    greedy = GreedyEngine()
    script = engine.script(greedy)
    key = relay.make_key(key_name, limits=[f"{LIMIT} tokens/day"], models=[MODEL])
    path, fields = WAYS[way]
    place = fields.get("parameters", fields)
    place = {**place, "script": script}
    fields = {**fields, "parameters": place} if "parameters" in fields else place
    body = blank + json.dumps(fields).encode()

    statuses = [post(relay.port, path, body, key=key).status for _ in range(CALLS)]

    (limit,) = get(relay.port, "/v1/key", key=key).json["limits"]
    assert set(statuses) <= {200, 400, 429}
    assert greedy.spent <= LIMIT
    assert limit["used"] == greedy.spent
    assert greedy.models <= {MODEL}
    assert greedy.calls == statuses.count(200)
    assert greedy.calls or set(statuses) == {400}


@pytest.mark.parametrize("tells", [True, False])
def test_leaving_between_the_last_word_and_the_usage_saves_nothing(relay, engine, key_name, tells):
    """The usage that the engine tells a moment later is what counts; where it tells none, the estimate."""
    key = relay.make_key(key_name, limits=[f"{LIMIT} tokens/day"])

    async def tells_late(call: EngineCall) -> None:
        await call.stream_head()
        await call.event(chunk(call.json, {"content": "word"}))
        await call.event(chunk(call.json, {}, "stop"))
        await asyncio.sleep(0.3)
        if tells:
            usage = {"prompt_tokens": 700, "completion_tokens": 800, "total_tokens": 1500}
            await call.event({**chunk(call.json, {}), "choices": [], "usage": usage})
        await call.wait_gone(5)

    script = engine.script(tells_late)
    with RawConnection(relay.port) as connection:
        connection.send(post_bytes(CHAT, raw_chat(stream=True, script=script, max_tokens=900), key=key))
        connection.read_until(b'"stop"')

    record = relay.record_of(engine.calls_of(script)[-1].headers["x-request-id"])
    assert (record["end_reason"], record["counted"]) == ("client_gone", "reported" if tells else "estimated")
    assert (record["charged_tokens"] == 1500) is tells


def test_huge_flat_body_holds_up_nobody(relay, relay_key):
    """A million names are refused before they are looked up."""
    fields = b",".join(b'"k%06d":1' % number for number in range(15_000))

    answer = post(relay.port, CHAT, b'{"model":"fake/chat","messages":[{}],' + fields + b"}", key=relay_key)

    assert answer.status == 400
    assert "1000 fields" in answer.error["message"]
