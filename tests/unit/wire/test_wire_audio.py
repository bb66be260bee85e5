"""Subtitles, and what the audio, image and rerank endpoints refuse before any backend is asked."""

import msgspec
import pytest

from lingpai.errors import LingpaiError
from lingpai.wire.audio import SPEECH, TRANSCRIPTION, srt, transcription_form, vtt
from lingpai.wire.images import IMAGES
from lingpai.wire.multipart import Form, Part
from lingpai.wire.rerank import MOST_DOCUMENTS, RERANK, rerank_answer

SEGMENTS = [
    {"start": 0, "end": 1.5, "text": " Hello\n\nthere "},
    {"start": 3661.0004, "end": 3661.9996, "text": "a --> b"},
]


def test_subtitles_have_hours_and_milliseconds():
    assert srt(SEGMENTS) == (
        "1\n00:00:00,000 --> 00:00:01,500\nHello there\n\n2\n01:01:01,000 --> 01:01:02,000\na -> b\n\n"
    )
    assert vtt(SEGMENTS).startswith("WEBVTT\n\n00:00:00.000 --> 00:00:01.500\nHello there\n\n")


@pytest.mark.parametrize(
    ("decoder", "fields", "param"),
    [
        (TRANSCRIPTION, {"model": "m"}, "file"),
        (TRANSCRIPTION, {"file": None}, "file"),
        (TRANSCRIPTION, {"file": "x", "response_format": "docx"}, "response_format"),
        (TRANSCRIPTION, {"file": "x", "stream": True}, "stream"),
        (SPEECH, {}, "input"),
        (SPEECH, {"input": ""}, "input"),
        (SPEECH, {"input": "x", "response_format": "midi"}, "response_format"),
        (SPEECH, {"input": "x", "stream_format": "sse"}, "stream_format"),
        (SPEECH, {"input": "x", "stream": True}, "stream"),
        (IMAGES, {}, "prompt"),
        (IMAGES, {"prompt": "x", "n": 0}, "n"),
        (IMAGES, {"prompt": "x", "n": 11}, "n"),
        (IMAGES, {"prompt": "x", "response_format": "png"}, "response_format"),
        (IMAGES, {"prompt": "x", "stream": True}, "stream"),
        (RERANK, {"documents": ["a"]}, "query"),
        (RERANK, {"query": "a"}, "documents"),
        (RERANK, {"query": "a", "documents": []}, "documents"),
        (RERANK, {"query": "a", "documents": ["a"] * (MOST_DOCUMENTS + 1)}, "documents"),
        (RERANK, {"query": "a", "documents": ["a"], "top_n": 0}, "top_n"),
        (RERANK, {"query": "a", "documents": ["a"], "stream": True}, "stream"),
    ],
)
def test_what_cannot_be_answered_is_refused(decoder, fields, param):
    request = decoder.decode(msgspec.json.encode(fields))

    with pytest.raises(LingpaiError) as caught:
        request.check()

    assert (caught.value.code, caught.value.param) == ("invalid_request", param)


@pytest.mark.parametrize(
    ("parts", "param"),
    [
        ([], "file"),
        ([Part("file", b"text")], "file"),
        ([Part("file", b"x", "a.wav"), Part("stream", b"true")], "stream"),
        ([Part("file", b"x", "a.wav"), Part("model", b"m", "m.txt")], "model"),
    ],
)
def test_a_form_that_is_no_transcription_is_refused(parts, param):
    with pytest.raises(LingpaiError) as caught:
        transcription_form(Form(tuple(parts)))

    assert caught.value.param == param


def test_a_form_is_read_as_a_request():
    form = Form((Part("file", b"x", "a.wav"), Part("model", b"m"), Part("response_format", b"srt")))

    request = transcription_form(form)

    assert (request.model, request.response_format, request.stream) == ("m", "srt", None)


def test_ranks_are_cut_to_what_was_asked_for():
    ranks = [{"index": 1, "score": 0.9}, {"index": 0, "score": 0.1}]

    answer = rerank_answer(ranks, ["a", "b"], model="m", usage={}, top_n=1, returns_documents=True)

    assert answer["results"] == [{"index": 1, "relevance_score": 0.9, "document": {"text": "b"}}]
