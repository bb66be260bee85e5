"""Signing keys: who may make, see and delete them; what is stored of them; what a deed leaves in the trail."""

from collections.abc import Callable
from dataclasses import replace

import pytest
from identity_fakes import NOW, Changes, Clock
from sqlalchemy import select

from lingpai.errors import LingpaiError
from lingpai.identity.schemas import KeyCreate, KeyRotate
from lingpai.identity.service import Keys
from lingpai.identity.signing.public_keys import public_key_text
from lingpai.identity.signing.schemas import SigningKeyCreate
from lingpai.identity.signing.service import SigningKeys
from lingpai.identity.signing.tables import signing_keys as table
from lingpai.identity.store import SqlCredentialStore
from lingpai.ids import credential_id
from lingpai.storage.sealing import RootKeys, Sealer

SEALER = Sealer(RootKeys({1: b"r" * 32}))
RAW = bytes.fromhex("d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a")
HMAC = SigningKeyCreate(name="build server", algorithm="hmac-sha256")
ED25519 = SigningKeyCreate(name="build server", algorithm="ed25519", public_key=public_key_text(RAW))
OWN = frozenset({"keys:read", "keys:write", "model:inference"})


class RecordedTrail(list):
    def record(self, connection, caller, deed):
        self.append((caller, deed))


@pytest.fixture
def trail():
    return RecordedTrail()


@pytest.fixture
def signing(*, database, changes, clock, keys, trail) -> SigningKeys:
    return SigningKeys(database, on_change=changes, sealer=SEALER, trail=trail, clock=clock)


@pytest.fixture
def make_key(keys: Keys, admin) -> Callable[..., str]:
    """The id of a new key."""

    def make(name="app", **fields):
        return keys.create(admin, KeyCreate(name=name, limits=["none"], **fields)).key.id

    return make


def refusal(action):
    with pytest.raises(LingpaiError) as caught:
        action()
    return caught.value.code, caught.value.param


def rows(database):
    with database.read() as connection:
        return list(connection.execute(select(table)))


def test_hmac_gets_a_secret_that_is_shown_once_and_stored_sealed(signing, admin, make_key, database, peppers):
    created = signing.create(admin, make_key(), HMAC)

    (row,) = rows(database)
    assert created.secret is not None
    assert created.key.id == f"sgn_{credential_id(created.secret.encode())}"
    assert created.secret not in repr(created)
    assert created.secret.encode() not in row.sealed_secret
    assert SEALER.open("signing key", row.id, row.sealed_secret) == created.secret.encode()
    assert row.public_key is None


def test_administrators_key_with_few_scopes_signs_for_no_key_that_has_more(
    signing, rotation, admin, make_key
):
    """Whoever makes a signing key or a new secret of a key can do what that can."""
    key = make_key()  # calls models
    narrow = replace(admin, key_id="key-of-admin", scopes=frozenset({"keys:write"}))

    refused = {
        refusal(lambda: signing.create(narrow, key, HMAC)),
        refusal(lambda: rotation.rotate(narrow, key, KeyRotate())),
    }

    assert refused == {("insufficient_scope", "scopes")}
    wide = replace(narrow, scopes=frozenset({"keys:write", "model:inference"}))
    assert signing.create(wide, key, HMAC).secret
    assert rotation.rotate(wide, key, KeyRotate()).token


def test_ed25519_stores_the_public_key_and_there_is_no_secret(signing, admin, make_key, database):
    created = signing.create(admin, make_key(), ED25519)

    assert created.secret is None
    assert created.key.public_key == RAW
    assert rows(database)[0].sealed_secret is None


def test_a_jwk_may_be_sent_as_an_object(signing, admin, make_key):
    x = public_key_text(RAW).rstrip("=").replace("+", "-").replace("/", "_")
    body = SigningKeyCreate(
        name="a", algorithm="ed25519", public_key={"kty": "OKP", "crv": "Ed25519", "x": x}
    )

    assert signing.create(admin, make_key(), body).key.public_key == RAW


@pytest.mark.parametrize(
    ("body", "param"),
    [
        (SigningKeyCreate(name="a", algorithm="ed25519"), "public_key"),
        (SigningKeyCreate(name="a", algorithm="ed25519", public_key="no key"), "public_key"),
        (SigningKeyCreate(name="a", algorithm="hmac-sha256", public_key=public_key_text(RAW)), "public_key"),
        (SigningKeyCreate(name="", algorithm="hmac-sha256"), "name"),
        (SigningKeyCreate(name="a", algorithm="hmac-sha256", expires_in="soon"), "expires_in"),
        (SigningKeyCreate(name="a", algorithm="hmac-sha256", expires_at="2020-01-01"), "expires_at"),
        (
            SigningKeyCreate(name="a", algorithm="hmac-sha256", expires_in="1d", expires_at="2030-01-01"),
            "expires_in",
        ),
    ],
)
def test_what_cannot_be_made_is_refused_by_its_field(signing, admin, make_key, body, param):
    assert refusal(lambda: signing.create(admin, make_key(), body)) == ("invalid_request", param)


