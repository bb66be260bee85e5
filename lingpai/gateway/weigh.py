"""What a call may take of token and money limits: known before it runs only in part, so it is reserved for.

The caller's `max_tokens` bounds the answer, the request's size bounds the prompt. Where the caller names no length, the
backend is told one that fits into what was reserved, so that whoever obeys it stays within. What the prompt really
has is not known here: a quarter is added to the estimate of it, and reserving the upper bound is tried first.
"""

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import msgspec

from lingpai.errors import LingpaiError
from lingpai.gateway.tally import TEXT_TASKS
from lingpai.prices import Price
from lingpai.quotas.amounts import Amounts
from lingpai.wire import openai, tasks
from lingpai.wire.body import FIELDS
from lingpai.wire.inference import read_value
from lingpai.wire.openai import LENGTH_NAMES, OTHER_LENGTH_NAMES
from lingpai.wire.prompt_media import file_tokens
from lingpai.wire.prompt_size import PromptSize, most_tokens, prompt_size

if TYPE_CHECKING:
    from lingpai.gateway.exchange import Exchange

SMALLEST_ANSWER: Final = 16
"""Fewer tokens than this are not worth calling a model for."""

_OPENAI_NAMES: Final = LENGTH_NAMES[:2]
_CONTAINERS: Final = frozenset({
    "options", "parameters", "samplingparams", "extrabody", "generationconfig", "nvext",
})  # fmt: skip
"""Objects in which engines look for parameters of their own, folded like all names below."""
_HARMLESS: Final = frozenset({
    "model", "messages", "max_tokens", "stream", "stream_options", "temperature", "top_p", "top_k", "stop", "seed", "user",
    "presence_penalty", "frequency_penalty", "response_format", "logprobs", "top_logprobs",
})  # fmt: skip
"""Beside these names `max_tokens` is the only one that says how much an answer may have."""


def _folded(name: str) -> str:
    """`name` as the most lenient reader has it: in any case, with or without underscores."""
    return name.casefold().replace("_", "").replace("-", "")


_LENGTHS: Final = frozenset(map(_folded, (*LENGTH_NAMES, *OTHER_LENGTH_NAMES)))
_MINIMA: Final = frozenset({"mintokens", "minnewtokens", "minlength"})
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
    is_said_once: bool = False
    """Whether every backend reads `asked` out of the request as it is."""


NO_ANSWER: Final = Answers(None, 0, "")
_UNTOLD: Final = Answers(None, 1, "")
"""A form's: nothing in it is a length."""


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


def weigh_at_most(exchange: "Exchange", body: bytes) -> Weight | None:
    """The usual call, seen at a glance: weighed by its upper bound, which is all there is to know while so much is left.

    `least` is `most`, for the prompt is not estimated; refused with that, the call has to be weighed in full. None for
    calls that are not the usual: a chat that names its length plainly, for a backend that takes it so.
    """
    request, model = exchange.request, exchange.model
    if (
        type(request) is not openai.ChatRequest
        or type(request.max_tokens) is not int
        or request.n is not None
        or model.backend.kind == "worker"
        or _WANTS_COMPLETION_TOKENS.match(model.upstream_name)
        or body.count(b"[") != 1  # with the list of messages only, there are no pictures among them
        or not _HARMLESS.issuperset(FIELDS.decode(body))
    ):
        return None
    messages = len(request.messages or ())
    prompt = most_tokens(len(body), messages)
    most = amounts(model.price, prompt, request.max_tokens)
    answers = Answers(request.max_tokens, 1, "max_tokens", is_said_once=True)
    return Weight(most, most, PromptSize(prompt, prompt, messages), prompt, answers, request.max_tokens)


