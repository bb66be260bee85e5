"""One caller on one connection: sends a call, waits for the whole answer, tells how long that took."""

import socket
import ssl
import time
from types import TracebackType

from bench.payloads import CALL_BODY, post
from bench.processes import BenchError


class Caller:
    """A keep-alive connection to `port`, with `tls` over TLS. `answered` counts the calls that were answered with 200."""

    def __init__(self, port: int, *, key: str, tls: ssl.SSLContext | None = None) -> None:
        self.answered = 0
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=10)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if tls is not None:
            self._socket = tls.wrap_socket(self._socket, server_hostname="127.0.0.1")
        self.use_key(key)

    def use_key(self, key: str) -> None:
        """Send this key from now on."""
        self._request = post(CALL_BODY, key=key)

    def call(self) -> int:
        """One call; the nanoseconds from sending to the answer's last byte. Raises BenchError unless it is a 200."""
        started = time.perf_counter_ns()
        self._socket.sendall(self._request)
        answer = self._socket.recv(65536)
        while not _is_complete(answer):
            more = self._socket.recv(65536)
            if not more:
                raise BenchError(f"the connection broke off after {answer[:300]!r}")
            answer += more
        elapsed = time.perf_counter_ns() - started
        if not answer.startswith(b"HTTP/1.1 200 "):
            raise BenchError(f"a call was answered with {answer[:300]!r}")
        self.answered += 1
        return elapsed

    def calls(self, count: int) -> list[int]:
        """`count` calls one after the other; the nanoseconds of each."""
        return [self.call() for _ in range(count)]

    def close(self) -> None:
        self._socket.close()

    def __enter__(self) -> "Caller":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _is_complete(answer: bytes) -> bool:
    """Whether `answer` is a head and as many bytes of body as it announces. Everybody here sends a length."""
    head, separator, body = answer.partition(b"\r\n\r\n")
    if not separator:
        return False
    _, found, rest = head.lower().partition(b"\r\ncontent-length:")
    return bool(found) and len(body) >= int(rest.partition(b"\r\n")[0])
