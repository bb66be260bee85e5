"""What applies to a call, why, and what is left."""

from dataclasses import replace

import pytest
from quota_doubles import NOON_ISH, RecordedHistory, VirtualClock, attach

from lingpai.prices import NANO
from lingpai.quotas.amounts import Amounts
from lingpai.quotas.book import LimitBook, ModelLimits, user_on
from lingpai.quotas.explain import explain, subjects_of_call
from lingpai.quotas.limiter import MemoryLimiter, limit_set
from lingpai.quotas.subjects import CallSubjects, KnownModel, LimitedSubject

CHAT = KnownModel("acme/chat", "USD")
FREE = KnownModel("acme/chat")


class KeptLimits:
    def __init__(self, kept):
        self._kept = kept

    def all(self):
        return self._kept


def subject(kind, name, *limits, source="set"):
    return LimitedSubject(kind=kind, id=f"{kind}-1", name=name, limits=limits, source=source)


def call_of(*key_limits, user=(), project=None, source="set"):
    return CallSubjects(
        key=subject("key", "ci", *key_limits, source=source),
        client=None,
        user=subject("user", "alice", *user, source=source),
        project=project,
        may_call=lambda _: True,
    )


class Explainer:
    """Explains calls with meters of its own, which tests may use up."""

    def __init__(self, call, model=None, kept=(), configured=None):
        self.call, self.model = call, model
        book = LimitBook(KeptLimits(dict(kept)), configured=configured)
        book.load()
        limiter = MemoryLimiter(RecordedHistory(), VirtualClock())
        self.limiter = limiter
        self.loaded = [
            (found, attach(limiter, found.subject, *found.limits, label=found.label))
            for found in subjects_of_call(call, model, book)
        ]

    @property
    def meters(self):
        return [meter for _, meters in self.loaded for meter in meters]

    def take(self, number, times):
        for _ in range(times):
            self.meters[number].take(NOON_ISH)

    def answer(self):
        return explain(self.call, self.model, self.loaded, NOON_ISH)


def test_limits_stand_in_the_order_key_client_user_project_model_user_on_the_model():
    call = CallSubjects(
        key=subject("key", "ci", "1/day"),
        client=subject("client", "app", "2/day"),
        user=subject("user", "alice", "3/day"),
        project=subject("project", "search", "4/day"),
        may_call=lambda _: True,
    )
    kept = {("model", "acme/chat"): ("5/day",), user_on("user-1", "acme/chat"): ("6/day",)}

    answer = Explainer(call, CHAT, kept).answer()

    assert [(line["subject"], line["name"], line["limit"]) for line in answer["data"]] == [
        ("key", "ci", "1/day"),
        ("client", "app", "2/day"),
        ("user", "alice", "3/day"),
        ("project", "search", "4/day"),
        ("model", "acme/chat", "5/day"),
        ("user_model", "alice on acme/chat", "6/day"),
    ]
    assert answer["unlimited"] == []
    assert (answer["key"], answer["client"], answer["project"]) == (
        {"id": "key-1", "name": "ci"},
        {"id": "client-1", "name": "app"},
        {"id": "project-1", "name": "search"},
    )


def test_a_line_says_what_is_used_held_and_left_and_when_it_resets():
    explainer = Explainer(call_of("1000 tokens/day@Asia/Shanghai wait 5s"))
    held = Amounts(tokens=300)
    explainer.limiter.reserve(limit_set(explainer.meters), NOON_ISH, held, held)

    [line] = explainer.answer()["data"]

    assert line == {
        "subject": "key",
        "id": "key-1",
        "name": "ci",
        "limit": "1000 tokens/day@Asia/Shanghai wait 5s",
        "unit": "tokens",
        "source": "set",
        "used": 300,
        "reserved": 300,
        "remaining": 700,
        "resets_at": "2026-11-20T16:00:00Z",
        "waits_s": 5,
        "applies": True,
        "why": "Set on key `ci`; it counts the calls with this key. 700 of 1000 tokens left. "
        "When nothing is left, a call waits for room, 5 seconds at most, before it is refused.",
    }


def test_who_has_no_limit_is_named():
    answer = Explainer(call_of("5/day"), CHAT).answer()

    assert [line["why"] for line in answer["unlimited"]] == [
        "user `alice`: no limit",
        "model `acme/chat`: no limit",
        "user `alice` on model `acme/chat`: no limit",
    ]


