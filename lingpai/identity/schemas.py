"""The bodies of ``/api/v1/keys``, ``/api/v1/projects`` and ``/api/v1/users``: every field that goes in or out is listed here."""

from datetime import UTC, datetime
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field

from lingpai.identity.interfaces import ApiKey, CreatedKey, Project, User
from lingpai.web.schemas import RequestBody

Scopes = Annotated[
    list[str], Field(max_length=50, description="What the key may do.", examples=[["model:inference"]])
]
Models = Annotated[
    list[str],
    Field(
        max_length=100,
        description="Model ids the key may call; `owner/*` means all of an owner's models; empty means all models.",
        examples=[["damo/*", "lingpai/eliza"]],
    ),
]
Limits = Annotated[
    list[str],
    Field(
        max_length=20,
        description='`AMOUNT / WINDOW [@ TIMEZONE]`; all of them apply. `["none"]`: explicitly unlimited.',
        examples=[["2000/day@Asia/Shanghai", "10/1s"]],
    ),
]
AllowedIps = Annotated[
    list[str],
    Field(
        max_length=100,
        description="Networks in CIDR form, or addresses, that the key may be used from; empty means anywhere.",
        examples=[["203.0.113.0/24", "2001:db8::/32"]],
    ),
]
KeyName = Annotated[
    str, Field(description="1 to 64 characters, unique among its owner's keys.", examples=["laptop"])
]
UserName = Annotated[
    str,
    Field(
        description="1 to 64 letters, digits and `. _ - @ +`; unique.", examples=["alice", "bob@example.com"]
    ),
]
ProjectName = Annotated[
    str, Field(description="1 to 64 characters, unique.", examples=["search", "Data Science"])
]
Expiry = Annotated[
    str,
    Field(
        max_length=40,
        description="When the key stops working: a date (its first instant in UTC) or a date and time with offset.",
        examples=["2027-01-01", "2027-01-01T08:00:00+08:00"],
    ),
]
Lifetime = Annotated[
    str, Field(max_length=20, description="How long the key works from now on.", examples=["90d", "12h"])
]


