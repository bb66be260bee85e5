"""JWT access tokens: made as RFC 9068 says, and nothing that is forged, borrowed or odd is taken for one."""

import base64
import hashlib
import hmac
import json
from dataclasses import dataclass
from typing import Any

import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ed25519, padding, rsa
from hypothesis import given
from hypothesis import strategies as st

from lingpai.identity.oauth.jwt_tokens import MAX_TOKEN_BYTES, Claims, JwtTokens, peek

ISSUER = "https://models.example"
NOW = 1_800_000_000.0
TOKEN_ID = "0123456789ab"
DER, PEM = serialization.Encoding.DER, serialization.Encoding.PEM
SPKI = serialization.PublicFormat.SubjectPublicKeyInfo


@dataclass
class Key:
    id: str
    algorithm: Any
    secret: Any

    @property
    def private_key(self) -> bytes:
        return self.secret.private_bytes(DER, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())

    @property
    def public_key(self) -> bytes:
        return self.secret.public_key().public_bytes(DER, SPKI)


class Keys:
    def __init__(self) -> None:
        self.keys = [
            Key("tsk_ed", "EdDSA", ed25519.Ed25519PrivateKey.generate()),
            Key("tsk_rsa", "RS256", rsa.generate_private_key(public_exponent=65537, key_size=2048)),
        ]
        self.asked: list[str] = []

    def current(self, algorithm: str) -> Key:
        return next(key for key in self.keys if key.algorithm == algorithm)

    def published(self) -> list[Key]:
        return self.keys

    def find(self, id_: str) -> Key | None:
        self.asked.append(id_)
        return next((key for key in self.keys if key.id == id_), None)


@pytest.fixture(scope="module")
def keys() -> Keys:
    return Keys()


@pytest.fixture
def jwts(keys: Keys) -> JwtTokens:
    return JwtTokens(keys, issuer=lambda: ISSUER, clock=lambda: NOW)


def sign(jwts: JwtTokens, algorithm: Any = "EdDSA", **changed: Any) -> str:
    claims = {
        "token_id": TOKEN_ID,
        "subject": "usr_alice",
        "client_id": "cl-lp-abcdefghijkl",
        "scopes": ("model:inference", "usage:read"),
        "issued_at": NOW,
        "expires_at": NOW + 300,
        **changed,
    }
    return jwts.signer(algorithm)(Claims(**claims))


def encoded(part: Any) -> bytes:
    raw = part if isinstance(part, bytes) else json.dumps(part).encode()
    return base64.urlsafe_b64encode(raw).rstrip(b"=")


def good_claims(**changed: Any) -> dict[str, Any]:
    claims = {
        "iss": ISSUER, "aud": ISSUER, "sub": "usr_alice", "client_id": "cl-lp-abcdefghijkl", "jti": TOKEN_ID,
        "iat": int(NOW), "exp": int(NOW) + 300, "scope": "model:inference", **changed,
    }  # fmt: skip
    return {name: value for name, value in claims.items() if value is not None}


def forged(keys: Keys, header: dict[str, Any], claims: dict[str, Any] | None = None) -> bytes:
    """Signed with the server's own Ed25519 key, whatever stands in it: only what stands in it can be wrong."""
    body = encoded(header) + b"." + encoded(good_claims() if claims is None else claims)
    return body + b"." + encoded(keys.current("EdDSA").secret.sign(body))


GOOD_HEADER = {"alg": "EdDSA", "typ": "at+jwt", "kid": "tsk_ed"}


@pytest.mark.parametrize("algorithm", ["EdDSA", "RS256"])
def test_rfc9068_s2_2_token_has_every_claim_and_is_recognised(jwts: JwtTokens, algorithm: str):
    token = sign(jwts, algorithm)

    assert peek(token.encode(), part=0) == {
        "alg": algorithm,
        "typ": "at+jwt",
        "kid": "tsk_ed" if algorithm == "EdDSA" else "tsk_rsa",
    }
    assert peek(token.encode(), part=1) == {
        "iss": ISSUER, "aud": ISSUER, "sub": "usr_alice", "client_id": "cl-lp-abcdefghijkl",
        "scope": "model:inference usage:read", "iat": int(NOW), "exp": int(NOW) + 300, "jti": TOKEN_ID,
    }  # fmt: skip
    assert jwts.verified_id(token.encode()) == TOKEN_ID


