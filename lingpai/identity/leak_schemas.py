"""The bodies of ``/api/v1/keys/leaked``."""

from typing import Annotated, Any, Final

from pydantic import BaseModel, ConfigDict, Field

from lingpai.identity.leaks import MOST_REPORTED
from lingpai.identity.oauth.jwt_tokens import MAX_TOKEN_BYTES
from lingpai.web.schemas import RequestBody

_EXAMPLE: Final[dict[str, Any]] = {"keys": ["sk-lp-…", "at-lp-…", "rt-lp-…", "cs-lp-…", "sg-lp-…"]}


class LeakedKeysReport(RequestBody):
    """Keys, tokens and other secrets that have become known to others."""

    model_config = ConfigDict(json_schema_extra={"examples": [_EXAMPLE]}, hide_input_in_errors=True)

    keys: Annotated[
        list[Annotated[str, Field(max_length=MAX_TOKEN_BYTES)]],
        Field(
            max_length=MOST_REPORTED,
            description="What was found: API keys (`sk-lp-`), access tokens (`at-lp-` or a JWT), refresh tokens (`rt-lp-`),"
            " client secrets (`cs-lp-`), secrets of signing keys (`sg-lp-`), sessions (`ss-lp-`), invitations (`in-lp-`)."
            " Anything that has not their form is passed over.",
            repr=False,
        ),
    ]


class LeakAnswer(BaseModel):
    """The same for every report."""

    status: str = Field(
        default="received", description="What works of it has ended now.", examples=["received"]
    )


# Read by hand, because it may be text as well; so FastAPI has to be told.
LEAK_REQUEST_BODY: Final[dict[str, Any]] = {
    "required": True,
    "content": {
        "application/json": {
            "schema": LeakedKeysReport.model_json_schema(),
            "example": _EXAMPLE,
        },
        "text/plain": {
            "schema": {
                "type": "string",
                "description": "Any text; the credentials in it are found by their form.",
            },
            "example": "LINGPAI_API_KEY=sk-lp-…",
        },
    },
}
