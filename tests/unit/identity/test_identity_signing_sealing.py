"""Sealed secrets open with the pepper, purpose and context they were sealed with, and with nothing else."""

import pytest

from lingpai.identity.peppers import Peppers
from lingpai.identity.signing.sealing import PepperSealer

SECRET = b"a secret that is sealed"


@pytest.fixture
def sealer(peppers):
    return PepperSealer(peppers)


def test_what_is_sealed_opens_again(sealer):
    assert sealer.open("signing key", "sgn_1", sealer.seal("signing key", "sgn_1", SECRET)) == SECRET


def test_the_same_is_never_sealed_alike_and_never_in_the_clear(sealer):
    sealed = {sealer.seal("signing key", "sgn_1", SECRET) for _ in range(10)}

    assert len(sealed) == 10
    assert not any(SECRET[:6] in each for each in sealed)


@pytest.mark.parametrize(
    ("purpose", "context"), [("signing key", "sgn_2"), ("another", "sgn_1"), ("signing key\0sgn_1", "")]
)
def test_another_purpose_or_context_does_not_open_it(sealer, purpose, context):
    sealed = sealer.seal("signing key", "sgn_1", SECRET)

    with pytest.raises(ValueError, match="something else"):
        sealer.open(purpose, context, sealed)


def test_no_byte_can_be_changed(sealer):
    sealed = sealer.seal("signing key", "sgn_1", SECRET)

    for place in range(len(sealed)):
        changed = bytearray(sealed)
        changed[place] ^= 1
        with pytest.raises(ValueError, match=r"changed|missing"):
            sealer.open("signing key", "sgn_1", bytes(changed))


@pytest.mark.parametrize("sealed", [b"", b"\0\0\0\1", b"\0\0\0\1" + bytes(12)])
def test_what_was_cut_off_does_not_open(sealer, sealed):
    with pytest.raises(ValueError, match=r"changed|missing"):
        sealer.open("signing key", "sgn_1", sealed)


def test_a_new_pepper_seals_and_the_old_one_still_opens(sealer):
    sealed = sealer.seal("signing key", "sgn_1", SECRET)
    rotated = PepperSealer(Peppers({1: b"p" * 32, 2: b"q" * 32}))

    assert rotated.open("signing key", "sgn_1", sealed) == SECRET
    assert rotated.seal("signing key", "sgn_1", SECRET)[:4] == b"\0\0\0\2"
    with pytest.raises(ValueError, match="version 1, which is missing"):
        PepperSealer(Peppers({2: b"q" * 32})).open("signing key", "sgn_1", sealed)
