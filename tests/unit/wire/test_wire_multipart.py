"""Forms: read as their senders mean them, refused where two readers could differ."""

import contextlib

import httpx2
import pytest
import requests
from hypothesis import given
from hypothesis import strategies as st

from lingpai.errors import LingpaiError
from lingpai.wire.multipart import MAX_PARTS, Form, Part, is_form, read_form, write_form

TYPE = b"multipart/form-data; boundary=XX"


def form(*parts, end=b"--XX--\r\n", start=b""):
    return start + b"".join(b"--XX\r\n" + part + b"\r\n" for part in parts) + end


def field(name="a", value=b"1", more=b""):
    return b'Content-Disposition: form-data; name="%b"%b\r\n\r\n%b' % (name.encode(), more, value)


def refusal(body, content_type=TYPE):
    with pytest.raises(LingpaiError) as caught:
        read_form(body, content_type)
    assert caught.value.status == 400
    return caught.value.message


FILES = {
    "file": ('my "first" 声.wav', b"RIFF\r\n--X\x00\xff", "audio/wav"),
    "empty": ("e", b"", "text/plain"),
}
FIELDS = {"model": "acme/模型", "language": ""}


def by_httpx2():
    request = httpx2.Request("POST", "http://x/", files=FILES, data=FIELDS)
    return request.read(), request.headers["content-type"]


def by_requests():
    request = requests.Request("POST", "http://x/", files=FILES, data=FIELDS).prepare()
    return request.body, request.headers["content-type"]


@pytest.mark.parametrize("send", [by_httpx2, by_requests])
def test_what_clients_send_is_read(send):
    body, content_type = send()

    read = read_form(body, content_type.encode())

    assert (read.text("model"), read.text("language")) == ("acme/模型", "")
    assert read.part("file") == Part("file", FILES["file"][1], 'my "first" 声.wav', "audio/wav")
    assert read.part("empty").data == b""


def test_curls_quoting_is_read():
    more = b'; filename="a\\"b\\\\c.wav"\r\nContent-Type: audio/wav'

    assert read_form(form(field(more=more)), TYPE).part("a").filename == "c.wav"


@pytest.mark.parametrize(
    ("written", "label"),
    [
        (b"../../etc/passwd", "passwd"),
        (b"C:\\\\temp\\\\a.wav", "a.wav"),
        (b"/a/b/", ""),
        (b"a\tb", "ab"),
        (b"..", ".."),
    ],
)
def test_a_file_name_is_a_label_without_directories(written, label):
    more = b'; filename="%b"' % written

    assert read_form(form(field(more=more)), TYPE).part("a").filename == label


def test_a_name_in_brackets_may_come_twice():
    read = read_form(form(field("t[]"), field("t[]", b"2")), TYPE)

    assert [part.data for part in read.parts] == [b"1", b"2"]


@pytest.mark.parametrize(
    "content_type",
    [b"multipart/form-data", b"multipart/form-data; boundary=", b"multipart/form-data; boundary=" + b"a" * 71,
     b'multipart/form-data; boundary="a\x00b"', b"multipart/form-data; xboundary=XX"],
)  # fmt: skip
def test_a_content_type_without_a_proper_boundary_is_refused(content_type):
    assert "boundary" in refusal(form(field()), content_type)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"no form at all",
        form(field(), start=b"preamble\r\n"),
        form(field(), end=b""),
        form(field(), end=b"--XX\r\n"),
        form(field(), end=b"--XX--\r\nepilogue"),
        form(b"no head"),
        form(b"\r\nno head"),
        form(b'Content-Disposition: form-data; name=""\r\n\r\n1'),
        form(b"Content-Disposition: form-data\r\n\r\n1"),
        form(b'Content-Disposition: attachment; name="a"\r\n\r\n1'),
        form(b'Content-Type: text/plain\r\nX-Name: "a"\r\n\r\n1'),
        form(field(more=b'; name="b"')),
        form(field(more=b'; filename="a"; filename="b"')),
        form(field(more=b"; filename")),
        form(field(more=b"\r\n folded: yes")),
        form(field(more=b"\r\nContent-Disposition: form-data; name=b")),
        form(field(more=b"\r\nContent-Transfer-Encoding: base64")),
        form(field(more=b"\r\nX-Long: " + b"a" * 5000)),
        form(field("\udcff".encode("utf-8", "surrogatepass").decode("latin-1"), b"\xff")),
        form(field(value=b"\xff\xfe")),
        form(field(), field(value=b"2")),
        form(field("model"), field("MODEL")),
        form(*(field(f"f{number}") for number in range(MAX_PARTS + 1))),
    ],
)
def test_forms_of_doubtful_meaning_are_refused(body):
    assert refusal(body)


def test_only_forms_with_files_count_as_forms():
    assert is_form(b"Multipart/Form-Data; boundary=x")
    assert not is_form(b"application/x-www-form-urlencoded")
    assert not is_form(None)


def test_a_file_where_text_is_wanted_is_refused():
    read = read_form(form(field("model", more=b'; filename="a"')), TYPE)

    with pytest.raises(LingpaiError, match="must be a text field"):
        read.text("model")


NAMES = st.text(
    st.characters(exclude_categories=["Cc", "Cs"], exclude_characters='"\\%/'), min_size=1, max_size=20
)
PARTS = st.lists(
    st.builds(
        Part, name=NAMES, data=st.binary(max_size=200), filename=NAMES, media_type=st.just("audio/wav")
    ),
    min_size=1,
    max_size=5,
    unique_by=lambda part: part.name.casefold(),
)


@given(PARTS)
def test_what_is_written_is_read_back(parts):
    content_type, body = write_form(parts)

    assert read_form(body, content_type) == Form(tuple(parts))


@given(st.binary(max_size=400), st.binary(max_size=60))
def test_any_bytes_are_a_form_or_a_refusal(middle, head):
    for body in (
        middle,
        form(middle),
        form(field(more=head, value=middle)),
        form(head + b"\r\n\r\n" + middle),
    ):
        with contextlib.suppress(LingpaiError):
            read_form(body, TYPE)
