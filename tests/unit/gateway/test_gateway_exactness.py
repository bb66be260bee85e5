"""Hundreds of calls that end in every way there is: no limit is ever exceeded, nothing is left over, and counters equal
the records.
"""

import asyncio
import json
import random
import time

import pytest
from gateway_fakes import GOOD, STREAM_HEAD, chunk, model, principal
from gateway_limits import PRICE, chat, limit, turn

from lingpai.lane.upstream import Failure
from lingpai.quotas.calendar_meter import CalendarMeter

LIMITS = ("300/day", "60000 tokens/day wait 1s", "0.2 USD/day", "12 concurrent wait 1s")


class Play:
    """Calls of one caller, and the model of what they may do next."""

    def __init__(self, stage, meters, seed, keys=(b"sk-lp-known",)):
        self.stage, self.meters, self.random = stage, meters, random.Random(seed)
        self.keys = keys
        self.open = []
        self.fronts = []
        self.left = []

    def begin(self):
        fields = {"n": self.random.choice([1, 1, 2])}
        if self.random.random() < 0.6:
            fields["max_tokens"] = self.random.randrange(1, 400)
        text = "words " * self.random.randrange(1, 60)
        key = self.random.choice(self.keys)
        call, front = chat(self.stage, text=text, stream=self.random.random() < 0.5, key=key, **fields)
        self.open.append((call, front))
        self.fronts.append(front)

    def step(self):
        if not self.open or self.random.random() < 0.35:
            self.begin()
            return
        call, front = self.random.choice(self.open)
        choices = [self.leave, self.stop]
        if call.is_admitted and not call.is_over and call.upstream is not None:
            choices += [self.answer, self.fail, self.error, self.garbage] * 2
            choices += [self.begin_stream if call.stream is None else self.piece] * 12
            if call.stream is not None:
                choices = [self.leave, self.stop, self.fail, self.finish, self.finish] + [self.piece] * 8
        self.random.choice(choices)(call, front)

    def leave(self, call, front):
        self.left.append(front)
        front.call = None
        call.caller_left()

    def stop(self, call, front):
        if self.random.random() < 0.5:
            call.stop()

    def usage(self):
        return self.random.choice([
            None,
            {"prompt_tokens": self.random.randrange(200), "completion_tokens": self.random.randrange(300)},
            {"prompt_tokens": self.random.randrange(200), "completion_tokens": self.random.randrange(9000)},
            {"prompt_tokens": -1, "completion_tokens": 10**20},
            {"prompt_tokens": "x"},
        ])  # fmt: skip

    def answer(self, call, front):
        if call.stream is None:
            call.response_started(200, {b"content-type": b"application/json"})
            call.response_data(chat_answer(self.usage()))
            call.upstream = None
            call.response_finished()

    def error(self, call, front):
        if call.stream is None:
            call.response_started(self.random.choice([400, 429, 500]), {b"content-type": b"application/json"})
            call.response_data(b'{"error": {"message": "no"}}')
            call.upstream = None
            call.response_finished()

    def garbage(self, call, front):
        if call.stream is None:
            call.response_started(200, {b"content-type": b"application/json"})
            call.response_data(b"<html>")
            call.upstream = None
            call.response_finished()

    def fail(self, call, front):
        call.upstream = None
        call.response_failed(self.random.choice(list(Failure)), "detail")

    def begin_stream(self, call, front):
        if b'"stream":true' in call.body.replace(b" ", b""):
            call.response_started(200, STREAM_HEAD)

    def piece(self, call, front):
        if call.stream is not None:
            call.response_data(chunk("word " * self.random.randrange(1, 30)))

    def finish(self, call, front):
        usage = self.usage()
        if usage is not None:
            call.response_data(chunk_with(usage))
        call.upstream = None
        call.response_finished()

    def write_records(self):
        """The journal's turn: most records are written, some cannot be, and some are of which the disk does not say so."""
        journal = self.stage.journal
        waiting, journal.waiting = journal.waiting, []
        unwritten = journal.records[len(journal.records) - len(waiting) :]
        del journal.records[len(journal.records) - len(waiting) :]
        for record, then in zip(unwritten, waiting, strict=True):
            is_written = self.random.choice([True] * 18 + [None, False])
            if is_written is not False:
                journal.records.append(record)
            then(is_written)

    def check_limits(self):
        for meter in self.meters:
            assert 0 <= meter.reserved <= meter.used <= meter.amount
            assert meter.used_at(time.time()) <= meter.amount

    def close(self):
        for call, front in self.open:
            self.leave(call, front)
        turn(self.stage)
        self.write_records()

    def check_ends(self):
        """Who stays is answered once, and who has left never."""
        for front in self.fronts:
            assert len(front.ended) == (0 if front in self.left else 1)


