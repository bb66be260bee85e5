"""Verifying: one key, one algorithm; what is remembered of keys; and the last step, with the body and the nonce."""

import asyncio
import os
from dataclasses import replace

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from identity_fakes import NOW
from signing_requests import BODY, GOOD

from lingpai.errors import LingpaiError
from lingpai.identity.schemas import KeyCreate
from lingpai.identity.signing.nonces import FileNonceStore
from lingpai.identity.signing.profile import read_head
from lingpai.identity.signing.public_keys import public_key_text
from lingpai.identity.signing.schemas import SigningKeyCreate
from lingpai.identity.signing.service import SigningKeys
from lingpai.identity.signing.verifying import Signatures, SigningKeyring
from lingpai.principal import Principal
from lingpai.storage.sealing import RootKeys, Sealer
from lingpai.storage.trail import NoTrail

SEALER = Sealer(RootKeys({1: b"r" * 32}))
PRIVATE = Ed25519PrivateKey.generate()
PUBLIC = public_key_text(PRIVATE.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw))


@pytest.fixture
def signing(database, changes, clock, keys):
    return SigningKeys(database, on_change=changes, sealer=SEALER, trail=NoTrail(), clock=clock)


@pytest.fixture
def key_id(keys, admin):
    return keys.create(admin, KeyCreate(name="app", limits=["none"])).key.id


@pytest.fixture
def keyring(database, peppers):
    return SigningKeyring(database, SEALER, capacity=2)


@pytest.fixture
def signatures(keyring, tmp_path, clock):
    nonces = FileNonceStore(tmp_path / "nonces", clock=clock)
    yield Signatures(keyring, nonces, clock=clock)
    nonces.close()


@pytest.fixture
def make(signing, admin, key_id):
    def make_(algorithm="hmac-sha256", **fields):
        public = {"public_key": PUBLIC} if algorithm == "ed25519" else {}
        return signing.create(
            admin, key_id, SigningKeyCreate(name="a", algorithm=algorithm, **public, **fields)
        )

    return make_


def signed_by(created, **parameters):
    """The head of a good request, signed with an HMAC key."""
    signing = GOOD.but(secret=created.secret.encode()).with_parameters(keyid=created.key.id, **parameters)
    return read_head(signing.message(), now=NOW)


def refusal(action):
    with pytest.raises(LingpaiError) as caught:
        action()
    assert caught.value.code == "signature_invalid"
    return caught.value.param


def test_hmac_verifies_and_nothing_else_does(signatures, keyring, make):
    created = make()
    head, found = signed_by(created), keyring.load(created.key.id)

    signatures.verify(head, found)
    assert refusal(lambda: signatures.verify(replace(head, base=head.base + b" "), found)) == "signature"
    for wrong in (b"", head.signature[:-1], head.signature + b"x", bytes(32)):
        assert (
            refusal(lambda wrong=wrong: signatures.verify(replace(head, signature=wrong), found))
            == "signature"
        )


def test_ed25519_verifies_and_nothing_else_does(signatures, keyring, make):
    created = make("ed25519")
    head = read_head(GOOD.with_parameters(keyid=created.key.id, alg="ed25519").message(), now=NOW)
    head = replace(head, signature=PRIVATE.sign(head.base))
    found = keyring.load(created.key.id)

    signatures.verify(head, found)
    assert refusal(lambda: signatures.verify(replace(head, base=b"other"), found)) == "signature"
    for wrong in (b"", head.signature[:-1], head.signature + b"x", bytes(64), os.urandom(64)):
        assert (
            refusal(lambda wrong=wrong: signatures.verify(replace(head, signature=wrong), found))
            == "signature"
        )


def test_rfc9421_s3_2_alg_must_be_that_of_the_key(signatures, keyring, make):
    created = make()

    assert (
        refusal(lambda: signatures.verify(signed_by(created, alg="ed25519"), keyring.load(created.key.id)))
        == "alg"
    )
    signatures.verify(signed_by(created, alg=None), keyring.load(created.key.id))


def test_rfc9421_s7_3_6_a_public_key_is_never_taken_for_a_shared_secret(signatures, keyring, make):
    """The confusion of algorithms that JWT is known for: HMAC with the public key as its key."""
    created = make("ed25519")
    public = PRIVATE.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
    signing = GOOD.but(secret=public).with_parameters(keyid=created.key.id, alg=None)

    head = read_head(signing.message(), now=NOW)

    assert refusal(lambda: signatures.verify(head, keyring.load(created.key.id))) == "signature"


