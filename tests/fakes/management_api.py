"""A small HTTP server that answers as Lingpai's management API and model calls do, and records what was asked.

It keeps keys, users, models and limits in memory. `faults` replaces the answer to a method and path, to provoke what
a real server rarely does.
"""

import json
import re
import socketserver
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

from lingpai.ids import mint_credential

NOW = "2026-11-20T08:00:00Z"


@dataclass(frozen=True)
class Recorded:
    """One request as it arrived."""

    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: Any


@dataclass
class Answer:
    """One answer: JSON, or raw bytes with their own content type."""

    status: int = 200
    body: Any = None
    headers: dict[str, str] = field(default_factory=dict)


def error(status: int, code: str, message: str, **headers: str) -> Answer:
    body = {"error": {"message": message, "type": "invalid_request_error", "param": None, "code": code}}
    return Answer(status, body, headers)


class FakeApi:
    """The state and the answers; `start` puts it behind a socket."""

    def __init__(self, *, local_administrator: bool) -> None:
        self.requests: list[Recorded] = []
        self.faults: dict[tuple[str, str], Answer] = {}
        self.local_administrator = local_administrator
        self.accepted_key = mint_credential("sk-lp-").token
        self.page_size = 100
        self.keys: dict[str, dict[str, Any]] = {}
        self.clients: dict[str, dict[str, Any]] = {}
        self.tokens: list[dict[str, Any]] = []
        self.users: dict[str, dict[str, Any]] = {}
        self.models = [
            _model("lingpai/eliza", "chat", ["eliza"]),
            _model("lingpai/sentiment", "text-classification", []),
        ]
        self.limits: list[dict[str, Any]] = []
        self.targets: list[dict[str, Any]] = []
        self.secrets: list[dict[str, Any]] = []
        self.usage: list[dict[str, Any]] = []
        self.stream = sse("Hello", " world")
        self.output: Any = "HI!"
        self.server = ""

    def answer(self, request: Recorded) -> Answer:
        self.requests.append(request)
        fault = self.faults.get((request.method, request.path))
        if fault is not None:
            return fault
        if not request.path.endswith("z") and not self._is_known(request):
            return error(401, "invalid_api_key", "The key is unknown. Check LINGPAI_API_KEY.")
        for method, pattern, action in _ROUTES:
            match = re.fullmatch(pattern, request.path)
            if match and method == request.method:
                return action(self, request, *map(unquote, match.groups()))
        return error(404, "not_found", f"Nothing is at {request.path}.")

    def _is_known(self, request: Recorded) -> bool:
        return (
            self.local_administrator or request.headers.get("authorization") == f"Bearer {self.accepted_key}"
        )

    @property
    def last(self) -> Recorded:
        return self.requests[-1]

    # --- keys and users

    def add_key(self, name: str, **wishes: Any) -> dict[str, Any]:
        minted = mint_credential("sk-lp-")
        key = {
            "id": minted.id, "name": name, "user": "admin", "scopes": ["model:inference"], "models": [],
            "limits": [], "allowed_ips": [], "expires_at": None, "created_at": NOW, "state": "active",
            "disabled": False, "disabled_because": None, "last_used_at": None, "last_used_ip": None,
            "hint": minted.hint, "secrets": [_secret(minted.hint)], **wishes,
        }  # fmt: skip
        self.keys[minted.id] = key
        return {**key, "key": minted.token}

    def create_key(self, request: Recorded) -> Answer:
        wishes = dict(request.body)
        if wishes.pop("expires_in", None):
            wishes["expires_at"] = "2027-02-18T08:00:00Z"
        return Answer(201, self.add_key(**wishes), {"cache-control": "no-store"})

    def list_keys(self, request: Recorded) -> Answer:
        wanted = request.query.get("user")
        found = [key for key in self.keys.values() if wanted in {None, key["user"]}]
        begin = int(request.query.get("cursor", 0))
        end = begin + self.page_size
        return Answer(body={"data": found[begin:end], "next_cursor": str(end) if end < len(found) else None})

    def get_key(self, request: Recorded, name: str) -> Answer:
        key = self._find_key(name)
        return Answer(body=key) if key else error(404, "not_found", f"There is no key {name}.")

    def change_key(self, request: Recorded, name: str) -> Answer:
        key = self._find_key(name)
        if key is None:
            return error(404, "not_found", f"There is no key {name}.")
        key.update(request.body)
        return Answer(body=key)

    def rotate_key(self, request: Recorded, name: str) -> Answer:
        key = self._find_key(name)
        if key is None:
            return error(404, "not_found", f"There is no key {name}.")
        minted = mint_credential("sk-lp-", public_id=key["id"])
        old = {**key["secrets"][0], "expires_at": "2099-01-01T00:00:00Z", "last_used_at": NOW}
        is_kept = request.body.get("overlap") != "0s"
        key.update(hint=minted.hint, secrets=[_secret(minted.hint), *([old] if is_kept else [])])
        return Answer(201, {**key, "key": minted.token}, {"cache-control": "no-store"})

    def report_leaked(self, request: Recorded) -> Answer:
        return Answer(202, {"status": "received"})

    def delete_key(self, request: Recorded, name: str) -> Answer:
        key = self._find_key(name)
        if key is None:
            return error(404, "not_found", f"There is no key {name}.")
        del self.keys[key["id"]]
        return Answer(204)

    def _find_key(self, name: str) -> dict[str, Any] | None:
        return next((key for key in self.keys.values() if name in {key["id"], key["name"]}), None)

    # --- clients

    def add_client(self, name: str, *, public: bool = False, **wishes: Any) -> dict[str, Any]:
        minted = mint_credential("cs-lp-")
        client = {
            "client_id": f"cl-lp-{minted.id}", "name": name, "user": "admin", "project": "admin",
            "grants": ["client_credentials"], "public": public, "scopes": ["model:inference"], "models": [],
            "limits": [], "allowed_ips": [], "token_lifetime_s": None, "expires_at": None, "created_at": NOW,
            "disabled": False, "disabled_because": None, "last_used_at": None, "last_used_ip": None,
            "hint": None if public else minted.hint,
            "rotated_at": None, "old_hint": None, "old_expires_at": None, **wishes,
        }  # fmt: skip
        self.clients[name] = client
        return {**client, "client_secret": None if public else minted.token}

    def create_client(self, request: Recorded) -> Answer:
        wishes = {name: value for name, value in request.body.items() if name != "expires_in"}
        return Answer(201, self.add_client(**wishes))

    def list_clients(self, request: Recorded) -> Answer:
        return Answer(body={"data": list(self.clients.values()), "next_cursor": None})

    def get_client(self, request: Recorded, name: str) -> Answer:
        client = self._find_client(name)
        return Answer(body=client) if client else error(404, "not_found", f"There is no client `{name}`.")

    def change_client(self, request: Recorded, name: str) -> Answer:
        client = self._find_client(name)
        if client is None:
            return error(404, "not_found", f"There is no client `{name}`.")
        client.update(request.body)
        return Answer(body=client)

    def rotate_client(self, request: Recorded, name: str) -> Answer:
        client = self._find_client(name)
        if client is None:
            return error(404, "not_found", f"There is no client `{name}`.")
        old = {} if request.body.get("overlap") == "0s" else {"old_hint": "cs-lp-…old", "old_expires_at": NOW}
        client.update(rotated_at=NOW, **old)
        return Answer(body={**client, "client_secret": mint_credential("cs-lp-").token})

    def delete_client(self, request: Recorded, name: str) -> Answer:
        client = self._find_client(name)
        if client is None:
            return error(404, "not_found", f"There is no client `{name}`.")
        del self.clients[client["name"]]
        return Answer(204)

    def _find_client(self, name: str) -> dict[str, Any] | None:
        return next(
            (each for each in self.clients.values() if name in (each["client_id"], each["name"])), None
        )

    # --- tokens

    def add_token(self, id_: str, **fields: Any) -> dict[str, Any]:
        token = {
            "id": id_, "kind": "family" if id_.startswith("fam_") else "access_token", "client": "desktop",
            "client_id": "cl-lp-4fKx0aZ1bC2d", "user": "alice", "scopes": ["model:inference"], "created_at": NOW,
            "refreshed_at": None, "expires_at": "2099-01-01T00:00:00Z", "address": None, "user_agent": None, **fields,
        }  # fmt: skip
        self.tokens.append(token)
        return token

    def list_tokens(self, request: Recorded) -> Answer:
        begin = int(request.query.get("cursor", 0))
        end = begin + min(self.page_size, int(request.query["limit"]))
        more = str(end) if end < len(self.tokens) else None
        return Answer(body={"data": self.tokens[begin:end], "next_cursor": more})

    def revoke_token(self, request: Recorded, id_: str) -> Answer:
        left = [token for token in self.tokens if token["id"] != id_]
        if len(left) == len(self.tokens):
            return error(
                404, "not_found", f"There is no token `{id_}`. `GET /api/v1/tokens` lists those that are out."
            )
        self.tokens = left
        return Answer(204)

    def create_user(self, request: Recorded) -> Answer:
        default = {"role": "member", "limits": ["2000/day@Asia/Shanghai"]}
        user = {"id": "usr_1", "disabled": False, "created_at": NOW, **default, **request.body}
        user["has_password"] = user.pop("password", None) is not None
        self.users[user["name"]] = user
        return Answer(201, user)

    def list_users(self, request: Recorded) -> Answer:
        return Answer(body={"data": list(self.users.values()), "next_cursor": None})

    def change_user(self, request: Recorded, name: str) -> Answer:
        self.users[name].update(request.body)
        return Answer(body=self.users[name])

    # --- models, limits, usage

    def list_models(self, request: Recorded) -> Answer:
        return Answer(body={"data": self.models})

    def get_model(self, request: Recorded, model: str) -> Answer:
        found = next((each for each in self.models if each["id"] == model), None)
        return Answer(body=found) if found else error(404, "model_not_found", f"There is no model `{model}`.")

    def add_model(self, request: Recorded) -> Answer:
        return Answer(201, {"data": [_model("acme/added", "chat", [])]})

    def check_model(self, request: Recorded) -> Answer:
        good = request.body["model"] == "lingpai/eliza"
        steps = [
            {"name": "connect", "ok": True, "ms": 1.4, "detail": ""},
            {"name": "call", "ok": good, "ms": 12.0, "detail": "answered" if good else "500"},
        ]
        return Answer(body={"model": request.body["model"], "ok": good, "steps": steps})

    def remove_model(self, request: Recorded, model: str) -> Answer:
        return Answer(204)

    def list_targets(self, request: Recorded) -> Answer:
        return Answer(body={"data": self.targets})

    def put_target_key(self, request: Recorded) -> Answer:
        return Answer(204)

    def list_secrets(self, request: Recorded) -> Answer:
        return Answer(body={"data": self.secrets})

    def rotate_secret(self, request: Recorded, kind: str) -> Answer:
        return Answer(201, {"data": [secret_version(kind, "2", "current")]})

    def retire_secret(self, request: Recorded, kind: str, version: str) -> Answer:
        return Answer(204)

    def list_limits(self, request: Recorded) -> Answer:
        return Answer(body={"data": self.limits})

    def set_limits(self, request: Recorded) -> Answer:
        subject = {"subject": request.body["subject"], "id": "x", "name": request.body["id"]}
        state = {"used": 3, "remaining": 1997, "resets_at": "2026-11-20T16:00:00Z"}
        return Answer(
            body={"data": [{**subject, "limit": limit, **state} for limit in request.body["limits"]]}
        )

    def report_usage(self, request: Recorded) -> Answer:
        by = [name for name in request.query.get("by", "").split(",") if name]
        frame = {"since": "2026-11-13", "until": "2026-11-20", "tz": request.query["tz"], "by": by}
        return Answer(body={"data": self.usage, **frame})

    # --- model calls

    def own_key(self, request: Recorded) -> Answer:
        limit = {
            "subject": "key",
            "limit": "2000/day@Asia/Shanghai",
            "used": 1,
            "remaining": 1999,
            "resets_at": NOW,
        }
        body = {"object": "key", "id": "x", "name": "mine", "user": "alice", "scopes": ["model:inference"]}
        return Answer(body={**body, "models": [], "allowed_ips": [], "expires_at": None, "limits": [limit]})

    def openai_models(self, request: Recorded) -> Answer:
        return Answer(
            body={"object": "list", "data": [{"id": model["id"], "object": "model"} for model in self.models]}
        )

    def infer(self, request: Recorded, model: str) -> Answer:
        usage = {"prompt_tokens": 1, "completion_tokens": 1}
        return Answer(
            body={
                "request_id": "req_1",
                "model": model,
                "task": "generic",
                "output": self.output,
                "usage": usage,
            }
        )

    def chat(self, request: Recorded) -> Answer:
        if request.body.get("stream"):
            return Answer(
                body=self.stream, headers={"content-type": "text/event-stream", "x-request-id": "req_7"}
            )
        message = {"role": "assistant", "content": "Hello world"}
        return Answer(body={"choices": [{"index": 0, "message": message, "finish_reason": "stop"}]})

    def health(self, request: Recorded) -> Answer:
        return Answer(body={"status": "ok"}, headers={"x-request-id": "req_0123456789ab00000001"})


