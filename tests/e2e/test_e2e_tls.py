"""TLS on a real server: the profile, what is answered, who is turned away, and the commands that come over it."""

import contextlib
import json
import re
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa

from lingpai.lane.front import HEAD_TIMEOUT_S
from tests.certificates import Authority
from tests.e2e.conftest import MakeServer
from tests.e2e.lingpai_server import LingpaiServer
from tests.e2e.raw_http import RawAnswer, RawConnection, chat, exchange, get_bytes, post_bytes
from tests.fakes.openai_engine import FakeEngine

CHAT = "/v1/chat/completions"
SSLYZE = Path(sys.prefix) / "sslyze" / "bin" / "sslyze"
YEAR_S = 365 * 86400


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def secure(
    tmp_path_factory: pytest.TempPathFactory, authority: Authority, engine: FakeEngine
) -> Iterator[LingpaiServer]:
    """A server that speaks TLS."""
    certificate, key = authority.issue("secure", names=("localhost",))
    config = f'[server]\ntls_cert = "{certificate}"\ntls_key = "{key}"\n'
    server = LingpaiServer(tmp_path_factory.mktemp("secure"), engine.url, config=config).start()
    yield server
    server.stop()


def ask(server: LingpaiServer, authority: Authority, request: bytes) -> RawAnswer:
    return exchange(server.port, request, tls=authority.client_context())


# -- the profile


