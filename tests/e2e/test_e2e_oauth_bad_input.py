"""Whatever is sent to the OAuth endpoints, the answer is a refusal in their own form, and never a 5xx."""

import socket
from urllib.parse import quote

import pytest

from tests.e2e.oauth_server import ALIAS, FORM, INTROSPECT, REVOKE, TOKEN, Client, OAuthServer, is_oauth_error
from tests.e2e.raw_http import RawConnection, exchange, get_bytes, post_bytes

PATHS = [TOKEN, ALIAS, REVOKE, INTROSPECT]
MANY = b"&".join(b"a%d=1" % number for number in range(10_000))
BODIES = {
    "empty": b"",
    "no form at all": b"\x00\xff\xfe{]",
    "JSON": b'{"grant_type": "client_credentials"}',
    "broken UTF-8": b"grant_type=%ff%fe&token=%c3%28",
    "raw UTF-8": "grant_type=密码".encode(),
    "overlong UTF-8": b"grant_type=%c0%af",
    "a surrogate": b"grant_type=%ed%a0%80",
    "10,000 fields": MANY,
    "10,000 times the same": b"token=a&" * 10_000,
    "only separators": b"&" * 60_000,
    "only equals signs": b"=" * 60_000,
    "broken escapes": b"grant_type=%&token=%zz%1",
    "NUL": b"grant_type=password&username=a%00b&password=%00&token=%00&refresh_token=%00",
    "line breaks": b"grant_type=a%0d%0aSet-Cookie:x&scope=a%0d%0ab&token=%0a",
    "SQL": b"grant_type=password&username=%27%20OR%201%3D1--&password=%27&token=%27%20OR%201%3D1--",
    "a long name": b"n" * 60_000 + b"=1",
    "a long value": b"grant_type=client_credentials&scope=" + b"s" * 60_000,
    "a long token": b"token=at-lp-" + b"a" * 60_000,
    "too large": b"token=" + b"a" * 70_000,
    "an id without end": b"client_id=cl-lp-"
    + b"a" * 5000
    + b"&client_secret=x&grant_type=client_credentials",
    "an id in another script": b"client_id=cl-lp-%E4%BB%A4%E7%89%8C&client_secret=%E7%A7%98",
    "array brackets": b"grant_type[]=password&grant_type[0]=x&token[]=a",
}
TYPES = {
    "none": None,
    "JSON": "application/json",
    "multipart": "multipart/form-data; boundary=x",
    "multipart without boundary": "multipart/form-data",
    "text": "text/plain",
    "garbage": "/;;;=,",
    "two": f"{FORM}, application/json",
    "nearly": FORM + "2",
}
HEADERS = {
    "no base64": "authorization: Basic \u00ff\u00fe",
    "a huge one": "authorization: Basic " + "QUFB" * 5000,
    "NUL inside": "authorization: Basic AGE6AGI=",
    "no colon": "authorization: Basic YWJj",
    "Bearer": "authorization: Bearer x",
    "empty": "authorization:",
    "only the scheme": "authorization: Basic",
    "another key": "x-api-key: sk-lp-x",
}


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES)
def test_body_is_refused(oauth: OAuthServer, path: str, body: bytes):
    """Huge, broken or hostile bodies are answered with an error of section 5.2; revoking garbage is a success."""
    answer = oauth.form(path, body)

    if path == REVOKE and answer.status == 200:
        assert answer.body == b""
    else:
        assert answer.status in (400, 401), answer.body
        assert is_oauth_error(answer, answer.status, answer.json["error"])


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("kind", TYPES.values(), ids=TYPES)
def test_media_type_is_refused(oauth: OAuthServer, path: str, kind: str | None):
    """Only HTML forms are read, whatever the body has."""
    answer = oauth.form(path, b"grant_type=client_credentials&token=x", content_type=kind)

    assert is_oauth_error(answer, 400, "invalid_request")


@pytest.mark.parametrize("path", PATHS)
def test_multipart_is_refused(oauth: OAuthServer, path: str):
    """A well-formed multipart body is none either."""
    body = b'--x\r\nContent-Disposition: form-data; name="token"; filename="a"\r\n\r\nat-lp-x\r\n--x--\r\n'

    answer = oauth.form(path, body, content_type="multipart/form-data; boundary=x")

    assert is_oauth_error(answer, 400, "invalid_request")


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("header", HEADERS.values(), ids=HEADERS)
def test_header_is_refused(oauth: OAuthServer, path: str, header: str):
    """Broken credentials in headers are answered as what they are; those of other endpoints do not count."""
    answer = oauth.form(path, b"grant_type=client_credentials", headers=(header,))

    assert answer.status in (400, 401), answer.body
    assert is_oauth_error(answer, answer.status, answer.json["error"])