def secret_version(kind: str, version: str, state: str, **fields: Any) -> dict[str, Any]:
    """One version of a secret."""
    return {
        "kind": kind, "version": version, "state": state, "algorithm": None, "place": f"/data/secrets/{kind}.json",
        "created_at": NOW, "use_from": None, "verify_until": None, "uses": {}, **fields,
    }  # fmt: skip


@dataclass
class SlowStream:
    """A body that begins and then sends comments until the caller leaves, which sets `left`."""

    beginning: bytes
    left: threading.Event


def sse(*texts: str, end: str = "data: [DONE]\n\n") -> bytes:
    """A streamed chat answer."""
    chunks = [
        {"choices": [{"index": 0, "delta": {"content": text}, "finish_reason": None}]} for text in texts
    ]
    return ("".join(f"data: {json.dumps(chunk)}\n\n" for chunk in chunks) + end).encode()


def _secret(hint: str) -> dict[str, Any]:
    return {"hint": hint, "created_at": NOW, "expires_at": None, "last_used_at": None}


def _model(model: str, task: str, aliases: list[str]) -> dict[str, Any]:
    details = {
        "description": f"Demonstration: {task}.",
        "aliases": aliases,
        "status": "ready",
        "backends": ["worker"],
    }
    return {"id": model, "task": task, **details}


