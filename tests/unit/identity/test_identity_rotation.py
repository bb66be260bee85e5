"""Rotation: a new secret beside the old one, for a chosen time, without anything else changing."""

import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from identity_fakes import NOW, Changes, Clock, KeptTrail

from lingpai.errors import LingpaiError
from lingpai.identity.interfaces import CreatedKey, Use
from lingpai.identity.keyring import Keyring
from lingpai.identity.peppers import Peppers
from lingpai.identity.projects import Projects
from lingpai.identity.rotation import KeyRotation
from lingpai.identity.schemas import KeyCreate, KeyRotate, KeyUpdate, KeyView, ProjectCreate
from lingpai.identity.service import Keys
from lingpai.identity.store import SqlCredentialStore
from lingpai.ids import credential_id
from lingpai.principal import Principal
from lingpai.storage.database import Database
from lingpai.storage.trail import NoTrail

HOUR = 3600
Member = Callable[..., Principal]


def code_of(action: Callable[[], object]) -> tuple[str, str | None]:
    with pytest.raises(LingpaiError) as caught:
        action()
    return caught.value.code, caught.value.param


@pytest.fixture
def keyring(database: Database, peppers: Peppers) -> Keyring:
    return Keyring(SqlCredentialStore(database), peppers)


@pytest.fixture
def made(keys: Keys, admin: Principal) -> CreatedKey:
    return keys.create(admin, KeyCreate(name="ci", limits=["5/day"], models=["a/*"]))


def ends(keyring: Keyring, token: str) -> float | None:
    """When a secret stops working: Unix seconds, None for never; 0 for one that does not work."""
    found = keyring.load(token.encode())
    return 0 if found is None else found.expires_at


def remember(keyring: Keyring, token: str, *, used_at: float) -> Principal:
    found = keyring.load(token.encode())
    assert found is not None
    keyring.remember(token.encode(), found)
    found.last_used_at, found.last_used_ip = used_at, "192.0.2.1"
    return found


