"""The demonstration models: alone, and as a worker serves them."""

import math

import pytest

from lingpai.demo.eliza import reply_to
from lingpai.demo.eliza_script import KEYWORDS
from lingpai.demo.hashing_embedding import embed
from lingpai.demo.sentiment import sentiment


def cosine(one, two):
    return sum(a * b for a, b in zip(one, two, strict=True))


def best(text):
    return sentiment(text)[0]["label"]


@pytest.fixture(scope="module")
def worker(serve):
    return serve("lingpai.demo")


def test_all_three_are_served_and_say_what_they_are(worker):
    models = worker.ready["models"]

    assert {model["id"]: model["task"] for model in models} == {
        "lingpai/eliza": "chat",
        "lingpai/sentiment": "text-classification",
        "lingpai/hashing-embedding": "embedding",
    }
    assert all("Demonstration" in model["description"] for model in models)


def test_eliza_streams_word_by_word(worker):
    messages = [{"role": "user", "content": "I am sad"}]
    events = worker.events("/v1/chat/completions", model="lingpai/eliza", messages=messages)

    assert len(events) > 5
    answer = worker.text("/v1/chat/completions", model="lingpai/eliza", messages=messages)
    assert answer == "I am sorry to hear that you are sad."


def test_eliza_stops_at_max_tokens(worker):
    messages = [{"role": "user", "content": "I am sad"}]
    body = worker.post("/v1/chat/completions", model="lingpai/eliza", messages=messages, max_tokens=3).json()

    assert body["choices"][0]["message"]["content"] == "I am sorry"
    assert body["choices"][0]["finish_reason"] == "length"


@pytest.mark.parametrize(
    ("said", "answer"),
    [
        ("Hello!", "How do you do. What is on your mind?"),
        ("I want a dog.", "What would it mean to you if you got a dog?"),
        ("My mother doesn't like me.", "Tell me more about your family."),
        ("You are like my father.", "What likeness do you see?"),
        ("I think that you hate me", "Why do you think I hate you?"),
        ("Computers scare me", "Do computers worry you?"),
        ("I can't sleep", "How do you know that you cannot sleep?"),
        ("everybody laughs", "Really, everybody?"),
        ("qwertz", "Please go on."),
        ("", "Please go on."),
    ],
)
def test_eliza_takes_sentences_apart_and_turns_them_around(said, answer):
    assert reply_to([said]) == answer


def test_eliza_greets_who_has_not_spoken():
    assert reply_to([]).startswith("Good day")


def test_elizas_answers_take_turns():
    assert reply_to(["my car", "my boat"]) != reply_to(["my boat"]) == "Your boat?"


def test_eliza_remembers_and_comes_back_to_it():
    assert reply_to(["my sister left me", "qwertz"]) == "Let us talk further about why your sister left you."


def test_the_same_conversation_gets_the_same_answer():
    said = ["Hello", "I am unhappy", "my work is hard", "no", "hm"]

    assert reply_to(said) == reply_to(said)


def test_every_answer_of_the_script_can_be_put_together():
    for keyword in KEYWORDS.values():
        for rule in (*keyword.rules, *keyword.memory):
            for answer in rule.answers:
                parts = [int(digit) for digit in answer if digit.isdigit()]
                assert all(part <= len(rule.pattern) for part in parts)
                assert not answer.startswith("=") or answer[1:] in KEYWORDS


@pytest.mark.parametrize(
    ("text", "label"),
    [
        ("I love this, it works great", "positive"),
        ("The worst purchase I have made", "negative"),
        ("The table has four legs", "neutral"),
        ("not good", "negative"),
        ("It's not bad", "positive"),
        ("I don't recommend it", "negative"),
        ("这家店的服务非常好，强烈推荐", "positive"),
        ("质量太差了，很失望", "negative"),
        ("一点也不好吃", "negative"),
        ("没有问题", "positive"),
        ("桌子有四条腿", "neutral"),
        ("", "neutral"),
    ],
)
def test_sentiment_reads_chinese_and_english_with_negation(text, label):
    assert best(text) == label


def test_scores_are_sorted_and_add_up_to_one():
    scores = [each["score"] for each in sentiment("很好但是有点贵 very good but slow")]

    assert scores == sorted(scores, reverse=True)
    assert math.isclose(sum(scores), 1)


def test_intensifiers_count():
    by_label = [
        {each["label"]: each["score"] for each in sentiment(f"{word} good")}
        for word in ("slightly", "", "very")
    ]
    weak, plain, strong = (scores["positive"] for scores in by_label)

    assert weak < plain < strong


@pytest.mark.parametrize(
    ("text", "near", "far"),
    [
        ("The cat sits on the mat", "A cat is sitting on a mat", "Stock prices fell sharply today"),
        ("今天天气很好", "今天的天气真好", "股票价格大幅下跌"),
    ],
)
def test_similar_sentences_come_out_closer(text, near, far):
    assert cosine(embed(text), embed(near)) > cosine(embed(text), embed(far)) + 0.2


@pytest.mark.parametrize("text", ["hello", "", "!!!", "你好", "a" * 1000, "\ud800"])
def test_every_text_has_a_vector_of_length_one(text):
    assert math.isclose(cosine(embed(text), embed(text)), 1)


def test_the_embedding_takes_dimensions_within_bounds(worker):
    model = "lingpai/hashing-embedding"
    body = worker.post("/v1/embeddings", model=model, input=["a", "b"], dimensions=64).json()
    assert [len(each["embedding"]) for each in body["data"]] == [64, 64]

    refused = worker.post("/v1/embeddings", model=model, input="a", dimensions=8)
    assert refused.status_code == 400
    assert refused.json()["error"]["message"].startswith("`dimensions`: expected `int` >= 16. Its schema: {")


def test_sentiment_classifies_a_batch(worker):
    output = worker.post("/v1/inference", model="lingpai/sentiment", input=["很好", "very bad"]).json()[
        "output"
    ]

    assert [each[0]["label"] for each in output] == ["positive", "negative"]
