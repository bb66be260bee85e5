"""Explaining a signature: everything that is wrong at once, and where what was signed differs from what arrived."""

from dataclasses import replace

import pytest
from identity_fakes import NOW
from signing_requests import BODY, COVERED, GOOD, KEY_ID, with_field

from lingpai.identity.signing.explain import explain
from lingpai.wire.message_signatures import parse_signature_input, signature_base
from lingpai.wire.structured_fields import Item


def base_of(message):
    covered = parse_signature_input(message.value("signature-input"))["sig"]
    return signature_base(message, covered).decode()


def rules(explanation):
    return [fault.rule for fault in explanation.faults]


def test_nothing_is_wrong_with_a_good_request():
    message = GOOD.message()

    found = explain(message, BODY, now=NOW, signed_base=base_of(message))

    assert found.faults == ()
    assert found.differences == ()
    assert found.base == base_of(message)
    assert (found.key_id, found.created) == (KEY_ID, int(NOW))


def test_a_changed_component_is_shown_beside_what_was_signed():
    signed = GOOD.message()
    arrived = replace(
        with_field(signed, "content-type", "application/json; charset=utf-8"), target="/v1/embeddings"
    )

    found = explain(arrived, BODY, now=NOW, signed_base=base_of(signed))

    assert found.differences is not None
    assert [tuple(difference) for difference in found.differences] == [
        ('"@query"', "?", "?trace=1"),
        ('"content-type"', "application/json; charset=utf-8", "application/json"),
    ]


@pytest.mark.parametrize(
    ("change", "component"),
    [
        (lambda base: base.replace("\n", "\r\n"), '"@method"'),
        (lambda base: base + "\n", None),
        (lambda base: "\n".join(base.split("\n")[1:]), '"@method"'),
        (lambda base: base.replace('"@path": ', '"path": '), '"@path"'),
        (
            lambda base: "\n".join([*reversed(base.split("\n")[:2]), *base.split("\n")[2:]]),
            "the order of the lines",
        ),
        (lambda base: "", '"@method"'),
        (lambda base: base.replace('"@signature-params": ', '"@signature-params":'), '"@signature-params"'),
    ],
)
def test_usual_mistakes_of_signers_are_shown(change, component):
    message = GOOD.message()

    found = explain(message, BODY, now=NOW, signed_base=change(base_of(message)))

    assert found.differences is not None
    assert [difference.component for difference in found.differences[:1]] == (
        [component] if component else []
    )


def test_all_that_is_missing_is_named_at_once():
    message = GOOD.but(covered=COVERED[2:5]).with_parameters(nonce=None, tag=None).message()

    assert rules(explain(message, BODY, now=NOW)) == [
        "tag",
        "nonce",
        "@method",
        "@authority",
        "content-digest",
    ]


def test_a_clock_that_is_off_and_a_digest_that_does_not_fit():
    found = explain(GOOD.message(), BODY.replace(b"hello", b"jello"), now=NOW + 1000)

    assert rules(found) == ["created", "expires", "content-digest"]


def test_a_body_of_another_length_is_told_by_its_length():
    assert rules(explain(GOOD.message(), BODY + b"\n", now=NOW)) == ["content-length"]


def test_a_body_that_is_not_known_is_not_judged():
    assert rules(explain(GOOD.message(), None, now=NOW)) == []


def test_a_body_without_any_digest():
    signing = GOOD.but(method="GET", body=b"", headers=(), covered=COVERED[:4])
    message = with_field(signing.message(), "content-length", None)

    assert rules(explain(message, b"smuggled", now=NOW)) == ["content-digest"]
    assert rules(explain(message, b"", now=NOW)) == []


def test_a_base_that_cannot_be_built_says_why():
    signing = GOOD.but(covered=(*COVERED, "x-there"), headers=(*GOOD.headers, ("x-there", "1")))

    found = explain(with_field(signing.message(), "x-there", None), BODY, now=NOW, signed_base="x")

    assert rules(found) == ['"x-there"']
    assert found.base is None
    assert found.differences is None


def test_a_request_that_is_not_signed():
    message = with_field(with_field(GOOD.message(), "signature", None), "signature-input", None)

    assert rules(explain(message, BODY, now=NOW)) == ["signature-input"]


def test_a_part_of_a_field_is_named_and_not_built():
    signing = GOOD.but(covered=(*COVERED, Item("content-digest", {"key": "sha-256"})))

    found = explain(signing.message(), BODY, now=NOW)

    assert rules(found) == ['"content-digest";key="sha-256"']
    assert found.base is None
