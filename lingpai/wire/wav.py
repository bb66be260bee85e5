"""PCM sound in WAV files, the one kind that needs no codec."""

import io
import wave
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Pcm:
    """Sound as it is stored: little-endian samples of `width` bytes, the channels interleaved."""

    frames: bytes
    sample_rate: int
    channels: int = 1
    width: int = 2

    @property
    def seconds(self) -> float:
        return len(self.frames) / (self.width * self.channels * self.sample_rate)


def read_wav(data: bytes) -> Pcm:
    """The sound in a WAV file. Raises ValueError when it is none, or not PCM."""
    try:
        with wave.open(io.BytesIO(data)) as file:
            frames = file.readframes(file.getnframes())
            return Pcm(frames, file.getframerate(), file.getnchannels(), file.getsampwidth())
    except (wave.Error, EOFError, ZeroDivisionError) as error:
        raise ValueError(f"not a WAV file with PCM sound ({error})") from error


def write_wav(sound: Pcm) -> bytes:
    """`sound` as a WAV file."""
    target = io.BytesIO()
    with wave.open(target, "wb") as file:
        file.setnchannels(sound.channels)
        file.setsampwidth(sound.width)
        file.setframerate(sound.sample_rate)
        file.writeframes(sound.frames)
    return target.getvalue()


def seconds_of(data: bytes) -> float | None:
    """How long the sound in `data` lasts; None when that cannot be told without a codec."""
    try:
        return read_wav(data).seconds
    except ValueError:
        return None
