"""What other implementations sign is accepted: npm's and PyPI's `http-message-signatures`, with both algorithms."""

import datetime
import json
import random
import secrets
import subprocess
from pathlib import Path

import httpx2
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)
from http_message_signatures import HTTPMessageSigner, HTTPSignatureKeyResolver, algorithms
from http_message_signatures.httpx2 import adapt_message

from lingpai.wire.content_digest import content_digest
from tests.e2e.every_byte import check_that_every_byte_counts
from tests.e2e.raw_http import chat
from tests.secrets_scan import SCAN

NODE = Path(__file__).parents[1] / "node"
BODY = json.dumps(chat("Hello", model="lingpai/eliza")).encode()
COVERED = ["@method", "@authority", "@path", "@query", "content-type", "content-digest"]
ALGORITHMS = ["hmac-sha256", "ed25519"]


class Pair:
    """A signing key on the server, and what signs with it."""

    def __init__(self, server, name, algorithm):
        self.algorithm = algorithm
        path = f"/api/v1/keys/{name}/signing-keys"
        server.admin("POST", "/api/v1/keys", {"name": name, "signature_required": True})
        body = {"name": "interop", "algorithm": algorithm}
        if algorithm == "ed25519":
            private = Ed25519PrivateKey.generate()
            public = private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
            body["public_key"] = public.decode()
            self.key = private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
        made = server.admin("POST", path, body)
        self.id = made["id"]
        if algorithm == "hmac-sha256":
            self.key = made["secret"]
            SCAN.secrets.add_credentials(self.key)


@pytest.fixture(params=ALGORITHMS)
def pair(demo, key_name, request):
    return Pair(demo, key_name, request.param)


# -- npm


def signed_by_node(pair, url, *, method="POST", body=BODY, fields=COVERED, send=True):
    """What Node has signed, and what it got when it sent that."""
    headers = {"content-type": "application/json", "content-digest": content_digest(body)} if body else {}
    wanted = {
        "method": method, "url": url, "headers": headers, "body": body.decode(), "fields": fields, "keyId": pair.id,
        "algorithm": pair.algorithm, "key": pair.key, "nonce": secrets.token_urlsafe(18), "send": send,
    }  # fmt: skip
    outcome = subprocess.run(
        ["node", "sign.mjs"],
        cwd=NODE,
        input=json.dumps(wanted),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert outcome.returncode == 0, outcome.stderr
    return json.loads(outcome.stdout)


def test_rfc9421_s3_1_npm_signs_a_model_call(demo, pair):
    answer = signed_by_node(pair, f"{demo.v1}/chat/completions")

    assert answer["status"] == 200, answer


def test_npm_signs_a_request_without_a_body(demo, pair):
    answer = signed_by_node(pair, f"{demo.base}/v1/key?x=1", method="GET", body=b"", fields=COVERED[:4])

    assert answer["status"] == 200, answer


def test_rfc9421_s3_2_what_npm_signed_and_was_changed_is_refused(demo, pair, new_seed):
    """Every single byte of it, in its signature, in what that covers and in the body."""
    headers = signed_by_node(pair, f"{demo.v1}/chat/completions?trace=abc", send=False)["headers"]
    lines = ["POST /v1/chat/completions?trace=abc HTTP/1.1", f"host: 127.0.0.1:{demo.port}"]
    lines += [f"{name.lower()}: {value}" for name, value in headers.items()]
    head = "\r\n".join([*lines, f"content-length: {len(BODY)}", "", ""])

    check_that_every_byte_counts(demo.port, head.encode() + BODY, random.Random(new_seed))


# -- PyPI


class Keys(HTTPSignatureKeyResolver):
    def __init__(self, pair):
        self._pair = pair

    def resolve_public_key(self, key_id):
        raise NotImplementedError

    def resolve_private_key(self, key_id):
        assert key_id == self._pair.id
        if self._pair.algorithm == "ed25519":
            return load_pem_private_key(self._pair.key.encode(), None)
        return self._pair.key.encode()


def signed_by_pypi(pair, method, url, body, covered):
    algorithm = algorithms.ED25519 if pair.algorithm == "ed25519" else algorithms.HMAC_SHA256
    headers = {"content-type": "application/json"} if body else {}
    request = httpx2.Request(method, url, headers=headers, content=body)
    HTTPMessageSigner(signature_algorithm=algorithm, key_resolver=Keys(pair)).sign(
        adapt_message(request),
        key_id=pair.id,
        covered_component_ids=covered,
        nonce=secrets.token_urlsafe(18),
        tag="lingpai",
        expires=datetime.datetime.now() + datetime.timedelta(seconds=60),
        body=body or None,
    )
    return request


@pytest.mark.parametrize(
    ("method", "path", "body", "covered"),
    [
        ("POST", "/v1/chat/completions", BODY, COVERED[:5]),
        ("GET", "/v1/key", b"", COVERED[:4]),
        (
            "GET",
            "/v1/models?task=chat&x=%20",
            b"",
            [*COVERED[:4], '"@query-param";name="task"', "@target-uri"],
        ),
    ],
)
def test_rfc9421_s3_1_pypi_signs(*, demo, pair, method, path, body, covered):
    request = signed_by_pypi(pair, method, demo.base + path, body, covered)

    with httpx2.Client() as client:
        answer = client.send(request)
        again = client.send(request)

    assert answer.status_code == 200, answer.text
    assert (again.status_code, again.json()["error"]["param"]) == (401, "nonce")