def chat_answer(usage):
    return json.dumps({**GOOD, "choices": [{"message": {"content": "some words"}}], "usage": usage}).encode()


def chunk_with(usage):
    return b"data: " + json.dumps({"choices": [], "usage": usage}).encode() + b"\n\n"


def play_out(stage, play, *, before_step=lambda: None):
    for _ in range(600):
        before_step()
        play.step()
        play.check_limits()
        if play.random.random() < 0.3:
            turn(stage, 1)
            play.write_records()
            play.check_limits()
        play.open = [(call, front) for call, front in play.open if front.call is call]
    play.close()
    play.check_ends()


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("tokenizer", [None, "a tokenizer"])
def test_whatever_happens_nothing_is_left_over_and_counters_equal_the_records(
    limited, clock, seed, tokenizer
):
    limited.serve_only(model(price=PRICE, tokenizer=tokenizer, default_max_tokens=500))
    meters = limit(limited, *LIMITS)
    limited.journal.waits = True
    play = Play(limited, meters, seed)

    play_out(limited, play)

    records = limited.journal.records
    requests, tokens, money, places = meters
    assert {record.end_reason for record in records} >= {"complete", "client_gone"}
    assert [(meter.reserved, meter.on_room) for meter in meters] == [(0, None)] * 4
    assert places.used == limited.gateway.queue.size == len(limited.gateway.counting) == 0
    assert requests.used == sum(record.charged for record in records)
    assert tokens.used == sum(record.charged_tokens for record in records)
    assert money.used == sum(record.charged_cost for record in records)
    assert len({record.request_id for record in records}) == len(records)
    assert all(record.charged_tokens <= record.prompt_tokens + record.completion_tokens for record in records)
    assert all(record.charged_cost <= record.cost for record in records)
    assert asyncio.all_tasks(limited.gateway.loop) == set()


KEY_LIMITS = ("40/minute", "30000 tokens/minute wait 1s", "6 concurrent wait 1s")
USER_LIMITS = ("20000 tokens/1m", "60000 tokens/hour", "0.1 USD/1m", "0.2 USD/minute", "60/1m")


def attach(stage, subject, limits):
    return stage.limiter.attach(subject, limits, stage.limiter.read_history(subject, limits))


@pytest.mark.parametrize("seed", range(10))
def test_limits_that_keys_share_hold_at_every_step_while_windows_end(limited, clock, seed):
    """Two keys of one user, calendar windows and smooth rates, calls that outlast the window they began in."""
    began = clock.now
    limited.serve_only(model(price=PRICE, default_max_tokens=500))
    shared = attach(limited, ("user", "usr_1"), USER_LIMITS)
    own = [attach(limited, ("key", key_id), KEY_LIMITS) for key_id in ("k1", "k2")]
    for meters, key_id in zip(own, ("k1", "k2"), strict=True):
        limited.allow(principal(key_id=key_id), meters=(*meters, *shared), key=key_id.encode())
    limited.journal.waits = True
    play = Play(limited, (*own[0], *own[1], *shared), seed, keys=(b"k1", b"k2"))

    def pass_time():
        clock.now += play.random.choice([0.0, 0.0, 0.01, 0.3, 2.0])

    play_out(limited, play, before_step=pass_time)

    assert clock.now - began > 120
    assert [meter.reserved for meter in play.meters] == [0] * len(play.meters)
    for meter in play.meters:
        if isinstance(meter, CalendarMeter):
            assert meter.used == sum(charges_of(meter, limited.journal.records)), str(meter.limit)


def charges_of(meter, records):
    """What the records charge to a meter's window: all that a restart would find."""
    kind, id_ = meter.subject
    for record in records:
        if meter.starts_at <= record.started_at < meter.ends_at and (kind == "user" or record.key_id == id_):
            yield {"requests": record.charged, "tokens": record.charged_tokens}.get(
                meter.unit, record.charged_cost
            )
