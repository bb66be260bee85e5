"""Reading forms and writing errors: RFC 6749 sections 3.2, 4, 5.2 and appendix B."""

import re
from contextlib import suppress
from urllib.parse import urlencode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lingpai.identity.oauth.errors import OAuthError, invalid_client, printable, too_often
from lingpai.identity.oauth.form import check_address, read_form

FORM = "application/x-www-form-urlencoded"
ALLOWED = re.compile(r"[\x20-\x21\x23-\x5b\x5d-\x7e]+")


A_TEXT = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20)


@given(st.binary(max_size=300))
def test_any_bytes_are_read_or_refused(body: bytes):
    """Never anything but a form of texts, or invalid_request."""
    with suppress(OAuthError):
        assert all(read_form(body, FORM).values())


@given(st.dictionaries(A_TEXT, A_TEXT | st.just(""), max_size=20))
def test_what_was_encoded_is_read(fields: dict[str, str]):
    """In any script; without a value it counts as not sent."""
    body = urlencode(fields).encode()

    assert read_form(body, FORM) == {name: value for name, value in fields.items() if value}


@given(st.text(max_size=100))
def test_rfc6749_s5_2_description_may_repeat_anything_that_is_made_printable(text: str):
    """What a caller wrote never breaks the answer (section 5.2)."""
    error = OAuthError("invalid_request", f"There is no {printable(text)}.")

    assert ALLOWED.fullmatch(error.body()["error_description"])


@pytest.mark.parametrize("description", ["", 'a "quote"', "a\\b", "令牌", "a\nb", "a\x7f"])
def test_rfc6749_s5_2_description_that_the_rfc_forbids_cannot_be_written(description: str):
    """A fault of ours shows in the tests, not at a caller's."""
    with pytest.raises(ValueError, match="not allowed"):
        OAuthError("invalid_request", description)


def test_status_goes_with_the_error():
    """400, but 401 for clients, 429 for those who come too often, 503 and 500 for what is ours."""
    assert OAuthError("invalid_grant", "x").status == 400
    assert OAuthError("unsupported_token_type", "x").status == 400
    assert OAuthError("temporarily_unavailable", "x").status == 503
    assert OAuthError("server_error", "x").status == 500
    assert invalid_client("x").status == 401
    assert too_often(3).status == 429
    assert too_often(3).headers == {"retry-after": "3"}


@pytest.mark.parametrize(
    "query", [b"token=x", b"a=1&client_secret=", b"%70assword=x", b"username", b"grant_type=a&grant_type=b"]
)
def test_rfc6749_s2_3_1_parameters_in_the_address_are_refused(query: bytes):
    """However they are encoded (section 2.3.1)."""
    with pytest.raises(OAuthError, match="in the address"):
        check_address(query)


@pytest.mark.parametrize("query", [b"", b"tenant=1", b"x=%ff", b"tokens=1", b"=token"])
def test_other_parameters_in_the_address_are_left_alone(query: bytes):
    """An endpoint's address may have a query (section 3.2)."""
    check_address(query)
