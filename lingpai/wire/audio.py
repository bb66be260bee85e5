"""OpenAI's audio endpoints: what they are asked, and the forms in which what was said is answered.

Sources: the OpenAI API reference (audio), WebVTT (W3C), and the `openai` SDK's types.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec

from lingpai.errors import LingpaiError
from lingpai.wire.multipart import Form
from lingpai.wire.openai import Request

TRANSCRIPT_FORMATS: Final = ("json", "text", "srt", "verbose_json", "vtt")
SPEECH_TYPES: Final[Mapping[str, str]] = {
    "mp3": "audio/mpeg",
    "opus": "audio/ogg",
    "aac": "audio/aac",
    "flac": "audio/flac",
    "wav": "audio/wav",
    "pcm": "audio/pcm",
}
"""The names of `response_format` and what the answer is then."""

_TRUE: Final = ("true", "1")


class TranscriptionRequest(Request):
    """`POST /v1/audio/transcriptions`, of a form or of JSON."""

    file: msgspec.Raw = msgspec.Raw()
    response_format: str | None = None

    def check(self) -> None:
        """Refuse a request without a file, and what is not offered. Raises LingpaiError `invalid_request`."""
        if bytes(self.file) in (b"", b"null"):
            message = "`file` is missing. Send multipart/form-data with a file, or JSON with a data URL."
            raise LingpaiError("invalid_request", message, "file")
        check_transcription(self.response_format, is_stream=bool(self.stream))


class TranscriptionForm(TranscriptionRequest):
    """The same, sent as a form; never read from JSON."""

    form: Form = Form(())

    def check(self) -> None:
        """Nothing is left to check: the form was, when it was read."""


class SpeechRequest(Request):
    """`POST /v1/audio/speech`."""

    input: str | None = None
    response_format: str | None = None
    stream_format: str | None = None

    def check(self) -> None:
        """Refuse a request without text, and what is not offered. Raises LingpaiError `invalid_request`."""
        if not self.input:
            raise LingpaiError("invalid_request", '`input` is missing. Send "input": "some text".', "input")
        if self.response_format is not None and self.response_format not in SPEECH_TYPES:
            message = f"`response_format` must be one of {', '.join(SPEECH_TYPES)}."
            raise LingpaiError("invalid_request", message, "response_format")
        if self.stream_format not in (None, "audio"):
            message = "Speech is not sent as events. Leave `stream_format` out."
            raise LingpaiError("invalid_request", message, "stream_format")
        if self.stream:
            raise LingpaiError(
                "invalid_request", "Speech is not sent as events. Leave `stream` out.", "stream"
            )


TRANSCRIPTION: Final = msgspec.json.Decoder(TranscriptionRequest)
SPEECH: Final = msgspec.json.Decoder(SpeechRequest)


def transcription_form(form: Form) -> TranscriptionForm:
    """The request in a form. Raises LingpaiError `invalid_request`."""
    part = form.part("file")
    if part is None or part.filename is None:
        message = "The form has no file called `file`. Send one: curl -F file=@speech.wav"
        raise LingpaiError("invalid_request", message, "file")
    response_format = form.text("response_format") or None
    is_stream = (form.text("stream") or "").lower() in _TRUE
    check_transcription(response_format, is_stream=is_stream)
    return TranscriptionForm(model=form.text("model") or None, response_format=response_format, form=form)


def check_transcription(response_format: str | None, *, is_stream: bool) -> None:
    """Refuse forms of answers that there are not. Raises LingpaiError `invalid_request`."""
    if response_format is not None and response_format not in TRANSCRIPT_FORMATS:
        message = f"`response_format` must be one of {', '.join(TRANSCRIPT_FORMATS)}."
        raise LingpaiError("invalid_request", message, "response_format")
    if is_stream:
        message = "Transcriptions are not streamed. Leave `stream` out."
        raise LingpaiError("invalid_request", message, "stream")


def srt(segments: Sequence[Mapping[str, Any]]) -> str:
    """Segments (``start``, ``end`` in seconds, ``text``) as SubRip subtitles."""
    return "".join(
        f"{number}\n{_time(segment['start'], ',')} --> {_time(segment['end'], ',')}\n{_cue(segment)}\n\n"
        for number, segment in enumerate(segments, 1)
    )


def vtt(segments: Sequence[Mapping[str, Any]]) -> str:
    """Segments as WebVTT subtitles."""
    cues = (
        f"{_time(segment['start'], '.')} --> {_time(segment['end'], '.')}\n{_cue(segment)}\n\n"
        for segment in segments
    )
    return "WEBVTT\n\n" + "".join(cues)


def _cue(segment: Mapping[str, Any]) -> str:
    # An empty line would end the cue, and an arrow begin another (WebVTT, section 4.1).
    return " ".join(segment["text"].split()).replace("-->", "->")


def _time(seconds: float, point: str) -> str:
    whole = round(max(seconds, 0) * 1000)
    minutes, milliseconds = divmod(whole, 60_000)
    return f"{minutes // 60:02}:{minutes % 60:02}:{milliseconds // 1000:02}{point}{milliseconds % 1000:03}"
