"""What a call may take of token and money limits: known before it runs only in part, so it is reserved for.

The caller's `max_tokens` bounds the answer, the request's size bounds the prompt. Where the caller names no length, the
backend is told one that fits into what was reserved, so that whoever obeys it stays within. What the prompt really
has is not known here: a quarter is added to the estimate of it, and reserving the upper bound is tried first.
"""

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import msgspec

from lingpai.prices import Price
from lingpai.quotas.amounts import Amounts
from lingpai.wire import openai, tasks
from lingpai.wire.inference import LENGTH_NAMES, read_value
from lingpai.wire.prompt_size import PromptSize, prompt_size

if TYPE_CHECKING:
    from lingpai.gateway.exchange import Exchange

SMALLEST_ANSWER: Final = 16
"""Fewer tokens than this are not worth calling a model for."""

_OPENAI_NAMES: Final = LENGTH_NAMES[:2]
_FIELDS: Final = msgspec.json.Decoder(dict[str, msgspec.Raw])
# These of OpenAI's own models refuse `max_tokens`.
_WANTS_COMPLETION_TOKENS: Final = re.compile(r"(?:.*/)?(?:o[1-9]|gpt-5)")


class Answers(NamedTuple):
    """How long the answers of a call may become: `asked` tokens each (None: not said), `choices` of them."""

    asked: int | None
    choices: int
    name: str
    """The field that says so, or is to say it; empty when nothing can tell the backend."""
    is_nested: bool = False
    """Whether it stands in `parameters`."""


NO_ANSWER: Final = Answers(None, 0, "")


class Weight(NamedTuple):
    """What a call asks of its limits: at least and at most so much, and what that is made of."""

    least: Amounts
    most: Amounts
    prompt: PromptSize
    likely: int
    """Tokens of the prompt with a margin."""
    answers: Answers
    longest: int
    """The most tokens of each answer."""


def weigh(exchange: "Exchange", body: bytes) -> Weight:
    """Weigh a call whose request to the backend is `body`.

    Raises LingpaiError `invalid_request` for a length or a number of answers that is none.
    """
    model, settings = exchange.model, exchange.gateway.settings
    prompt = prompt_size(exchange.body)
    likely = min(prompt.likely + prompt.likely // 4 + 1, prompt.most)
    answers = NO_ANSWER
    if model.task in tasks.GENERATION and body.startswith(b"{"):
        answers = _answers(exchange, body, settings.max_choices)
    longest = answers.asked or model.default_max_tokens or settings.default_max_tokens
    least = answers.asked or min(SMALLEST_ANSWER, longest)
    return Weight(
        amounts(model.price, likely, least * answers.choices),
        amounts(model.price, prompt.most, longest * answers.choices),
        prompt,
        likely,
        answers,
        longest,
    )


def fit(weight: Weight, granted: Amounts, price: Price | None, body: bytes) -> bytes:
    """`body` with a length that stays within what was granted, and with one spelling of it.

    Readers of JSON differ on repeated names and on case, so a body that says two lengths could be weighed as one and
    run as the other: it is rewritten in any case.
    """
    answers = weight.answers
    if not answers.name:
        return body
    length = answers.asked or max(_longest(weight, granted, price), min(SMALLEST_ANSWER, weight.longest))
    if answers.is_nested:
        fields = _FIELDS.decode(body)
        inner = fields.get("parameters", msgspec.Raw(b"{}"))
        nested = openai.rewrite(bytes(inner), {answers.name: length})
        return openai.rewrite(body, {"parameters": msgspec.Raw(nested)})
    changes: dict[str, Any] = dict.fromkeys(LENGTH_NAMES)
    changes[answers.name] = length
    fields = _FIELDS.decode(body)
    changes.update((name, fields[name]) for name in ("n", "best_of") if name in fields)
    return openai.rewrite(body, changes)


def amounts(price: Price | None, prompt: int, completion: int) -> Amounts:
    """What a call with so many tokens takes at most."""
    tokens = prompt + completion
    if price is None:
        return Amounts(1, tokens)
    cost = price.highest_cost(prompt, completion)
    return Amounts(1, tokens, cost, 0) if price.currency == "USD" else Amounts(1, tokens, 0, cost)


def _longest(weight: Weight, granted: Amounts, price: Price | None) -> int:
    """The most tokens per answer that the grant has room for, behind the likely prompt."""
    most = granted.tokens - weight.likely
    if price is not None:
        money = granted.usd if price.currency == "USD" else granted.cny
        paid = price.tokens_for(money, weight.likely)
        most = most if paid is None else min(most, paid)
    return min(most // weight.answers.choices, weight.longest)


def _answers(exchange: "Exchange", body: bytes, max_choices: int) -> Answers:
    model = exchange.model
    is_worker = model.backend.kind == "worker"
    fields = _FIELDS.decode(body)
    is_nested = is_worker and "input" in fields
    given = _nested(fields) if is_nested else fields
    choices = openai.check_choices(given, max_choices) * _prompts(fields)
    names = LENGTH_NAMES if is_worker else _OPENAI_NAMES
    told = {name: openai.check_length(name, given.get(name)) for name in LENGTH_NAMES}
    lengths = {name: length for name, length in told.items() if length is not None}
    # Backends differ on which of two names goes first, so the larger counts.
    asked = max((lengths[name] for name in names if name in lengths), default=None)
    if asked is None:
        asked = max(lengths.values(), default=None)
    if is_worker and not _takes_length(model.parameters):
        return Answers(asked, choices, "")
    if _WANTS_COMPLETION_TOKENS.match(model.upstream_name) or "max_completion_tokens" in lengths:
        return Answers(asked, choices, "max_completion_tokens", is_nested)
    return Answers(asked, choices, "max_tokens", is_nested)


def _nested(fields: dict[str, msgspec.Raw]) -> dict[str, msgspec.Raw]:
    inner = bytes(fields.get("parameters", b""))
    return _FIELDS.decode(inner) if inner.startswith(b"{") else {}


def _prompts(fields: dict[str, msgspec.Raw]) -> int:
    """How many prompts a request has: `prompt` and a worker's `input` may be lists of texts, or of lists of ids."""
    raw = bytes(fields.get("prompt") or fields.get("input") or b"").lstrip()
    if not raw.startswith(b"["):
        return 1
    items = read_value(msgspec.Raw(raw))
    if items and isinstance(items[0], str | list):
        return len(items)
    return 1


def _takes_length(schema: Any) -> bool:
    """Whether a local model's function has a parameter for the length."""
    properties = schema.get("properties", {})
    return bool(schema.get("additionalProperties")) or not set(LENGTH_NAMES).isdisjoint(properties)


def check_parameters(fields: Mapping[str, Any], max_choices: int) -> None:
    """Refuse lengths and numbers of answers that are none, in any object of parameters.

    Raises LingpaiError `invalid_request`.
    """
    openai.check_choices(fields, max_choices)
    for name in LENGTH_NAMES:
        openai.check_length(name, fields.get(name))
