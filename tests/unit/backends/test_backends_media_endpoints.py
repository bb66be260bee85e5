"""A worker's own rerank, audio and image endpoints, in OpenAI's, Jina's and Cohere's shapes."""

import base64

import pytest
from task_models import MODELS, PNG, WAV, WAV_URL


@pytest.fixture(scope="module")
def worker(serve, write_app):
    return serve(write_app("endpoints.py", MODELS))


def transcribe(worker, files=None, **fields):
    return worker.client.post(
        "/v1/audio/transcriptions", data=fields, files=files or {"file": ("a.wav", WAV)}
    )


def test_rerank_orders_documents(worker):
    answer = worker.post(
        "/v1/rerank",
        model="text/rank", query="a", documents=["b", {"text": "aa"}, "a"], top_n=2, return_documents=True,
    ).json()  # fmt: skip

    assert answer["model"] == "text/rank"
    assert answer["results"] == [
        {"index": 1, "relevance_score": 2.0, "document": {"text": "aa"}},
        {"index": 2, "relevance_score": 1.0, "document": {"text": "a"}},
    ]
    assert answer["usage"]["prompt_tokens"] > 0


def test_rerank_calls_functions_of_pairs(worker):
    answer = worker.post("/v1/rerank", model="text/pairs", query="a", documents=["b", "aa"]).json()

    assert answer["results"] == [
        {"index": 1, "relevance_score": 2},
        {"index": 0, "relevance_score": 1},
    ]


@pytest.mark.parametrize(
    ("fields", "param"),
    [({"query": "a"}, "documents"), ({"documents": ["a"]}, "query"), ({"query": "a", "documents": [5]}, "documents[0]"),
     ({"query": "a", "documents": [{"x": 1}]}, "documents[0]"), ({"query": "a", "documents": ["b"], "top_n": 0}, "top_n")],
)  # fmt: skip
def test_rerank_names_what_is_wrong(worker, fields, param):
    answer = worker.post("/v1/rerank", model="text/rank", **fields)

    assert (answer.status_code, answer.json()["error"]["param"]) == (400, param)


def test_a_transcription_is_json_unless_asked_otherwise(worker):
    answer = transcribe(worker, model="sound/hear", language="fr", temperature="0.5")

    assert answer.json() == {
        "text": "hello fr 4000 8000 0.5",
        "usage": {"type": "duration", "seconds": 0.5},
    }


def test_verbose_json_has_segments_and_duration(worker):
    answer = transcribe(worker, model="sound/hear", response_format="verbose_json").json()

    assert (answer["task"], answer["duration"]) == ("transcribe", 0.5)
    assert answer["segments"][1] == {"id": 1, "start": 0.25, "end": 0.5, "text": "lo"}


@pytest.mark.parametrize(
    ("form", "body"),
    [
        ("text", "hello en 4000 8000 0.0\n"),
        ("srt", "1\n00:00:00,000 --> 00:00:00,250\nhel\n\n2\n00:00:00,250 --> 00:00:00,500\nlo\n\n"),
        ("vtt", "WEBVTT\n\n00:00:00.000 --> 00:00:00.250\nhel\n\n00:00:00.250 --> 00:00:00.500\nlo\n\n"),
    ],
)
def test_text_formats_are_plain_bodies(worker, form, body):
    answer = transcribe(worker, model="sound/hear", response_format=form)

    assert answer.headers["content-type"] == "text/plain; charset=utf-8"
    assert answer.text == body


def test_a_transcription_without_segments_is_one_subtitle(worker):
    answer = transcribe(worker, model="in/samples", response_format="srt")

    assert answer.text.startswith("1\n00:00:00,000 --> 00:00:00,500\n(4000,)")


def test_a_transcription_takes_json_with_a_data_url(worker):
    answer = worker.post("/v1/audio/transcriptions", model="sound/hear", file=WAV_URL)

    assert answer.json()["text"].startswith("hello")


