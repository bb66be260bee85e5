"""Every task's input and output, called in a real worker process, with functions annotated in every way."""

import base64
import io
import json
import struct
import zlib

import PIL.Image
import pytest
from task_models import MODELS, PNG, PNG_URL, WAV, WAV_URL

from lingpai.wire.media import data_url


@pytest.fixture(scope="module")
def worker(serve, write_app):
    return serve(write_app("tasks.py", MODELS))


def infer(worker, model, value, **parameters):
    answer = worker.post("/v1/inference", model=model, input=value, parameters=parameters)
    assert answer.status_code == 200, answer.text
    return answer.json()["output"]


def refusal(worker, model, value, **parameters):
    answer = worker.post("/v1/inference", model=model, input=value, parameters=parameters)
    assert answer.status_code == 400, answer.text
    return answer.json()["error"]


def encoded(kind, size):
    target = io.BytesIO()
    PIL.Image.new("RGB" if kind == "JPEG" else "L", size).save(target, format=kind)
    return target.getvalue()


def log_of(worker):
    return worker.log.read_text()


# -- what a function gets


@pytest.mark.parametrize(
    "value",
    [
        PNG_URL,
        base64.b64encode(PNG).decode(),
        base64.urlsafe_b64encode(PNG).decode().rstrip("="),
        {"url": PNG_URL},
        {"data": base64.b64encode(PNG).decode(), "media_type": "image/png"},
        {"b64_json": base64.b64encode(PNG).decode()},
        {"type": "image_url", "image_url": {"url": PNG_URL}},
        {"image": PNG_URL},
    ],
    ids=["data-url", "base64", "url-safe", "url-object", "data-object", "b64_json", "part", "our-output"],
)
def test_a_picture_comes_in_every_form(worker, value):
    labels = [each["label"] for each in infer(worker, "in/image", value)]

    assert labels == ["image/png", f"{len(PNG)} bytes", "no name"]


def test_a_list_of_pictures_is_a_batch(worker):
    assert len(infer(worker, "in/image", [PNG_URL, PNG_URL, PNG_URL])) == 3


def test_an_unannotated_function_gets_its_tasks_type(worker):
    assert infer(worker, "in/unannotated", PNG_URL) == [{"label": "Image", "score": 1.0}]


@pytest.mark.parametrize(
    ("model", "value", "output"),
    [
        ("in/bytes", PNG_URL, len(PNG)),
        ("in/file", "data:text/plain;base64,aGk=", ["text/plain", "", "hi"]),
        ("in/numbers", [[1, 2], [3, 4]], {"sum": [4.0, 6.0], "dtype": "float32"}),
        ("in/dataclass", {"left": PNG_URL, "right": PNG_URL, "note": "same"}, [True, "same"]),
        ("in/struct", {"words": ["a", "b"]}, 2),
        ("in/dict", {"b": 1, "a": PNG_URL}, ["a", "b"]),
    ],
)
def test_the_annotation_decides_what_a_function_gets(worker, model, value, output):
    assert infer(worker, model, value) == output


def test_an_array_gets_the_samples_of_a_wav_file(worker):
    assert infer(worker, "in/samples", WAV_URL) == {"text": "(4000,) float32 1.00"}


def test_a_picture_is_decoded_where_the_annotation_asks_for_it(worker):
    jpeg = data_url(encoded("JPEG", (20, 10)), "image/jpeg")

    assert infer(worker, "in/pillow", PNG_URL) == {"text": "RGB (2, 2) PNG"}
    assert infer(worker, "in/pillow", [jpeg, PNG_URL], mask=PNG_URL) == [
        {"text": "RGB (20, 10) JPEG (2, 2)"},
        {"text": "RGB (2, 2) PNG (2, 2)"},
    ]
    assert infer(worker, "in/pixels", jpeg) == {"text": "(10, 20, 3) uint8"}


