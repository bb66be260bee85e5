"""Scopes: one list, in order, and what each role carries of it."""

import re

from lingpai.identity.scopes import ALL_SCOPES, DEFAULT_SCOPES, Scope, effective_scopes


def test_scopes_are_spelled_alike_and_listed_in_order() -> None:
    spelled = [scope.value for scope in Scope]

    assert spelled == sorted(spelled)
    assert all(re.fullmatch(r"[a-z]+:[a-z]+", scope) for scope in spelled)


def test_key_calls_models_and_nothing_else_by_default() -> None:
    assert DEFAULT_SCOPES == ("model:inference",)


def test_member_holds_nothing_that_changes_what_is_not_theirs_or_shows_the_trail() -> None:
    assert ALL_SCOPES - effective_scopes(ALL_SCOPES, "member") == {
        "audit:read",
        "events:write",
        "limits:write",
        "models:write",
        "secrets:read",
        "secrets:write",
        "tokens:introspect",
        "users:write",
    }


def test_unknown_stored_scope_has_no_effect() -> None:
    assert effective_scopes(["keys:read", "gone:away"], "admin") == {"keys:read"}
