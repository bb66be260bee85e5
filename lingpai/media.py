"""Files, pictures and sound as a model meets them, on the way in and on the way out.

    @lp.model("acme/captions", task="image-to-text")
    def caption(image: lp.Image) -> str:
        return describe(image.pil())

A caller may send an address, a data URL, base64 or an uploaded file: the function gets the bytes. What it returns may
be one of these too. Nothing is decoded until it is asked for, and nothing is written to disk.
"""

import io
import re
from importlib import import_module
from typing import Any, Final, Self

from lingpai.authoring import InputError
from lingpai.wire.media import data_url, sniff
from lingpai.wire.png import encode_png
from lingpai.wire.wav import Pcm, read_wav, write_wav

Bytes = bytes  # the classes below have a property of that name

MOST_PIXELS: Final = 50_000_000
"""How many pixels a picture may have that is decoded, unless a model says otherwise."""

_MEDIA_TYPE = re.compile(r"[\w.+-]+/[\w.+-]+(?:; ?[\w.+-]+=[\w.+-]+)*", re.ASCII)
_FULL_SCALE = {1: 128.0, 2: 32768.0, 4: 2147483648.0}


class File:
    """Bytes, their media type, and the name they were sent under.

    The name is what the caller wrote and fit for display only: never use it as a path. Raises ValueError for a media
    type that is none.
    """

    __slots__ = ("_data", "media_type", "name")

    def __init__(self, data: Bytes, *, media_type: str | None = None, name: str = "") -> None:
        self._data = bytes(data)
        self.media_type = media_type or sniff(self._data) or "application/octet-stream"
        if not _MEDIA_TYPE.fullmatch(self.media_type):  # it ends up in headers and data URLs
            raise ValueError(f"{self.media_type!r:.80} is not a media type")
        self.name = name

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.media_type}, {len(self._data)} bytes)"

    @property
    def bytes(self) -> Bytes:
        """The file as it came."""
        return self._data

    def open(self) -> io.BytesIO:
        """The bytes as a file object, for libraries that read one."""
        return io.BytesIO(self._data)

    def data_url(self) -> str:
        """The file as a data URL."""
        return data_url(self._data, self.media_type)


class Image(File):
    """A picture."""

    __slots__ = ()

    def pil(self, *, max_pixels: int = MOST_PIXELS) -> Any:
        """The picture as a `PIL.Image.Image`; needs Pillow.

        Raises InputError (a 400) when Pillow cannot read it, or when it has more than `max_pixels`: a small file may
        hold a picture that takes gigabytes when it is decoded.
        """
        pillow: Any = import_module("PIL.Image")  # only for models that use it
        try:
            picture = pillow.open(self.open())
            if picture.width * picture.height <= max_pixels:
                picture.load()
                return picture
        except MemoryError:
            raise  # not the picture's fault: it is within the bound
        except pillow.DecompressionBombError as error:
            raise InputError("The picture has too many pixels. Send a smaller one.") from error
        except Exception as error:  # what decoders raise is anything: RuntimeError, TypeError, SyntaxError, …
            raise InputError("The picture cannot be read. Send a PNG or JPEG file.") from error
        size = f"{picture.width}x{picture.height} pixels"
        most = f"{max_pixels / 10**6:g} megapixels"
        raise InputError(f"The picture has {size}, and at most {most} are read. Send a smaller one.")

    @classmethod
    def from_pil(cls, picture: Any) -> Self:
        """A PNG of a `PIL.Image.Image`."""
        target = io.BytesIO()
        picture.save(target, format="PNG")
        return cls(target.getvalue(), media_type="image/png")

    @classmethod
    def from_array(cls, pixels: Any) -> Self:
        """A PNG of a NumPy array of shape (height, width) or (height, width, channels), 1 to 4 channels.

        Whole numbers are 0 to 255; floats and booleans 0 to 1, and what lies outside is cut off. Raises ValueError
        when the shape is not that of a picture.
        """
        height, width, channels = _picture_shape(pixels.shape)
        scaled = pixels if pixels.dtype.kind in "ui" else pixels.astype("float64") * 255
        levels = scaled.clip(0, 255).round().astype("uint8")
        png = encode_png(levels.tobytes(), width=width, height=height, channels=channels)
        return cls(png, media_type="image/png")


class Audio(File):
    """Sound."""

    __slots__ = ()

    def samples(self) -> tuple[Any, int]:
        """Samples as a float32 NumPy array from -1 to 1, of shape (n,) or (n, channels), and samples per second.

        For WAV files; other kinds need a decoder of your own, which gets `bytes`. Raises InputError (a 400) for those.
        """
        numpy: Any = import_module("numpy")  # only for models that use it
        try:
            sound = read_wav(self._data)
        except ValueError as error:
            raise InputError("The sound cannot be read. Send a WAV file with PCM sound.") from error
        if sound.width not in _FULL_SCALE:
            raise InputError(f"WAV files of {sound.width * 8} bits are not read. Send one of 16 bits.")
        raw = numpy.frombuffer(sound.frames, dtype="u1" if sound.width == 1 else f"<i{sound.width}")
        centred = raw.astype("float32") - (128 if sound.width == 1 else 0)  # 8-bit WAV is unsigned
        samples = centred / numpy.float32(_FULL_SCALE[sound.width])
        return (samples.reshape(-1, sound.channels) if sound.channels > 1 else samples), sound.sample_rate

    @classmethod
    def from_samples(cls, samples: Any, sample_rate: int) -> Self:
        """A WAV file (16 bits) of a NumPy array: floats from -1 to 1 or whole numbers of 16 bits.

        Shape (n,), or (n, channels) with up to 8 channels; (1, n) is taken for (n,). Raises ValueError otherwise.
        """
        if samples.ndim == 2 and samples.shape[0] == 1:
            samples = samples[0]
        channels = samples.shape[-1] if samples.ndim == 2 else 1
        if samples.ndim not in (1, 2) or not 1 <= channels <= 8:
            raise ValueError(
                f"samples of shape {tuple(samples.shape)} are no sound; expected (n,) or (n, channels)"
            )
        whole = samples if samples.dtype.kind in "iu" else (samples.clip(-1, 1) * 32767).round()
        frames = whole.clip(-32768, 32767).astype("<i2").tobytes()
        return cls(write_wav(Pcm(frames, int(sample_rate), int(channels))), media_type="audio/wav")


def _picture_shape(shape: tuple[int, ...]) -> tuple[int, int, int]:
    if len(shape) not in (2, 3):
        raise ValueError(
            f"an array of shape {tuple(shape)} is no picture; expected (height, width, channels)"
        )
    return int(shape[0]), int(shape[1]), int(shape[2]) if len(shape) == 3 else 1
