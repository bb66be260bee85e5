"""Signed requests for the tests of signing: a good one, and the same with something about it changed."""

import hmac
from dataclasses import dataclass, field, replace
from typing import Any

from identity_fakes import NOW

from lingpai.wire.content_digest import content_digest
from lingpai.wire.message_signatures import Message, signature_base
from lingpai.wire.request_signing import TAG
from lingpai.wire.structured_fields import BareItem, InnerList, Item, serialize_dictionary

KEY_ID = "sgn_000000000001"
SECRET = b"the secret that these tests share"
BODY = b'{"input": "hello"}'
COVERED = ("@method", "@authority", "@path", "@query", "content-type", "content-digest")


@dataclass(frozen=True)
class Signing:
    """How a request is signed. Everything can be set, also to what no signer would do."""

    covered: tuple[str | Item, ...] = COVERED
    parameters: dict[str, BareItem] = field(
        default_factory=lambda: {
            "created": int(NOW), "expires": int(NOW) + 60, "nonce": "a nonce of this test", "keyid": KEY_ID,
            "alg": "hmac-sha256", "tag": TAG,
        }
    )  # fmt: skip
    label: str = "sig"
    secret: bytes = SECRET
    body: bytes = BODY
    headers: tuple[tuple[str, str], ...] = (("content-type", "application/json"),)
    method: str = "POST"
    target: str = "/v1/embeddings?trace=1"
    authority: str = "models.example"

    def but(self, **changes: Any) -> "Signing":
        return replace(self, **changes)

    def with_parameters(self, **changes: BareItem | None) -> "Signing":
        """None leaves one out."""
        merged = {**self.parameters, **changes}
        return replace(self, parameters={name: value for name, value in merged.items() if value is not None})

    def message(self) -> Message:
        """The request, signed."""
        framing = (("content-length", str(len(self.body))),)
        digest = (("content-digest", content_digest(self.body)),) if self.body else ()
        plain = Message(
            method=self.method,
            authority=self.authority,
            target=self.target,
            fields=(("host", self.authority), *framing, *digest, *self.headers),
        )
        items = tuple(each if isinstance(each, Item) else Item(each) for each in self.covered)
        covered = InnerList(items, self.parameters)
        signature = hmac.digest(self.secret, signature_base(plain, covered), "sha256")
        return replace(
            plain,
            fields=(
                *plain.fields,
                ("signature-input", serialize_dictionary({self.label: covered})),
                ("signature", serialize_dictionary({self.label: Item(signature)})),
            ),
        )


GOOD = Signing()


def with_field(message: Message, name: str, value: str | None) -> Message:
    """The message with another value of a field, or without it."""
    others = tuple(each for each in message.fields if each[0] != name)
    return replace(message, fields=others if value is None else (*others, (name, value)))
