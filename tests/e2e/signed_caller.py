"""Callers who sign: an API key or a client with a signing key on a real server, and whole requests to send to it."""

import json
import time
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from lingpai.wire.request_signing import RequestSigner, Sign, SignatureAlgorithm, hmac_sha256
from tests.e2e.client_tokens import make_client
from tests.e2e.lingpai_server import LingpaiServer
from tests.e2e.raw_http import RawAnswer, chat, exchange
from tests.secrets_scan import SCAN

CHAT = "/v1/chat/completions"
CALL = json.dumps(chat(model="lingpai/eliza")).encode()


class SignedCaller:
    """Signs for a key of its own, without limits unless they are given."""

    def __init__(
        self,
        server: LingpaiServer,
        name: str,
        *,
        algorithm: SignatureAlgorithm = "hmac-sha256",
        **fields: Any,
    ) -> None:
        self.server = server
        made = server.admin("POST", "/api/v1/keys", {"name": name, "limits": ["none"], **fields})
        self.key, self.key_id = str(made["key"]), str(made["id"])
        self.path = f"/api/v1/keys/{self.key_id}/signing-keys"
        self.algorithm: SignatureAlgorithm = algorithm
        self.add_signing_key()

    def add_signing_key(self) -> None:
        """Make a signing key, and sign with it from now on."""
        body: dict[str, Any] = {"name": "of a test", "algorithm": self.algorithm}
        if self.algorithm == "ed25519":
            private = Ed25519PrivateKey.generate()
            body["public_key"] = (
                private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()
            )
        made = self.server.admin("POST", self.path, body)
        self.signing_key_id = str(made["id"])
        self.secret = made["secret"] or ""
        SCAN.secrets.add_credentials(self.secret)
        self.sign: Sign = hmac_sha256(self.secret) if self.algorithm == "hmac-sha256" else private.sign

    def signer(self, *, clock_offset_s: float = 0.0, **options: Any) -> RequestSigner:
        return RequestSigner(
            self.signing_key_id,
            self.algorithm,
            self.sign,
            clock=lambda: time.time() + clock_offset_s,
            **options,
        )

    def request(
        self,
        body: bytes = b"",
        *,
        method: str = "POST",
        path: str = CHAT,
        key: str | None = None,
        headers: dict[str, str] | None = None,
        host: str | None = None,
        clock_offset_s: float = 0.0,
    ) -> bytes:
        """A whole signed request, with `key` as bearer credential beside the signature when it is given."""
        SCAN.secrets.add_prompts(body)
        fields = {"host": host or f"127.0.0.1:{self.server.port}", **(headers or {})}
        if body and "content-type" not in fields:
            fields["content-type"] = "application/json"
        if key is not None:
            fields["authorization"] = f"Bearer {key}"
        signer = self.signer(clock_offset_s=clock_offset_s)
        fields |= signer.sign(method, f"http://{fields['host']}{path}", fields, body)
        fields["content-length"] = str(len(body))
        lines = [f"{method} {path} HTTP/1.1", *(f"{name}: {value}" for name, value in fields.items())]
        return "\r\n".join([*lines, "", ""]).encode("latin-1") + body

    def send(self, body: bytes = b"", **options: Any) -> RawAnswer:
        """One signed request on a connection of its own."""
        return exchange(self.server.port, self.request(body, **options))


class SignedClient:
    """A client for signed requests only, unless the fields say otherwise, with a signing key."""

    def __init__(
        self,
        server: LingpaiServer,
        name: str,
        algorithm: SignatureAlgorithm = "hmac-sha256",
        **fields: Any,
    ) -> None:
        self.server = server
        scopes = ["model:inference", "clients:read"]
        self.client = make_client(server, name, **{"signature_required": True, "scopes": scopes, **fields})
        self.path = f"/api/v1/clients/{self.client.id}/signing-keys"
        body = {"name": "of a test", "algorithm": algorithm}
        private = Ed25519PrivateKey.generate()
        if algorithm == "ed25519":
            form = Encoding.PEM, PublicFormat.SubjectPublicKeyInfo
            body["public_key"] = private.public_key().public_bytes(*form).decode()
        made = server.admin("POST", self.path, body)
        self.signing_key_id = str(made["id"])
        secret = made["secret"] or ""
        SCAN.secrets.add_credentials(secret)
        sign = hmac_sha256(secret) if algorithm == "hmac-sha256" else private.sign
        self._signer = RequestSigner(self.signing_key_id, algorithm, sign, clock=time.time)

    def request(
        self, token: str | None, body: bytes = CALL, *, method: str = "POST", path: str = CHAT
    ) -> bytes:
        """A whole signed request, with `token` beside the signature and covered by it."""
        SCAN.secrets.add_prompts(body)
        fields = {"host": f"127.0.0.1:{self.server.port}"}
        if body:
            fields["content-type"] = "application/json"
        if token is not None:
            fields["authorization"] = f"Bearer {token}"
        fields |= self._signer.sign(method, f"http://{fields['host']}{path}", fields, body)
        fields["content-length"] = str(len(body))
        lines = [f"{method} {path} HTTP/1.1", *(f"{name}: {value}" for name, value in fields.items())]
        return "\r\n".join([*lines, "", ""]).encode() + body

    def send(
        self, token: str | None, body: bytes = CALL, *, method: str = "POST", path: str = CHAT
    ) -> RawAnswer:
        return exchange(self.server.port, self.request(token, body, method=method, path=path))


def refusal(answer: RawAnswer) -> tuple[int, str, str | None]:
    """Status, code and the component or rule of a refusal."""
    return answer.status, answer.error["code"], answer.error["param"]