def test_what_the_test_forges_would_be_accepted_if_nothing_were_wrong_with_it(jwts: JwtTokens, keys: Keys):
    assert jwts.verified_id(forged(keys, GOOD_HEADER)) == TOKEN_ID


BAD_HEADERS = {
    "rfc8725_s3_1_no_algorithm": {"alg": "none"},
    "rfc8725_s3_1_algorithm_in_other_case": {"alg": "eddsa"},
    "rfc8725_s3_1_algorithm_of_another_key": {"alg": "RS256"},
    "rfc8725_s3_1_symmetric": {"alg": "HS256"},
    "rfc9068_s4_plain_jwt": {"typ": "JWT"},
    "rfc9068_s4_id_token": {"typ": "id_token+jwt"},
    "rfc9068_s4_no_type": {"typ": None},
    "rfc7515_s4_1_11_unknown_critical_header": {"crit": ["exp"], "exp": 1},
    "rfc7515_s4_1_11_empty_critical_header": {"crit": []},
    "rfc8725_s3_10_embedded_key": {"jwk": {"kty": "OKP", "crv": "Ed25519", "x": "AAAA"}},
    "rfc8725_s3_10_address_of_keys": {"jku": "https://evil.example/keys.json"},
    "rfc8725_s3_10_address_of_certificate": {"x5u": "https://evil.example/cert.pem"},
    "rfc8725_s3_10_certificate": {"x5c": ["AAAA"]},
    "unencoded_payload": {"b64": False},
    "no_key_id": {"kid": None},
    "number_as_key_id": {"kid": 7},
    "list_as_key_id": {"kid": ["tsk_ed"]},
    "rfc8725_s3_10_path_as_key_id": {"kid": "../../etc/passwd"},
    "rfc8725_s3_10_sql_as_key_id": {"kid": "' OR '1'='1"},
    "rfc8725_s3_10_address_as_key_id": {"kid": "https://evil.example/key"},
    "rfc8725_s3_10_null_byte_as_key_id": {"kid": "tsk_ed\0"},
    "long_key_id": {"kid": "t" * 5000},
    "unknown_key_id": {"kid": "tsk_other"},
}


@pytest.mark.parametrize("what", BAD_HEADERS)
def test_header_that_is_not_as_ours_are_is_refused(jwts: JwtTokens, keys: Keys, what: str):
    header = {
        name: value for name, value in {**GOOD_HEADER, **BAD_HEADERS[what]}.items() if value is not None
    }
    keys.asked.clear()

    assert jwts.verified_id(forged(keys, header)) is None
    assert set(keys.asked) <= {"tsk_ed", "tsk_other"}, "a hostile key id leads nowhere"


BAD_CLAIMS = {
    "rfc9068_s4_other_issuer": {"iss": "https://evil.example"},
    "rfc8725_s3_8_issuer_that_begins_alike": {"iss": ISSUER + ".evil.example"},
    "rfc9068_s4_other_audience": {"aud": "https://other.example"},
    "audience_as_list": {"aud": [ISSUER]},
    "rfc9068_s2_2_no_issuer": {"iss": None},
    "rfc9068_s2_2_no_audience": {"aud": None},
    "rfc9068_s2_2_no_expiry": {"exp": None},
    "rfc9068_s2_2_no_id": {"jti": None},
    "rfc9068_s2_2_no_subject": {"sub": None},
    "rfc9068_s2_2_no_client": {"client_id": None},
    "rfc9068_s2_2_no_issue_time": {"iat": None},
    "rfc9068_s4_expired": {"exp": int(NOW)},
    "expiry_as_text": {"exp": str(int(NOW) + 300)},
    "expiry_as_fraction": {"exp": NOW + 0.5},
    "expiry_as_truth": {"exp": True},
    "issued_in_the_future": {"iat": int(NOW) + 120},
    "hostile_id": {"jti": "../../x"},
}


@pytest.mark.parametrize("what", BAD_CLAIMS)
def test_claims_that_are_not_ours_or_not_good_now_are_refused(jwts: JwtTokens, keys: Keys, what: str):
    assert jwts.verified_id(forged(keys, GOOD_HEADER, good_claims(**BAD_CLAIMS[what]))) is None


