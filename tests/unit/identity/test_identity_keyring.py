"""The keyring: who is recognised, what stays in memory, and that changes are never missed."""

import hmac
import logging
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from sqlalchemy import text

from lingpai.identity import key_secrets
from lingpai.identity import keyring as keyring_module
from lingpai.identity.interfaces import CreatedKey, Use
from lingpai.identity.keyring import Keyring
from lingpai.identity.known_ids import KnownIds, SqlIds
from lingpai.identity.peppers import Peppers
from lingpai.identity.principals import LoadedPrincipal
from lingpai.identity.schemas import KeyCreate, KeyUpdate, UserCreate, UserUpdate
from lingpai.identity.service import Keys, Users
from lingpai.identity.store import SqlCredentialStore
from lingpai.ids import mint_credential
from lingpai.principal import Principal
from lingpai.storage.database import Database


@pytest.fixture
def keyring(database: Database, peppers: Peppers) -> Keyring:
    return Keyring(SqlCredentialStore(database), peppers)


def principal(key_id: str, *, user_id: str = "usr_1", last_used_at: float = 0.0) -> Principal:
    return Principal(user_id, "bob", "member", key_id=key_id, last_used_at=last_used_at)


def token_of(created: CreatedKey) -> bytes:
    return created.token.encode()


def small_keyring(**options: Any) -> Keyring:
    """A keyring whose store is never asked."""
    return Keyring(None, Peppers({1: b"p" * 32}), **options)  # type: ignore[arg-type]


def test_load_gives_everything_that_restricts_the_key(
    keyring: Keyring, keys: Keys, users: Users, admin: Principal
) -> None:
    users.create(admin, UserCreate(name="bob", limits=["100/day"]))
    body = KeyCreate(
        name="laptop",
        user="bob",
        scopes=["model:inference", "keys:read"],
        models=["a/*"],
        limits=["10/1s"],
        allowed_ips=["10.0.0.0/8"],
        expires_at="2027-01-01",
    )

    found = keyring.load(token_of(keys.create(admin, body)))

    assert found is not None
    assert (found.user_name, found.role, found.key_name) == ("bob", "member", "laptop")
    assert found.scopes == {"model:inference", "keys:read"}
    assert (found.key_limits, found.user_limits) == (("10/1s",), ("100/day",))
    assert found.may_call("a/x")
    assert not found.may_call("b/x")
    assert found.may_come_from("10.1.2.3")
    assert not found.may_come_from("11.1.2.3")
    assert found.expires_at == 1798761600.0
    assert not found.disabled


def test_key_that_was_remembered_is_found(keyring: Keyring, keys: Keys, admin: Principal) -> None:
    token = token_of(keys.create(admin, KeyCreate(name="a")))
    assert keyring.find(token) is None

    keyring.remember(token, keyring.load(token))

    found = keyring.find(token)
    assert found is not None
    assert found.key_name == "a"


def test_keys_that_begin_alike_are_told_apart() -> None:
    keyring = small_keyring()

    keyring.remember(b"sk-lp-" + b"a" * 61, principal("first"))

    assert keyring.find(b"sk-lp-" + b"a" * 60 + b"b") is None


def test_right_id_with_a_wrong_secret_is_nobody(keyring: Keyring, keys: Keys, admin: Principal) -> None:
    created = keys.create(admin, KeyCreate(name="a"))
    forged = mint_credential("sk-lp-").token
    body = f"sk-lp-{created.key.id}{forged[18:61]}"
    forged = body + keyring_checksum(body)

    assert keyring.load(forged.encode()) is None


def keyring_checksum(body: str) -> str:
    from lingpai import ids

    return ids._checksum(body.encode())


def test_unknown_id_costs_the_same_hmac_and_comparison_as_a_wrong_secret(
    keyring: Keyring, keys: Keys, admin: Principal, monkeypatch: pytest.MonkeyPatch
) -> None:
    compared: list[int] = []

    def compare(ours: bytes, stored: bytes) -> bool:
        compared.append(len(ours))
        return hmac.compare_digest(ours, stored)

    monkeypatch.setattr(key_secrets, "hmac", type("hmac", (), {"compare_digest": staticmethod(compare)}))

    keyring.load(mint_credential("sk-lp-").token.encode())
    keyring.load(token_of(keys.create(admin, KeyCreate(name="a"))))

    assert compared == [32] * 4, "the present secret and the one before it, whether there is one or not"


