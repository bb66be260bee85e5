"""Requests as somebody has written them down: raw, as an editor saves them, and as curl shows them."""

import pytest

from lingpai.wire.request_text import RequestTextError, read_request

RAW = (
    b"POST /v1/embeddings?x=1 HTTP/1.1\r\nHost: models.example\r\nContent-Type:  application/json \r\n"
    b"Content-Length: 2\r\nX-Twice: a\r\nx-twice: b\r\n\r\n{}"
)
CURL = b"""* Host models.example:443 was resolved.
*   Trying 203.0.113.7:443...
* SSL connection using TLSv1.3 / TLS_AES_256_GCM_SHA384
> POST /old HTTP/1.1
> Host: models.example
>
< HTTP/1.1 302 Found
<
> POST /v1/embeddings?x=1 HTTP/1.1
> Host: models.example
> Content-Type: application/json
> Content-Length: 2
>
} [2 bytes data]
< HTTP/1.1 401 Unauthorized
"""


@pytest.mark.parametrize("text", [RAW, RAW.replace(b"\r\n", b"\n"), RAW + b"\n"])
def test_a_raw_request_whatever_its_line_ends(text):
    written = read_request(text)

    message = written.message
    assert (message.method, message.target, message.authority) == (
        "POST",
        "/v1/embeddings?x=1",
        "models.example",
    )
    assert message.value("content-type") == "application/json"
    assert message.value("x-twice") == "a, b"
    assert written.body == b"{}"
    assert b"{}" not in written.head


def test_what_curl_shows_has_no_body_and_only_the_last_request_counts():
    written = read_request(CURL)

    assert (written.message.target, written.message.scheme) == ("/v1/embeddings?x=1", "https")
    assert written.message.value("content-length") == "2"
    assert written.body is None


def test_curl_without_tls():
    assert read_request(b"> GET / HTTP/1.1\n> Host: x\n").message.scheme == "http"


def test_a_chunked_body_is_not_taken_for_what_it_carries():
    assert (
        read_request(b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n").body
        is None
    )


def test_a_body_that_was_saved_in_part_stays_as_it_is():
    assert read_request(RAW[:-1]).body == b"{"


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"\r\n\r\n",
        b"hello",
        b"\xff\xfe",
        b"GET / HTTP/1.1\r\nno header\r\n\r\n",
        b"> x\n",
        b"GET / HTTP/1.1\n" + b"a: b\n" * 101,
        b"POST / HTTP/1.1\ncontent-length: " + b"9" * 5000 + b"\n\n",
    ],
)
def test_what_is_no_request_is_refused(text):
    with pytest.raises(RequestTextError):
        read_request(text)
