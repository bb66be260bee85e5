"""A backend that answers with anything: good answers, damaged ones, too much, too little, nothing."""

import asyncio
import json
import re
from typing import Final

from hypothesis import strategies as st

from tests.fuzz.calls import damaged

CANARY: Final = re.compile(rb"canary-[0-9a-f]{11}-\d+-end")
PLACE: Final = b"CANARY"
_STATUSES: Final = ("200 OK",) * 10 + ("201 Created", "204 No Content", "304 Not Modified", "400 Bad", "401 No", "404 Gone", "429 Slow",
    "500 Oops", "503 Away", "101 Switching", "100 Continue", "99 Odd", "1000 Odd", "abc")  # fmt: skip
_USAGES: Final = (
    {"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7}, None, {}, {"prompt_tokens": -5, "completion_tokens": 10**30},
    {"prompt_tokens": "3"}, [], {"prompt_tokens": 3.5, "prompt_tokens_details": None}, {"prompt_tokens_details": {"cached_tokens": -1}},
)  # fmt: skip
_EXTRA: Final = (
    b"", b"", b"", b"transfer-encoding: chunked\r\n", b"content-length: 3\r\n", b"connection: close\r\n", b"retry-after: soon\r\n",
    b"content-encoding: gzip\r\n", b"set-cookie: a=b\r\n", b"x: " + b"y" * 5000 + b"\r\n", b"trailer: x\r\n", b"upgrade: h2c\r\n",
)  # fmt: skip


MODEL: Final = "fuzz/model"
_ODD: Final = (
    None, 5, "CANARY", [], {}, ["CANARY"], {"a": "CANARY"}, [None], [[]], [{"b64_json": "CANARY"}], [{"url": 5}],
    [{"embedding": "CANARY", "index": None}], [{"index": 0, "relevance_score": "x"}], [{"message": {"content": [[]]}}],
    [{"text": {"a": 1}}], [{"label": "CANARY", "score": 2}],
)  # fmt: skip
_DEEP: Final = "[" * 990 + "]" * 990


def _odd(draw: st.DrawFn) -> str:
    """An answer with the right names and something else behind them."""
    names = draw(
        st.lists(
            st.sampled_from(("choices", "data", "results", "text", "output", "usage")), min_size=1, max_size=3
        )
    )
    return json.dumps({name: draw(st.sampled_from(_ODD)) for name in names})


def _unary(draw: st.DrawFn) -> bytes:
    message = {"role": "assistant", "content": "you said CANARY"}
    choices = draw(st.sampled_from(([{"index": 0, "message": message, "finish_reason": "stop"}], [], None)))
    fields = {
        "id": "x",
        "object": "chat.completion",
        "model": MODEL,
        "choices": choices,
        "usage": draw(st.sampled_from(_USAGES)),
    }
    vectors = {
        "object": "list",
        "model": MODEL,
        "data": [{"index": 0, "embedding": [0.5, 1.0]}],
        "note": "CANARY",
    }
    images = {"created": 1, "data": [{"b64_json": "iVBORw0KGgo=", "note": "CANARY"}]}
    ranks = {"model": MODEL, "results": [{"index": 0, "relevance_score": 0.5}], "note": "CANARY"}
    deep = f'{{"choices": [{{"message": {{"content": {_DEEP}}}}}]}}'
    good = [json.dumps(each) for each in (fields, fields, vectors, images, ranks)]
    return draw(
        st.sampled_from((*good, _odd(draw), '"CANARY"', "[]", "", "<html>CANARY", "RIFF\0\0WAVECANARY", deep))
    ).encode()


def _events(draw: st.DrawFn) -> list[bytes]:
    piece = {"id": "x", "model": MODEL, "choices": [{"index": 0, "delta": {"content": "CANARY"}}]}
    odd = (
        {"choices": None}, {"choices": [{"delta": None}]}, {"error": {"message": "CANARY"}}, {"choices": [], "usage": {"prompt_tokens": 1}},
        {"choices": [{"index": 0, "delta": {"tool_calls": [{"function": {"arguments": "CANARY"}}]}}]}, [1], "x",
        {"choices": [{"delta": {"tool_calls": "CANARY"}}]}, {"choices": [{"delta": {"tool_calls": [None, 5]}}]},
        {"choices": [{"delta": {"content": [["CANARY"]]}}]}, {"choices": {"0": 1}}, {"usage": "CANARY", "choices": [5]},
    )  # fmt: skip
    chosen = draw(st.lists(st.sampled_from((piece, piece, piece, *odd)), max_size=6))
    end = draw(st.sampled_from((b"\n\n", b"\n\n", b"\r\n\r\n", b"\n")))
    events = [b"data: " + json.dumps(each).encode() + end for each in chosen]
    return [
        *events,
        *([b": comment\n\n"] if draw(st.booleans()) else []),
        *([b"data: [DONE]\n\n"] if draw(st.booleans()) else []),
    ]


def _good(path: bytes, request: bytes) -> bytes:
    """What a good engine answers, with `PLACE` where the caller's canary goes."""
    place = PLACE.decode()
    kind, events = b"application/json", []
    chunk = {"id": "x", "model": MODEL, "choices": [{"index": 0, "delta": {"content": f"{place} "}}]}
    body: dict[str, object] = {"model": MODEL, "note": place, "usage": _USAGES[0]}
    if path.endswith(b"/chat/completions"):
        body["choices"] = [
            {"index": 0, "message": {"role": "assistant", "content": place}, "finish_reason": "stop"}
        ]
        events = [chunk, chunk, chunk]
    elif path.endswith(b"/completions"):
        body["choices"] = [{"index": 0, "text": place, "finish_reason": "stop"}]
        events = [{"id": "x", "model": MODEL, "choices": [{"index": 0, "text": place}]}]
    elif path.endswith(b"/embeddings"):
        body["data"] = [{"index": 0, "embedding": [0.5, 1.0]}]
    elif path.endswith(b"/rerank"):
        body["results"] = [{"index": 0, "relevance_score": 0.5}]
    elif path.endswith(b"/images/generations"):
        body["data"] = [{"b64_json": "iVBORw0KGgo="}]
    else:
        body["text"] = place
    data = json.dumps(body).encode()
    if events and b'"stream":true' in request.replace(b" ", b""):
        kind = b"text/event-stream"
        usage = {"choices": [], "usage": _USAGES[0]}
        data = (
            b"".join(b"data: %b\n\n" % json.dumps(each).encode() for each in (*events, usage))
            + b"data: [DONE]\n\n"
        )
    length = len(data) + _growth(data)
    return b"HTTP/1.1 200 OK\r\ncontent-type: %b\r\ncontent-length: %d\r\n\r\n%b" % (kind, length, data)


@st.composite
def answers(draw: st.DrawFn) -> tuple[bytes, str]:
    """The bytes of an answer, with `PLACE` where the caller's canary goes, and what happens after them.

    After "good", the bytes are not used: the answer is what a good engine says to the request.
    """
    if draw(st.integers(0, 4)) < 3:
        return b"", "good"
    status = draw(st.sampled_from(_STATUSES))
    is_stream, is_chunked = draw(st.booleans()), draw(st.booleans())
    pieces = _events(draw) if is_stream else [_unary(draw)]
    kinds = (b"application/json",) * 4 + (b"text/html", b"", b"audio/mpeg", b"image/png")
    kind = b"text/event-stream" if is_stream else draw(st.sampled_from(kinds))
    if is_chunked:
        body = (
            b"".join(b"%x\r\n%b\r\n" % (len(piece) + _growth(piece), piece) for piece in pieces if piece)
            + b"0\r\n\r\n"
        )
        framing = b"transfer-encoding: chunked\r\n"
    else:
        body = b"".join(pieces)
        lie = draw(st.sampled_from((0,) * 8 + (1, -1, 40)))
        framing = b"content-length: %d\r\n" % max(0, len(body) + _growth(body) + lie)
        framing = draw(st.sampled_from((framing, framing, framing, b"")))
    interim = draw(
        st.sampled_from((b"",) * 6 + (b"HTTP/1.1 103 Early\r\n\r\n", b"HTTP/1.1 100 Continue\r\n\r\n" * 3))
    )
    head = b"HTTP/1.1 %b\r\ncontent-type: %b\r\n%b%b\r\n" % (
        status.encode(),
        kind,
        framing,
        draw(st.sampled_from(_EXTRA)),
    )
    after = draw(
        st.sampled_from(
            (b"",) * 6 + (b"HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\nCANARY", b"\r\n", b"junk")
        )
    )
    ending = draw(st.sampled_from(("keep",) * 24 + ("close",) * 4 + ("reset", "reset", "hang")))
    return damaged(draw, interim + head + body + after), ending


def _growth(piece: bytes) -> int:
    """How much longer the piece is with a canary in each place."""
    return piece.count(PLACE) * (CANARY_BYTES - len(PLACE))


CANARY_BYTES: Final = len("canary-00000000000-0-end")


class Upstream:
    """Answers each request with the recipe at hand, and names in it whoever asked."""

    def __init__(self) -> None:
        self.recipes: list[tuple[bytes, str]] = []
        self.port = 0
        self._next = self.answered = 0
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        assert self._server is not None
        self._server.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            while await self._answer_one(reader, writer):
                pass
        except (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, asyncio.CancelledError):
            pass  # the gateway left, or the test is over
        finally:
            self._tasks.discard(task)
            writer.transport.abort()

    async def _answer_one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        head = await reader.readuntil(b"\r\n\r\n")
        if head.startswith(b"GET "):
            task = head.split(b"/")[1].decode()
            listed = {"object": "list", "data": [{"id": f"fuzz/{task}", "object": "model"}]}
            body = json.dumps(listed).encode()
            writer.write(
                b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b"
                % (len(body), body)
            )
            return True
        length = re.search(rb"content-length: (\d+)", head)
        assert length is not None, "the gateway frames every request with a length"
        request = await reader.readexactly(int(length[1]))
        data, ending = self._recipe()
        self.answered += 1
        if ending == "good":
            data = _good(head.split(b" ")[1], request)
        found = CANARY.search(request)
        writer.write(data.replace(PLACE, found[0] if found else b"nobody's"))
        if ending == "hang":
            await reader.read()  # until the gateway gives up
        elif ending == "reset":
            writer.transport.abort()
        return ending in ("keep", "good")

    def _recipe(self) -> tuple[bytes, str]:
        if not self.recipes:
            return b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}", "keep"
        self._next = (self._next + 1) % len(self.recipes)
        return self.recipes[self._next]