@pytest.mark.parametrize("kind", ["ecdsa", "rsa"])
def test_owasp_api8_sslyze_finds_mozillas_intermediate_profile(
    make_server: MakeServer, authority: Authority, kind: str
):
    assert SSLYZE.exists(), "make setup installs it"
    rsa_key = rsa.generate_private_key(public_exponent=65537, key_size=2048) if kind == "rsa" else None
    certificate, key = authority.issue(f"scanned-{kind}", key=rsa_key)
    server = make_server(config="", arguments=("--tls-cert", str(certificate), "--tls-key", str(key))).start()

    outcome = subprocess.run(
        [
            str(SSLYZE), "--mozilla_config", "intermediate", "--certinfo_ca_file", str(authority.path),
            f"localhost:{server.port}",
        ],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip

    assert outcome.returncode == 0, outcome.stdout
    assert f"localhost:{server.port}: OK - Compliant." in outcome.stdout
    assert "Client Renegotiation DoS Attack:   OK" in outcome.stdout
    assert server.stderr == ""


def test_address_that_is_shown_is_the_one_to_call(secure, authority):
    assert secure.base == f"https://127.0.0.1:{secure.port}"
    assert f"curl {secure.base}/v1/chat/completions" in secure.stdout


# -- answers


def test_calls_streams_and_the_management_api_work(secure, authority):
    key = secure.make_key("over-tls")

    call = ask(secure, authority, post_bytes(CHAT, chat(), key=key))
    stream = ask(secure, authority, post_bytes(CHAT, chat(stream=True), key=key))
    own = ask(secure, authority, get_bytes("/v1/key", key=key))

    assert call.json["choices"][0]["message"]["content"]
    assert stream.events[-1] == "[DONE]"
    assert own.json["name"] == "over-tls"
    assert secure.record_of(call.headers["x-request-id"])["client_address"] == "127.0.0.1"


@pytest.mark.parametrize(
    "request_bytes",
    [
        post_bytes(CHAT, chat()),  # a model call, refused
        get_bytes("/healthz"),
        get_bytes("/v1/keys"),  # no such path
        b"nonsense\r\n\r\n",
    ],
)
def test_rfc6797_s7_1_every_answer_over_tls_has_the_policy(secure, authority, request_bytes):
    answer = ask(secure, authority, request_bytes)

    found = re.fullmatch(r"max-age=(\d+)", answer.headers["strict-transport-security"])
    assert found is not None
    assert int(found[1]) >= YEAR_S


def test_good_call_over_tls_has_the_policy_too(secure, authority):
    for fields in ({}, {"stream": True}):
        answer = ask(secure, authority, post_bytes(CHAT, chat(**fields), key=secure.key))
        assert (answer.status, "strict-transport-security" in answer.headers) == (200, True)


@pytest.mark.parametrize("path", ["/healthz", "/v1/models", "/openapi.json", "/nowhere", CHAT])
def test_asvs_3_4_no_answer_is_taken_for_a_page(relay, path):
    request = post_bytes(path, chat()) if path == CHAT else get_bytes(path)

    headers = exchange(relay.port, request).headers

    assert headers["x-content-type-options"] == "nosniff"
    if path != CHAT:  # which nobody can open in a browser
        assert "frame-ancestors 'none'" in headers["content-security-policy"]
        assert headers["referrer-policy"] == "no-referrer"


def test_rfc6797_s7_2_answers_in_clear_text_have_no_policy(relay, relay_key):
    answers = [
        exchange(relay.port, request)
        for request in (post_bytes(CHAT, chat(), key=relay_key), get_bytes("/healthz"), b"nonsense\r\n\r\n")
    ]

    assert not any("strict-transport-security" in answer.headers for answer in answers)


@pytest.mark.parametrize(
    "request_bytes",
    [
        post_bytes(CHAT, chat(), key="k"),
        post_bytes(
            "/oauth/token", b"grant_type=client_credentials", content_type="application/x-www-form-urlencoded"
        ),
        get_bytes("/v1/models"),
        get_bytes("/"),
    ],
)
def test_asvs_4_1_2_clear_text_is_told_to_use_tls_and_not_redirected(secure, request_bytes):
    answer = exchange(secure.port, request_bytes)

    assert answer.status == 400
    assert "location" not in answer.headers
    assert answer.headers["content-type"] == "text/plain; charset=utf-8"
    assert b"use https://" in answer.body


def test_rfc8414_s2_issuer_and_endpoints_are_https(secure, authority):
    found = ask(secure, authority, get_bytes("/.well-known/oauth-authorization-server")).json

    addresses = [value for name, value in found.items() if name == "issuer" or name.endswith("_endpoint")]
    assert len(addresses) == 4
    assert all(address.startswith(secure.base) for address in addresses)
    assert secure.base.startswith("https://")


def test_end_of_the_certificate_is_in_the_metrics(secure):
    status, text = secure._ask("GET", "/metrics")

    figures = dict(line.split() for line in text.decode().splitlines() if re.match(r"lingpai_tls_\w+ ", line))
    left = float(figures["lingpai_tls_certificate_expiry_timestamp_seconds"]) - time.time()
    assert status == 200
    assert 89 * 86400 < left < 91 * 86400
    assert {"lingpai_tls_handshakes", "lingpai_tls_handshakes_failed_total"} <= figures.keys()


# -- floods


def hello(authority: Authority) -> bytes:
    """The first message of a handshake."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    with contextlib.suppress(ssl.SSLWantReadError):
        authority.client_context().wrap_bio(incoming, outgoing, server_hostname="localhost").do_handshake()
    return outgoing.read()


@pytest.mark.slow
def test_two_thousand_half_open_connections_leave_others_served(make_server, authority, engine):
    """A third says nothing, a third drips, a third begins a handshake and does not go on."""
    certificate, key = authority.issue("flooded")
    config = f'[server]\ntls_cert = "{certificate}"\ntls_key = "{key}"\n'
    server = make_server(engine.url, config=config).start()
    message = hello(authority)
    began = time.monotonic()
    with contextlib.ExitStack() as held:
        half_open = []
        for number in range(2000):
            connection = held.enter_context(socket.create_connection(("127.0.0.1", server.port), 10))
            connection.sendall((b"", message[:40], message)[number % 3])
            half_open.append(connection)
        waits = []
        for _ in range(20):
            asked = time.monotonic()
            assert ask(server, authority, post_bytes(CHAT, chat(), key=server.key)).status == 200
            waits.append(time.monotonic() - asked)
        while time.monotonic() - began < 2 * HEAD_TIMEOUT_S and server_holds(server):
            with contextlib.suppress(OSError):
                for connection in half_open[1:600:3]:
                    connection.send(b"\0")  # a byte now and then buys no time
            time.sleep(0.5)

        left = server_holds(server)

    assert max(waits) < HEAD_TIMEOUT_S / 2
    assert left == 0
    assert server.resident_bytes() < 200_000_000


def server_holds(server: LingpaiServer) -> int:
    """Connections whose handshake is not done."""
    _, text = server._ask("GET", "/metrics")
    return int(float(re.findall(r"^lingpai_tls_handshakes (\S+)", text.decode(), re.MULTILINE)[0]))


# -- client certificates


def test_certificate_of_a_client_is_required_and_logged(make_server, authority, engine, tmp_path):
    clients = Authority(tmp_path / "clients", "Authority of clients")
    certificate, key = authority.issue("mutual")
    config = (
        f'[server]\ntls_cert = "{certificate}"\ntls_key = "{key}"\ntls_client_ca = "{clients.path}"\n'
        'tls_client_certificates = "required"\nlog_calls = true\nlog_format = "json"\n'
    )
    server = make_server(engine.url, config=config).start()
    request = post_bytes(CHAT, chat(), key=server.key)
    known = authority.client_context(
        clients.issue("batch", names=("batch.example", "spiffe://example/batch"))
    )

    with RawConnection(server.port, tls=known) as connection:
        connection.send(request)
        answer = connection.read_answer()
    without = ask(server, authority, request)
    health = ask(server, authority, get_bytes("/healthz"))

    assert answer.status == 200
    assert {(each.status, each.error["code"]) for each in (without, health)} == {(400, "invalid_request")}
    assert "certificate" in without.error["message"]
    lines = [json.loads(line) for line in server.stderr.splitlines() if "lingpai.calls" in line]
    assert [line["certificate"] for line in lines] == ["batch.example spiffe://example/batch"]


# -- commands


def test_commands_work_with_a_private_authority(secure, authority):
    environment = {"LINGPAI_SERVER": f"https://localhost:{secure.port}", "LINGPAI_API_KEY": secure.key}
    for variable in ("LINGPAI_CA_FILE", "SSL_CERT_FILE"):
        trusting = {**environment, variable: str(authority.path)}
        doctor = secure.cli("doctor", environment=trusting, at_data=False)
        models = secure.cli("models", "list", "--json", environment=trusting, at_data=False)
        chatted = secure.cli(
            "run", "fake/chat", "Hello, prompt-canary-6c1d5e", environment=trusting, at_data=False
        )

        assert doctor.returncode == 0, doctor.stdout
        assert "the certificate is trusted" in doctor.stdout
        assert models.returncode == 0, models.stderr
        assert json.loads(models.stdout)
        assert chatted.returncode == 0, chatted.stderr


@pytest.mark.parametrize(
    ("address", "ca_file", "said"),
    [
        ("https://localhost:{port}", None, "is not trusted: .*LINGPAI_CA_FILE"),
        (
            "https://localhost:{port}",
            "/nowhere/ca.pem",
            "LINGPAI_CA_FILE names /nowhere/ca.pem, which is no file",
        ),
        (
            "https://127.0.0.1:{port}",
            "{ca}",
            "is not trusted: .*(mismatch|not valid for).*name that stands in",
        ),
        ("http://localhost:{port}", "{ca}", "localhost speaks TLS there: use https://"),
    ],
)
def test_commands_say_what_is_wrong_with_a_certificate(secure, authority, address, ca_file, said):
    environment = {"LINGPAI_SERVER": address.format(port=secure.port), "LINGPAI_API_KEY": secure.key}
    if ca_file is not None:
        environment["LINGPAI_CA_FILE"] = ca_file.format(ca=authority.path)

    outcome = secure.cli("models", "list", environment=environment, at_data=False)
    doctor = secure.cli("doctor", environment=environment, at_data=False)

    assert (outcome.returncode, doctor.returncode) == (1, 1)
    assert re.search(said, re.sub(r"\s+", " ", outcome.stderr)), outcome.stderr
    assert "Traceback" not in outcome.stderr + doctor.stderr


def test_commands_say_that_a_server_speaks_no_tls(relay, relay_key):
    environment = {"LINGPAI_SERVER": f"https://localhost:{relay.port}", "LINGPAI_API_KEY": relay_key}

    outcome = relay.cli("models", "list", environment=environment, at_data=False)

    assert outcome.returncode == 1
    assert "There is no TLS to be had" in outcome.stderr
