"""Signed requests against a real server: what is accepted, and that nothing else is, on model calls and on management."""

import json
import random

import pytest

from tests.e2e.every_byte import check_that_every_byte_counts
from tests.e2e.raw_http import RawConnection, chat, exchange, post
from tests.e2e.signed_caller import CHAT, SignedCaller, refusal
from tests.secrets_scan import SCAN

BODY = json.dumps(chat(model="lingpai/eliza")).encode()
INVALID = 401, "signature_invalid"
ALGORITHMS = ["hmac-sha256", "ed25519"]


@pytest.fixture(params=ALGORITHMS)
def caller(demo, key_name, request):
    return SignedCaller(demo, key_name, algorithm=request.param, scopes=["model:inference", "keys:read"])


@pytest.fixture
def hmac_caller(demo, key_name):
    return SignedCaller(demo, key_name, scopes=["model:inference", "keys:read", "keys:write"])


# -- what is accepted


def test_a_signature_alone_calls_a_model_as_the_key_it_belongs_to(caller):
    answer = caller.send(BODY)

    assert answer.status == 200
    assert caller.server.record_of(answer.headers["x-request-id"])["key_id"] == caller.key_id


def test_a_signature_beside_its_key_calls_a_model(caller):
    assert caller.send(BODY, key=caller.key).status == 200


def test_a_signature_manages_with_and_without_a_body(caller):
    shown = caller.send(method="GET", path="/v1/key")
    listed = caller.send(method="GET", path="/api/v1/keys?limit=5", key=caller.key)

    assert shown.json["id"] == caller.key_id
    assert listed.status == 200


def test_a_signed_request_with_a_body_manages(hmac_caller):
    made = hmac_caller.send(b'{"name": "made by a signed call"}', path="/api/v1/keys")
    changed = hmac_caller.send(
        b'{"name": "renamed by a signed call"}', method="PATCH", path=f"/api/v1/keys/{made.json['id']}"
    )
    deleted = hmac_caller.send(
        method="DELETE", path=f"/api/v1/keys/{made.json['id']}", headers={"connection": "close"}
    )

    assert (made.status, changed.status, deleted.status) == (201, 200, 204)


def test_a_signed_stream_and_a_signed_form(caller):
    streamed = caller.send(json.dumps(chat(model="lingpai/eliza", stream=True)).encode())
    form = b'--b\r\ncontent-disposition: form-data; name="input"\r\n\r\nwhat a lovely day\r\n--b--\r\n'
    path = "/api/v1/models/lingpai/sentiment/inference"
    posted = caller.send(form, path=path, headers={"content-type": "multipart/form-data; boundary=b"})

    assert streamed.events[-1] == "[DONE]"
    assert posted.status != 401, posted.body


def test_rfc9530_s2_a_chunked_body_is_compared_as_what_it_carries(hmac_caller):
    raw = hmac_caller.request(BODY).replace(
        b"content-length: %d\r\n" % len(BODY), b"transfer-encoding: chunked\r\n"
    )
    head = raw[: -len(BODY)]
    chunks = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in (BODY[:10], BODY[10:])) + b"0\r\n\r\n"
    forged = chunks.replace(BODY[:10], BODY[:9] + b"?")

    assert refusal(exchange(hmac_caller.server.port, head + forged)) == (*INVALID, "content-digest")
    assert exchange(hmac_caller.server.port, head + chunks).status == 200


def test_calls_on_one_connection_each_with_a_signature_of_its_own(caller):
    with RawConnection(caller.server.port) as connection:
        for _ in range(5):
            connection.send(caller.request(BODY))
            assert connection.read_answer().status == 200


# -- what is not


def test_rfc9421_s7_1_1_every_single_byte_of_what_is_covered_counts(hmac_caller, new_seed):
    """After every attempt the request itself is still good: no forgery uses its nonce up."""
    request = hmac_caller.request(BODY, path=f"{CHAT}?trace=abc", key=hmac_caller.key)

    check_that_every_byte_counts(hmac_caller.server.port, request, random.Random(new_seed))


def test_rfc9421_s7_1_1_every_single_byte_of_a_management_request_counts(hmac_caller, new_seed):
    request = hmac_caller.request(b'{"name": "made in the end"}', path="/api/v1/keys")

    check_that_every_byte_counts(hmac_caller.server.port, request, random.Random(new_seed))


