"""The profile: which signatures are accepted at all, and that a refusal names the component or rule that failed."""

from contextlib import suppress
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from identity_fakes import NOW
from signing_requests import BODY, COVERED, GOOD, KEY_ID, with_field

from lingpai.errors import LingpaiError
from lingpai.identity.signing.profile import faults, read_fields, read_head
from lingpai.wire.content_digest import content_digest
from lingpai.wire.structured_fields import Item, Token


def refusal(message, *, now=NOW):
    with pytest.raises(LingpaiError) as caught:
        read_head(message, now=now)
    assert caught.value.code == "signature_invalid"
    assert caught.value.status == 401
    return caught.value.param, caught.value.message


def test_a_good_signature_is_read():
    head = read_head(GOOD.message(), now=NOW)

    assert (head.key_id, head.algorithm, head.nonce) == (KEY_ID, "hmac-sha256", "a nonce of this test")
    assert head.until == NOW + 60
    assert head.base.startswith(b'"@method": POST\n"@authority": models.example\n"@path": /v1/embeddings\n')
    assert set(head.digests) == {"sha-256"}


def test_alg_and_expires_may_be_left_out():
    head = read_head(GOOD.with_parameters(alg=None, expires=None).message(), now=NOW)

    assert head.algorithm is None
    assert head.until == NOW + 300


@pytest.mark.parametrize("name", COVERED)
def test_rfc9421_s3_2_1_a_required_component_that_is_not_covered_is_refused(name):
    covered = tuple(each for each in COVERED if each != name)

    assert refusal(GOOD.but(covered=covered).message())[0] == name


def test_rfc9421_s7_2_1_an_empty_list_of_components_is_refused():
    param, message = refusal(GOOD.but(covered=()).message())

    assert param == "@method"
    assert 'does not cover "@method"' in message


@pytest.mark.parametrize("name", ["authorization", "x-api-key", "api-key", "x-goog-api-key"])
def test_rfc9421_s3_2_1_a_credential_beside_the_signature_must_be_covered(name):
    signing = GOOD.but(headers=(*GOOD.headers, (name, "Bearer sk-lp-x")))

    assert refusal(signing.message())[0] == name
    assert read_head(signing.but(covered=(*COVERED, name)).message(), now=NOW)


def test_a_request_without_a_body_needs_neither_type_nor_digest():
    signing = GOOD.but(method="GET", body=b"", headers=(), covered=COVERED[:4])

    assert read_head(signing.message(), now=NOW).digests == {}


def test_a_type_that_is_sent_must_be_covered_even_without_a_body():
    signing = GOOD.but(method="GET", body=b"", covered=COVERED[:4])

    assert refusal(signing.message())[0] == "content-type"


def test_a_chunked_body_is_a_body():
    signing = GOOD.but(method="GET", body=b"", headers=(), covered=COVERED[:4])

    assert refusal(with_field(signing.message(), "transfer-encoding", "chunked"))[0] == "content-type"


@pytest.mark.parametrize("parameters", [{"key": "sha-256"}, {"sf": True}])
def test_rfc9421_s2_1_parts_and_strict_forms_of_fields_are_refused(parameters):
    component = Item("content-digest", parameters)

    param, message = refusal(GOOD.but(covered=(*COVERED, component)).message())

    assert param.startswith('"content-digest";')
    assert "as a whole" in message


def test_a_component_in_another_form_does_not_count_as_covered():
    wrapped = Item("content-digest", {"bs": True})

    assert refusal(GOOD.but(covered=(*COVERED[:5], wrapped)).message())[0] == "content-digest"
    assert read_head(GOOD.but(covered=(*COVERED, wrapped)).message(), now=NOW)


def test_more_components_than_the_profile_wants_are_welcome():
    signing = GOOD.but(
        covered=(*COVERED, "date", Item("@query-param", {"name": "trace"})),
        headers=(*GOOD.headers, ("date", "today")),
    )

    assert b'"date": today' in read_head(signing.message(), now=NOW).base


def test_very_many_components_are_refused():
    headers = tuple((f"x-{number}", "1") for number in range(30))
    signing = GOOD.but(headers=(*GOOD.headers, *headers), covered=(*COVERED, *(name for name, _ in headers)))

    assert refusal(signing.message())[0] == "signature-input"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("tag", None), ("tag", "other"), ("tag", Token("lingpai")), ("tag", b"lingpai"),
        ("keyid", None), ("keyid", "sk-lp-x"), ("keyid", "sgn_short"), ("keyid", Token(KEY_ID)), ("keyid", "sgn_'; DROP --"),
        ("alg", "rsa-pss-sha512"), ("alg", "none"), ("alg", Token("ed25519")), ("alg", "HMAC-SHA256"),
        ("nonce", None), ("nonce", ""), ("nonce", "short"), ("nonce", "x" * 129), ("nonce", b"a nonce in base64"),
        ("nonce", Token("a-nonce-that-is-a-token")),
        ("created", None), ("created", "1"), ("created", Decimal("1795000000.0")), ("created", True),
        ("created", int(NOW) - 301), ("created", int(NOW) + 301), ("created", -1),
        ("expires", "1"), ("expires", int(NOW)), ("expires", int(NOW) - 1), ("expires", int(NOW) + 301),
        ("expires", Decimal("1795000060.5")), ("unknown", 1),
    ],
)  # fmt: skip
def test_rfc9421_s2_3_parameters_that_break_the_profile_are_refused_by_name(name, value):
    assert refusal(GOOD.with_parameters(**{name: value}).message())[0] == name


