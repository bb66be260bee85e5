"""The examples in `/openapi.json` are what a real server takes and gives.

Each request example is sent by an administrator, in the order of a short story: alice, her project, keys and clients. What
comes back has the fields of the answer's example, and none is missing.
"""

import base64
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import httpx2
import pytest

from lingpai.identity.scopes import ALL_SCOPES
from tests.e2e.client_tokens import FORM, TokenClient, make_client
from tests.e2e.lingpai_server import LingpaiServer
from tests.secrets_scan import SCAN

_MODELS = """
import lingpai as lp


@lp.model("acme/reranker", task="rerank")
def rank(query: str, *, documents: list[str]):
    return [float(document.count(query)) for document in documents]


@lp.model("acme/speech", task="automatic-speech-recognition")
def listen(audio: lp.Audio) -> str:
    return "Hello"


@lp.model("acme/voice", task="text-to-speech")
def speak(text: str, *, voice: str = "one") -> lp.Audio:
    return lp.Audio(b"RIFF$\\0\\0\\0WAVEfmt ", media_type="audio/wav")


@lp.model("acme/painter", task="text-to-image")
def paint(prompt: str, *, width: int = 64, height: int = 64) -> lp.Image:
    return lp.Image(b"\\x89PNG\\r\\n\\x1a\\n", media_type="image/png")
"""
HTTP_METHODS = ("get", "post", "put", "patch", "delete")

# What the story makes: where an address names something, this is it.
PLACES = {
    "/api/v1/keys/{id}": "laptop",
    "/api/v1/clients/{id}": "nightly",
    "/api/v1/users/{id}": "alice",
    "/api/v1/projects/{id}": "search",
    "{user}": "bob",
    "{kind}": "pepper",
    "{model}": "lingpai/sentiment",
    "/v1/models/{id}": "lingpai/eliza",
    "/{path}": "",
}

# Refused for what is not there, never for how the example is written.
NOT_HERE = {
    ("post", "/api/v1/models"): (400, "Nothing answers at"),
    ("put", "/api/v1/targets/key"): (404, "was added at run time"),
    ("post", "/api/v1/invitations/look-up"): (401, "The invitation is mistyped"),
    ("post", "/api/v1/invitations/accept"): (401, "The invitation is mistyped"),
    ("post", "/api/v1/sessions"): (401, "name or the password"),
    ("put", "/api/v1/users/{id}/password"): (403, "Nobody sets the password of somebody else"),
    ("post", "/api/v1/secrets/{kind}/rotate"): (403, "own machine only"),
    ("get", "/api/v1/secrets"): (403, "own machine only"),
    ("get", "/api/v1/sessions/current"): (404, ""),
}

# Fields that depend on what is asked about, by the names of those that hold them.
FREE = frozenset(
    {"data of an event", "uses", "input", "output", "parameters", "before", "after", "model_limits"}
)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LingpaiServer]:
    folder = tmp_path_factory.mktemp("examples")
    Path(folder, "acme.py").write_text(_MODELS)
    server = LingpaiServer(folder, "lingpai.demo", "acme.py").start()
    yield server
    server.stop()


@pytest.fixture(scope="module")
def document(server: LingpaiServer) -> dict[str, Any]:
    document: dict[str, Any] = httpx2.get(f"{server.base}/openapi.json").json()
    return document


@pytest.fixture(scope="module")
def story(server: LingpaiServer, document: dict[str, Any]) -> "Story":
    """Everything that the document has an example for was asked once."""
    story = Story(server, document)
    story.play()
    return story