def test_a_key_is_rotated_by_adding_a_second_and_deleting_the_first(signing, admin, make_key, clock: Clock):
    key = make_key()
    first = signing.create(admin, key, HMAC).key
    clock.now += 1
    second = signing.create(admin, key, ED25519.model_copy(update={"expires_in": "90d"})).key

    assert [each.id for each in signing.list(admin, "app")] == [first.id, second.id]
    assert second.expires_at == NOW + 1 + 90 * 86_400
    signing.delete(admin, key, first.id)
    assert [each.id for each in signing.list(admin, key)] == [second.id]


def test_a_key_has_a_bounded_number_of_signing_keys(signing, admin, make_key):
    key = make_key()
    for _ in range(10):
        signing.create(admin, key, ED25519)

    assert refusal(lambda: signing.create(admin, key, ED25519)) == ("invalid_request", None)
    signing.create(admin, make_key("other"), ED25519)


def test_signing_keys_go_with_their_key(signing, admin, make_key, keys, database):
    key = make_key()
    signing.create(admin, key, HMAC)
    signing.create(admin, make_key("other"), HMAC)

    keys.delete(admin, key)

    assert len(rows(database)) == 1
    assert refusal(lambda: signing.list(admin, key)) == ("not_found", None)


def test_every_change_is_told_and_recorded(signing, admin, make_key, changes: Changes, trail):
    key = make_key()
    del changes[:]
    created = signing.create(admin, key, HMAC)
    signing.delete(admin, key, created.key.id)

    assert changes == [("key", key), ("key", key)]
    made, gone = (deed for _, deed in trail)
    assert (made.action, made.target_id, made.before) == ("signing_key.create", created.key.id, None)
    assert (gone.action, gone.target_id, gone.after) == ("signing_key.delete", created.key.id, None)
    assert made.after["key"] == key
    assert created.secret not in repr(trail)


def test_what_cannot_be_recorded_does_not_happen(*, database, changes, clock, peppers, admin, make_key):
    class BrokenTrail:
        def record(self, connection, caller, deed):
            raise OSError("the trail is full")

    signing = SigningKeys(database, on_change=changes, sealer=SEALER, trail=BrokenTrail(), clock=clock)

    with pytest.raises(OSError, match="full"):
        signing.create(admin, make_key(), HMAC)
    assert rows(database) == []


def test_another_users_signing_keys_do_not_exist(signing, admin, member, make_key):
    eve = member("eve")
    key = make_key()
    made = signing.create(admin, key, HMAC).key

    for action in (
        lambda: signing.list(eve, key),
        lambda: signing.create(eve, key, HMAC),
        lambda: signing.delete(eve, key, made.id),
        lambda: signing.delete(admin, make_key("other"), made.id),
        lambda: signing.delete(admin, key, "sgn_unknown"),
    ):
        assert refusal(action)[0] == "not_found"


@pytest.mark.parametrize(
    ("own", "other", "code"),
    [
        ({"scopes": OWN - {"model:inference"}}, {}, "insufficient_scope"),
        ({"models": ("acme/a",)}, {}, "model_not_allowed"),
        ({"models": ("acme/a",)}, {"models": ["acme/*"]}, "model_not_allowed"),
        ({"expires_at": NOW + 60}, {}, "invalid_request"),
        ({"key_limits": ("5/day",)}, {}, "insufficient_scope"),
    ],
)
def test_nobody_signs_for_a_key_that_can_do_more_than_theirs(*, signing, member, make_key, own, other, code):
    bob = replace(member("bob"), **{"scopes": OWN, **own})
    key = make_key("stronger", user="bob", **other)

    assert refusal(lambda: signing.create(bob, key, HMAC))[0] == code


def test_a_member_signs_for_their_own_key_whatever_restricts_it(signing, member, make_key):
    bob = member("bob")
    key = make_key("mine", user="bob", models=["acme/a"])
    bob = replace(bob, key_id=key, models=("acme/a",), key_limits=("5/day",))

    assert signing.create(bob, key, HMAC).secret


def test_last_uses_are_noted_and_never_go_back(signing, admin, make_key):
    key = make_key()
    made = signing.create(admin, key, HMAC).key

    signing.touch([(made.id, NOW + 5)])
    signing.touch([(made.id, NOW + 3), ("sgn_unknown", NOW)])
    signing.touch([])

    assert signing.list(admin, key)[0].last_used_at == NOW + 5


def test_the_database_holds_the_material_that_fits_the_algorithm(signing, admin, make_key, database):
    """What the constraints of the table forbid cannot be written by a fault either."""
    signing.create(admin, make_key(), HMAC)

    with pytest.raises(Exception, match="material_fits_algorithm"), database.write() as connection:
        connection.execute(table.update().values(algorithm="ed25519"))


def test_whether_a_key_needs_signatures_reaches_its_principal(make_key, database):
    key = make_key(signature_required=True)

    row = SqlCredentialStore(database).key(key)

    assert row is not None
    assert row.signature_required
