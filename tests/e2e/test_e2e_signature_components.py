"""Signatures whose base is written out by hand, against a real server: what is covered, by which rules, and what is refused.

The signature itself is always right, so that a refusal is one by the rule and not by the arithmetic.
"""

import base64
import gzip
import hashlib
import json
import secrets
import time

import pytest

from tests.e2e.raw_http import RawAnswer, chat, exchange
from tests.e2e.signed_caller import CHAT, SignedCaller, refusal
from tests.secrets_scan import SCAN

BODY = json.dumps(chat(model="lingpai/eliza")).encode()
TOLD = "/v1/key"
MADE = "/api/v1/keys"


def digest(name: str, body: bytes) -> str:
    return f"{name}=:{base64.b64encode(hashlib.new(name.replace('-', ''), body).digest()).decode()}:"


class HandSigner:
    """Makes requests with bases of its own writing, signed with the caller's HMAC key."""

    def __init__(self, caller: SignedCaller) -> None:
        self.caller = caller

    def send(
        self, *, method="GET", target=TOLD, host="models.example", fields=(), body=b"", digests=None, covered=None, more=(),
        label="sig1", **parameters,
    ) -> RawAnswer:  # fmt: skip
        """`covered` are the lines of the base; `more` come behind the usual ones."""
        SCAN.secrets.add_prompts(body)
        fields = [("host", host), *fields]
        path, mark, query = target.partition("?")
        lines = [("@method", method), ("@authority", host), ("@path", path), ("@query", mark + query or "?")]
        if body:
            digests = digests or digest("sha-256", body)
            fields += [("content-type", "application/json"), ("content-digest", digests)]
            lines += fields[-2:]
        lines = [(f'"{name}"', value) for name, value in lines]
        lines = [*(lines if covered is None else covered), *more]
        listed = self._parameters([name for name, _ in lines], parameters)
        base = "\n".join([*(f"{name}: {value}" for name, value in lines), f'"@signature-params": {listed}'])
        signature = base64.b64encode(self.caller.sign(base.encode("latin-1"))).decode()
        fields += [("signature-input", f"{label}={listed}"), ("signature", f"{label}=:{signature}:")]
        fields.append(("content-length", str(len(body))))
        head = "\r\n".join([f"{method} {target} HTTP/1.1", *(f"{name}: {value}" for name, value in fields)])
        return exchange(self.caller.server.port, f"{head}\r\n\r\n".encode("latin-1") + body)

    def _parameters(self, names: list[str], changed: dict[str, str | None]) -> str:
        created = int(time.time())
        parameters = {
            "created": str(created), "expires": str(created + 60), "nonce": f'"{secrets.token_urlsafe(18)}"',
            "keyid": f'"{self.caller.signing_key_id}"', "alg": '"hmac-sha256"', "tag": '"lingpai"',
        } | changed  # fmt: skip
        return f"({' '.join(names)})" + "".join(
            f";{name}={value}" for name, value in parameters.items() if value is not None
        )


@pytest.fixture
def signer(demo, key_name):
    return HandSigner(SignedCaller(demo, key_name, scopes=["model:inference", "keys:read", "keys:write"]))


# -- section 2: components


def test_rfc9421_s2_5_a_base_written_by_hand_is_that_of_the_server(signer):
    assert signer.send().status == 200
    assert signer.send(method="POST", target=CHAT, body=BODY).status == 200
    assert signer.send(target="/v1/models?task=chat").status == 200


@pytest.mark.parametrize(
    ("identifier", "value"),
    [
        ('"@method"', "GET"),  # the second time
        ('"@nothing"', "x"),
        ('"@status"', "200"),
        ('"@method";req', "GET"),
        ('"x-missing"', ""),
        ('"X-List"', "a, b"),
        ('"x-list";tr', "a, b"),
        ('"x-list";made-up', "a, b"),
        ('"x-latin"', "caf\xe9"),
        ('"@query-param"', "x"),
        ('"@query-param";name="missing"', ""),
        ('"@query-param";name="twice"', "1"),
    ],
)
@pytest.mark.parametrize(
    ("method", "target", "body"), [("GET", "/v1/models", b""), ("POST", CHAT, BODY)], ids=["managed", "call"]
)
def test_rfc9421_s2_a_component_that_cannot_be_answered_once_is_refused_by_name(
    *, signer, method, target, body, identifier, value
):
    answer = signer.send(
        method=method,
        target=f"{target}?twice=1&twice=2",
        body=body,
        fields=[("x-list", "a"), ("x-list", "b"), ("x-latin", "caf\xe9")],
        more=[(identifier, value)],
    )

    assert refusal(answer) == (401, "signature_invalid", identifier)


@pytest.mark.parametrize("fold", ["a\r\n b", "a\rb", "a\nb"])
def test_rfc9421_s2_5_a_value_of_more_than_one_line_gets_nowhere(signer, fold):
    answer = signer.send(fields=[("x-list", fold)], more=[('"x-list"', "a b")])

    assert answer.status == 400


@pytest.mark.parametrize(
    ("value", "status"), [("a, b", 200), ("a,b", 401), ("a", 401), ("b, a", 401), (" a , b", 401)]
)
def test_rfc9421_s2_1_repeated_fields_count_as_one_joined_by_a_comma_and_a_blank(signer, value, status):
    answer = signer.send(fields=[("X-List", "  a "), ("x-list", "b")], more=[('"x-list"', value)])

    assert answer.status == status