@pytest.mark.parametrize(
    "query", ["?token=x", "?%74oken=x", "?a=1&client_secret=x", "?client_secret", "?a=1;token=x&grant_type=y"]
)
def test_address_with_parameters_is_refused(oauth: OAuthServer, query: str):
    """However they are written."""
    assert is_oauth_error(oauth.form(TOKEN + query, b"grant_type=client_credentials"), 400, "invalid_request")


def test_address_may_have_other_parameters(oauth: OAuthServer):
    """RFC 6749 section 3.2: the endpoint's address may include a query, which is kept."""
    client = oauth.make_client("with query")
    fields = {"grant_type": "client_credentials", **client.form}

    assert oauth.form(f"{TOKEN}?tenant=1&x=%ff", fields).status == 200


def test_body_without_end_is_refused_early(oauth: OAuthServer):
    """Nobody has to read more than the bound to know that a body is too large, and the memory holds no more."""
    before = oauth.resident_bytes()
    with RawConnection(oauth.port) as connection:
        head = post_bytes(TOKEN, b"", content_type=FORM, headers=("transfer-encoding: chunked",))
        connection.send(head.replace(b"content-length: 0\r\n", b""))
        for _ in range(40):
            try:
                connection.send(b"10000\r\n" + b"a" * 65536 + b"\r\n")
            except OSError:
                break
        status, _ = connection.read_head()

    assert status == 400
    assert oauth.resident_bytes() - before < 20 << 20


def test_caller_who_leaves_in_the_middle_of_a_body_is_no_fault(oauth: OAuthServer):
    """Half a body and a hang-up leave nothing in the log and harm nobody."""
    whole = post_bytes(TOKEN, b"grant_type=client_credentials", content_type=FORM)
    for _ in range(20):
        with RawConnection(oauth.port) as connection:
            connection.send(whole[:-5])
            connection.reset()

    client = oauth.make_client("after the hang-ups")

    assert oauth.token(client)
    assert "Traceback" not in oauth.stderr


def test_connection_goes_on_after_a_refusal(oauth: OAuthServer):
    """A refused request does not cost the connection."""
    with RawConnection(oauth.port) as connection:
        for _ in range(3):
            connection.send(post_bytes(TOKEN, b"grant_type=%00", content_type=FORM))
            assert connection.read_answer().status == 400
        connection.send(get_bytes("/healthz"))
        assert connection.read_answer().status == 200


def test_expect_continue_works(oauth: OAuthServer):
    """curl asks before it sends a large body."""
    body = b"grant_type=" + b"x" * 2000
    head, _, _ = post_bytes(TOKEN, body, content_type=FORM, headers=("expect: 100-continue",)).partition(body)
    with RawConnection(oauth.port) as connection:
        connection.send(head)
        connection.send(body)

        assert connection.read_answer().status == 400


def test_rfc6749_s5_2_error_repeats_what_was_sent_only_in_what_the_rfc_allows(oauth: OAuthServer):
    """What a caller wrote comes back without quotes, backslashes, line breaks or other scripts, and short."""
    client = oauth.make_client("repeats")
    hostile = '"\\\r\n<script>密' + "x" * 5000
    for fields in ({"grant_type": hostile}, {"grant_type": "client_credentials", "scope": hostile}):
        answer = oauth.form(TOKEN, {**fields, **client.form})

        assert is_oauth_error(answer, 400, answer.json["error"])
        assert len(answer.body) < 1000


def test_rfc6749_s2_3_1_secret_sent_in_the_address_is_in_no_log(oauth: OAuthServer):
    """The scan for secrets looks for it at the end of the run, too."""
    client: Client = oauth.make_client("careless")

    answer = oauth.form(f"{TOKEN}?client_secret={quote(client.secret)}", b"grant_type=client_credentials")

    assert answer.status == 400
    assert client.secret not in oauth.stdout + oauth.stderr


def test_nothing_of_all_this_was_a_fault(oauth: OAuthServer):
    """The log has no traceback of anything above."""
    with socket.create_connection(("127.0.0.1", oauth.port), timeout=5):
        assert exchange(oauth.port, get_bytes("/healthz")).status == 200
    assert "Traceback" not in oauth.stderr
