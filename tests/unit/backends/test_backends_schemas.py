"""What a model's page says of its input and output, from the function's own annotations."""

import asyncio
import sys
import threading
from typing import Any, TypedDict

import msgspec
import numpy as np
import PIL.Image
import pytest
from task_models import PNG_URL, png

from lingpai.authoring import TASKS as KNOWN
from lingpai.backends.engines import media_reading
from lingpai.backends.engines.binding import convert, parameters_schema, read_signature
from lingpai.backends.engines.fetching import Fetched, Fetcher, FetchError
from lingpai.backends.engines.holding import HeldBytes
from lingpai.backends.engines.media_reading import reading
from lingpai.backends.engines.media_values import without_fetching
from lingpai.backends.engines.output_media import list_pictures, picture, sound
from lingpai.backends.engines.tasks import TASKS, input_schema, output_schema
from lingpai.backends.engines.values import ResultError
from lingpai.errors import LingpaiError
from lingpai.media import Audio, Image
from lingpai.wire.media import data_url


def schema(function, task):
    return input_schema(read_signature(function, "acme/x"), task)


def image_function(image: Image): ...
def question_by_name(question: str, *, context: str, top_k: int = 1): ...
def context_first(context: str, *, question: str = "?"): ...
def unannotated(given): ...
def of_rows(rows: list[dict[str, float]]): ...
def of_numbers(rows: np.ndarray): ...


class Question(TypedDict):
    image: Image
    question: str


def of_object(given: Question): ...


def test_every_known_task_has_its_shape():
    assert KNOWN - set(TASKS) == {"text-generation"}  # which becomes chat or completion


def test_a_picture_is_a_string_with_its_media_type():
    assert schema(image_function, "image-classification") == schema(unannotated, "image-classification")
    assert schema(image_function, "image-to-text")["contentMediaType"] == "image/*"


def test_the_parts_of_an_input_are_properties():
    assert schema(question_by_name, "question-answering") == {
        "type": "object",
        "properties": {"question": {"type": "string"}, "context": {"type": "string"}},
        "required": ["question", "context"],
    }
    assert schema(context_first, "question-answering")["required"] == ["context"]


def test_an_object_is_described_as_annotated():
    described = schema(of_object, "visual-question-answering")

    assert set(described["$defs"]["Question"]["properties"]) == {"image", "question"}


@pytest.mark.parametrize("task", sorted(TASKS))
def test_an_unannotated_function_is_described_by_its_task(task):
    assert isinstance(schema(unannotated, task), dict)
    assert isinstance(output_schema(task), dict)


def test_rows_and_numbers_are_arrays():
    assert schema(of_rows, "tabular")["type"] == "array"
    assert "array" in schema(of_numbers, "tabular")["type"]


def test_a_parameter_may_be_a_picture():
    def function(image: Image, *, mask: Image | None = None): ...

    mask = parameters_schema(read_signature(function, "acme/x"))["properties"]["mask"]

    assert mask["anyOf"][0]["contentMediaType"] == "image/*"


# -- what counts as a picture and as sound


class DiffusersOutput:
    images = (PIL.Image.new("RGB", (2, 3)), PIL.Image.new("L", (2, 3)))


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "RGBA"])
def test_a_pillow_image_becomes_a_png(mode):
    made = picture(PIL.Image.new(mode, (2, 3)))

    assert (made.media_type, made.pil().size, made.pil().mode) == ("image/png", (2, 3), mode)
    assert len(list_pictures(DiffusersOutput())) == 2


@pytest.mark.parametrize(
    ("value", "count"),
    [
        (np.zeros((2, 2, 3)), 1),
        (np.zeros((4, 2, 2, 3)), 4),
        ([np.zeros((2, 2))] * 2, 2),
        ({"images": [Image(b"x")]}, 1),
    ],
)
def test_pictures_come_alone_and_in_lists(value, count):
    assert len(list_pictures(value)) == count


@pytest.mark.parametrize(
    "value", [None, "cat", b"cat", 5, np.zeros(3), np.zeros((2, 2, 7)), {"images": "cat"}]
)
def test_what_is_no_picture_is_refused(value):
    with pytest.raises(ResultError, match="picture"):
        list_pictures(value)


@pytest.mark.parametrize(
    "value",
    [Audio(b"x", media_type="audio/wav"), b"RIFF\0\0\0\0WAVE", (np.zeros(5), 8000), (8000, np.zeros(5)),
     {"audio": np.zeros((1, 5)), "sampling_rate": 8000}, {"audio": b"ID3"}],
)  # fmt: skip
def test_sound_comes_in_the_forms_that_libraries_return(value):
    assert sound(value).media_type.startswith("audio/")