_ROUTES: list[tuple[str, str, Callable[..., Answer]]] = [
    ("POST", "/api/v1/keys", FakeApi.create_key),
    ("POST", "/api/v1/keys/leaked", FakeApi.report_leaked),
    ("POST", "/api/v1/keys/([^/]+)/rotate", FakeApi.rotate_key),
    ("GET", "/api/v1/keys", FakeApi.list_keys),
    ("GET", "/api/v1/tokens", FakeApi.list_tokens),
    ("DELETE", "/api/v1/tokens/([^/]+)", FakeApi.revoke_token),
    ("POST", "/api/v1/clients", FakeApi.create_client),
    ("GET", "/api/v1/clients", FakeApi.list_clients),
    ("GET", "/api/v1/clients/([^/]+)", FakeApi.get_client),
    ("PATCH", "/api/v1/clients/([^/]+)", FakeApi.change_client),
    ("POST", "/api/v1/clients/([^/]+)/rotate", FakeApi.rotate_client),
    ("DELETE", "/api/v1/clients/([^/]+)", FakeApi.delete_client),
    ("GET", "/api/v1/keys/([^/]+)", FakeApi.get_key),
    ("PATCH", "/api/v1/keys/([^/]+)", FakeApi.change_key),
    ("DELETE", "/api/v1/keys/([^/]+)", FakeApi.delete_key),
    ("POST", "/api/v1/users", FakeApi.create_user),
    ("GET", "/api/v1/users", FakeApi.list_users),
    ("PATCH", "/api/v1/users/([^/]+)", FakeApi.change_user),
    ("GET", "/api/v1/models", FakeApi.list_models),
    ("POST", "/api/v1/models", FakeApi.add_model),
    ("POST", "/api/v1/models/check", FakeApi.check_model),
    ("POST", "/api/v1/models/(.+)/inference", FakeApi.infer),
    ("GET", "/api/v1/models/(.+)", FakeApi.get_model),
    ("DELETE", "/api/v1/models/(.+)", FakeApi.remove_model),
    ("GET", "/api/v1/targets", FakeApi.list_targets),
    ("PUT", "/api/v1/targets/key", FakeApi.put_target_key),
    ("GET", "/api/v1/secrets", FakeApi.list_secrets),
    ("POST", "/api/v1/secrets/([^/]+)/rotate", FakeApi.rotate_secret),
    ("DELETE", "/api/v1/secrets/([^/]+)/([^/]+)", FakeApi.retire_secret),
    ("GET", "/api/v1/limits", FakeApi.list_limits),
    ("PUT", "/api/v1/limits", FakeApi.set_limits),
    ("GET", "/api/v1/usage", FakeApi.report_usage),
    ("GET", "/v1/key", FakeApi.own_key),
    ("GET", "/v1/models", FakeApi.openai_models),
    ("POST", "/v1/chat/completions", FakeApi.chat),
    ("GET", "/healthz", FakeApi.health),
    ("GET", "/readyz", FakeApi.health),
]