@pytest.mark.parametrize(
    ("model", "said"), [("in/sound-bytes", "4 bytes"), ("in/sound-file", "application/octet-stream, 4 bytes")]
)
def test_a_function_that_takes_any_file_gets_one_of_unknown_kind(worker, model, said):
    """Its decoder may know what the first bytes do not tell us."""
    answer = transcribe(worker, {"file": ("a.bin", b"\0\1\2\3")}, model=model)

    assert (answer.status_code, answer.json()) == (200, {"text": said})


@pytest.mark.parametrize("model", ["sound/hear", "in/samples"])
def test_a_file_that_is_no_sound_is_refused_where_sound_is_asked_for(worker, model):
    files = [("a.bin", b"\0\1\2\3"), ("a.png", PNG)]

    answers = [transcribe(worker, {"file": file}, model=model) for file in files]

    assert [answer.status_code for answer in answers] == [400, 400]
    assert [answer.json()["error"]["message"].partition(", got")[0] for answer in answers] == [
        "`file`: expected sound (WAV, MP3, …)"
    ] * 2


@pytest.mark.parametrize("value", ["no base64!", 5, {"x": 1}])
@pytest.mark.parametrize("model", ["sound/hear", "in/sound-bytes", "in/samples"])
def test_what_is_no_file_at_all_is_refused(worker, model, value):
    answer = worker.post("/v1/audio/transcriptions", model=model, file=value)

    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "file")


def test_parameters_without_effect_are_told(worker):
    answer = transcribe(worker, model="sound/hear", prompt="names")

    assert answer.headers["x-lingpai-dropped-params"] == "prompt"


@pytest.mark.parametrize(
    ("fields", "param"),
    [({"response_format": "docx"}, "response_format"), ({"stream": "true"}, "stream"), ({"temperature": "hot"}, "temperature")],
)  # fmt: skip
def test_a_wrong_transcription_is_told(worker, fields, param):
    answer = transcribe(worker, model="sound/hear", **fields)

    assert (answer.status_code, answer.json()["error"]["param"]) == (400, param)


def test_speech_is_the_bytes_of_a_file(worker):
    answer = worker.post("/v1/audio/speech", model="sound/say", input="hello", voice={"id": "two"})

    assert answer.headers["content-type"] == "audio/wav"
    assert answer.content[:4] == b"RIFF"


def test_speech_comes_as_pcm_without_a_head(worker):
    answer = worker.post("/v1/audio/speech", model="sound/say", input="hello", response_format="pcm")

    assert (answer.headers["content-type"], len(answer.content)) == ("audio/pcm", 160)


def test_a_format_that_takes_a_codec_is_refused_with_what_there_is(worker):
    answer = worker.post("/v1/audio/speech", model="sound/say", input="hello", response_format="mp3")

    assert answer.status_code == 400
    assert "makes audio/wav. Ask for `wav`" in answer.json()["error"]["message"]


def test_pictures_are_base64_unless_an_address_is_asked_for(worker):
    asked = {"model": "image/paint", "prompt": "a cat", "n": 2, "size": "4x3"}

    plain = worker.post("/v1/images/generations", **asked).json()["data"]
    addressed = worker.post("/v1/images/generations", **asked, response_format="url").json()["data"]

    data = base64.b64decode(plain[0]["b64_json"])
    assert len(plain) == 2
    assert data[16:24] == b"\0\0\0\x04\0\0\0\x03"
    assert addressed[0]["url"] == f"data:image/png;base64,{plain[0]['b64_json']}"


@pytest.mark.parametrize(
    ("fields", "param"),
    [({"n": 11}, "n"), ({"size": "big"}, "size"), ({"response_format": "jpeg"}, "response_format"), ({"prompt": ""}, "prompt")],
)  # fmt: skip
def test_a_wrong_picture_is_told(worker, fields, param):
    answer = worker.post("/v1/images/generations", **{"model": "image/paint", "prompt": "a cat", **fields})

    assert (answer.status_code, answer.json()["error"]["param"]) == (400, param)


@pytest.mark.parametrize(
    "path", ["/v1/rerank", "/v1/audio/speech", "/v1/images/generations", "/v1/audio/transcriptions"]
)
def test_a_model_of_another_task_is_refused(worker, path):
    answer = worker.post(
        path, model="text/classify", input="a", prompt="a", query="a", documents=["a"], file=WAV_URL
    )

    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "unsupported_task")