@pytest.mark.parametrize(
    ("host", "covered"),
    [
        ("Models.EXAMPLE", "models.example"),
        ("models.example:80", "models.example"),
        ("m.example:443", "m.example:443"),
    ],
)
def test_rfc9421_s2_2_3_authority_counts_in_lower_case_and_without_the_default_port(signer, host, covered):
    lines = [('"@method"', "GET"), ('"@authority"', covered), ('"@path"', TOLD), ('"@query"', "?")]
    as_sent = [lines[0], ('"@authority"', host), *lines[2:]]

    assert signer.send(host=host, covered=lines).status == 200
    if host != covered:
        assert refusal(signer.send(host=host, covered=as_sent)) == (401, "signature_invalid", "signature")


def test_rfc9421_s2_2_7_an_absent_query_counts_as_a_question_mark(signer):
    lines = [('"@method"', "GET"), ('"@authority"', "models.example"), ('"@path"', TOLD), ('"@query"', "")]

    assert refusal(signer.send(covered=lines)) == (401, "signature_invalid", "signature")
    assert signer.send(covered=[*lines[:3], ('"@query"', "?")]).status == 200


def test_rfc9421_s2_2_8_a_query_parameter_that_is_there_once_can_be_covered(signer):
    target, identifier = "/v1/models?task=chat&x=a+b", '"@query-param";name="x"'

    assert signer.send(target=target, more=[(identifier, "a%20b")]).status == 200
    assert refusal(signer.send(target=target, more=[(identifier, "a+b")]))[2] == "signature"


# -- sections 2.3, 3.2, 7: parameters and policy


@pytest.mark.parametrize(
    ("parameters", "param"),
    [
        ({"created": "1795000000.5"}, "created"),
        ({"created": '"1795000000"'}, "created"),
        ({"created": "?1"}, "created"),
        ({"created": None, "expires": None}, "created"),
        ({"expires": "9999999999.5"}, "expires"),
        ({"expires": '"9999999999"'}, "expires"),
        ({"expires": str(int(time.time()) + 3600)}, "expires"),
        ({"alg": '"rsa-pss-sha512"'}, "alg"),
        ({"alg": '"ed25519"'}, "alg"),  # good in itself, and not what the key is for
        ({"alg": '"none"'}, "alg"),
        ({"keyid": '"sgn_000000000000"'}, "keyid"),
        ({"keyid": None}, "keyid"),
        ({"nonce": None}, "nonce"),
        ({"nonce": '"short"'}, "nonce"),
        ({"tag": None}, "tag"),
        ({"tag": '"other"'}, "tag"),
        ({"made-up": "1"}, "made-up"),
    ],
    ids=str,
)
def test_rfc9421_s2_3_parameters_that_break_the_profile_are_refused_by_the_server(signer, parameters, param):
    assert refusal(signer.send(**parameters)) == (401, "signature_invalid", param)
    assert refusal(signer.send(method="POST", target=CHAT, body=BODY, **parameters))[2] == param


def test_rfc9421_s7_2_1_a_signature_over_nothing_is_refused_by_the_server(signer):
    """As in vector B.2.1, whose signature is right."""
    assert refusal(signer.send(covered=[])) == (401, "signature_invalid", "@method")


@pytest.mark.parametrize(
    "left_out", ["@method", "@authority", "@path", "@query", "content-type", "content-digest"]
)
def test_rfc9421_s3_2_1_each_required_component_is_required_by_the_server(signer, left_out):
    values = {
        "@method": "POST", "@authority": "models.example", "@path": MADE, "@query": "?",
        "content-type": "application/json", "content-digest": digest("sha-256", b'{"name": "x"}'),
    }  # fmt: skip
    lines = [(f'"{name}"', value) for name, value in values.items() if name != left_out]

    answer = signer.send(method="POST", target=MADE, body=b'{"name": "x"}', covered=lines)

    assert refusal(answer) == (401, "signature_invalid", left_out)


def test_rfc9421_s7_2_5_any_label_will_do(signer):
    assert signer.send(label="whatever-it-is").status == 200


# -- RFC 9530: digests


@pytest.mark.parametrize("name", ["md5", "sha", "unixsum", "unixcksum", "adler", "crc32c"])
def test_rfc9530_s5_weak_digests_are_refused_even_beside_a_strong_one(signer, name):
    weak = f"{name}=:{base64.b64encode(hashlib.md5(BODY).digest()).decode()}:"

    for digests in (weak, f"{digest('sha-256', BODY)}, {weak}"):
        answer = signer.send(method="POST", target=CHAT, body=BODY, digests=digests)
        assert refusal(answer) == (401, "signature_invalid", "content-digest")


@pytest.mark.parametrize(("right", "wrong"), [("sha-256", "sha-512"), ("sha-512", "sha-256")])
def test_rfc9530_s2_all_digests_must_be_those_of_the_body(signer, right, wrong):
    both = f"{digest(right, BODY)}, {digest(wrong, BODY)}"
    half = f"{digest(right, BODY)}, {digest(wrong, BODY + b' ')}"
    send = {"method": "POST", "target": CHAT, "body": BODY}

    assert signer.send(**send, digests=digest(right, BODY)).status == 200
    assert signer.send(**send, digests=both).status == 200
    assert refusal(signer.send(**send, digests=half)) == (401, "signature_invalid", "content-digest")


def test_rfc9530_s2_the_digest_is_over_the_content_as_it_was_sent(signer):
    """After its coding: what was compressed has another one. (No coding is accepted, which is said when it fits.)"""
    packed = gzip.compress(BODY)
    fields = [("content-encoding", "gzip")]

    of_plain, of_packed = (
        signer.send(method="POST", target=CHAT, body=packed, fields=fields, digests=digest("sha-256", body))
        for body in (BODY, packed)
    )

    assert refusal(of_plain) == (401, "signature_invalid", "content-digest")
    assert of_packed.status == 415
    assert signer.send(method="POST", target=MADE, body=packed, fields=fields).status == 400
