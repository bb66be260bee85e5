"""What the bodies of the management API have in common."""

import json
from typing import Any, Final

from pydantic import BaseModel, BeforeValidator, ConfigDict, model_validator


def _whole(value: Any) -> Any:
    """Some programs write 256.0 for a whole number, and JSON knows no difference."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


WHOLE: Final = BeforeValidator(_whole)
"""For whole numbers, after their bounds: `Annotated[int, Field(ge=1), WHOLE]`."""


class RequestBody(BaseModel):
    """Base of every body that a caller sends: unknown fields and values of another type are refused, not converted."""

    model_config = ConfigDict(extra="forbid", strict=True)

    @model_validator(mode="before")
    @classmethod
    def _can_be_written_as_utf8(cls, data: Any) -> Any:
        # JSON can spell half of a surrogate pair ("\ud800"), which no database, log or answer could hold
        if not isinstance(data, dict):
            return data  # pydantic says what is wrong with it
        try:
            json.dumps(data, ensure_ascii=False).encode()
        except (UnicodeEncodeError, RecursionError) as exc:
            raise ValueError("The body holds characters that are not valid Unicode.") from exc
        return data
