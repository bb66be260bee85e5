"""OpenAI-compatible origins: addresses as people paste them, and finding out which models there are."""

import asyncio
import json

import pytest

from lingpai.backends import openai as module
from lingpai.backends.openai import BackendError, guess_task, ollama_backend, openai_backend
from tests.fakes.scripted_server import scripted_server

# -- addresses


@pytest.mark.parametrize(
    ("address", "origin", "prefix"),
    [
        ("http://h:8000/v1", "http://h:8000", "/v1"),
        ("http://h:8000/v1/", "http://h:8000", "/v1"),
        ("http://h:8000", "http://h:8000", "/v1"),
        ("http://h:8000/", "http://h:8000", "/v1"),
        ("http://h", "http://h:80", "/v1"),
        ("https://api.example/v1", "https://api.example:443", "/v1"),
        ("https://api.example/openai/v1/chat/completions", "https://api.example:443", "/openai/v1"),
        ("http://h/v1/embeddings", "http://h:80", "/v1"),
        ("http://h/v1/completions/", "http://h:80", "/v1"),
        ("http://h/v1/models", "http://h:80", "/v1"),
        ("http://h/models", "http://h:80", "/v1"),
        ("http://h/compatible-mode/v1", "http://h:80", "/compatible-mode/v1"),
        ("http://[::1]:9/v1", "http://[::1]:9", "/v1"),
        ("  http://h:1/v1\n", "http://h:1", "/v1"),
        ("HTTP://H:1/v1", "http://h:1", "/v1"),
        ("http://h:1/v1?x=y#z", "http://h:1", "/v1"),
    ],
)
def test_address_is_understood_however_it_is_pasted(address, origin, prefix):
    backend = openai_backend(address)

    assert (backend.origin, backend.path_prefix) == (origin, prefix)


@pytest.mark.parametrize(
    "address",
    ["", "h:8000", "ftp://h/v1", "http://", "http:///v1", "http://:80/v1", "http://h:x/v1", "http://h:70000/v1",
     "http://[::1", "http://[zz]/v1", "http://user:pw@h/v1", "http://user@h/v1", "file:///etc/passwd",
     "https://\xa3", "https://\x9a\x7f", "http://a\0b", "http://h/\x01", f"http://{'h' * 64}/v1", "http://a..b/v1"],
)  # fmt: skip
def test_what_is_no_address_is_refused_as_such(address):
    """An administrator may send any text over the API: it must be their mistake, not a fault of ours."""
    with pytest.raises(BackendError):
        openai_backend(address)


def test_password_in_an_address_is_not_repeated():
    with pytest.raises(BackendError) as caught:
        openai_backend("http://user:hunter2@h/v1")

    assert "hunter2" not in str(caught.value)
    assert "api_key_env" in str(caught.value)


def test_backend_is_named_after_its_address_unless_it_has_a_name():
    assert openai_backend("https://api.example/v1").name == "api.example:443"
    assert openai_backend("https://api.example/v1", name="cloud").name == "cloud"


def test_key_is_sent_and_never_shown():
    backend = openai_backend("http://h/v1", api_key="sk-secret")

    assert backend.headers == {"authorization": "Bearer sk-secret"}
    assert "sk-secret" not in repr(backend)


@pytest.mark.parametrize(
    ("variable", "origin"),
    [
        (None, "http://127.0.0.1:11434"),
        ("", "http://127.0.0.1:11434"),
        ("gpu-box", "http://gpu-box:11434"),
        ("gpu-box:9999", "http://gpu-box:9999"),
        ("0.0.0.0", "http://127.0.0.1:11434"),
        ("0.0.0.0:9999", "http://127.0.0.1:9999"),
        ("http://0.0.0.0:11434", "http://127.0.0.1:11434"),
        ("https://ollama.example", "https://ollama.example:443"),
        ("http://10.0.0.1:1/", "http://10.0.0.1:1"),
    ],
)
def test_ollama_is_where_its_own_variable_says(monkeypatch, variable, origin):
    monkeypatch.delenv("OLLAMA_HOST", raising=False)
    if variable is not None:
        monkeypatch.setenv("OLLAMA_HOST", variable)

    backend = ollama_backend()

    assert (backend.origin, backend.path_prefix, backend.name) == (origin, "/v1", "ollama")