def test_an_expired_signing_key_verifies_nothing(signatures, keyring, make, clock):
    created = make(expires_in="30m")
    head, found = signed_by(created), keyring.load(created.key.id)
    signatures.verify(head, found)

    clock.now += 1800

    assert refusal(lambda: signatures.verify(head, found)) == "keyid"


def test_the_body_is_compared_and_the_nonce_works_once(signatures, keyring, make):
    created = make()
    head, found = signed_by(created), keyring.load(created.key.id)

    assert (
        refusal(lambda: asyncio.run(signatures.accept(head, found, BODY + b" ", user_id="usr_1")))
        == "content-digest"
    )
    assert (
        refusal(lambda: asyncio.run(signatures.accept(head, found, b"", user_id="usr_1"))) == "content-digest"
    )
    asyncio.run(signatures.accept(head, found, BODY, user_id="usr_1"))
    assert refusal(lambda: asyncio.run(signatures.accept(head, found, BODY, user_id="usr_1"))) == "nonce"


def test_a_large_body_is_compared_as_well(signatures, keyring, make):
    created, body = make(), b"x" * 300_000
    signing = GOOD.but(secret=created.secret.encode(), body=body).with_parameters(keyid=created.key.id)
    head, found = read_head(signing.message(), now=NOW), keyring.load(created.key.id)

    assert (
        refusal(lambda: asyncio.run(signatures.accept(head, found, body[:-1] + b"y", user_id="usr_1")))
        == "content-digest"
    )
    asyncio.run(signatures.accept(head, found, bytearray(body), user_id="usr_1"))


def test_a_body_that_was_not_announced_is_refused(signatures, keyring, make):
    created = make()
    head = replace(signed_by(created), digests={})

    assert (
        refusal(
            lambda: asyncio.run(signatures.accept(head, keyring.load(created.key.id), b"x", user_id="usr_1"))
        )
        == "content-digest"
    )


def test_a_body_that_comes_too_late_is_refused(signatures, keyring, make, clock):
    created = make()
    head, found = signed_by(created), keyring.load(created.key.id)
    clock.now = NOW + 60

    assert refusal(lambda: asyncio.run(signatures.accept(head, found, BODY, user_id="usr_1"))) == "expires"


def test_a_key_belongs_to_its_api_key_or_client_and_to_nobody_else(keyring, make, key_id):
    found = keyring.load(make().key.id)

    assert found.belongs_to(Principal("u", "u", "member", key_id=key_id))
    assert not found.belongs_to(Principal("u", "u", "member", key_id="other"))
    assert not found.belongs_to(Principal("u", "u", "member"))
    found.key = replace(found.key, key_id=None, client_id="c1")
    assert found.belongs_to(Principal("u", "u", "member", client_id="c1"))
    assert not found.belongs_to(Principal("u", "u", "member", client_id="c2"))
    assert not found.belongs_to(Principal("u", "u", "member", key_id=key_id))


def test_the_memory_is_bounded_and_forgets_what_has_changed(keyring, make, key_id):
    ids = [make().key.id for _ in range(3)]
    for id_ in ids:
        keyring.remember(keyring.load(id_), as_of=keyring.generation)
    assert [keyring.find(id_) is not None for id_ in ids] == [False, True, True]
    read_before, as_of = keyring.load(ids[0]), keyring.generation

    keyring.forget_owner("another key")
    assert keyring.find(ids[1]) is not None
    keyring.forget_owner(key_id)
    keyring.remember(read_before, as_of=as_of)

    assert [keyring.find(id_) for id_ in ids] == [None, None, None]
    assert keyring.load("sgn_unknown00000") is None


def test_last_uses_are_told_once_also_of_keys_that_have_left(signatures, keyring, make, key_id):
    created = make()
    found = keyring.load(created.key.id)
    keyring.remember(found, as_of=keyring.generation)
    assert keyring.take_uses() == []

    asyncio.run(signatures.accept(signed_by(created), found, BODY, user_id="usr_1"))
    keyring.forget_owner(key_id)

    assert keyring.take_uses() == [(created.key.id, NOW)]
    assert keyring.take_uses() == []


def test_a_secret_that_cannot_be_opened_is_no_key(database, make, caplog):
    created = make()

    assert SigningKeyring(database, Sealer(RootKeys({2: b"q" * 32}))).load(created.key.id) is None
    assert "sealed under root key 1, which this server does not have" in caplog.text