@pytest.mark.parametrize(
    "value",
    [
        None,
        b"cat",
        "hello",
        np.zeros(5),
        (np.zeros(5), 0),
        (np.zeros((5, 9)), 8000),
        ([0.1], 8000),
        {"audio": 5},
    ],
)
def test_what_is_no_sound_is_refused(value):
    with pytest.raises(ResultError, match="sound"):
        sound(value)


def test_addresses_are_not_fetched_where_nothing_waits_for_them():
    with pytest.raises(ValueError, match="not fetched here"):
        without_fetching(Image, "https://example.com/a.png")


def test_a_picture_for_an_array_is_refused_with_a_hint_where_pillow_is_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "PIL.Image", None)

    with pytest.raises(LingpaiError, match=r"`input`: this server cannot decode pictures: .* install Pillow"):
        convert(PNG_URL, np.ndarray, field="input")


class FakeFetcher(Fetcher):
    """Brings a picture from every address but one, and notes them."""

    async def fetch(self, url, *, held_bytes=0):
        asked.append(url)
        held.append(held_bytes)
        if "inner" in url:
            raise FetchError("`inner` has no address on the public internet, so it is not fetched from")
        return Fetched(b"x", "image/png")


asked, held, reads = [], [], []


def read_all(*urls):
    for notes in (asked, held, reads):
        notes.clear()
    pictures = list(urls)

    def read(hook):
        reads.append(hook)
        return msgspec.convert(pictures, list[Image], dec_hook=hook)

    return asyncio.run(reading(FakeFetcher(), read, field="input"))


def test_each_address_is_fetched_once():
    found = read_all("https://a.example/1", "https://a.example/2", "https://a.example/1")

    assert [type(image) for image in found] == [Image] * 3
    assert asked == ["https://a.example/1", "https://a.example/2"]
    assert held == [0, 1]


def test_a_request_is_read_again_once_and_not_for_each_address():
    read_all(*(f"https://a.example/{number}" for number in range(16)))

    assert (len(asked), len(reads)) == (16, 2)


def test_an_address_that_cannot_be_had_is_the_callers_fault():
    with pytest.raises(
        LingpaiError, match="`input`: `inner` has no address on the public internet"
    ) as caught:
        read_all("https://inner.example/")

    assert caught.value.param == "input"


def test_a_request_names_so_many_addresses():
    with pytest.raises(LingpaiError, match="more than 16 addresses"):
        read_all(*(f"https://a.example/{number}" for number in range(17)))

    assert asked == []


@pytest.mark.parametrize("wanted", [list[PIL.Image.Image], list[np.ndarray]])
def test_pictures_are_decoded_outside_of_the_event_loop(monkeypatch, wanted):
    """It may take seconds, and other requests would wait."""
    decode, threads = Image.pil, []
    pictures = [PNG_URL, data_url(png(3, 3), "image/png")]

    def pil(picture):
        threads.append(threading.current_thread())
        return decode(picture)

    def read(hook):
        return convert(pictures, wanted, field="input", hook=hook)

    monkeypatch.setattr(Image, "pil", pil)

    found = asyncio.run(reading(Fetcher(), read, field="input"))

    assert len(found) == len(threads) == 2
    assert threading.current_thread() not in threads


@pytest.mark.parametrize(("wanted", "size"), [(list[PIL.Image.Image], 4 * 9), (list[np.ndarray], 3 * 9)])
def test_what_is_decoded_is_held_until_the_request_is_over(wanted, size):
    """Requests that queue hold it, so a worker has room for so much at a time."""
    room = HeldBytes(size + 5, refusal=media_reading._no_room)

    pictures = [data_url(png(3, 3), "image/png")]

    def read(hook):
        return convert(pictures, wanted, field="input", hook=hook)

    async def request(is_read, leave):
        found = await reading(Fetcher(), read, field="input", room=room)
        is_read.set()
        await leave.wait()
        return found

    async def run():
        is_read, leave = asyncio.Event(), asyncio.Event()
        first = asyncio.create_task(request(is_read, leave))
        await is_read.wait()
        with pytest.raises(LingpaiError, match="Try again") as caught:
            await asyncio.create_task(request(is_read, leave))
        leave.set()
        await first
        assert len(await asyncio.create_task(request(is_read, leave))) == 1
        return caught.value

    error = asyncio.run(asyncio.wait_for(run(), 30))

    assert (error.code, error.headers) == ("backend_unavailable", {"retry-after": "5"})


def test_what_is_decoded_for_a_caller_who_has_left_is_held_by_nobody():
    room = HeldBytes(10, refusal=media_reading._no_room)

    async def request():  # which ends while a thread still decodes
        return room.hold()

    async def run():
        take = await asyncio.create_task(request())
        await asyncio.sleep(0)
        with pytest.raises(LingpaiError):
            take(1)
        (await request())(10)

    asyncio.run(run())


def test_an_unannotated_payload_stays_what_it_is():
    assert read_signature(unannotated, "acme/x").payload is Any