@pytest.mark.parametrize(
    ("old", "new", "param"),
    [
        (b"host: ", b"x-forwarded-host: evil.example\r\nhost: ", None),
        (b"content-type: application/json", b"content-type: application/json; charset=x", "signature"),
        (b"content-type: application/json\r\n", b"", "content-type"),
        (b"POST /v1/chat/completions ", b"POST /v1/completions ", "signature"),
        (b"POST /v1/chat/completions ", b"POST /v1/chat/completions?model=other ", "signature"),
        (b"content-digest: ", b"x-digest: ", "content-digest"),
        (b"signature: ", b"x-signature: ", "signature"),
        (b"signature-input: ", b"x-input: ", "signature-input"),
        (b"content-type: ", b"x-api-key: sk-lp-other\r\ncontent-type: ", "x-api-key"),
        (b"content-type: ", b"authorization: Bearer other\r\ncontent-type: ", "authorization"),
        (b"content-type: ", b"content-type: text/plain\r\ncontent-type: ", "signature"),
    ],
)
def test_a_field_that_was_added_changed_or_taken_away(hmac_caller, old, new, param):
    """Fields that are not covered and that nobody here goes by make no difference."""
    answer = exchange(hmac_caller.server.port, hmac_caller.request(BODY).replace(old, new, 1))

    if param is None:
        assert answer.status == 200
    else:
        assert refusal(answer) == (*INVALID, param)


def test_rfc9421_s7_2_8_the_body_of_another_request_does_not_fit(hmac_caller):
    first, second = (
        hmac_caller.request(json.dumps(chat(text, model="lingpai/eliza")).encode()) for text in "ab"
    )

    swapped = first.partition(b"\r\n\r\n")[0] + b"\r\n\r\n" + second.partition(b"\r\n\r\n")[2]

    assert refusal(exchange(hmac_caller.server.port, swapped)) == (*INVALID, "content-digest")


@pytest.mark.parametrize("offset", [-400, 400])
def test_rfc9421_s3_2_1_a_clock_that_is_off_is_refused(hmac_caller, offset):
    assert refusal(hmac_caller.send(BODY, clock_offset_s=offset)) == (*INVALID, "created")


def test_rfc9421_s2_2_3_a_signature_for_another_authority_is_refused(hmac_caller):
    request = hmac_caller.request(BODY, host="other.example").replace(
        b"host: other.example", b"host: 127.0.0.1:%d" % hmac_caller.server.port
    )

    assert refusal(exchange(hmac_caller.server.port, request)) == (*INVALID, "signature")


def test_rfc9421_s3_2_1_signature_and_credential_must_belong_together(demo, hmac_caller):
    other = demo.make_key(f"other of {hmac_caller.key_id}")

    assert refusal(hmac_caller.send(BODY, key=other)) == (*INVALID, "keyid")
    assert refusal(hmac_caller.send(method="GET", path="/v1/key", key=other)) == (*INVALID, "keyid")


def test_rfc9421_s3_2_an_unknown_signing_key_is_refused(hmac_caller):
    hmac_caller.signing_key_id = "sgn_000000000000"

    assert refusal(hmac_caller.send(BODY)) == (*INVALID, "keyid")
    assert refusal(hmac_caller.send(method="GET", path="/v1/key")) == (*INVALID, "keyid")


def test_a_refusal_shows_neither_secret_nor_right_signature(hmac_caller):
    request = hmac_caller.request(BODY)
    right = request.partition(b"signature: lingpai=:")[2].partition(b":")[0]
    forged = request.replace(right, b"A" * 43 + b"=")

    answer = exchange(hmac_caller.server.port, forged)

    assert refusal(answer) == (*INVALID, "signature")
    assert right not in answer.body
    assert hmac_caller.secret.encode() not in answer.body


def test_a_forger_is_refused_before_the_body_is_read(hmac_caller):
    request = hmac_caller.request(b"x" * 1_000_000).replace(
        b"signature: lingpai=:", b"signature: lingpai=:AAAA"
    )
    head = request.partition(b"\r\n\r\n")[0] + b"\r\n\r\n"

    for path in (b"/v1/chat/completions", b"/api/v1/keys"):
        with RawConnection(hmac_caller.server.port) as connection:
            connection.send(head.replace(b"/v1/chat/completions", path))
            assert connection.read_answer().status == 401


# -- replay


def test_rfc9421_s7_2_2_a_request_works_once_on_the_same_connection(caller):
    """The second one has the very bytes of a head that is known."""
    request = caller.request(BODY)
    with RawConnection(caller.server.port) as connection:
        connection.send(request)
        assert connection.read_answer().status == 200
        for _ in range(3):
            connection.send(request)
            assert refusal(connection.read_answer()) == (*INVALID, "nonce")


def test_rfc9421_s7_2_2_a_request_works_once_on_any_connection(caller):
    request = caller.request(BODY, key=caller.key)

    answers = [exchange(caller.server.port, request) for _ in range(3)]

    assert [answer.status for answer in answers] == [200, 401, 401]


