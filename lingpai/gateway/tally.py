"""How many tokens a call used: as the backend reports, else counted by the model's own tokenizer, else estimated."""

import asyncio
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Protocol

from lingpai.wire import tasks
from lingpai.wire.answer_texts import answer_texts, estimate_answer, stream_texts
from lingpai.wire.prompt_media import TOKENS_PER_MEDIUM
from lingpai.wire.prompt_size import messages_and_media, prompt_size, prompt_texts
from lingpai.wire.token_estimate import BYTES_PER_TOKEN, TOKENS_PER_MESSAGE
from lingpai.wire.usage import Usage, is_credible

if TYPE_CHECKING:
    from lingpai.gateway.exchange import Exchange

Then = Callable[[], None]

TEXT_TASKS: Final = tasks.GENERATION | {tasks.EMBEDDING, tasks.RERANK}
"""Models of these tasks have tokens, whether their backend says how many or not."""


class Counter(Protocol):
    """Runs tokenizers (metering's counter)."""

    async def count(self, tokenizer: Any, *texts: Callable[[], Any]) -> list[int] | None:
        """The tokens of each of `texts`, or None."""
        ...


def believe(exchange: "Exchange", reported: Usage | None) -> Usage | None:
    """What a backend has reported, unless it cannot be: negative, absurd, or nothing at all for a text."""
    if reported is None:
        return None
    backend = exchange.model.backend
    if not is_credible(reported):
        exchange.gateway.complaints.about(
            backend.name, "reports a usage that cannot be", _counts(reported), exchange.request_id
        )
        return None
    if (
        not (reported.prompt_tokens or reported.completion_tokens)
        and exchange.model.task in TEXT_TASKS
        and backend.kind != "worker"
    ):
        return None
    return reported


def fill(exchange: "Exchange", then: Then, *, answer: bytes = b"") -> None:
    """Fill `exchange.usage`, which the backend has not, and go on with `then`: at once, unless a tokenizer counts.

    `answer` is the unary answer; a stream knows itself what was handed on.
    """
    if exchange.model.task in TEXT_TASKS:
        if exchange.model.tokenizer is not None:
            gateway = exchange.gateway
            gateway.counting.add(exchange)
            gateway.jobs.start("count tokens", _count(exchange, answer, then))
            return
        exchange.usage = estimated(exchange, answer)
    then()


def estimated(exchange: "Exchange", answer: bytes = b"") -> Usage | None:
    """The usage until now by rule of thumb; None for a model without tokens."""
    if exchange.model.task not in TEXT_TASKS:
        return None
    size = prompt_size(exchange.body)
    completion = 0
    if exchange.stream is not None:
        completion = exchange.stream.tokens_so_far()
    elif answer and exchange.model.task in tasks.GENERATION:
        completion = estimate_answer(answer)
    return Usage(prompt_tokens=size.likely, completion_tokens=completion, estimated=True)


def roughly(exchange: "Exchange") -> Usage | None:
    """The usage until now without looking at what was sent and answered; None for a model without tokens."""
    if exchange.model.task not in TEXT_TASKS:
        return None
    completion = 0 if exchange.stream is None else exchange.stream.tokens_so_far()
    prompt = len(exchange.body) // BYTES_PER_TOKEN
    return Usage(prompt_tokens=prompt, completion_tokens=completion, estimated=True)


async def _count(exchange: "Exchange", answer: bytes, then: Then) -> None:
    usage = None
    try:
        usage = await _counted(exchange, answer)
    except asyncio.CancelledError:
        pass  # the server stops: an estimate has to do, and the record must be written
    finally:
        exchange.gateway.counting.discard(exchange)
        if not exchange.is_over or exchange.is_leaving:  # it may have ended otherwise meanwhile
            exchange.carry_on(partial(_go_on, exchange, usage, answer, then))


def _go_on(exchange: "Exchange", counted: Usage | None, answer: bytes, then: Then) -> None:
    exchange.usage = estimated(exchange, answer) if counted is None else counted
    exchange.is_counted = counted is not None
    then()


async def _counted(exchange: "Exchange", answer: bytes) -> Usage | None:
    stream = exchange.stream
    body = exchange.body
    if stream is None:
        read = partial(answer_texts, answer)
    elif stream.kept is None:
        return None  # it was too long to be kept
    else:
        read = partial(stream_texts, stream.kept)
    has_answer = exchange.model.task in tasks.GENERATION
    texts = (partial(prompt_texts, body), read) if has_answer else (partial(prompt_texts, body),)
    counts = await exchange.gateway.counter.count(exchange.model.tokenizer, *texts)
    if counts is None:
        return None
    messages, media = messages_and_media(body)
    # What the chat template adds, and what a model makes of a picture, a tokenizer does not know.
    prompt = counts[0] + messages * TOKENS_PER_MESSAGE + media * TOKENS_PER_MEDIUM
    return Usage(prompt_tokens=prompt, completion_tokens=counts[1] if has_answer else 0)


def _counts(usage: Usage) -> str:
    return f"prompt {usage.prompt_tokens}, completion {usage.completion_tokens}"[:200]
