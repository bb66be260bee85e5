"""What models for pictures and sound return: pictures, masks, boxes, speech, and what was said."""

from collections.abc import Mapping
from typing import Any, Final

from lingpai.backends.engines.output_texts import find_text
from lingpai.backends.engines.values import ResultError, is_number, numbers, plain, records
from lingpai.media import Audio, File, Image

_CORNERS: Final = ("xmin", "ymin", "xmax", "ymax")
_PICTURE_WANTED: Final = "a picture is lp.Image, a Pillow image, a NumPy array, or bytes of an image file."
_SOUND_WANTED: Final = (
    'sound is lp.Audio, bytes of an audio file, (samples, sample_rate) or {"audio", "sampling_rate"}.'
)


def picture(value: Any) -> Image:
    """One picture from anything that is one. Raises ResultError."""
    if isinstance(value, Image):
        return value
    if isinstance(value, File):
        value = value.bytes
    if isinstance(value, bytes | bytearray):
        found = Image(bytes(value))
        if not found.media_type.startswith("image/"):
            raise ResultError(f"returned bytes that are no image file; {_PICTURE_WANTED}")
        return found
    try:
        if callable(getattr(value, "save", None)) and hasattr(value, "getbands"):
            return Image.from_pil(value)
        if hasattr(value, "dtype") and hasattr(value, "shape"):
            return Image.from_array(value)
    except (ValueError, TypeError, OSError) as error:
        raise ResultError(f"returned a picture that cannot be stored: {error}.") from error
    raise ResultError(f"returned {type(value).__name__}; {_PICTURE_WANTED}")


def list_pictures(value: Any) -> list[Image]:
    """One or more pictures, also from ``{"images": […]}`` or ``{"image": …}``, or an array of four dimensions."""
    images = getattr(value, "images", None)  # Diffusers' pipelines return an object with them
    if isinstance(value, Mapping):
        images = value.get("images", value.get("image"))
    if images is not None:
        value = images
    if isinstance(value, list | tuple) or len(getattr(value, "shape", ())) == 4:
        return [picture(item) for item in value]
    return [picture(value)]


def pictures(value: Any, given: Any) -> list[dict[str, Any]]:
    """``[{"image": data URL}]``."""
    del given
    return [{"image": image.data_url()} for image in list_pictures(value)]


def boxes(value: Any, given: Any) -> list[dict[str, Any]]:
    """Things found in a picture, the surest first: ``[{"label", "score", "box": {xmin, ymin, xmax, ymax}}]``.

    A box may also be four numbers in that order, or ``{"x", "y", "width", "height"}``. Positions are pixels.
    """
    del given
    found = [{**_thing(item, _BOXES_WANTED), "box": _box(item)} for item in _things(value, _BOXES_WANTED)]
    return sorted(found, key=lambda item: -item.get("score", 0))


_BOXES_WANTED: Final = (
    'object-detection returns a list of {"label", "score", "box": [xmin, ymin, xmax, ymax]}.'
)


def masks(value: Any, given: Any) -> list[dict[str, Any]]:
    """Parts of a picture: ``[{"label", "score"?, "mask": data URL}]``; the mask is a gray PNG of the picture's size."""
    del given
    wanted = 'image-segmentation returns a list of {"label", "score", "mask": a picture or an array}.'
    found = []
    for item in _things(value, wanted):
        if item.get("mask") is None:
            raise ResultError(f"returned a part without `mask`; {wanted}")
        found.append({**_thing(item, wanted), "mask": picture(item["mask"]).data_url()})
    return found


def sound(value: Any) -> Audio:
    """Sound from anything that is one. Raises ResultError."""
    if isinstance(value, Audio):
        return value
    if isinstance(value, File):
        value = value.bytes
    if isinstance(value, Mapping):
        inner, rate = value.get("audio"), value.get("sampling_rate", value.get("sample_rate"))
        value = inner if rate is None else (inner, rate)
    if isinstance(value, bytes | bytearray):
        found = Audio(bytes(value))
        if not found.media_type.startswith(("audio/", "video/")):
            raise ResultError(f"returned bytes that are no audio file; {_SOUND_WANTED}")
        return found
    if isinstance(value, Audio):
        return value
    if isinstance(value, tuple) and len(value) == 2:
        return _from_samples(*value)
    raise ResultError(f"returned {type(value).__name__}; {_SOUND_WANTED}")


