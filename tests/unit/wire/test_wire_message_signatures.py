"""The signature base of RFC 9421: components, what is refused, and the vectors of the RFC's appendix B.2.

The vectors are the RFC's own. Each signature is verified by its algorithm over the base that we build; the algorithms
that the product does not have come from `cryptography`.
"""

import base64
import hmac

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, padding, utils
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.hashes import SHA256, SHA512
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from lingpai.wire.content_digest import check_content_digest, parse_content_digest
from lingpai.wire.message_signatures import (
    ComponentError,
    Message,
    component_value,
    parse_signature,
    parse_signature_input,
    signature_base,
)
from lingpai.wire.structured_fields import Item, StructuredFieldError

RSA_PSS_KEY = b"""-----BEGIN PUBLIC KEY-----
MIIBIjANBgkqhkiG9w0BAQEFAAOCAQ8AMIIBCgKCAQEAr4tmm3r20Wd/PbqvP1s2
+QEtvpuRaV8Yq40gjUR8y2Rjxa6dpG2GXHbPfvMs8ct+Lh1GH45x28Rw3Ry53mm+
oAXjyQ86OnDkZ5N8lYbggD4O3w6M6pAvLkhk95AndTrifbIFPNU8PPMO7OyrFAHq
gDsznjPFmTOtCEcN2Z1FpWgchwuYLPL+Wokqltd11nqqzi+bJ9cvSKADYdUAAN5W
Utzdpiy6LbTgSxP7ociU4Tn0g5I6aDZJ7A8Lzo0KSyZYoA485mqcO0GVAdVw9lq4
aOT9v6d+nb4bnNkQVklLQ3fVAvJm+xdDOp9LCNCN48V2pnDOkFV6+U9nV5oyc6XI
2wIDAQAB
-----END PUBLIC KEY-----
"""
P256_KEY = b"""-----BEGIN PUBLIC KEY-----
MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEqIVYZVLCrPZHGHjP17CTW0/+D9Lf
w0EkjqF7xB4FivAxzic30tMM4GF+hR6Dxh71Z50VGGdldkkDXZCnTNnoXQ==
-----END PUBLIC KEY-----
"""
ED25519_KEY = b"""-----BEGIN PUBLIC KEY-----
MCowBQYDK2VwAyEAJrQLj5P/89iXES9+vFgrIy29clF9CC/oPPsw3c5D0bs=
-----END PUBLIC KEY-----
"""
SHARED_SECRET = base64.b64decode(
    "uzvJfB4u3N0Jy4T7NZ75MDVcr8zSTInedJtkgcu46YW4XByzNJjxBdtjUkdJPBtbmHhIDi6pcl8jsasjlTMtDQ=="
)

REQUEST = Message(
    method="POST",
    authority="example.com",
    target="/foo?param=Value&Pet=dog",
    fields=(
        ("Host", "example.com"),
        ("Date", "Tue, 20 Apr 2021 02:07:55 GMT"),
        ("Content-Type", "application/json"),
        (
            "Content-Digest",
            "sha-512=:WZDPaVn/7XgHaAy8pmojAkGWoRx2UFChF41A2svX+TaPm+AbwAgBWnrIiYllu7BNNyealdVLvRwEmTHWXvJwew==:",
        ),
        ("Content-Length", "18"),
    ),
)
RESPONSE = Message(
    status=200,
    fields=(
        ("Date", "Tue, 20 Apr 2021 02:07:56 GMT"),
        ("Content-Type", "application/json"),
        (
            "Content-Digest",
            "sha-512=:mEWXIS7MaLRuGgxOBdODa3xqM1XdEvxoYhvlCFJ41QJgJc4GTsPp29l5oGX69wWdXymyU0rjJuahq4l5aGgfLQ==:",
        ),
        ("Content-Length", "23"),
    ),
)


def rsa_pss_sha512(base, signature):
    load_pem_public_key(RSA_PSS_KEY).verify(
        signature, base, padding.PSS(mgf=padding.MGF1(SHA512()), salt_length=64), SHA512()
    )


def ecdsa_p256_sha256(base, signature):
    r, s = (int.from_bytes(half) for half in (signature[:32], signature[32:]))
    load_pem_public_key(P256_KEY).verify(utils.encode_dss_signature(r, s), base, ec.ECDSA(SHA256()))


def ed25519(base, signature):
    key = load_pem_public_key(ED25519_KEY)
    assert isinstance(key, Ed25519PublicKey)
    key.verify(signature, base)


def hmac_sha256(base, signature):
    assert hmac.digest(SHARED_SECRET, base, "sha256") == signature


