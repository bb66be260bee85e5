"""How a command finds its server, and what it says when that fails."""

import os
import socket
import stat
from pathlib import Path

import httpx2
import pytest

from lingpai.cli.failures import CommandError
from lingpai.cli.server import Place, explain_unreachable, has_socket
from lingpai.client import ServerUnreachableError
from tests.fakes.management_api import Answer, error


def test_no_server_at_all(lingpai):
    outcome = lingpai("keys", "list")

    assert (outcome.returncode, outcome.stdout) == (1, "")
    assert "lingpai serve" in outcome.stderr
    assert "--data" in outcome.stderr
    assert "LINGPAI_SERVER" in outcome.stderr


def test_a_socket_whose_server_died(lingpai, tmp_path):
    (tmp_path / "data").mkdir()
    with socket.socket(socket.AF_UNIX) as left_over:
        left_over.bind(str(tmp_path / "data" / "admin.sock"))

    outcome = lingpai("keys", "list")

    assert outcome.returncode == 1
    assert "no server answers" in outcome.stderr
    assert "lingpai serve --data" in outcome.stderr


def test_the_socket_wins_over_the_environment(lingpai, api, remote, signed_in):
    """On the server's own host the local administrator needs no key."""
    outcome = lingpai("users", "list", environment=signed_in)

    assert outcome.returncode == 0
    assert len(api.requests) == 1
    assert remote.requests == []


def test_data_directory_as_an_option(lingpai, api, tmp_path):
    outcome = lingpai(
        "users", "list", "--data", str(tmp_path / "data"), environment={"LINGPAI_DATA": "/nowhere"}
    )

    assert outcome.returncode == 0
    assert len(api.requests) == 1


def test_server_option_wins_over_the_socket_and_sends_the_key(lingpai, api, remote, signed_in):
    outcome = lingpai("users", "list", "--server", f"{remote.server}/v1/", environment=signed_in)

    assert outcome.returncode == 0
    assert api.requests == []
    assert remote.last.headers["authorization"] == f"Bearer {remote.accepted_key}"


def test_two_servers_are_one_too_many(lingpai, tmp_path):
    assert lingpai("users", "list", "--server", "http://h", "--data", str(tmp_path)).returncode == 2


def test_without_a_key_it_is_not_signed_in(lingpai, remote):
    outcome = lingpai("keys", "list", environment={"LINGPAI_SERVER": remote.server})

    assert outcome.returncode == 3
    assert "LINGPAI_API_KEY" in outcome.stderr
    assert remote.requests == []


def test_a_refused_key_is_not_signed_in_and_is_not_shown(lingpai, remote):
    wrong = {"LINGPAI_SERVER": remote.server, "LINGPAI_API_KEY": "sk-lp-wrong"}

    outcome = lingpai("keys", "list", environment=wrong)

    assert outcome.returncode == 3
    assert "The key is unknown" in outcome.stderr
    assert "sk-lp-wrong" not in outcome.stderr


def test_a_key_with_a_line_break_never_leaves_the_machine(lingpai, remote):
    broken = {"LINGPAI_SERVER": remote.server, "LINGPAI_API_KEY": "sk-lp-secret\nx"}

    outcome = lingpai("keys", "list", environment=broken)

    assert outcome.returncode == 3
    assert "secret" not in outcome.stderr
    assert remote.requests == []


def test_a_refusal_has_its_own_exit_code(lingpai, remote, signed_in):
    remote.faults["GET", "/api/v1/users"] = error(403, "insufficient_scope", "The key lacks users:read.")

    outcome = lingpai("users", "list", environment=signed_in)

    assert outcome.returncode == 4
    assert "users:read" in outcome.stderr


def test_a_server_fault_names_the_request(lingpai, api):
    fault = error(500, "internal_error", "Something went wrong.", **{"x-request-id": "req_42"})
    api.faults["GET", "/api/v1/users"] = fault

    outcome = lingpai("users", "list")

    assert outcome.returncode == 1
    assert "req_42" in outcome.stderr


def test_another_program_at_the_address(lingpai, remote, signed_in):
    remote.faults["GET", "/api/v1/users"] = Answer(200, b"<html>", {"content-type": "text/html"})

    outcome = lingpai("users", "list", environment=signed_in)

    assert outcome.returncode == 1
    assert "Lingpai server" in outcome.stderr


def test_nothing_listens_at_the_address(lingpai):
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = f"http://127.0.0.1:{free.getsockname()[1]}"

    outcome = lingpai("users", "list", environment={"LINGPAI_SERVER": address, "LINGPAI_API_KEY": "sk-lp-x"})

    assert outcome.returncode == 1
    assert address in outcome.stderr
    assert "lingpai doctor" in outcome.stderr


def test_a_bad_address_is_a_usage_error(lingpai):
    outcome = lingpai("users", "list", "--server", "ftp://h", environment={"LINGPAI_API_KEY": "sk-lp-x"})

    assert outcome.returncode == 2


def test_a_redirect_is_not_followed_with_the_key(lingpai, remote, signed_in):
    remote.faults["GET", "/api/v1/users"] = Answer(302, None, {"location": "http://elsewhere.example/"})

    outcome = lingpai("users", "list", environment=signed_in)

    assert outcome.returncode == 1
    assert "elsewhere.example" in outcome.stderr


def test_permission_denied_says_who_may():
    refused = ServerUnreachableError("Cannot connect")
    refused.__cause__ = httpx2.ConnectError("x")
    refused.__cause__.__cause__ = PermissionError(13, "Permission denied")

    message = explain_unreachable(refused, Place(socket=Path("/srv/lingpai/admin.sock")))

    assert "sudo -u" in message


@pytest.fixture
def ordinary_user():
    """Root may look everywhere, so for the length of a test it is somebody else."""
    user = os.geteuid()
    if user == 0:
        os.seteuid(65534)
    yield
    os.seteuid(user)


@pytest.fixture
def closed_directory(tmp_path):
    path = tmp_path / "data"
    path.mkdir(mode=0)
    yield path
    path.chmod(0o700)


def test_a_closed_data_directory(closed_directory, ordinary_user):
    with pytest.raises(CommandError, match="sudo -u"):
        has_socket(closed_directory / "admin.sock")


def test_a_plain_file_is_not_a_socket(tmp_path):
    path = tmp_path / "admin.sock"
    path.write_text("")

    assert not stat.S_ISSOCK(path.stat().st_mode)
    assert not has_socket(path)


def test_without_anything_set_up_a_server_can_be_named(lingpai, tmp_path):
    outcome = lingpai("keys", "list", environment={"LINGPAI_DATA": ""})

    assert outcome.returncode == 1
    assert "or name a server: LINGPAI_SERVER / --server" in outcome.stderr


@pytest.mark.parametrize(
    ("arguments", "call", "command"),
    [
        (["models", "show", "a/b"], "GET /v1/models", "lingpai models list"),
        (["keys", "show", "k"], "GET /api/v1/keys", "lingpai keys list"),
        (["keys", "show", "k"], "GET /api/v1/users", "lingpai users list"),
    ],
)
def test_the_server_s_advice_names_commands(lingpai, api, arguments, call, command):
    path = f"/api/v1/{arguments[0]}/{arguments[2]}"
    api.faults["GET", path] = error(404, "not_found", f"There is no such thing. `{call}` lists them.")

    outcome = lingpai(*arguments)

    assert outcome.stderr == f"error: There is no such thing. `{command}` lists them.\n"