@pytest.mark.parametrize("model", ["in/pillow", "in/pixels"])
def test_a_picture_that_cannot_be_decoded_is_told_with_its_place(worker, model):
    error = refusal(worker, model, [PNG_URL, data_url(PNG[:40], "image/png")])

    assert error["message"] == "`input[1]`: the picture cannot be read. Send a PNG or JPEG file."
    assert error["param"] == "input[1]"


@pytest.mark.parametrize("model", ["in/pillow", "in/pixels"])
def test_a_picture_of_too_many_pixels_is_refused(worker, model):
    large = data_url(encoded("PNG", (9000, 6000)), "image/png")

    assert "`input`: the picture has 9000x6000 pixels" in refusal(worker, model, large)["message"]


def test_the_pictures_of_one_request_have_so_many_pixels_together(worker):
    medium = data_url(encoded("PNG", (9000, 5000)), "image/png")

    assert "over 100 megapixels together" in refusal(worker, "in/pillow", [medium] * 3)["message"]


def test_a_parameter_may_be_called_like_the_input(worker):
    assert infer(worker, "in/dict-and-input", {"a": 1}, input=2) == [{"a": 1}, 2]


def test_batches_get_their_tasks_type(worker):
    labels = infer(worker, "in/batched", [PNG_URL, PNG_URL])

    assert [label["label"] for (label,) in labels] == ["Image of 2"] * 2
    assert infer(worker, "in/batched-unannotated", [WAV_URL, WAV_URL]) == [{"text": "Audio"}] * 2
    assert infer(worker, "in/batched-texts", ["a", "bb", "ccc"]) == [[1, 2], [2, 2], [3, 1]]


def test_a_parameter_may_be_a_picture(worker):
    assert len(infer(worker, "in/mask", PNG_URL, mask=PNG_URL)) == 2
    assert len(infer(worker, "in/mask", {"image": PNG_URL, "prompt": "snow"})) == 1


@pytest.mark.parametrize(
    ("model", "value", "message"),
    [
        ("in/image", WAV_URL, "`input`: expected a picture (PNG, JPEG, …), got audio/wav."),
        ("in/image", "a cat", "`input`: expected a picture"),
        ("in/image", "***", "`input`: expected base64, a data URL or an http(s) address."),
        ("in/image", "data:image/png,raw", "`input`: expected a data URL such as"),
        ("in/image", {"data": "aGk=", "media_type": "image/x\r\nx: 1"}, "`input`: 'image/x"),
        ("in/image", 5, "`input`: expected an address, a data URL or base64, got `int`."),
        ("in/image", {"x": 1}, '`input`: expected {"url": …}'),
        ("in/image", [PNG_URL, 5], "`input[1]`: expected an address"),
        ("in/dataclass", {"left": PNG_URL, "right": 5}, "`input.right`: expected an address"),
        ("in/numbers", [[1, 2], [3]], "`input"),
        ("in/samples", "data:audio/mpeg;base64,SUQz", "`input`: the sound cannot be read. Send a WAV file"),
    ],
)
def test_what_does_not_fit_is_told_with_its_place(worker, model, value, message):
    assert refusal(worker, model, value)["message"].startswith(message)


@pytest.mark.parametrize(
    "url",
    ["http://127.0.0.1/a.png", "http://localhost:8741/", "http://[::1]/", "http://169.254.169.254/latest/meta-data",
     "http://2130706433/", "file:///etc/passwd", "http://user:password@example.com/", "gopher://127.0.0.1/"],
)  # fmt: skip
def test_addresses_inside_are_not_fetched(worker, url):
    error = refusal(worker, "in/image", url)

    assert error["code"] == "invalid_request"
    assert error["param"] == "input"


def test_fetching_can_be_switched_off(worker):
    answer = worker.client.post(
        "/v1/inference",
        json={"model": "in/image", "input": "https://example.com/a.png"},
        headers={"x-lingpai-fetch-media": "off"},
    )

    assert "does not fetch addresses" in answer.json()["error"]["message"]


# -- how many inputs