def operations(document: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path, methods in document["paths"].items():
        for method in HTTP_METHODS:
            if method in methods:
                yield method, path, methods[method]


def resolved(document: dict[str, Any], schema: dict[str, Any]) -> dict[str, Any]:
    while "$ref" in schema:
        schema = document["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
    return schema


def request_examples(document: dict[str, Any], operation: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """Media type and body of each; forms with files have none, because JSON holds no file."""
    for media_type, content in operation.get("requestBody", {}).get("content", {}).items():
        if media_type == "multipart/form-data":
            continue
        schema = resolved(document, content.get("schema", {}))
        found = [content["example"]] if "example" in content else schema.get("examples", [])
        assert found, f"{operation.get('operationId')} has no example of {media_type}"
        yield from ((media_type, example) for example in found)


class Story:
    """Asks the server, and keeps what it answered."""

    def __init__(self, server: LingpaiServer, document: dict[str, Any]) -> None:
        self.server = server
        self.document = document
        self.answers: dict[tuple[str, str], list[httpx2.Response]] = {}
        self.key = server.make_key("all", scopes=sorted(ALL_SCOPES))
        server.admin("POST", "/api/v1/users", {"name": "bob"})

    def play(self) -> None:
        told = list(operations(self.document))
        made_first = ["/api/v1/users", "/api/v1/projects", "/api/v1/keys", "/api/v1/clients"]
        rank = {"post": 1, "put": 1, "get": 2, "patch": 3}  # one of the changes disables alice
        told.sort(key=lambda each: 0 if each[0] == "post" and each[1] in made_first else rank.get(each[0], 9))
        client: TokenClient | None = None
        for method, path, operation in told:
            if method == "delete":
                continue
            if "/oauth/" in path or path == "/api/v1/token":
                client = client or make_client(self.server, "asks")
            for media_type, body in request_examples(self.document, operation):
                self._send(method, path, media_type, body, client)
            if method in ("get", "post") and "requestBody" not in operation:
                self._send(method, path, "", None, client)

    def _send(self, method: str, path: str, media_type: str, body: Any, client: TokenClient | None) -> None:
        headers = {"authorization": f"Bearer {self.key}"}
        if media_type == FORM:
            assert client is not None
            basic = base64.b64encode(f"{client.id}:{client.secret}".encode()).decode()
            headers["authorization"] = f"Basic {basic}"
            if "introspect" in path:
                body = {**body, "token": client.token()}  # the one of the example has ended long ago
        content = urlencode(body) if media_type == FORM else body if media_type == "text/plain" else None
        answer = httpx2.request(
            method,
            f"{self.server.base}{self._address(path)}",
            headers=headers | ({"content-type": media_type} if media_type else {}),
            content=json.dumps(body).encode() if media_type == "application/json" else content,
            timeout=30,
        )
        SCAN.secrets.add_credentials(answer.content)
        self.answers.setdefault((method, path), []).append(answer)

    def _address(self, path: str) -> str:
        if path == "/api/v1/requests/{request_id}":
            calls = self.server.admin("GET", "/api/v1/requests?limit=1")["data"]
            return f"/api/v1/requests/{calls[0]['id']}"
        if path == "/api/v1/limits/explain":
            return f"{path}?key=laptop"
        if path == "/api/v1/usage":
            return f"{path}?by=model"
        for place, name in PLACES.items():
            if place in path:
                path = path.replace(place, place.rpartition("{")[0] + name)
        return path


def test_every_request_example_is_accepted(story: Story) -> None:
    asked = 0
    for (method, path), answers in story.answers.items():
        for answer in answers:
            asked += 1
            if (method, path) in NOT_HERE:
                status, words = NOT_HERE[method, path]
                assert answer.status_code == status, (method, path, answer.text)
                assert words in answer.text, (method, path, answer.text)
            else:
                assert answer.is_success, (method, path, answer.status_code, answer.text)
    assert asked > 60


def test_answers_look_like_their_examples(story: Story, document: dict[str, Any]) -> None:
    compared = 0
    for method, path, operation in operations(document):
        for answer in story.answers.get((method, path), []):
            media_type = answer.headers.get("content-type", "").partition(";")[0]
            if not answer.is_success or media_type != "application/json":
                continue
            content = operation["responses"][str(answer.status_code)]["content"].get("application/json", {})
            place = f"{method.upper()} {path}"
            assert "example" in content, place
            compare(content["example"], answer.json(), place)
            compared += 1
    assert compared > 50


def test_answers_of_what_is_done_elsewhere_look_like_their_examples(
    server: LingpaiServer, document: dict[str, Any]
) -> None:
    """What takes a secret that no example can have, and what is done over the admin socket only."""

    def example(method: str, path: str, status: int) -> Any:
        answer = document["paths"][path][method]["responses"][str(status)]
        return answer["content"]["application/json"]["example"]

    def posted(path: str, status: int, body: dict[str, str]) -> Any:
        answer = httpx2.post(f"{server.base}{path}", json=body)
        SCAN.secrets.add_credentials(answer.content)
        assert answer.status_code == status, answer.text
        compare(example("post", path, status), answer.json(), path)
        return answer.json()

    password = "correct horse battery staple of carol"
    SCAN.secrets.add("password", password)
    server.admin("POST", "/api/v1/users", {"name": "carol"})
    invitation = server.admin("POST", "/api/v1/users/carol/invitation")["invitation"]
    posted("/api/v1/invitations/look-up", 200, {"invitation": invitation})
    posted("/api/v1/invitations/accept", 201, {"invitation": invitation, "password": password})
    session = posted("/api/v1/sessions", 201, {"name": "carol", "password": password})
    SCAN.secrets.add("csrf token", session["csrf_token"])
    sessions = server.admin("GET", "/api/v1/sessions")
    compare(example("get", "/api/v1/sessions", 200), sessions, "sessions")
    secrets = server.admin("GET", "/api/v1/secrets")
    compare(example("get", "/api/v1/secrets", 200), secrets, "secrets")
    rotated = server.admin("POST", "/api/v1/secrets/pepper/rotate", {"leaked": False})
    compare(example("post", "/api/v1/secrets/{kind}/rotate", 201), rotated, "secrets")


def test_exports_look_like_their_examples(story: Story, document: dict[str, Any]) -> None:
    for noun in ("usage", "requests", "audit"):
        path = f"/api/v1/{noun}/export"
        examples = document["paths"][path]["get"]["responses"]["200"]["content"]
        query = "by=model&" if noun == "usage" else ""
        for kind, media_type in (("csv", "text/csv"), ("jsonl", "application/jsonl")):
            answer = httpx2.get(
                f"{story.server.base}{path}?{query}format={kind}",
                headers={"authorization": f"Bearer {story.key}"},
            )
            assert answer.headers["content-type"].startswith(media_type)
            lines, example = answer.text.splitlines(), examples[media_type]["example"].splitlines()
            if kind == "csv":
                assert lines[0] == example[0], path
                assert lines[0].count(",") == example[1].count(","), path
            else:
                for number, line in enumerate(example):
                    compare(json.loads(line), json.loads(lines[number]), path)


def test_every_json_answer_has_an_example(document: dict[str, Any]) -> None:
    for method, path, operation in operations(document):
        for status, answer in operation["responses"].items():
            content = answer.get("content", {}).get("application/json")
            if status.startswith("2") and content is not None:
                assert "example" in content, (method, path)


def test_no_example_is_a_placeholder(document: dict[str, Any]) -> None:
    """`string`, `0` for a time and such are what generators fill in when nobody has thought of an example."""

    def check(value: Any, place: str) -> None:
        if isinstance(value, dict):
            for name, each in value.items():
                if name not in FREE:
                    check(each, f"{place}.{name}")
        elif isinstance(value, list):
            for each in value:
                check(each, place)
        elif isinstance(value, str):
            assert value.lower() not in {"string", "text", "name", "id", "todo"}, place

    for method, path, operation in operations(document):
        for _, body in request_examples(document, operation):
            check(body, f"{method} {path}")
        for answer in operation["responses"].values():
            for content in answer.get("content", {}).values():
                check(content.get("example"), f"{method} {path}")


def compare(example: Any, answer: Any, place: str) -> None:
    """The same fields, and values of the same type, as far as both have any."""
    if place.rpartition(".")[2] in FREE or (
        place.endswith(".data") and "/events" in place and isinstance(example, dict)
    ):
        return
    if isinstance(example, dict) and isinstance(answer, dict):
        assert set(example) == set(answer), place
        for name, value in example.items():
            compare(value, answer[name], f"{place}.{name}")
    elif isinstance(example, list) and isinstance(answer, list):
        for each in example[:1]:
            if answer:
                compare(each, answer[0], place)
    elif example is not None and answer is not None:
        numbers = (int, float)
        is_number = isinstance(example, numbers) and isinstance(answer, numbers)
        assert is_number or type(example) is type(answer), (place, example, answer)