def test_disabled_and_expired_keys_have_a_principal_that_says_so(
    keyring: Keyring, keys: Keys, admin: Principal, clock: Any
) -> None:
    created = keys.create(admin, KeyCreate(name="a", expires_in="1h"))
    keys.update(admin, "a", KeyUpdate(disabled=True))

    found = keyring.load(token_of(created))

    assert found is not None
    assert found.disabled
    assert found.expires_at == clock.now + 3600


def test_disabling_a_user_disables_their_keys(
    keyring: Keyring, keys: Keys, users: Users, admin: Principal
) -> None:
    users.create(admin, UserCreate(name="bob"))
    created = keys.create(admin, KeyCreate(name="a", user="bob"))
    users.update(admin, "bob", UserUpdate(disabled=True))

    found = keyring.load(token_of(created))

    assert found is not None
    assert found.disabled


def test_deleted_key_is_nobody(keyring: Keyring, keys: Keys, admin: Principal) -> None:
    created = keys.create(admin, KeyCreate(name="a"))
    keys.delete(admin, "a")

    assert keyring.load(token_of(created)) is None


def test_role_taken_away_takes_its_scopes_away(
    keyring: Keyring, keys: Keys, users: Users, admin: Principal
) -> None:
    users.create(admin, UserCreate(name="eve", role="admin"))
    created = keys.create(admin, KeyCreate(name="a", user="eve", scopes=["users:write", "keys:read"]))
    users.update(admin, "eve", UserUpdate(role="member"))

    found = keyring.load(token_of(created))

    assert found is not None
    assert found.scopes == {"keys:read"}


def test_key_made_under_an_older_pepper_still_works(
    database: Database, keys: Keys, admin: Principal, peppers: Peppers
) -> None:
    token = token_of(keys.create(admin, KeyCreate(name="old")))
    rotated = Keyring(SqlCredentialStore(database), Peppers({1: b"p" * 32, 2: b"n" * 32}))

    assert rotated.load(token) is not None


def test_key_whose_pepper_is_gone_is_nobody_and_the_operator_is_told(
    database: Database, keys: Keys, admin: Principal, caplog: pytest.LogCaptureFixture
) -> None:
    created = keys.create(admin, KeyCreate(name="old"))
    replaced = Keyring(SqlCredentialStore(database), Peppers({2: b"n" * 32}))

    with caplog.at_level(logging.WARNING, logger="lingpai.identity"):
        assert replaced.load(token_of(created)) is None

    assert "pepper version 1" in caplog.text
    assert created.token not in caplog.text


@pytest.mark.parametrize(
    "token", [b"", b"sk-lp-", b"hello", b"\xff" * 67, b"sk-lp-" + b"0" * 61, b"x" * 100_000]
)
def test_garbage_is_known_without_a_look_up(token: bytes) -> None:
    keyring = small_keyring()

    assert keyring.find(token) is None
    assert keyring.is_known_garbage(token)
    assert keyring.load(token) is None


def test_well_formed_garbage_is_known_from_the_second_time_on(keyring: Keyring) -> None:
    token = mint_credential("sk-lp-").token.encode()
    assert not keyring.is_known_garbage(token)

    keyring.remember(token, keyring.load(token))

    assert keyring.is_known_garbage(token)
    assert keyring.find(token) is None


def test_memory_of_garbage_is_bounded() -> None:
    keyring = small_keyring(garbage_capacity=3)
    tokens = [mint_credential("sk-lp-").token.encode() for _ in range(5)]

    for token in tokens:
        keyring.remember(token, None)

    assert [keyring.is_known_garbage(token) for token in tokens] == [False, False, True, True, True]


def test_memory_of_principals_is_bounded() -> None:
    keyring = small_keyring(capacity=10)

    for number in range(25):
        keyring.remember(b"%d" % number, principal(str(number)))

    assert [found.key_id for found in keyring.principals()] == [str(number) for number in range(15, 25)]
    assert keyring.find(b"14") is None


def test_key_in_use_stays_in_memory() -> None:
    keyring = small_keyring(capacity=10)
    keyring.remember(b"busy", principal("busy"))

    for number in range(100):
        keyring.remember(b"%d" % number, principal(str(number)))
        busy = keyring.find(b"busy")
        assert busy is not None
        busy.last_used_at = float(number + 1)

    assert len(list(keyring.principals())) == 10


