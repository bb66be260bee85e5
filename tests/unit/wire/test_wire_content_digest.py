"""Digests of content, RFC 9530."""

import base64
import hashlib

import pytest

from lingpai.wire.content_digest import (
    ContentDigestError,
    check_content_digest,
    content_digest,
    parse_content_digest,
)

BODY = b'{"hello": "world"}'
SHA256 = "sha-256=:X48E9qOokqqrvdts8nOJRJN3OWDUoyWxBf7kbu9DBPE=:"
SHA512 = "sha-512=:WZDPaVn/7XgHaAy8pmojAkGWoRx2UFChF41A2svX+TaPm+AbwAgBWnrIiYllu7BNNyealdVLvRwEmTHWXvJwew==:"


@pytest.mark.parametrize(("algorithm", "digest"), [("sha-256", SHA256), ("sha-512", SHA512)])
def test_rfc9421_b2_digests_of_the_test_request(algorithm, digest):
    assert content_digest(BODY, algorithm) == digest
    check_content_digest(parse_content_digest(digest), BODY)


def test_rfc9530_b1_digest_of_the_full_representation():
    assert content_digest(b'{"hello": "world"}\n') == "sha-256=:RK/0qy18MlBSVnWgjwz6lZEWjP/lF5HF9bvEF8FabDg=:"


def test_rfc9530_digest_of_nothing():
    assert content_digest(b"") == "sha-256=:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=:"


def test_rfc9530_s2_several_digests_must_all_be_right():
    good = f"{SHA256}, {SHA512}"
    wrong = f"{SHA256}, {content_digest(b'another body', 'sha-512')}"

    check_content_digest(parse_content_digest(good), BODY)
    with pytest.raises(ContentDigestError, match="its sha-512 is not that of the 18 bytes received"):
        check_content_digest(parse_content_digest(wrong), BODY)


@pytest.mark.parametrize("name", ["md5", "sha", "unixsum", "unixcksum", "adler", "crc32c", "sha-1", "blake3"])
def test_rfc9530_s5_insecure_and_unknown_digests_are_refused_even_beside_a_strong_one(name):
    value = base64.b64encode(hashlib.md5(BODY).digest()).decode()

    with pytest.raises(ContentDigestError, match="use sha-256 or sha-512"):
        parse_content_digest(f"{SHA256}, {name}=:{value}:")


@pytest.mark.parametrize(
    "value",
    ["", "sha-256", "sha-256=1", 'sha-256="x"', "sha-256=(:AA==:)", "sha-256=:AA==:", "sha-256=:!:", "{"],
)
def test_what_is_no_digest_is_refused(value):
    with pytest.raises(ContentDigestError):
        parse_content_digest(value)


def test_a_message_never_shows_the_right_digest():
    with pytest.raises(ContentDigestError) as raised:
        check_content_digest(parse_content_digest(SHA256), b"tampered")

    assert base64.b64encode(hashlib.sha256(b"tampered").digest()).decode() not in str(raised.value)
