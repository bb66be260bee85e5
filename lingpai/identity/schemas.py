"""The bodies of ``/api/v1/keys``, ``/api/v1/projects`` and ``/api/v1/users``: every field that goes in or out is listed here."""

from datetime import UTC, datetime
from typing import Annotated, Any, Final, Literal, Self

from pydantic import BaseModel, ConfigDict, Field

from lingpai.identity.interfaces import ApiKey, CreatedKey, KeyState, Project, Secret, User
from lingpai.identity.passwords.schemas import Password
from lingpai.identity.roles import ProjectRole
from lingpai.web.formats import formatted
from lingpai.web.schemas import RequestBody

Scopes = Annotated[
    list[Annotated[str, Field(json_schema_extra=formatted("scope"))]],
    Field(
        max_length=50,
        description="What it may do; at least one.",
        examples=[["model:inference"]],
        json_schema_extra={"minItems": 1},
    ),
]
Models = Annotated[
    list[Annotated[str, Field(json_schema_extra=formatted("model-pattern"))]],
    Field(
        max_length=100,
        description="Model ids the key may call; `owner/*` means all of an owner's models; empty means all models.",
        examples=[["damo/*", "lingpai/eliza"]],
    ),
]
Limits = Annotated[
    list[Annotated[str, Field(json_schema_extra=formatted("limit"))]],
    Field(
        max_length=20,
        description='`AMOUNT / WINDOW [@ TIMEZONE]`; all of them apply. `["none"]`: explicitly unlimited.',
        examples=[["2000/day@Asia/Shanghai", "10/1s"]],
    ),
]
AllowedIps = Annotated[
    list[Annotated[str, Field(json_schema_extra=formatted("network"))]],
    Field(
        max_length=100,
        description="Networks in CIDR form, or addresses, that the key may be used from; empty means anywhere.",
        examples=[["203.0.113.0/24", "2001:db8::/32"]],
    ),
]
KeyName = Annotated[
    str,
    Field(
        description="1 to 64 characters, unique among its owner's keys.",
        examples=["laptop"],
        json_schema_extra=formatted("name"),
    ),
]
UserName = Annotated[
    str,
    Field(
        description="1 to 64 letters, digits and `. _ - @ +`; unique.",
        examples=["alice", "bob@example.com"],
        json_schema_extra=formatted("user-name"),
    ),
]
ProjectName = Annotated[
    str,
    Field(
        description="1 to 64 characters, unique.",
        examples=["search", "Data Science"],
        json_schema_extra=formatted("name"),
    ),
]
Expiry = Annotated[
    str,
    Field(
        max_length=40,
        description="When the key stops working: a date (its first instant in UTC) or a date and time with offset.",
        examples=["2027-01-01", "2027-01-01T08:00:00+08:00"],
        json_schema_extra=formatted("expiry"),
    ),
]
Lifetime = Annotated[
    str,
    Field(
        max_length=20,
        description="How long it works from now on.",
        examples=["90d", "12h"],
        json_schema_extra=formatted("lifetime"),
    ),
]


# Both say when it ends.
NOT_BOTH_EXPIRIES: Final[dict[str, Any]] = {"not": {"required": ["expires_at", "expires_in"]}}


class KeyCreate(RequestBody):
    """A key to make. Whatever is left out gets its default."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"name": "laptop", "limits": ["2000/day@Asia/Shanghai"], "expires_in": "90d"}],
            **NOT_BOTH_EXPIRIES,
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

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"models": ["damo/*"], "allowed_ips": ["203.0.113.0/24"]}]}
    )

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


class KeyRotate(RequestBody):
    """How a key gets a new secret."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"overlap": "24h"}]})

    overlap: Annotated[
        str | None,
        Field(
            max_length=20,
            description="How long the present secret goes on working beside the new one: `0s` to `30d`. `24h` when left out;"
            " `0s` for a key that was reported as leaked.",
            json_schema_extra=formatted("overlap"),
        ),
    ] = None


class UserCreate(RequestBody):
    """A user to make."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"name": "alice", "limits": ["2000/day@Asia/Shanghai"]}]}
    )

    name: UserName
    role: Literal["admin", "member"] = "member"
    limits: Annotated[
        Limits | None,
        Field(description="Shared by all keys of the user; the server's default when left out."),
    ] = None
    password: Annotated[
        Password | None,
        Field(description="From the operator on the admin socket alone; everybody else invites the user."),
    ] = None


class UserUpdate(RequestBody):
    """What to change about a user; everything left out stays."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"disabled": True}]})

    disabled: bool | None = None
    role: Literal["admin", "member"] | None = None
    limits: Limits | None = None