class KeyCreate(RequestBody):
    """A key to make. Whatever is left out gets its default."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"name": "laptop", "limits": ["2000/day@Asia/Shanghai"], "expires_in": "90d"}]
        }
    )

    name: KeyName
    user: Annotated[str | None, Field(description="The owner's name or id; you when left out.")] = None
    project: Annotated[
        str | None, Field(description="The project's name or id; the owner's personal one when left out.")
    ] = None
    scopes: Annotated[Scopes | None, Field(description='`["model:inference"]` when left out.')] = None
    models: Annotated[
        Models | None, Field(description="The models of the key that makes this one when left out.")
    ] = None
    limits: Annotated[
        Limits | None,
        Field(description="The server's default when left out and neither owner nor project has any."),
    ] = None
    allowed_ips: AllowedIps | None = None
    expires_at: Expiry | None = None
    expires_in: Annotated[Lifetime | None, Field(description="Instead of `expires_at`.")] = None
    signature_required: Annotated[
        bool | None,
        Field(
            description="Whether the key is for signed requests only; as that of the key that makes it when left out."
        ),
    ] = None


class KeyUpdate(RequestBody):
    """What to change about a key; everything left out stays."""

    name: KeyName | None = None
    disabled: Annotated[
        bool | None, Field(description="Only an administrator can enable a disabled key.")
    ] = None
    scopes: Scopes | None = None
    models: Models | None = None
    limits: Annotated[
        Limits | None, Field(description="Without being an administrator you can only add limits.")
    ] = None
    allowed_ips: AllowedIps | None = None
    expires_at: Annotated[Expiry | None, Field(description="null: never.")] = None
    signature_required: Annotated[
        bool | None, Field(description="Only an administrator can set it to false again.")
    ] = None


class UserCreate(RequestBody):
    """A user to make."""

    name: UserName
    role: Literal["admin", "member"] = "member"
    limits: Annotated[
        Limits | None,
        Field(description="Shared by all keys of the user; the server's default when left out."),
    ] = None


class UserUpdate(RequestBody):
    """What to change about a user; everything left out stays."""

    disabled: bool | None = None
    role: Literal["admin", "member"] | None = None
    limits: Limits | None = None


class ProjectCreate(RequestBody):
    """A project to make."""

    name: ProjectName
    owner: Annotated[
        str | None, Field(description="The name or id of the user it belongs to; you when left out.")
    ] = None
    limits: Annotated[
        Limits | None, Field(description="Shared by all keys of the project; none when left out.")
    ] = None


class ProjectUpdate(RequestBody):
    """What to change about a project; everything left out stays."""

    name: Annotated[
        ProjectName | None, Field(description="A personal project keeps the name of its user.")
    ] = None
    limits: Limits | None = None


class KeyView(BaseModel):
    """An API key, without its secret."""

    id: str
    name: str
    user: str = Field(description="The owner's name.")
    project: str = Field(description="The name of the project it belongs to.")
    scopes: list[str]
    models: list[str]
    limits: list[str]
    allowed_ips: list[str]
    expires_at: str | None
    created_at: str
    disabled: bool
    signature_required: bool = Field(description="Whether the key is for signed requests only.")
    last_used_at: str | None = Field(description="Written about once a minute.")
    last_used_ip: str | None
    hint: str = Field(
        description="The beginning and end of the key, to recognise it by.", examples=["sk-lp-…x4Kd"]
    )

    @classmethod
    def of(cls, key: ApiKey) -> Self:
        """What callers see of `key`."""
        return cls(**_fields_of(key))


class CreatedKeyView(KeyView):
    """An API key just made; the only answer that ever contains `key`."""

    key: str = Field(description="The key itself. Keep it: it is never shown again.", repr=False)

    @classmethod
    def of_created(cls, created: CreatedKey) -> Self:
        """What the maker of a key sees, once."""
        return cls(key=created.token, **_fields_of(created.key))


class UserView(BaseModel):
    """A user."""

    id: str
    name: str
    role: Literal["admin", "member"]
    limits: list[str] = Field(description="Shared by all keys of the user.")
    disabled: bool
    created_at: str

    @classmethod
    def of(cls, user: User) -> Self:
        """What callers see of `user`."""
        return cls(
            id=user.id,
            name=user.name,
            role=user.role,
            limits=list(user.limits),
            disabled=user.disabled_at is not None,
            created_at=utc_text(user.created_at),
        )


class ProjectView(BaseModel):
    """A project."""

    id: str
    name: str
    owner: str = Field(description="The name of the user it belongs to.")
    personal: bool = Field(description="Whether it is the one that its owner has from the beginning.")
    limits: list[str] = Field(description="Shared by all keys of the project.")
    created_at: str

    @classmethod
    def of(cls, project: Project) -> Self:
        """What callers see of `project`."""
        return cls(
            id=project.id,
            name=project.name,
            owner=project.owner_name,
            personal=project.is_personal,
            limits=list(project.limits),
            created_at=utc_text(project.created_at),
        )


def utc_text(time: float) -> str:
    """`time` (Unix seconds) as ``2026-11-20T08:00:00Z``."""
    return datetime.fromtimestamp(time, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _fields_of(key: ApiKey) -> dict[str, Any]:
    return {
        "id": key.id,
        "name": key.name,
        "user": key.user_name,
        "project": key.project_name,
        "scopes": list(key.scopes),
        "models": list(key.models),
        "limits": list(key.limits),
        "allowed_ips": list(key.allowed_ips),
        "expires_at": _utc_text_or_none(key.expires_at),
        "created_at": utc_text(key.created_at),
        "disabled": key.disabled_at is not None,
        "signature_required": key.signature_required,
        "last_used_at": _utc_text_or_none(key.last_used_at),
        "last_used_ip": key.last_used_ip,
        "hint": key.hint,
    }


def _utc_text_or_none(time: float | None) -> str | None:
    return None if time is None else utc_text(time)
