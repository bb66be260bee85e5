"""What the trail says of keys, users and projects: as the API shows them, and no secret."""

from dataclasses import replace

from lingpai.identity.deeds import (
    key_changed,
    key_created,
    key_deleted,
    project_changed,
    project_created,
    user_changed,
    user_created,
)
from lingpai.identity.interfaces import ApiKey, Project, Secret, User

NOW = 1_795_000_000.0
KEY = ApiKey(
    id="4fK3aaaaaaaa",
    name="ci",
    user_id="usr_1",
    user_name="alice",
    project_id="prj_1",
    project_name="search",
    hint="sk-lp-…abcd",
    scopes=("model:inference",),
    models=(),
    limits=("5/day",),
    allowed_ips=(),
    created_at=NOW,
    secret=Secret(hint="sk-lp-…abcd", created_at=NOW, expires_at=None, last_used_at=None),
)
USER = User(id="usr_1", name="alice", role="member", limits=(), created_at=1_795_000_000.0)
PROJECT = Project(
    id="prj_1",
    name="search",
    owner_id="usr_1",
    owner_name="alice",
    is_personal=False,
    limits=(),
    created_at=1_795_000_000.0,
)


def test_a_new_key_is_shown_as_a_list_shows_it():
    deed = key_created(KEY, NOW)

    assert (deed.action, deed.target_id, deed.target_name, deed.project_id) == (
        "key.create",
        "4fK3aaaaaaaa",
        "ci",
        "prj_1",
    )
    assert deed.after is not None
    assert (deed.after["limits"], deed.after["user"], deed.after["hint"]) == (
        ["5/day"],
        "alice",
        "sk-lp-…abcd",
    )
    assert "key" not in deed.after


def test_a_changed_key_shows_what_changed():
    deed = key_changed(KEY, replace(KEY, limits=("9/day",), expires_at=1_800_000_000.0), NOW)

    assert deed.before == {"limits": ["5/day"], "expires_at": None}
    assert deed.after == {"limits": ["9/day"], "expires_at": "2027-01-15T08:00:00Z"}


def test_a_disabled_key_is_told_apart():
    assert key_changed(KEY, replace(KEY, disabled_at=1.0), NOW).action == "key.disable"


def test_a_deleted_key_shows_what_it_was():
    deed = key_deleted(KEY, NOW)

    assert (deed.action, deed.after) == ("key.delete", None)
    assert deed.before is not None
    assert deed.before["name"] == "ci"


def test_users_and_projects_are_told_of_in_the_same_way():
    assert user_created(USER).action == "user.create"
    assert user_changed(USER, replace(USER, role="admin")).after == {"role": "admin"}
    assert user_changed(replace(USER, disabled_at=1.0), USER).action == "user.enable"
    assert project_created(PROJECT).project_id == "prj_1"
    assert project_changed(PROJECT, replace(PROJECT, name="find")).before == {"name": "search"}
