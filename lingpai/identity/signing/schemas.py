"""The bodies of ``/api/v1/keys/{id}/signing-keys`` and those of clients: every field that goes in or out is listed here."""

from typing import Annotated, Any, Final, Literal, Self

from pydantic import BaseModel, ConfigDict, Field

from lingpai.identity.schemas import NOT_BOTH_EXPIRIES, Expiry, KeyName, Lifetime, utc_text
from lingpai.identity.signing.explain import Explanation
from lingpai.identity.signing.interfaces import CreatedSigningKey, SigningKey
from lingpai.identity.signing.public_keys import MOST_CHARACTERS, public_key_text
from lingpai.web.formats import formatted
from lingpai.web.schemas import RequestBody

Algorithm = Literal["ed25519", "hmac-sha256"]
_EXAMPLE_PUBLIC_KEY: Final = "11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo="
# RFC 8037 section 2. That a point of small order is no key, no schema can say.
_JWK: Final[dict[str, Any]] = {
    "properties": {
        "kty": {"const": "OKP"},
        "crv": {"const": "Ed25519"},
        "x": {"type": "string", "pattern": "^[A-Za-z0-9_-]{43}$"},
        "d": False,  # the private key
    },
    "required": ["kty", "crv", "x"],
    "maxProperties": 10,
}
PublicKey = Annotated[
    Annotated[
        str,
        Field(max_length=MOST_CHARACTERS, json_schema_extra=formatted("ed25519-public-key")),
    ]
    | Annotated[dict[str, Any], Field(json_schema_extra=_JWK)],
    Field(
        description="For ed25519: the public key as PEM, as a JWK (an object or its text), or its 32 bytes in base64.",
        examples=[_EXAMPLE_PUBLIC_KEY],
    ),
]
# Which key material goes with which algorithm.
_MATERIAL: Final[dict[str, Any]] = {
    "if": {"properties": {"algorithm": {"const": "ed25519"}}, "required": ["algorithm"]},
    "then": {"required": ["public_key"], "properties": {"public_key": {"type": ["string", "object"]}}},
    "else": {"properties": {"public_key": {"type": "null"}}},
}


class SigningKeyCreate(RequestBody):
    """A key to sign requests with."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"name": "build server", "algorithm": "hmac-sha256"},
                {"name": "laptop", "algorithm": "ed25519", "public_key": _EXAMPLE_PUBLIC_KEY},
            ],
            **NOT_BOTH_EXPIRIES,
            **_MATERIAL,
        }
    )

    name: KeyName
    algorithm: Annotated[
        Algorithm,
        Field(
            description="ed25519: you keep the private key, and send the public one. hmac-sha256: you get a secret."
        ),
    ]
    public_key: PublicKey | None = None
    expires_at: Expiry | None = None
    expires_in: Annotated[Lifetime | None, Field(description="Instead of `expires_at`.")] = None


class SigningKeyView(BaseModel):
    """A signing key, without its secret."""

    id: str = Field(description="The `keyid` of its signatures.", examples=["sgn_4fKQ0aZ81xYb"])
    name: str
    algorithm: Algorithm
    public_key: str | None = Field(description="Of ed25519, in base64.")
    created_at: str
    expires_at: str | None
    last_used_at: str | None = Field(description="Written about once a minute.")

    @classmethod
    def of(cls, key: SigningKey) -> Self:
        """What callers see of `key`."""
        return cls(**_fields_of(key))


class CreatedSigningKeyView(SigningKeyView):
    """A signing key just made; the only answer that ever contains `secret`."""

    secret: str | None = Field(
        description="Of hmac-sha256: the secret, whose text is the key. Keep it: it is never shown again.",
        repr=False,
    )

    @classmethod
    def of_created(cls, created: CreatedSigningKey) -> Self:
        """What the maker of a signing key sees, once."""
        return cls(secret=created.secret, **_fields_of(created.key))


class ExplainRequest(RequestBody):
    """A signed request that is not accepted, as it was sent."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "request": "POST /v1/embeddings HTTP/1.1\r\n"
                    "Host: models.example\r\n"
                    "Content-Type: application/json\r\n"
                    "Content-Length: 17\r\n"
                    "Content-Digest: sha-256=:EbZemxlN7nZut/BPw8SXnf5/3QG7Vf+4ZYn6v3EOGbk=:\r\n"
                    'Signature-Input: sig1=("@method" "@authority" "@path" "@query" "content-type" "content-digest")'
                    ';created=1795161600;expires=1795161660;nonce="b3k2p8Zq7Lw1Tn4Rs6Vd";keyid="sgn_khv0LgV6crWi"'
                    ';alg="hmac-sha256";tag="lingpai"\r\n'
                    "Signature: sig1=:WC9wLxibd2+BIx6TLP/RLIlpsvvls7BbxpzqvFKTi8o=:\r\n"
                    "\r\n"
                    '{"input":"Hello"}'
                }
            ]
        }
    )

    request: Annotated[
        str,
        Field(
            max_length=200_000,
            description="The request as raw HTTP/1.1, or what `curl -v` shows of it.",
            json_schema_extra=formatted("http-request"),
        ),
    ]
    body_base64: Annotated[
        str | None,
        Field(
            max_length=700_000,
            description="Its body in base64, where that is not in `request`, or no text.",
            json_schema_extra={"format": "byte", "contentEncoding": "base64"},
        ),
    ] = None
    signature_base: Annotated[
        str | None, Field(max_length=20_000, description="What was signed, to have it compared line by line.")
    ] = None


class FaultView(BaseModel):
    """Something about the signature that is not accepted."""

    rule: str = Field(description="The component or parameter concerned.")
    message: str


class DifferenceView(BaseModel):
    """A line of the signature base that is another one for the signer; null where one of both has no such line."""

    component: str
    here: str | None
    signed: str | None


class ExplanationView(BaseModel):
    """What there is to say of a signed request. Nothing is accepted by it, and no nonce is used up."""

    faults: list[FaultView]
    signature_base: str | None = Field(description="As this server builds it; null when it cannot be built.")
    differences: list[DifferenceView] | None = Field(
        description="Where what was signed differs from it; null when it was not sent."
    )
    verified: bool | None = Field(
        description="Whether the signature is one of its key; null where that is not known, or not one of your keys."
    )
    clock_difference_s: float | None = Field(
        description="How far `created` is behind this server's clock, in seconds."
    )
    server_time: int = Field(description="This server's clock, in Unix seconds.")

    @classmethod
    def of(cls, explanation: Explanation, *, verified: bool | None, now: float) -> Self:
        """What callers see of an explanation."""
        created, differences = explanation.created, explanation.differences
        return cls(
            faults=[FaultView(rule=fault.rule, message=fault.message) for fault in explanation.faults],
            signature_base=explanation.base,
            differences=None
            if differences is None
            else [DifferenceView(**difference._asdict()) for difference in differences],
            verified=verified,
            clock_difference_s=None if created is None else round(now - created, 3),
            server_time=int(now),
        )


def _fields_of(key: SigningKey) -> dict[str, Any]:
    return {
        "id": key.id,
        "name": key.name,
        "algorithm": key.algorithm,
        "public_key": None if key.public_key is None else public_key_text(key.public_key),
        "created_at": utc_text(key.created_at),
        "expires_at": _utc_text_or_none(key.expires_at),
        "last_used_at": _utc_text_or_none(key.last_used_at),
    }


def _utc_text_or_none(time: float | None) -> str | None:
    return None if time is None else utc_text(time)