@pytest.mark.parametrize(
    ("model", "task"),
    [
        ("Qwen/Qwen3-32B", "chat"),
        ("text-embedding-3-small", "embedding"),
        ("nomic-embed-text:latest", "embedding"),
        ("BAAI/bge-m3", "embedding"),
        ("all-MiniLM-L6-v2", "embedding"),
        ("intfloat/e5-large", "embedding"),
        ("BAAI/bge-reranker-v2-m3", "rerank"),
        ("openai/whisper-large-v3", "automatic-speech-recognition"),
        ("tts-1", "text-to-speech"),
        ("black-forest-labs/FLUX.1", "text-to-image"),
        ("", "chat"),
    ],
)
def test_task_is_guessed_from_the_name(model, task):
    assert guess_task(model) == task


# -- discovery


class Origin:
    """What an origin answers at each path: a status and a body, or nothing but silence."""

    def __init__(self, paths, *, raw=None):
        self.asked = []
        self.headers = []
        self._paths = paths
        self._raw = raw

    async def __call__(self, connection):
        while True:
            request = await connection.request()
            path = request.split(b" ")[1].decode()
            self.asked.append(path)
            self.headers.append(request.lower())
            if self._raw is not None:
                await connection.send(self._raw)
                return
            status, body = self._paths.get(path, (404, {}))
            data = body if isinstance(body, bytes) else json.dumps(body).encode()
            await connection.answer(
                data,
                b"content-type: application/json",
                b"location: http://127.0.0.1:1/",
                status=b"%d X" % status,
            )


def listing(*ids):
    return 200, {"object": "list", "data": [{"id": id_, "object": "model", "created": 5} for id_ in ids]}


def discover(origin, path="/v1", **options):
    """Discovers the models of an origin; answers them and the backend."""

    async def run():
        async with scripted_server(origin) as server:
            backend = openai_backend(f"http://127.0.0.1:{server.port}{path}", **options)
            backend.is_ollama = getattr(origin, "is_ollama", False)
            return await backend.discover(), backend

    return asyncio.run(run())


def problem(origin, path="/v1", **options) -> str:
    with pytest.raises(BackendError) as caught:
        discover(origin, path, **options)
    return str(caught.value)


def test_models_are_found_with_a_guess_at_their_task():
    found, _ = discover(Origin({"/v1/models": listing("qwen3:8b", "bge-m3", "text-embedding-3")}))

    assert [(model.id, model.task, model.is_task_certain, model.created) for model in found] == [
        ("qwen3:8b", "chat", False, 5),
        ("bge-m3", "embedding", False, 5),
        ("text-embedding-3", "embedding", False, 5),
    ]


@pytest.mark.parametrize(
    ("listed_at", "pasted", "prefix"),
    [("/v1/models", "", "/v1"), ("/api/models", "/api", "/api"), ("/api/v1/models", "/api", "/api/v1")],
)
def test_list_is_looked_for_where_it_may_be_and_calls_go_to_the_same_place(listed_at, pasted, prefix):
    found, backend = discover(Origin({listed_at: listing("a")}), pasted)

    assert [model.id for model in found] == ["a"]
    assert backend.path_prefix == prefix


def test_key_goes_along():
    origin = Origin({"/v1/models": listing("a")})

    discover(origin, api_key="sk-secret")

    assert b"authorization: bearer sk-secret\r\n" in origin.headers[0]


@pytest.mark.parametrize("status", [401, 403])
def test_origin_that_wants_a_key_is_told_how_to_give_one(status):
    message = problem(Origin({"/v1/models": (status, {"error": {"message": "no"}})}))

    assert str(status) in message
    assert "api_key_env" in message


