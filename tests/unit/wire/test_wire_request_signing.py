"""The signer that the SDK shares with the server: what it covers, and that it follows its own profile."""

import hmac

import pytest

from lingpai.wire.content_digest import content_digest
from lingpai.wire.message_signatures import (
    ComponentError,
    Message,
    parse_signature,
    parse_signature_input,
    signature_base,
)
from lingpai.wire.request_signing import RequestSigner, hmac_sha256, wanted_components

SECRET = "a-shared-secret-of-tests"
URL = "https://models.example/v1/chat/completions?trace=1"
HEADERS = {"Content-Type": "application/json", "Authorization": "Bearer abc"}


def signer(**options):
    return RequestSigner(
        "sgn_1", "hmac-sha256", hmac_sha256(SECRET), clock=lambda: 1_700_000_000.9, **options
    )


def test_a_request_with_a_body_and_a_credential():
    added = signer().sign("post", URL, HEADERS, b"{}", nonce="nonce-of-sixteen-or-more")

    assert added["content-digest"] == content_digest(b"{}")
    assert added["signature-input"] == (
        'lingpai=("@method" "@authority" "@path" "@query" "content-type" "content-digest" "authorization")'
        ';created=1700000000;expires=1700000060;nonce="nonce-of-sixteen-or-more";keyid="sgn_1";alg="hmac-sha256";tag="lingpai"'
    )


def test_the_signature_is_that_of_the_base_that_the_server_builds():
    added = signer().sign("POST", URL, HEADERS, b"{}")
    received = Message(
        method="POST",
        authority="models.example:443",
        target="/v1/chat/completions?trace=1",
        fields=(("authorization", "Bearer abc"), ("content-type", "application/json"), *added.items()),
    )

    base = signature_base(received, parse_signature_input(added["signature-input"])["lingpai"])

    expected = hmac.digest(SECRET.encode(), base, "sha256")
    assert parse_signature(added["signature"])["lingpai"] == expected


def test_a_request_without_a_body_needs_neither_digest_nor_type():
    added = signer().sign("GET", "https://models.example/v1/models", {})

    assert set(added) == {"signature-input", "signature"}
    assert added["signature-input"].startswith('lingpai=("@method" "@authority" "@path" "@query");')


def test_a_body_without_its_type_cannot_be_signed():
    with pytest.raises(ComponentError, match="content-type"):
        signer().sign("POST", URL, {}, b"{}")


def test_every_signature_has_a_nonce_of_its_own():
    nonces = {signer().sign("GET", URL, {})["signature-input"] for _ in range(100)}

    assert len(nonces) == 100


def test_host_and_digest_as_the_caller_wants_them():
    added = signer(digest="sha-512").sign("POST", URL, {**HEADERS, "Host": "Other.Example"}, b"{}")

    assert added["content-digest"].startswith("sha-512=:")


@pytest.mark.parametrize("lifetime_s", [0, -1, 301])
def test_a_lifetime_that_the_server_would_refuse_is_refused_here(lifetime_s):
    with pytest.raises(ValueError, match="1 to 300"):
        signer(lifetime_s=lifetime_s)


def test_a_signer_does_not_show_its_secret():
    assert SECRET not in repr(signer())


@pytest.mark.parametrize(
    ("names", "has_content", "more"),
    [
        ((), False, ()),
        ((), True, ("content-type", "content-digest")),
        (("content-type",), False, ("content-type",)),
        (("content-digest", "x-api-key"), False, ("content-digest", "x-api-key")),
        (("authorization",), False, ("authorization",)),
    ],
)
def test_what_a_signature_must_cover(names, has_content, more):
    assert wanted_components(names, has_content=has_content)[4:] == more