def test_key_not_used_any_more_leaves_memory() -> None:
    keyring = small_keyring(capacity=10)
    keyring.remember(b"once", principal("once"))
    for found in keyring.principals():
        found.last_used_at = 1.0

    for number in range(30):
        keyring.remember(b"%d" % number, principal(str(number)))

    assert keyring.find(b"once") is None


def test_memory_full_of_keys_in_use_still_takes_a_new_one() -> None:
    keyring = small_keyring(capacity=20)
    for number in range(20):
        keyring.remember(b"%d" % number, principal(str(number)))
    for found in keyring.principals():
        found.last_used_at = 1.0

    keyring.remember(b"new", principal("new"))

    assert keyring.find(b"new") is not None
    assert len(list(keyring.principals())) == 20


def test_key_remembered_twice_is_one_entry() -> None:
    keyring = small_keyring(capacity=2)
    keyring.remember(b"other", principal("other"))

    for _ in range(3):
        keyring.remember(b"x", principal("x"))

    assert {found.key_id for found in keyring.principals()} == {"other", "x"}


def test_changed_key_is_forgotten() -> None:
    keyring = small_keyring()
    keyring.remember(b"a", principal("a"))
    keyring.remember(b"b", principal("b"))

    keyring.forget_key("a")
    keyring.forget_key("unknown")

    assert keyring.find(b"a") is None
    assert keyring.find(b"b") is not None


def test_all_keys_of_a_changed_user_are_forgotten() -> None:
    keyring = small_keyring()
    keyring.remember(b"a", principal("a", user_id="usr_1"))
    keyring.remember(b"b", principal("b", user_id="usr_1"))
    keyring.remember(b"c", principal("c", user_id="usr_2"))

    keyring.forget_user("usr_1")
    keyring.forget_user("usr_unknown")

    assert [keyring.find(token) is None for token in (b"a", b"b", b"c")] == [True, True, False]


@pytest.mark.parametrize("forget", [lambda ring: ring.forget_key("x"), lambda ring: ring.forget_user("u")])
def test_keys_can_be_forgotten_however_often_they_left_and_came_back(
    forget: Callable[[Keyring], None],
) -> None:
    keyring = small_keyring(capacity=4)
    for number in range(20):
        keyring.remember(b"x", principal("x", user_id="u", last_used_at=number % 3))
        keyring.remember(b"%d" % number, principal(str(number), user_id="u"))

    forget(keyring)

    assert keyring.find(b"x") is None


def test_what_was_read_before_a_change_is_not_remembered_after_it(
    keyring: Keyring, keys: Keys, admin: Principal
) -> None:
    """A load in a worker thread may overtake the change that makes it stale."""
    created = keys.create(admin, KeyCreate(name="a"))
    stale = keyring.load(token_of(created))
    keys.update(admin, "a", KeyUpdate(disabled=True))
    keyring.forget_key(created.key.id)

    keyring.remember(token_of(created), stale)

    assert keyring.find(token_of(created)) is None


def test_uses_are_taken_once() -> None:
    keyring = small_keyring()
    keyring.remember(b"idle", principal("idle"))
    keyring.remember(b"busy", principal("busy"))
    busy = keyring.find(b"busy")
    assert busy is not None
    busy.last_used_at, busy.last_used_ip = 100.0, "192.0.2.1"

    assert keyring.take_uses() == [Use("key", "busy", 100.0, "192.0.2.1")]
    assert keyring.take_uses() == []

    busy.last_used_at = 101.0
    assert keyring.take_uses() == [Use("key", "busy", 101.0, "192.0.2.1")]


def test_uses_of_keys_that_left_memory_are_not_lost() -> None:
    keyring = small_keyring(capacity=2)
    keyring.remember(b"evicted", principal("evicted", last_used_at=5.0))
    keyring.remember(b"changed", principal("changed", last_used_at=6.0))
    keyring.forget_key("changed")
    for number in range(5):
        keyring.remember(b"%d" % number, principal(str(number)))

    assert {use.id: use.time for use in keyring.take_uses()} == {"evicted": 5.0, "changed": 6.0}


