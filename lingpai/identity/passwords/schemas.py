"""The body of ``PUT /api/v1/users/{id}/password``, and the type of every password that comes in."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, SecretStr

from lingpai.web.schemas import RequestBody

Password = Annotated[
    SecretStr,
    Field(
        max_length=1024,
        description="At least eight characters; fifteen or more are recommended. Any characters, spaces too.",
        examples=["correct horse battery staple"],
    ),
]
"""Never shown by `repr`, whatever fails."""


class PasswordChange(RequestBody):
    """A new password."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"password": "correct horse battery staple", "current_password": "a former one of mine"}
            ]
        }
    )

    password: Password
    current_password: Annotated[
        Password | None, Field(description="The present one; the operator on the admin socket needs none.")
    ] = None


class PasswordChanged(BaseModel):
    """The password is the new one. All sessions of the user have ended; whoever changed it by cookie has a new one."""

    csrf_token: str | None = Field(
        description="For `x-lingpai-csrf`, of the new session; null for callers without one."
    )
