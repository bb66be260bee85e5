"""One request as the endpoints see it: the fields of the JSON object or form that came, and the model it names."""

import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Any, Final, TypeVar

import msgspec

from lingpai.backends.engines.binding import convert
from lingpai.backends.engines.fetching import Fetcher
from lingpai.backends.engines.models import LoadedModel, Models
from lingpai.errors import LingpaiError
from lingpai.media import File
from lingpai.wire.multipart import Form, Part, is_form, read_form
from lingpai.wire.openai import Request as OpenAIRequest

DEEPEST: Final = 100
"""How deep a body may nest. Deeper ones serve nothing but to exhaust the interpreter's stack."""

MOST_INPUTS: Final = 2048
"""How many inputs a request may have, unless the gateway says otherwise."""

Checked = TypeVar("Checked", bound=OpenAIRequest)

_FETCHING, _NOT_FETCHING = Fetcher(), Fetcher(is_enabled=False)
_PARAMETER_NAME: Final = re.compile(r"[\w.-]{1,64}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Request:
    """What a caller wants from which model."""

    fields: dict[str, Any]
    models: Models
    is_strict: bool = False
    """Whether parameters without effect are refused rather than named in a header."""
    is_form: bool = False
    """Whether the fields came as a form: files are `lp.File`, all else is text."""
    fetcher: Fetcher = _FETCHING
    max_inputs: int = MOST_INPUTS

    def model(self) -> LoadedModel:
        """The model that the body names. Raises LingpaiError."""
        return self.models.find(self.fields.get("model"))

    def model_for(self, task: str) -> LoadedModel:
        """The model that the body names, if it is one for `task`. Raises LingpaiError."""
        model = self.model()
        if model.task != task:
            message = (
                f"`{model.id}` is a model for {model.task}, not for {task}. Call the inference endpoint."
            )
            raise LingpaiError("unsupported_task", message, "model")
        return model

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

    def converted(self, kind: type[Checked]) -> Checked:
        """The fields as `kind`, checked. Raises LingpaiError naming the one that does not fit."""
        asked: Checked = convert(self.fields, kind, field="")
        asked.check()
        return asked

    def text(self, name: str) -> str | None:
        """A text; absent and null are None."""
        value = self.fields.get(name)
        if value is None or isinstance(value, str):
            return value
        raise LingpaiError("invalid_request", f"`{name}` must be a text.", name)

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

    def check_count(self, inputs: Any, *, field: str) -> None:
        """Refuse a list of too many inputs. Raises LingpaiError.

        To be called before anything is made of them: each costs much more in here than the two bytes of a body.
        """
        if isinstance(inputs, list) and len(inputs) > self.max_inputs:
            message = (
                f"`{field}` has over {self.max_inputs} entries (`gateway.max_inputs`). Send fewer at a time."
            )
            raise LingpaiError("invalid_request", message, field)

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


def read_request(body: bytes, headers: Iterable[tuple[bytes, bytes]], models: Models) -> Request:
    """The request in `body`, JSON or a form, with what the gateway says in `headers`. Raises LingpaiError.

    The gateway speaks with every call, so that one setting rules all workers.
    """
    told = dict(headers)
    content_type = told.get(b"content-type", b"")
    comes_as_form = is_form(content_type)
    fields = _form_fields(read_form(body, content_type)) if comes_as_form else read_object(body)
    return Request(
        fields,
        models,
        is_strict=b"x-lingpai-strict-params" in told,
        is_form=comes_as_form,
        fetcher=_NOT_FETCHING if told.get(b"x-lingpai-fetch-media") == b"off" else _FETCHING,
        max_inputs=int(told.get(b"x-lingpai-max-inputs", MOST_INPUTS)),
    )


def _form_fields(form: Form) -> dict[str, Any]:
    fields: dict[str, Any] = {}
    for part in form.parts:
        if part.name.endswith("[]"):
            fields.setdefault(part.name.removesuffix("[]"), []).append(_form_value(part))
        else:
            fields[part.name] = _form_value(part)
    return fields


def _form_value(part: Part) -> Any:
    if part.filename is not None:
        return File(part.data, media_type=_known(part.media_type), name=part.filename)
    # The one field that is an object in JSON: a form holds it as text.
    return read_object(part.data) if part.name == "parameters" else part.data.decode()


def _known(media_type: str | None) -> str | None:
    # What a client sends that does not know; the first bytes often do.
    return None if media_type == "application/octet-stream" else media_type


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
