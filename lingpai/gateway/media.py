"""Reranking, sound and pictures: OpenAI's, Jina's and Cohere's addresses, to workers and providers alike."""

import re
from typing import TYPE_CHECKING, Final

import msgspec

from lingpai.errors import LingpaiError
from lingpai.gateway import forms
from lingpai.gateway.endpoint import Endpoint, Prepared, echo_model
from lingpai.wire import audio, images, openai, rerank, tasks
from lingpai.wire.body import FIELDS
from lingpai.wire.media import is_data_url, read_data_url
from lingpai.wire.multipart import Form, Part

if TYPE_CHECKING:
    from lingpai.gateway.exchange import Exchange

JSON: Final = b"application/json"
_UNKNOWN: Final = b"application/octet-stream"
# Nothing that a browser would take for a page.
_KNOWN: Final = re.compile(
    rb"(?:audio/[\w.+-]+|video/[\w.+-]+|text/(?:plain|vtt)|application/(?:octet-stream|x-subrip))"
    rb"(?:; ?charset=[\w-]+)?",
    re.IGNORECASE,
)


def answer_type(told: bytes) -> bytes:
    """The media type of an answer, from the one that the backend tells."""
    if not told or told[:16].lower() == JSON:
        return JSON
    return told if _KNOWN.fullmatch(told) else _UNKNOWN


def _prepare_plain(exchange: "Exchange") -> Prepared:
    request, model, body = exchange.request, exchange.model, exchange.body
    if request.model != model.upstream_name:
        body = openai.rewrite(body, {"model": model.upstream_name})
    return exchange.endpoint.backend_path, body


def _prepare_transcription(exchange: "Exchange") -> Prepared:
    if isinstance(exchange.request, audio.TranscriptionForm):
        return forms.pass_on(exchange, exchange.request.form)
    if exchange.model.backend.kind == "worker":
        return _prepare_plain(exchange)
    return forms.pass_on(exchange, _form_of(exchange))


def _form_of(exchange: "Exchange") -> Form:
    """A form for a provider, which takes no JSON here. The server itself fetches nothing."""
    fields = FIELDS.decode(exchange.body)
    value = msgspec.json.decode(fields.pop("file"))
    try:
        if not isinstance(value, str) or not is_data_url(value):
            raise ValueError
        data, media_type = read_data_url(value)
    except ValueError as error:
        message = "`file` must be a data URL, or send the file as multipart/form-data."
        raise LingpaiError("invalid_request", message, "file") from error
    name = "sound." + (media_type or "audio/wav").rpartition("/")[2].removeprefix("x-")
    parts = [Part("file", data, name, media_type)]
    for field, raw in fields.items():
        told = msgspec.json.decode(raw)
        if told is not None:
            parts.append(Part(field, told.encode() if isinstance(told, str) else bytes(raw)))
    return Form(tuple(parts))


def _as_it_is(exchange: "Exchange", answer: bytes) -> bytes:  # noqa: ARG001  the others look at it
    return answer


RERANK: Final = Endpoint(
    name="rerank", path="/v1/rerank", tasks=frozenset({tasks.RERANK}), decoder=rerank.RERANK,
    prepare=_prepare_plain, convert=echo_model,
)  # fmt: skip
TRANSCRIPTIONS: Final = Endpoint(
    name="audio.transcriptions", path="/v1/audio/transcriptions", tasks=frozenset({tasks.TRANSCRIPTION}),
    decoder=audio.TRANSCRIPTION, prepare=_prepare_transcription, convert=_as_it_is,
    read_form=audio.transcription_form, may_answer_files=True,
)  # fmt: skip
SPEECH: Final = Endpoint(
    name="audio.speech", path="/v1/audio/speech", tasks=frozenset({tasks.SPEECH}), decoder=audio.SPEECH,
    prepare=_prepare_plain, convert=_as_it_is, may_answer_files=True,
)  # fmt: skip
IMAGES: Final = Endpoint(
    name="images.generations", path="/v1/images/generations", tasks=frozenset({tasks.TEXT_TO_IMAGE}),
    decoder=images.IMAGES, prepare=_prepare_plain, convert=_as_it_is,
)  # fmt: skip
