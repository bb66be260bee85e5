"""Sound, pictures and reranking through the stock `openai` package: to local models, and on to another server."""

import base64
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

import httpx2
import openai
import pytest

from tests.e2e.lingpai_server import ROOT, LingpaiServer
from tests.e2e.stock_clients import httpx2_post
from tests.secrets_scan import SCAN

EXAMPLES = ROOT / "examples"
PICTURE = b"\x89PNG\r\n\x1a\npicture-canary-8e01"
SOUND = b"RIFF\x24\0\0\0WAVEfmt sound-canary-8e01"
SCAN.secrets.add_prompts(PICTURE + b" " + SOUND)  # in base64 nobody reads the words
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

    answer = client.images.generate(
        model=names(is_local)[2], prompt="a red square, painter-canary-8e01", size="256x256", n=2
    )

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
    documents = ["b", "rerank-canary-8e01 aaaaa", "a"]
    fields = {"model": "acme/rerank", "query": "a", "documents": documents, "top_n": 2}

    answer = httpx2_post(local.base + path, json=fields, headers={"authorization": f"Bearer {local.key}"})

    assert answer.status_code == 200, answer.text
    assert [result["index"] for result in answer.json()["results"]] == [1, 2]


def test_a_file_is_the_input_of_the_inference_endpoint(local: LingpaiServer):
    url = f"{local.base}/api/v1/models/examples/file-kind/inference"

    answer = httpx2_post(
        url, files={"file": ("a.png", PICTURE)}, headers={"authorization": f"Bearer {local.key}"}
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


# -- addresses, and large files

CALLER = """
import lingpai as lp

@lp.model("acme/look", task="image-to-text")
def look(image: lp.Image) -> str:
    return f"{image.media_type} {len(image.bytes)}"

@lp.model("acme/listen", task="automatic-speech-recognition")
def listen(audio: lp.Audio) -> str:
    return f"{len(audio.bytes)}"
"""
PRIVATE = "has no address on the public internet"
NOT_PLAIN = "is not a plain IPv4 address"
REFUSED = [
    ("http://127.0.0.1:{port}/secret.png", PRIVATE),
    ("http://localhost:{port}/secret.png", PRIVATE),
    ("http://[::1]:{port}/secret.png", PRIVATE),
    ("http://[::ffff:127.0.0.1]:{port}/secret.png", PRIVATE),
    ("http://0.0.0.0:{port}/secret.png", PRIVATE),
    ("http://2130706433:{port}/secret.png", NOT_PLAIN),
    ("http://0x7f.1:{port}/secret.png", NOT_PLAIN),
    ("http://169.254.169.254/latest/meta-data/", PRIVATE),
    ("http://10.0.0.1/a.png", PRIVATE),
    ("http://loops.test:{port}/secret.png", PRIVATE),
    ("http://me@127.0.0.1:{port}/secret.png", "user name"),
    ("http://127.0.0.1:22/", "port 22"),
    ("file:///etc/passwd", ""),
    ("ftp://127.0.0.1/a.png", ""),
]
# A public name that resolves to this host, as anybody's name server may say: /etc/hosts is not ours to write to.
SITE = """
from lingpai.backends.engines import fetching, requests
async def resolve(host, port):
    return ["127.0.0.1"] if host == "loops.test" else await fetching.resolve(host, port)
requests._FETCHING = fetching.Fetcher(resolve=resolve)
"""


class Site(BaseHTTPRequestHandler):
    """A site inside: it counts who comes."""

    visits: ClassVar[list[str]] = []

    def do_GET(self) -> None:
        self.visits.append(self.path)
        if self.path == "/redirect.png":
            self.send_response(302)
            self.send_header("location", "/secret.png")
            self.end_headers()
            return
        self.send_response(200)
        self.send_header("content-type", "image/png")
        self.end_headers()
        self.wfile.write(b"\x89PNG\r\n\x1a\n")

    def log_message(self, *_: object) -> None:
        """Nothing is printed."""


@pytest.fixture(scope="module")
def site():
    with ThreadingHTTPServer(("127.0.0.1", 0), Site) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server.server_port
        server.shutdown()
        thread.join()


def looking(folder: Path, app: str = CALLER, config: str = "") -> LingpaiServer:
    server = LingpaiServer(folder, "look.py", config=config)
    (folder / "look.py").write_text(app)
    return server.start()


@pytest.fixture(scope="module")
def looker(tmp_path_factory: pytest.TempPathFactory):
    """A server that may fetch, on a machine where `loops.test` resolves to the machine itself."""
    server = looking(tmp_path_factory.mktemp("looker"), SITE + CALLER)
    server.key = server.make_key("unlimited")
    yield server
    server.stop()


def look(server: LingpaiServer, image, model: str = "acme/look") -> httpx2.Response:
    url = f"{server.base}/api/v1/models/{model}/inference"
    return httpx2_post(
        url, json={"input": image}, headers={"authorization": f"Bearer {server.key}"}, timeout=60
    )


@pytest.mark.parametrize(("address", "said"), REFUSED, ids=[case[0] for case in REFUSED])
@pytest.mark.parametrize("model", ["acme/look", "acme/listen"])
def test_owasp_api7_an_address_that_is_not_public_is_refused_unvisited(looker, site, model, address, said):
    """The caller's fault, with the field named; nobody comes to the site inside."""
    Site.visits.clear()

    answer = look(looker, {"url": address.format(port=site)}, model)

    assert answer.status_code == 400, answer.text
    assert said in answer.json()["error"]["message"]
    assert answer.json()["error"]["param"].startswith("input")
    assert Site.visits == []


def test_owasp_api7_a_redirect_is_not_followed(tmp_path: Path, site):
    """Even where the guard lets everything pass, the address that was asked for is all that is visited."""
    allowed = "requests._FETCHING = fetching.Fetcher(resolve=resolve, is_allowed=lambda _: True, is_own=lambda _: False)\n"
    server = looking(tmp_path, SITE + allowed + CALLER)
    Site.visits.clear()
    try:
        fetched = look(server, f"http://loops.test:{site}/secret.png")
        redirected = look(server, f"http://loops.test:{site}/redirect.png")
    finally:
        server.stop()

    assert fetched.json()["output"] == {"text": "image/png 8"}
    assert redirected.status_code == 400
    assert "answered with status 302" in redirected.json()["error"]["message"]
    assert Site.visits == ["/secret.png", "/redirect.png"]


def test_fetching_can_be_switched_off(tmp_path: Path):
    """Then no address is even looked up, and files that are sent themselves go on working."""
    server = looking(tmp_path, config="[gateway]\nfetch_media = false\n")
    try:
        named = look(server, "https://example.com/cat.png")
        sent = look(server, f"data:image/png;base64,{base64.b64encode(PICTURE).decode()}")
        heard = look(server, f"data:audio/wav;base64,{base64.b64encode(SOUND).decode()}", "acme/listen")
        unknown = look(server, f"data:image/png;base64,{base64.b64encode(PICTURE).decode()}", "acme/lock")
    finally:
        server.stop()

    assert named.status_code == 400
    assert "does not fetch addresses" in named.json()["error"]["message"]
    assert sent.json()["output"] == {"text": f"image/png {len(PICTURE)}"}
    assert heard.json()["output"] == {"text": f"{len(SOUND)}"}
    assert unknown.status_code == 404


def test_large_picture_passes_and_leaves_no_memory_behind(looker):
    """Thirty megabytes as a data URL and as a form, again and again: the server is as large after as before."""
    url = f"{looker.base}/api/v1/models/acme/look/inference"
    small = b"\x89PNG\r\n\x1a\n" + bytes(22_000_000)
    large = b"\x89PNG\r\n\x1a\n" + bytes(30_000_000)
    as_url = "data:image/png;base64," + base64.b64encode(small).decode()  # 29.4 MB as text

    def send() -> list[str]:
        form = httpx2_post(
            url,
            files={"file": ("a.png", large)},
            headers={"authorization": f"Bearer {looker.key}"},
            timeout=60,
        )
        return [each.json()["output"]["text"] for each in (look(looker, as_url), form)]

    first, before = send(), looker.resident_bytes()
    for _ in range(4):
        assert send() == first

    assert first == [f"image/png {len(small)}", f"image/png {len(large)}"]
    assert looker.resident_bytes() < before + 70_000_000, "one body more than before"


def test_owasp_api4_a_picture_over_the_limit_is_a_413(looker):
    answer = look(looker, "data:image/png;base64," + "A" * 60_000_000)

    assert answer.status_code == 413
    assert answer.json()["error"]["code"]
