import pytest

from lingpai.backends.engines.estimate import estimate_texts, estimate_tokens, strings_in


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("", 0),
        ("   \n", 0),
        ("hello", 1),
        ("hello world", 2),
        ("internationalization", 3),
        ("你好，世界", 5),
        ("こんにちは", 5),
        ("hi!", 2),
        ("GPT 模型", 3),
    ],
)
def test_characters_words_and_marks_are_counted_by_the_documented_rule(text, tokens):
    assert estimate_tokens(text) == tokens


def test_texts_add_up():
    assert estimate_texts(["hello world", "你好"]) == 4


def test_only_text_is_counted_in_a_json_value():
    value = {"a": "hello", "b": ["world", 1, {"c": "again"}], "image": "data:image/png;base64,AAAA"}

    assert list(strings_in(value)) == ["hello", "world", "again"]
