"""Sound, pictures and reranking through the stock `openai` package: to local models, and on to another server."""

import base64
from pathlib import Path

import httpx2
import openai
import pytest

from tests.e2e.lingpai_server import ROOT, LingpaiServer

EXAMPLES = ROOT / "examples"
_RERANKER = """
import lingpai as lp

@lp.model("acme/rerank", task="rerank")
def rank(query: str, *, documents: list[str]):
    return [float(document.count(query)) for document in documents]
"""
_FRONT = """
[[models]]
target = "{address}"
name = "behind"
api_key_env = "KEY_OF_BEHIND"
rename = {{ "examples/morse-voice" = "tts-1", "examples/morse-ear" = "whisper-1", "examples/paint" = "dall-e-3" }}
"""


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory):
    """A server with models of its own."""
    folder = tmp_path_factory.mktemp("local")
    (folder / "rerank.py").write_text(_RERANKER)
    targets = [f"{EXAMPLES}/sound.py", f"{EXAMPLES}/pictures.py", "rerank.py"]
    server = LingpaiServer(folder, *targets).start()
    yield server
    server.stop()


@pytest.fixture(scope="module")
def front(tmp_path_factory: pytest.TempPathFactory, local: LingpaiServer):
    """A server that passes everything on to the other."""
    environment = {"KEY_OF_BEHIND": local.make_key("front")}
    config = _FRONT.format(address=local.v1)
    server = LingpaiServer(tmp_path_factory.mktemp("front"), config=config, environment=environment).start()
    yield server
    server.stop()


@pytest.fixture(params=["local", "front"])
def sdk(request, local, front):
    """The stock SDK on either server, and the names that models have there."""
    server = {"local": local, "front": front}[request.param]
    with server.openai(server.make_key(request.node.name)) as client:
        yield client, server is local


def names(is_local: bool) -> tuple[str, str, str]:
    if is_local:
        return "examples/morse-voice", "examples/morse-ear", "examples/paint"
    return "tts-1", "whisper-1", "dall-e-3"


def spoken(client: openai.OpenAI, model: str, text: str = "SOS HELP") -> bytes:
    with client.audio.speech.with_streaming_response.create(model=model, input=text, voice="high") as answer:
        assert answer.headers["content-type"] == "audio/wav"
        return answer.read()


def test_what_is_spoken_is_heard(sdk, tmp_path: Path):
    """Speech comes as the bytes of a file, and a file is written down in every format."""
    client, is_local = sdk
    voice, ear, _ = names(is_local)
    path = tmp_path / "sos.wav"
    path.write_bytes(spoken(client, voice))

    def hear(**options):
        with path.open("rb") as file:
            return client.audio.transcriptions.create(model=ear, file=file, **options)

    verbose = hear(response_format="verbose_json")
    assert hear().text == "SOS HELP"
    assert hear(response_format="text") == "SOS HELP\n"
    assert hear(response_format="vtt").startswith("WEBVTT\n\n00:00:00.000 --> ")
    assert [segment.text for segment in verbose.segments] == ["SOS", "HELP"]
    assert verbose.duration > 1


def test_pictures_are_generated(sdk):
    """Pictures come as base64 in the size that was asked for."""
    client, is_local = sdk

    answer = client.images.generate(model=names(is_local)[2], prompt="a red square", size="256x256", n=2)

    data = base64.b64decode(answer.data[0].b64_json)
    assert len(answer.data) == 2
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    assert data[16:24] == b"\0\0\1\0\0\0\1\0"


def test_a_wrong_file_is_the_callers_fault(sdk):
    client, is_local = sdk

    with pytest.raises(openai.BadRequestError, match="Send a WAV file"):
        client.audio.transcriptions.create(model=names(is_local)[1], file=("a.mp3", b"ID3"))


@pytest.mark.parametrize("path", ["/v1/rerank", "/rerank", "/v2/rerank", "/v1/v1/rerank/"])
def test_reranking_has_every_address_that_clients_use(local: LingpaiServer, path: str):
    fields = {"model": "acme/rerank", "query": "a", "documents": ["b", "aa", "a"], "top_n": 2}

    answer = httpx2.post(local.base + path, json=fields, headers={"authorization": f"Bearer {local.key}"})

    assert answer.status_code == 200, answer.text
    assert [result["index"] for result in answer.json()["results"]] == [1, 2]


def test_a_file_is_the_input_of_the_inference_endpoint(local: LingpaiServer):
    url = f"{local.base}/api/v1/models/examples/file-kind/inference"

    answer = httpx2.post(
        url, files={"file": ("a.png", b"\x89PNG\r\n\x1a\n")}, headers={"authorization": f"Bearer {local.key}"}
    )

    assert answer.json()["output"] == [{"label": "image/png", "score": 1.0}]
    assert answer.json()["task"] == "image-classification"


def test_each_call_is_recorded_without_what_was_said(local: LingpaiServer):
    """The record names the endpoint and the task; neither file nor text is anywhere in it."""
    with local.openai(local.make_key("recorded")) as client:
        sound = spoken(client, "examples/morse-voice", "CANARY")
        answer = client.audio.transcriptions.with_raw_response.create(
            model="examples/morse-ear", file=("canary.wav", sound)
        )

    record = local.record_of(answer.headers["x-request-id"])
    assert (record["endpoint"], record["task"], record["status"]) == (
        "audio.transcriptions", "automatic-speech-recognition", 200,
    )  # fmt: skip
    assert "canary" not in str(record).lower()
