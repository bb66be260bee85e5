"""The guide to webhooks: its few lines accept what Lingpai signs, and nothing else."""

import time

import pytest
from document_parts import ROOT, split

from lingpai.events.signing import signature_headers, signing_keys

SECRET = "whsec_c2VjcmV0IG9mIHRoZSBndWlkZSB0byB3ZWJob29rcw=="
OTHER = "whsec_YW5vdGhlciBzZWNyZXQsIGFzIGxvbmcgYXMgdGhlIGZpcnN0"
BODY = b'{"type":"limit.threshold"}'


@pytest.fixture(scope="module")
def is_genuine():
    _, fences = split((ROOT / "docs" / "guides" / "webhooks.md").read_text(encoding="utf-8"))
    (program,) = ["\n".join(fence.lines) for fence in fences if fence.language == "python"]
    defined = {}
    exec(program, defined)
    return defined["is_genuine"]


def headers(secrets=SECRET, *, age_s=0):
    timestamp = int(time.time()) - age_s
    return signature_headers(signing_keys(secrets), message_id="evt_1", timestamp=timestamp, body=BODY)


def test_what_lingpai_signs_is_genuine(is_genuine):
    assert is_genuine(headers(), BODY, SECRET)
    assert is_genuine(headers(f"{OTHER} {SECRET}"), BODY, SECRET), "while the secret is changed, both sign"


def test_nothing_else_is_genuine(is_genuine):
    assert not is_genuine(headers(), BODY + b" ", SECRET)
    assert not is_genuine(headers(OTHER), BODY, SECRET)
    assert not is_genuine(headers(age_s=301), BODY, SECRET)
    assert not is_genuine(headers() | {"webhook-id": "evt_2"}, BODY, SECRET)