def test_rfc8725_s2_1_no_signature_is_refused(jwts: JwtTokens):
    claims = encoded(good_claims())
    for algorithm in ("none", "None", "NONE", ""):
        header = encoded({"alg": algorithm, "typ": "at+jwt", "kid": "tsk_ed"})
        assert jwts.verified_id(header + b"." + claims + b".") is None


@pytest.mark.parametrize("form", ["DER", "PEM"])
@pytest.mark.parametrize("kid", ["tsk_rsa", "tsk_ed"])
def test_rfc8725_s2_1_public_key_as_hmac_secret_is_refused(jwts: JwtTokens, keys: Keys, form: str, kid: str):
    public = keys.find(kid).secret.public_key()  # type: ignore[union-attr]  # it is there
    secret = public.public_bytes(DER if form == "DER" else PEM, SPKI)
    body = encoded({"alg": "HS256", "typ": "at+jwt", "kid": kid}) + b"." + encoded(good_claims())

    token = body + b"." + encoded(hmac.new(secret, body, hashlib.sha256).digest())

    assert jwts.verified_id(token) is None


def test_rfc8725_s3_3_signature_of_another_key_is_refused(jwts: JwtTokens):
    body = encoded(GOOD_HEADER) + b"." + encoded(good_claims())
    signature = ed25519.Ed25519PrivateKey.generate().sign(body)

    assert jwts.verified_id(body + b"." + encoded(signature)) is None


def test_oversized_token_is_refused_before_it_is_read(jwts: JwtTokens, keys: Keys):
    token = forged(keys, GOOD_HEADER, good_claims(padding="x" * MAX_TOKEN_BYTES))
    keys.asked.clear()

    assert jwts.verified_id(token) is None
    assert keys.asked == []


def test_rfc8725_s3_3_every_changed_byte_is_noticed(jwts: JwtTokens, keys: Keys):
    """In the header, the claims and the signature; the last digit of a part may differ in bits that stand for nothing."""
    token = sign(jwts).encode()
    harmless = {index for index in range(len(token)) if token[index + 1 : index + 2] in (b".", b"")}

    accepted = [
        index
        for index in range(len(token))
        if jwts.verified_id(
            token[:index] + (b"A" if token[index : index + 1] != b"A" else b"B") + token[index + 1 :]
        )
    ]

    assert set(accepted) <= harmless


@given(st.binary(max_size=300) | st.text(max_size=300).map(str.encode))
def test_no_bytes_do_anything_but_fail(garbage: bytes):
    jwts = JwtTokens(Keys.__new__(Keys), issuer=lambda: ISSUER, clock=lambda: NOW)

    for token in (garbage, b"eyJ" + garbage, garbage + b"." + garbage + b"." + garbage, b".." + garbage):
        assert jwts.verified_id(token) is None
        peek(token, part=0)
        peek(token, part=1)


def test_key_set_has_public_keys_only(jwts: JwtTokens):
    listed = jwts.key_set()["keys"]

    assert [(key["kid"], key["alg"], key["use"]) for key in listed] == [
        ("tsk_ed", "EdDSA", "sig"),
        ("tsk_rsa", "RS256", "sig"),
    ]
    assert not any({"d", "p", "q", "dp", "dq", "qi", "k"} & key.keys() for key in listed)


@pytest.mark.parametrize("algorithm", ["EdDSA", "RS256"])
def test_signature_verifies_with_what_the_key_set_says_alone(jwts: JwtTokens, algorithm: str):
    """As somebody else's server would do it, with nothing but numbers and the primitives."""
    body, _, signature = sign(jwts, algorithm).rpartition(".")
    key = next(each for each in jwts.key_set()["keys"] if each["alg"] == algorithm)
    given_signature = base64.urlsafe_b64decode(signature + "==")

    if algorithm == "EdDSA":
        public = ed25519.Ed25519PublicKey.from_public_bytes(base64.urlsafe_b64decode(key["x"] + "=="))
        public.verify(given_signature, body.encode())
    else:
        n, e = (int.from_bytes(base64.urlsafe_b64decode(key[name] + "==")) for name in "ne")
        numbers = rsa.RSAPublicNumbers(e, n).public_key()
        numbers.verify(given_signature, body.encode(), padding.PKCS1v15(), hashes.SHA256())
