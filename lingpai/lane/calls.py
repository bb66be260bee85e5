"""What the front asks of those who answer model calls: which requests these are, and one call to be told of each."""

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from lingpai.lane.front import Front

Headers = list[tuple[bytes, bytes]]
"""In the order they came, names in lower case."""


class Call(Protocol):
    """One model call, told what happens on the caller's side.

    What it raises while a request is read is told to `break_off`; the rest may not raise.
    """

    def body_part(self, data: bytes) -> None:
        """A piece of the request body."""

    def body_complete(self) -> None:
        """The request is complete."""

    def caller_left(self) -> None:
        """The connection is gone; nothing can be answered any more."""

    def pause(self) -> None:
        """The caller reads slower than we write: stop the source."""

    def resume(self) -> None:
        """The caller has caught up."""

    def break_off(self, error: BaseException | None) -> None:
        """A fault of ours: log it, answer whoever waits, and finish. May not raise."""

    def stop(self) -> None:
        """The server ends and cannot wait any longer: say so to the caller and finish."""


class Calls(Protocol):
    """Decides which requests are model calls."""

    def claims(self, url: bytes) -> bool:
        """Whether a POST to `url` is a model call."""

    def open(self, front: "Front", url: bytes, headers: Headers, fields: dict[bytes, bytes]) -> Call | None:
        """The call that this POST begins, or None when the request is for the ASGI application.

        `fields` holds the same headers by lower-case name; of a repeated one, the last.
        """

    def malformed(self, status: int, message: str) -> bytes:
        """A whole HTTP response, to be followed by a close, for a request that is not proper HTTP."""
