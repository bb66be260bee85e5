"""From the fields of a request to the arguments of an author's function.

The first positional parameter is the payload; every other parameter is one that callers may set.
"""

import inspect
import re
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from lingpai.authoring import Message
from lingpai.backends.engines.media_values import Hook, media_schema, without_fetching
from lingpai.backends.engines.user_errors import TargetError
from lingpai.errors import LingpaiError, did_you_mean
from lingpai.media import File

LENGTH_NAMES: Final = ("max_tokens", "max_completion_tokens", "max_new_tokens", "max_length")
"""The names under which clients say how long an answer may be. A function that knows one gets any of them."""

_LONGEST_SCHEMA: Final = 160

_POSITIONAL: Final = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)


@dataclass(frozen=True, slots=True)
class Parameter:
    """Something callers may set. `default` is `inspect.Parameter.empty` when it must be set."""

    name: str
    type: Any
    default: Any

    @property
    def is_required(self) -> bool:
        return self.default is inspect.Parameter.empty


@dataclass(frozen=True, slots=True)
class CallSignature:
    """How an author's function wants to be called. `payload` is `Any` where nothing was annotated."""

    payload: Any
    parameters: Mapping[str, Parameter]
    takes_anything: bool
    """Whether the function has ``**kwargs`` and so gets every parameter as it came."""
    payload_name: str = ""
    """What the author calls the payload."""

    @property
    def takes_messages(self) -> bool:
        return Message in typing.get_args(self.payload)

    @property
    def names(self) -> frozenset[str]:
        """Those that the author gave to what callers may send."""
        declared = getattr(self.payload, "__annotations__", ())
        return frozenset({self.payload_name, *self.parameters, *declared})


@dataclass(frozen=True, slots=True)
class BoundParameters:
    """Keyword arguments ready for the call, and the names that found no place in it."""

    arguments: dict[str, Any]
    dropped: tuple[str, ...] = ()


def read_signature(function: Callable[..., Any], model_id: str) -> CallSignature:
    """Read how `function` is called. Raises TargetError when it cannot be called with one payload and keywords."""
    try:
        found = list(inspect.signature(function).parameters.values())
        hints = typing.get_type_hints(_annotated(function), include_extras=True)
    except (NameError, TypeError, ValueError) as error:
        raise TargetError(f"`{model_id}`: its signature cannot be read: {error}") from error
    if not found or found[0].kind not in _POSITIONAL:
        raise TargetError(f"`{model_id}` takes no payload. Its first parameter must be positional.")
    parameters = {
        item.name: _parameter(item, hints, model_id) for item in found[1:] if not _is_variadic(item)
    }
    payload = _supported(hints.get(found[0].name, Any), f"`{model_id}`, payload `{found[0].name}`")
    anything = any(item.kind is inspect.Parameter.VAR_KEYWORD for item in found)
    return CallSignature(payload, parameters, anything, found[0].name)


def convert_payload(
    signature: CallSignature, value: Any, *, field: str, hook: Hook = without_fetching
) -> Any:
    """`value` as the function's annotation wants it. Raises LingpaiError naming `field` when it does not fit."""
    return convert(value, signature.payload, field=field, hook=hook)


def convert(
    value: Any, wanted: Any, *, field: str, strict: bool = True, hook: Hook = without_fetching
) -> Any:
    """`value` as type `wanted`; the error says which part of `field` was expected to be what."""
    if wanted is Any:
        return value
    if wanted is bytes:  # the file itself, not only base64 of it
        return convert(value, File, field=field, hook=hook).bytes
    try:
        return msgspec.convert(value, wanted, strict=strict, dec_hook=hook)
    except msgspec.ValidationError as error:
        raise _unfit(error, field) from error


def bind_parameters(
    signature: CallSignature, given: Mapping[str, Any], *, within: str = "", hook: Hook = without_fetching
) -> BoundParameters:
    """Arguments from a body that may hold fields the function does not know; those are listed as dropped.

    Errors name a parameter with its schema, as a field `within` the body (``"parameters."``).
    """
    arguments, used = {}, set()
    for parameter in signature.parameters.values():
        source = _source(parameter.name, given)
        if source is not None:
            used.add(source)
            arguments[parameter.name] = _argument(parameter, given[source], field=within + source, hook=hook)
        elif parameter.is_required:
            field = within + parameter.name
            message = f"`{field}` is missing. Its schema: {_short_schema(parameter)}"
            raise LingpaiError("invalid_request", message, field)
    left = {name: value for name, value in given.items() if name not in used and value is not None}
    if signature.takes_anything:
        return BoundParameters({**left, **arguments})
    return BoundParameters(arguments, tuple(left))


