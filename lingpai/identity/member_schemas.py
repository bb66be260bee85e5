"""The bodies of ``/api/v1/projects/{id}/members``."""

from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field

from lingpai.identity.interfaces import Member
from lingpai.identity.roles import ProjectRole
from lingpai.identity.schemas import utc_text
from lingpai.web.schemas import RequestBody

Role = Annotated[
    ProjectRole,
    Field(
        description="`viewer` sees the project, its keys, limits and usage; `member` also makes keys of their own in it;"
        " `admin` also looks after all of its keys, its members and the project itself.",
        examples=["member"],
    ),
]


class MemberCreate(RequestBody):
    """Somebody to take into a project."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"user": "bob", "role": "viewer"}]})

    user: Annotated[str, Field(max_length=64, description="The name or id of the user.", examples=["bob"])]
    role: Role = "member"


class MemberUpdate(RequestBody):
    """Another role for a member."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"role": "admin"}]})

    role: Role


class MemberView(BaseModel):
    """Somebody with a role in a project."""

    id: str = Field(description="The user's id.", examples=["usr_4fKq2mWx7ZPa"])
    user: str = Field(description="The user's name.", examples=["bob"])
    role: ProjectRole
    disabled: bool = Field(description="Whether the user is disabled on the whole server.")
    since: str = Field(examples=["2026-11-20T08:00:00Z"])

    @classmethod
    def of(cls, member: Member) -> Self:
        """What callers see of `member`."""
        return cls(
            id=member.user_id,
            user=member.user_name,
            role=member.role,
            disabled=member.is_disabled,
            since=utc_text(member.created_at),
        )
