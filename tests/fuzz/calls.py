"""What a hostile caller sends: requests that are almost right, and then damaged byte by byte."""

import json
from dataclasses import dataclass
from typing import Any, Final

from hypothesis import strategies as st

TASKS: Final = (
    "chat", "completion", "embedding", "rerank", "text-to-image", "text-to-speech", "automatic-speech-recognition",
    "text-classification",
)  # fmt: skip
_GOOD: Final = (
    *[("/v1/chat/completions", "chat")] * 4, ("/v1/completions", "completion"), ("/v1/embeddings", "embedding"),
    ("/v1/rerank", "rerank"), ("/v1/images/generations", "text-to-image"), ("/v1/audio/speech", "text-to-speech"),
    ("/api/v1/generate", "chat"), ("/api/v1/generate", "completion"), *(("/predict", task) for task in TASKS[:6]),
    *((f"/api/v1/models/fuzz/{task}/inference", task) for task in TASKS),
)  # fmt: skip
"""Where models of a task can be called."""
_TARGETS: Final = (
    "/v1/chat/completions", "/v1/completions", "/v1/embeddings", "/predict", "/api/v1/generate",
    "/api/v1/models/fuzz/chat/inference", "/v1/rerank", "/v1/audio/transcriptions", "/v1/audio/speech",
    "/v1/images/generations", "/api/v1/limits/explain", "/api/v1/requests", "/v1/models", "/v1/key", "/healthz", "/openapi.json", "/api/v1/keys",
    "/v1/chat/completions/", "/v1/v1/chat/completions", "http://elsewhere/v1/chat/completions", "*", "/", "",
    "/v1/chat/completions?key=x", "/%2e%2e/v1/models", "/v1/chat/completions\x00",
)  # fmt: skip
_METHODS: Final = ("POST",) * 8 + ("GET", "PUT", "HEAD", "OPTIONS", "CONNECT", "TRACE", "PRI", "post", "")
_VERSIONS: Final = ("HTTP/1.1",) * 12 + ("HTTP/1.0", "HTTP/2.0", "HTTP/0.9", "HTTP/1.1 ", "ICY", "")
_HEADERS: Final = (
    "Expect: 100-continue", "Connection: close", "Connection: keep-alive", "Connection: upgrade, x", "Upgrade: h2c",
    "Upgrade: websocket", "HTTP2-Settings: AAMAAABkAAQCAAAAAAIAAAAA", "Content-Encoding: gzip", "TE: trailers",
    "Transfer-Encoding: chunked", "Transfer-Encoding: identity", "Content-Length: 0", "Content-Length: 5, 5",
    "Content-Length: -1", "Content-Length: 99999999999999999999", "Host: other", "Origin: https://example.org",
    "X-Api-Key: sk-lp-nobody", "Authorization: Basic YTpi", "X-Forwarded-For: 1.2.3.4", "Range: bytes=0-",
    "X-Request-Id: evil\x0bid", "Accept-Encoding: gzip", "X: " + "y" * 3000, " folded: line", "no colon at all",
    "Content-Type: text/plain", "Content-Type: multipart/form-data; boundary=x",
)  # fmt: skip
_SCALARS: Final = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=8), st.just("\ud800"),
    st.just([]), st.just({}), st.lists(st.integers(), max_size=3),
)  # fmt: skip
_FIELDS: Final = (
    "model", "messages", "prompt", "input", "stream", "stream_options", "max_tokens", "max_completion_tokens", "n",
    "temperature", "encoding_format", "parameters", "input_data", "tools", "response_format",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Connection:
    """What one caller does on one connection: `pieces` are sent in order, then it ends in the way of `ending`.

    `must_be_answered` says that the request is proper HTTP with a good key, so that silence would be a fault.
    """

    canary: str
    pieces: tuple[bytes, ...]
    ending: str
    must_be_answered: bool


@dataclass(frozen=True, slots=True)
class _Damage:
    """One change to a run of bytes; places are parts of its length."""

    kind: str
    at: float
    size: int
    data: bytes

    def apply(self, run: bytes) -> bytes:
        start = int(self.at * len(run))
        end = start + self.size
        if self.kind == "flip":
            return (
                run[:start]
                + bytes(byte ^ (self.size | 1) for byte in run[start : start + 1])
                + run[start + 1 :]
            )
        if self.kind == "insert":
            return run[:start] + self.data + run[start:]
        if self.kind == "delete":
            return run[:start] + run[end:]
        if self.kind == "repeat":
            return run[:end] + run[start:]
        return run[:start]  # cut


_INTERESTING: Final = (
    b"\r\n", b"\n", b"\r", b"\0", b"\r\n\r\n", b"0\r\n\r\n", b"data: ", b"\n\n", b"[DONE]", b"\xff\xfe", b'"', b"{", b"[" * 100,
    b"HTTP/1.1 200 OK\r\n\r\n", b"GET / HTTP/1.1\r\nhost: x\r\n\r\n", b": ", b" ", b"\x1b[31m", b"1e999", b"null",
)  # fmt: skip


@st.composite
def _damages(draw: st.DrawFn) -> _Damage:
    return _Damage(
        draw(st.sampled_from(("flip", "insert", "delete", "repeat", "cut"))),
        draw(st.floats(0, 1, width=16)),
        draw(st.integers(1, 40)),
        draw(st.one_of(st.sampled_from(_INTERESTING), st.binary(max_size=12))),
    )


def damaged(draw: st.DrawFn, run: bytes) -> bytes:
    """`run` with up to four places changed; unchanged in most draws."""
    for damage in draw(st.lists(_damages(), max_size=4)) if draw(st.integers(0, 2)) == 0 else ():
        run = damage.apply(run)
    return run


def _body(draw: st.DrawFn, canary: str, task: str) -> bytes:
    text = f"say {canary} " * draw(st.sampled_from((1, 1, 1, 40)))
    fields: dict[str, Any] = {
        "model": f"fuzz/{task}",
        "messages": [{"role": "user", "content": text}],
        "prompt": text,
        "input": text,
        "input_data": text,
        "query": text,
        "documents": [text],
        "voice": "a",
        "stream": draw(st.booleans()),
    }
    if draw(st.integers(0, 3)) == 0:
        fields |= draw(st.dictionaries(st.sampled_from(_FIELDS), _SCALARS, max_size=3))
    return json.dumps(fields).encode("utf-8", "surrogatepass")


def _form(draw: st.DrawFn, canary: str) -> bytes:
    part = '--edge\r\nContent-Disposition: form-data; name="{}"{}\r\n\r\n{}\r\n'
    names = draw(
        st.lists(st.sampled_from(("model", "file", "input", "prompt", "parameters", "")), max_size=4)
    )
    file = draw(st.sampled_from(("", '; filename="a.wav"', "; filename=../../etc/passwd")))
    return ("".join(part.format(name, file, canary) for name in names) + "--edge--\r\n").encode()


def _chunked(draw: st.DrawFn, body: bytes) -> bytes:
    size = draw(st.sampled_from((1 << 30, 7, 64)))
    extension = draw(st.sampled_from((b"", b"", b";a=b", b";" + b"x" * 500)))
    chunks = [body[start : start + size] for start in range(0, len(body), size)]
    trailer = draw(st.sampled_from((b"", b"", b"x-trailer: y\r\n", b"authorization: Bearer z\r\n")))
    return (
        b"".join(b"%x%b\r\n%b\r\n" % (len(chunk), extension, chunk) for chunk in chunks)
        + b"0\r\n"
        + trailer
        + b"\r\n"
    )


def request_bytes(draw: st.DrawFn, *, key: str, canary: str) -> tuple[bytes, bool]:
    """One request, and whether nothing is wrong with it."""
    is_good = draw(st.integers(0, 2)) > 0
    target, task = draw(st.sampled_from(_GOOD))
    body = _body(draw, canary, task)
    if is_good:
        method, version, more = "POST", "HTTP/1.1", []
    else:
        method, target, version = (draw(st.sampled_from(each)) for each in (_METHODS, _TARGETS, _VERSIONS))
        more = draw(st.lists(st.sampled_from(_HEADERS), max_size=4))
        if draw(st.integers(0, 3)) == 0:
            body = _form(draw, canary)
            more.append("Content-Type: multipart/form-data; boundary=edge")
    is_chunked = draw(st.integers(0, 4)) == 0
    framing = "Transfer-Encoding: chunked" if is_chunked else f"Content-Length: {len(body)}"
    lines = [f"{method} {target} {version}", "Host: fuzz", f"Authorization: Bearer {key}", framing, *more]
    head = "\r\n".join([*lines, "", ""]).encode("utf-8", "surrogatepass")
    whole = head + (_chunked(draw, body) if is_chunked else body)
    run = damaged(draw, whole) if not is_good else whole
    return run, is_good


@st.composite
def connections(draw: st.DrawFn, key: str, number: int) -> Connection:
    """A connection of the caller with `key`: one to three requests, cut into pieces, ended somehow."""
    canary = f"canary-{draw(st.integers(0, 2**40)):011x}-{number}-end"
    runs, are_good = zip(
        *(request_bytes(draw, key=key, canary=canary) for _ in range(draw(st.sampled_from((1, 1, 1, 2, 3))))),
        strict=True,
    )
    whole = b"".join(runs)
    places = sorted(int(part * len(whole)) for part in draw(st.lists(st.floats(0, 1, width=16), max_size=4)))
    pieces = tuple(whole[start:end] for start, end in zip([0, *places], [*places, len(whole)], strict=True))
    ending = draw(st.sampled_from(("read", "read", "read", "half-close", "leave", "reset", "leave-early")))
    return Connection(canary, pieces, ending, must_be_answered=are_good[0] and ending == "read")