@pytest.mark.parametrize("offset", [-300, 300])
def test_rfc9421_s3_2_1_created_may_be_300_s_away_from_our_clock(offset):
    signing = GOOD.with_parameters(created=int(NOW) + offset, expires=int(NOW) + offset + 300)

    assert signing.parameters["expires"] <= int(NOW) or read_head(signing.message(), now=NOW)
    assert read_head(signing.with_parameters(expires=None).message(), now=NOW)


def test_rfc9421_s3_2_1_an_expired_signature_is_refused_and_told_by_how_much():
    param, message = refusal(GOOD.message(), now=NOW + 75)

    assert param == "expires"
    assert "15 s ago" in message


def test_a_clock_that_is_wrong_is_told_by_how_much():
    param, message = refusal(GOOD.message(), now=NOW - 400)

    assert param == "created"
    assert "400 s in the future" in message


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("signature-input", None),
        ("signature-input", ""),
        ("signature-input", "sig=x"),
        ("signature-input", "sig=("),
        ("signature-input", 'sig=("@method");tag="lingpai", other=("@method")'),
        ("signature-input", "sig=(" + " " * 5000 + ")"),
        ("signature", None),
        ("signature", "sig"),
        ("signature", "other=:AAAA:"),
        ("signature", "sig=:" + "A" * 600 + ":"),
    ],
)
def test_fields_that_cannot_be_read_or_hold_other_than_one_signature_are_refused(name, value):
    param, _ = refusal(with_field(GOOD.message(), name, value))

    assert param in {name, "signature-input"}


def test_rfc9421_s7_2_5_the_label_means_nothing_but_must_be_the_same():
    assert read_head(GOOD.but(label="whatever-it-is").message(), now=NOW)
    assert refusal(with_field(GOOD.message(), "signature", "sig2=:AAAA:"))[0] == "signature"


def test_rfc9421_s3_2_two_signatures_are_refused():
    message = GOOD.message()
    both = f"{message.value('signature')}, other=:AAAA:"

    assert "exactly one" in refusal(with_field(message, "signature", both))[1]


@pytest.mark.parametrize(
    "digest",
    ["md5=:XUFAKrxLKna5cZ2REBfFkg==:", "sha-256=:AAAA:", "x", content_digest(BODY) + ", crc32c=:AAAAAA==:"],
)
def test_rfc9530_s5_a_digest_that_cannot_be_used_is_refused(digest):
    assert refusal(with_field(GOOD.message(), "content-digest", digest))[0] == "content-digest"


def test_a_body_whose_digest_was_left_out_is_refused():
    assert refusal(with_field(GOOD.message(), "content-digest", None))[0] == "content-digest"


def test_a_component_that_cannot_be_had_is_named():
    signing = GOOD.but(covered=(*COVERED, "x-there"), headers=(*GOOD.headers, ("x-there", "1")))

    param, message = refusal(with_field(signing.message(), "x-there", None))

    assert param == '"x-there"'
    assert "no such field" in message


def test_all_faults_are_found_and_not_the_first_alone():
    signing = GOOD.but(covered=COVERED[1:]).with_parameters(nonce="short", created=1)
    message = signing.message()

    found = [fault.rule for fault in faults(message, read_fields(message).covered, now=NOW)]

    assert found == ["nonce", "created", "expires", "@method"]


_PIECES = st.sampled_from(
    [*'"@method"', "(", ")", ";", "=", ",", " ", ":", "?1", "@1", "sig", "created", "keyid", "tag", "lingpai", "1.5",
     "bs", "key", "req", "\xff", "\\", "%", str(int(NOW)), KEY_ID, '"nonce-of-sixteen-c"']
)  # fmt: skip


@given(st.lists(_PIECES, max_size=60), st.lists(_PIECES, max_size=20), st.integers(0, 300), _PIECES)
def test_whatever_is_sent_is_read_or_refused(pieces, signature, place, piece):
    """Garbage, and a good field with something put into it: nothing but a refusal ever comes of it."""
    good = GOOD.message()
    bent = str(good.value("signature-input"))
    bent = bent[:place] + piece + bent[place:]
    for message in (
        with_field(good, "signature-input", "".join(pieces)),
        with_field(good, "signature-input", bent),
        with_field(good, "signature", "".join(signature)),
        with_field(good, "content-digest", "".join(signature)),
    ):
        with suppress(LingpaiError):
            read_head(message, now=NOW)
