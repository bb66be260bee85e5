"""OAuth clients of a server, and the access tokens they get for themselves."""

from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlencode

from tests.e2e.lingpai_server import LingpaiServer
from tests.e2e.raw_http import RawAnswer, RawConnection, chat, exchange, get, get_bytes, post, post_bytes
from tests.secrets_scan import SCAN

FORM = "application/x-www-form-urlencoded"


@dataclass(frozen=True)
class TokenClient:
    """A registered client; `token` gets another access token."""

    server: LingpaiServer
    id: str
    secret: str = field(repr=False)

    def ask_for_token(self, **fields: str) -> RawAnswer:
        """What the token endpoint answers."""
        form = {
            "grant_type": "client_credentials",
            "client_id": self.id,
            "client_secret": self.secret,
            **fields,
        }
        request = post_bytes("/oauth/token", urlencode(form).encode(), content_type=FORM)
        answer = exchange(self.server.port, request)
        SCAN.secrets.add_credentials(answer.body)
        return answer

    def token(self, **fields: str) -> str:
        """A new access token."""
        answer = self.ask_for_token(**fields)
        assert answer.status == 200, answer.body
        return str(answer.json["access_token"])


def make_client(server: LingpaiServer, name: str, **fields: Any) -> TokenClient:
    """A new client; without limits unless they are given."""
    made = server.admin("POST", "/api/v1/clients", {"name": name, "limits": ["none"], **fields})
    return TokenClient(server, made["client_id"], made["client_secret"])


def call(server: LingpaiServer, token: str, **fields: Any) -> RawAnswer:
    """A model call."""
    return post(server.port, "/v1/chat/completions", chat(**fields), key=token)


def ask(server: LingpaiServer, path: str, token: str) -> RawAnswer:
    """A question to the management API with a token."""
    return get(server.port, path, key=token)


def delete(server: LingpaiServer, path: str, token: str) -> int:
    """Delete something of the management API with a token; the status, which has no body when it is gone."""
    with RawConnection(server.port) as connection:
        connection.send(get_bytes(path, key=token, method="DELETE"))
        return connection.read_head()[0]
