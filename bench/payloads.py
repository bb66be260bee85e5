"""What is sent and answered: the same bytes for nginx and for Lingpai."""

import json
from typing import Final

MODEL: Final = "demo/echo"
CALL_PATH: Final = "/v1/chat/completions"

CALL_BODY: Final = json.dumps(
    {
        "model": MODEL,
        "messages": [
            {"role": "system", "content": "You are a helpful assistant."},
            {"role": "user", "content": "Hello, please say something short and friendly to me."},
        ],
        "max_tokens": 64,
    },
    separators=(",", ":"),
)

STREAM_BODY: Final = json.dumps(
    {"model": MODEL, "stream": True, "messages": [{"role": "user", "content": "Hello"}]},
    separators=(",", ":"),
)

MODELS_ANSWER: Final = json.dumps(
    {"object": "list", "data": [{"id": MODEL, "object": "model", "created": 1, "owned_by": "bench"}]},
    separators=(",", ":"),
)

CALL_ANSWER: Final = json.dumps(
    {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1700000000,
        "model": MODEL,
        "choices": [
            {
                "index": 0,
                "message": {
                    "role": "assistant",
                    "content": "Hello! How can I help you today? This is a typical short reply of a chat model.",
                },
                "finish_reason": "stop",
            }
        ],
        "usage": {"prompt_tokens": 20, "completion_tokens": 22, "total_tokens": 42},
    },
    separators=(",", ":"),
)


def post(body: str, *, key: str, host: str = "127.0.0.1") -> bytes:
    """A whole HTTP/1.1 request for a model call."""
    content = body.encode()
    head = (
        f"POST {CALL_PATH} HTTP/1.1\r\nhost: {host}\r\nauthorization: Bearer {key}\r\n"
        f"content-type: application/json\r\ncontent-length: {len(content)}\r\n\r\n"
    )
    return head.encode() + content
