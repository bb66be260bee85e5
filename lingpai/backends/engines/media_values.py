"""Pictures, sound and files in a request, turned into what a function's annotation asks for.

A value may be an address, a data URL, base64, an object around one of them, or an uploaded file. An annotation may be
`lp.Image`, `lp.Audio`, `lp.File`, Pillow's `Image`, or a NumPy array (which also takes plain lists of numbers).
"""

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, get_args, get_origin

from lingpai.media import Audio, File, Image
from lingpai.wire.media import decode_base64, is_data_url, read_data_url

Hook = Callable[[Any, Any], Any]
"""msgspec's `dec_hook`: the type wanted, the JSON value that came; raises ValueError when it does not fit."""

_AUDIO_TYPES: Final = ("audio/", "video/")  # sound often comes in the container of a film
_SOURCES: Final = ("url", "data", "base64", "b64_json", "image_url", "input_audio", "image", "audio", "file")


_NO_PILLOW: Final = "this server cannot decode pictures: its operator has to install Pillow"


@dataclass(slots=True)
class MediaReader:
    """A `Hook` for what must not wait for other hosts. `array_of` says which files may become arrays."""

    array_of: type[File] = File

    def __call__(self, wanted: Any, value: Any) -> Any:
        kind = get_origin(wanted) or wanted
        if _is_array(kind) and isinstance(value, list | int | float):
            return _array(wanted, value)
        if not is_media(wanted):
            raise NotImplementedError
        return self.make(kind, value)

    def make(self, kind: Any, value: Any) -> Any:
        """What `kind` of media wants of `value`. Raises ValueError when it does not fit or cannot be decoded."""
        file = self._file(value)
        if is_file(kind):
            return _as_kind(file, kind)
        return _picture(file) if _is_pillow(kind) else _samples_or_pixels(_as_kind(file, self.array_of))

    def at_address(self, url: str) -> File:  # noqa: ARG002  who fetches looks at it
        """The file at an address. Raises ValueError."""
        raise ValueError("addresses are not fetched here; send a data URL")

    def _file(self, value: Any) -> File:
        if isinstance(value, File):
            return value
        if isinstance(value, Mapping):
            return self._inside(value)
        if not isinstance(value, str):
            raise ValueError(f"expected an address, a data URL or base64, got `{type(value).__name__}`")  # noqa: TRY004  msgspec reads it
        if is_data_url(value):
            data, media_type = read_data_url(value)
            return File(data, media_type=media_type)
        if _is_address(value):
            return self.at_address(value)
        return File(decode_base64(value))

    def _inside(self, value: Mapping[str, Any]) -> File:
        """The file in an object: our own, a message's part as OpenAI's clients send it, or a task's output."""
        source = _source(value)
        if source is None:
            raise ValueError('expected {"url": …} or {"data": base64, "media_type": …}')
        file = self._file(source)
        name, told = value.get("name"), value.get("media_type")
        return File(
            file.bytes,
            media_type=told if isinstance(told, str) else file.media_type,
            name=name if isinstance(name, str) else file.name,
        )


def without_fetching(wanted: Any, value: Any) -> Any:
    """The `Hook` where nothing says what arrays are made of."""
    return MediaReader()(wanted, value)


def address_of(value: Any) -> str | None:
    """The address that `value` names its file by, if it does."""
    while isinstance(value, Mapping):
        value = _source(value)
    return value if isinstance(value, str) and not is_data_url(value) and _is_address(value) else None


def is_file(kind: Any) -> bool:
    """Whether an annotation asks for the file itself, and not for what is in it."""
    return isinstance(kind, type) and issubclass(kind, File)


def is_media(wanted: Any) -> bool:
    """Whether an annotation asks for a picture, a sound or a file."""
    kind = get_origin(wanted) or wanted
    return isinstance(kind, type) and (issubclass(kind, File) or _is_pillow(kind) or _is_array(kind))


def is_array(wanted: Any) -> bool:
    """Whether an annotation asks for a NumPy array."""
    return _is_array(get_origin(wanted) or wanted)


def media_schema(wanted: Any) -> dict[str, Any]:
    """Msgspec's `schema_hook`: the JSON schema of a value for `wanted`. Raises NotImplementedError for other types."""
    kind = get_origin(wanted) or wanted
    if _is_array(kind):
        return {
            "type": ["array", "string"],
            "description": "Numbers, or a picture or WAV file: URL, data URL or base64.",
        }
    if not is_media(wanted):
        raise NotImplementedError
    if issubclass(kind, Audio):
        return _file_schema("Sound", "audio/*")
    is_picture = issubclass(kind, Image) or _is_pillow(kind)
    return _file_schema("A picture", "image/*") if is_picture else _file_schema("A file", "*/*")


def _source(value: Mapping[str, Any]) -> Any:
    return next((value[name] for name in _SOURCES if value.get(name) is not None), None)


def _is_address(text: str) -> bool:
    return "://" in text[:32]


def _file_schema(what: str, media_type: str) -> dict[str, Any]:
    return {
        "type": "string",
        "contentMediaType": media_type,
        "contentEncoding": "base64",
        "description": f"{what}: an http(s) URL, a data URL or base64.",
    }


def _as_kind(file: File, kind: type[File]) -> File:
    """`file` as `kind`. Raises ValueError when it is something else by its own account."""
    media_type = file.media_type
    if issubclass(kind, Image) and not media_type.startswith("image/"):
        raise ValueError(f"expected a picture (PNG, JPEG, …), got {media_type}")
    if issubclass(kind, Audio) and not media_type.startswith(_AUDIO_TYPES):
        raise ValueError(f"expected sound (WAV, MP3, …), got {media_type}")
    return file if type(file) is kind else kind(file.bytes, media_type=media_type, name=file.name)


def _picture(file: File) -> Any:
    picture = Image(file.bytes, media_type=_as_kind(file, Image).media_type)
    try:
        return picture.pil()
    except ImportError as error:
        raise ValueError(_NO_PILLOW) from error


def _samples_or_pixels(file: File) -> Any:
    if file.media_type.startswith("image/"):
        return sys.modules["numpy"].asarray(_picture(file))
    return Audio(file.bytes, media_type=_as_kind(file, Audio).media_type).samples()[0]


def _array(wanted: Any, value: Any) -> Any:
    array = sys.modules["numpy"].asarray(value, dtype=_number_type(wanted))
    if array.dtype.kind not in "iufb":
        raise ValueError("expected numbers")
    return array


def _number_type(wanted: Any) -> Any:
    """The number type in `NDArray[np.float32]`; None when any will do."""
    inner = [get_args(argument) for argument in get_args(wanted)]
    last = inner[-1] if inner else ()
    return last[0] if last and isinstance(last[0], type) else None


def _is_pillow(kind: Any) -> bool:
    return isinstance(kind, type) and kind.__name__ == "Image" and kind.__module__ == "PIL.Image"


def _is_array(kind: Any) -> bool:
    return isinstance(kind, type) and kind.__name__ == "ndarray" and kind.__module__ == "numpy"
