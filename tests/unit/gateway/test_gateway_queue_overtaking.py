"""Who asks for much stops nobody else, and is not passed for ever either."""

import json

import pytest
from gateway_fakes import GOOD, FakeFront, model, principal
from gateway_limits import chat, limit, turn, wait

from lingpai.gateway import queue as queue_module
from lingpai.gateway.authenticate import Account


def shared_limit(stage, *limits, keys=("a", "b", "c")):
    """A limit that callers with keys of their own share."""
    subject = ("user", "usr_1")
    meters = stage.limiter.attach(subject, limits, stage.limiter.read_history(subject, limits))
    for name in keys:
        caller = principal(key_id=name)
        caller.account = Account(caller, meters)
        stage.keys.known[name.encode()] = caller
    return meters


def sent(stage):
    return [json.loads(body)["messages"][0]["content"] for _, body in stage.link.sent]


@pytest.fixture
def blocked(limited):
    """60 of 100 thousand tokens are held by a call of `c`, and a call of `a` waits for 90."""
    shared_limit(limited, "100k tokens/day wait 30s")
    limited.running, _ = chat(limited, key=b"c", text="running", max_tokens=60_000)
    limited.large, limited.large_front = chat(limited, key=b"a", text="large", max_tokens=90_000)
    assert sent(limited) == ["running"]
    return limited


def test_small_call_passes_a_large_one_of_another_key_that_waits(blocked):
    chat(blocked, key=b"b", text="small", max_tokens=2_000)

    assert sent(blocked) == ["running", "small"]
    assert blocked.gateway.queue.size == 1


def test_newcomer_never_passes_a_waiting_call_of_its_own_key(blocked, answer):
    chat(blocked, key=b"a", text="small", max_tokens=2_000)

    assert sent(blocked) == ["running"]
    answer(blocked.running, GOOD)
    turn(blocked)
    assert sent(blocked) == ["running", "large", "small"]


def test_waiting_call_that_fits_passes_one_that_does_not(blocked, answer):
    """Room for the small one comes back, not enough for the large one that stands before it."""
    filler, _ = chat(blocked, key=b"b", text="filler", max_tokens=30_000)
    chat(blocked, key=b"b", text="small", max_tokens=20_000)
    assert sent(blocked) == ["running", "filler"]

    answer(filler, GOOD)
    turn(blocked)

    assert sent(blocked) == ["running", "filler", "small"]


def test_call_that_was_passed_often_holds_the_line(blocked, answer, monkeypatch):
    monkeypatch.setattr(queue_module, "MOST_OVERTAKEN", 3)
    passing = [chat(blocked, key=b"b", text=f"small {number}", max_tokens=2_000)[0] for number in range(4)]

    assert sent(blocked) == ["running", "small 0", "small 1", "small 2"]
    for call in (*passing[:3], blocked.running):
        answer(call, GOOD)
    turn(blocked)

    assert sent(blocked)[4:] == ["large", "small 3"]


def test_call_that_has_waited_long_holds_the_line(blocked, monkeypatch):
    monkeypatch.setattr(queue_module, "PATIENCE_S", 0.02)
    wait(blocked, 0.03)

    _, front = chat(blocked, key=b"b", text="small", max_tokens=2_000)

    assert (sent(blocked), front.sent) == (["running"], b"")


def test_line_that_is_held_is_not_looked_at_without_end(blocked, monkeypatch):
    monkeypatch.setattr(queue_module, "PATIENCE_S", 0.0)
    chat(blocked, key=b"b", text="small", max_tokens=2_000)
    looks = []
    look = blocked.gateway.queue._look
    monkeypatch.setattr(blocked.gateway.queue, "_look", lambda line: (looks.append(line), look(line)))
    (line,) = blocked.gateway.queue.lines.values()
    blocked.gateway.queue._set_alarm(line)

    wait(blocked, 0.1)

    assert len(looks) <= 2


def test_room_that_just_came_back_belongs_to_those_who_wait(blocked, answer):
    answer(blocked.running, GOOD)
    chat(blocked, key=b"b", text="newcomer", max_tokens=9_000)
    turn(blocked)

    assert sent(blocked) == ["running", "large", "newcomer"]


def test_many_keys_that_wait_are_not_all_looked_at(limited, monkeypatch):
    monkeypatch.setattr(queue_module, "MOST_LOOKED_AT", 2)
    shared_limit(limited, "100k tokens/day wait 30s", keys=("a", "b", "c", "d"))
    chat(limited, key=b"d", text="running", max_tokens=60_000)
    for key in (b"a", b"b", b"c"):
        chat(limited, key=key, text="large", max_tokens=90_000)
    (line,) = limited.gateway.queue.lines.values()

    assert [place.key for place in line.firsts()] == ["a", "b"]


def test_refusal_speaks_of_the_callers_own_call(limited, error_of):
    """Never of what the call before it asked for."""
    shared_limit(limited, "100k tokens/day wait 1s")
    chat(limited, key=b"c", text="running", max_tokens=60_000)
    chat(limited, key=b"a", text="large", max_tokens=90_000)
    _, front = chat(limited, key=b"b", text="medium", max_tokens=50_000)

    wait(limited, 1.05)

    message = error_of(front)["message"]
    assert front.head["status"] == "429 Too Many Requests"
    assert "it needs at least 500" in message
    assert "it needs at least 900" not in message


def test_call_that_would_fit_is_not_told_of_another_ones_amount(blocked, monkeypatch):
    monkeypatch.setattr(queue_module, "PATIENCE_S", 0.0)
    small, _ = chat(blocked, key=b"b", text="small", max_tokens=2_000)

    refusal = small.place.refusal

    assert refusal.wanted == small.weight.least.tokens < blocked.large.weight.least.tokens
    assert refusal.wait_s == 30


def test_call_that_can_never_fit_does_not_stand_in_line(blocked):
    _, front = chat(blocked, key=b"b", text="giant", max_tokens=500_000)

    assert front.head["status"] == "429 Too Many Requests"
    assert front.head["x-should-retry"] == "false"


FORM = (
    b'--x\r\ncontent-disposition: form-data; name="model"\r\n\r\nacme/scribe\r\n'
    b'--x\r\ncontent-disposition: form-data; name="file"; filename="a.wav"\r\ncontent-type: audio/wav\r\n\r\nRIFF\x00\xff'
    b"\r\n--x--\r\n"
)


def form_call(stage):
    front = FakeFront()
    headers = [(b"content-type", b"multipart/form-data; boundary=x")]
    return stage.call(b"/v1/audio/transcriptions", FORM, front=front, headers=headers), front


def test_form_that_waits_survives_a_change_of_limits(limited, answer):
    limit(limited, "1 concurrent wait 30s")
    limited.serve(model(), model("acme/scribe", "automatic-speech-recognition"))
    first, _ = form_call(limited)
    _, front = form_call(limited)

    limited.book.version += 1
    answer(first, {"text": "hello"})
    turn(limited)

    assert len(limited.link.sent) == 2, front.sent
    (_, before), (_, after) = limited.link.sent
    assert before.count(b"RIFF\x00\xff") == after.count(b"RIFF\x00\xff") == 1
    assert after.count(b'name="model"') == 1


def test_json_call_that_takes_all_steps_again_repeats_no_header(limited, answer):
    limit(limited, "1 concurrent wait 30s")
    first, _ = chat(limited)
    second, front = chat(limited)
    second.extra_headers = b"x-lingpai-dropped-params: top_k\r\n"

    limited.book.version += 1
    answer(first, GOOD)
    turn(limited)
    answer(second, GOOD)

    assert "x-lingpai-dropped-params" not in front.head