@pytest.mark.parametrize(
    ("path", "fields", "param"),
    [
        ("/v1/embeddings", {"model": "in/batched-texts", "input": ["a"] * 4}, "input"),
        ("/v1/embeddings", {"model": "in/batched-texts", "input": [[1]] * 4}, "input"),
        ("/v1/inference", {"model": "in/batched-texts", "input": ["a"] * 4}, "input"),
        ("/v1/inference", {"model": "in/image", "input": [PNG_URL] * 4}, "input"),
        ("/v1/inference", {"model": "text/summary", "input": ["a"] * 4}, "input"),
        ("/v1/completions", {"model": "text/summary", "prompt": ["a"] * 4}, "prompt"),
        ("/v1/rerank", {"model": "text/rank", "query": "a", "documents": ["a"] * 4}, "documents"),
        ("/v1/inference", {"model": "text/rank", "input": {"query": "a", "documents": ["a"] * 4}}, "input.documents"),
    ],
)  # fmt: skip
def test_more_inputs_than_the_gateway_allows_are_refused(worker, path, fields, param):
    answer = worker.client.post(path, json=fields, headers={"x-lingpai-max-inputs": "3"})

    assert answer.status_code == 400
    error = answer.json()["error"]
    assert (error["code"], error["param"]) == ("invalid_request", param)
    assert error["message"] == f"`{param}` has over 3 entries (`gateway.max_inputs`). Send fewer at a time."


@pytest.mark.parametrize(
    ("path", "fields"),
    [
        ("/v1/embeddings", {"model": "in/batched-texts", "input": ["a"] * 3}),
        ("/v1/embeddings", {"model": "in/batched-texts", "input": [1] * 4}),
        ("/v1/inference", {"model": "text/rows", "input": [[1], [2], [3], [4]]}),
        ("/v1/inference", {"model": "in/numbers", "input": [1, 2, 3, 4]}),
    ],
)
def test_one_input_may_be_as_long_as_it_likes(worker, path, fields):
    answer = worker.client.post(path, json=fields, headers={"x-lingpai-max-inputs": "3"})

    assert "max_inputs" not in answer.text


# -- what a function may return


@pytest.mark.parametrize(
    ("model", "value", "output"),
    [
        ("text/classify", "fine", [{"label": "good", "score": 0.75}, {"label": "bad", "score": 0.25}]),
        ("text/fill", "[MASK] cat", [{"token": "the", "score": 0.6}, {"token": "a", "score": 0.1, "sequence": "a cat"}]),
        ("text/summary", "abcdef", {"text": "abc"}),
        ("text/answer", {"question": "who?", "context": "it is Ada"},
         [{"answer": "Ada", "score": 0.5, "start": 4, "end": 8}]),
        ("text/answers", {"question": "who?", "context": "Ada"}, [{"answer": "who?", "score": 0.9}, {"answer": "Ada"}]),
        ("text/by-context", {"question": "who?", "context": "Ada"}, [{"answer": "Ada|who?"}]),
        ("text/rows", [[1, 2], [3, 4]], [3.0, 7.0]),
        ("text/frame", [{"x": 1}, {"x": 2}], [{"doubled": 2}, {"doubled": 4}]),
        ("text/rank", {"query": "a", "documents": ["b", "aa", "a"]},
         [{"index": 1, "score": 2.0}, {"index": 2, "score": 1.0}, {"index": 0, "score": 0.0}]),
        ("text/pairs", {"query": "a", "documents": ["b", "aa"]}, [{"index": 1, "score": 2}, {"index": 0, "score": 1}]),
        ("text/entities", "Ada is: Paris",
         [{"label": "PERSON", "text": "Ada", "start": 0, "end": 3},
          {"label": "PLACE", "text": "Paris", "start": 8, "end": 13, "score": 0.5}]),
        ("image/boxes", PNG_URL,
         [{"label": "dog", "score": 0.75, "box": {"xmin": 1, "ymin": 1, "xmax": 3, "ymax": 4}},
          {"label": "cat", "score": 0.5, "box": {"xmin": 1, "ymin": 2, "xmax": 3, "ymax": 4}}]),
        ("image/caption", PNG_URL, {"text": f"a picture of {len(PNG)} bytes"}),
        ("image/ask", {"image": PNG_URL, "question": "what?"}, {"text": "what? image/png"}),
        ("image/ask-dict", {"image": PNG_URL, "question": "what?"}, {"text": "what? image/png"}),
        ("sound/film", "a cat", {"video": data_url(b"film", "video/mp4")}),
    ],
)  # fmt: skip
def test_outputs_have_the_form_of_their_task(worker, model, value, output):
    assert infer(worker, model, value) == output


