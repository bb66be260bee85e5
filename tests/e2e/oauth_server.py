"""A server whose people have passwords, and OAuth calls to it on bare sockets, to the byte."""

import base64
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from tests.e2e.lingpai_server import LingpaiServer
from tests.e2e.raw_http import RawAnswer, chat, exchange, post_bytes
from tests.secrets_scan import SCAN

TOKEN = "/oauth/token"
ALIAS = "/api/v1/token"
REVOKE = "/oauth/revoke"
INTROSPECT = "/oauth/introspect"
FORM = "application/x-www-form-urlencoded"
MODEL = "lingpai/eliza"

Fields = Mapping[str, str] | Iterable[tuple[str, str]] | bytes


@dataclass(frozen=True)
class Client:
    """What a program is given. A public one has no secret."""

    id: str
    secret: str = field(default="", repr=False)

    @property
    def basic(self) -> tuple[str, str]:
        return self.id, self.secret

    @property
    def form(self) -> dict[str, str]:
        """The fields that authenticate it in the body."""
        return {"client_id": self.id} | ({"client_secret": self.secret} if self.secret else {})


class OAuthServer(LingpaiServer):
    """`lingpai serve` with `people`, name to password, who are made on `start` unless they are there."""

    def __init__(self, folder: Path, *, people: Mapping[str, str], config: str = "", **options: Any) -> None:
        super().__init__(folder, config=config, **options)
        self.people = dict(people)
        for password in people.values():
            SCAN.secrets.add("password", password)

    def start(self, *, timeout: float = 30) -> "OAuthServer":
        super().start(timeout=timeout)
        for name, password in list(self.people.items()):
            if (
                self.try_admin("GET", f"/api/v1/users/{name}")[0] == 404
            ):  # else they are there after a restart
                self.make_person(name, password)
        return self

    def make_person(self, name: str, password: str) -> str:
        """Somebody new, as the operator makes them. Returns their name."""
        SCAN.secrets.add("password", password)
        self.admin("POST", "/api/v1/users", {"name": name, "password": password})
        self.people[name] = password
        return name

    def make_client(self, name: str, **fields: Any) -> Client:
        """A new client, without limits unless they are given."""
        made = self.admin("POST", "/api/v1/clients", {"name": name, "limits": ["none"], **fields})
        return Client(made["client_id"], made["client_secret"] or "")

    def form(
        self, path: str, fields: Fields, *, basic: tuple[str, str] | None = None, **options: Any
    ) -> RawAnswer:
        """The answer to a form posted to `path`; credentials in it become known to the scan for secrets."""
        body = fields if isinstance(fields, bytes) else urlencode(list(_pairs(fields))).encode()
        headers, timeout = tuple(options.pop("headers", ())), options.pop("timeout", 20)
        if basic is not None:
            headers = (f"authorization: {basic_header(*basic)}", *headers)
        request = post_bytes(path, body, **{"content_type": FORM, "headers": headers, **options})
        answer = exchange(self.port, request, timeout=timeout)
        SCAN.secrets.add_credentials(answer.body)
        return answer

    def token(self, client: Client, **fields: str) -> dict[str, Any]:
        """What the token endpoint answers to a client's own request."""
        answer = self.form(TOKEN, {"grant_type": "client_credentials", **fields}, basic=client.basic)
        assert answer.status == 200, answer.body
        return dict(answer.json)

    def sign_in(self, name: str, client: Client | None = None, **fields: str) -> dict[str, Any]:
        """Tokens for a user's password, as RFC 6749 section 4.3.2 has it, or through the built-in public client."""
        form = {"grant_type": "password", "username": name, "password": self.people[name], **fields}
        answer = self.form(TOKEN, form | ({} if client is None else client.form))
        assert answer.status == 200, answer.body
        return dict(answer.json)

    def refresh(self, refresh_token: str, client: Client | None = None, **fields: str) -> RawAnswer:
        form = {"grant_type": "refresh_token", "refresh_token": refresh_token, **fields}
        return self.form(TOKEN, form | ({} if client is None else client.form))

    def introspect(self, client: Client, token: str) -> dict[str, Any]:
        answer = self.form(INTROSPECT, {"token": token}, basic=client.basic)
        assert answer.status == 200, answer.body
        return dict(answer.json)

    def call(self, token: str) -> RawAnswer:
        """A model call with a token."""
        request = post_bytes("/v1/chat/completions", chat("hello", model=MODEL), key=token)
        return exchange(self.port, request)


def basic_header(name: str, secret: str) -> str:
    """The value of an Authorization header (RFC 7617)."""
    return "Basic " + base64.b64encode(f"{name}:{secret}".encode()).decode()


def soon() -> str:
    """A time one to two seconds ahead, as the management API writes it."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + 2))


def is_oauth_error(answer: RawAnswer, status: int, error: str) -> bool:
    """Whether an answer is this error in the form of RFC 6749 section 5.2."""
    return answer.status == status and answer.json["error"] == error and is_described(answer)


def is_described(answer: RawAnswer) -> bool:
    """Whether the description has only characters that section 5.2 allows."""
    text = answer.json["error_description"]
    return bool(text) and all(character in _DESCRIPTION for character in text)


_DESCRIPTION = {chr(code) for code in range(0x20, 0x7F)} - {'"', "\\"}


def _pairs(fields: Mapping[str, str] | Iterable[tuple[str, str]]) -> Iterable[tuple[str, str]]:
    return fields.items() if isinstance(fields, Mapping) else fields
