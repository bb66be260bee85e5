"""HTTP on a bare socket: any bytes out, and what comes back taken apart without mercy."""

import json
import socket
import ssl
import time
from dataclasses import dataclass
from typing import Any

from tests.secrets_scan import ERROR_ANSWERS, SCAN

PROMPT = "Hello, prompt-canary-6c1d5e"
"""What `chat` says. The scan after the tests fails the session when it finds this anywhere."""


@dataclass(frozen=True)
class RawAnswer:
    """One answer. `headers` has lower-case names; repeated ones are joined by a comma."""

    status: int
    headers: dict[str, str]
    body: bytes
    is_complete: bool = True

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def error(self) -> dict[str, Any]:
        return dict(self.json["error"])

    @property
    def events(self) -> list[str]:
        """The data of each event of a stream."""
        text = self.body.decode().replace("\r\n", "\n")
        return [event.removeprefix("data: ") for event in text.split("\n\n") if event.startswith("data:")]

    @property
    def chunks(self) -> list[Any]:
        return [json.loads(event) for event in self.events if event != "[DONE]"]


class RawConnection:
    """One connection; use it in a `with` block."""

    def __init__(
        self,
        port: int,
        *,
        timeout: float = 10,
        receive_buffer: int | None = None,
        tls: ssl.SSLContext | None = None,
        address: str | None = None,
    ) -> None:
        """`address` is where it comes from: one of this machine's, such as `127.0.0.2`."""
        self._socket = socket.socket()
        if address is not None:
            self._socket.bind((address, 0))
        if receive_buffer is not None:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self._socket.settimeout(timeout)
        try:
            self._socket.connect(("127.0.0.1", port))
            if tls is not None:
                self._socket = tls.wrap_socket(self._socket, server_hostname="localhost")
        except OSError:
            self._socket.close()
            raise
        self._rest = b""

    def __enter__(self) -> "RawConnection":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._socket.close()

    def send(self, data: bytes) -> None:
        self._socket.sendall(data)

    def receive(self, size: int = 65536) -> bytes:
        """Some bytes; none when the other side has closed or reset."""
        try:
            return self._socket.recv(size)
        except ConnectionResetError:
            return b""

    @property
    def certificate(self) -> bytes | None:
        """What the server has shown, in DER; None without TLS."""
        return self._socket.getpeercert(binary_form=True) if isinstance(self._socket, ssl.SSLSocket) else None

    def reset(self) -> None:
        """Close with a reset, as a crashed program's kernel does."""
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\x00\x00\x00\x00\x00\x00\x00")
        self._socket.close()

    def is_closed_within(self, seconds: float) -> bool:
        """Whether the server closes the connection before `seconds` are over; whatever it sends is dropped."""
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            self._socket.settimeout(left)
            try:
                if not self._socket.recv(65536):
                    return True
            except TimeoutError:
                return False
            except OSError:
                return True
        return False

    def read_until(self, mark: bytes) -> bytes:
        """Bytes up to and including `mark`. Fails the test when they do not come."""
        while mark not in self._rest:
            data = self.receive()
            assert data, f"closed before {mark!r}: {self._rest[-500:]!r}"
            self._rest += data
        found, mark, self._rest = self._rest.partition(mark)
        return found + mark

    def read_head(self) -> tuple[int, dict[str, str]]:
        """Status and headers of the final answer; interim ones are skipped."""
        while True:
            line, *lines = self.read_until(b"\r\n\r\n")[:-4].decode("latin-1").split("\r\n")
            status = int(line.split(" ")[1])
            headers: dict[str, str] = {}
            for each in lines:
                name, _, value = each.partition(":")
                name = name.lower()
                headers[name] = f"{headers[name]}, {value.strip()}" if name in headers else value.strip()
            if status >= 200:
                return status, headers

    def read_answer(self) -> RawAnswer:
        """One whole answer."""
        status, headers = self.read_head()
        if "chunked" in headers.get("transfer-encoding", ""):
            body, is_complete = self._read_chunked()
        elif "content-length" in headers:
            body, is_complete = self._read_exactly(int(headers["content-length"]))
        else:
            body, is_complete = self.read_rest(), True
        note_error(status, headers, body)
        return RawAnswer(status, headers, body, is_complete)

    def read_chunk(self) -> bytes:
        """One chunk of a chunked body; empty at its end."""
        size = int(self.read_until(b"\r\n"), 16)
        data, is_complete = self._read_exactly(size)
        assert is_complete
        assert self.read_until(b"\r\n") == b"\r\n"
        return data

    def _read_exactly(self, size: int) -> tuple[bytes, bool]:
        while len(self._rest) < size:
            data = self.receive()
            if not data:
                return self._rest, False
            self._rest += data
        body, self._rest = self._rest[:size], self._rest[size:]
        return body, True

    def _read_chunked(self) -> tuple[bytes, bool]:
        body = b""
        try:
            while data := self.read_chunk():
                body += data
        except AssertionError:
            return body, False
        return body, True

    def read_rest(self) -> bytes:
        """Everything until the other side closes."""
        while data := self.receive():
            self._rest += data
        body, self._rest = self._rest, b""
        return body


def note_error(status: int, headers: dict[str, str], body: bytes) -> None:
    """Have the scan for secrets look through an answer that is an error, or a stream that ended with one."""
    if status >= 400 or b'data: {"error"' in body:
        SCAN.note(f"{ERROR_ANSWERS}{status}", body)
        SCAN.note(f"headers of an answer {status}", str(headers))


def post_bytes(
    path: str, body: bytes | dict[str, Any], *, key: str | None = None, headers: tuple[str, ...] = (),
    version: str = "1.1", content_type: str | None = "application/json",
) -> bytes:  # fmt: skip
    """A whole POST request."""
    data = json.dumps(body).encode() if isinstance(body, dict) else body
    SCAN.secrets.add_prompts(data)
    lines = [f"POST {path} HTTP/{version}", "host: 127.0.0.1", f"content-length: {len(data)}"]
    if content_type is not None:
        lines.append(f"content-type: {content_type}")
    if key is not None:
        lines.append(f"authorization: Bearer {key}")
    return "\r\n".join([*lines, *headers, "", ""]).encode("latin-1") + data


def exchange(
    port: int,
    request: bytes,
    *,
    timeout: float = 10,
    tls: ssl.SSLContext | None = None,
    address: str | None = None,
) -> RawAnswer:
    """Send `request` on a connection of its own and read one answer."""
    with RawConnection(port, timeout=timeout, tls=tls, address=address) as connection:
        connection.send(request)
        return connection.read_answer()


def post(port: int, path: str, body: bytes | dict[str, Any], **options: Any) -> RawAnswer:
    return exchange(port, post_bytes(path, body, **options))


def get_bytes(
    path: str, *, key: str | None = None, headers: tuple[str, ...] = (), method: str = "GET"
) -> bytes:
    lines = [f"{method} {path} HTTP/1.1", "host: 127.0.0.1", *headers]
    if key is not None:
        lines.append(f"authorization: Bearer {key}")
    return "\r\n".join([*lines, "", ""]).encode("latin-1")


def get(port: int, path: str, **options: Any) -> RawAnswer:
    return exchange(port, get_bytes(path, **options))


def chat(text: str = PROMPT, *, model: str = "fake/chat", **fields: Any) -> dict[str, Any]:
    """The body of a chat call."""
    return {"model": model, "messages": [{"role": "user", "content": text}], **fields}
