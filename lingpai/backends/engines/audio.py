"""`POST /v1/audio/transcriptions` and `/v1/audio/speech`: sound to text and text to sound."""

from typing import Any

from lingpai.backends.engines.binding import convert
from lingpai.backends.engines.inputs import Item, read_item
from lingpai.backends.engines.media_reading import reading
from lingpai.backends.engines.media_values import Hook, MediaReader
from lingpai.backends.engines.models import LoadedModel
from lingpai.backends.engines.output_media import sound, transcript
from lingpai.backends.engines.replies import Reply
from lingpai.backends.engines.requests import Request
from lingpai.backends.engines.told_usage import told_usage
from lingpai.backends.engines.values import encode
from lingpai.errors import LingpaiError
from lingpai.media import Audio, File
from lingpai.wire.audio import SPEECH_TYPES, SpeechRequest, check_transcription, srt, vtt
from lingpai.wire.wav import read_wav, seconds_of

_TRANSCRIPTION_FIELDS = frozenset({"model", "file", "response_format", "stream"})
_SPEECH_FIELDS = frozenset({"model", "input", "response_format", "stream", "stream_format"})
_TEXT = "text/plain; charset=utf-8"


async def transcriptions(request: Request, reply: Reply) -> None:
    """What is said in a file, as JSON, text or subtitles."""
    model = request.model_for("automatic-speech-recognition")
    form = request.text("response_format") or "json"
    check_transcription(form, is_stream=request.fields.get("stream") in (True, "true", "1"))
    value, parameters = request.required("file"), request.others(_TRANSCRIPTION_FIELDS)

    def read(hook: Hook) -> tuple[Item, File]:
        item = read_item(model, value, parameters, field="file", hook=hook, drops_unknown=True)
        return item, convert(value, File, field="file", hook=hook)

    item, file = await reading(request.fetcher, read, field="file", array_of=Audio)
    headers = request.dropped_header(item.dropped)
    said = transcript(await model.runner.value(item.payload, item.arguments), item.given)
    if "duration" not in said:
        said["duration"] = seconds_of(file.bytes)
    if form in ("text", "srt", "vtt"):
        await reply.file(_as_text(model, said, form).encode(), _TEXT, headers=headers)
    else:
        await reply.json(encode(_as_json(said, form)), headers=headers)


async def speech(request: Request, reply: Reply) -> None:
    """A text spoken, as the bytes of a sound file."""
    model = request.model_for("text-to-speech")
    asked = request.converted(SpeechRequest)
    parameters = request.others(_SPEECH_FIELDS)
    voice = parameters.get("voice")
    if isinstance(voice, dict) and isinstance(voice.get("id"), str):
        parameters["voice"] = voice["id"]  # OpenAI's form for voices of one's own
    knows_formats = "response_format" in model.signature.parameters or model.signature.takes_anything
    if asked.response_format is not None and knows_formats:
        parameters["response_format"] = asked.response_format
    item = read_item(model, asked.input, parameters, field="input", hook=MediaReader(), drops_unknown=True)
    headers = request.dropped_header(item.dropped)
    spoken = sound(await model.runner.value(item.payload, item.arguments))
    data, media_type = _in_format(model, spoken, asked.response_format)
    await reply.file(data, media_type, headers=headers)


def _as_json(said: dict[str, Any], form: str) -> dict[str, Any]:
    seconds = said["duration"]
    usage = dict(told_usage() or {})
    if seconds is not None:
        usage = {"type": "duration", "seconds": seconds, **usage}
    ending = {"usage": usage} if usage else {}
    if form == "json":
        return {"text": said["text"], **ending}
    segments = [{"id": number, **segment} for number, segment in enumerate(said.get("segments") or ())]
    language = said.get("language", "")
    rest = {"duration": seconds or 0.0, "segments": segments, "words": said.get("words")}
    return {"task": "transcribe", "language": language, "text": said["text"], **rest, **ending}


def _as_text(model: LoadedModel, said: dict[str, Any], form: str) -> str:
    if form == "text":
        return f"{said['text']}\n"
    segments = said.get("segments")
    if segments is None and said["duration"] is not None:
        segments = [{"start": 0.0, "end": said["duration"], "text": said["text"]}]
    if segments is None:
        message = f"`{model.id}` does not say when what was said. Ask for `json` or `text`."
        raise LingpaiError("invalid_request", message, "response_format")
    return srt(segments) if form == "srt" else vtt(segments)


def _in_format(model: LoadedModel, spoken: Audio, wanted: str | None) -> tuple[bytes, str]:
    """The sound as it was asked for. Raises LingpaiError for what would take a codec."""
    if wanted is None or SPEECH_TYPES[wanted] == spoken.media_type:
        return spoken.bytes, spoken.media_type
    if wanted == "pcm" and spoken.media_type == "audio/wav":
        try:
            return read_wav(spoken.bytes).frames, SPEECH_TYPES["pcm"]
        except ValueError:
            pass
    own = " or ".join(f"`{name}`" for name, kind in SPEECH_TYPES.items() if kind == spoken.media_type)
    message = f"`{model.id}` makes {spoken.media_type}. Ask for {own or 'no format'}, or leave `response_format` out."
    raise LingpaiError("invalid_request", message, "response_format")
