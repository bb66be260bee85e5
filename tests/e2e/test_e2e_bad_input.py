"""Bad input gets a 4xx that helps, never a 5xx or a stack trace, and the server stays well."""

import json
import socket

import pytest

from tests.e2e.lingpai_server import LingpaiServer
from tests.e2e.raw_http import (
    PROMPT,
    RawAnswer,
    RawConnection,
    chat,
    exchange,
    get,
    get_bytes,
    post,
    post_bytes,
)

CHAT = "/v1/chat/completions"
GOOD = {
    CHAT: chat(),
    "/v1/completions": {"model": "fake/chat", "prompt": PROMPT},
    "/v1/embeddings": {"model": "fake/embed-small", "input": PROMPT},
    "/predict": {"model": "fake/chat", "input_data": PROMPT},
    "/api/v1/generate": {"model": "fake/chat", "prompt": PROMPT},
    "/api/v1/models/fake/chat/inference": {"input": PROMPT},
}
WORKER = {
    CHAT: chat(model="lingpai/eliza"),
    "/v1/completions": {"model": "lingpai/eliza", "prompt": PROMPT},
    "/v1/embeddings": {"model": "lingpai/hashing-embedding", "input": PROMPT},
    "/predict": {"model": "lingpai/eliza", "input_data": PROMPT},
    "/api/v1/generate": {"model": "lingpai/eliza", "prompt": PROMPT},
    "/api/v1/models/lingpai/eliza/inference": {"input": PROMPT},
}
PAYLOAD = {
    CHAT: "messages", "/v1/completions": "prompt", "/v1/embeddings": "input", "/predict": "input_data",
    "/api/v1/generate": "prompt", "/api/v1/models/fake/chat/inference": "input",
    "/api/v1/models/lingpai/eliza/inference": "input",
}  # fmt: skip
MANAGEMENT = ["/api/v1/keys", "/api/v1/users", "/api/v1/models", "/api/v1/models/check"]
SIDES = [pytest.param("relay", path, id=f"engine{path}") for path in GOOD] + [
    pytest.param("demo", path, id=f"worker{path}") for path in WORKER
]

NOT_JSON = {
    "empty": b"",
    "blank": b"  \r\n ",
    "text": b"hello",
    "cut off": b'{"model": "fake/chat", "messages": [{"role": "user", "con',
    "single quotes": b"{'model': 'fake/chat'}",
    "trailing comma": b'{"model": "fake/chat",}',
    "two values": b'{"model": "fake/chat"} {}',
    "comment": b'{"model": "fake/chat" /* that one */}',
    "NaN": b'{"model": NaN}',
    "null byte behind": b'{"model": "fake/chat"}\x00',
    "null byte inside": b'{"model": "fake\x00/chat"}',
    "control character": b'{"model": "fake\n/chat"}',
    "UTF-8 broken": b'{"model": "fake/ch\xff\xfeat"}',
    "UTF-8 overlong": b'{"model": "fake/ch\xc0\xafat"}',
    "UTF-8 surrogate": b'{"model": "\xed\xa0\x80"}',
    "UTF-8 broken in a value that passes through": b'{"messages": [{"role": "user", "content": "\xff"}], "prompt": "\xff", "input": "\xff", "input_data": "\xff"}',
    "UTF-16": '{"model": "fake/chat"}'.encode("utf-16"),
    "lone surrogate escaped": b'{"model": "\\ud800"}',
    "bad escape": b'{"model": "\\x41"}',
    "100,000 arrays": b"[" * 100_000,
    "100,000 arrays, closed": b"[" * 50_000 + b"]" * 50_000,
    "100,000 objects": b'{"a":' * 30_000 + b"1" + b"}" * 30_000,
    "deep inside": b'{"model": "fake/chat", "x": ' + b"[" * 90_000 + b"]" * 90_000 + b"}",
    "deep payload": b'{"messages": %b, "prompt": %b, "input": %b, "input_data": %b}' % ((b"[" * 20_000 + b"]" * 20_000,) * 4),
    "form": b"model=fake%2Fchat&prompt=Hello",
}  # fmt: skip
WRONG_SHAPE = {
    "array": b"[]",
    "array of objects": b'[{"model": "fake/chat"}]',
    "null": b"null",
    "number": b"5",
    "string": b'"fake/chat"',
    "empty object": b"{}",
    "model is a number": b'{"model": 5}',
    "model is a list": b'{"model": ["fake/chat"]}',
    "model is an object": b'{"model": {"id": "fake/chat"}}',
    "huge number as model": b'{"model": 1e999}',
    "payload null": b'{"messages": null, "prompt": null, "input": null, "input_data": null, "model": 1}',
}


