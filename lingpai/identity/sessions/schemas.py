"""The bodies of ``/api/v1/sessions``."""

from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field

from lingpai.identity.passwords.schemas import Password
from lingpai.identity.schemas import UserName, utc_text
from lingpai.identity.sessions.interfaces import Session
from lingpai.principal import Principal
from lingpai.web.schemas import RequestBody


class SignIn(RequestBody):
    """Who signs in."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"name": "alice", "password": "correct horse battery staple"}]}
    )

    name: Annotated[UserName, Field(max_length=64)]
    password: Password


class SessionView(BaseModel):
    """A browser in which a user is signed in."""

    id: str
    user: str = Field(description="The user's name.")
    current: bool = Field(description="Whether it is the one that asks.")
    created_at: str
    last_seen_at: str = Field(description="Written about once a minute.")
    expires_at: str = Field(description="When it ends in any case; earlier when nobody uses it.")
    address: str | None = Field(description="From where the user signed in.")
    user_agent: str | None = Field(description="What the browser said it is.")

    @classmethod
    def of(cls, session: Session, caller: Principal) -> Self:
        """What `caller` sees of `session`."""
        return cls(
            id=session.id,
            user=session.user_name,
            current=session.id == caller.session_id,
            created_at=utc_text(session.created_at),
            last_seen_at=utc_text(session.last_seen_at),
            expires_at=utc_text(session.expires_at),
            address=session.address,
            user_agent=session.user_agent,
        )


class CurrentSessionView(BaseModel):
    """The session that asks, and what it may do."""

    id: str
    user: str
    role: Literal["admin", "member"]
    scopes: list[str]
    expires_at: str
    csrf_token: str = Field(
        description="Send it as `x-lingpai-csrf` with everything that changes something.", repr=False
    )

    @classmethod
    def of_current(
        cls, session: Session, csrf_token: str, *, role: Literal["admin", "member"], scopes: frozenset[str]
    ) -> Self:
        """What a page needs to know of the session that it has."""
        return cls(
            id=session.id,
            user=session.user_name,
            role=role,
            scopes=sorted(scopes),
            expires_at=utc_text(session.expires_at),
            csrf_token=csrf_token,
        )


class SessionsEnded(BaseModel):
    """How many sessions have ended, and how many programs that had signed in for the user."""

    ended: int
    programs: int