def speech(value: Any, given: Any) -> dict[str, Any]:
    """``{"audio": data URL}``."""
    del given
    return {"audio": sound(value).data_url()}


def film(value: Any, given: Any) -> dict[str, Any]:
    """``{"video": data URL}`` from `lp.File` or bytes."""
    del given
    if isinstance(value, bytes | bytearray):
        value = File(bytes(value))
    if not isinstance(value, File):
        raise ResultError(f"returned {type(value).__name__}; a film is lp.File or bytes of a video file.")
    return {"video": value.data_url()}


def transcript(value: Any, given: Any) -> dict[str, Any]:
    """What was said: ``{"text", "segments"?, "language"?, "duration"?, "words"?}``.

    From a string, or an object with `text`; segments are ``{"start", "end", "text"}`` in seconds, also as Hugging
    Face's ``chunks`` with ``timestamp: (start, end)``.
    """
    del given
    wanted = "speech recognition returns str, or a dict with `text` and maybe `segments`."
    found: dict[str, Any] = {"text": find_text(value, wanted)}
    if not isinstance(value, Mapping):
        return found
    segments = value.get("segments", value.get("chunks"))
    if segments is not None:
        found["segments"] = [_segment(item) for item in records(segments) or [None]]
    for name, kind in (("language", str), ("duration", int | float), ("words", list)):
        told = plain(value.get(name))
        if isinstance(told, kind):
            found[name] = told
    return found


def _segment(item: Any) -> dict[str, Any]:
    wanted = 'a segment is {"start", "end", "text"}, in seconds.'
    if not isinstance(item, Mapping):
        raise ResultError(f"returned {item!r:.80}; {wanted}")
    start, end = plain(item.get("start")), plain(item.get("end"))
    times = numbers(item.get("timestamp"))
    if times is not None and len(times) == 2:
        start, end = times
    text = item.get("text")
    if not (is_number(start) and is_number(end) and isinstance(text, str)):
        raise ResultError(f"returned {item!r:.80}; {wanted}")
    rest = {
        key: plain(told) for key, told in item.items() if key not in ("timestamp", "start", "end", "text")
    }
    return {"start": start, "end": end, "text": text, **rest}


def _things(value: Any, wanted: str) -> list[Mapping[str, Any]]:
    items = records(value)
    if items is None or not all(isinstance(item, Mapping) for item in items):
        raise ResultError(f"returned {type(value).__name__}; {wanted}")
    return items


def _thing(item: Mapping[str, Any], wanted: str) -> dict[str, Any]:
    label, score = plain(item.get("label")), plain(item.get("score"))
    if label is None or not (score is None or is_number(score)):
        raise ResultError(f"returned {item!r:.80}; {wanted}")
    return {"label": str(label)} if score is None else {"label": str(label), "score": score}


def _box(item: Mapping[str, Any]) -> dict[str, float]:
    box = item.get("box", item.get("bbox"))
    if isinstance(box, Mapping):
        if {"x", "y", "width", "height"} <= set(box):
            sides = numbers([box[name] for name in ("x", "y", "width", "height")])
            box = sides and (sides[0], sides[1], sides[0] + sides[2], sides[1] + sides[3])
        else:
            box = [box.get(name) for name in _CORNERS]
    corners = numbers(box)
    if corners is None or len(corners) != 4:
        raise ResultError(f"returned the box {box!r:.60}; {_BOXES_WANTED}")
    return dict(zip(_CORNERS, corners, strict=True))


def _from_samples(samples: Any, rate: Any) -> Audio:
    if isinstance(samples, int):
        samples, rate = rate, samples  # (sample_rate, samples), as Gradio and SciPy have it
    if not hasattr(samples, "dtype") or not is_number(plain(rate)) or plain(rate) <= 0:
        raise ResultError(f"returned sound without samples and their rate; {_SOUND_WANTED}")
    try:
        return Audio.from_samples(samples, int(plain(rate)))
    except (ValueError, TypeError) as error:
        raise ResultError(f"returned sound that cannot be stored: {error}.") from error