@pytest.fixture(scope="module")
def keys(relay: LingpaiServer, demo: LingpaiServer) -> dict[str, str]:
    return {"relay": relay.make_key("bad-input"), "demo": demo.make_key("bad-input")}


@pytest.fixture
def send(request: pytest.FixtureRequest, keys: dict[str, str]):
    """Post to one of the two servers with a good key."""

    def send(side: str, path: str, body: bytes | dict, **options) -> RawAnswer:
        server: LingpaiServer = request.getfixturevalue(side)
        return post(server.port, path, body, **{"key": keys[side], **options})

    return send


@pytest.fixture(autouse=True, scope="module")
def _stays_well(relay: LingpaiServer, demo: LingpaiServer, keys: dict[str, str], half_sent_head: object):
    """After all of it both servers answer, and no log has a stack trace."""
    yield
    for server, side, body in ((relay, "relay", GOOD[CHAT]), (demo, "demo", WORKER[CHAT])):
        assert server.process.poll() is None
        assert post(server.port, CHAT, body, key=keys[side]).status == 200
        assert "Traceback" not in server.stderr


def assert_refused(answer: RawAnswer, *statuses: int) -> None:
    """A 4xx in OpenAI's shape with a request id, that tells nothing of the inside."""
    assert answer.status in (statuses or range(400, 500)), answer
    assert answer.headers["content-type"].startswith("application/json")
    error = answer.error
    assert set(error) == {"message", "type", "param", "code"}
    assert isinstance(error["message"], str)
    assert len(error["message"]) > 10
    assert error["code"]
    assert error["type"]
    assert "Traceback" not in error["message"]
    assert 'File "' not in error["message"]
    assert answer.headers["x-request-id"].startswith("req_")


# -- bodies


@pytest.mark.parametrize(("side", "path"), SIDES)
@pytest.mark.parametrize("body", NOT_JSON.values(), ids=NOT_JSON)
def test_body_that_is_not_json(send, side, path, body):
    """Whatever is not JSON in UTF-8 is a 400 invalid_json, on every endpoint and with every kind of backend."""
    answer = send(side, path, body)

    assert_refused(answer, 400)
    assert answer.error["code"] == "invalid_json"


@pytest.mark.parametrize(("side", "path"), SIDES)
@pytest.mark.parametrize("body", WRONG_SHAPE.values(), ids=WRONG_SHAPE)
def test_json_of_a_wrong_shape(send, side, path, body):
    """JSON that is no call is a 400 that names what is wrong."""
    answer = send(side, path, body)

    if body == b'{"model": 1e999}':
        assert_refused(answer, 400)
    else:
        assert_refused(answer, 400)
        assert answer.error["code"] == "invalid_request"


@pytest.mark.parametrize(("side", "path"), SIDES)
@pytest.mark.parametrize(
    "number",
    ["1e999", "-1e999", "9" * 30, "9" * 5000, "1" + "0" * 400 + ".5", "0.1e-99999"],
    ids=["1e999", "-1e999", "30 digits", "5000 digits", "long float", "tiny"],
)
@pytest.mark.parametrize("place", ["beside", "payload", "parameters"])
def test_huge_numbers(send, side, path, number, place):
    """A number that no machine holds is refused or passed on, but breaks nothing."""
    fields = dict((GOOD if side == "relay" else WORKER)[path])
    if place == "beside":
        fields |= {"max_tokens": "@", "temperature": "@"}
    elif place == "parameters":
        fields["parameters"] = {"max_tokens": "@"}
    else:
        fields[PAYLOAD[path]] = "@"
    body = json.dumps(fields).replace('"@"', number).encode()

    answer = send(side, path, body)

    assert answer.status == 200 or 400 <= answer.status < 500, answer
    if answer.status != 200:
        assert_refused(answer)