def test_the_parts_of_an_input_may_come_as_parameters(worker):
    labels = infer(worker, "text/zero", "text", candidate_labels=["a", "bbb"])

    assert labels == [{"label": "bbb", "score": 0.3}, {"label": "a", "score": 0.1}]
    assert infer(worker, "text/zero", {"text": "t", "candidate_labels": ["a"]})[0]["label"] == "a"
    assert len(infer(worker, "text/zero-dict", "text", candidate_labels=["a", "b"])) == 2


def test_a_batch_of_inputs_with_parts_has_its_own_in_each(worker):
    value = [{"question": "?", "context": "x y"}, {"question": "?", "context": "x z"}]

    assert [found[0]["answer"] for found in infer(worker, "text/answer", value)] == ["y", "z"]


def test_translations_take_their_parameters(worker):
    assert infer(worker, "text/translate", ["a", "b"], target="fr") == [{"text": "fr: a"}, {"text": "fr: b"}]


def test_pictures_are_data_urls_of_png_files(worker):
    (painted,) = infer(worker, "image/paint", "a cat", width=3)
    (mask,) = infer(worker, "image/masks", PNG_URL)

    assert read_png(painted["image"]) == (3, 2, 8, 2, b"\x00" + b"\x80" * 9 + b"\x00" + b"\x80" * 9)
    assert read_png(mask["mask"])[:4] == (4, 4, 8, 0)
    assert "score" not in mask


def read_png(url):
    data = base64.b64decode(url.removeprefix("data:image/png;base64,"))
    width, height, depth, color = struct.unpack(">IIBB", data[16:26])
    start = data.index(b"IDAT")
    (length,) = struct.unpack(">I", data[start - 4 : start])
    return width, height, depth, color, zlib.decompress(data[start + 4 : start + 4 + length])


def test_sound_is_a_data_url_of_a_wav_file(worker):
    audio = infer(worker, "sound/say", "hello")["audio"]

    assert base64.b64decode(audio.removeprefix("data:audio/wav;base64,"))[:4] == b"RIFF"


def test_speech_recognition_tells_segments(worker):
    output = infer(worker, "sound/hear", WAV_URL, language="fr")

    assert output["text"] == "hello fr 4000 8000 0.0"
    assert output["segments"] == [
        {"start": 0.0, "end": 0.25, "text": " hel"},
        {"start": 0.25, "end": 0.5, "text": "lo"},
    ]


WRONG_INPUTS = {
    "zero-shot-classification": {"text": "a", "candidate_labels": ["a"]},
    "question-answering": {"question": "a", "context": "b"},
    "rerank": {"query": "a", "documents": ["b", "c"]},
    "visual-question-answering": {"image": PNG_URL, "question": "?"},
    "image-to-image": {"image": PNG_URL},
    "automatic-speech-recognition": WAV_URL,
    "tabular": [[1]],
    **dict.fromkeys(
        ("image-classification", "object-detection", "image-segmentation", "image-to-text"), PNG_URL
    ),
}


