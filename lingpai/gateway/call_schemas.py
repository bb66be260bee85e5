"""What the OpenAPI document says of model calls: summaries, examples, and JSON Schemas of their bodies.

Only what Lingpai reads is described; whatever else is in a body goes to the backend as it is.
"""

from collections.abc import Iterable
from typing import Any, Final

from lingpai.gateway.endpoint import Endpoint
from lingpai.gateway.endpoints import CHAT, COMPLETIONS, EMBEDDINGS, GENERATE, INFERENCE, PREDICT
from lingpai.gateway.media import IMAGES, RERANK, SPEECH, TRANSCRIPTIONS
from lingpai.wire.audio import SPEECH_TYPES, TRANSCRIPT_FORMATS
from lingpai.wire.images import MOST_IMAGES
from lingpai.wire.openai import MAX_LENGTH
from lingpai.wire.rerank import MOST_DOCUMENTS

Schema = dict[str, Any]

_TEXT: Final[Schema] = {"type": "string"}
_STREAM: Final[Schema] = {
    "type": ["boolean", "null"],
    "description": "Server-sent events instead of one answer.",
}
_LENGTH: Final[Schema] = {"type": ["integer", "null"], "minimum": 1, "maximum": MAX_LENGTH}
_MESSAGE: Final[Schema] = {
    "type": "object",
    "required": ["role"],
    "properties": {
        "role": {**_TEXT, "examples": ["system", "user", "assistant", "tool"]},
        "content": {
            "type": ["string", "null"],
            "description": "A text; or, as OpenAI writes it, a list of parts.",
        },
    },
}
_MESSAGES: Final = [{"role": "user", "content": "Hello"}]


def _model(task: str) -> Schema:
    return {
        "type": ["string", "null"],
        "format": f"model for {task}",
        "description": "Id or alias; the default model answers when it is left out.",
    }


def _one_of(values: Iterable[str]) -> Schema:
    return {"type": ["string", "null"], "enum": [*values, None]}


