"""Clients for signed requests only, and the signing keys of clients: the same rules as for keys."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from identity_fakes import NOW, Changes, Clock, KeptTrail
from sqlalchemy import select

from lingpai.errors import LingpaiError
from lingpai.identity.member_schemas import MemberCreate, MemberUpdate
from lingpai.identity.members import Members
from lingpai.identity.oauth.clients import Clients
from lingpai.identity.oauth.interfaces import Client
from lingpai.identity.oauth.schemas import ClientCreate, ClientUpdate, SecretRotation
from lingpai.identity.projects import Projects
from lingpai.identity.removal import UserRemoval
from lingpai.identity.schemas import KeyCreate, ProjectCreate
from lingpai.identity.service import Keys
from lingpai.identity.signing.schemas import SigningKeyCreate
from lingpai.identity.signing.service import SigningKeys
from lingpai.identity.signing.tables import signing_keys as table
from lingpai.principal import Principal
from lingpai.storage.database import Database
from lingpai.storage.sealing import RootKeys, Sealer

HMAC = SigningKeyCreate(name="build server", algorithm="hmac-sha256")
SIGNATURE = ("insufficient_scope", "signature_required")


@pytest.fixture
def bob(member: Callable[..., Principal]) -> Principal:
    return member("bob")


@pytest.fixture
def bound(bob: Principal) -> Principal:
    """Bob, with a key for signed requests only."""
    return replace(bob, signature_required=True)


@pytest.fixture
def signing(database: Database, changes: Changes, clock: Clock, trail: KeptTrail) -> SigningKeys:
    sealer = Sealer(RootKeys({1: b"r" * 32}))
    return SigningKeys(database, of="client", on_change=changes, sealer=sealer, trail=trail, clock=clock)


def refusal(action: Callable[[], object]) -> tuple[str, str | None]:
    with pytest.raises(LingpaiError) as caught:
        action()
    return caught.value.code, caught.value.param


def make(clients: Clients, caller: Principal, name: str = "app", **fields: Any) -> Client:
    return clients.create(caller, ClientCreate(name=name, **fields)).client


def rows(database: Database) -> list[Any]:
    with database.read() as connection:
        return list(connection.execute(select(table)))


class TestSignedRequestsOnly:
    @pytest.mark.parametrize(("asked", "made"), [(None, False), (False, False), (True, True)])
    def test_a_free_creator_chooses(
        self, clients: Clients, bob: Principal, *, asked: bool | None, made: bool
    ) -> None:
        assert make(clients, bob, signature_required=asked).signature_required is made

    @pytest.mark.parametrize("asked", [None, True])
    def test_what_a_bound_creator_makes_is_bound(
        self, clients: Clients, bound: Principal, asked: bool | None
    ) -> None:
        assert make(clients, bound, signature_required=asked).signature_required

    def test_a_bound_creator_makes_no_free_client(self, clients: Clients, bound: Principal) -> None:
        assert refusal(lambda: make(clients, bound, signature_required=False)) == SIGNATURE

    def test_a_token_of_a_bound_client_makes_no_free_key(self, keys: Keys, bound: Principal) -> None:
        token = replace(bound, key_id=None, token_id="t", client_id="cl-lp-x")

        assert (
            refusal(lambda: keys.create(token, KeyCreate(name="free", signature_required=False))) == SIGNATURE
        )
        assert keys.create(token, KeyCreate(name="bound")).key.signature_required

    def test_its_owner_binds_a_client_and_only_an_administrator_frees_it(
        self, clients: Clients, bob: Principal, admin: Principal
    ) -> None:
        client = make(clients, bob).client_id

        assert clients.update(bob, client, ClientUpdate(signature_required=True)).signature_required
        assert (
            refusal(lambda: clients.update(bob, client, ClientUpdate(signature_required=False))) == SIGNATURE
        )
        assert not clients.update(admin, client, ClientUpdate(signature_required=False)).signature_required

    def test_a_bound_caller_gets_no_secret_of_a_free_client_and_gives_it_no_rights(
        self, clients: Clients, bob: Principal, bound: Principal
    ) -> None:
        client = make(clients, bob, models=["a/x"]).client_id
        more = ClientUpdate(models=["a/x", "a/y"])

        assert refusal(lambda: clients.rotate(bound, client, SecretRotation())) == SIGNATURE
        assert refusal(lambda: clients.update(bound, client, more)) == SIGNATURE
        clients.update(bound, client, more.model_copy(update={"signature_required": True}))
        assert clients.rotate(bound, client, SecretRotation()).secret


class TestSigningKeys:
    def test_one_is_made_listed_and_deleted(
        self, clients: Clients, signing: SigningKeys, bob: Principal, changes: Changes, trail: KeptTrail
    ) -> None:
        client = make(clients, bob).client_id

        created = signing.create(bob, "app", HMAC)
        listed = signing.list(bob, client)
        signing.delete(bob, client, created.key.id)

        assert created.secret is not None
        assert (created.key.client_id, created.key.key_id, created.key.created_at) == (client, None, NOW)
        assert listed == [created.key]
        assert signing.list(bob, client) == []
        assert list(changes)[-2:] == [("client", client)] * 2
        assert [deed.action for _, deed in trail][-2:] == ["signing_key.create", "signing_key.delete"]
        assert created.secret not in repr(trail)

    def test_one_of_another_client_is_none_of_this_one(
        self, clients: Clients, signing: SigningKeys, bob: Principal
    ) -> None:
        make(clients, bob)
        make(clients, bob, "other")
        id_ = signing.create(bob, "app", HMAC).key.id

        assert refusal(lambda: signing.delete(bob, "other", id_)) == ("not_found", None)
        assert signing.list(bob, "other") == []

    def test_making_one_takes_all_rights_of_the_client(
        self, clients: Clients, signing: SigningKeys, bob: Principal
    ) -> None:
        """Like another secret: who holds it can do what the client can, once they have a token."""
        make(clients, bob)
        narrow = replace(bob, models=("a/x",))

        assert refusal(lambda: signing.create(narrow, "app", HMAC)) == ("model_not_allowed", "models")
        assert refusal(lambda: signing.create(replace(bob, client_limits=("1/day",)), "app", HMAC)) == (
            "insufficient_scope",
            None,
        )

    @pytest.mark.parametrize(
        ("role", "deleted"),
        [("viewer", "insufficient_scope"), ("member", "insufficient_scope"), ("admin", None)],
    )
    def test_an_admin_of_the_project_deletes_one_of_others_and_nobody_makes_one(
        self, *, clients: Clients, signing: SigningKeys, members: Members, projects: Projects, admin: Principal,
        bob: Principal, member: Callable[..., Principal], role: Any, deleted: str | None,
    ) -> None:  # fmt: skip
        cleo = member("cleo")
        projects.create(admin, ProjectCreate(name="search", owner="bob"))
        members.add(admin, "search", MemberCreate(user="cleo"))
        members.set_role(admin, "search", "cleo", MemberUpdate(role=role))
        client = make(clients, bob, project="search").client_id
        id_ = signing.create(bob, client, HMAC).key.id

        assert [key.id for key in signing.list(cleo, client)] == [id_]
        assert refusal(lambda: signing.create(cleo, client, HMAC))[0] == "insufficient_scope"
        if deleted is None:
            signing.delete(cleo, client, id_)
        else:
            assert refusal(lambda: signing.delete(cleo, client, id_))[0] == deleted

    def test_a_strangers_do_not_exist(
        self, clients: Clients, signing: SigningKeys, bob: Principal, member: Callable[..., Principal]
    ) -> None:
        eve, client = member("eve"), make(clients, bob).client_id
        id_ = signing.create(bob, client, HMAC).key.id

        for act in (
            lambda: signing.list(eve, client),
            lambda: signing.create(eve, client, HMAC),
            lambda: signing.delete(eve, client, id_),
        ):
            assert refusal(act) == ("not_found", None)
        assert (signing.is_visible(bob, id_), signing.is_visible(eve, id_)) == (True, False)

    @pytest.mark.parametrize("end", ["client", "project", "user"])
    def test_they_go_with_their_client(
        self, *, clients: Clients, signing: SigningKeys, projects: Projects, database: Database, admin: Principal,
        bob: Principal, changes: Changes, trail: KeptTrail, end: str,
    ) -> None:  # fmt: skip
        projects.create(admin, ProjectCreate(name="search", owner="bob"))
        client = make(clients, bob, project="search").client_id
        signing.create(bob, client, HMAC)
        make(clients, admin, "stays")
        signing.create(admin, "stays", HMAC)

        if end == "client":
            clients.delete(bob, client)
        elif end == "project":
            projects.delete(bob, "search", force=True)
        else:
            UserRemoval(database, operator="admin", on_change=changes, trail=trail).remove(admin, "bob")

        assert len(rows(database)) == 1