@pytest.mark.parametrize("path", list(WORKER))
@pytest.mark.parametrize(
    "value",
    [
        5,
        -1,
        True,
        None,
        "",
        [],
        {},
        [None],
        [[]],
        {"role": "user"},
        [{"role": 5}],
        [{"content": {}}],
        "\u0000",
        [1, "a"],
    ],
    ids=repr,
)
def test_payload_of_a_wrong_type(send, path, value):
    """A payload that the model cannot take is a 4xx (some of these a model may well take), never a 5xx."""
    body = {**WORKER[path], PAYLOAD[path]: value}

    answer = send("demo", path, body)

    if answer.status != 200:
        assert_refused(answer, 400)


@pytest.mark.parametrize(
    "fields",
    [
        {"stream": "yes"}, {"stream": 1}, {"stream_options": 5}, {"stream_options": {"include_usage": "yes"}, "stream": True},
        {"max_tokens": "many"}, {"max_tokens": -1}, {"max_tokens": 0}, {"max_tokens": 1.5}, {"n": -1}, {"stop": 5}, {"messages": [{"role": "user"}]},
        {"messages": ["Hello"]}, {"messages": [{"role": "user", "content": 5}]}, {"messages": [{"content": "no role"}]},
        {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": "x"}]}]},
    ],
    ids=repr,
)  # fmt: skip
@pytest.mark.parametrize("stream", [False, True])
def test_chat_fields_of_a_wrong_type(send, fields, stream):
    """Wrong fields of a chat call are 4xx, also when the call would stream."""
    answer = send("demo", CHAT, {"stream": stream, **WORKER[CHAT], **fields})

    assert answer.status == 200 or 400 <= answer.status < 500, answer
    if answer.status != 200:
        assert_refused(answer, 400)


def test_unknown_fields_are_no_error(send):
    """Fields that nobody knows are ignored (W3)."""
    assert send("demo", CHAT, {**WORKER[CHAT], "top_k": 5, "made_up": {"x": 1}, "seed": 2**63}).status == 200


@pytest.mark.parametrize("path", list(GOOD))
@pytest.mark.parametrize(
    "content_type",
    ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", "image/png"],
)
def test_wrong_content_type(send, path, content_type):
    """Anything but JSON is a 415 that says what to send; where forms are read, JSON is no form (400)."""
    answer = send("relay", path, GOOD[path], content_type=content_type)

    is_form = content_type.startswith("multipart") and path.endswith("/inference")
    assert_refused(answer, 400 if is_form else 415)
    assert is_form or "application/json" in answer.error["message"]


@pytest.mark.parametrize(
    "content_type", [None, "application/json; charset=utf-8", "APPLICATION/JSON", "application/vnd.api+json"]
)
def test_content_type_that_is_fine(send, content_type):
    """No content type (bare curl -d sends another, but scripts leave it out) and JSON's variants are accepted."""
    assert send("relay", CHAT, GOOD[CHAT], content_type=content_type).status == 200


@pytest.mark.parametrize("coding", ["gzip", "br", "deflate", "zstd"])
def test_compressed_body(send, coding):
    """A compressed body is a 415 that says so."""
    assert_refused(send("relay", CHAT, b"\x1f\x8b\x08", headers=(f"content-encoding: {coding}",)), 415)


@pytest.mark.parametrize("way", ["whole", "head only", "expecting", "chunked"])
def test_owasp_api4_a_body_over_the_limit(relay, keys, way):
    """A body over the limit is a 413 as soon as that is known: by its announced length, or while it comes."""
    size = 300_000
    head = post_bytes(CHAT, b"", key=keys["relay"]).replace(
        b"content-length: 0", b"content-length: %d" % size
    )
    chunked = head.replace(b"content-length: %d" % size, b"transfer-encoding: chunked")
    request = {
        "whole": head + b"x" * size,
        "head only": head,
        "expecting": head.replace(b"host:", b"expect: 100-continue\r\nhost:"),
        "chunked": chunked + b"".join(b"3e8\r\n" + b"x" * 1000 + b"\r\n" for _ in range(300)) + b"0\r\n\r\n",
    }[way]

    answer = exchange(relay.port, request, timeout=2)

    assert_refused(answer, 413)
    assert answer.error["code"] == "request_too_large"


def test_refusal_of_a_large_body_names_a_setting_that_exists(relay, keys):
    """The operator finds the limit under the name that the message says."""
    answer = post(relay.port, CHAT, b"x" * 300_000, key=keys["relay"])

    assert "`gateway.max_body_bytes`" in answer.error["message"]


def test_expected_continue_is_not_sent_for_a_body_that_is_refused(relay, keys):
    """A body that is too large is refused before it is sent, and nothing follows the refusal."""
    head = post_bytes(CHAT, b"", key=keys["relay"], headers=("expect: 100-continue",))
    with RawConnection(relay.port) as connection:
        connection.send(head.replace(b"content-length: 0", b"content-length: 99999999"))
        received = b""
        while data := connection.receive():
            received += data

    assert received.startswith(b"HTTP/1.1 413 ")
    assert b"100 Continue" not in received
    assert received.count(b"HTTP/1.1") == 1


def test_expected_continue(relay, keys):
    """Who asks first is told to go on, and answered."""
    request = post_bytes(CHAT, GOOD[CHAT], key=keys["relay"], headers=("Expect: 100-continue",))
    head, _, body = request.partition(b"\r\n\r\n")
    with RawConnection(relay.port) as connection:
        connection.send(head + b"\r\n\r\n")
        assert connection.read_until(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        connection.send(body)
        answer = connection.read_answer()

    assert answer.status == 200


def test_truncated_body_is_no_call(relay, engine, keys):
    """A caller that leaves before its body is complete has made no call, and does no harm."""
    before = len(engine.calls)
    request = post_bytes(CHAT, GOOD[CHAT], key=keys["relay"])
    with RawConnection(relay.port) as connection:
        connection.send(request[:-5])
    with RawConnection(relay.port) as connection:
        connection.send(request[:40])
        connection.reset()

    assert get(relay.port, "/healthz").status == 200
    assert len(engine.calls) == before


def test_model_given_twice_cannot_pass_the_keys_model_list(relay, engine, key_name):
    """Two models in one body: spelled alike, the engine is asked for the one that was checked; otherwise it is a 400."""
    key = relay.make_key(key_name, models=["fake/chat"])
    rest = f'"messages": [{{"role": "user", "content": "{key_name}"}}]'
    bodies = [
        f'{{"model": "hf.co/fake/Chat-GGUF:Q6_K", "model": "fake/chat", {rest}}}',
        f'{{"model": "fake/chat", "MODEL": "hf.co/fake/Chat-GGUF:Q6_K", {rest}}}',
        f'{{"Model": "hf.co/fake/Chat-GGUF:Q6_K", "model": "fake/chat", {rest}}}',
        f'{{"model": "fake/chat", "mod\\u0065l": "fake/chat", {rest}}}',
        f'{{"MODEL": "hf.co/fake/Chat-GGUF:Q6_K", {rest}}}',
        f'{{"mod\\u0045l": "hf.co/fake/Chat-GGUF:Q6_K", "model": "fake/chat", {rest}}}',
    ]

    answers = [post(relay.port, CHAT, body.encode(), key=key) for body in bodies]

    calls = engine.calls_of(key_name)
    assert [answer.status for answer in answers] == [200, 400, 400, 200, 400, 400]
    assert len(calls) == 2
    for call in calls:
        pairs = json.loads(call.body, object_pairs_hook=lambda pairs: pairs)
        assert [value for name, value in pairs if name.lower() == "model"] == ["fake/chat"]


def test_last_of_two_models_is_checked(relay, key_name):
    """A forbidden model in the last place is refused, whatever stands before it."""
    key = relay.make_key(key_name, models=["fake/chat"])
    body = b'{"model": "fake/chat", "model": "hf.co/fake/Chat-GGUF:Q6_K", "messages": [{"role": "user", "content": "x"}]}'

    assert_refused(post(relay.port, CHAT, body, key=key), 403)


@pytest.mark.parametrize(
    "name",
    [
        "'; DROP TABLE api_keys; --",
        "../../etc/passwd",
        "a\r\nx-evil: 1",
        "<script>",
        "é" * 5000,
        "\u202e",
        "%00",
        " ",
    ],
)
def test_strange_model_names(send, name):
    """A strange name is a 404 whose message does not grow without bound; nothing of it gets into a header."""
    answer = send("relay", CHAT, chat(model=name))

    assert_refused(answer, 404)
    assert "x-evil" not in answer.headers
    assert len(answer.error["message"]) < 1000


@pytest.mark.parametrize(
    "path",
    [
        "/api/v1/models/%ff/inference",
        "/api/v1/models/%00/inference",
        "/api/v1/models/a%0d%0ab/inference",
        "/api/v1/models/../inference",
        "/api/v1/models//inference",
        "/api/v1/models/x/inference?a=b",
        "/api/v1/models/" + "x" * 5000 + "/inference",
    ],
)
def test_strange_model_paths(send, path):
    """A strange id in the path is a 4xx."""
    assert_refused(send("relay", path, {"input": "x"}))


# -- credentials


@pytest.mark.parametrize(
    "headers",
    [
        ("authorization: Bearer {key}", "x-api-key: {key}"),
        ("x-api-key: {key}", "api-key: {key}"),
        ("authorization: Bearer {key}", "authorization: Bearer {key}"),
        ("authorization: Bearer {key}", "Authorization: Bearer wrong"),
        ("x-api-key: {key}", "X-API-Key: {key}"),
    ],
)
@pytest.mark.parametrize("path", [CHAT, "GET /v1/models", "GET /v1/key"])
def test_two_credentials(relay, keys, headers, path):
    """Two credentials in one request are a 400, whichever headers they stand in."""
    lines = tuple(line.format(key=keys["relay"]) for line in headers)

    if path.startswith("GET "):
        answer = get(relay.port, path[4:], headers=lines)
    else:
        answer = post(relay.port, path, GOOD[path], headers=lines)

    assert_refused(answer, 400)
    assert answer.error["code"] == "ambiguous_credentials"


@pytest.mark.parametrize("name", ["key", "api_key", "api-key", "access_token", "token"])
def test_key_in_the_query_is_no_key(relay, keys, name):
    """A key in the URL is refused as such, and not logged."""
    answers = [
        post(relay.port, f"{CHAT}?{name}={keys['relay']}", GOOD[CHAT]),
        get(relay.port, f"/v1/models?{name}={keys['relay']}"),
    ]

    for answer in answers:
        assert_refused(answer, 400)
        assert answer.headers["www-authenticate"].startswith("Bearer")
    assert keys["relay"] not in relay.stderr + relay.stdout


@pytest.mark.parametrize(
    "value",
    ["", "Bearer", "Bearer ", "Basic YWRtaW46YWRtaW4=", "Bearer \xff\xfe", "Bearer sk-lp-", "Bearer " + "A" * 8000,
     "Bearer ' OR 1=1; --", "Bearer null", "Bearer undefined", "Token abc", "Bearer a b c"],
    ids=repr,
)  # fmt: skip
@pytest.mark.parametrize("method", ["POST", "GET"])
def test_strange_credentials(relay, value, method):
    """Whatever stands in Authorization but a good key is a 401."""
    header = (f"authorization: {value}",)

    answer = (
        post(relay.port, CHAT, GOOD[CHAT], headers=header)
        if method == "POST"
        else get(relay.port, "/v1/models", headers=header)
    )

    assert_refused(answer, 401)


# -- HTTP itself


@pytest.mark.parametrize("name", ["x-{n}", "x-same"])
def test_101_headers(relay, keys, name):
    """More than 100 headers are a 431, up to 100 are fine; whether they are all different or all the same."""
    lines = [f"{name.format(n=n)}: y" for n in range(97)]
    few = post(relay.port, CHAT, GOOD[CHAT], key=keys["relay"], headers=tuple(lines[:96]))
    many = post(relay.port, CHAT, GOOD[CHAT], key=keys["relay"], headers=tuple(lines))

    assert few.status == 200
    assert_refused(many, 431)


@pytest.mark.parametrize("method", ["POST", "GET"])
def test_5000_headers(relay, keys, method):
    """5000 short headers are a 431, in one piece or line by line, for model calls and for everything else."""
    lines = tuple(f"x-{n}: y" for n in range(5000))
    if method == "POST":
        request = post_bytes(CHAT, GOOD[CHAT], key=keys["relay"], headers=lines)
    else:
        request = get_bytes("/v1/models", key=keys["relay"], headers=lines)

    with RawConnection(relay.port) as whole, RawConnection(relay.port) as pieces:
        whole.send(request)
        for start in range(0, len(request), 5000):
            pieces.send(request[start : start + 5000])
        answers = [whole.read_answer(), pieces.read_answer()]

    for answer in answers:
        assert_refused(answer, 431)


@pytest.mark.parametrize("method", ["POST", "GET"])
@pytest.mark.parametrize("where", ["one header", "many lines", "address"])
def test_200_kb_of_headers(relay, keys, method, where):
    """A header block of 200 kB is a 431, for model calls and for everything else."""
    path = CHAT if method == "POST" else "/v1/models"
    headers: tuple[str, ...] = ()
    if where == "one header":
        headers = ("x-big: " + "a" * 200_000,)
    elif where == "many lines":
        headers = tuple(f"x-{n}: {'a' * 5000}" for n in range(40))
    else:
        path += "?" + "a" * 200_000

    if method == "POST":
        answer = post(relay.port, path, GOOD[CHAT], key=keys["relay"], headers=headers)
    else:
        answer = get(relay.port, path, key=keys["relay"], headers=headers)

    assert_refused(answer, 431)


def test_trailers_without_end(relay, keys, engine):
    """Header lines behind a chunked body are bounded as those before it are: no caller may go on for ever."""
    head = post_bytes(CHAT, b"", key=keys["relay"]).replace(
        b"content-length: 0", b"transfer-encoding: chunked"
    )
    body = json.dumps({**GOOD[CHAT], "marker": "endless-trailers"}).encode()
    trailers = b"".join(b"x-trailer-%d: %b\r\n" % (number, b"y" * 1000) for number in range(600))
    with RawConnection(relay.port) as connection:
        connection.send(head + b"%x\r\n%b\r\n0\r\n" % (len(body), body) + trailers)
        answer = connection.read_answer()

    assert_refused(answer, 431)
    assert "trailers" in answer.error["message"]
    assert engine.calls_of("endless-trailers") == []


_REQUEST = b"POST /v1/chat/completions HTTP/1.1\r\n"
_BODY = b"content-length: 2\r\ncontent-type: application/json\r\n\r\n{}"
MALFORMED = {
    "two Host": _REQUEST + b"host: a\r\nhost: b\r\n" + _BODY,
    "two equal Host": _REQUEST + b"host: a\r\nhost: a\r\n" + _BODY,
    "no Host": _REQUEST + _BODY,
    "CL and TE": _REQUEST + b"host: a\r\ntransfer-encoding: chunked\r\n" + _BODY,
    "TE and CL": _REQUEST + b"host: a\r\ncontent-length: 2\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
    "two lengths": _REQUEST + b"host: a\r\ncontent-length: 3\r\n" + _BODY,
    "negative length": _REQUEST + b"host: a\r\ncontent-length: -2\r\n\r\n",
    "length with plus": _REQUEST + b"host: a\r\ncontent-length: +2\r\n\r\n{}",
    "length overflows": _REQUEST + b"host: a\r\ncontent-length: 99999999999999999999999\r\n\r\n{}",
    "length in hex": _REQUEST + b"host: a\r\ncontent-length: 0x2\r\n\r\n{}",
    "length as a list": _REQUEST + b"host: a\r\ncontent-length: 1, 1\r\n\r\n{",
    "unknown coding": _REQUEST + b"host: a\r\ntransfer-encoding: rot13\r\n\r\n{}",
    "bad chunk size": _REQUEST + b"host: a\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n{}\r\n0\r\n\r\n",
    "chunk size overflows": _REQUEST + b"host: a\r\ntransfer-encoding: chunked\r\n\r\nfffffffffffffffff\r\n{}\r\n0\r\n\r\n",
    "LF in a chunk extension": _REQUEST + b"host: a\r\ntransfer-encoding: chunked\r\n\r\n2;a\nb\r\n{}\r\n0\r\n\r\n",
    "LF in a quoted chunk extension": _REQUEST + b'host: a\r\ntransfer-encoding: chunked\r\n\r\n2;a="\n"\r\n{}\r\n0\r\n\r\n',
    "LF behind a chunk size": _REQUEST + b"host: a\r\ntransfer-encoding: chunked\r\n\r\n2\n{}\r\n0\r\n\r\n",
    "obs-fold": _REQUEST + b"host: a\r\nx: a\r\n b\r\n" + _BODY,
    "blank before colon": _REQUEST + b"host : a\r\n" + _BODY,
    "bare LF": (_REQUEST + b"host: a\r\n" + _BODY).replace(b"\r\n", b"\n"),
    "bare CR in a value": _REQUEST + b"host: a\r\nx: a\rb\r\n" + _BODY,
    "NUL in a value": _REQUEST + b"host: a\r\nx: a\x00b\r\n" + _BODY,
    "NUL in the path": _REQUEST.replace(b" HTTP", b"\x00 HTTP") + b"host: a\r\n" + _BODY,
    "empty header name": _REQUEST + b"host: a\r\n: b\r\n" + _BODY,
    "no HTTP at all": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"a" * 50,
    "HTTP/2 preface": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "nonsense": b"hello there\r\n\r\n",
    "HTTP/3.7": b"POST /v1/chat/completions HTTP/3.7\r\nhost: a\r\n" + _BODY,
}  # fmt: skip


@pytest.mark.parametrize("path", [CHAT, "/api/v1/keys", "/oauth/token"])
@pytest.mark.parametrize("request_bytes", MALFORMED.values(), ids=MALFORMED)
def test_malformed_http(relay, request_bytes, path):
    """What is not proper HTTP/1.1 is refused with JSON, and the connection closes (security.md 3.4)."""
    with RawConnection(relay.port) as connection:
        connection.send(request_bytes.replace(CHAT.encode(), path.encode()))
        answer = connection.read_answer()
        is_closed = connection.is_closed_within(4)

    assert answer.status in range(400, 500)
    if "error_description" not in answer.json:  # RFC 6749 section 5.2 has a form of its own
        assert set(answer.error) == {"message", "type", "param", "code"}
    assert is_closed


def test_malformed_second_request_does_not_harm_the_first(relay, keys):
    """Garbage behind a good request on the same connection costs only the garbage its answer."""
    with RawConnection(relay.port) as connection:
        connection.send(post_bytes(CHAT, GOOD[CHAT], key=keys["relay"]))
        first = connection.read_answer()
        connection.send(b"garbage\r\n\r\n")
        second = connection.read_answer()

    assert (first.status, second.status) == (200, 400)


def test_garbage_right_behind_a_call_does_not_break_its_answer(relay, keys):
    """Bytes that are no request, sent together with a good call, leave the call's answer whole."""
    with RawConnection(relay.port) as connection:
        connection.send(post_bytes(CHAT, GOOD[CHAT], key=keys["relay"]) + b"garbage \x00\r\n\r\n")
        answer = connection.read_answer()

    assert answer.status in (200, 400)
    assert answer.is_complete
    assert answer.json


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", CHAT, 405), ("PUT", CHAT, 405), ("DELETE", "/v1/embeddings", 405), ("POST", "/v1/models", 405),
        ("GET", "/v1/nothing", 404), ("POST", "/v1/nothing", 404), ("GET", "/../../etc/passwd", 404), ("GET", "/v1/models/none", 404),
        ("TRACE", "/", 404), ("PATCH", "/healthz", 405), ("GET", "/api/v1/generate", 405), ("GET", "/%00", 404), ("GET", "//", 404),
    ],
)  # fmt: skip
def test_wrong_method_or_path(relay, keys, method, path, status):
    """A wrong method is a 405 with Allow, a wrong path a 404, both in the usual shape."""
    answer = get(relay.port, path, key=keys["relay"], method=method)

    assert_refused(answer, status)
    if status == 405:
        assert answer.headers["allow"]


