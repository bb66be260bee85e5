"""OWASP API Security 2023, API7 to API9: whom the server asks, what it shows of itself, and what there is."""

import http.server
import json
import re
import threading
from collections.abc import Iterator
from typing import Any, ClassVar

import pytest

from lingpai.identity.scopes import SCOPES_OF_ROLE
from tests.e2e.api_operations import CALLS, filled, operations_of
from tests.e2e.raw_http import chat, exchange, get, get_bytes, post, post_bytes
from tests.fakes.openai_engine import FakeEngine

CHAT = "/v1/chat/completions"
MEMBER = sorted(SCOPES_OF_ROLE["member"])


# -- API7: requests that the server makes for others

ELSEWHERE = (
    "api_base",
    "base_url",
    "api_url",
    "endpoint",
    "url",
    "host",
    "proxy",
    "upstream",
    "target",
    "backend",
    "origin",
)


@pytest.fixture
def elsewhere() -> Iterator[FakeEngine]:
    """An engine that nobody has named to the server."""
    engine = FakeEngine().start()
    yield engine
    engine.stop()


@pytest.mark.parametrize("stream", [False, True])
def test_owasp_api7_nothing_in_a_call_chooses_where_it_goes(relay, relay_key, engine, elsewhere, stream):
    """Fields, nested ones, ones in brackets, headers, the query and the model's name: the engine is asked, nobody else."""
    url = elsewhere.url
    fields: list[dict[str, Any]] = [{name: url} for name in ELSEWHERE]
    fields += [
        {nest: {name: url}}
        for nest in ("user_config", "extra_body", "metadata", "litellm_params")
        for name in ELSEWHERE[:3]
    ]
    fields += [
        {"fallbacks": [{"model": "fake/chat", "api_base": url}]},
        {"user_config[api_base]": url},
        {"api_key": "sk-mine"},
    ]
    headers = (
        "x-forwarded-host: evil.example",
        f"x-base-url: {url}",
        f"x-api-base: {url}",
        f"forwarded: host={url}",
    )

    for more in fields:
        assert post(relay.port, CHAT, chat(stream=stream, **more), key=relay_key).status == 200, more
    assert (
        post(relay.port, f"{CHAT}?api_base={url}", chat(stream=stream), key=relay_key, headers=headers).status
        == 200
    )
    for model in (
        url,
        f"{url}#fake/chat",
        "http://169.254.169.254/latest",
        "file:///etc/passwd",
        "../fake/chat",
    ):
        assert post(relay.port, CHAT, chat(model=model, stream=stream), key=relay_key).status == 404, model

    assert elsewhere.calls == []


