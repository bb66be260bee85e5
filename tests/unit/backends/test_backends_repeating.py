"""What an exception says is taken for a repetition of what was sent when it is one, in whatever form."""

import json
import random
import string
import time

import msgspec
import pytest

from lingpai.authoring import Message
from lingpai.backends.engines.repeating import Effort, Sent
from lingpai.media import File, Image
from lingpai.wire.media import data_url, encode_base64

PROMPT = 'My neighbour\'s name is "Ilse Quant",\nand she has moved to Grönland.'
PNG = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR"
CHINESE = "我的邻居昨天搬到了格陵兰岛"


def repeats(said: str, sent: object) -> bool:
    return Sent(sent).is_repeated_in([said])


@pytest.mark.parametrize(
    "said",
    [
        PROMPT, repr(PROMPT), ascii(PROMPT), json.dumps(PROMPT), PROMPT.upper(), f"cannot answer {PROMPT[:25]!r} …",
        str(PROMPT.split()), f"no such name: {PROMPT[14:34]}", CHINESE, repr(CHINESE), json.dumps(CHINESE), CHINESE[4:8],
        ascii(CHINESE), repr(CHINESE.encode()), json.dumps(json.dumps(CHINESE)),
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


def test_a_part_is_found_at_any_place():
    letters = "".join(random.Random(1).choices(string.ascii_lowercase, k=300))

    assert all(repeats(f"why: {letters[place : place + 12]}", [letters]) for place in range(289))
    assert not any(repeats(f"why 7 {letters[place : place + 11]} 0", [letters]) for place in range(290))


class Named(msgspec.Struct):
    title: str
    rows: dict[str, int]


@pytest.mark.parametrize(
    "sent",
    [{"alice-smith-1980": 1}, [{"a": [{"alice-smith-1980": None}]}], Named("x", {"alice-smith-1980": 1})],
)
def test_names_in_objects_are_the_callers(sent: object):
    assert repeats(repr("alice-smith-1980"), sent)


def test_names_that_the_protocol_or_the_author_gave_are_no_texts_of_the_caller():
    sent = {"messages": [{"role": "user", "content": [{"type": "text", "text": "Hi"}]}], "top_words": 3}

    assert not Sent(sent, known_names={"top_words"}).is_repeated_in(
        ["top_words: no user message of type text"]
    )
    assert repeats("top_words", sent)
    assert repeats("no such role: gardener", {"role": "gardener"})
    assert repeats("no such type: gardener", {"input": {"type": "gardener"}})


@pytest.mark.parametrize(
    "number", [4111111111111111, 123456, -4111111111111111, 123456.5, 41111111.0, 0.1234567]
)
def test_numbers_of_many_digits_are_the_callers(number: float):
    assert repeats(f"bad {number}", [{"input": number}])
    assert repeats(f"bad {number:.0f}" if number == int(number) else f"bad '{number}'", {number: "x"})
    assert not repeats("bad 12345 of 99", [12345, number, 99, True, float("inf")])


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_bytes_are_compared_as_text(kind):
    assert repeats(f"cannot answer {PROMPT!r}", [kind(PROMPT.encode())])
    assert repeats(f"cannot answer {CHINESE.encode()!r}", [kind(CHINESE.encode())])


def test_a_file_is_found_by_what_it_holds_however_it_was_sent():
    said = f"cannot answer {PROMPT!r}"

    assert repeats(said, {"input": encode_base64(PROMPT.encode())})
    assert repeats(said, {"input": data_url(PROMPT.encode(), "text/csv")})
    assert repeats("no file ilse-quant.csv", [File(b"x", name="ilse-quant.csv")])


def test_a_picture_is_compared_as_it_was_sent():
    url = "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJ" + "A" * 2_000_000

    for sent in (url, url.partition(",")[2]):
        assert repeats(f"not a picture: {url[30:90]}", {"input": sent})
        assert not repeats("cannot identify image file", [{"input": sent}])
    assert not repeats("cannot identify image file", [Image(PNG + bytes(range(256)) * 9000)])


def test_a_text_is_no_picture_because_of_its_first_letters():
    sent = [File(b"BMW, " * 2000 + PROMPT.encode() + b"VW, " * 2000)]

    assert repeats(f"no such car: {PROMPT}", sent)


def test_what_is_said_is_looked_through_to_its_end():
    said = "".join(random.Random(2).choices(string.digits, k=3900)) + PROMPT[10:28]

    assert repeats(said, [PROMPT])
    assert not repeats(said[:3900], [PROMPT])
    assert repeats("1" * 4001, ["why"])


def test_more_than_can_be_looked_through_is_taken_for_a_repetition():
    assert repeats("why", ["word " * 50_000])
    assert repeats("why", [list(range(10_000))])
    assert repeats("why", [File(b"word " * 50_000)])
    assert not repeats("why", ["word " * 30_000])


def test_effort_is_shared():
    effort = Effort(1000)

    assert [Sent(["word " * 100], effort=effort).is_repeated_in(["why"]) for _ in range(3)] == [
        False,
        True,
        True,
    ]
    assert Sent((), effort=effort).is_repeated_in(["why"])


def test_what_cannot_be_compared_is_taken_for_a_repetition():
    circle: list[object] = []
    circle.append(circle)

    assert repeats("why", [circle])
    assert repeats("why", [1 << 100_000])


def words(count: int) -> str:
    return "".join(random.Random(3).choices("abcdefgh ", k=count))


@pytest.mark.parametrize(
    "sent",
    [
        [words(60_000)] * 64, words(3_600_000), words(150_000), "ab" * 75_000, "aaaaaaaaaaab" * 12_000, "邻居昨天，" * 12_000,
        list(range(10**6, 10**6 + 3900)), list(range(10**6)), [{f"{n}word": n} for n in range(10**5)], [[]] * 10**6,
        ["iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJ" + "A" * 10**6] * 64, "QUJD" * 10**6, "\\u4e2d" * 25_000,
        [words(9 + n % 3)[n % 3:] + str(n) for n in range(3000)],
    ],
    ids=range(14),
)  # fmt: skip
def test_other_calls_wait_briefly_whatever_was_sent(sent: object):
    """A few milliseconds, on a machine of today. What is said is as long and as like it as can be."""
    messages = [words(3900), "aaaaaaaaaaac" * 300, "\\u4e2d" * 600]

    for said in messages:
        began = time.thread_time()
        repeats(said, sent)
        assert time.thread_time() - began < 0.1
