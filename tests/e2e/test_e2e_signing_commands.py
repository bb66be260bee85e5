"""Signing keys from the command line and the management API, and why a signature is refused."""

import base64
import json
import subprocess

import pytest

from lingpai.wire.message_signatures import Message, parse_signature_input, signature_base
from tests.e2e.raw_http import chat, exchange, post
from tests.e2e.signed_caller import SignedCaller, refusal
from tests.secrets_scan import SCAN

BODY = json.dumps(chat("Hello", model="lingpai/eliza")).encode()
EXPLAIN = "/api/v1/signatures/explain"


@pytest.fixture
def caller(demo, key_name):
    return SignedCaller(demo, key_name)


def steps_of(outcome):
    return {step["name"]: step for step in json.loads(outcome.stdout)["steps"]}


def base_of(request):
    """What a signer signs of a raw request, by the same rules."""
    head = request.partition(b"\r\n\r\n")[0].decode()
    first, *lines = head.split("\r\n")
    fields = tuple(tuple(line.split(": ", 1)) for line in lines)
    method, target, _ = first.split(" ")
    message = Message(
        method=method, target=target, scheme="http", authority=dict(fields)["host"], fields=fields
    )
    return signature_base(
        message, parse_signature_input(message.value("signature-input"))["lingpai"]
    ).decode()


# -- keys


def test_a_secret_stands_alone_on_stdout_and_works(demo, caller):
    outcome = demo.cli(
        "keys",
        "signing-keys",
        "create",
        caller.key_id,
        "laptop",
        "--algorithm",
        "hmac-sha256",
        "--expires",
        "90d",
    )
    SCAN.secrets.add_credentials(outcome.stdout)

    secret = outcome.stdout.removesuffix("\n")
    assert outcome.returncode == 0, outcome.stderr
    assert secret.startswith("sg-lp-")
    assert secret not in outcome.stderr
    assert f"sgn_{secret[6:18]}" in outcome.stderr
    listed = demo.cli_json("keys", "signing-keys", "list", caller.key_id)
    assert [each["name"] for each in listed] == ["of a test", "laptop"]
    assert "secret" not in listed[1]


@pytest.mark.parametrize("form", ["file", "stdin"])
def test_a_public_key_from_openssl(demo, caller, tmp_path, form):
    private, public = tmp_path / "key.pem", tmp_path / "public.pem"
    subprocess.run(["openssl", "genpkey", "-algorithm", "ed25519", "-out", private], check=True)
    subprocess.run(["openssl", "pkey", "-in", private, "-pubout", "-out", public], check=True)

    place, stdin = (str(public), "") if form == "file" else ("-", public.read_text())
    outcome = demo.cli(
        "keys", "signing-keys", "create", caller.key_id, "ci", "--public-key", place, stdin=stdin
    )

    assert outcome.returncode == 0, outcome.stderr
    assert outcome.stdout.startswith("sgn_")


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("create", "KEY", "ci"), 2, "openssl genpkey"),
        (("create", "KEY", "ci", "--public-key", "/nowhere"), 2, "/nowhere"),
        (("create", "no such key", "ci", "--algorithm", "hmac-sha256"), 1, "no key"),
        (("delete", "KEY", "sgn_000000000000"), 1, "no signing key"),
    ],
)
def test_what_goes_wrong_says_what_to_do(demo, caller, arguments, code, words):
    outcome = demo.cli(
        "keys", "signing-keys", *(caller.key_id if each == "KEY" else each for each in arguments)
    )

    assert outcome.returncode == code
    assert words in outcome.stderr


def test_a_private_key_is_refused_and_not_repeated(demo, caller, tmp_path):
    private = tmp_path / "key.pem"
    subprocess.run(["openssl", "genpkey", "-algorithm", "ed25519", "-out", private], check=True)

    outcome = demo.cli("keys", "signing-keys", "create", caller.key_id, "ci", "--public-key", str(private))

    assert outcome.returncode == 1
    assert "private key" in outcome.stderr
    assert private.read_text().splitlines()[1] not in outcome.stderr


