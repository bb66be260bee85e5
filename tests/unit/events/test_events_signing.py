"""Signatures as the Standard Webhooks specification wants them, and secrets that are none."""

import base64

import pytest
from event_fakes import KEY, SECRET

from lingpai.events.signing import signature_headers, signing_keys


def test_signature_of_the_specifications_own_libraries_is_made_again():
    """The vector that the reference implementations test with."""
    keys = signing_keys("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")

    headers = signature_headers(
        keys,
        message_id="msg_p5jXN8AQM9LWM0D4loKWxJek",
        timestamp=1614265330,
        body=b'{"test": 2432232314}',
    )

    assert headers == {
        "webhook-id": "msg_p5jXN8AQM9LWM0D4loKWxJek",
        "webhook-timestamp": "1614265330",
        "webhook-signature": "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
    }


def test_two_secrets_sign_both_while_receivers_change_over():
    other = "whsec_" + base64.b64encode(b"o" * 24).decode()

    keys = signing_keys(f"{SECRET} {other}")
    headers = signature_headers(keys, message_id="evt_1", timestamp=1, body=b"{}")

    assert keys == (KEY, b"o" * 24)
    signatures = headers["webhook-signature"].split(" ")
    assert len(set(signatures)) == 2
    assert all(signature.startswith("v1,") for signature in signatures)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "empty"),
        ("  \n", "empty"),
        ("secret", "whsec_"),
        (base64.b64encode(KEY).decode(), "whsec_"),
        ("whsec_", "0 bytes"),
        ("whsec_" + base64.b64encode(b"x" * 23).decode(), "23 bytes"),
        ("whsec_" + base64.b64encode(b"x" * 65).decode(), "65 bytes"),
        ("whsec_not/base64!", "not base64"),
        ("whsec_AAA", "not base64"),
        ("whsec_schlüssel", "not base64"),
        (f"{SECRET} whsec_", "0 bytes"),
    ],
)
def test_secret_that_is_none_is_refused_and_not_repeated(text, words):
    with pytest.raises(ValueError, match=words) as caught:
        signing_keys(text)

    assert caught.value.__suppress_context__ or caught.value.__context__ is None
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize("size", [24, 64])
def test_least_and_most_bytes_are_enough(size):
    assert signing_keys("whsec_" + base64.b64encode(b"x" * size).decode()) == (b"x" * size,)