def test_rfc9421_s7_2_2_a_management_request_works_once(hmac_caller):
    request = hmac_caller.request(b'{"name": "made once"}', path="/api/v1/keys")

    assert exchange(hmac_caller.server.port, request).status == 201
    assert refusal(exchange(hmac_caller.server.port, request)) == (*INVALID, "nonce")


def test_rfc9421_s7_2_2_of_many_at_once_one_is_accepted(hmac_caller):
    request = hmac_caller.request(BODY)
    connections = [RawConnection(hmac_caller.server.port) for _ in range(20)]
    try:
        for connection in connections:
            connection.send(request)
        statuses = [connection.read_answer().status for connection in connections]
    finally:
        for connection in connections:
            connection.close()

    assert sorted(statuses) == [200] + [401] * 19


def test_a_head_does_not_pass_twice_while_its_body_is_coming(hmac_caller):
    request = hmac_caller.request(BODY)
    with RawConnection(hmac_caller.server.port) as slow, RawConnection(hmac_caller.server.port) as fast:
        slow.send(request[:-5])
        fast.send(request)
        assert fast.read_answer().status == 200
        slow.send(request[-5:])
        assert refusal(slow.read_answer()) == (*INVALID, "nonce")


@pytest.mark.parametrize("end", ["stop", "kill"])
def test_rfc9421_s7_2_2_a_request_works_once_also_across_a_crash(make_server, end):
    server = make_server().start()
    caller = SignedCaller(server, "signs")
    requests = [caller.request(BODY, host="models.example") for _ in range(3)]
    assert [exchange(server.port, request).status for request in requests] == [200, 200, 200]

    getattr(server, end)()
    server.start()

    again = [refusal(exchange(server.port, request)) for request in requests]
    assert again == [(*INVALID, "nonce")] * 3
    assert caller.send(BODY).status == 200


# -- keys for signed requests only


def test_a_bound_key_wants_a_signature_everywhere(demo, key_name):
    caller = SignedCaller(demo, key_name, signature_required=True)

    model, managed = (
        post(demo.port, CHAT, BODY, key=caller.key),
        exchange(
            demo.port,
            b"GET /v1/key HTTP/1.1\r\nhost: x\r\nauthorization: Bearer %b\r\n\r\n" % caller.key.encode(),
        ),
    )

    for answer in (model, managed):
        assert refusal(answer) == (401, "signature_required", None)
        assert 'tag="lingpai"' in answer.headers["accept-signature"]
    assert caller.send(BODY).status == 200
    assert caller.send(BODY, key=caller.key).status == 200
    assert caller.send(method="GET", path="/v1/key").status == 200


def test_binding_and_freeing_a_key_works_on_the_next_call_of_an_open_connection(demo, hmac_caller):
    unsigned = (
        b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
        b"authorization: Bearer %b\r\ncontent-length: %d\r\n\r\n%b"
        % (hmac_caller.key.encode(), len(BODY), BODY)
    )
    path = f"/api/v1/keys/{hmac_caller.key_id}"
    with RawConnection(demo.port) as connection:

        def call():
            connection.send(unsigned)
            return connection.read_answer().status

        assert [call(), call(), call()] == [200, 200, 200]
        demo.admin("PATCH", path, {"signature_required": True})
        assert [call(), call(), call()] == [401, 401, 401]
        demo.admin("PATCH", path, {"signature_required": False})
        assert [call(), call()] == [200, 200]


def test_a_deleted_signing_key_is_refused_on_the_next_call_of_an_open_connection(caller):
    with RawConnection(caller.server.port) as connection:
        connection.send(caller.request(BODY))
        assert connection.read_answer().status == 200
        caller.server.admin("DELETE", f"{caller.path}/{caller.signing_key_id}")
        connection.send(caller.request(BODY))
        assert refusal(connection.read_answer()) == (*INVALID, "keyid")


def test_two_signing_keys_overlap_while_one_rotates(caller):
    before = caller.request(BODY)
    caller.add_signing_key()

    assert exchange(caller.server.port, before).status == 200
    assert caller.send(BODY).status == 200
    assert len(caller.server.admin("GET", caller.path)["data"]) == 2


def test_a_signature_is_no_way_around_what_binds_its_key(demo, key_name):
    caller = SignedCaller(demo, key_name, allowed_ips=["10.0.0.0/8"], scopes=["keys:read"])
    assert caller.send(method="GET", path="/v1/key").error["code"] == "ip_not_allowed"
    demo.admin("PATCH", f"/api/v1/keys/{caller.key_id}", {"allowed_ips": []})
    assert caller.send(BODY).error["code"] == "insufficient_scope"
    demo.admin("PATCH", f"/api/v1/keys/{caller.key_id}", {"disabled": True})
    assert caller.send(method="GET", path="/v1/key").error["code"] == "key_disabled"
    demo.admin("DELETE", f"/api/v1/keys/{caller.key_id}")
    assert refusal(caller.send(method="GET", path="/v1/key")) == (*INVALID, "keyid")


