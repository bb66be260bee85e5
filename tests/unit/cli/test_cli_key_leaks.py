"""`lingpai keys scan` and `report-leaked`: found exactly, never printed."""

import base64
import json
import os
import socket
from typing import get_args

import pytest

from lingpai.identity.secret_routes import MOST_REPORT_BYTES
from lingpai.ids import Prefix, mint_credential


@pytest.fixture
def key():
    return mint_credential("sk-lp-").token


@pytest.fixture
def planted(tmp_path):
    """The one folder in which the tests may leave keys; see ALLOWED in tests/secrets_scan.py."""
    folder = tmp_path / "planted"
    folder.mkdir()
    return folder


def mistyped(token):
    return token[:-1] + ("a" if token[-1] != "a" else "b")


def test_scan_finds_credentials_of_every_kind_and_prints_none(lingpai, planted):
    kinds = {
        "sk-lp-": "API key",
        "at-lp-": "access token",
        "rt-lp-": "refresh token",
        "cs-lp-": "client secret",
        "ss-lp-": "session",
        "in-lp-": "invitation",
        "sg-lp-": "signing secret",
    }
    assert set(kinds) == set(get_args(Prefix))
    tokens = [mint_credential(prefix).token for prefix in kinds]
    (planted / "notes").mkdir()
    (planted / "notes" / ".hidden").write_text("\n\n".join(f"KEY='{token}'" for token in tokens))

    outcome = lingpai("keys", "scan", str(planted / "notes"), "--json")

    assert outcome.returncode == 1
    found = json.loads(outcome.stdout)
    path = str(planted / "notes" / ".hidden")
    assert found == [
        {
            "path": path,
            "line": 1 + 2 * place,
            "kind": kind,
            "hint": f"{token[:6]}…{token[-4:]}",
            "id": token[6:18],
        }
        for place, (kind, token) in enumerate(zip(kinds.values(), tokens, strict=True))
    ]
    assert not any(token[18:61] in outcome.stdout + outcome.stderr for token in tokens)
    assert "7 found in 1 file." in outcome.stderr


def test_scan_as_a_table_tells_the_place(lingpai, planted, key):
    file = planted / "app.log"
    file.write_bytes(b"\x00\xff binary\n" + key.encode() + b"\n")

    outcome = lingpai("keys", "scan", str(file))

    assert outcome.returncode == 1
    assert outcome.stdout.splitlines()[1].split() == [
        f"{file}:2",
        "API",
        "key",
        f"sk-lp-…{key[-4:]}",
        key[6:18],
    ]


def test_scan_is_silent_about_what_only_looks_like_a_key(lingpai, planted, key):
    (planted / "a").write_text(f"{mistyped(key)} sk-lp-{'x' * 61} {key}x x{key} {key[:-1]}")
    (planted / "empty").touch()

    outcome = lingpai("keys", "scan", str(planted / "a"), str(planted / "empty"))

    assert (outcome.returncode, outcome.stdout) == (0, "")
    assert "Nothing was found." in outcome.stderr


def test_scan_follows_no_links_and_passes_over_what_is_no_file(lingpai, planted, key):
    (planted / "outside").write_text(key)
    folder = planted / "folder"
    folder.mkdir()
    (folder / "link").symlink_to(planted / "outside")
    (folder / "loop").symlink_to(folder)
    os.mkfifo(folder / "pipe")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(folder / "socket"))

        outcome = lingpai("keys", "scan", str(folder))

    assert outcome.returncode == 0, outcome.stderr


def test_scan_says_what_it_could_not_read(lingpai, planted):
    outcome = lingpai("keys", "scan", str(planted / "missing"))

    assert outcome.returncode == 1
    assert "missing: No such file or directory" in outcome.stderr


def test_report_leaked_sends_what_has_the_form_each_once(lingpai, api, key):
    other = mint_credential("cs-lp-").token

    outcome = lingpai("keys", "report-leaked", stdin=f"KEY='{key}'\n{key}\n{mistyped(key)}\nand {other}")

    assert outcome.returncode == 0
    assert api.last.path == "/api/v1/keys/leaked"
    assert api.last.body == {"keys": [key, other]}
    assert "Reported 2." in outcome.stderr
    assert key not in outcome.stdout + outcome.stderr


def test_report_leaked_goes_in_parts(lingpai, api):
    tokens = [mint_credential("sk-lp-").token for _ in range(201)]

    outcome = lingpai("keys", "report-leaked", "--json", stdin="\n".join(tokens))

    assert json.loads(outcome.stdout) == {"reported": 201}
    assert [len(request.body["keys"]) for request in api.requests] == [100, 100, 1]


def test_report_leaked_sends_jwts_in_parts_that_a_server_takes(lingpai, api):
    def encoded(claims):
        return base64.urlsafe_b64encode(json.dumps(claims).encode()).rstrip(b"=").decode()

    header = encoded({"alg": "RS256", "typ": "at+jwt", "kid": "k1"})
    tokens = [
        f"{header}.{encoded({'jti': f'{number:012}', 'scope': 'x' * 700})}.{'s' * 342}"
        for number in range(99)
    ]

    outcome = lingpai("keys", "report-leaked", "--json", stdin="\n".join(tokens))

    assert json.loads(outcome.stdout) == {"reported": 99}
    assert [token for request in api.requests for token in request.body["keys"]] == tokens
    assert max(len(json.dumps(request.body)) for request in api.requests) <= MOST_REPORT_BYTES


def test_report_leaked_needs_no_key_of_ones_own(lingpai, remote, key):
    remote.accepted_key = "none"
    remote.local_administrator = True  # it asks nobody who they are

    outcome = lingpai(
        "keys", "report-leaked", "--server", remote.server, stdin=key, environment={"LINGPAI_API_KEY": ""}
    )

    assert outcome.returncode == 0, outcome.stderr
    assert "authorization" not in remote.last.headers


def test_report_without_a_key_in_it_is_not_sent(lingpai, api):
    outcome = lingpai("keys", "report-leaked", stdin="nothing here")

    assert outcome.returncode == 1
    assert not api.requests