def weigh(exchange: "Exchange", body: bytes) -> Weight:
    """Weigh a call whose request to the backend is `body`.

    Raises LingpaiError `invalid_request` for a length or a number of answers that is none.
    """
    model, settings = exchange.model, exchange.gateway.settings
    prompt = _prompt(exchange, body)
    likely = min(prompt.likely + prompt.likely // 4 + 1, prompt.most)
    answers = NO_ANSWER
    if model.task in tasks.GENERATION:
        answers = _UNTOLD if exchange.sent_type else _answers(exchange, body, settings.max_choices)
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


def _prompt(exchange: "Exchange", body: bytes) -> PromptSize:
    """The size of what is sent: of a form, its texts and its files."""
    is_text = exchange.model.task in TEXT_TASKS
    if not exchange.sent_type:
        return prompt_size(body, is_text=is_text)
    size = prompt_size(exchange.body, is_text=is_text)
    files = [part for part in exchange.request.form.parts if part.filename is not None]
    tokens = sum(file_tokens(part.media_type, part.data) for part in files)
    return PromptSize(size.likely + tokens, size.most + tokens, size.messages, size.media + len(files))


def fit(weight: Weight, granted: Amounts, price: Price | None, body: bytes) -> bytes:
    """`body` with a length that stays within what was granted, under one name.

    Engines differ on which name for the length goes first, so a body that says two could be weighed as one and run as
    the other: all but one are taken out, unless there is but one.
    """
    answers = weight.answers
    if not answers.name or answers.is_said_once:
        return body
    length = answers.asked or max(_longest(weight, granted, price), min(SMALLEST_ANSWER, weight.longest))
    fields = FIELDS.decode(body)
    if answers.is_nested:
        nested = _with_length(_nested(fields), answers.name, length)
        return msgspec.json.encode({**fields, "parameters": nested})
    return msgspec.json.encode(_with_length(fields, answers.name, length))


def _with_length(fields: Mapping[str, msgspec.Raw], name: str, length: int) -> dict[str, Any]:
    """`fields` with the length under `name`, and no other name that some engine takes for one."""
    kept: dict[str, Any] = {}
    for each, value in fields.items():
        folded = _folded(each)
        if folded in _CONTAINERS:
            kept[each] = _without_lengths(value)
        elif folded not in _LENGTHS and (folded not in _MINIMA or _is_up_to(value, length)):
            kept[each] = value
    kept[name] = length
    return kept


def _without_lengths(raw: msgspec.Raw) -> Any:
    if not bytes(raw).startswith(b"{"):
        return raw
    names_out = _LENGTHS | _MINIMA
    return {name: value for name, value in FIELDS.decode(raw).items() if _folded(name) not in names_out}


def _is_up_to(raw: msgspec.Raw, most: int) -> bool:
    """Whether `raw` is a whole number, or null, that is not over `most`."""
    try:
        value = openai.whole_number("", raw)
    except LingpaiError:
        return False
    return value is None or value <= most


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
    fields = FIELDS.decode(body)
    is_nested = is_worker and "input" in fields
    given = _nested(fields) if is_nested else fields
    choices = openai.check_choices(given, max_choices) * _prompts(fields)
    names = LENGTH_NAMES if is_worker else _OPENAI_NAMES
    lengths = _lengths(given)
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
    return FIELDS.decode(inner) if inner.startswith(b"{") else {}


def _lengths(fields: Mapping[str, msgspec.Raw]) -> dict[str, int]:
    """The lengths in `fields`. What stands under a single engine's name counts if it is one, and is dropped if not."""
    told = {name: openai.check_length(name, fields.get(name)) for name in LENGTH_NAMES}
    for name in OTHER_LENGTH_NAMES:
        raw = fields.get(name)
        if raw is not None and _is_up_to(raw, openai.MAX_LENGTH) and not _is_up_to(raw, 0):
            told[name] = openai.whole_number(name, raw)
    return {name: length for name, length in told.items() if length is not None}


def _prompts(fields: Mapping[str, msgspec.Raw]) -> int:
    """How many prompts a request has: `prompt` and a worker's `input` may be lists of texts, or of lists of ids."""
    embedded = bytes(fields.get("prompt_embeds", b""))  # vLLM's: prompts beside the texts
    more = 0 if embedded in (b"", b"null") else _items(embedded)
    return _items(bytes(fields.get("prompt") or fields.get("input") or b"")) + more


def _items(raw: bytes) -> int:
    """How many texts, or lists of ids, a value is a list of; 1 when it is none."""
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