class ProjectCreate(RequestBody):
    """A project to make."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"name": "search", "owner": "alice", "limits": ["10000/day"]}]}
    )

    name: ProjectName
    owner: Annotated[
        str | None, Field(description="The name or id of the user it belongs to; you when left out.")
    ] = None
    limits: Annotated[
        Limits | None, Field(description="Shared by all keys of the project; none when left out.")
    ] = None


class ProjectUpdate(RequestBody):
    """What to change about a project; everything left out stays."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"limits": ["20000/day"]}]})

    name: Annotated[
        ProjectName | None, Field(description="A personal project keeps the name of its user.")
    ] = None
    limits: Annotated[
        Limits | None,
        Field(description="An admin of the project can only add limits; administrators lift them."),
    ] = None


class SecretView(BaseModel):
    """One of a key's secrets, without the secret."""

    hint: str = Field(
        description="The beginning and end of the key, to recognise it by.", examples=["sk-lp-…x4Kd"]
    )
    created_at: str
    expires_at: str | None = Field(
        description="When this one stops working because of a rotation; null: it is the present one."
    )
    last_used_at: str | None = Field(description="Written about once a minute.")

    @classmethod
    def of(cls, secret: Secret) -> Self:
        """What callers see of `secret`."""
        return cls(
            hint=secret.hint,
            created_at=utc_text(secret.created_at),
            expires_at=utc_text_or_none(secret.expires_at),
            last_used_at=utc_text_or_none(secret.last_used_at),
        )


class KeyView(BaseModel):
    """An API key, without its secret."""

    id: str = Field(examples=["7Zk2mWq0PfXa"])
    name: str = Field(examples=["laptop"])
    user: str = Field(description="The owner's name.", examples=["alice"])
    project: str = Field(description="The name of the project it belongs to.", examples=["search"])
    scopes: list[str] = Field(examples=[["model:inference"]])
    models: list[str]
    limits: list[str]
    allowed_ips: list[str]
    expires_at: str | None
    created_at: str
    state: KeyState = Field(description="Whether it works now.")
    disabled: bool = Field(description="Whether somebody has switched this key off.")
    disabled_because: str | None = Field(
        description="Why it does not work; also when its owner is disabled, or has no role in its project that allows keys."
    )
    signature_required: bool = Field(description="Whether the key is for signed requests only.")
    last_used_at: str | None = Field(description="Written about once a minute.")
    last_used_ip: str | None
    hint: str = Field(
        description="The beginning and end of the key, to recognise it by.", examples=["sk-lp-…x4Kd"]
    )
    secrets: list[SecretView] = Field(
        description="Those that work: the present one, and after a rotation the one before it for a while."
    )

    @classmethod
    def of(cls, key: ApiKey, *, now: float) -> Self:
        """What callers see of `key` at `now` (Unix seconds)."""
        return cls(**_fields_of(key, now))


class CreatedKeyView(KeyView):
    """An API key with the secret just made for it; the only answers that ever contain `key`."""

    key: str = Field(description="The key itself. Keep it: it is never shown again.", repr=False)

    @classmethod
    def of_created(cls, created: CreatedKey, *, now: float) -> Self:
        """What the maker of a key sees, once."""
        return cls(key=created.token, **_fields_of(created.key, now))


class UserView(BaseModel):
    """A user."""

    id: str
    name: str
    role: Literal["admin", "member"]
    limits: list[str] = Field(description="Shared by all keys of the user.")
    disabled: bool
    has_password: bool = Field(description="Whether the user can sign in; else an invitation lets them.")
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
            has_password=user.password_changed_at is not None,
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
    role: ProjectRole | None = Field(description="Yours in it; null: you see it as an administrator.")

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
            role=project.role,
        )


def utc_text(time: float) -> str:
    """`time` (Unix seconds) as ``2026-11-20T08:00:00Z``."""
    return datetime.fromtimestamp(time, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _fields_of(key: ApiKey, now: float) -> dict[str, Any]:
    return {
        "id": key.id,
        "name": key.name,
        "user": key.user_name,
        "project": key.project_name,
        "scopes": list(key.scopes),
        "models": list(key.models),
        "limits": list(key.limits),
        "allowed_ips": list(key.allowed_ips),
        "expires_at": utc_text_or_none(key.expires_at),
        "created_at": utc_text(key.created_at),
        "state": key.state(now),
        "disabled": key.disabled_at is not None,
        "disabled_because": key.disabled_because,
        "signature_required": key.signature_required,
        "last_used_at": utc_text_or_none(key.last_used_at),
        "last_used_ip": key.last_used_ip,
        "hint": key.hint,
        "secrets": [SecretView.of(secret) for secret in key.secrets(now)],
    }


def utc_text_or_none(time: float | None) -> str | None:
    """As `utc_text`; None stays None."""
    return None if time is None else utc_text(time)