def bind_known_parameters(
    signature: CallSignature, given: Mapping[str, Any], model_id: str, *, hook: Hook = without_fetching
) -> BoundParameters:
    """As `bind_parameters`, but a name the function does not know is refused, with the nearest that it does.

    The parameters are the body's field ``parameters``.
    """
    known = set(signature.parameters)
    if not known.isdisjoint(LENGTH_NAMES):
        known.update(LENGTH_NAMES)
    unknown = [name for name, value in given.items() if name not in known and value is not None]
    if unknown and not signature.takes_anything:
        raise _no_such_parameter(signature, unknown[0], model_id)
    return bind_parameters(signature, given, within="parameters.", hook=hook)


def parameters_schema(signature: CallSignature) -> dict[str, Any]:
    """A JSON schema of the parameters, for lists of models and documentation."""
    parameters = list(signature.parameters.values())
    schemas, shared = msgspec.json.schema_components(
        [item.type for item in parameters], schema_hook=media_schema, ref_template="#/$defs/{name}"
    )
    properties = {
        item.name: _with_default(schema, item.default)
        for item, schema in zip(parameters, schemas, strict=True)
    }
    schema: dict[str, Any] = {"type": "object", "properties": properties}
    required = [item.name for item in parameters if item.is_required]
    if required:
        schema["required"] = required
    if shared:
        schema["$defs"] = shared
    schema["additionalProperties"] = signature.takes_anything
    return schema


def _annotated(function: Callable[..., Any]) -> Any:
    # A function or method has its own annotations; those of a callable object are on its type's `__call__`.
    return function if inspect.isroutine(function) else getattr(function, "__call__", function)  # noqa: B004  not a test


def _is_variadic(item: inspect.Parameter) -> bool:
    return item.kind in {inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL}


def _parameter(item: inspect.Parameter, hints: Mapping[str, Any], model_id: str) -> Parameter:
    if item.kind in _POSITIONAL and item.default is item.empty:
        raise TargetError(
            f"`{model_id}` has a second payload, `{item.name}`. Make it keyword-only: put `*` before it in the "
            f"signature."
        )
    if item.kind is inspect.Parameter.POSITIONAL_ONLY:
        raise TargetError(f"`{model_id}`: `{item.name}` is positional only, so no caller could set it.")
    wanted = _supported(hints.get(item.name, Any), f"`{model_id}`, parameter `{item.name}`")
    return Parameter(item.name, wanted, item.default)


def _supported(wanted: Any, where: str) -> Any:
    if wanted is object or wanted is inspect.Parameter.empty:
        return Any
    try:
        msgspec.json.schema(wanted, schema_hook=media_schema)
        msgspec.json.Decoder(wanted)  # knows of unions that cannot be told apart
    except (TypeError, RecursionError) as error:
        reason = str(error).rpartition("\n")[2]
        raise TargetError(
            f"{where}: JSON cannot be turned into this annotation ({reason}). Use str, int, float, bool, list, dict, "
            f"lp.Message, lp.Image, lp.Audio, lp.File, a dataclass, a TypedDict or a msgspec.Struct, or none for the "
            f"raw JSON value."
        ) from error
    return wanted


def _source(name: str, given: Mapping[str, Any]) -> str | None:
    names = (name, *LENGTH_NAMES) if name in LENGTH_NAMES else (name,)
    # null means "as if it were not there" to every OpenAI client
    return next((each for each in names if given.get(each) is not None), None)


def _argument(parameter: Parameter, value: Any, *, field: str, hook: Hook) -> Any:
    try:
        return convert(value, parameter.type, field=field, strict=False, hook=hook)
    except LingpaiError as error:
        message = f"{error.message} Its schema: {_short_schema(parameter)}"
        raise LingpaiError(error.code, message, error.param) from error


def _short_schema(parameter: Parameter) -> str:
    schema = msgspec.json.schema(parameter.type, schema_hook=media_schema)
    text = msgspec.json.encode(_with_default(schema, parameter.default)).decode()
    return text if len(text) <= _LONGEST_SCHEMA else text[:_LONGEST_SCHEMA] + " …"


def _no_such_parameter(signature: CallSignature, wrong: str, model_id: str) -> LingpaiError:
    near = did_you_mean(wrong, signature.parameters)
    known = ", ".join(f"`{name}`" for name in signature.parameters) or "none"
    message = f"`{model_id}` has no parameter `{wrong[:100]}`.{near} It takes: {known}."
    return LingpaiError("invalid_request", message, f"parameters.{wrong[:100]}")


def _unfit(error: msgspec.ValidationError, field: str) -> LingpaiError:
    reason, _, path = str(error).partition(" - at `$")
    place = (field + path.rstrip("`")).removeprefix(".")
    reason = re.sub(r"^[A-Z]", lambda first: first[0].lower(), reason)
    return LingpaiError("invalid_request", f"`{place}`: {reason.removesuffix('.')}.", place)


def _with_default(schema: dict[str, Any], default: Any) -> dict[str, Any]:
    if default is inspect.Parameter.empty:
        return schema
    try:
        return {**schema, "default": msgspec.to_builtins(default)}
    except TypeError:
        return schema  # a default that JSON cannot show is left out of the description
