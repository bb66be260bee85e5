"""A streamed answer on its way through: what of it is looked at, and what was handed on."""

import re
from typing import Final

import msgspec

from lingpai.wire import sse
from lingpai.wire.answer_texts import estimate_stream
from lingpai.wire.chunks import ContentShape, StreamReader
from lingpai.wire.token_estimate import BYTES_PER_TOKEN
from lingpai.wire.usage import Usage

MAX_KEPT_BYTES: Final = 16 * 1024 * 1024
_HAS_SAID_ALL: Final = re.compile(rb'"finish_reason"\s*:\s*"')


class _Shape(ContentShape):
    """Remembers the last events that were not like the others: the last of all says why the model has stopped."""

    __slots__ = ("last",)

    def __init__(self) -> None:
        super().__init__()
        self.last = b""

    def learn(self, run: bytes) -> None:
        self.last = run
        super().learn(run)


class Stream:
    """What a streamed answer needs beyond a unary one."""

    __slots__ = (
        "cutter", "ends_with_close", "events", "is_chunked", "kept", "kept_bytes", "model_field", "read_tokens",
        "reader", "sent_bytes", "shape",
    )  # fmt: skip

    def __init__(
        self,
        *,
        wants_usage: bool,
        is_chunked: bool,
        name: str | None,
        ends_with_close: bool,
        keeps_text: bool,
    ) -> None:
        self.cutter = sse.EventCutter()
        self.shape = _Shape()
        self.reader = StreamReader(keep_usage=wants_usage)
        self.is_chunked = is_chunked
        self.model_field = None if name is None else b'"model":' + msgspec.json.encode(name)
        """What the caller shall read, where the backend calls the model something else."""
        self.events = 0
        self.sent_bytes = 0
        """How many events were handed on unread, and how many bytes they had."""
        self.read_tokens = 0
        """How many tokens those had that were read."""
        self.kept: list[bytes] | None = [] if keeps_text else None
        """What was handed on, for a tokenizer to count."""
        self.kept_bytes = 0
        self.ends_with_close = ends_with_close
        """Whether only a close marks the end, which a broken connection does too."""

    @property
    def reported(self) -> Usage | None:
        """What the backend has reported until now."""
        return self.reader.usage

    @property
    def has_said_all(self) -> bool:
        """Whether the model has finished, so that only the usage is still to come."""
        return _HAS_SAID_ALL.search(self.shape.last) is not None

    def pass_on(self, run: bytes) -> None:
        """Count a plain run, which the caller gets as it is, and learn from it what such events have in common."""
        self.shape.learn(run)
        if self.shape.overhead:
            self.events += run.count(b"data:")
            self.sent_bytes += len(run)
        else:
            self.count_text(run)

    def read(self, run: bytes) -> bytes:
        """`run` as the caller shall get it, looked into event by event: what it says is counted."""
        self.shape.last = run
        run = self.reader.read(run)
        self.count_text(run)
        return run

    def count_text(self, run: bytes) -> None:
        """Count what a run of events says: at least a token for each, as most backends send them."""
        self.read_tokens += max(run.count(b"data:"), estimate_stream(run))

    def tokens_so_far(self) -> int:
        """How many tokens were handed on.

        Those of events that were not read are judged by what they carried beside what they all have in common. Most
        backends send an event per token. One that sends more text at a time is judged by its bytes.
        """
        text_bytes = max(self.sent_bytes - self.events * self.shape.overhead, 0)
        is_more = text_bytes > 2 * BYTES_PER_TOKEN * self.events
        return self.read_tokens + (text_bytes // BYTES_PER_TOKEN if is_more else self.events)

    def keep(self, run: bytes) -> None:
        """Keep what was handed on; of a stream that is too long nothing, and it is estimated."""
        kept = self.kept
        if kept is not None:
            kept.append(run)
            self.kept_bytes += len(run)
            if self.kept_bytes > MAX_KEPT_BYTES:
                self.kept = None

    def last(self, run: bytes) -> bytes:
        """The end of the answer's body, with `run` as its last events (RFC 9112, section 7.1)."""
        if not self.is_chunked:
            return run
        return (b"%x\r\n%b\r\n" % (len(run), run) if run else b"") + b"0\r\n\r\n"
