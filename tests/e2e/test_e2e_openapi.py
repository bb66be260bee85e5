"""Schemathesis calls every operation of `/openapi.json`, with all of its checks, and finds nothing.

What it cannot know is in `tests/openapi/`: our formats of strings, and a few exceptions with their reasons.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import httpx2
import pytest

from lingpai.identity.scopes import ALL_SCOPES, SCOPES_OF_ROLE
from tests.e2e.conftest import MakeServer
from tests.e2e.lingpai_server import ROOT, LingpaiServer
from tests.secrets_scan import SCAN
from tests.test_routes import OPEN

HOOKS = "tests.openapi.hooks"
CONFIG = ROOT / "tests" / "openapi" / "schemathesis.toml"
MOST_EXAMPLES = 12
SEED = os.environ.get("LINGPAI_SEED") or "20261201"
"""The same calls in every run; another seed looks further."""


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("role", ["admin", "member"])
def test_schemathesis_finds_nothing(make_server: MakeServer, tmp_path: Path, role: str):
    """As an administrator, and as a member beside whom there is another tenant with things of the same names."""
    server = make_server("lingpai.demo").start()
    key = key_of(server, role)
    for path in ("keys", "clients", "projects"):
        server.admin("POST", f"/api/v1/{path}", {"name": "laptop"})

    outcome = subprocess.run(
        [
            str(Path(sys.executable).with_name("schemathesis")), "--config-file", str(CONFIG),
            "run", f"{server.base}/openapi.json", "-H", f"Authorization: Bearer {key}", "--seed", SEED,
            "--max-examples", str(MOST_EXAMPLES), "--phases", "examples,coverage,fuzzing,stateful",
            "--continue-on-failure", "--no-color",
        ],
        env={**server.environment, "LINGPAI_KEPT": " ".join(stands_on(server, key)), "PYTHONPATH": str(ROOT), "SCHEMATHESIS_HOOKS": HOOKS},
        cwd=tmp_path, capture_output=True, text=True, check=False, timeout=500,
    )  # fmt: skip

    SCAN.note("what Schemathesis shows", outcome.stdout)
    assert outcome.returncode == 0, outcome.stdout[-20000:]
    assert "Traceback" not in server.stderr
    assert httpx2.get(f"{server.base}/readyz").status_code == 200


def stands_on(server: LingpaiServer, key: str) -> set[str]:
    """The ids and names of a key, of its owner, and of its project."""
    shown = server.admin("GET", f"/api/v1/keys/{key[6:18]}")
    names = {"users": shown["user"], "projects": shown["project"]}
    ids = {server.admin("GET", f"/api/v1/{path}/{name}")["id"] for path, name in names.items()}
    return {shown["id"], shown["name"], *names.values(), *ids}


def key_of(server: LingpaiServer, role: str) -> str:
    if role == "admin":
        return server.make_key("all", scopes=sorted(ALL_SCOPES))
    server.admin("POST", "/api/v1/users", {"name": "tenant", "role": "member", "limits": ["none"]})
    return server.make_key("all", user="tenant", scopes=sorted(SCOPES_OF_ROLE["member"]))


def test_every_operation_is_described_in_full(demo: LingpaiServer):
    """A summary, what a success and a refusal look like, and which credential it takes, unless it is open."""
    document = json.loads(httpx2.get(f"{demo.base}/openapi.json").text)
    operations = [
        (f"{method.upper()} {path}", operation)
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    ]

    assert len(operations) > 50
    for name, operation in operations:
        assert operation.get("summary"), name
        assert any(status.startswith("2") for status in operation["responses"]), name
        method, path = name.split()
        is_open = (method, path) in OPEN or "/.well-known/" in path
        assert is_open or operation.get("security"), name
        assert is_open or any(status.startswith("4") for status in operation["responses"]), name
        for content in operation.get("requestBody", {}).get("content", {}).values():
            assert content["schema"], name
