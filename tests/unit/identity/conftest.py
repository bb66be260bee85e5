"""A migrated database, the services on it, and callers of every kind."""

import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from identity_fakes import DEFAULT_LIMITS, Changes, Clock, KeptTrail, network_of, validate_limit
from oauth_stage import Stage
from sqlalchemy import event

from lingpai.identity.members import Members
from lingpai.identity.oauth.clients import Clients
from lingpai.identity.people import People
from lingpai.identity.peppers import Peppers
from lingpai.identity.projects import Projects
from lingpai.identity.rotation import KeyRotation
from lingpai.identity.schemas import UserCreate
from lingpai.identity.scopes import ALL_SCOPES, SCOPES_OF_ROLE
from lingpai.identity.service import Keys, Users
from lingpai.identity.sessions.ending import SessionEnder
from lingpai.identity.settings import IdentitySettings
from lingpai.principal import Principal
from lingpai.storage.database import Database, sqlite_url
from lingpai.storage.trail import NoTrail


@pytest.fixture(scope="session")
def migrated_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("migrated") / "lingpai.db"
    database = Database(sqlite_url(path))
    database.migrate()
    database.close()
    return path


@pytest.fixture
def database(migrated_file: Path, tmp_path: Path) -> Iterator[Database]:
    path = tmp_path / "lingpai.db"
    shutil.copyfile(migrated_file, path)
    database = Database(sqlite_url(path))
    yield database
    database.close()


@pytest.fixture
def commits(database: Database) -> list[float]:
    """When (time.monotonic) each transaction was committed."""
    times: list[float] = []
    event.listen(database._engine, "commit", lambda _: times.append(time.monotonic()))
    return times


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def changes() -> Changes:
    return Changes()


@pytest.fixture
def peppers() -> Peppers:
    return Peppers({1: b"p" * 32})


@pytest.fixture
def trail() -> KeptTrail:
    return KeptTrail()


@pytest.fixture
def users(database: Database, changes: Changes, clock: Clock, trail: KeptTrail) -> Users:
    users = Users(
        database,
        on_change=changes,
        validate_limit=validate_limit,
        default_limits=DEFAULT_LIMITS,
        end_sessions=SessionEnder(trail).end_of_user,
        trail=NoTrail(),
        clock=clock,
    )
    users.ensure_admin()
    return users


@pytest.fixture
def keys(*, database: Database, changes: Changes, clock: Clock, peppers: Peppers, users: Users) -> Keys:
    return Keys(
        database,
        on_change=changes,
        peppers=peppers,
        validate_limit=validate_limit,
        default_limits=DEFAULT_LIMITS,
        trail=NoTrail(),
        clock=clock,
    )


@pytest.fixture
def clients(*, database: Database, changes: Changes, clock: Clock, peppers: Peppers, users: Users) -> Clients:
    return Clients(
        database,
        on_change=changes,
        peppers=peppers,
        validate_limit=validate_limit,
        default_limits=DEFAULT_LIMITS,
        trail=NoTrail(),
        clock=clock,
    )


@pytest.fixture
def projects(database: Database, changes: Changes, clock: Clock, trail: KeptTrail, users: Users) -> Projects:
    return Projects(database, on_change=changes, validate_limit=validate_limit, trail=trail, clock=clock)


@pytest.fixture
def members(database: Database, changes: Changes, clock: Clock, trail: KeptTrail, users: Users) -> Members:
    return Members(database, on_change=changes, trail=trail, clock=clock)


@pytest.fixture
def rotation(
    database: Database, changes: Changes, clock: Clock, peppers: Peppers, trail: KeptTrail
) -> KeyRotation:
    return KeyRotation(database, on_change=changes, peppers=peppers, trail=trail, clock=clock)


@pytest.fixture
def identity_settings() -> IdentitySettings:
    """The defaults."""
    return IdentitySettings()


@pytest.fixture
def people(
    *,
    database: Database,
    changes: Changes,
    clock: Clock,
    peppers: Peppers,
    users: Users,
    trail: KeptTrail,
    identity_settings: IdentitySettings,
) -> Iterator[People]:
    """How people sign in; both clocks are the test's."""
    people = People(
        database,
        settings=identity_settings,
        peppers=peppers,
        network_of=network_of,
        generation=lambda: len(changes),
        on_change=changes,
        trail=trail,
        clock=clock,
        monotonic=clock,
    )
    yield people
    people.close()


@pytest.fixture
def admin(users: Users) -> Principal:
    """The local administrator."""
    return users.local_administrator()


@pytest.fixture
def member(users: Users, admin: Principal) -> Callable[..., Principal]:
    """Makes a member and returns them as a caller: ``member("bob", scopes={...}, models=(...))``."""

    def make(name: str, *, scopes: frozenset[str] = ALL_SCOPES, models: tuple[str, ...] = ()) -> Principal:
        user = users.create(admin, UserCreate(name=name))
        held = SCOPES_OF_ROLE["member"] & scopes
        return Principal(user.id, name, "member", key_id=f"key-of-{name}", scopes=held, models=models)

    return make


@pytest.fixture
def stage(database: Database, clock: Clock) -> Iterator[Stage]:
    """The authorization server, with a clock that the test moves."""
    stage = Stage(database, clock)
    yield stage
    stage.close()
