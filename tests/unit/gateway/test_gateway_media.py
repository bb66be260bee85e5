"""Sound, pictures and reranking on their way through the gateway: forms written anew, answers that are no JSON."""

import json

import pytest
from gateway_fakes import FakeBackend, FakeFront, model

from lingpai.gateway.media import answer_type
from lingpai.wire.multipart import Part, read_form, write_form

WAV = b"RIFF\0\0\0\0WAVE\r\n--x\xff"


@pytest.fixture
def stage(make_stage):
    served = make_stage()
    worker = FakeBackend("worker", kind="worker")
    served.serve(
        model("acme/hear", "automatic-speech-recognition", upstream_name="whisper-1"),
        model("acme/say", "text-to-speech", upstream_name="tts-1"),
        model("acme/paint", "text-to-image"),
        model("acme/rank", "rerank", upstream_name="ranker"),
        model("acme/chat"),
    )
    served.serve(
        model("local/hear", "automatic-speech-recognition", backend=worker),
        model("local/see", "image-classification", backend=worker),
        model("local/chat", backend=worker),
    )
    return served


def post_form(stage, path, *parts, front=None):
    content_type, body = write_form(parts)
    return stage.call(path, body, front=front, headers=[(b"content-type", content_type)])


def field(name, text):
    return Part(name, text.encode())


def file(name="file", data=WAV, filename="a b.wav"):
    return Part(name, data, filename, "audio/wav")


def sent_form(stage):
    """Path and fields of the form that went to the backend."""
    ((path, body),) = stage.link.sent
    return path, read_form(body, stage.link.media_type)


def error_of(front):
    return json.loads(front.body)["error"]


def answer(call, body, content_type=b"application/json", status=200):
    call.response_started(status, {b"content-type": content_type, b"content-length": b"1"})
    call.response_data(body)
    call.response_finished()


# -- forms to the backend


@pytest.mark.parametrize(("name", "upstream"), [("acme/hear", "whisper-1"), ("local/hear", "local/hear")])
def test_a_transcription_is_passed_on_with_the_backends_name_for_the_model(stage, name, upstream):
    post_form(stage, b"/v1/audio/transcriptions", field("model", name), file(), field("language", "fr"))

    path, form = sent_form(stage)
    assert path == b"/audio/transcriptions"
    assert (form.text("model"), form.text("language")) == (upstream, "fr")
    assert form.part("file") == file()


def test_json_becomes_a_form_for_a_provider_and_stays_json_for_a_worker(stage):
    url = "data:audio/wav;base64,UklGRg=="

    stage.call(b"/v1/audio/transcriptions", {"model": "acme/hear", "file": url, "temperature": 0.5})

    _, form = sent_form(stage)
    assert form.part("file") == Part("file", b"RIFF", "sound.wav", "audio/wav")
    assert (form.text("model"), form.text("temperature")) == ("whisper-1", "0.5")
    stage.link.sent.clear()
    stage.call(b"/v1/audio/transcriptions", {"model": "local/hear", "file": url})
    assert stage.sent[1] == {"model": "local/hear", "file": url}


def test_the_server_itself_fetches_nothing(stage):
    front = FakeFront()

    stage.call(
        b"/v1/audio/transcriptions", {"model": "acme/hear", "file": "http://127.0.0.1/a.wav"}, front=front
    )

    assert error_of(front)["param"] == "file"
    assert stage.link.sent == []


def test_a_form_to_the_inference_endpoint_goes_to_a_worker_as_a_form(stage):
    post_form(
        stage, b"/api/v1/models/local/see/inference", file("input"), field("parameters", '{"top_k": 1}')
    )

    path, form = sent_form(stage)
    assert path == b"/inference"
    assert [part.name for part in form.parts] == ["model", "input", "parameters"]
    assert form.text("model") == "local/see"


def test_a_form_to_the_inference_endpoint_becomes_a_transcription_at_a_provider(stage):
    post_form(
        stage, b"/api/v1/models/acme/hear/inference", file("input"), field("parameters", '{"language": "fr"}')
    )

    path, form = sent_form(stage)
    assert path == b"/audio/transcriptions"
    assert (form.part("file"), form.text("language")) == (file(), "fr")


@pytest.mark.parametrize("name", ["acme/chat", "local/chat"])
def test_text_in_a_form_becomes_json_for_a_model_that_generates_text(stage, name):
    parameters = field("parameters", '{"temperature": 0}')

    post_form(stage, f"/api/v1/models/{name}/inference".encode(), field("input", "hi"), parameters)

    _, body = stage.sent
    assert "hi" in json.dumps(body)
    assert not hasattr(stage.link, "media_type")


