"""Projects of a release without members get theirs when the database is upgraded, and every key goes on working."""

from pathlib import Path

from sqlalchemy import Connection, text

from lingpai.identity.interfaces import ApiKey
from lingpai.identity.store import SqlKeyStore
from lingpai.storage.database import Database, sqlite_url
from lingpai.storage.upgrade import upgrade

USER = "INSERT INTO users (id, name, role, limits, created_at) VALUES (:id, :name, 'member', '[]', 1.0)"
PROJECT = (
    "INSERT INTO projects (id, name, owner_id, is_personal, limits, created_at)"
    " VALUES (:id, :name, :owner, :personal, '[]', 2.0)"
)
KEY = (
    "INSERT INTO api_keys (id, name, user_id, project_id, secret_hmac, pepper_version, hint, scopes, models, limits,"
    " allowed_ips, created_at, deleted_at)"
    " VALUES (:id, :id, :user, :project, :hmac, 1, '', '[]', '[]', '[]', '[]', :at, :deleted_at)"
)


def add_rows_of_old(connection: Connection) -> None:
    for name in ("ada", "bob", "eve"):
        connection.execute(text(USER), {"id": f"usr_{name}", "name": name})
        values = {"id": f"prj_{name}", "name": name, "owner": f"usr_{name}", "personal": True}
        connection.execute(text(PROJECT), values)
    values = {"id": "prj_search", "name": "search", "owner": "usr_ada", "personal": False}
    connection.execute(text(PROJECT), values)
    for key, user, project, at, deleted_at in (
        ("own", "ada", "search", 3.0, None),
        ("guest", "bob", "search", 5.0, None),
        ("guest2", "bob", "search", 4.0, None),
        ("gone", "eve", "search", 3.0, 6.0),
        ("stray", "bob", "ada", 3.0, None),
    ):
        row = {"id": key, "user": f"usr_{user}", "project": f"prj_{project}", "at": at}
        hmac = None if deleted_at else b"x" * 32
        connection.execute(text(KEY), {**row, "hmac": hmac, "deleted_at": deleted_at})


def test_owners_are_admins_and_who_has_keys_in_a_project_is_a_member(tmp_path: Path) -> None:
    database = Database(sqlite_url(tmp_path / "lingpai.db"))
    with database.write() as connection:
        upgrade(connection, "0008")
        add_rows_of_old(connection)

    database.migrate()

    with database.read() as connection:
        members = connection.execute(text("SELECT * FROM project_members")).all()
        found = {(each.project_id, each.user_id): (each.role, each.created_at) for each in members}
        keys = {key_id: key(connection, key_id) for key_id in ("own", "guest", "guest2", "stray")}
    database.close()
    assert found == {
        ("prj_ada", "usr_ada"): ("admin", 2.0),
        ("prj_bob", "usr_bob"): ("admin", 2.0),
        ("prj_eve", "usr_eve"): ("admin", 2.0),
        ("prj_search", "usr_ada"): ("admin", 2.0),
        ("prj_search", "usr_bob"): ("member", 4.0),
    }
    assert {key_id: key.state(10.0) for key_id, key in keys.items()} == dict.fromkeys(keys, "active")
    assert keys["stray"].project_name == "bob", "a personal project has exactly its owner"


def key(connection: Connection, key_id: str) -> ApiKey:
    [found] = SqlKeyStore().find(connection, key_id)
    return found