@pytest.mark.parametrize(
    ("call", "kept", "why"),
    [
        (
            call_of(user=("5/day",), source="default"),
            {},
            "The default for new users (`limits.default`); all keys and tokens of the user share it.",
        ),
        (
            call_of("5/day", source="default"),
            {},
            "The default for new keys whose owner has no limits (`limits.default`); it counts the calls with this key.",
        ),
        (
            replace(call_of(), key=None, client=subject("client", "app", "5/day", source="default")),
            {},
            "The default for new clients whose owner has no limits (`limits.default`); all tokens of the client share it.",
        ),
        (
            call_of(project=subject("project", "search", "5/day")),
            {},
            "Set on project `search`; all keys and clients of the project share it.",
        ),
        (
            call_of(),
            {("model", "acme/chat"): ("5/day",)},
            "Set on model `acme/chat`; all callers of the model share it.",
        ),
        (
            call_of(),
            {user_on("user-1", "acme/chat"): ("5/day",)},
            "Set for user `alice` on model `acme/chat`; it counts this user's calls to the model, with whichever key or token.",
        ),
        (
            call_of(),
            {user_on("*", "acme/chat"): ("5/day",)},
            "Set for each user of model `acme/chat`; it counts this user's calls to the model, with whichever key or token.",
        ),
    ],
)
def test_a_line_says_where_the_limit_comes_from_and_who_shares_it(call, kept, why):
    [line] = Explainer(call, CHAT, kept).answer()["data"]

    assert line["why"] == f"{why} 5 of 5 requests left."


def test_a_line_says_that_the_limit_is_in_the_settings():
    class Configured:
        def find(self, model_id):
            return ModelLimits(model=("5/day",), each_user=("2/day",))

    lines = Explainer(call_of(), CHAT, configured=Configured()).answer()["data"]

    assert [line["source"] for line in lines] == ["settings", "settings"]
    assert [line["why"].partition(";")[0] for line in lines] == [
        "From lingpai.toml (`[[models]]`), for model `acme/chat`",
        "From lingpai.toml (`[[models]]`), for user `alice` on model `acme/chat`",
    ]


@pytest.mark.parametrize(
    ("model", "applies", "sentence"),
    [
        (CHAT, True, "5 of 5 USD left."),
        (KnownModel("acme/chat", "CNY"), False, "Calls to `acme/chat` do not count: its price is in CNY."),
        (FREE, False, "Calls to `acme/chat` do not count: it has no price."),
        (None, True, "It counts calls to models that are priced in USD."),
    ],
)
def test_a_money_limit_counts_models_priced_in_its_currency_only(model, applies, sentence):
    [line] = Explainer(call_of("5 USD/month"), model).answer()["data"]

    assert (line["applies"], line["remaining"]) == (applies, "5")
    assert line["why"].endswith(sentence)


def test_the_tightest_is_the_one_with_the_smallest_share_left():
    explainer = Explainer(call_of("10/day", user=("1000/day",)))
    explainer.take(0, 5)
    explainer.take(1, 501)

    answer = explainer.answer()

    assert answer["tightest"] == {
        "subject": "user",
        "id": "user-1",
        "name": "alice",
        "limit": "1000/day",
        "refuses": False,
    }
    assert answer["summary"] == (
        "The tightest is the limit of 1000 requests per day for user `alice`: 499 of 1000 requests left."
    )


def test_of_spent_limits_the_one_that_resets_last_is_named():
    explainer = Explainer(call_of("1/hour", user=("1/month",)))
    explainer.take(0, 1)
    explainer.take(1, 1)

    answer = explainer.answer()

    assert (answer["tightest"]["limit"], answer["tightest"]["refuses"]) == ("1/month", True)
    assert answer["summary"] == (
        "Calls are refused now because of the limit of 1 request per month for user `alice`: nothing is left."
    )


def test_a_spent_limit_with_a_queue_lets_calls_wait():
    explainer = Explainer(call_of("1 concurrent wait 30s"))
    explainer.take(0, 1)

    answer = explainer.answer()

    assert answer["summary"].startswith("Calls wait for room, 30 seconds at most, because of the limit of 1 ")
    assert answer["data"][0]["resets_at"] is None


def test_a_limit_that_does_not_apply_is_never_the_tightest():
    explainer = Explainer(call_of("5 CNY/day", "10/day"), CHAT)
    spent = Amounts(cny=5 * NANO)
    explainer.limiter.reserve(limit_set(explainer.meters), NOON_ISH, spent, spent)

    assert explainer.answer()["tightest"]["limit"] == "10/day"


def test_without_any_limit_it_says_so():
    answer = Explainer(call_of()).answer()

    assert (answer["data"], answer["tightest"], answer["summary"]) == ([], None, "No limit applies.")
