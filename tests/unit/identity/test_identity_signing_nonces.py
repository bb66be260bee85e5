"""Nonces: each works once, for as long as its signature could be used, whatever happens to the process or the disk."""

import asyncio
import os
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st
from identity_fakes import NOW, Clock

from lingpai.errors import LingpaiError
from lingpai.identity.signing import nonces as nonces_module
from lingpai.identity.signing.nonce_memory import NonceMemory, fingerprint
from lingpai.identity.signing.nonces import MAGIC, RECORD_BYTES, FileNonceStore

LATER = NOW + 300


@pytest.fixture
def open_store(tmp_path, clock):
    """Opens the store in a folder; what is open is closed when it is opened again, unless it crashed."""
    stores = []

    def open_(*, crash=False, **options):
        for store in stores if not crash else ():
            store.close()
        stores[:] = [FileNonceStore(tmp_path / "nonces", clock=clock, **options)]
        return stores[0]

    yield open_
    for store in stores:
        store.close()


def claim(store, nonce, *, key="sgn_1", user="usr_1", until=LATER, now=NOW):
    asyncio.run(store.claim(key, nonce, user_id=user, until=until, now=now))


def refusal(store, nonce, **options):
    with pytest.raises(LingpaiError) as caught:
        claim(store, nonce, **options)
    return caught.value.code, caught.value.param


def files(tmp_path):
    return sorted((tmp_path / "nonces").iterdir())


def test_a_nonce_works_once_per_key(open_store):
    store = open_store()

    claim(store, "one")

    assert refusal(store, "one") == ("signature_invalid", "nonce")
    claim(store, "one", key="sgn_2")
    claim(store, "two")


def test_a_nonce_counts_however_long_its_signature_lives(open_store):
    store = open_store()
    claim(store, "one", until=NOW + 600)

    assert refusal(store, "one", until=NOW + 30) == ("signature_invalid", "nonce")


@pytest.mark.parametrize("crash", [False, True])
def test_a_nonce_is_remembered_by_the_next_process(open_store, crash):
    claim(open_store(), "one")

    assert refusal(open_store(crash=crash), "one") == ("signature_invalid", "nonce")


def test_a_nonce_is_written_before_the_call_goes_on(open_store, tmp_path):
    claim(open_store(), "one")

    (path,) = files(tmp_path)
    assert path.stat().st_size == len(MAGIC) + RECORD_BYTES
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700
    assert b"one" not in path.read_bytes()


def test_a_server_without_signed_calls_has_no_folder(open_store, tmp_path):
    open_store().sweep()

    assert not (tmp_path / "nonces").exists()


def test_nonces_and_files_go_when_nothing_in_them_can_be_used_any_more(open_store, clock, tmp_path):
    store = open_store()
    claim(store, "one", until=NOW + 350)
    clock.now = NOW + 301
    store.sweep()
    claim(store, "two", until=clock.now + 300, now=clock.now)
    assert len(files(tmp_path)) == 2

    clock.now = NOW + 400
    store.sweep()
    assert len(files(tmp_path)) == 1
    assert len(store) == 1

    clock.now = NOW + 1000
    store.sweep()
    assert files(tmp_path) == []
    assert len(store) == 0


def test_the_next_start_deletes_files_that_are_over(open_store, clock, tmp_path):
    claim(open_store(), "one")
    clock.now = NOW + 400

    assert len(open_store()) == 0
    assert files(tmp_path) == []


def test_a_clock_that_goes_back_makes_no_nonce_new(open_store, clock):
    store = open_store()
    claim(store, "one", until=NOW + 10)
    claim(store, "two", until=NOW + 300, now=NOW + 200)

    assert refusal(store, "one", until=NOW + 10, now=NOW) == ("signature_invalid", "created")


def test_the_memory_is_bounded_for_all_and_for_each_user(open_store):
    store = open_store(most=3, most_per_user=2)
    claim(store, "one")
    claim(store, "two", key="sgn_2")

    assert refusal(store, "three", key="sgn_3") == ("server_busy", None), "another key is no more room"
    claim(store, "three", key="sgn_4", user="usr_2")
    assert refusal(store, "four", key="sgn_5", user="usr_3") == ("server_busy", None)
    claim(store, "four", key="sgn_5", user="usr_3", now=NOW + 400, until=NOW + 700)


