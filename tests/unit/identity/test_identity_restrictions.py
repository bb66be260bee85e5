"""What may be written about keys and users, and what the refusal says."""

from datetime import UTC, datetime

import pytest
from identity_fakes import NOW, validate_limit

from lingpai.errors import LingpaiError
from lingpai.identity import restrictions


def refusal(caught: pytest.ExceptionInfo[LingpaiError]) -> tuple[str, str | None]:
    return caught.value.code, caught.value.param


@pytest.mark.parametrize(
    "name", ["laptop", "CI für Ölförderung", "令牌", "a", "x" * 64, "a.b", "me@home", "🙂"]
)
def test_key_names_are_free_text(name: str) -> None:
    assert restrictions.checked_name(name) == name


@pytest.mark.parametrize(
    "name",
    ["", "x" * 65, "a\nb", "a\r\nset-cookie: x", "\x00", "\x1b[31m", "a\u202eb", "a\u200bb", "\ufeff", "\ud800", "a\u2028b",
     " a", "a ", "a/b", ".", ".."],
)  # fmt: skip
def test_key_names_that_could_deceive_or_break_something_are_refused(name: str) -> None:
    with pytest.raises(LingpaiError) as caught:
        restrictions.checked_name(name)

    assert refusal(caught) == ("invalid_request", "name")


@pytest.mark.parametrize("name", ["alice", "Bob", "alice@example.com", "c3-po", "张三", "a+b", "x_1"])
def test_user_names_are_words_and_addresses(name: str) -> None:
    assert restrictions.checked_user_name(name) == name


@pytest.mark.parametrize("name", ["", "-a", "_a", "@a", "a b", "a/b", "a:b", "a\n", "x" * 65, "a\u200b"])
def test_other_user_names_are_refused(name: str) -> None:
    with pytest.raises(LingpaiError) as caught:
        restrictions.checked_user_name(name)

    assert refusal(caught) == ("invalid_request", "name")


def test_scopes_are_sorted_and_unique() -> None:
    assert restrictions.checked_scopes(["usage:read", "keys:read", "usage:read"]) == (
        "keys:read",
        "usage:read",
    )


def test_unknown_scope_is_refused_with_the_nearest_one() -> None:
    with pytest.raises(LingpaiError, match="Did you mean `model:inference`") as caught:
        restrictions.checked_scopes(["models:inference"])

    assert refusal(caught) == ("invalid_request", "scopes")


def test_no_scope_is_refused() -> None:
    with pytest.raises(LingpaiError, match="at least one"):
        restrictions.checked_scopes([])


def test_models_may_be_ids_aliases_and_owners() -> None:
    models = ["damo/nlp_x", "damo/*", "gpt-4o", "qwen2.5:7b", "*"]

    assert restrictions.checked_models([*models, "damo/*"]) == tuple(models)


@pytest.mark.parametrize("model", ["", "a b", "*/x", "a*b", "a\n", "x" * 201])
def test_what_is_no_model_id_is_refused(model: str) -> None:
    with pytest.raises(LingpaiError) as caught:
        restrictions.checked_models([model])

    assert refusal(caught) == ("invalid_request", "models")


def test_limits_are_stored_in_canonical_form_once() -> None:
    assert restrictions.checked_limits(["10 / 1s", "10/1s"], validate_limit) == ("10/1s",)


@pytest.mark.parametrize("none", ["none", "None", " none "])
def test_none_means_no_limits(none: str) -> None:
    assert restrictions.checked_limits([none], validate_limit) == ()


@pytest.mark.parametrize("limits", [["many"], ["none", "10/1s"], ["10/1s", "none"]])
def test_bad_limits_are_refused(limits: list[str]) -> None:
    with pytest.raises(LingpaiError) as caught:
        restrictions.checked_limits(limits, validate_limit)

    assert refusal(caught) == ("invalid_request", "limits")


@pytest.mark.parametrize(
    ("text", "stored"),
    [
        ("203.0.113.7", "203.0.113.7/32"),
        ("2001:DB8::1", "2001:db8::1/128"),
        ("10.0.0.0/8", "10.0.0.0/8"),
        ("10.0.0.0/255.0.0.0", "10.0.0.0/8"),
        ("0.0.0.0/0", "0.0.0.0/0"),
        (" ::/0 ", "::/0"),
    ],
)
def test_networks_are_stored_in_canonical_form(text: str, stored: str) -> None:
    assert restrictions.checked_networks([text, text]) == (stored,)


@pytest.mark.parametrize(
    ("text", "advice"),
    [
        ("10.0.0.1/8", "`10.0.0.0/8`"),
        ("2001:db8::1/32", "`2001:db8::/32`"),
        ("::ffff:10.0.0.0/104", "`10.0.0.0/8`"),
        ("fe80::1%eth0", "`%`"),
        ("10.0.0.256", "`203.0.113.0/24`"),
        ("localhost", "`203.0.113.0/24`"),
        ("", "`203.0.113.0/24`"),
        ("010.0.0.1", "`203.0.113.0/24`"),
        ("10.0.0.0/33", "`203.0.113.0/24`"),
    ],
)
def test_wrong_networks_are_refused_with_the_right_form(text: str, advice: str) -> None:
    with pytest.raises(LingpaiError) as caught:
        restrictions.checked_networks([text])

    assert refusal(caught) == ("invalid_request", "allowed_ips")
    assert advice in caught.value.message


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2027-01-01", datetime(2027, 1, 1, tzinfo=UTC)),
        ("2027-01-01T08:00:00+08:00", datetime(2027, 1, 1, tzinfo=UTC)),
        ("2027-01-01T00:00:00Z", datetime(2027, 1, 1, tzinfo=UTC)),
    ],
)
def test_expiry_is_a_date_or_a_time_with_offset(text: str, expected: datetime) -> None:
    assert restrictions.checked_expiry(text, now=NOW) == expected.timestamp()


@pytest.mark.parametrize(
    "text",
    ["", "soon", "2027-13-01", "2027-01-01T00:00:00", "20270101", "2027-W01-1", "2020-01-01", "2026-11-18",
     "9999-12-31", "9999-12-31T23:59:59-08:00", "0001-01-01T00:00:00+14:00", "٢٠٢٧-٠١-٠١"],
)  # fmt: skip
def test_expiry_in_the_past_or_in_another_form_is_refused(text: str) -> None:
    with pytest.raises(LingpaiError) as caught:
        restrictions.checked_expiry(text, now=NOW)

    assert refusal(caught) == ("invalid_request", "expires_at")


@pytest.mark.parametrize(
    ("text", "seconds"), [("90d", 7_776_000), ("12h", 43_200), ("30m", 1800), (" 2 w ", 1_209_600)]
)
def test_lifetime_counts_from_now(text: str, seconds: int) -> None:
    assert restrictions.checked_lifetime(text, now=NOW) == NOW + seconds


@pytest.mark.parametrize(
    "text", ["", "90", "d", "0d", "-1d", "1.5d", "1y", "999999999w", "9" * 50 + "d", "٩d"]
)
def test_other_lifetimes_are_refused(text: str) -> None:
    with pytest.raises(LingpaiError) as caught:
        restrictions.checked_lifetime(text, now=NOW)

    assert refusal(caught) == ("invalid_request", "expires_in")
