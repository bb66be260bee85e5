"""`lingpai users`: invitations, passwords, signing out and leaving, as processes against a fake server."""

import json

import pytest

from tests.fakes.management_api import NOW, Answer
from tests.fakes.terminal import Terminal

PASSWORD = "quiet harbour lamp"
INVITATION = {"user": "alice", "expires_at": NOW, "invitation": "in-lp-x", "path": "/console/invitation"}
ALICE = {"id": "usr_1", "name": "alice", "role": "member"}


@pytest.fixture
def terminal(surroundings):
    """A person at a terminal."""
    opened = []

    def open_(*arguments):
        opened.append(Terminal(*arguments, environment=surroundings))
        return opened[-1]

    yield open_
    for each in opened:
        each.close()


def test_create_reads_the_password_from_standard_input(lingpai, api):
    outcome = lingpai("users", "create", "alice", "--password-stdin", stdin=f"{PASSWORD}\n")

    assert outcome.returncode == 0, outcome.stderr
    assert api.requests[0].body == {"name": "alice", "password": PASSWORD}
    assert PASSWORD not in outcome.stdout + outcome.stderr
    assert "users invite" not in outcome.stderr


def test_create_without_a_password_says_how_to_go_on(lingpai, api):
    assert "Let them sign in: lingpai users invite alice" in lingpai("users", "create", "alice").stderr


@pytest.mark.parametrize("stdin", [" leading and trailing ", "größer als\u3000zuvor", "a\tb\tc\td"])
def test_password_is_sent_as_it_is_but_for_the_line_break(lingpai, api, stdin):
    lingpai("users", "create", "alice", "--password-stdin", stdin=f"{stdin}\r\nand more\n")

    assert api.requests[0].body["password"] == stdin


@pytest.mark.parametrize("command", ["create", "set-password"])
def test_empty_standard_input_is_no_password(lingpai, api, command):
    outcome = lingpai("users", command, "alice", "--password-stdin", stdin="")

    assert (outcome.returncode, api.requests) == (2, [])
    assert "Standard input is empty" in outcome.stderr


def test_password_is_never_an_argument(lingpai, api):
    assert lingpai("users", "create", "alice", "--password", PASSWORD).returncode == 2
    assert lingpai("users", "set-password", "alice", PASSWORD).returncode == 2
    assert api.requests == []


def test_set_password_without_a_terminal_needs_password_stdin(lingpai, api):
    outcome = lingpai("users", "set-password", "alice")

    assert (outcome.returncode, api.requests) == (2, [])
    assert "--password-stdin" in outcome.stderr


def test_set_password_asks_twice_and_does_not_show_what_is_typed(terminal, api):
    api.faults["PUT", "/api/v1/users/alice/password"] = Answer(200, {"csrf_token": None})
    person = terminal("users", "set-password", "alice")

    person.wait_for("New password: ")
    person.type(f"{PASSWORD}\n")
    person.wait_for("Once more: ")
    assert PASSWORD not in person.seen
    person.type(f"{PASSWORD}\n")
    person.wait_for("All of their sessions have ended.")

    assert person.end() == 0
    assert api.requests[0].body == {"password": PASSWORD}


def test_two_different_entries_change_nothing(terminal, api):
    person = terminal("users", "set-password", "alice")

    person.wait_for("New password: ")
    person.type(f"{PASSWORD}\n")
    person.wait_for("Once more: ")
    person.type("quiet harbour lmap\n")
    person.wait_for("differ")

    assert person.end() == 1
    assert api.requests == []


def test_invite_prints_the_link_alone_on_standard_output(lingpai, api):
    api.faults["POST", "/api/v1/users/alice/invitation"] = Answer(201, INVITATION)

    outcome = lingpai("users", "invite", "alice")

    assert outcome.stdout == "/console/invitation#in-lp-x\n"
    assert "address of this server" in outcome.stderr
    assert "in-lp-x" not in outcome.stderr


def test_invite_prints_the_whole_link_when_the_address_is_known(lingpai, remote, signed_in):
    remote.faults["POST", "/api/v1/users/alice/invitation"] = Answer(201, INVITATION)

    outcome = lingpai("users", "invite", "alice", environment=signed_in)

    assert outcome.stdout == f"{remote.server}/console/invitation#in-lp-x\n"
    assert "address of this server" not in outcome.stderr


def test_invite_for_programs(lingpai, api):
    api.faults["POST", "/api/v1/users/alice/invitation"] = Answer(201, INVITATION)

    assert json.loads(lingpai("users", "invite", "alice", "--json").stdout) == INVITATION


def test_sign_out_ends_the_sessions_of_the_named_user(lingpai, api):
    api.faults["DELETE", "/api/v1/sessions"] = Answer(200, {"ended": 3, "programs": 1})

    outcome = lingpai("users", "sign-out", "alice")

    assert outcome.stderr == "Ended 3 sessions and 1 program of alice.\n"
    assert api.requests[0].query == {"user": "alice"}


def test_delete_asks_first(terminal, api):
    api.faults["GET", "/api/v1/users/alice"] = Answer(200, ALICE)
    person = terminal("users", "delete", "alice")

    person.wait_for("Delete them for good? [y/N]")
    person.type("\n")
    person.wait_for("Nothing was deleted.")

    assert person.end() == 1
    assert [request.method for request in api.requests] == ["GET"]


def test_delete_without_a_terminal_needs_yes(lingpai, api):
    api.faults["GET", "/api/v1/users/alice"] = Answer(200, ALICE)
    api.faults["DELETE", "/api/v1/users/usr_1"] = Answer(204)

    assert lingpai("users", "delete", "alice").returncode == 2
    deleted = lingpai("users", "delete", "alice", "--yes", "--json")

    assert json.loads(deleted.stdout) == {"id": "usr_1", "name": "alice", "deleted": True}