@pytest.mark.parametrize(
    ("task", "wanted"),
    [
        ("image-classification", 'a classifier returns a list of {"label", "score"}'),
        ("text-classification", "a classifier returns"),
        ("zero-shot-classification", "without as many `scores`"),
        ("token-classification", "(see `label`); token-classification returns"),
        ("question-answering", "returned int; an answer is str"),
        ("fill-mask", "(see `score`); fill-mask returns"),
        ("rerank", "returned 1 scores for 2 documents"),
        ("object-detection", "object-detection returns a list of"),
        ("image-segmentation", "returned a part without `mask`"),
        ("image-to-text", "returned int; a model for this task returns str"),
        ("visual-question-answering", "returned NoneType"),
        ("text-to-image", "a picture is lp.Image"),
        ("image-to-image", "returned bytes that are no image file"),
        ("automatic-speech-recognition", "speech recognition returns str, or a dict with `text`"),
        ("text-to-speech", "sound is lp.Audio"),
        ("text-to-video", "a film is lp.File"),
        ("tabular", "returned 2 results for 1 rows"),
    ],
)
def test_a_wrong_return_is_the_models_fault_and_the_log_says_what_was_expected(worker, task, wanted):
    value = WRONG_INPUTS.get(task, "some text")

    answer = worker.post("/v1/inference", model=f"wrong/{task}", input=value)

    assert (answer.status_code, answer.json()["error"]["code"]) == (500, "model_error")
    assert wanted not in answer.text
    assert wanted in log_of(worker)


# -- errors about parameters


def test_a_wrong_parameter_is_told_with_its_schema(worker):
    error = refusal(worker, "text/classify", "fine", top_k="many")

    assert error["param"] == "parameters.top_k"
    assert error["message"] == (
        '`parameters.top_k`: expected `int`, got `str`. Its schema: {"type":"integer","default":2}'
    )


def test_an_unknown_parameter_is_told_with_the_nearest(worker):
    error = refusal(worker, "text/classify", "fine", topk=1)

    assert error["param"] == "parameters.topk"
    assert "Did you mean `top_k`?" in error["message"]


def test_a_missing_parameter_is_told_with_its_schema(worker):
    error = refusal(worker, "text/translate", "hello")

    assert error["message"] == '`parameters.target` is missing. Its schema: {"type":"string"}'


@pytest.mark.parametrize(
    ("value", "param"),
    [("a query", "input.documents"), ({"query": "a", "documents": []}, "input.documents"),
     ({"documents": ["a"]}, "input.query")],
)  # fmt: skip
def test_reranking_needs_a_query_and_documents(worker, value, param):
    assert refusal(worker, "text/rank", value)["param"] == param


def test_a_missing_part_is_named(worker):
    assert refusal(worker, "text/answer", {"context": "Ada"})["param"] == "input.question"


# -- forms


def post_form(worker, path, files=None, **fields):
    return worker.client.post(path, data=fields, files=files)


def test_a_file_in_a_form_is_the_input(worker):
    answer = post_form(worker, "/v1/inference", {"file": ("../my cat.png", PNG)}, model="in/image")

    assert [each["label"] for each in answer.json()["output"]] == [
        "image/png",
        f"{len(PNG)} bytes",
        "my cat.png",
    ]


def test_a_form_has_parameters_as_json(worker):
    fields = {"model": "sound/hear", "parameters": json.dumps({"language": "zh"})}

    answer = post_form(worker, "/v1/inference", {"input": ("a.wav", WAV)}, **fields)

    assert answer.json()["output"]["text"] == "hello zh 4000 8000 0.0"


def test_the_parts_of_an_input_may_be_fields_of_a_form(worker):
    answer = post_form(
        worker, "/v1/inference", {"image": ("a.png", PNG)}, model="image/ask", question="what?"
    )
    with_file = post_form(
        worker, "/v1/inference", {"file": ("a.png", PNG)}, model="image/ask", question="what?"
    )

    assert answer.json()["output"] == with_file.json()["output"] == {"text": "what? image/png"}


def test_a_text_model_refuses_a_file(worker):
    answer = post_form(worker, "/v1/inference", {"file": ("a.png", PNG)}, model="text/classify")

    assert answer.status_code == 400
    assert "expected `str`" in answer.json()["error"]["message"]
