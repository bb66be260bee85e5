"""What the routes of secrets take and say. Never a secret."""

from datetime import UTC, datetime

from pydantic import BaseModel, ConfigDict, Field

from lingpai.secrets.interfaces import Algorithm, Kind, SecretVersion, State
from lingpai.web.schemas import RequestBody


class RotateSecret(RequestBody):
    """How to rotate."""

    model_config = ConfigDict(
        extra="forbid", strict=True, json_schema_extra={"examples": [{"leaked": False}]}
    )

    leaked: bool = Field(
        default=False,
        description="The old signing keys leaked: use the new ones at once and accept nothing that old ones have signed.",
    )


class SecretVersionView(BaseModel):
    """One version of a secret."""

    kind: Kind
    version: str = Field(description="A number; of signing keys, the `kid`.")
    state: State = Field(description="`current` makes everything new; `old` goes on; `next` is not used yet.")
    algorithm: Algorithm | None = Field(description="Of signing keys.")
    place: str = Field(description="A path, an environment variable, `database`, or `missing`.")
    created_at: datetime | None
    use_from: datetime | None = Field(description="Of signing keys.")
    verify_until: datetime | None = Field(
        description="Of signing keys: until when their tokens are accepted."
    )
    uses: dict[str, int] = Field(description="How many of what need this version.")

    @classmethod
    def of(cls, version: SecretVersion) -> "SecretVersionView":
        """The view of a version."""
        return cls(
            kind=version.kind,
            version=version.version,
            state=version.state,
            algorithm=version.algorithm,
            place=version.place,
            created_at=_moment(version.created_at),
            use_from=_moment(version.use_from),
            verify_until=_moment(version.verify_until),
            uses=dict(version.uses),
        )


class SecretVersions(BaseModel):
    """Versions of secrets."""

    data: list[SecretVersionView]


def _moment(seconds: float | None) -> datetime | None:
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC).replace(microsecond=0)
