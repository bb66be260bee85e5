"""A streamed answer on its way through: what of it is looked at, and what was handed on."""

import re
from typing import Final

import msgspec

from lingpai.wire import sse
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
        "cutter", "ends_with_close", "events", "is_chunked", "kept", "kept_bytes", "model_field", "reader", "sent_bytes",
        "shape",
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
        """How many events were handed on, and how many bytes they had."""
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

    def tokens_so_far(self) -> int:
        """How many tokens were handed on, judged by what the events carried beside what they all have in common.

        Most backends send an event per token. One that sends more text at a time is judged by its bytes.
        """
        text_bytes = max(self.sent_bytes - self.events * self.shape.overhead, 0) if self.shape.overhead else 0
        return max(
            self.events,
            text_bytes // BYTES_PER_TOKEN if text_bytes > 2 * BYTES_PER_TOKEN * self.events else 0,
        )

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
