"""What an exception says is taken for a repetition of what was sent when it is one, in whatever form."""

import json

import pytest

from lingpai.authoring import Message
from lingpai.backends.engines.repeating import repeats
from lingpai.media import File, Image

PROMPT = 'My neighbour\'s name is "Ilse Quant",\nand she has moved to Grönland.'
CHINESE = "我的邻居昨天搬到了格陵兰岛"


@pytest.mark.parametrize(
    "said",
    [
        PROMPT, repr(PROMPT), ascii(PROMPT), json.dumps(PROMPT), PROMPT.upper(), f"cannot answer {PROMPT[:25]!r} …",
        str(PROMPT.split()), f"no such name: {PROMPT[14:34]}", CHINESE, repr(CHINESE), json.dumps(CHINESE), CHINESE[4:8],
    ],
)  # fmt: skip
def test_any_form_of_a_text_or_of_a_part_is_a_repetition(said: str):
    assert repeats(said, [PROMPT, CHINESE])


@pytest.mark.parametrize(
    "said",
    [
        "", "CUDA out of memory. Tried to allocate 2.00 GiB", "could not convert string to float", "name 'x' is not defined",
        "shapes (3,4) and (5,6) not aligned", "moved",
    ],
)  # fmt: skip
def test_what_has_a_word_in_common_at_most_is_none(said: str):
    assert not repeats(said, [PROMPT.replace("moved", "gone"), CHINESE])


@pytest.mark.parametrize(
    "sent",
    [
        {"messages": [{"role": "user", "content": PROMPT}]}, [Message(role="user", content=PROMPT)], {"input": {"text": [PROMPT]}},
        (PROMPT,), [File(PROMPT.encode(), media_type="text/plain")], [1, None, PROMPT],
    ],
)  # fmt: skip
def test_texts_are_found_wherever_they_stand(sent: object):
    assert repeats(f"cannot answer {PROMPT!r}", sent)
    assert not repeats("out of memory", sent)


def test_a_short_text_is_repeated_when_it_is_repeated_whole():
    assert repeats("no such pet: 'Bello'", ["Bello"])
    assert repeats("'Bello'", ["Where is Bello now?"])
    assert not repeats("no such pet", ["Bello"])
    assert not repeats("index 12 is out of range", ["12"])


def test_names_that_every_request_has_are_no_texts_of_the_caller():
    sent = {"model": "acme/cat", "messages": [{"role": "user", "content": [{"type": "text", "text": "Hi"}]}]}

    assert not repeats("acme/cat wants a user message of type text", sent)


def test_a_picture_is_compared_as_it_was_sent():
    url = "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJ" + "A" * 2_000_000

    assert repeats(f"not a picture: {url[:60]}", {"input": url})
    assert not repeats("cannot identify image file", [Image(bytes(range(256)) * 9), {"input": url}])


def test_a_long_message_is_looked_through_as_well():
    assert repeats("x" * 50_000 + PROMPT, [PROMPT])


def test_more_than_can_be_looked_through_is_taken_for_a_repetition():
    assert repeats("why", ["word " * 200_000] * 5)
    assert not repeats("why", ["word " * 200_000])


def test_what_cannot_be_compared_is_taken_for_a_repetition():
    circle: list[object] = []
    circle.append(circle)

    assert repeats("why", [circle])
