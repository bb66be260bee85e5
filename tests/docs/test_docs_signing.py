"""The programs of the guide to signed requests, run as they are written against a real server."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from document_parts import ROOT, split

from tests.e2e.lingpai_server import LingpaiServer
from tests.secrets_scan import SCAN

GUIDE = ROOT / "docs" / "guides" / "signing.md"


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    server = LingpaiServer(tmp_path_factory.mktemp("signing-guide")).start()
    yield server
    server.stop()


@pytest.fixture
def keys(server, tmp_path, request):
    """A bound API key with a signing key of each kind, and the environment of a program for each."""
    name = request.node.name
    path = f"/api/v1/keys/{name}/signing-keys"
    private = tmp_path / "key.pem"
    server.admin("POST", "/api/v1/keys", {"name": name, "signature_required": True})
    subprocess.run(["openssl", "genpkey", "-algorithm", "ed25519", "-out", private], check=True)
    public = subprocess.run(
        ["openssl", "pkey", "-in", private, "-pubout"], check=True, capture_output=True, text=True
    ).stdout
    hmac = server.admin("POST", path, {"name": "hmac", "algorithm": "hmac-sha256"})
    ed25519 = server.admin("POST", path, {"name": "ed", "algorithm": "ed25519", "public_key": public})
    SCAN.secrets.add_credentials(hmac["secret"])
    shared = {"PATH": os.environ["PATH"], "LINGPAI_SERVER": server.base}
    return {
        "hmac": shared | {"LINGPAI_SIGNING_KEY": hmac["id"], "LINGPAI_SIGNING_SECRET": hmac["secret"]},
        "ed25519": shared | {"LINGPAI_SIGNING_KEY": ed25519["id"]},
    }


def blocks(language):
    _, fences = split(GUIDE.read_text(encoding="utf-8"))
    return ["\n".join(fence.lines) + "\n" for fence in fences if fence.language == language]


def run(command, environment, folder):
    outcome = subprocess.run(
        command, env=environment, cwd=folder, capture_output=True, text=True, timeout=60, check=False
    )
    assert outcome.returncode == 0, outcome.stderr + outcome.stdout
    return outcome.stdout


def test_commands_make_the_keys_that_the_page_says(server, tmp_path):
    programs = f"{Path(sys.executable).parent}:{os.environ['PATH']}"

    printed = run(
        ["sh", "-ec", blocks("sh")[0]], {"PATH": programs, "LINGPAI_DATA": str(server.data)}, tmp_path
    )

    key, signing_key, secret = printed.split()
    SCAN.secrets.add_credentials(printed)
    assert [key[:6], signing_key[:4], secret[:6]] == ["sk-lp-", "sgn_", "sg-lp-"]


def test_python_signs_with_hmac_and_the_standard_library(keys, tmp_path):
    (tmp_path / "sign.py").write_text(blocks("python")[0])

    assert run([sys.executable, "-I", "sign.py"], keys["hmac"], tmp_path).strip()


def test_python_signs_with_ed25519(keys, tmp_path):
    with_hmac, with_ed25519 = blocks("python")
    definitions = with_hmac.partition("headers = signed(")[0]
    (tmp_path / "sign.py").write_text(definitions + with_ed25519)

    assert run([sys.executable, "-I", "sign.py"], keys["ed25519"], tmp_path).strip()


def test_curl_and_openssl_sign_with_ed25519(keys, tmp_path):
    (tmp_path / "sign.sh").write_text(blocks("bash")[0])

    assert '"choices"' in run(["bash", "sign.sh"], keys["ed25519"], tmp_path)


def test_curl_and_openssl_sign_with_hmac(keys, tmp_path):
    script, line = blocks("bash")
    with_ed25519 = next(each for each in script.splitlines() if each.startswith("signature="))
    (tmp_path / "sign.sh").write_text(script.replace(with_ed25519, line.rstrip()))

    assert '"choices"' in run(["bash", "sign.sh"], keys["hmac"], tmp_path)


def test_javascript_signs_with_hmac(keys, tmp_path):
    (tmp_path / "sign.mjs").write_text(blocks("js")[0])

    assert run(["node", "sign.mjs"], keys["hmac"], tmp_path).strip()


def test_javascript_signs_with_ed25519(keys, tmp_path):
    with_hmac, with_ed25519 = blocks("js")
    definitions = with_hmac.partition("const headers = signed(")[0]
    (tmp_path / "sign.mjs").write_text(definitions + with_ed25519)

    assert run(["node", "sign.mjs"], keys["ed25519"], tmp_path) == "200\n"