def _handler(api: FakeApi) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def handle_any(self) -> None:
            target = urlsplit(self.path)
            body = self.rfile.read(int(self.headers.get("content-length", 0)))
            headers = {name.lower(): value for name, value in self.headers.items()}
            query = dict(parse_qsl(target.query))
            request = Recorded(self.command, target.path, query, headers, json.loads(body) if body else None)
            self._send(api.answer(request))

        do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = handle_any  # noqa: N815  the base class looks for them

        def _send(self, answer: Answer) -> None:
            if isinstance(answer.body, SlowStream):
                self._send_slowly(answer.body, answer.headers)
                return
            is_raw = isinstance(answer.body, bytes)
            payload = answer.body if is_raw else json.dumps(answer.body).encode()
            headers = {"content-type": "application/json", **answer.headers}
            self.send_response(answer.status)
            for name, value in headers.items():
                self.send_header(name, value)
            if answer.status != 204:
                self.send_header("content-length", str(len(payload)))
            self.end_headers()
            if answer.status != 204:
                self.wfile.write(payload)

        def _send_slowly(self, stream: SlowStream, headers: dict[str, str]) -> None:
            self.close_connection = True
            self.send_response(200)
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(stream.beginning)
            try:
                while True:
                    time.sleep(0.02)
                    self.wfile.write(b": ping\n\n")
            except OSError:
                stream.left.set()

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            """Say nothing."""

    return Handler


class _UnixServer(ThreadingHTTPServer):
    address_family = socketserver.socket.AF_UNIX
    allow_reuse_address = False

    def server_bind(self) -> None:
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = "localhost", 0


@contextmanager
def serve(api: FakeApi, *, socket: Path | None = None) -> Iterator[FakeApi]:
    """Answer on `socket`, or on a free port of this machine (`api.server` is then the address)."""
    kind = ThreadingHTTPServer if socket is None else _UnixServer
    with kind(("127.0.0.1", 0) if socket is None else str(socket), _handler(api)) as server:
        server.daemon_threads = True
        if socket is None:
            api.server = f"http://127.0.0.1:{server.server_port}"
        else:
            socket.chmod(0o600)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield api
        finally:
            server.shutdown()
            thread.join()
