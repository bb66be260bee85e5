"""Sealed values open for their own purpose and row, under the right key, unchanged; and in no other case."""

import os
import struct
import subprocess
import sys
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from hypothesis import given
from hypothesis import strategies as st

from lingpai.storage.sealing import RootKeys, Sealer, SealError, UnknownRootKeyError, sealed_version

SEALER = Sealer(RootKeys({1: b"r" * 32}))
TEXTS = st.text(st.characters(codec="utf-8"), max_size=40)
OVERHEAD = 1 + 4 + 12 + 16


@given(TEXTS, TEXTS, st.binary(max_size=300))
def test_what_was_sealed_opens(purpose: str, context: str, plaintext: bytes) -> None:
    sealed = SEALER.seal(purpose, context, plaintext)

    assert SEALER.open(purpose, context, sealed) == plaintext
    assert len(sealed) == len(plaintext) + OVERHEAD


@given(st.binary(max_size=40))
def test_every_flipped_bit_fails(plaintext: bytes) -> None:
    sealed = SEALER.seal("provider-key", "row", plaintext)

    for place in range(len(sealed) * 8):
        changed = bytearray(sealed)
        changed[place // 8] ^= 1 << place % 8
        with pytest.raises(SealError):
            SEALER.open("provider-key", "row", bytes(changed))


@given(st.binary(max_size=20), st.binary(min_size=1, max_size=20))
def test_every_shorter_or_longer_text_fails(plaintext: bytes, more: bytes) -> None:
    sealed = SEALER.seal("provider-key", "row", plaintext)

    for changed in [sealed[:length] for length in range(len(sealed))] + [sealed + more, more + sealed]:
        with pytest.raises(SealError):
            SEALER.open("provider-key", "row", changed)


@given(st.tuples(TEXTS, TEXTS), st.tuples(TEXTS, TEXTS))
def test_value_moved_to_another_row_or_purpose_does_not_open(
    sealed_for: tuple[str, str], opened_for: tuple[str, str]
) -> None:
    """Also where both run into the same text: ("ab", "c") is not ("a", "bc")."""
    sealed = SEALER.seal(*sealed_for, b"secret")

    if sealed_for != opened_for:
        with pytest.raises(SealError, match="does not open"):
            SEALER.open(*opened_for, sealed)


def test_purpose_and_row_may_not_run_into_each_other() -> None:
    with pytest.raises(SealError):
        SEALER.open("a", "bc", SEALER.seal("ab", "c", b"secret"))


def test_purposes_have_keys_of_their_own() -> None:
    """CVE-2026-114612: with one key for everything, a value that is authenticated otherwise would open elsewhere."""

    def key(purpose: str) -> bytes:
        info = b"lingpai sealing " + purpose.encode()
        return HKDF(algorithm=SHA256(), length=32, salt=None, info=info).derive(b"r" * 32)

    sealed = SEALER.seal("provider-key", "row", b"secret")
    head, nonce, text = sealed[:5], sealed[5:17], sealed[17:]
    aad = b"".join(struct.pack(">I", len(part)) + part for part in (head, b"provider-key", b"row"))

    assert AESGCM(key("provider-key")).decrypt(nonce, text, aad) == b"secret"
    assert key("provider-key") != key("token-signing-key")
    assert key("provider-key") != b"r" * 32


def test_equal_values_are_sealed_differently() -> None:
    sealed = {SEALER.seal("provider-key", "row", b"secret") for _ in range(1000)}

    assert len({each[5:17] for each in sealed}) == len(sealed) == 1000


def test_head_says_format_and_version() -> None:
    sealed = Sealer(RootKeys({7: b"r" * 32})).seal("provider-key", "row", b"secret")

    assert sealed[:5] == b"\x01\x00\x00\x00\x07"
    assert sealed_version(sealed) == 7


def test_value_of_an_older_root_key_opens_and_new_ones_use_the_newest() -> None:
    sealed = SEALER.seal("provider-key", "row", b"secret")
    rotated = Sealer(RootKeys({1: b"r" * 32, 2: b"s" * 32}))

    assert rotated.open("provider-key", "row", sealed) == b"secret"
    assert sealed_version(rotated.seal("provider-key", "row", b"secret")) == 2


def test_missing_root_key_is_named() -> None:
    sealed = SEALER.seal("provider-key", "row", b"canary-plaintext")

    with pytest.raises(
        UnknownRootKeyError, match=r"root key 1, which this server does not have \(it has 2"
    ) as caught:
        Sealer(RootKeys({2: b"s" * 32})).open("provider-key", "row", sealed)

    assert "canary" not in str(caught.value)


def test_wrong_root_key_of_the_right_number_is_told_without_secrets() -> None:
    sealed = SEALER.seal("provider-key", "row", b"canary-plaintext")

    with pytest.raises(SealError, match="another root key 1") as caught:
        Sealer(RootKeys({1: b"canary-root" * 3})).open("provider-key", "row", sealed)

    assert "canary" not in str(caught.value)
    assert caught.value.__suppress_context__


def test_value_sealed_by_another_process_under_a_new_root_key_opens(tmp_path: Path) -> None:
    path = tmp_path / "secrets" / "root.json"
    mine, others = RootKeys.from_file(path), RootKeys.from_file(path)
    others.rotate()
    sealed = Sealer(others).seal("provider-key", "row", b"secret")

    assert Sealer(mine).open("provider-key", "row", sealed) == b"secret"


@pytest.mark.parametrize("text", [b"", b"sk-plain", b"\x02" + bytes(40), os.urandom(16)])
def test_what_is_no_sealed_value_is_told(text: bytes) -> None:
    with pytest.raises(SealError, match="no sealed value"):
        sealed_version(text)


def test_cryptography_is_loaded_with_the_first_value() -> None:
    """It takes 9 MB that most servers do not need."""
    code = (
        "import sys; from lingpai.storage.sealing import RootKeys, Sealer; import lingpai.app\n"
        "sealer = Sealer(RootKeys({1: b'r' * 32}))\n"
        "before = 'cryptography' in sys.modules\n"
        "sealer.seal('a', 'b', b'c')\n"
        "print(before, 'cryptography' in sys.modules)"
    )

    said = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout

    assert said.split() == ["False", "True"]
