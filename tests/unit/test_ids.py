"""Credentials and identifiers: what is well formed, what is noticed, what is never shown."""

import re
import subprocess
import sys
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lingpai.ids import (
    ALPHABET,
    CREDENTIAL_PATTERN,
    credential_id,
    mint_credential,
    new_id,
    new_request_id,
    random_base62,
    request_made_at,
)

PREFIXES = ("sk-lp-", "at-lp-", "rt-lp-", "cs-lp-", "ss-lp-", "in-lp-", "sg-lp-")
MINTED = [mint_credential(prefix) for prefix in PREFIXES for _ in range(5)]
CREDENTIALS = st.sampled_from(MINTED)  # made once: hypothesis wants the same choices to give the same values


@pytest.mark.parametrize("prefix", PREFIXES)
def test_credential_carries_its_id(prefix):
    credential = mint_credential(prefix)

    assert credential.token.startswith(prefix + credential.id)
    assert len(credential.token) == 6 + 12 + 43 + 6
    assert credential_id(credential.token.encode()) == credential.id


@settings(deadline=None)
@given(CREDENTIALS, st.data())
def test_every_change_of_one_character_is_noticed(credential, data):
    position = data.draw(st.integers(0, len(credential.token) - 1))
    other = data.draw(st.sampled_from(ALPHABET + "-_ é").filter(lambda c: c != credential.token[position]))

    changed = credential.token[:position] + other + credential.token[position + 1 :]

    assert credential_id(changed.encode()) is None


@settings(deadline=None)
@given(CREDENTIALS, st.data())
def test_every_swap_of_neighbours_is_noticed(credential, data):
    token = credential.token
    position = data.draw(
        st.integers(0, len(token) - 2).filter(lambda index: token[index] != token[index + 1])
    )

    swapped = token[:position] + token[position + 1] + token[position] + token[position + 2 :]

    assert credential_id(swapped.encode()) is None


@settings(deadline=None)
@given(CREDENTIALS, st.sampled_from(ALPHABET), st.data())
def test_every_character_too_many_or_too_few_is_noticed(credential, character, data):
    token = credential.token
    position = data.draw(st.integers(0, len(token) - 1))

    assert credential_id((token[:position] + character + token[position:]).encode()) is None
    assert credential_id((token[:position] + token[position + 1 :]).encode()) is None


@settings(deadline=None)
@given(st.binary(max_size=100))
def test_garbage_is_no_credential_and_no_error(garbage):
    assert credential_id(garbage) is None


@pytest.mark.parametrize("around", ["{}\n", " {}", "{}\0", "\n{}", "Bearer {}"])
def test_nothing_may_stand_around_a_credential(around):
    assert credential_id(around.format(mint_credential("sk-lp-").token).encode()) is None


def test_published_pattern_finds_credentials_in_text():
    credential = mint_credential("sk-lp-")
    text = f'key = "{credential.token}", and sk-lp-tooshort'

    assert re.findall(CREDENTIAL_PATTERN, text) == [credential.token]


def test_credential_does_not_show_itself():
    """Neither in a traceback nor in a list: the hint has nothing of the secret."""
    credential = mint_credential("sk-lp-")

    secret = credential.token[18:61]
    assert secret not in repr(credential)
    assert credential.hint == f"sk-lp-…{credential.token[-4:]}"


def test_credentials_are_all_different():
    made = [mint_credential("sk-lp-") for _ in range(200)]

    assert len({credential.id for credential in made}) == 200
    assert len({credential.token[18:61] for credential in made}) == 200


def test_random_characters_come_from_the_whole_alphabet():
    assert set(random_base62(5000)) == set(ALPHABET)
    assert random_base62(0) == ""


def test_new_id_has_its_prefix():
    assert re.fullmatch(r"usr_[0-9A-Za-z]{12}", new_id("usr"))


def test_request_ids_are_all_different_and_fit_for_a_header():
    made = [new_request_id() for _ in range(1000)]

    assert len(set(made)) == 1000
    assert all(re.fullmatch(rb"req_[0-9a-f]{28,}", one) for one in made)


def test_request_ids_differ_across_restarts():
    code = "from lingpai.ids import new_request_id; print(new_request_id().decode())"

    ids = {subprocess.check_output([sys.executable, "-c", code]) for _ in range(2)}

    assert len(ids) == 2


def test_request_id_says_when_it_was_made():
    before = int(time.time())

    made_at = request_made_at(new_request_id().decode())

    assert made_at is not None
    assert before <= made_at <= time.time()


@pytest.mark.parametrize("text", ["", "req_", "req_0123456789abcdef0123", "req_" + "x" * 28, "x" * 500])
def test_other_texts_tell_no_time(text):
    assert request_made_at(text) is None