def test_no_credential_stays_in_memory(keyring: Keyring, keys: Keys, admin: Principal) -> None:
    token = token_of(keys.create(admin, KeyCreate(name="a")))
    keyring.remember(token, keyring.load(token))

    held = [index for name in ("_known", "_garbage") for index in getattr(keyring, name)]

    assert [len(index) for index in held] == [32]
    assert token[18:] not in repr(vars(keyring)).encode()


def test_every_change_starts_a_new_generation() -> None:
    keyring = small_keyring()

    seen = [keyring.generation]
    keyring.remember(b"a", principal("a"))
    seen.append(keyring.generation)
    keyring.forget_key("a")
    seen.append(keyring.generation)
    keyring.forget_user("usr_unknown")
    seen.append(keyring.generation)

    assert seen == [0, 0, 1, 2]


# -- floods


@pytest.fixture
def filled_keyring(database: Database, peppers: Peppers, keys: Keys, admin: Principal) -> Keyring:
    """A keyring that knows all ids; one key was made before."""
    keys.create(admin, KeyCreate(name="before"))
    known_ids = KnownIds()
    known_ids.fill(SqlIds(database))
    return Keyring(SqlCredentialStore(database), peppers, known_ids=known_ids)


def with_another_secret(token: bytes, number: int = 0) -> bytes:
    body = f"{token[:18].decode()}{number:043d}"
    return (body + keyring_checksum(body)).encode()


def test_well_formed_key_with_an_unknown_id_is_garbage_without_a_look_up(filled_keyring: Keyring) -> None:
    """The checksum is public, so a flood may well have right ones."""
    tokens = [mint_credential("sk-lp-").token.encode() for _ in range(1000)]

    assert all(filled_keyring.is_known_garbage(token) for token in tokens)
    assert filled_keyring.look_ups == 0


def test_key_made_later_is_no_garbage(filled_keyring: Keyring, keys: Keys, admin: Principal) -> None:
    created = keys.create(admin, KeyCreate(name="later"))

    filled_keyring.forget_key(created.key.id)  # as the change event does

    assert not filled_keyring.is_known_garbage(token_of(created))
    assert filled_keyring.load(token_of(created)) is not None


def test_wrong_secrets_for_a_real_id_cost_one_look_up(
    filled_keyring: Keyring, keys: Keys, admin: Principal
) -> None:
    created = keys.create(admin, KeyCreate(name="a"))
    filled_keyring.forget_key(created.key.id)
    looked_up = 0
    for number in range(100):
        token = with_another_secret(token_of(created), number)
        if not filled_keyring.is_known_garbage(token):
            looked_up += 1
            filled_keyring.remember(token, filled_keyring.load(token))

    assert (looked_up, filled_keyring.look_ups) == (1, 1)


def test_owner_is_not_locked_out_by_those_who_try_secrets(
    filled_keyring: Keyring, keys: Keys, admin: Principal
) -> None:
    created = keys.create(admin, KeyCreate(name="a"))
    filled_keyring.forget_key(created.key.id)
    for number in range(50):
        token = with_another_secret(token_of(created), number)
        filled_keyring.remember(token, filled_keyring.load(token))

    assert not filled_keyring.is_known_garbage(token_of(created))
    assert filled_keyring.load(token_of(created)) is not None


def test_stored_secret_is_not_trusted_after_any_change(
    filled_keyring: Keyring, keys: Keys, admin: Principal
) -> None:
    """A rotated key has its old id and a new secret; what was read before must not call that one wrong."""
    created = keys.create(admin, KeyCreate(name="a"))
    filled_keyring.forget_key(created.key.id)
    wrong = with_another_secret(token_of(created))
    filled_keyring.load(wrong)
    assert filled_keyring.is_known_garbage(wrong)

    filled_keyring.forget_user("usr_any")

    assert not filled_keyring.is_known_garbage(wrong)


def test_stored_secrets_do_not_fill_the_memory(database: Database, peppers: Peppers) -> None:
    keyring = Keyring(SqlCredentialStore(database), peppers, garbage_capacity=10)

    for _ in range(100):
        keyring.load(mint_credential("sk-lp-").token.encode())

    assert len(keyring._stored) <= 10
    assert keyring.look_ups == 100