@pytest.mark.parametrize("path", MANAGEMENT)
@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"null", b'{"name": 5}', b'{"name": "x", "made_up": 1}', b'{"name": "\\ud800"}', b"[" * 100_000, b'{"name": "\xff"}', b'{"name": 1e999}', b'{"name": "a\\u0000b"}'], ids=repr)  # fmt: skip
def test_management_routes_take_bad_bodies_as_well(demo, path, body, key_name):
    """The management API refuses the same things in the same shape."""
    key = demo.make_key(key_name, scopes=["keys:write", "users:write", "models:write", "models:read"])

    assert_refused(post(demo.port, path, body, key=key), 400)


@pytest.mark.parametrize(
    "path",
    [
        "/api/v1/keys",
        "/api/v1/users",
        "/api/v1/models",
        "/api/v1/limits",
        "/api/v1/usage",
        "/v1/key",
        "/v1/models",
    ],
)
def test_owasp_api5_nothing_is_open_without_a_key(relay, path):
    """Reading anything needs a key; over the network nobody is the local administrator."""
    assert_refused(get(relay.port, path), 401)


@pytest.mark.parametrize(
    "path", ["/api/v1/keys", "/api/v1/users", "/api/v1/models", "/api/v1/limits", "/api/v1/usage"]
)
def test_owasp_api5_a_key_for_calls_opens_nothing_else(relay, keys, path):
    """A key for calling models is no key for managing."""
    answer = get(relay.port, path, key=keys["relay"])

    assert_refused(answer, 403)
    assert answer.error["code"] == "insufficient_scope"


@pytest.mark.parametrize(
    "query",
    ["by=nothing", "tz=Mars/Olympus", "tz=../../etc/passwd", "since=yesterday", "since=99999999999d", "until=1e999", "limit=-1",
     "since=2026-13-45", "key=%00", "by=day,day,day", "since=0001-01-01&tz=Asia/Shanghai", "until=9999-12-31&tz=America/New_York"],
)  # fmt: skip
def test_strange_usage_questions(demo, query):
    """A question about usage that cannot be understood is a 400, never a 500."""
    status, answer = demo.try_admin("GET", f"/api/v1/usage?{query}")

    assert status in (200, 400, 404), answer
    if status != 200:
        assert set(answer["error"]) == {"message", "type", "param", "code"}


def test_connections_that_send_nothing_do_no_harm(relay, keys):
    """Many connections that send nothing do not keep others from being served."""
    idle = [socket.create_connection(("127.0.0.1", relay.port)) for _ in range(300)]
    try:
        assert post(relay.port, CHAT, GOOD[CHAT], key=keys["relay"]).status == 200
    finally:
        for each in idle:
            each.close()