VECTORS = {
    "b21": (
        REQUEST,
        'sig-b21=();created=1618884473;keyid="test-key-rsa-pss";nonce="b3k2pp5k7z-50gnwp.yemd"',
        "sig-b21=:d2pmTvmbncD3xQm8E9ZV2828BjQWGgiwAaw5bAkgibUopemLJcWDy/lkbbHAve4cRAtx31Iq786U7it++wgGxbtRxf8Udx7zFZsckzXaJMkA7ChG52eSkFxykJeNqsrWH5S+oxNFlD4dzVuwe8DhTSja8xxbR/Z2cOGdCbzR72rgFWhzx2VjBqJzsPLMIQKhO4DGezXehhWwE56YCE+O6c0mKZsfxVrogUvA4HELjVKWmAvtl6UnCh8jYzuVG5WSb/QEVPnP5TmcAnLH1g+s++v6d4s8m0gCw1fV5/SITLq9mhho8K3+7EPYTU8IU1bLhdxO5Nyt8C8ssinQ98Xw9Q==:",
        rsa_pss_sha512,
    ),
    "b22": (
        REQUEST,
        'sig-b22=("@authority" "content-digest" "@query-param";name="Pet");created=1618884473;keyid="test-key-rsa-pss";tag="header-example"',
        "sig-b22=:LjbtqUbfmvjj5C5kr1Ugj4PmLYvx9wVjZvD9GsTT4F7GrcQEdJzgI9qHxICagShLRiLMlAJjtq6N4CDfKtjvuJyE5qH7KT8UCMkSowOB4+ECxCmT8rtAmj/0PIXxi0A0nxKyB09RNrCQibbUjsLS/2YyFYXEu4TRJQzRw1rLEuEfY17SARYhpTlaqwZVtR8NV7+4UKkjqpcAoFqWFQh62s7Cl+H2fjBSpqfZUJcsIk4N6wiKYd4je2U/lankenQ99PZfB4jY3I5rSV2DSBVkSFsURIjYErOs0tFTQosMTAoxk//0RoKUqiYY8Bh0aaUEb0rQl3/XaVe4bXTugEjHSw==:",
        rsa_pss_sha512,
    ),
    "b23": (
        REQUEST,
        'sig-b23=("date" "@method" "@path" "@query" "@authority" "content-type" "content-digest" "content-length");created=1618884473;keyid="test-key-rsa-pss"',
        "sig-b23=:bbN8oArOxYoyylQQUU6QYwrTuaxLwjAC9fbY2F6SVWvh0yBiMIRGOnMYwZ/5MR6fb0Kh1rIRASVxFkeGt683+qRpRRU5p2voTp768ZrCUb38K0fUxN0O0iC59DzYx8DFll5GmydPxSmme9v6ULbMFkl+V5B1TP/yPViV7KsLNmvKiLJH1pFkh/aYA2HXXZzNBXmIkoQoLd7YfW91kE9o/CCoC1xMy7JA1ipwvKvfrs65ldmlu9bpG6A9BmzhuzF8Eim5f8ui9eH8LZH896+QIF61ka39VBrohr9iyMUJpvRX2Zbhl5ZJzSRxpJyoEZAFL2FUo5fTIztsDZKEgM4cUA==:",
        rsa_pss_sha512,
    ),
    "b24": (
        RESPONSE,
        'sig-b24=("@status" "content-type" "content-digest" "content-length");created=1618884473;keyid="test-key-ecc-p256"',
        "sig-b24=:wNmSUAhwb5LxtOtOpNa6W5xj067m5hFrj0XQ4fvpaCLx0NKocgPquLgyahnzDnDAUy5eCdlYUEkLIj+32oiasw==:",
        ecdsa_p256_sha256,
    ),
    "b25": (
        REQUEST,
        'sig-b25=("date" "@authority" "content-type");created=1618884473;keyid="test-shared-secret"',
        "sig-b25=:pxcQw6G3AjtMBQjwo8XzkZf/bws5LelbaMk5rGIGtE8=:",
        hmac_sha256,
    ),
    "b26": (
        REQUEST,
        'sig-b26=("date" "@method" "@path" "@authority" "content-type" "content-length");created=1618884473;keyid="test-key-ed25519"',
        "sig-b26=:wqcAqbmYJ2ji2glfAMaRy4gruYYnx2nEFN2HN6jrnDnQCK1u02Gb04v9EDgwUPiu4A0w6vuQv5lIp5WPpBKRCw==:",
        ed25519,
    ),
}


