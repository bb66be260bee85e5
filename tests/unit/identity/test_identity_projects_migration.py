"""Users and keys of a release without projects get theirs when the database is upgraded."""

from pathlib import Path

from sqlalchemy import Connection, text

from lingpai.storage.database import Database, sqlite_url
from lingpai.storage.upgrade import upgrade

USERS = "INSERT INTO users (id, name, role, limits, created_at) VALUES (:id, :name, 'member', '[]', 5.0)"
KEYS = (
    "INSERT INTO api_keys (id, name, user_id, secret_hmac, pepper_version, hint, scopes, models, limits, allowed_ips,"
    " created_at, deleted_at) VALUES (:id, :id, :user, :hmac, 1, '', '[]', '[]', '[]', '[]', 6.0, :deleted_at)"
)


def add_rows_of_old(connection: Connection) -> None:
    for name in ("admin", "bob"):
        connection.execute(text(USERS), {"id": f"usr_{name}", "name": name})
    for key, user, deleted_at in (("a", "admin", None), ("b", "bob", None), ("gone", "bob", 7.0)):
        hmac = None if deleted_at else b"x" * 32
        values = {"id": key, "user": f"usr_{user}", "hmac": hmac, "deleted_at": deleted_at}
        connection.execute(text(KEYS), values)


def test_everybody_gets_a_personal_project_and_every_key_is_in_its_owners(tmp_path: Path) -> None:
    database = Database(sqlite_url(tmp_path / "lingpai.db"))
    with database.write() as connection:
        upgrade(connection, "0004")
        add_rows_of_old(connection)

    with database.write() as connection:
        upgrade(connection, "0005")

    with database.read() as connection:
        projects = connection.execute(text("SELECT * FROM projects ORDER BY name")).all()
        keys = connection.execute(text("SELECT id, project_id FROM api_keys ORDER BY id")).all()
    database.close()
    assert [(each.id, each.name, each.owner_id, each.is_personal, each.limits) for each in projects] == [
        ("prj_admin", "admin", "usr_admin", 1, "[]"),
        ("prj_bob", "bob", "usr_bob", 1, "[]"),
    ]
    assert [each.created_at for each in projects] == [5.0, 5.0]
    assert keys == [("a", "prj_admin"), ("b", "prj_bob"), ("gone", "prj_bob")]
