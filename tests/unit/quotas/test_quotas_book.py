"""The limits of models, and of users on models, in memory."""

import asyncio

import pytest

from lingpai.quotas.book import LimitBook, ModelLimits, user_on

MODEL = ("model", "acme/shout")
EACH = user_on("*", "acme/shout")
ALICE = user_on("usr_alice", "acme/shout")
BOB = user_on("usr_bob", "acme/shout")


class RememberedLimits:
    """A store in memory, which can fail."""

    def __init__(self, kept=()):
        self.kept = dict(kept)
        self.fault = None

    def all(self):
        return dict(self.kept)

    def replace(self, subject, limits, *, caller):
        if self.fault is not None:
            raise self.fault
        self.kept.pop(subject, None)
        if limits is not None:
            self.kept[subject] = limits


class ConfiguredModels:
    def __init__(self, **limits):
        self.limits = {name.replace("__", "/"): found for name, found in limits.items()}

    def find(self, model_id):
        return self.limits.get(model_id, ModelLimits())

    def model_ids(self):
        return self.limits


SETTINGS = ConfiguredModels(acme__shout=ModelLimits(model=("9/day",), each_user=("3/day",)))


def limits_of(book, user="usr_alice", model="acme/shout"):
    return {subject: limits for subject, limits, _ in book.for_call(user, model)}


def replace(book, subject, limits):
    asyncio.run(book.replace(subject, limits, caller=None))


def test_a_call_is_held_to_the_model_and_to_the_user_on_it():
    book = LimitBook(RememberedLimits({MODEL: ("5/day",), ALICE: ("2/day",), BOB: ("1/day",)}))
    book.load()

    assert book.for_call("usr_alice", "acme/shout", user_name="alice") == (
        (MODEL, ("5/day",), "model `acme/shout`"),
        (ALICE, ("2/day",), "user `alice` on model `acme/shout`"),
    )


def test_without_limits_both_are_named_so_that_meters_of_lifted_limits_go():
    book = LimitBook(RememberedLimits())
    book.load()

    assert limits_of(book) == {MODEL: (), ALICE: ()}


def test_settings_hold_until_something_is_set():
    book = LimitBook(RememberedLimits(), configured=SETTINGS)
    book.load()
    configured = limits_of(book)

    replace(book, MODEL, ())
    replace(book, EACH, ("4/day",))

    assert configured == {MODEL: ("9/day",), ALICE: ("3/day",)}
    assert limits_of(book) == {MODEL: (), ALICE: ("4/day",)}


def test_what_was_set_can_be_taken_back():
    book = LimitBook(RememberedLimits({MODEL: ("5/day",), ALICE: ()}), configured=SETTINGS)
    book.load()

    replace(book, MODEL, None)
    replace(book, ALICE, None)

    assert limits_of(book) == {MODEL: ("9/day",), ALICE: ("3/day",)}


def test_limits_for_each_user_count_every_user_apart_and_give_way_to_those_of_one():
    book = LimitBook(RememberedLimits({EACH: ("2/day",), BOB: ("7/day",)}))
    book.load()

    assert limits_of(book, "usr_alice")[ALICE] == ("2/day",)
    assert limits_of(book, "usr_bob")[BOB] == ("7/day",)
    assert book.for_user("usr_alice", "acme/shout").is_for_each_user
    assert not book.for_user("usr_bob", "acme/shout").is_for_each_user


def test_no_limit_for_one_user_is_said_explicitly():
    book = LimitBook(RememberedLimits({EACH: ("2/day",)}))
    book.load()

    replace(book, ALICE, ())

    assert limits_of(book)[ALICE] == ()


def test_every_change_has_a_new_version_and_is_told_after_it_holds():
    told = []
    book = LimitBook(
        RememberedLimits(), on_change=lambda subject: told.append((subject, limits_of(book)[MODEL]))
    )
    book.load()
    versions = [book.version]

    for limits in (("5/day",), (), None):
        replace(book, MODEL, limits)
        versions.append(book.version)

    assert versions == sorted(set(versions))
    assert told == [(MODEL, ("5/day",)), (MODEL, ()), (MODEL, ())]


def test_what_could_not_be_kept_does_not_hold():
    """Memory never says what a restart would forget."""
    store = RememberedLimits({MODEL: ("5/day",)})
    book = LimitBook(store)
    book.load()
    version = book.version
    store.fault = OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        replace(book, MODEL, ("7/day",))

    assert limits_of(book)[MODEL] == ("5/day",)
    assert book.version == version


def test_changes_at_once_hold_in_the_order_in_which_they_were_kept():
    store = RememberedLimits()
    book = LimitBook(store)

    async def change_often():
        await asyncio.gather(
            *(book.replace(MODEL, (f"{number}/day",), caller=None) for number in range(1, 20))
        )

    asyncio.run(change_often())

    assert book.find(MODEL).limits == store.kept[MODEL]


def test_lists_name_every_subject_with_limits_once_in_order():
    kept = {MODEL: ("5/day",), ALICE: ("2/day",), BOB: (), ("model", "acme/a"): ("1/day",)}
    book = LimitBook(RememberedLimits(kept), configured=SETTINGS)
    book.load()

    models, users = book.entries("model"), book.entries("user_model")

    assert [(entry.subject[1], entry.limits, entry.source) for entry in models] == [
        ("acme/a", ("1/day",), "set"),
        ("acme/shout", ("5/day",), "set"),
    ]
    assert [(entry.subject, entry.limits, entry.source) for entry in users] == [
        (EACH, ("3/day",), "settings"),
        (ALICE, ("2/day",), "set"),
    ]
