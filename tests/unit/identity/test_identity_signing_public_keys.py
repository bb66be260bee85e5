"""Public keys of Ed25519 in every form that people have them in; what is none is refused without being repeated."""

import base64
import json

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_public_key,
)

from lingpai.identity.signing.public_keys import PublicKeyError, parse_public_key, public_key_text

PRIVATE = Ed25519PrivateKey.generate()
PUBLIC = PRIVATE.public_key()
RAW = PUBLIC.public_bytes(Encoding.Raw, PublicFormat.Raw)
PEM = PUBLIC.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()
X = base64.urlsafe_b64encode(RAW).decode().rstrip("=")


@pytest.mark.parametrize(
    "text",
    [
        PEM,
        PEM.replace("\n", "\r\n"),
        f"\n  {PEM}",
        public_key_text(RAW),
        public_key_text(RAW).rstrip("="),
        X,
        json.dumps({"kty": "OKP", "crv": "Ed25519", "x": X, "kid": "mine", "use": "sig"}),
    ],
)
def test_a_public_key_in_any_form(text):
    assert parse_public_key(text) == RAW


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "0 bytes"),
        ("hello", "neither"),
        ("ü", "neither"),
        (public_key_text(RAW[:31]), "31 bytes"),
        (public_key_text(RAW + b"x"), "33 bytes"),
        (PEM + PEM, "one public key"),
        (PEM.replace("PUBLIC KEY", "CERTIFICATE"), "one public key"),
        (
            X25519PrivateKey.generate()
            .public_key()
            .public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
            .decode(),
            "another kind",
        ),
        ('{"kty": "OKP", "crv": "Ed25519"}', 'no "x"'),
        ('{"kty": "OKP", "crv": "X25519", "x": "AA"}', "crv"),
        ('{"kty": "RSA"}', "kty"),
        ("{", "no JSON"),
        ("{" * 1999, "no JSON"),
        ("x" * 2001, "characters"),
    ],
)
def test_what_is_no_public_key_is_refused(text, why):
    with pytest.raises(PublicKeyError, match=why):
        parse_public_key(text)


@pytest.mark.parametrize(
    "text",
    [
        PRIVATE.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode(),
        json.dumps({"kty": "OKP", "crv": "Ed25519", "x": X, "d": X}),
    ],
)
def test_a_private_key_is_refused_and_not_repeated(text):
    with pytest.raises(PublicKeyError, match="private key") as raised:
        parse_public_key(text)

    assert X not in str(raised.value)


@pytest.mark.parametrize(
    "hexadecimal",
    [
        "0100000000000000000000000000000000000000000000000000000000000000",
        "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        "0000000000000000000000000000000000000000000000000000000000000080",
        "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
        "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc85",
        "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
        "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac03fa",
        "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
    ],
)
def test_rfc8032_a_point_of_small_order_is_refused(hexadecimal):
    with pytest.raises(PublicKeyError, match="small order"):
        parse_public_key(public_key_text(bytes.fromhex(hexadecimal)))


def test_why_points_of_small_order_are_refused():
    """With the neutral element as the key, one signature fits every message."""
    neutral = (1).to_bytes(32, "little")

    for message in (b"one", b"another"):
        Ed25519PublicKey.from_public_bytes(neutral).verify(neutral + bytes(32), message)


def test_rfc9421_b1_4_the_published_example_is_refused():
    published = load_pem_public_key(
        b"-----BEGIN PUBLIC KEY-----\nMCowBQYDK2VwAyEAJrQLj5P/89iXES9+vFgrIy29clF9CC/oPPsw3c5D0bs=\n-----END PUBLIC KEY-----\n"
    )
    raw = published.public_bytes(Encoding.Raw, PublicFormat.Raw)

    with pytest.raises(PublicKeyError, match="everybody knows"):
        parse_public_key(public_key_text(raw))
