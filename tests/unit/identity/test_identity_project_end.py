"""The end of a project: what goes with it, what stays, and that nobody ends one by accident."""

from collections.abc import Callable
from functools import partial

import pytest
from identity_fakes import NOW, Changes, KeptTrail
from sqlalchemy import text

from lingpai.errors import LingpaiError
from lingpai.identity.keyring import Keyring
from lingpai.identity.peppers import Peppers
from lingpai.identity.projects import Projects
from lingpai.identity.schemas import KeyCreate, ProjectCreate
from lingpai.identity.service import Keys
from lingpai.identity.store import SqlCredentialStore
from lingpai.principal import Principal
from lingpai.storage.database import Database

CLIENT = (
    "INSERT INTO clients (id, name, user_id, project_id, secret_hmac, pepper_version, grants, scopes, models, limits,"
    " allowed_ips, signature_required, created_at)"
    " VALUES ('cl', 'app', :user, :project, 'x', 1, '[]', '[]', '[]', '[]', '[]', 0, 1.0)"
)
FAMILY = (
    "INSERT INTO token_families (id, client_id, user_id, scopes, created_at, expires_at)"
    " VALUES ('fam', 'cl', :user, '[]', 1.0, 2.0)"
)
TOKEN = (
    "INSERT INTO access_tokens (id, client_id, user_id, family_id, scopes, created_at, expires_at)"
    " VALUES ('at', 'cl', :user, 'fam', '[]', 1.0, 2.0)"
)


def refusal(action: Callable[[], object]) -> LingpaiError:
    with pytest.raises(LingpaiError) as caught:
        action()
    return caught.value


@pytest.fixture
def ada(projects: Projects, admin: Principal, member: Callable[..., Principal]) -> Principal:
    """Whose the project `search` is."""
    ada = member("ada")
    projects.create(admin, ProjectCreate(name="search", owner="ada"))
    return ada


def add_client(database: Database, user_id: str, project_id: str) -> None:
    with database.write() as connection:
        for statement in (CLIENT, FAMILY, TOKEN):
            connection.execute(text(statement), {"user": user_id, "project": project_id})


def test_empty_project_is_deleted_and_its_name_is_free(
    projects: Projects, ada: Principal, admin: Principal, trail: KeptTrail, changes: Changes
) -> None:
    project = projects.get(ada, "search")

    projects.delete(ada, "search")

    for who in (ada, admin):
        assert refusal(partial(projects.get, who, project.id)).code == "not_found"
    assert [each.name for each in projects.list(ada)] == ["ada"]
    assert projects.create(admin, ProjectCreate(name="search")).id != project.id
    assert [deed.action for _, deed in trail][-2:] == ["project.delete", "project.create"]
    assert ("project", project.id) in changes


def test_name_stays_for_usage_with_the_day_however_often_it_is_used(
    projects: Projects, ada: Principal, admin: Principal, database: Database
) -> None:
    projects.delete(ada, "search")
    again = projects.create(admin, ProjectCreate(name="search"))
    projects.delete(admin, "search")
    long = projects.create(admin, ProjectCreate(name="x" * 64))
    projects.delete(admin, long.id)

    with database.read() as connection:
        rows = connection.execute(
            text("SELECT name FROM projects WHERE deleted_at IS NOT NULL ORDER BY name")
        )
        names = [row.name for row in rows]
    assert names == [
        "search (deleted 2026-11-18)",
        f"search (deleted 2026-11-18, {again.id})",
        "x" * 43 + " (deleted 2026-11-18)",
    ]


def test_project_with_keys_stays_unless_forced(
    projects: Projects,
    keys: Keys,
    ada: Principal,
    database: Database,
    peppers: Peppers,
    *,
    changes: Changes,
) -> None:
    made = keys.create(ada, KeyCreate(name="laptop", project="search"))
    gone = keys.create(ada, KeyCreate(name="old", project="search"))
    keys.delete(ada, gone.key.id)
    keyring = Keyring(SqlCredentialStore(database), peppers)

    refused = refusal(partial(projects.delete, ada, "search"))
    assert (refused.code, refused.param) == ("invalid_request", "force")
    assert "has 1 key and no clients" in refused.message
    assert keyring.load(made.token.encode()) is not None

    projects.delete(ada, "search", force=True)

    assert keyring.load(made.token.encode()) is None
    assert refusal(partial(keys.get, ada, made.key.id)).code == "not_found"
    assert ("key", made.key.id) in changes


def test_clients_and_their_tokens_go_with_it(projects: Projects, ada: Principal, database: Database) -> None:
    add_client(database, ada.user_id, projects.get(ada, "search").id)

    assert "no keys and 1 client" in refusal(partial(projects.delete, ada, "search")).message
    projects.delete(ada, "search", force=True)

    with database.read() as connection:
        client = connection.execute(text("SELECT * FROM clients")).one()
        family = connection.execute(text("SELECT * FROM token_families")).one()
        assert (client.deleted_at, client.secret_hmac) == (NOW, None)
        assert (family.revoked_at, family.revoked_because) == (NOW, "its project was deleted")
        assert connection.execute(text("SELECT count(*) FROM access_tokens")).scalar() == 0


def test_personal_project_stays(projects: Projects, ada: Principal, admin: Principal) -> None:
    for who in (ada, admin):
        assert refusal(partial(projects.delete, who, "ada", force=True)).code == "invalid_request"