class _Inside(http.server.BaseHTTPRequestHandler):
    """A site that nobody outside should read: it redirects once, and answers with a secret."""

    visits: ClassVar[list[str]] = []

    def do_GET(self) -> None:
        self.visits.append(self.path)
        body = b"<html>inside-canary-9d21</html>"
        self.send_response(302 if self.path.startswith("/moved") else 200)
        self.send_header("location", "/landed")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def inside() -> Iterator[str]:
    _Inside.visits.clear()
    site = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Inside)
    thread = threading.Thread(target=site.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{site.server_port}"
    site.shutdown()
    thread.join()
    site.server_close()


@pytest.mark.parametrize("path", ["/v1", "/moved/v1"])
def test_owasp_api7_a_target_is_an_administrators_choice_and_nothing_of_what_it_answers_is_shown(
    tried, root, inside, path
):
    """No member names one; no redirect is followed; the refusal says what was tried and not what came back."""
    tried.admin("POST", "/api/v1/users", {"name": f"member-of-{path[1:3]}"})
    member = tried.make_key(f"key-of-{path[1:3]}", user=f"member-of-{path[1:3]}", scopes=MEMBER)

    by_member = post(tried.port, "/api/v1/models", {"target": inside + path}, key=member)
    visits_by_member = len(_Inside.visits)
    by_admin = root.post("/api/v1/models", json={"target": inside + path})

    assert (by_member.status, visits_by_member) == (403, 0)
    assert by_admin.status_code == 400
    assert "inside-canary" not in by_admin.text
    assert _Inside.visits
    assert "/landed" not in _Inside.visits


# -- API8: configuration


@pytest.mark.parametrize("method", ["TRACE", "TRACK", "CONNECT", "DEBUG", "PROPFIND", "MOVE"])
def test_owasp_api8_no_address_answers_a_method_that_is_not_for_it(tried, document, method):
    """TRACE above all: nothing of a request, and so no credential, comes back."""
    for path in {*document["paths"], "/", "/openapi.json"}:
        answer = exchange(tried.port, get_bytes(filled(path), key=tried.key, method=method))
        assert answer.status in (400, 404, 405, 501), (path, answer.status)
        assert tried.key.encode() not in answer.body
    if method == "TRACE":
        assert (
            exchange(tried.port, post_bytes(CHAT, b"{}", key=tried.key).replace(b"POST", b"TRACE")).status
            == 405
        )


def test_owasp_api8_pages_of_others_read_nothing_of_the_management_api(tried, document):
    """Neither the answer nor a preflight allows it; model calls, whose keys no browser sends by itself, are open."""
    origin = ("origin: https://evil.example",)
    ask = (*origin, "access-control-request-method: GET", "access-control-request-headers: authorization")
    for path in document["paths"]:
        if CALLS.match(path):
            continue
        answers = (
            get(tried.port, filled(path), key=tried.key, headers=origin),
            get(tried.port, filled(path), method="OPTIONS", headers=ask),
        )
        for answer in answers:
            assert not [name for name in answer.headers if name.startswith("access-control-allow")], path
    assert post(tried.port, CHAT, chat(model="lingpai/eliza"), key=tried.key, headers=origin).headers[
        "access-control-allow-origin"
    ]


@pytest.mark.parametrize(
    "path",
    ["/.git/config", "/.env", "/lingpai.toml", "/lingpai.db", "/admin.sock", "/debug", "/docs", "/redoc", "/static/", "/server-status", "/v1/../lingpai.toml", "/%2e%2e/lingpai.db"],
)  # fmt: skip
def test_owasp_api8_nothing_lies_around(tried, path):
    answer = get(tried.port, path, key=tried.key)

    assert answer.status == 404
    assert set(answer.error) == {"message", "type", "param", "code"}


def test_owasp_api8_no_refusal_shows_a_trace_or_a_path_of_the_server(tried, document, root):
    """Whatever is sent to any operation: bodies of every wrong kind, and ids that no database likes."""
    traces = re.compile(r'Traceback|File "|\.py\b|sqlalchemy|pydantic|sqlite3|OperationalError|site-packages')
    bodies = (b"", b"{", b"[]", b'{"name": {"a": [1]}}', b'{"limits": 5, "name": -1e400}', b"\xff\xfe\x00")
    headers = {"content-type": "application/json"}
    for method, path, _ in operations_of(document):
        if method == "DELETE" and "{" not in path:
            continue
        for reference in ("nothing", "%00", "'%20OR%201=1--", "%F0%9F%A6%8A", "x" * 2000):
            target = re.sub(r"\{.*?\}", reference, path)
            answers = (
                [root.request(method, target, content=body, headers=headers) for body in bodies]
                if method in {"POST", "PUT", "PATCH"}
                else [root.request(method, target)]
            )
            for answer in answers:
                assert answer.status_code < 500 or path == "/readyz", (method, target[:80], answer.text)
                assert answer.is_success or not traces.search(answer.text), (method, target[:80], answer.text)
            if "{" not in path:
                break


# -- API9: inventory


def test_owasp_api9_there_is_one_document_and_it_names_everything_that_answers(tried, document):
    """Every operation answers as itself, without a key: never as an address that does not exist."""
    for method, path, _ in operations_of(document):
        answer = exchange(tried.port, get_bytes(filled(path), method=method, headers=("content-length: 0",)))
        unknown = answer.status in (404, 405) and "There is nothing at this address" in json.dumps(
            answer.json
        )
        assert not unknown, (method, path)
    for path in (
        "/docs",
        "/redoc",
        "/v1/openapi.json/",
        "/api/openapi.json",
        "/api/v2/keys",
        "/api/v0/keys",
        "/swagger.json",
    ):
        assert get(tried.port, path, key=tried.key).status == 404, path
