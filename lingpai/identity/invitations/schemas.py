"""The bodies of invitations."""

from typing import Annotated, Final, Self

from pydantic import BaseModel, ConfigDict, Field, SecretStr

from lingpai.identity.invitations.service import NewInvitation
from lingpai.identity.invitations.store import StoredInvitation
from lingpai.identity.passwords.schemas import Password
from lingpai.identity.schemas import utc_text
from lingpai.web.schemas import RequestBody

CONSOLE_PATH: Final = "/console/invitation"
"""Where the console asks for the password. The secret follows `#`, which no browser sends to any server."""

Secret = Annotated[
    SecretStr, Field(max_length=200, description="The invitation itself, `in-lp-…`.", examples=["in-lp-…"])
]


class InvitationLookUp(RequestBody):
    """An invitation that somebody has got."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"invitation": "in-lp-…"}]})

    invitation: Secret


class InvitationAccept(RequestBody):
    """An invitation, and the password that its user chooses."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"invitation": "in-lp-…", "password": "correct horse battery staple"}]
        }
    )

    invitation: Secret
    password: Password


class InvitationView(BaseModel):
    """Whom an invitation is for."""

    user: str
    expires_at: str

    @classmethod
    def of(cls, invitation: StoredInvitation) -> Self:
        """What whoever has the secret sees of it."""
        return cls(user=invitation.user_name, expires_at=utc_text(invitation.expires_at))


class CreatedInvitationView(InvitationView):
    """An invitation just made; the only answer that ever contains `invitation`."""

    invitation: str = Field(description="The invitation itself. It is never shown again.", repr=False)
    path: str = Field(
        description="Where to accept it on this server's address; a link is this, `#` and the invitation."
    )

    @classmethod
    def of_created(cls, made: NewInvitation) -> Self:
        """What the administrator sees, once."""
        return cls(
            user=made.user.name,
            expires_at=utc_text(made.expires_at),
            invitation=made.token,
            path=CONSOLE_PATH,
        )
