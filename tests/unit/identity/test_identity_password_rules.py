"""Which passwords are accepted: OWASP ASVS 5.0, section 6.2, line by line."""

import unicodedata

import pytest

from lingpai.errors import LingpaiError
from lingpai.identity.passwords.common import LIST, folded, is_common
from lingpai.identity.passwords.rules import MAX_BYTES, check_new_password, normalised
from lingpai.identity.settings import IdentitySettings

GOOD = "quiet harbour lamp 7"


def check(password: str, *, user_name: str = "alice", least: int = 8) -> None:
    check_new_password(password, user_name=user_name, least=least)


def refusal(password: str, **options: str) -> str:
    with pytest.raises(LingpaiError) as caught:
        check(password, **options)  # type: ignore[arg-type]
    assert (caught.value.code, caught.value.param) == ("invalid_request", "password")
    return caught.value.message


def test_asvs_6_2_1_at_least_eight_characters_and_fifteen_are_recommended() -> None:
    assert "15 or more are recommended" in refusal("xK3!vb9")
    check("xK3!vb9q")


def test_asvs_6_2_1_settings_cannot_allow_shorter_ones() -> None:
    assert IdentitySettings().password_min_length == 8


@pytest.mark.parametrize(
    "password",
    [
        "abcdefghzyxw",
        "qzjvkwpy",
        "93847561",
        "ÄÖÜßäöüß",
        "        x      y",
        "密码很长也很安全吧",
        "🐎🔋📎🧷🐎🔋📎🧷",
    ],
)
def test_asvs_6_2_5_any_composition_is_allowed(password: str) -> None:
    check(password)


def test_asvs_6_2_9_sixty_four_characters_and_many_more_are_allowed() -> None:
    check("horse " * 11)
    check("字" * 300 + "符号")


def test_asvs_6_2_8_whole_password_counts_without_truncation() -> None:
    long = "quiet harbour " * 40

    assert normalised(long + "a") != normalised(long + "b")
    assert len(normalised(long)) == len(long)


def test_too_long_ones_are_refused_and_not_cut() -> None:
    assert f"{MAX_BYTES} are the most" in refusal("quiet harbour " * 80)


@pytest.mark.parametrize(
    "password", ["password", "Password1", "PASSWORD123", "trustno1", "iloveyou", "12345678", "qwertyuiop"]
)
def test_asvs_6_2_4_common_passwords_are_refused(password: str) -> None:
    assert "most common" in refusal(password) or "repeats" in refusal(password)


@pytest.mark.parametrize("password", ["password2026!", "!!Sunshine!!", "123iloveyou456"])
def test_common_words_with_little_around_them_are_refused(password: str) -> None:
    assert "with little around it" in refusal(password)


def test_common_words_in_longer_phrases_are_allowed() -> None:
    check("sunshine password iloveyou")


def test_asvs_6_2_4_and_6_2_12_list_holds_far_more_than_three_thousand_that_could_be_chosen() -> None:
    import lzma

    words = lzma.decompress(LIST.read_bytes()).decode().strip("\n").split("\n")

    assert len(words) > 16_000
    assert all(len(word) >= 8 and word == folded(word) for word in words)
    assert words == sorted(set(words))


def test_list_is_not_fooled_by_line_breaks() -> None:
    assert not is_common("password\npassword1")


@pytest.mark.parametrize(
    "password", ["alice.baker", "Alice.Baker", "alice.baker1", "alice.baker2026!", "__ALICE.BAKER__"]
)
def test_asvs_6_2_11_name_of_the_user_is_refused(password: str) -> None:
    assert "the user's name" in refusal(password, user_name="alice.baker")


@pytest.mark.parametrize("password", ["alice.baker1", "Alice.Baker@Example.com", "1alice.baker@example.com!"])
def test_name_before_the_at_sign_is_a_name_too(password: str) -> None:
    assert "the user's name" in refusal(password, user_name="alice.baker@example.com")


def test_digits_as_a_name_do_not_forbid_digits() -> None:
    check("93847561", user_name="4711")


@pytest.mark.parametrize("password", ["lingpai1", "Lingpai123", "LINGPAI!!"])
def test_asvs_6_2_11_name_of_the_product_is_refused(password: str) -> None:
    assert "product" in refusal(password)


@pytest.mark.parametrize("password", ["11111111", "!!!!!!!!!!!", "1212121212"])
def test_repetitions_of_one_or_two_characters_are_refused(password: str) -> None:
    refusal(password)


@pytest.mark.parametrize("control", ["\x00", "\x1b", "\x7f", "\n", "\u0378"])
def test_rfc8265_s4_2_1_control_and_unassigned_characters_are_refused(control: str) -> None:
    assert "control" in refusal(f"quiet{control}harbour lamp")


def test_rfc8265_s4_2_2_composed_and_decomposed_forms_are_one_password() -> None:
    composed, decomposed = "façade über naïve", unicodedata.normalize("NFD", "façade über naïve")

    assert composed != decomposed
    assert normalised(composed) == normalised(decomposed)


def test_rfc8265_s4_2_2_spaces_of_other_scripts_are_spaces_and_case_stays() -> None:
    assert normalised("quiet\u00a0harbour\u3000lamp") == b"quiet harbour lamp"
    assert normalised("Quiet") != normalised("quiet")


def test_compatibility_characters_stay_apart() -> None:
    assert normalised("ﬁ ①") != normalised("fi 1")


def test_message_never_repeats_the_password() -> None:
    for password in ("xK3!vb9", "password1", "alice1234", "quiet\x00harbour lamp"):
        assert password not in refusal(password)