class TestTwoSecrets:
    def test_both_work_and_are_the_same_key(
        self, rotation: KeyRotation, keyring: Keyring, made: CreatedKey, admin: Principal
    ) -> None:
        new = rotation.rotate(admin, "ci", KeyRotate(overlap="1h"))

        assert new.token != made.token
        assert credential_id(new.token.encode()) == credential_id(made.token.encode()) == made.key.id
        old, present = (keyring.load(token.encode()) for token in (made.token, new.token))
        assert old is not None
        assert present is not None
        assert (old.key_id, old.key_limits, old.models) == (
            present.key_id,
            present.key_limits,
            present.models,
        )
        assert (old.expires_at, present.expires_at) == (NOW + HOUR, None)

    @pytest.mark.parametrize(
        ("overlap", "seconds"),
        [(None, 24 * HOUR), ("24h", 24 * HOUR), ("90s", 90), ("30m", 1800), ("30d", 720 * HOUR)],
    )
    def test_overlap_is_chosen(
        self,
        rotation: KeyRotation,
        keyring: Keyring,
        made: CreatedKey,
        admin: Principal,
        *,
        overlap: str | None,
        seconds: int,
    ) -> None:
        rotation.rotate(admin, "ci", KeyRotate(overlap=overlap))

        assert ends(keyring, made.token) == NOW + seconds

    def test_without_an_overlap_the_old_secret_ends_at_once(
        self, rotation: KeyRotation, keyring: Keyring, made: CreatedKey, admin: Principal
    ) -> None:
        new = rotation.rotate(admin, "ci", KeyRotate(overlap="0s"))

        assert (ends(keyring, made.token), ends(keyring, new.token)) == (0, None)
        assert len(new.key.secrets(NOW)) == 1

    @pytest.mark.parametrize("overlap", ["31d", "721h", "1w", "1", "-1h", "1.5h", "", "h", "٣h", "99999999h"])
    def test_other_overlaps_are_refused_and_change_nothing(
        self, rotation: KeyRotation, keyring: Keyring, made: CreatedKey, admin: Principal, overlap: str
    ) -> None:
        assert code_of(partial(rotation.rotate, admin, "ci", KeyRotate(overlap=overlap))) == (
            "invalid_request",
            "overlap",
        )
        assert ends(keyring, made.token) is None

    def test_old_secret_does_not_outlive_the_key(
        self, rotation: KeyRotation, keys: Keys, keyring: Keyring, admin: Principal
    ) -> None:
        made = keys.create(admin, KeyCreate(name="short", expires_in="1h"))

        new = rotation.rotate(admin, "short", KeyRotate(overlap="24h"))

        assert ends(keyring, made.token) == ends(keyring, new.token) == NOW + HOUR

    def test_a_second_rotation_ends_the_older_secret(
        self, rotation: KeyRotation, keyring: Keyring, made: CreatedKey, admin: Principal, clock: Clock
    ) -> None:
        second = rotation.rotate(admin, "ci", KeyRotate(overlap="24h"))
        clock.now += HOUR
        third = rotation.rotate(admin, "ci", KeyRotate(overlap="2h"))

        assert ends(keyring, made.token) == 0
        assert ends(keyring, second.token) == NOW + 3 * HOUR
        assert ends(keyring, third.token) is None

    def test_rotations_at_the_same_time_leave_two_secrets_that_work(
        self, rotation: KeyRotation, keyring: Keyring, made: CreatedKey, admin: Principal
    ) -> None:
        with ThreadPoolExecutor(8) as threads:
            new = list(threads.map(lambda _: rotation.rotate(admin, "ci", KeyRotate()), range(16)))

        tokens = [made.token, *(created.token for created in new)]
        assert len(set(tokens)) == 17
        assert sorted(end or 0 for token in tokens if (end := ends(keyring, token)) != 0) == [
            0,  # the present one has no end
            NOW + 24 * HOUR,
        ]

    def test_expired_key_gets_no_secret(
        self, rotation: KeyRotation, keys: Keys, admin: Principal, clock: Clock
    ) -> None:
        keys.create(admin, KeyCreate(name="short", expires_in="1h"))
        clock.now += HOUR

        assert code_of(partial(rotation.rotate, admin, "short", KeyRotate()))[0] == "invalid_request"

    def test_deleted_key_keeps_no_secret(
        self, rotation: KeyRotation, keys: Keys, keyring: Keyring, made: CreatedKey, admin: Principal
    ) -> None:
        new = rotation.rotate(admin, "ci", KeyRotate())

        keys.delete(admin, "ci")

        assert ends(keyring, made.token) == ends(keyring, new.token) == 0

    def test_new_secret_is_hashed_under_the_newest_pepper_and_the_old_one_still_works(
        self, database: Database, made: CreatedKey, admin: Principal
    ) -> None:
        peppers = Peppers({1: b"p" * 32, 2: b"q" * 32})
        rotation = KeyRotation(database, on_change=Changes(), peppers=peppers, trail=NoTrail(), clock=Clock())
        new = rotation.rotate(admin, "ci", KeyRotate())

        assert ends(Keyring(SqlCredentialStore(database), peppers), made.token) == NOW + 24 * HOUR
        only_newest = Keyring(SqlCredentialStore(database), Peppers({2: b"q" * 32}))
        assert ends(only_newest, new.token) is None
        assert ends(only_newest, made.token) == 0

    def test_secret_is_in_no_repr_no_log_and_no_database(
        self,
        rotation: KeyRotation,
        made: CreatedKey,
        admin: Principal,
        tmp_path: Path,
        trail: KeptTrail,
        *,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        with caplog.at_level(logging.DEBUG):
            new = rotation.rotate(admin, "ci", KeyRotate())

        for secret in (made.token[18:61], new.token[18:61]):
            assert secret not in repr(new) + caplog.text + repr(trail)
            assert all(secret.encode() not in file.read_bytes() for file in tmp_path.iterdir())

    def test_change_is_told_after_it_is_stored_and_recorded(
        self,
        rotation: KeyRotation,
        made: CreatedKey,
        admin: Principal,
        changes: Changes,
        commits: list[float],
        *,
        trail: KeptTrail,
    ) -> None:
        del changes[:]

        rotation.rotate(admin, "ci", KeyRotate())

        assert changes == [("key", made.key.id)]
        assert changes.began[-1] <= commits[-1]
        [(caller, deed)] = trail
        assert caller is admin
        assert (deed.action, deed.target_id, deed.target_name) == ("key.rotate", made.key.id, "ci")


class TestWhatIsShown:
    def test_both_secrets_are_shown_with_their_hints_and_times(
        self, rotation: KeyRotation, made: CreatedKey, admin: Principal, clock: Clock
    ) -> None:
        clock.now += 60
        new = rotation.rotate(admin, "ci", KeyRotate(overlap="1h"))

        view = KeyView.of(new.key, now=clock.now).model_dump()

        assert view["hint"].endswith(new.token[-4:])
        assert view["secrets"] == [
            {
                "hint": f"sk-lp-…{new.token[-4:]}",
                "created_at": "2026-11-18T11:07:40Z",
                "expires_at": None,
                "last_used_at": None,
            },
            {
                "hint": f"sk-lp-…{made.token[-4:]}",
                "created_at": "2026-11-18T11:06:40Z",
                "expires_at": "2026-11-18T12:07:40Z",
                "last_used_at": None,
            },
        ]
        assert len(KeyView.of(new.key, now=clock.now + HOUR).secrets) == 1

    def test_each_secret_tells_when_it_was_used(
        self, rotation: KeyRotation, keys: Keys, made: CreatedKey, admin: Principal, clock: Clock
    ) -> None:
        """Uses are written up to a minute later, when the key may have been rotated since."""
        id_ = made.key.id
        clock.now = NOW + 100
        rotation.rotate(admin, "ci", KeyRotate(overlap="1h"))

        def shown(*uses: Use) -> tuple[float | None, ...]:
            keys.touch(uses)
            key = keys.get(admin, "ci")
            assert key.old_secret is not None
            return key.last_used_at, key.secret.last_used_at, key.old_secret.last_used_at

        assert shown(Use("key", id_, NOW + 50, None)) == (NOW + 50, None, NOW + 50)
        assert shown(Use("key", id_, NOW + 110, None, is_old_secret=True)) == (NOW + 110, None, NOW + 110)
        assert shown(Use("key", id_, NOW + 120, None)) == (NOW + 120, NOW + 120, NOW + 110)
        assert shown(Use("key", id_, NOW + 115, None, is_old_secret=True)) == (
            NOW + 120,
            NOW + 120,
            NOW + 115,
        )
        clock.now = NOW + 200
        rotation.rotate(admin, "ci", KeyRotate(overlap="1h"))
        assert shown() == (NOW + 120, None, NOW + 120)
        # of the secret that has ended: it says nothing of the two that are there
        assert shown(Use("key", id_, NOW + 130, None, is_old_secret=True)) == (NOW + 130, None, NOW + 120)


class TestKeyring:
    def test_remembered_old_secret_ends_at_its_time(
        self, rotation: KeyRotation, keyring: Keyring, made: CreatedKey, admin: Principal
    ) -> None:
        """The gateway compares the principal's expiry with the clock on every call."""
        rotation.rotate(admin, "ci", KeyRotate(overlap="1h"))
        keyring.forget_key(made.key.id)

        remember(keyring, made.token, used_at=NOW)

        found = keyring.find(made.token.encode())
        assert found is not None
        assert found.expires_at == NOW + HOUR

    def test_both_are_remembered_and_forgotten_together(
        self, rotation: KeyRotation, keyring: Keyring, made: CreatedKey, admin: Principal
    ) -> None:
        new = rotation.rotate(admin, "ci", KeyRotate())
        tokens = [made.token.encode(), new.token.encode()]
        forgetting: list[Callable[[], None]] = [
            lambda: keyring.forget_key(made.key.id),
            lambda: keyring.forget_user(made.key.user_id),
            lambda: keyring.forget_project(made.key.project_id),
        ]
        for forget in forgetting:
            for token in tokens:
                keyring.remember(token, keyring.load(token))
            assert all(keyring.find(token) for token in tokens)

            forget()

            assert [keyring.find(token) for token in tokens] == [None, None]
        assert not list(keyring.principals())

    def test_uses_are_told_apart(
        self, rotation: KeyRotation, keyring: Keyring, made: CreatedKey, admin: Principal
    ) -> None:
        new = rotation.rotate(admin, "ci", KeyRotate())
        remember(keyring, made.token, used_at=NOW + 1)
        remember(keyring, new.token, used_at=NOW + 2)

        uses = {(use.time, use.is_old_secret) for use in keyring.take_uses()}

        assert uses == {(NOW + 1, True), (NOW + 2, False)}

    def test_uses_of_forgotten_secrets_are_not_lost(
        self, rotation: KeyRotation, keyring: Keyring, made: CreatedKey, admin: Principal
    ) -> None:
        new = rotation.rotate(admin, "ci", KeyRotate())
        remember(keyring, made.token, used_at=NOW + 1)
        remember(keyring, new.token, used_at=NOW + 2)

        keyring.forget_key(made.key.id)

        assert {(use.time, use.is_old_secret) for use in keyring.take_uses()} == {
            (NOW + 1, True),
            (NOW + 2, False),
        }

    def test_small_memory_lets_either_secret_go(
        self, database: Database, peppers: Peppers, rotation: KeyRotation, made: CreatedKey, admin: Principal
    ) -> None:
        keyring = Keyring(SqlCredentialStore(database), peppers, capacity=1)
        new = rotation.rotate(admin, "ci", KeyRotate())

        for token in (made.token, new.token, made.token):
            remember(keyring, token, used_at=0.0)

        assert keyring.find(made.token.encode()) is not None
        assert keyring.find(new.token.encode()) is None
        keyring.forget_key(made.key.id)
        assert not list(keyring.principals())

    def test_wrong_secrets_are_told_without_a_look_up_and_both_right_ones_pass(
        self, rotation: KeyRotation, keyring: Keyring, made: CreatedKey, admin: Principal
    ) -> None:
        first = rotation.rotate(admin, "ci", KeyRotate(overlap="0s"))
        new = rotation.rotate(admin, "ci", KeyRotate())

        assert keyring.load(made.token.encode()) is None  # right once; known as wrong from here on

        assert keyring.is_known_garbage(made.token.encode())
        assert not keyring.is_known_garbage(first.token.encode())
        assert not keyring.is_known_garbage(new.token.encode())


class TestWhoMay:
    """A new secret of a key is the key: nobody gets one of a key that can do more than they can."""

    @pytest.fixture
    def bob(self, member: Member) -> Principal:
        return member("bob")

    @pytest.mark.parametrize(
        ("fields", "own"),
        [
            ({"scopes": ["usage:read"]}, {"scopes": frozenset({"keys:write"})}),
            ({"models": []}, {"models": ("a/x",)}),
            ({"limits": ["none"]}, {"key_limits": ("5/day",)}),
            ({}, {"expires_at": NOW + HOUR}),
        ],
    )
    def test_narrow_key_gets_no_secret_of_a_wider_one(
        self,
        rotation: KeyRotation,
        keys: Keys,
        bob: Principal,
        admin: Principal,
        *,
        fields: dict[str, Any],
        own: dict[str, Any],
    ) -> None:
        wide = keys.create(admin, KeyCreate(name="wide", user="bob", **fields)).key
        narrow = replace(bob, **own)

        with pytest.raises(LingpaiError):
            rotation.rotate(narrow, wide.id, KeyRotate())
        assert rotation.rotate(bob, wide.id, KeyRotate()).key.id == wide.id

    def test_key_renews_itself_whatever_restricts_it(
        self, rotation: KeyRotation, keys: Keys, keyring: Keyring, bob: Principal, admin: Principal
    ) -> None:
        body = {"limits": ["5/day"], "models": ["a/x"], "scopes": ["keys:write"], "expires_in": "1h"}
        made = keys.create(admin, KeyCreate.model_validate({"name": "self", "user": "bob", **body}))
        caller = keyring.load(made.token.encode())
        assert caller is not None

        new = rotation.rotate(caller, made.key.id, KeyRotate())

        assert new.key.expires_at == NOW + HOUR

    def test_old_secret_does_not_outlive_its_time_by_getting_another_one(
        self, rotation: KeyRotation, keys: Keys, keyring: Keyring, bob: Principal, admin: Principal
    ) -> None:
        made = keys.create(admin, KeyCreate(name="self", user="bob", scopes=["keys:write"], limits=["none"]))
        rotation.rotate(admin, made.key.id, KeyRotate(overlap="1h"))
        stale = keyring.load(made.token.encode())
        assert stale is not None

        assert code_of(partial(rotation.rotate, stale, made.key.id, KeyRotate()))[0] == "invalid_request"
        widen = partial(keys.update, stale, made.key.id, KeyUpdate(expires_at=None))
        assert code_of(widen) == ("invalid_request", "expires_at")
        fresh = keys.create(stale, KeyCreate(name="more", scopes=["keys:write"])).key
        assert fresh.expires_at == NOW + HOUR

    def test_keys_of_others_are_not_rotated_and_those_unseen_do_not_exist(
        self,
        rotation: KeyRotation,
        keys: Keys,
        projects: Projects,
        bob: Principal,
        member: Member,
        *,
        admin: Principal,
    ) -> None:
        eve = member("eve")
        projects.create(admin, ProjectCreate(name="search", owner="bob"))
        key = keys.create(admin, KeyCreate(name="ops", project="search")).key
        private = keys.create(bob, KeyCreate(name="private")).key

        assert code_of(partial(rotation.rotate, bob, key.id, KeyRotate()))[0] == "insufficient_scope"
        assert code_of(partial(rotation.rotate, eve, private.id, KeyRotate()))[0] == "not_found"
        assert code_of(partial(rotation.rotate, eve, "A" * 12, KeyRotate()))[0] == "not_found"
