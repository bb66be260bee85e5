"""What takes a right away is on the disk when it is answered: after a power failure it is still taken away."""

from collections.abc import Callable
from typing import Any

import pytest
from identity_fakes import Changes, Clock
from sqlalchemy import Connection, event

from lingpai.identity.interfaces import Use
from lingpai.identity.leaks import LeakedKeys, LeakReports
from lingpai.identity.member_schemas import MemberCreate, MemberUpdate
from lingpai.identity.members import Members
from lingpai.identity.oauth.clients import Clients
from lingpai.identity.oauth.schemas import ClientCreate, ClientUpdate, SecretRotation
from lingpai.identity.people import People
from lingpai.identity.peppers import Peppers
from lingpai.identity.projects import Projects
from lingpai.identity.rotation import KeyRotation
from lingpai.identity.schemas import KeyCreate, KeyRotate, KeyUpdate, ProjectCreate, UserCreate, UserUpdate
from lingpai.identity.service import Keys, Users
from lingpai.identity.signing.schemas import SigningKeyCreate
from lingpai.identity.signing.service import SigningKeys
from lingpai.principal import Principal
from lingpai.storage.database import Database
from lingpai.storage.sealing import RootKeys, Sealer
from lingpai.storage.trail import NoTrail

FULL = 2

Deeds = dict[str, Callable[[], object]]


@pytest.fixture
def deeds(
    *, database: Database, admin: Principal, users: Users, keys: Keys, clients: Clients, people: People,
    projects: Projects, members: Members, rotation: KeyRotation, peppers: Peppers, changes: Changes, clock: Clock,
) -> Deeds:  # fmt: skip
    """By name; everything that they need is there."""
    for name in ("alice", "bob", "carol"):
        users.create(admin, UserCreate(name=name))
    projects.create(admin, ProjectCreate(name="search"))
    for name in ("alice", "bob"):
        members.add(admin, "search", MemberCreate(user=name))
    made = {name: keys.create(admin, KeyCreate(name=name)) for name in ("one", "two", "three", "four")}
    for name in ("nightly", "daily", "weekly"):
        clients.create(admin, ClientCreate(name=name, grants=["client_credentials"]))
    alice = users.get(admin, "alice")
    first, second = [people.sessions.sign_in(alice, address="", user_agent="").session for _ in range(2)]
    people.invitations.make(admin, "bob")
    shared: dict[str, Any] = {"on_change": changes, "trail": NoTrail()}
    signing = SigningKeys(database, sealer=Sealer(RootKeys({1: b"r" * 32})), clock=clock, **shared)
    signed = signing.create(admin, "four", SigningKeyCreate(name="build", algorithm="hmac-sha256")).key
    reports = LeakReports(
        database, {"sk-lp-": LeakedKeys(database, peppers, **shared)}, on_leak=lambda _: None, clock=clock
    )
    return {
        "key disabled": lambda: keys.update(admin, "one", KeyUpdate(disabled=True)),
        "key narrowed": lambda: keys.update(admin, "two", KeyUpdate(scopes=["model:inference"])),
        "key rotated": lambda: rotation.rotate(admin, "two", KeyRotate()),
        "key reported": lambda: reports.take([made["three"].token.encode()]),
        "key deleted": lambda: keys.delete(admin, "one"),
        "signing key deleted": lambda: signing.delete(admin, "four", signed.id),
        "client disabled": lambda: clients.update(admin, "nightly", ClientUpdate(disabled=True)),
        "client rotated": lambda: clients.rotate(admin, "daily", SecretRotation()),
        "client deleted": lambda: clients.delete(admin, "weekly"),
        "member given another role": lambda: members.set_role(
            admin, "search", "alice", MemberUpdate(role="viewer")
        ),
        "member removed": lambda: members.remove(admin, "search", "bob"),
        "project deleted": lambda: projects.delete(admin, "search", force=True),
        "session ended": lambda: people.sessions.end(admin, first.id),
        "user signed out": lambda: people.sessions.end_others(admin, second.user_id),
        "invitation withdrawn": lambda: people.invitations.withdraw(admin, "bob"),
        "user disabled": lambda: users.update(admin, "alice", UserUpdate(disabled=True)),
        "user deleted": lambda: people.removal.remove(admin, "carol"),
    }


def test_every_deed_waits_for_the_disk(database: Database, deeds: Deeds) -> None:
    levels: list[int] = []

    def look(connection: Connection) -> None:
        levels.append(int(connection.exec_driver_sql("PRAGMA synchronous").scalar_one()))

    event.listen(database._engine, "commit", look)
    found = {}
    for name, deed in deeds.items():
        levels.clear()
        deed()
        found[name] = list(levels)

    assert found == {name: [FULL] for name in deeds}


def test_last_use_of_a_key_does_not(database: Database, keys: Keys, admin: Principal) -> None:
    """It is written all the time, and nobody has rights by it."""
    key = keys.create(admin, KeyCreate(name="one")).key
    levels: list[int] = []
    event.listen(
        database._engine,
        "commit",
        lambda connection: levels.append(connection.exec_driver_sql("PRAGMA synchronous").scalar()),
    )

    keys.touch([Use("key", key.id, 5.0, None)])

    assert levels == [1]