def test_deleting_and_requiring(demo, caller):
    assert demo.cli("keys", "require-signature", caller.key_id).returncode == 0
    assert post(demo.port, "/v1/chat/completions", BODY, key=caller.key).error["code"] == "signature_required"
    assert "required" in demo.cli("keys", "show", caller.key_id).stdout
    assert demo.cli("keys", "require-signature", caller.key_id, "--lift").returncode == 0
    assert post(demo.port, "/v1/chat/completions", BODY, key=caller.key).status == 200

    deleted = demo.cli("keys", "signing-keys", "delete", caller.key_id, caller.signing_key_id)

    assert deleted.returncode == 0, deleted.stderr
    assert refusal(caller.send(BODY)) == (401, "signature_invalid", "keyid")
    assert "no signing keys" in demo.cli("keys", "signing-keys", "list", caller.key_id).stderr


def test_a_key_can_be_made_for_signed_requests_only(demo, key_name):
    made = demo.cli("keys", "create", key_name, "--signature-required")
    SCAN.secrets.add_credentials(made.stdout)

    assert "signed requests only" in made.stderr
    assert demo.cli_json("keys", "show", key_name)["signature_required"] is True


def test_the_last_use_of_a_signing_key_is_kept(make_server):
    server = make_server().start()
    caller = SignedCaller(server, "signs")
    assert caller.send(BODY).status == 200

    server.stop()
    server.start()

    assert server.admin("GET", caller.path)["data"][0]["last_used_at"] is not None


# -- why a signature is refused


def test_the_doctor_finds_nothing_wrong_with_a_good_request(demo, caller, tmp_path):
    request = caller.request(BODY)
    (tmp_path / "request.http").write_bytes(request)
    (tmp_path / "base.txt").write_text(base_of(request))

    outcome = demo.cli(
        "doctor",
        "--signature",
        str(tmp_path / "request.http"),
        "--signed-base",
        str(tmp_path / "base.txt"),
        "--json",
    )

    assert outcome.returncode == 0, outcome.stdout
    assert {step["state"] for step in steps_of(outcome).values()} == {"ok"}
    assert json.loads(outcome.stdout)["signature_base"] == base_of(request)
    assert exchange(demo.port, request).status == 200  # no nonce was used up


def test_the_doctor_shows_which_component_differs(demo, caller, tmp_path):
    request = caller.request(BODY)
    (tmp_path / "base.txt").write_text(base_of(request))
    changed = request.replace(
        b"content-type: application/json", b"content-type: application/json; charset=utf-8"
    )
    (tmp_path / "request.http").write_bytes(changed)

    outcome = demo.cli(
        "doctor", "--signature", str(tmp_path / "request.http"), "--signed-base", str(tmp_path / "base.txt")
    )

    assert outcome.returncode == 1
    assert 'differs: "content-type"' in outcome.stdout
    assert "signed 'application/json'" in outcome.stdout
    assert '"content-type": application/json; charset=utf-8\n' in outcome.stdout
    assert "not one of its key" in outcome.stdout


def test_the_doctor_tells_of_clock_digest_and_missing_components(demo, caller, tmp_path):
    request = caller.request(BODY, clock_offset_s=-1000).replace(b'"content-type" ', b"")
    (tmp_path / "request.http").write_bytes(request[:-1] + b" ")

    steps = steps_of(demo.cli("doctor", "--signature", str(tmp_path / "request.http"), "--json"))

    assert {name for name, step in steps.items() if step["state"] == "failed"} == {
        "created", "expires", "content-type", "content-digest", "key",
    }  # fmt: skip
    assert "s ago by this server" in steps["created"]["detail"]


def test_the_doctor_does_not_call_a_request_without_digest_one_without_body(demo, tmp_path):
    (tmp_path / "request.http").write_bytes(
        b"POST /v1/completions HTTP/1.1\r\nHost: models.example\r\n\r\n{}"
    )

    steps = steps_of(demo.cli("doctor", "--signature", str(tmp_path / "request.http"), "--json"))

    assert steps["digest"] == steps["digest"] | {"state": "skipped", "detail": "there is none"}


