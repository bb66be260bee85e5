"""Hundreds of calls that end in every way there is: no limit is ever exceeded, nothing is left over, and counters equal
the records.
"""

import asyncio
import json
import random

import pytest
from gateway_fakes import GOOD, STREAM_HEAD, FakeFront, chunk, model
from gateway_limits import PRICE, chat, limit, turn

from lingpai.lane.upstream import Failure

LIMITS = ("300/day", "60000 tokens/day wait 1s", "0.2 USD/day", "12 concurrent wait 1s")


class Play:
    """Calls of one caller, and the model of what they may do next."""

    def __init__(self, stage, meters, seed):
        self.stage, self.meters, self.random = stage, meters, random.Random(seed)
        self.open = []
        self.overdrawn_and_withheld = [0, 0, 0]

    def begin(self):
        fields = {"n": self.random.choice([1, 1, 2])}
        if self.random.random() < 0.6:
            fields["max_tokens"] = self.random.randrange(1, 400)
        text = "words " * self.random.randrange(1, 60)
        call, front = chat(self.stage, text=text, stream=self.random.random() < 0.5, **fields)
        self.open.append((call, front))

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
        """The journal's turn: most records are written, some cannot be."""
        journal = self.stage.journal
        waiting, journal.waiting = journal.waiting, []
        unwritten = journal.records[len(journal.records) - len(waiting) :]
        del journal.records[len(journal.records) - len(waiting) :]
        for record, then in zip(unwritten, waiting, strict=True):
            is_written = self.random.random() < 0.9
            if is_written:
                journal.records.append(record)
            elif not then.__self__.is_admitted:
                # settled at once, because it took more than was reserved: stays charged (see gateway/charge.py)
                self.overdrawn_and_withheld[0] += record.charged_tokens
                self.overdrawn_and_withheld[1] += record.charged_cost
                self.overdrawn_and_withheld[2] += record.charged
            then(is_written)

    def check_limits(self):
        for meter in self.meters:
            assert 0 <= meter.reserved <= meter.used <= meter.amount

    def close(self):
        for call, front in self.open:
            self.leave(call, front)
        turn(self.stage)
        self.write_records()


def chat_answer(usage):
    return json.dumps({**GOOD, "choices": [{"message": {"content": "some words"}}], "usage": usage}).encode()


def chunk_with(usage):
    return b"data: " + json.dumps({"choices": [], "usage": usage}).encode() + b"\n\n"


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("tokenizer", [None, "a tokenizer"])
def test_whatever_happens_nothing_is_left_over_and_counters_equal_the_records(limited, seed, tokenizer):
    limited.serve_only(model(price=PRICE, tokenizer=tokenizer, default_max_tokens=500))
    meters = limit(limited, *LIMITS)
    limited.journal.waits = True
    play = Play(limited, meters, seed)

    for _ in range(600):
        play.step()
        play.check_limits()
        if play.random.random() < 0.3:
            turn(limited, 1)
            play.write_records()
            play.check_limits()
        play.open = [(call, front) for call, front in play.open if front.call is call]
    play.close()

    records = limited.journal.records
    requests, tokens, money, places = meters
    assert {record.end_reason for record in records} >= {"complete", "client_gone"}
    assert [(meter.reserved, meter.on_room) for meter in meters] == [(0, None)] * 4
    assert places.used == limited.gateway.queue.size == len(limited.gateway.counting) == 0
    assert requests.used == sum(record.charged for record in records) + play.overdrawn_and_withheld[2]
    assert tokens.used == sum(record.charged_tokens for record in records) + play.overdrawn_and_withheld[0]
    assert money.used == sum(record.charged_cost for record in records) + play.overdrawn_and_withheld[1]
    assert len({record.request_id for record in records}) == len(records)
    assert all(record.charged_tokens <= record.prompt_tokens + record.completion_tokens for record in records)
    assert all(record.charged_cost <= record.cost for record in records)
    assert asyncio.all_tasks(limited.gateway.loop) == set()
    assert all(isinstance(front, FakeFront) for _, front in play.open)