def token_principal(token_id: str, *, as_of: int = 0) -> LoadedPrincipal:
    return LoadedPrincipal("usr_1", "bob", "member", token_id=token_id, as_of=as_of)


def access_token() -> tuple[str, bytes]:
    minted = mint_credential("at-lp-")
    return minted.id, minted.token.encode()


def test_revoked_token_is_garbage_without_a_look_up() -> None:
    """A program that goes on with a revoked token costs no look-up, so it cannot use up what others need."""
    keyring = small_keyring()
    id_, token = access_token()
    keyring.remember(token, token_principal(id_))

    keyring.forget_token(id_)

    assert keyring.find(token) is None
    assert keyring.is_known_garbage(token)


class CountedJwts:
    """Takes `eyJ.<id>.good` for a good JWT, and counts how often it was asked to verify."""

    verified = 0

    def claimed_id(self, token: bytes) -> str | None:
        return token.split(b".")[1].decode() or None

    def verified_id(self, token: bytes) -> str | None:
        self.verified += 1
        _, id_, signature = token.decode().split(".")
        return id_ if signature == "good" else None


def test_made_up_jwt_is_garbage_before_anything_is_verified() -> None:
    """A flood of JWTs with ids that no token has costs no signature and no look-up."""
    jwts = CountedJwts()
    none_known = KnownIds()
    none_known.fill(NoIds(), pause=lambda _: None)
    keyring = small_keyring(jwts=jwts, known_tokens=none_known)

    assert keyring.is_known_garbage(b"eyJ.abcdefghijkl.good")
    assert keyring.is_known_garbage(b"eyJ..good"), "without an id"
    assert small_keyring().is_known_garbage(b"eyJ.abcdefghijkl.good"), "without JWTs"
    assert jwts.verified == 0


class NoIds:
    """No keys at all."""

    def key_ids(self) -> Iterator[str]:
        return iter(())

    def count_keys(self) -> int:
        return 0


def test_jwt_with_a_wrong_signature_is_verified_once() -> None:
    """Its id may be known: ids are public."""
    jwts = CountedJwts()
    keyring = small_keyring(jwts=jwts)
    token = b"eyJ.abcdefghijkl.bad"
    assert not keyring.is_known_garbage(token)

    keyring.remember(token, keyring.load(token))

    assert keyring.is_known_garbage(token)
    assert not keyring.is_known_garbage(b"eyJ.abcdefghijkl.good"), "the owner is not locked out"
    assert jwts.verified == 1


def test_signature_does_not_stand_for_an_opaque_token(
    keyring: Keyring, database: Database, peppers: Peppers, admin: Principal
) -> None:
    """Whatever signs, an opaque token is proven by its secret alone."""
    id_, _ = access_token()
    insert = (
        "INSERT INTO access_tokens (id, secret_hmac, pepper_version, user_id, scopes, created_at, expires_at)"
        f" VALUES ('{id_}', :hmac, :version, '{admin.user_id}', '[]', 0, 9e9)"
    )
    store = SqlCredentialStore(database)
    with database.write() as connection:
        connection.execute(text(insert), {"hmac": b"x" * 32, "version": 1})
    opaque = Keyring(store, peppers, jwts=CountedJwts()).load(f"eyJ.{id_}.good".encode())
    with database.write() as connection:
        connection.execute(text("UPDATE access_tokens SET secret_hmac = NULL, pepper_version = NULL"))
    jwt = Keyring(store, peppers, jwts=CountedJwts()).load(f"eyJ.{id_}.good".encode())

    assert opaque is None
    assert jwt is not None
    assert (jwt.token_id, jwt.is_jwt) == (id_, True)


def test_jwts_are_forgotten_when_a_key_that_signs_was_ended() -> None:
    keyring = small_keyring()
    (jwt_id, jwt), (opaque_id, opaque) = access_token(), access_token()
    signed = token_principal(jwt_id)
    signed.is_jwt = True
    keyring.remember(jwt, signed)
    keyring.remember(opaque, token_principal(opaque_id))

    keyring.forget_jwts()

    assert keyring.find(jwt) is None
    assert keyring.find(opaque) is not None


def test_token_that_was_revoked_while_it_was_read_is_not_remembered() -> None:
    keyring = small_keyring()
    id_, token = access_token()
    read = token_principal(id_, as_of=keyring.changes)

    keyring.forget_token(id_)
    keyring.remember(token, read)

    assert keyring.find(token) is None


