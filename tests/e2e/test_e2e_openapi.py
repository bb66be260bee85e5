"""Schemathesis calls every operation of `/openapi.json`, with all of its checks, and finds nothing.

What it cannot know is in `tests/openapi/`: our formats of strings, and a few exceptions with their reasons.
"""

import json
import os
import subprocess
import sys
from functools import partial
from pathlib import Path

import httpx2
import pytest

from lingpai.identity.scopes import ALL_SCOPES, SCOPES_OF_ROLE
from tests.e2e.conftest import MakeServer
from tests.e2e.lingpai_server import ROOT, LingpaiServer
from tests.e2e.oauth_server import basic_header
from tests.e2e.waiting import wait_until
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
    server.admin("POST", "/api/v1/users", {"name": "neighbour", "limits": ["none"]})
    peer = server.make_key("of-peer", user="neighbour", scopes=sorted(SCOPES_OF_ROLE["member"]))
    with_peers = config_with_peers(tmp_path, [key, peer]) if role == "member" else CONFIG
    arguments = () if role == "member" else ("-H", f"Authorization: Bearer {key}")

    run_schemathesis(
        server, *arguments, config=with_peers, kept=stands_on(server, key) | stands_on(server, peer)
    )

    (tmp_path / "users.json").unlink(missing_ok=True)  # it holds the keys
    if role == "member":  # uses are noted once a minute
        is_peer_used = partial(was_used, server, peer)
        wait_until(is_peer_used, "object_level_authorization asks as the peer, too", seconds=75)


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_schemathesis_finds_nothing_as_a_client(make_server: MakeServer):
    """The endpoints of OAuth, with a client's own credentials: a bearer key gets a 401 there, whatever else is sent."""
    server = make_server("lingpai.demo").start()
    client = server.admin("POST", "/api/v1/clients", {"name": "asking", "limits": ["none"]})
    credentials = basic_header(client["client_id"], client["client_secret"])

    run_schemathesis(
        server, "-H", f"Authorization: {credentials}", "--include-path-regex", "^(/oauth/|/api/v1/token$)",
        config=CONFIG, kept={client["client_id"], client["name"]},
    )  # fmt: skip

    assert server.admin("GET", "/api/v1/tokens")["data"], "it was given tokens"


def config_with_peers(folder: Path, keys: list[str]) -> Path:
    """The configuration, to call with the first of two keys, and to look whether the other sees what is the first one's."""
    names = ("owner", "peer")
    users = [
        {"name": name, "fixedHeaders": [{"name": "Authorization", "value": f"Bearer {key}"}]}
        for name, key in zip(names, keys, strict=True)
    ]
    (folder / "users.json").write_text(json.dumps({"auth": users}))
    wfc = f'[auth.wfc]\npath = "{folder / "users.json"}"\nuser = "owner"\npeers = ["owner", "peer"]\n\n'
    (folder / "schemathesis.toml").write_text(wfc + CONFIG.read_text())
    return folder / "schemathesis.toml"


def run_schemathesis(server: LingpaiServer, *arguments: str, config: Path, kept: set[str]) -> None:
    """Try all operations, or those that `arguments` choose. What is `kept` is neither changed nor deleted."""
    outcome = subprocess.run(
        [
            str(Path(sys.executable).with_name("schemathesis")), "--config-file", str(config),
            "run", f"{server.base}/openapi.json", *arguments, "--seed", SEED,
            "--max-examples", str(MOST_EXAMPLES), "--phases", "examples,coverage,fuzzing,stateful",
            "--continue-on-failure", "--no-color",
        ],
        env={**server.environment, "LINGPAI_KEPT": " ".join(kept), "PYTHONPATH": str(ROOT), "SCHEMATHESIS_HOOKS": HOOKS},
        cwd=server.folder, capture_output=True, text=True, check=False, timeout=500,
    )  # fmt: skip

    SCAN.note("what Schemathesis shows", outcome.stdout)
    assert outcome.returncode == 0, outcome.stdout[-20000:]
    assert "will not run" not in outcome.stdout
    assert "Traceback" not in server.stderr
    assert httpx2.get(f"{server.base}/readyz").status_code == 200


def was_used(server: LingpaiServer, key: str) -> bool:
    return server.admin("GET", f"/api/v1/keys/{key[6:18]}")["last_used_at"] is not None


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
