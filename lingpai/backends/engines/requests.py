"""One request as the endpoints see it: the JSON object that came, and the model it names."""

import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from lingpai.backends.engines.models import LoadedModel, Models
from lingpai.errors import LingpaiError

DEEPEST: Final = 100
"""How deep a body may nest. Deeper ones serve nothing but to exhaust the interpreter's stack."""

_PARAMETER_NAME: Final = re.compile(r"[\w.-]{1,64}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Request:
    """What a caller wants from which model."""

    fields: dict[str, Any]
    models: Models
    is_strict: bool = False
    """Whether parameters without effect are refused rather than named in a header."""

    def model(self) -> LoadedModel:
        """The model that the body names. Raises LingpaiError."""
        return self.models.find(self.fields.get("model"))

    @property
    def model_name(self) -> str:
        """The name as the caller wrote it: answers repeat it, whatever the alias stands for (W19)."""
        name = self.fields.get("model")
        return name if isinstance(name, str) else self.model().id

    def required(self, name: str) -> Any:
        """The value of a field that must be there."""
        if name not in self.fields:
            raise LingpaiError("invalid_request", f"`{name}` is missing.", name)
        return self.fields[name]

    def flag(self, name: str) -> bool:
        """A boolean; absent and null are false."""
        value = self.fields.get(name)
        if value is None or isinstance(value, bool):
            return bool(value)
        raise LingpaiError("invalid_request", f"`{name}` must be true or false.", name)

    def object(self, name: str) -> dict[str, Any]:
        """A JSON object; absent and null are empty."""
        value = self.fields.get(name)
        if value is None or isinstance(value, dict):
            return value or {}
        raise LingpaiError("invalid_request", f"`{name}` must be an object.", name)

    def dropped_header(self, names: Iterable[str]) -> list[tuple[bytes, bytes]]:
        """The header that tells which parameters have no effect (W24), for names fit to stand in one.

        Raises LingpaiError `invalid_request` instead when the server is strict about them.
        """
        shown = [name for name in names if _PARAMETER_NAME.fullmatch(name)][:32]
        if shown and self.is_strict:
            raise LingpaiError(
                "invalid_request",
                f"`{shown[0]}` has no effect on this model, and this server refuses what has none. Leave it out.",
                shown[0],
            )
        return [(b"x-lingpai-dropped-params", ", ".join(shown).encode())] if shown else []

    def others(self, taken: Collection[str]) -> dict[str, Any]:
        """The fields that are none of `taken`."""
        return {name: value for name, value in self.fields.items() if name not in taken}


def read_object(body: bytes) -> dict[str, Any]:
    """The JSON object in `body`. Raises LingpaiError."""
    try:
        value = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise LingpaiError("invalid_json", f"The body is not JSON: {error}") from error
    except RecursionError as error:
        raise _too_deep() from error
    if not isinstance(value, dict):
        raise LingpaiError("invalid_request", "The body must be a JSON object.")
    if body.count(b"[") + body.count(b"{") > DEEPEST and not _is_shallow(value):
        raise _too_deep()
    return value


def _too_deep() -> LingpaiError:
    return LingpaiError("invalid_json", f"The body nests deeper than {DEEPEST} levels.")


def _is_shallow(value: Any) -> bool:
    level = [value]
    for _ in range(DEEPEST):
        level = [child for parent in level for child in _children(parent) if isinstance(child, dict | list)]
        if not level:
            return True
    return False


def _children(value: Any) -> Iterable[Any]:
    return value.values() if isinstance(value, dict) else value