@pytest.mark.parametrize("vector", VECTORS)
def test_rfc9421_b2_vectors(vector):
    message, signature_input, signature, verify = VECTORS[vector]
    label = f"sig-{vector}"

    base = signature_base(message, parse_signature_input(signature_input)[label])

    verify(base, parse_signature(signature)[label])  # raises when the signature is none of this base


def test_rfc9421_b2_digests_of_the_test_messages_are_those_of_their_bodies():
    for message, body in ((REQUEST, b'{"hello": "world"}'), (RESPONSE, b'{"message": "good dog"}')):
        check_content_digest(parse_content_digest(message.value("content-digest")), body)


def test_rfc9421_b2_3_the_base_line_by_line():
    _, signature_input, _, _ = VECTORS["b23"]

    base = signature_base(REQUEST, parse_signature_input(signature_input)["sig-b23"])

    assert base.decode().split("\n")[:4] == [
        '"date": Tue, 20 Apr 2021 02:07:55 GMT',
        '"@method": POST',
        '"@path": /foo',
        '"@query": ?param=Value&Pet=dog',
    ]


def request(target="/", *, authority="www.example.com", scheme="https", method="POST", fields=()):
    return Message(method=method, authority=authority, scheme=scheme, target=target, fields=tuple(fields))


def value_of(message, name, /, **parameters):
    return component_value(message, Item(name, parameters))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("@method", "POST"),
        ("@target-uri", "https://www.example.com/path?param=value"),
        ("@authority", "www.example.com"),
        ("@scheme", "https"),
        ("@request-target", "/path?param=value"),
        ("@path", "/path"),
        ("@query", "?param=value"),
    ],
)
def test_rfc9421_s2_2_derived_components(name, value):
    assert value_of(request("/path?param=value"), name) == value


@pytest.mark.parametrize(
    ("authority", "scheme", "value"),
    [
        ("WWW.Example.COM", "https", "www.example.com"),
        ("example.com:443", "https", "example.com"),
        ("example.com:80", "http", "example.com"),
        ("example.com:443", "http", "example.com:443"),
        ("example.com:8443", "https", "example.com:8443"),
        ("[::1]:443", "https", "[::1]"),
    ],
)
def test_rfc9421_s2_2_3_authority_is_in_lower_case_and_without_the_default_port(authority, scheme, value):
    assert value_of(request(authority=authority, scheme=scheme), "@authority") == value


@pytest.mark.parametrize(
    ("target", "path", "query"),
    [
        ("/", "/", "?"),
        ("/a/b", "/a/b", "?"),
        ("/a?", "/a", "?"),
        ("/a%2Fb/%7e?x=%20", "/a%2Fb/%7e", "?x=%20"),
        ("http://www.example.com/a?b", "/a", "?b"),
        ("http://www.example.com", "/", "?"),
        ("http://www.example.com?b", "/", "?b"),
        ("/a?b?c=http://x/y", "/a", "?b?c=http://x/y"),
    ],
)
def test_rfc9421_s2_2_6_empty_path_is_a_slash_and_s2_2_7_absent_query_a_question_mark(target, path, query):
    assert value_of(request(target), "@path") == path
    assert value_of(request(target), "@query") == query


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("var", "this%20is%20a%20big%0Amultiline%20value"),
        ("bar", "with%20plus%20whitespace"),
        ("fa%C3%A7ade%22%3A%20", "something"),
        ("qux", ""),
    ],
)
def test_rfc9421_s2_2_8_query_parameters_are_decoded_and_encoded_anew(name, value):
    target = "/parameters?var=this%20is%20a%20big%0Amultiline%20value&bar=with+plus+whitespace&fa%C3%A7ade%22%3A%20=something&qux="

    assert value_of(request(target), "@query-param", name=name) == value


@pytest.mark.parametrize("target", ["/", "/?b=1", "/?a=1&a=2", "/?a=1&%61=2"])
def test_rfc9421_s2_2_8_a_query_parameter_that_is_missing_or_comes_twice_is_an_error(target):
    with pytest.raises(ComponentError, match="instead of once"):
        value_of(request(target), "@query-param", name="a")


def test_rfc9421_s2_2_8_a_query_parameter_needs_its_name():
    with pytest.raises(ComponentError, match="name"):
        value_of(request("/?a=1"), "@query-param")


def test_a_query_with_very_many_parameters_is_an_error():
    with pytest.raises(ComponentError, match="more than"):
        value_of(request("/?" + "a&" * 2000), "@query-param", name="b")