@pytest.mark.parametrize(
    ("path", "parts", "param"),
    [
        (b"/v1/audio/transcriptions", [field("model", "acme/hear")], "file"),
        (b"/v1/audio/transcriptions", [field("model", "acme/hear"), file(), field("response_format", "x")],
         "response_format"),
        (b"/api/v1/models/local/see/inference", [field("parameters", "{}")], "input"),
        (b"/api/v1/models/local/see/inference", [file(), field("parameters", "[]")], "parameters"),
        (b"/api/v1/models/local/see/inference", [file(), field("parameters", "{")], "parameters"),
        (b"/api/v1/models/local/see/inference", [file(), file("parameters")], "parameters"),
        (b"/api/v1/models/local/chat/inference", [file()], "input"),
        (b"/api/v1/models/acme/paint/inference", [file()], "model"),
    ],
)  # fmt: skip
def test_a_form_that_cannot_be_answered_is_refused_by_field(stage, path, parts, param):
    front = FakeFront()

    post_form(stage, path, *parts, front=front)

    assert (error_of(front)["param"], stage.link.sent) == (param, [])


def test_forms_are_for_the_endpoints_that_read_them(stage):
    front = FakeFront()

    post_form(stage, b"/v1/chat/completions", field("model", "acme/chat"), front=front)

    assert error_of(front)["code"] == "unsupported_media_type"


# -- answers


@pytest.mark.parametrize(
    ("told", "given"),
    [(b"audio/mpeg", b"audio/mpeg"), (b"text/plain; charset=utf-8", b"text/plain; charset=utf-8"),
     (b"application/json; charset=utf-8", b"application/json"), (b"", b"application/json"),
     (b"text/html", b"application/octet-stream"), (b"image/svg+xml", b"application/octet-stream"),
     (b"audio/x\r\nx: 1", b"application/octet-stream")],
)  # fmt: skip
def test_a_backend_does_not_make_pages_of_answers(told, given):
    assert answer_type(told) == given


def test_speech_is_relayed_byte_for_byte_with_its_type(stage):
    front, sound = FakeFront(), bytes(range(256))

    call = stage.call(b"/v1/audio/speech", {"model": "acme/say", "input": "hi", "voice": "one"}, front=front)
    answer(call, sound, b"audio/mpeg")

    assert stage.sent == (b"/audio/speech", {"input": "hi", "voice": "one", "model": "tts-1"})
    assert (front.head["content-type"], front.body) == ("audio/mpeg", sound)
    assert stage.journal.record.status == 200


def test_an_error_is_json_where_sound_was_asked_for(stage):
    front = FakeFront()

    call = stage.call(b"/v1/audio/speech", {"model": "acme/say", "input": "hi"}, front=front)
    answer(call, b'{"error": {"message": "no such voice"}}', status=400)

    assert front.head["content-type"] == "application/json"
    assert error_of(front)["message"]


def test_a_transcription_keeps_its_form(stage):
    front = FakeFront()

    call = post_form(stage, b"/v1/audio/transcriptions", field("model", "acme/hear"), file(), front=front)
    answer(call, b'{"text": "hi"}')

    assert json.loads(front.body) == {"text": "hi"}


def test_reranking_names_the_model_as_the_caller_does(stage):
    front = FakeFront()

    call = stage.call(b"/v2/rerank", {"model": "acme/rank", "query": "a", "documents": ["b"]}, front=front)
    answer(call, b'{"model": "ranker", "results": [{"index": 0, "relevance_score": 0.5}]}')

    assert stage.sent[0] == b"/rerank"
    assert json.loads(front.body)["model"] == "acme/rank"


@pytest.mark.parametrize(
    ("name", "value", "backend_answer", "path", "output"),
    [
        ("acme/rank", {"query": "a", "documents": ["b", {"text": "c"}]},
         {"results": [{"index": 0, "relevance_score": 0.1}, {"index": 1, "relevance_score": 0.9}]},
         b"/rerank", [{"index": 1, "score": 0.9}, {"index": 0, "score": 0.1}]),
        ("acme/paint", "a cat", {"data": [{"b64_json": "iVBORw0KGgo="}, {"url": "https://x.example/a"}]},
         b"/images/generations", [{"image": "data:image/png;base64,iVBORw0KGgo="}, {"image": "https://x.example/a"}]),
    ],
)  # fmt: skip
def test_the_inference_endpoint_speaks_for_providers(stage, name, value, *, backend_answer, path, output):
    front = FakeFront()

    call = stage.call(f"/api/v1/models/{name}/inference".encode(), {"input": value}, front=front)
    answer(call, json.dumps(backend_answer).encode())

    assert stage.sent[0] == path
    assert json.loads(front.body)["output"] == output
