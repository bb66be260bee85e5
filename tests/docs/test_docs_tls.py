"""The guide to TLS: its commands make a certificate that works, its nginx is a proxy that tells who calls."""

import http.client
import os
import shutil
import subprocess
import time
from functools import partial
from pathlib import Path

import pytest
from document_parts import ROOT, split

from lingpai.lane import arrivals, front, tls
from tests.certificates import Authority
from tests.e2e.lingpai_server import LingpaiServer, free_port

GUIDE = ROOT / "docs" / "guides" / "tls.md"
TEXT = GUIDE.read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    _, fences = split(TEXT)
    return ["\n".join(fence.lines) for fence in fences if fence.language == language]


def test_figures_are_those_of_the_code():
    assert f"up to {arrivals.MOST_WAITING:,} connections may be waiting" in TEXT
    assert f"one, and {arrivals.MOST_HANDSHAKES} be in the middle" in TEXT
    assert front.HEAD_TIMEOUT_S == 10
    assert "closed after ten seconds" in TEXT
    assert tls.WARN_BEFORE_S == 14 * 86400
    assert "warns two weeks before" in TEXT


def test_certificate_for_a_trial_works_with_the_commands(tmp_path: Path):
    commands = [line for line in blocks("sh")[0].split("\n") if not line.startswith("lingpai")]
    subprocess.run(["sh", "-ec", "\n".join(commands)], cwd=tmp_path, check=True, capture_output=True)
    arguments = ("--tls-cert", "fullchain.pem", "--tls-key", "privkey.pem")

    server = LingpaiServer(tmp_path, arguments=arguments, config="").start()
    environment = {"LINGPAI_CA_FILE": "fullchain.pem", "LINGPAI_SERVER": f"https://localhost:{server.port}"}
    doctor = server.cli("doctor", environment={**environment, "LINGPAI_API_KEY": server.key}, at_data=False)

    assert server.stop() == 0
    assert doctor.returncode == 0, doctor.stdout


@pytest.mark.skipif(shutil.which("nginx") is None, reason="the proxy of the guide is nginx")
def test_nginx_of_the_guide_tells_who_calls(tmp_path: Path):
    """With the settings of the guide beside it; what a caller writes into the header changes nothing."""
    settings = next(text for text in blocks("toml") if "trusted_proxies" in text)
    server = LingpaiServer(tmp_path / "server", config=f"{settings}\n").start()
    authority = Authority(tmp_path / "certificates")
    certificate, key = authority.issue()
    port = free_port()
    conf = blocks("nginx")[0].replace("listen 443 ssl", f"listen 127.0.0.1:{port} ssl")
    conf = conf.replace("127.0.0.1:8741", f"127.0.0.1:{server.port}")
    conf = conf.replace("/etc/nginx/fullchain.pem", str(certificate)).replace(
        "/etc/nginx/privkey.pem", str(key)
    )
    nginx = start_nginx(tmp_path / "nginx", conf)
    allowed = server.make_key("allowed", allowed_ips=["127.0.0.9"])
    spoofed = {"X-Forwarded-For": "127.0.0.9", "Forwarded": "for=127.0.0.9", "X-Forwarded-Proto": "http"}
    caller = partial(ask, authority, port)
    try:
        own = caller("127.0.0.5", "/v1/key", {"Authorization": f"Bearer {server.key}"})
        statuses = [
            caller(address, "/v1/key", {"Authorization": f"Bearer {allowed}", **spoofed}).status
            for address in ("127.0.0.5", "127.0.0.9")
        ]
        metrics = caller("127.0.0.5", "/metrics", spoofed)
    finally:
        nginx.terminate()
        nginx.wait(10)
        is_stopped = server.stop() == 0

    assert (own.status, statuses, metrics.status, is_stopped) == (200, [403, 200], 403, True)
    assert own.getheader("strict-transport-security") == "max-age=63072000"


def start_nginx(folder: Path, conf: str) -> "subprocess.Popen[bytes]":
    folder.mkdir()
    kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    temporary = "".join(f"{kind}_temp_path {folder}/{kind};\n" for kind in kinds)
    user = "user root;\n" if os.geteuid() == 0 else ""
    (folder / "nginx.conf").write_text(
        f"{user}daemon off;\npid {folder}/pid;\nerror_log {folder}/error.log;\nevents {{}}\n"
        f"http {{\naccess_log off;\n{temporary}{conf}\n}}\n"
    )
    return subprocess.Popen(
        ["nginx", "-p", str(folder), "-c", str(folder / "nginx.conf")], stderr=subprocess.DEVNULL
    )


def ask(
    authority: Authority, port: int, address: str, path: str, headers: dict[str, str]
) -> http.client.HTTPResponse:
    """From `address`, through nginx, which may still be starting."""
    deadline = time.monotonic() + 10
    while True:
        connection = http.client.HTTPSConnection(
            "localhost", port, source_address=(address, 0), context=authority.client_context(), timeout=10
        )
        try:
            connection.request("GET", path, headers=headers)
            answer = connection.getresponse()
            answer.read()
        except OSError:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        else:
            return answer
        finally:
            connection.close()