def test_the_doctor_reads_what_curl_shows_and_the_body_from_its_file(demo, caller, tmp_path):
    request = caller.request(BODY)
    head = request.partition(b"\r\n\r\n")[0]
    shown = (
        b"*   Trying 127.0.0.1:8741...\n"
        + b"".join(b"> %b\n" % line for line in head.split(b"\r\n"))
        + b">\n"
    )
    (tmp_path / "curl.txt").write_bytes(shown)
    (tmp_path / "body.json").write_bytes(BODY)

    without = demo.cli("doctor", "--signature", str(tmp_path / "curl.txt"), "--json")
    with_body = demo.cli(
        "doctor", "--signature", "-", "--body", str(tmp_path / "body.json"), "--json", stdin=shown.decode()
    )

    assert steps_of(without)["digest"]["state"] == "skipped"
    assert steps_of(without)["key"]["state"] == "ok"
    assert steps_of(with_body)["digest"]["state"] == "ok"


def test_the_doctor_works_without_any_server(demo, caller, tmp_path):
    (tmp_path / "request.http").write_bytes(caller.request(BODY))

    outcome = demo.cli("doctor", "--signature", str(tmp_path / "request.http"), "--json", at_data=False)

    assert outcome.returncode == 0, outcome.stdout
    assert steps_of(outcome)["key"]["state"] == "skipped"


def test_the_doctor_says_what_is_no_request(demo, tmp_path):
    (tmp_path / "x").write_text("hello")

    outcome = demo.cli("doctor", "--signature", str(tmp_path / "x"))

    assert outcome.returncode == 1
    assert "request line" in outcome.stdout
    assert demo.cli("doctor", "--signature", str(tmp_path / "nowhere")).returncode == 2
    assert demo.cli("doctor", "--body", str(tmp_path / "x")).returncode == 2


# -- the endpoint behind it


def explain(server, key, **fields):
    return post(server.port, EXPLAIN, fields, key=key)


def test_explaining_accepts_nothing_and_uses_no_nonce_up(demo, caller):
    request = caller.request(BODY)

    told = [explain(demo, caller.key, request=request.decode()).json for _ in range(2)]

    assert [each["verified"] for each in told] == [True, True]
    assert told[0]["faults"] == []
    assert told[0]["signature_base"] == base_of(request)
    assert abs(told[0]["clock_difference_s"]) < 30
    assert exchange(demo.port, request).status == 200


def test_explaining_tells_nobody_of_somebody_elses_key(demo, caller, key_name):
    demo.try_admin("POST", "/api/v1/users", {"name": f"eve-{key_name}"})
    eve = demo.make_key("of eve", user=f"eve-{key_name}")

    told = explain(demo, eve, request=caller.request(BODY).decode()).json

    assert told["verified"] is None
    assert told["faults"] == []


def test_explaining_never_shows_a_right_signature_or_secret(demo, caller):
    request = caller.request(BODY)
    right = request.partition(b"signature: lingpai=:")[2].partition(b":")[0]

    answer = explain(demo, caller.key, request=request.replace(right, b"A" * 43 + b"=").decode())

    assert answer.json["verified"] is False
    assert right not in answer.body
    assert caller.secret.encode() not in answer.body


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({}, "request"),
        ({"request": "hello"}, "request"),
        ({"request": "GET / HTTP/1.1\r\n\r\n", "body_base64": "?"}, "body_base64"),
        ({"request": "GET / HTTP/1.1\r\n\r\n", "accept": True}, "accept"),
        ({"request": "x" * 200_001}, "request"),
    ],
)
def test_what_cannot_be_explained_is_refused(demo, caller, fields, param):
    answer = explain(demo, caller.key, **fields)

    assert (answer.status, answer.error["param"]) == (400, param)


def test_a_body_that_is_no_text_is_explained_from_its_base64(demo, caller):
    body = bytes(range(256))
    request = caller.request(body, headers={"content-type": "application/octet-stream"})
    head = request.partition(b"\r\n\r\n")[0].decode()

    told = explain(demo, caller.key, request=head, body_base64=base64.b64encode(body).decode()).json

    assert (told["faults"], told["verified"]) == ([], True)


def test_explaining_needs_a_key(demo):
    assert post(demo.port, EXPLAIN, {"request": "GET / HTTP/1.1"}).status == 401