def test_rfc9421_s2_1_repeated_fields_are_joined_in_order_and_trimmed():
    message = request(fields=[("X-List", "  a, b "), ("Other", "x"), ("x-LIST", "c\t"), ("X-Empty", "")])

    assert value_of(message, "x-list") == "a, b, c"
    assert value_of(message, "x-empty") == ""


def test_rfc9421_s2_1_1_a_strict_field_is_written_anew():
    message = request(fields=[("Priority", "u=1 ,  i"), ("X-Unknown", "a=1")])

    assert value_of(message, "priority", sf=True) == "u=1, i"
    with pytest.raises(ComponentError, match="not known here"):
        value_of(message, "x-unknown", sf=True)


def test_rfc9421_s2_1_2_a_dictionary_member():
    message = request(fields=[("Example-Dict", "  a=1, b=2;x=1;y=2, c=(a   b    c), d")])

    assert value_of(message, "example-dict", key="a") == "1"
    assert value_of(message, "example-dict", key="d") == "?1"
    assert value_of(message, "example-dict", key="b") == "2;x=1;y=2"
    assert value_of(message, "example-dict", key="c") == "(a b c)"
    with pytest.raises(ComponentError, match="no such member"):
        value_of(message, "example-dict", key="e")


def test_rfc9421_s2_1_3_byte_wrapped_fields_tell_lines_apart():
    separate = request(fields=[("Example-Header", "value, with, lots"), ("Example-Header", "of, commas")])
    joined = request(fields=[("Example-Header", "value, with, lots, of, commas")])

    assert value_of(separate, "example-header", bs=True) == ":dmFsdWUsIHdpdGgsIGxvdHM=:, :b2YsIGNvbW1hcw==:"
    assert value_of(joined, "example-header", bs=True) == ":dmFsdWUsIHdpdGgsIGxvdHMsIG9mLCBjb21tYXM=:"


def test_rfc9421_s2_4_a_response_may_cover_its_request():
    message = Message(status=200, fields=(), request=REQUEST)

    assert value_of(message, "@method", req=True) == "POST"
    assert value_of(message, "content-length", req=True) == "18"
    with pytest.raises(ComponentError, match="add `;req`"):
        value_of(message, "@method")


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("@nothing", {}),
        ("@status", {}),
        ("@method", {"req": True}),
        ("@method", {"sf": True}),
        ("@path", {"name": "x"}),
        ("x-missing", {}),
        ("X-Here", {}),
        ("", {}),
        (b"x-here", {}),
        ("x-here", {"tr": True}),
        ("x-here", {"bs": True, "sf": True}),
        ("x-here", {"bs": True, "key": "a"}),
        ("x-here", {"key": 1}),
        ("x-here", {"unknown": True}),
        ("x-here", {"sf": False}),
        ("content-digest", {"sf": True}),
        ("x-latin", {}),
        ("x-folded", {}),
    ],
)
def test_rfc9421_s2_5_a_component_that_cannot_be_answered_is_an_error(name, parameters):
    message = request(
        fields=[("x-here", "a"), ("content-digest", "=="), ("x-latin", "caf\xe9"), ("x-folded", "a\n b")]
    )

    with pytest.raises(ComponentError):
        value_of(message, name, **parameters)


@pytest.mark.parametrize(
    "components",
    [
        '"date" "date"',
        '"x-here";sf;key="a" "x-here";key="a";sf',
        '"@query-param";name="a" "@query-param";name="a"',
    ],
)
def test_rfc9421_s2_a_component_that_is_listed_twice_is_an_error(components):
    message = request("/?a=1", fields=[("date", "today"), ("x-here", "a=1")])

    with pytest.raises(ComponentError, match="twice"):
        signature_base(message, parse_signature_input(f"s=({components})")["s"])


@pytest.mark.parametrize(
    "text", ["sig1", "sig1=1", 'sig1="x"', "sig1=(), sig1=()", "sig1=();a;a", "sig1=(", ""]
)
def test_rfc9421_s4_1_a_signature_input_is_a_dictionary_of_lists(text):
    if not text:
        assert parse_signature_input(text) == {}
        return
    with pytest.raises(StructuredFieldError):
        parse_signature_input(text)


@pytest.mark.parametrize("text", ["sig1", "sig1=1", "sig1=(:AA==:)", "sig1=:AA==:, sig1=:AA==:", "sig1=:A:"])
def test_rfc9421_s4_2_a_signature_is_a_byte_sequence(text):
    with pytest.raises(StructuredFieldError):
        parse_signature(text)


def test_a_message_does_not_show_its_fields():
    assert "secret" not in repr(request(fields=[("authorization", "Bearer secret")]))