def test_origin_without_a_list_is_told_with_what_was_tried():
    message = problem(Origin({}), "/api")

    assert "/api/models answered 404" in message
    assert "/api/v1/models answered 404" in message


def test_owasp_api7_a_redirect_is_not_followed():
    """It would carry the key to a place that somebody else chose."""
    origin = Origin({"/v1/models": (302, {})})

    assert "302" in problem(origin, api_key="sk-secret")


@pytest.mark.parametrize(
    "body",
    [
        b"<html>",
        b"",
        b"[]",
        b"5",
        b"null",
        {"models": []},
        {"data": 5},
        b"\xff",
        b"[" * 100_000,
    ],
    ids=lambda body: repr(body[:12]) if isinstance(body, bytes) else str(body),
)
def test_owasp_api10_an_answer_that_is_no_list_is_told_as_such(body):
    assert "list of models" in problem(Origin({"/v1/models": (200, body)}))


def test_odd_entries_are_left_out():
    body = {
        "data": [
            {"id": "a"},
            {"id": 5},
            {},
            "b",
            None,
            {"id": "c", "created": "yesterday"},
            {"id": "d", "created": True},
        ]
    }

    found, _ = discover(Origin({"/v1/models": (200, body)}))

    assert [(model.id, model.created) for model in found] == [("a", 0), ("c", 0), ("d", 0)]


@pytest.mark.parametrize("body", [{"data": []}, {"data": None}])
def test_origin_may_have_no_models(body):
    assert discover(Origin({"/v1/models": (200, body)}))[0] == []


def test_owasp_api10_a_list_that_is_too_long_is_refused(monkeypatch):
    monkeypatch.setattr(module, "MAX_LIST_BYTES", 1000)

    assert "list of models" in problem(Origin({"/v1/models": listing(*("x" * 50 for _ in range(50)))}))


@pytest.mark.parametrize(
    "raw", [b"SSH-2.0-OpenSSH\r\n", b"", b"HTTP/1.1 200 OK\r\ncontent-length: 99\r\n\r\n{"]
)
def test_what_is_no_web_server_is_told_as_such(raw):
    assert "Nothing answers" in problem(Origin({}, raw=raw))


def test_owasp_api10_an_origin_that_is_silent_is_told_in_time(monkeypatch):
    monkeypatch.setattr(module, "DISCOVERY_TIMEOUT_S", 0.05)

    async def silent(connection):
        await connection.gone()

    assert "did not answer within 0.05 s" in problem(silent)


@pytest.mark.parametrize("host", ["127.0.0.1:1", "a..b", "exa mple", "x" * 64 + ".example", "%41"])
def test_origin_that_is_not_there_is_told_as_such(host):
    """Also where the name is none: the client library has exceptions of other kinds for that."""

    async def run():
        await openai_backend(f"http://{host}/v1").discover()

    with pytest.raises(BackendError):
        asyncio.run(run())


def ollama(show):
    origin = Origin({"/v1/models": listing("a", "b-embed"), "/api/show": show})
    origin.is_ollama = True
    return origin


@pytest.mark.parametrize(
    ("capabilities", "task"),
    [
        (["completion", "tools"], "chat"),
        (["embedding"], "embedding"),
        (["embedding", "completion"], "embedding"),
    ],
)
def test_ollama_knows_the_task(capabilities, task):
    found, _ = discover(ollama((200, {"capabilities": capabilities})))

    assert [(model.task, model.is_task_certain) for model in found] == [(task, True)] * 2


@pytest.mark.parametrize(
    "show",
    [
        (404, {}),
        (200, b"<html>"),
        (200, {}),
        (200, []),
        (200, {"capabilities": None}),
        (200, {"capabilities": 5}),
    ],
)
def test_ollama_that_does_not_know_leaves_the_guess(show):
    found, _ = discover(ollama(show))

    assert [(model.task, model.is_task_certain) for model in found] == [("chat", False), ("embedding", False)]