SUMMARIES: Final = {
    CHAT.name: "Chat",
    COMPLETIONS.name: "Complete a text",
    EMBEDDINGS.name: "Embed texts",
    RERANK.name: "Put documents in order",
    TRANSCRIPTIONS.name: "Write down what is said",
    SPEECH.name: "Speak a text",
    IMAGES.name: "Make pictures",
    PREDICT.name: "Call a plain function",
    GENERATE.name: "Generate text",
    INFERENCE.name: "Call any model",
}
_EXAMPLES: Final[dict[str, Any]] = {
    CHAT.name: {"model": "lingpai/eliza", "messages": _MESSAGES, "stream": False},
    COMPLETIONS.name: {"model": "lingpai/eliza", "prompt": "Hello", "max_tokens": 64},
    EMBEDDINGS.name: {"model": "lingpai/hashing-embedding", "input": ["Hello", "你好"]},
    RERANK.name: {
        "model": "acme/reranker",
        "query": "a pet",
        "documents": ["a car", "a cat"],
        "top_n": 1,
    },
    TRANSCRIPTIONS.name: {
        "model": "acme/speech",
        "file": "data:audio/wav;base64,UklGRiQAAABXQVZFZm10IBAAAAABAAEAQB8AAIA+AAACABAAZGF0YQAAAAA=",
        "response_format": "json",
    },
    SPEECH.name: {"model": "acme/voice", "input": "Hello", "voice": "one"},
    IMAGES.name: {"model": "acme/painter", "prompt": "a cat", "n": 1, "size": "512x512"},
    PREDICT.name: {"input_data": "Hello"},
    GENERATE.name: {"prompt": "Hello", "max_length": 200},
    INFERENCE.name: {"input": "A lovely day", "parameters": {}},
}
_BODIES: Final[dict[str, Schema]] = {
    CHAT.name: {
        "required": ["messages"],
        "properties": {
            "model": _model("generation"),
            "messages": {"type": "array", "minItems": 1, "items": _MESSAGE},
            "stream": _STREAM,
            "max_tokens": _LENGTH,
        },
    },
    COMPLETIONS.name: {
        "required": ["prompt"],
        "properties": {
            "model": _model("generation"),
            "prompt": {**_TEXT, "description": "A text; or a list of texts."},
            "stream": _STREAM,
            "max_tokens": _LENGTH,
        },
    },
    EMBEDDINGS.name: {
        "required": ["input"],
        "properties": {
            "model": _model("embedding"),
            "input": {
                "anyOf": [
                    {**_TEXT, "minLength": 1},
                    {"type": "array", "minItems": 1, "items": {**_TEXT, "minLength": 1}},
                ]
            },
            "encoding_format": _one_of(["float", "base64"]),
        },
    },
    RERANK.name: {
        "required": ["query", "documents"],
        "properties": {
            "model": _model("rerank"),
            "query": _TEXT,
            "documents": {"type": "array", "minItems": 1, "maxItems": MOST_DOCUMENTS, "items": _TEXT},
            "top_n": {"type": ["integer", "null"], "minimum": 1},
            "return_documents": {"type": ["boolean", "null"]},
        },
    },
    TRANSCRIPTIONS.name: {
        "required": ["file"],
        "properties": {
            "model": _model("transcription"),
            "file": {**_TEXT, "format": "data-url", "description": "A sound as data URL, or its address."},
            "response_format": _one_of(TRANSCRIPT_FORMATS),
        },
    },
    SPEECH.name: {
        "required": ["input"],
        "properties": {
            "model": _model("speech"),
            "input": {**_TEXT, "minLength": 1},
            "voice": _TEXT,
            "response_format": _one_of(SPEECH_TYPES),
        },
    },
    IMAGES.name: {
        "required": ["prompt"],
        "properties": {
            "model": _model("pictures"),
            "prompt": {**_TEXT, "minLength": 1},
            "n": {"type": ["integer", "null"], "minimum": 1, "maximum": MOST_IMAGES},
        },
    },
    PREDICT.name: {
        "required": ["input_data"],
        "properties": {
            "input_data": {**_TEXT, "description": "Whatever the function takes: any JSON."},
            "model": _model("anything"),
        },
    },
    GENERATE.name: {
        "required": ["prompt"],
        "properties": {
            "prompt": _TEXT,
            "model": _model("generation"),
            "max_length": _LENGTH,
            "max_new_tokens": _LENGTH,
        },
    },
    INFERENCE.name: {
        "required": ["input"],
        "properties": {
            "input": {**_TEXT, "description": "Whatever the model's task takes: any JSON."},
            "parameters": {"type": ["object", "null"], "description": "What the model's page lists."},
        },
    },
}
_FORM_FIELDS: Final[dict[str, Schema]] = {
    "file": {"type": "string", "format": "binary"},
    "model": {**_TEXT, "format": "model for files"},
}
STREAMED_ANSWER: Final = {
    "description": "One answer, or with `stream` events of OpenAI's form.",
    "content": {"application/json": {}, "text/event-stream": {}},
}
STREAMING: Final = frozenset({CHAT.name, COMPLETIONS.name})
FILE_ANSWERS: Final[dict[str, Schema]] = {
    TRANSCRIPTIONS.name: {
        "description": "JSON or text, as `response_format` says.",
        "content": {"application/json": {}, "text/plain": {}},
    },
    SPEECH.name: {
        "description": "Sound, as `response_format` says.",
        "content": {"audio/*": {"schema": {"type": "string", "format": "binary"}}},
    },
}


def request_body(endpoint: Endpoint) -> Schema:
    """The request body of an endpoint: JSON, and where files are taken also a form."""
    schema = {"type": "object", **_BODIES[endpoint.name]}
    content: Schema = {"application/json": {"schema": schema, "example": _EXAMPLES[endpoint.name]}}
    if endpoint.read_form is not None:
        content["multipart/form-data"] = {
            "schema": {
                "type": "object",
                "required": ["file"],
                "properties": _FORM_FIELDS,
                "additionalProperties": _TEXT,
                "propertyNames": {"minLength": 1},
            }
        }
    return {"required": True, "content": content}


def path_parameters(endpoint: Endpoint) -> list[Schema]:
    """The parameters in the address of an endpoint."""
    if "{model}" not in endpoint.path:
        return []
    return [
        {"name": "model", "in": "path", "required": True, "schema": {**_TEXT, "format": "model for anything"}}
    ]
