"""Counting with a model's own tokenizer."""

import asyncio
import json

import pytest

from lingpai.metering.counting import FileTokenizer, TokenCounter, TokenizerError

pytest.importorskip("tokenizers")


@pytest.fixture
def path(tmp_path):
    """A tokenizer of whole words, whose file asks for texts of a fixed length."""
    from tokenizers import Tokenizer, models, pre_tokenizers

    tokenizer = Tokenizer(models.WordLevel({"hello": 0, "?": 1}, unk_token="?"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.enable_truncation(3)
    tokenizer.enable_padding(length=10)
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    return tmp_path / "tokenizer.json"


def test_texts_are_counted_whole(path):
    """Neither cut nor filled up, as the file would have it."""
    assert FileTokenizer(path).count("hello hello hello hello you") == 5
    assert FileTokenizer(path).count("") == 0


@pytest.mark.parametrize("content", [None, "", "{}", json.dumps({"model": {"type": "unknown"}})])
def test_what_is_no_tokenizer_is_named(tmp_path, content):
    path = tmp_path / "tokenizer.json"
    if content is not None:
        path.write_text(content)

    with pytest.raises(TokenizerError, match=r"tokenizer\.json"):
        FileTokenizer(path)


def test_groups_are_counted_in_a_thread(path):
    counter = TokenCounter()

    counts = asyncio.run(counter.count(FileTokenizer(path), lambda: ["hello you", "hello"], lambda: iter(())))

    assert counts == [3, 0]
    counter.close()


def test_tokenizer_that_fails_is_logged_and_counts_nothing(caplog):
    class Broken:
        def count(self, text):
            raise RuntimeError("broken")

    counter = TokenCounter()

    assert asyncio.run(counter.count(Broken(), lambda: ["x"])) is None
    assert "a tokenizer failed" in caplog.text
    counter.close()
