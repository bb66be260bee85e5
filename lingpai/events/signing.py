"""Signatures of the Standard Webhooks specification, version 1.0.0, symmetric scheme (`v1`)."""

import base64
import binascii
import hmac
from collections.abc import Sequence
from typing import Final

SECRET_PREFIX: Final = "whsec_"  # noqa: S105  the published form, not a secret
LEAST_BYTES: Final = 24
MOST_BYTES: Final = 64


def signing_keys(text: str) -> tuple[bytes, ...]:
    """The keys in `text`: one secret, or several with blanks between.

    A secret is `whsec_` and base64 of 24 to 64 bytes. Raises ValueError, without repeating the text, when there is no
    secret or one is anything else: an empty key would let everybody sign.
    """
    secrets = text.split()
    if not secrets:
        raise ValueError("it is empty")
    return tuple(_key(secret) for secret in secrets)


def _key(secret: str) -> bytes:
    if not secret.startswith(SECRET_PREFIX):
        raise ValueError(f"it does not begin with {SECRET_PREFIX}")
    try:
        key = base64.b64decode(secret.removeprefix(SECRET_PREFIX), validate=True)
    except (binascii.Error, ValueError):
        # `from None`: the exception would show the secret
        raise ValueError(f"what follows {SECRET_PREFIX} is not base64") from None
    if not LEAST_BYTES <= len(key) <= MOST_BYTES:
        raise ValueError(f"it has {len(key)} bytes; {LEAST_BYTES} to {MOST_BYTES} are needed")
    return key


def signature_headers(
    keys: Sequence[bytes], *, message_id: str, timestamp: int, body: bytes
) -> dict[str, str]:
    """The three headers that go with `body`. `timestamp` is when this attempt is made, in Unix seconds.

    What is signed is ``id.timestamp.body``; neither id nor timestamp contains a full stop, so it can be read one way only.
    """
    content = b"%b.%d.%b" % (message_id.encode(), timestamp, body)
    signatures = [base64.b64encode(hmac.digest(key, content, "sha256")).decode() for key in keys]
    return {
        "webhook-id": message_id,
        "webhook-timestamp": str(timestamp),
        "webhook-signature": " ".join(f"v1,{signature}" for signature in signatures),
    }
