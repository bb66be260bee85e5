"""The bodies of ``/api/v1/clients``: every field that goes in or out is listed here."""

from typing import Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Field

from lingpai.identity.oauth.interfaces import Client, CreatedClient, Grant
from lingpai.identity.oauth.settings import DAY_S
from lingpai.identity.schemas import (
    NOT_BOTH_EXPIRIES,
    AllowedIps,
    Expiry,
    Lifetime,
    Limits,
    Models,
    Scopes,
    utc_text,
    utc_text_or_none,
)
from lingpai.web.formats import formatted
from lingpai.web.schemas import WHOLE, RequestBody

ClientName = Annotated[
    str,
    Field(
        description="1 to 64 characters, unique among its owner's clients.",
        examples=["nightly"],
        json_schema_extra=formatted("name"),
    ),
]
Grants = Annotated[
    list[Grant],
    Field(
        max_length=10,
        json_schema_extra={"minItems": 1},
        description="How it may get tokens. `password` lets it trade users' passwords for tokens, which RFC 9700 section "
        "2.4 forbids; leave it out wherever you can. Only administrators can allow it.",
        examples=[["client_credentials"]],
    ),
]
TokenLifetime = Annotated[
    int,
    Field(
        ge=5,
        le=DAY_S,
        description="Seconds its access tokens live; `oauth.access_token_lifetime` when left out.",
    ),
    WHOLE,
]


class ClientCreate(RequestBody):
    """A client to make. Whatever is left out gets its default."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"name": "nightly", "limits": ["2000/day"], "expires_in": "90d"}],
            **NOT_BOTH_EXPIRIES,
            # Without a secret there is no `client_credentials` (RFC 6749 section 4.4), which is the default.
            "if": {"properties": {"public": {"const": True}}, "required": ["public"]},
            "then": {
                "required": ["grants"],
                "properties": {"grants": {"type": "array", "items": {"enum": ["password", "refresh_token"]}}},
            },
        }
    )

    name: ClientName
    user: Annotated[str | None, Field(description="The owner's name or id; you when left out.")] = None
    project: Annotated[
        str | None, Field(description="The project's name or id; the owner's personal one when left out.")
    ] = None
    grants: Annotated[Grants | None, Field(description='`["client_credentials"]` when left out.')] = None
    public: Annotated[
        bool,
        Field(
            description="Without a secret: for programs on other people's machines, which could not keep it."
        ),
    ] = False
    scopes: Annotated[Scopes | None, Field(description='`["model:inference"]` when left out.')] = None
    models: Annotated[Models | None, Field(description="The models of whoever makes it when left out.")] = (
        None
    )
    limits: Annotated[
        Limits | None,
        Field(
            description="Shared by all of its tokens; the server's default when left out and neither owner nor project has any."
        ),
    ] = None
    allowed_ips: AllowedIps | None = None
    token_lifetime_s: TokenLifetime | None = None
    expires_at: Expiry | None = None
    expires_in: Annotated[Lifetime | None, Field(description="Instead of `expires_at`.")] = None
    signature_required: Annotated[
        bool | None,
        Field(
            description="Whether its tokens are for signed requests only; as the key or token that makes it when left out."
        ),
    ] = None


class ClientUpdate(RequestBody):
    """What to change about a client; everything left out stays. Tokens that are out obey the change, too."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"allowed_ips": ["10.0.0.0/8"]}]})

    name: ClientName | None = None
    disabled: Annotated[
        bool | None, Field(description="Only an administrator can enable a disabled client.")
    ] = None
    grants: Grants | None = None
    scopes: Scopes | None = None
    models: Models | None = None
    limits: Annotated[
        Limits | None, Field(description="Without being an administrator you can only add limits.")
    ] = None
    allowed_ips: AllowedIps | None = None
    token_lifetime_s: Annotated[
        TokenLifetime | None, Field(description="null: `oauth.access_token_lifetime`.")
    ] = None
    expires_at: Annotated[Expiry | None, Field(description="null: never.")] = None
    signature_required: Annotated[
        bool | None, Field(description="Only an administrator can set it to false again.")
    ] = None


class SecretRotation(RequestBody):
    """How to replace a secret."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"overlap": "24h"}]})

    overlap: Annotated[
        str | None,
        Field(
            max_length=20,
            description="How long the present secret goes on working beside the new one: `0s` to `30d`. `24h` when left out;"
            " `0s` for a client that was reported as leaked.",
            examples=["24h"],
            json_schema_extra=formatted("overlap"),
        ),
    ] = None


class ClientView(BaseModel):
    """An OAuth client, without its secret."""

    client_id: str = Field(examples=["cl-lp-4fKx0aZ1bC2d"])
    name: str
    user: str = Field(description="The owner's name.")
    project: str = Field(description="The name of the project it belongs to.")
    grants: list[str]
    public: bool
    scopes: list[str]
    models: list[str]
    limits: list[str]
    allowed_ips: list[str]
    token_lifetime_s: int | None
    expires_at: str | None
    created_at: str
    disabled: bool = Field(description="Whether somebody has switched this client off.")
    disabled_because: str | None = Field(
        description="Why it does not work; also when its owner is disabled, or has no role in its project that allows clients."
    )
    signature_required: bool = Field(description="Whether its tokens are for signed requests only.")
    last_used_at: str | None = Field(description="Written about once a minute.")
    last_used_ip: str | None
    hint: str | None = Field(
        description="The beginning and end of the secret, to recognise it by; null for a public client."
    )
    rotated_at: str | None
    old_hint: str | None = Field(
        description="Of the secret before, while that works; null when there is none."
    )
    old_expires_at: str | None

    @classmethod
    def of(cls, client: Client) -> Self:
        """What callers see of `client`."""
        return cls(**_fields_of(client))


class CreatedClientView(ClientView):
    """An OAuth client with its secret: only where it was just made or rotated."""

    client_secret: str | None = Field(
        description="Keep it: it is never shown again. null for a public client.", repr=False
    )

    @classmethod
    def of_created(cls, created: CreatedClient) -> Self:
        """What the maker of a client sees, once."""
        return cls(client_secret=created.secret, **_fields_of(created.client))


def _fields_of(client: Client) -> dict[str, Any]:
    return {
        "client_id": client.client_id,
        "name": client.name,
        "user": client.user_name,
        "project": client.project_name,
        "grants": list(client.grants),
        "public": client.is_public,
        "scopes": list(client.scopes),
        "models": list(client.models),
        "limits": list(client.limits),
        "allowed_ips": list(client.allowed_ips),
        "token_lifetime_s": client.token_lifetime_s,
        "expires_at": utc_text_or_none(client.expires_at),
        "created_at": utc_text(client.created_at),
        "disabled": client.disabled_at is not None,
        "disabled_because": client.disabled_because,
        "signature_required": client.signature_required,
        "last_used_at": utc_text_or_none(client.last_used_at),
        "last_used_ip": client.last_used_ip,
        "hint": client.hint,
        "rotated_at": utc_text_or_none(client.rotated_at),
        "old_hint": client.old_hint,
        "old_expires_at": utc_text_or_none(client.old_expires_at),
    }