def test_limits_count_signed_calls(demo, key_name):
    caller = SignedCaller(demo, key_name, limits=["2/day"])

    assert [caller.send(BODY).status for _ in range(3)] == [200, 200, 429]


def test_owasp_api2_who_tries_many_unknown_signing_keys_is_slowed_down_and_not_those_who_are_known(
    make_server,
):
    server = make_server().start()
    caller = SignedCaller(server, "signs")
    assert caller.send(BODY).status == 200
    known, statuses = caller.signing_key_id, []
    for number in range(60):
        caller.signing_key_id = f"sgn_{number:012d}"
        statuses.append(caller.send(BODY).status)
    caller.signing_key_id = known

    assert set(statuses) == {401, 429}
    assert caller.send(BODY).status == 200


# -- what is no signature at all


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/api/v1/keys"])
@pytest.mark.parametrize(
    "fields",
    [
        b"signature-input: x\r\nsignature: y",
        b"signature-input: \r\nsignature: ",
        b"signature-input: sig1=()\r\nsignature: sig1=:AA==:",
        b'signature-input: sig1=("@method";req);created=1;keyid="a";nonce="b";tag="lingpai"\r\nsignature: sig1=:AA==:',
        b"signature-input: \xff\xfe\r\nsignature: \xff",
        b"signature-input: sig1=(" + b'"a" ' * 900 + b")\r\nsignature: sig1=:AA==:",
        b"signature-input: a=();created=99999999999999999999\r\nsignature: a=:AA==:",
        b"signature-input: sig1=()\r\nsignature-input: sig1=()\r\nsignature: sig1=:AA==:",
        b"signature: sig1=:AA==:",
        b"signature-input: sig1=()",
    ],
)
def test_garbage_is_refused_and_never_a_fault_of_ours(demo, path, fields):
    request = (
        b"POST %b HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n%b\r\ncontent-length: 2\r\n\r\n{}"
    )

    answer = exchange(demo.port, request % (path.encode(), fields))

    assert refusal(answer)[:2] == INVALID


# -- bounds, and who sees what


def test_full_nonces_are_told_and_let_unsigned_calls_alone(make_server):
    server = make_server(config="[signing]\nmax_nonces = 3\nmax_nonces_per_user = 2\n").start()
    server.admin("POST", "/api/v1/users", {"name": "bob"})
    first, second = SignedCaller(server, "one"), SignedCaller(server, "other", user="bob")

    assert [first.send(BODY).status for _ in range(3)] == [200, 200, 503]
    refused = first.send(BODY)
    assert refused.error["code"] == "server_busy"
    assert "signing.max_nonces_per_user" in refused.error["message"]
    assert int(refused.headers["retry-after"]) > 0
    assert [second.send(BODY).status for _ in range(2)] == [200, 503]
    assert second.send(method="GET", path="/v1/key").status == 503
    assert post(server.port, CHAT, BODY, key=first.key).status == 200


def test_another_tenants_signing_keys_do_not_exist(demo, hmac_caller, key_name):
    demo.admin("POST", "/api/v1/users", {"name": f"eve-{key_name}"})
    eve = SignedCaller(demo, f"eve {key_name}", user=f"eve-{key_name}", scopes=["keys:read", "keys:write"])
    path, body = hmac_caller.path, b'{"name": "mine now", "algorithm": "hmac-sha256"}'

    answers = [
        eve.send(method="GET", path=path),
        eve.send(body, path=path),
        eve.send(method="DELETE", path=f"{path}/{hmac_caller.signing_key_id}"),
        eve.send(method="DELETE", path=f"{eve.path}/{hmac_caller.signing_key_id}"),
        eve.send(method="GET", path="/api/v1/keys/000000000000/signing-keys"),
    ]

    assert {(answer.status, answer.error["code"]) for answer in answers} == {(404, "not_found")}
    assert hmac_caller.send(BODY).status == 200


def test_a_signing_key_takes_no_fields_that_it_does_not_have(demo, hmac_caller):
    for more in ({"id": "sgn_mine"}, {"secret": "mine"}, {"key_id": "other"}, {"client_id": "other"}):
        body = {"name": "a", "algorithm": "hmac-sha256", **more}
        status, answer = demo.try_admin("POST", hmac_caller.path, body)
        assert (status, answer["error"]["param"]) == (400, next(iter(more)))


def test_an_answer_with_a_secret_is_not_to_be_stored(hmac_caller):
    made = hmac_caller.send(b'{"name": "a", "algorithm": "hmac-sha256"}', path=hmac_caller.path)

    assert made.headers["cache-control"] == "no-store"
    SCAN.secrets.add_credentials(made.body)