def test_revoking_one_token_makes_nobody_read_others_again() -> None:
    """A storm of revocations does not keep what is being read meanwhile from being remembered."""
    keyring = small_keyring()
    id_, token = access_token()
    read = token_principal(id_, as_of=keyring.changes)

    keyring.forget_token(access_token()[0])
    keyring.remember(token, read)

    assert keyring.find(token) is read


def test_revoking_a_token_is_told_to_whoever_holds_its_principal() -> None:
    """Connections that remember a principal look again."""
    keyring = small_keyring()
    before = keyring.generation

    keyring.forget_token(access_token()[0])

    assert keyring.generation > before


def test_more_revoked_tokens_than_are_remembered_are_as_safe(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was being read when the memory of revoked tokens was full is read again."""
    monkeypatch.setattr(keyring_module, "_MOST_REVOKED", 3)
    keyring = small_keyring()
    id_, token = access_token()
    read = token_principal(id_, as_of=keyring.changes)

    for each in (id_, *(access_token()[0] for _ in range(3))):
        keyring.forget_token(each)
    keyring.remember(token, read)

    assert keyring.find(token) is None


def test_client_that_changes_takes_its_tokens_along() -> None:
    """And nobody else's."""
    keyring = small_keyring()
    tokens = {}
    for client in ("cl-lp-a", "cl-lp-b", None):
        id_, token = access_token()
        principal = token_principal(id_)
        principal.client_id = client
        keyring.remember(token, principal)
        tokens[client] = token

    keyring.forget_client("cl-lp-a")

    assert [keyring.find(tokens[client]) is None for client in tokens] == [True, False, False]


# -- keys that a signature has proven


def test_a_key_is_found_by_its_id_and_then_by_its_token(
    keyring: Keyring, keys: Keys, admin: Principal
) -> None:
    created = keys.create(admin, KeyCreate(name="laptop"))
    key_id, token = created.key.id, token_of(created)
    assert keyring.find_id(key_id) is None

    keyring.remember_id(key_id, keyring.load_id(key_id))
    by_id = keyring.find_id(key_id)
    keyring.remember(token, keyring.load(token))

    assert by_id is not None
    assert by_id.key_name == "laptop"
    assert keyring.find_id(key_id) is keyring.find(token)
    assert len(list(keyring.principals())) == 1


def test_a_key_found_by_its_id_is_forgotten_with_every_change(
    keyring: Keyring, keys: Keys, admin: Principal
) -> None:
    created = keys.create(admin, KeyCreate(name="laptop"))
    key_id, token = created.key.id, token_of(created)
    keyring.remember_id(key_id, keyring.load_id(key_id))
    keyring.remember(token, keyring.load(token))

    keyring.forget_key(key_id)

    assert keyring.find_id(key_id) is None
    assert keyring.find(token) is None


def test_what_was_read_by_id_before_a_change_is_not_remembered(
    keyring: Keyring, keys: Keys, admin: Principal
) -> None:
    key_id = keys.create(admin, KeyCreate(name="laptop")).key.id
    read_before = keyring.load_id(key_id)

    keyring.forget_key(key_id)
    keyring.remember_id(key_id, read_before)

    assert keyring.find_id(key_id) is None
    assert keyring.load_id("0unknown0000") is None


def test_no_token_finds_what_an_id_was_remembered_by(keyring: Keyring, keys: Keys, admin: Principal) -> None:
    key_id = keys.create(admin, KeyCreate(name="laptop")).key.id
    keyring.remember_id(key_id, keyring.load_id(key_id))

    assert keyring.find(key_id.encode()) is None
    assert keyring.find(b"signed " + key_id.encode()) is None


def test_the_last_use_by_signature_is_noted_when_the_token_takes_over(
    keyring: Keyring, keys: Keys, admin: Principal
) -> None:
    created = keys.create(admin, KeyCreate(name="laptop"))
    keyring.remember_id(created.key.id, keyring.load_id(created.key.id))
    found = keyring.find_id(created.key.id)
    assert found is not None
    found.last_used_at = 1_795_000_000.0

    keyring.remember(token_of(created), keyring.load(token_of(created)))

    assert keyring.take_uses() == [Use("key", created.key.id, 1_795_000_000.0, None)]