def test_a_torn_record_is_cut_off(open_store, tmp_path):
    claim(open_store(), "one")
    (path,) = files(tmp_path)
    path.write_bytes(path.read_bytes() + b"torn")

    store = open_store(crash=True)

    assert refusal(store, "one") == ("signature_invalid", "nonce")
    claim(store, "two")


@pytest.mark.parametrize("place", [0, len(MAGIC), len(MAGIC) + RECORD_BYTES - 1])
def test_a_damaged_file_makes_older_signatures_unusable_and_no_others(open_store, tmp_path, place, caplog):
    claim(open_store(), "one")
    (path,) = files(tmp_path)
    data = bytearray(path.read_bytes())
    data[place] ^= 0xFF
    path.write_bytes(data)

    store = open_store(crash=True)

    assert refusal(store, "one")[0] == "signature_invalid"
    assert refusal(store, "never used", until=NOW + 300) == ("signature_invalid", "created")
    claim(store, "of a signature made since", until=NOW + 301, now=NOW + 1)
    assert "damaged" in caplog.text


def test_a_full_disk_refuses_and_loses_nothing(open_store, monkeypatch, caplog):
    store = open_store()
    claim(store, "one")
    monkeypatch.setattr(nonces_module.os, "pwrite", _full_disk)
    assert refusal(store, "two") == ("storage_unavailable", None)

    monkeypatch.undo()

    claim(store, "two")
    store = open_store(crash=True)
    assert refusal(store, "one") == ("signature_invalid", "nonce")
    assert refusal(store, "two") == ("signature_invalid", "nonce")


def test_a_half_written_record_is_written_over(open_store, monkeypatch, caplog):
    store = open_store()
    whole = os.pwrite
    monkeypatch.setattr(nonces_module.os, "pwrite", lambda fd, data, at: whole(fd, data[:9], at))
    assert refusal(store, "one") == ("storage_unavailable", None)
    monkeypatch.undo()

    claim(store, "one")

    assert refusal(open_store(crash=True), "one") == ("signature_invalid", "nonce")


def _full_disk(*_):
    raise OSError(28, "No space left on device")


def test_many_at_once_get_a_nonce_once(open_store):
    store = open_store()

    async def race():
        claims = (store.claim("sgn_1", "one", user_id="usr_1", until=LATER, now=NOW) for _ in range(50))
        return await asyncio.gather(*claims, return_exceptions=True)

    assert [type(outcome) for outcome in asyncio.run(race())].count(type(None)) == 1


@given(
    st.lists(
        st.tuples(
            st.integers(0, 5), st.integers(1, 600), st.integers(0, 120), st.sampled_from(["claim", "crash"])
        ),
        max_size=40,
    )
)
def test_no_nonce_ever_works_twice_while_its_signature_lives(tmp_path_factory, steps):
    """Whatever the order of claims, crashes and time: a model that remembers everything never disagrees."""
    folder, clock = tmp_path_factory.mktemp("nonces"), Clock()
    store, taken = FileNonceStore(folder / "nonces", clock=clock), {}
    for number, life, pause, step in steps:
        clock.now += pause
        if step == "crash":
            store = FileNonceStore(folder / "nonces", clock=clock)
        until = clock.now + life
        if taken.get(number, 0) > clock.now:
            assert refusal(store, str(number), until=until, now=clock.now)[1] == "nonce"
            continue
        with suppress(LingpaiError):  # it may be remembered for up to a minute longer
            claim(store, str(number), until=until, now=clock.now)
            taken[number] = until
    store.close()


def test_fingerprints_tell_keys_and_nonces_apart():
    marks = {fingerprint(key, nonce) for key in ("a", "ab", "b") for nonce in ("", "b", "bc", "c")}

    assert len(marks) == 12
    assert NonceMemory(most=1, most_per_user=1).ask("a", 1, NOW) == "new"
