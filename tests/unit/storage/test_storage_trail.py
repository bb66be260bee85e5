"""What a change is called, and which fields of it are kept."""

import pytest

from lingpai.storage.trail import Deed, NoTrail, changed, created, deleted

VIEW = {"name": "ci", "limits": ["1/day"], "disabled": False}


def test_making_keeps_all_fields_after_and_deleting_all_before():
    assert created("key", "k1", VIEW, name="ci", project_id="p") == Deed(
        action="key.create", target_kind="key", target_id="k1", target_name="ci", project_id="p", after=VIEW
    )
    assert deleted("key", "k1", VIEW, name="ci") == Deed(
        action="key.delete", target_kind="key", target_id="k1", target_name="ci", before=VIEW
    )


@pytest.mark.parametrize(
    ("after", "action", "fields"),
    [
        ({**VIEW, "limits": []}, "key.update", ["limits"]),
        ({**VIEW, "disabled": True}, "key.disable", ["disabled"]),
        ({**VIEW, "disabled": True, "name": "x"}, "key.disable", ["name", "disabled"]),
        (VIEW, "key.update", []),
        ({**VIEW, "new": 1}, "key.update", ["new"]),
    ],
)
def test_changing_keeps_the_fields_that_differ(after, action, fields):
    deed = changed("key", "k1", VIEW, after)

    assert deed.action == action
    assert deed.before == {field: VIEW.get(field) for field in fields}
    assert deed.after == {field: after[field] for field in fields}


def test_enabling_is_the_other_way_round():
    assert changed("key", "k1", {**VIEW, "disabled": True}, VIEW).action == "key.enable"


def test_no_trail_keeps_nothing():
    NoTrail().record(None, None, created("key", "k1", VIEW))  # type: ignore[arg-type]
    NoTrail().note(None, created("key", "k1", VIEW))
