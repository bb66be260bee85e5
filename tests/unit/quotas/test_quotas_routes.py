"""``/api/v1/limits`` over HTTP."""

from dataclasses import replace

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from quota_doubles import RecordedHistory, VirtualClock

from lingpai.errors import LingpaiError
from lingpai.principal import Principal
from lingpai.quotas.book import LimitBook
from lingpai.quotas.limiter import MemoryLimiter, limit_set
from lingpai.quotas.loader import MeterLoader
from lingpai.quotas.routes import limit_routes
from lingpai.quotas.service import Limits
from lingpai.quotas.subjects import LISTED_KINDS, CallSubjects, KnownModel, LimitedSubject
from lingpai.web.errors import install_error_handlers

ADMIN = Principal("usr_1", "admin", "admin", scopes=frozenset({"limits:read", "limits:write"}))
MEMBER = Principal("usr_2", "alice", "member", scopes=frozenset({"limits:read", "limits:write"}))
READER = Principal("usr_2", "alice", "admin", scopes=frozenset({"limits:read"}))
TOKEN = Principal(
    "u1",
    "alice",
    "member",
    token_id="t1",
    client_id="cl-lp-1",
    client_name="nightly",
    scopes=frozenset({"model:inference"}),
)
CALLER = Principal("u1", "alice", "member", key_id="k1", key_name="ci", scopes=frozenset({"model:inference"}))


class ListedSubjects:
    """A directory of a key, a client, a user and the models of a book; members see the key `ci` only."""

    def __init__(self, book: LimitBook) -> None:
        self.book = book
        self.subjects = [
            LimitedSubject(kind="user", id="u1", name="alice", limits=("20/week",), created_at=1.0),
            LimitedSubject(
                kind="key", id="k1", name="ci", limits=("10/day@Asia/Shanghai", "5/1s"), created_at=2.0
            ),
            LimitedSubject(kind="client", id="cl-lp-1", name="nightly", limits=("7/day",), created_at=3.0),
        ]

    def find(self, caller, kind, reference):
        if kind in {"model", "user_model"}:
            entry = self.book.find((kind, reference.replace("alice ", "u1 ")))
            return LimitedSubject(kind=kind, id=entry.subject[1], name=reference, limits=entry.limits)
        for subject in self.subjects:
            is_meant = subject.kind == kind and reference in (subject.id, subject.name)
            if is_meant and (caller.is_admin or subject.id == caller.key_id):
                return subject
        raise LingpaiError("not_found", f"There is no {kind} `{reference}`.")

    def page(self, caller, wanted, *, after, most):
        models = [self.find(caller, *entry.subject) for entry in self.book.entries("model")]
        users = [self.find(caller, *entry.subject) for entry in self.book.entries("user_model")]
        found = [subject for subject in [*self.subjects, *models, *users] if subject.limits]
        if not wanted.is_everything:
            ids = (wanted.key, wanted.client, wanted.user, wanted.project, wanted.model)
            found = [subject for subject in found if subject.id in ids]
        if after is not None:
            found = [subject for subject in found if _place(subject) > _place(after)]
        return found[:most]

    def of_own_call(self, caller):
        if caller.client_id is None:
            return self.of_key(caller, caller.key_id)
        return self._call(client=self.subjects[2])

    def of_key(self, caller, key):
        return self._call(key=self.find(caller, "key", key))

    def of_client(self, caller, client):
        return self._call(client=self.find(caller, "client", client))

    def _call(self, key=None, client=None):
        return CallSubjects(
            key=key,
            client=client,
            user=self.subjects[0],
            project=None,
            may_call=lambda model: model != "acme/secret",
        )

    def replace_limits(self, caller, subject, limits):
        [index] = [at for at, known in enumerate(self.subjects) if known.subject == subject]
        self.subjects[index] = replace(self.subjects[index], limits=limits)


def _place(subject):
    return LISTED_KINDS.index(subject.kind), subject.created_at, subject.id


class ListedModels:
    def named(self, name):
        ids = {"acme/chat": "acme/chat", "chat": "acme/chat", "acme/secret": "acme/secret"}
        return KnownModel(ids[name], "USD") if name in ids else None

    def nearest(self, name, *, may_see):
        return " Did you mean `acme/chat`?" if may_see("acme/chat") else ""


class KeptLimits:
    def __init__(self):
        self.kept = {}

    def all(self):
        return dict(self.kept)

    def replace(self, subject, limits, *, caller=None):
        self.kept[subject] = limits


async def reached(mark: int) -> bool:
    return True


class Server:
    def __init__(self, caller: Principal) -> None:
        self.clock = VirtualClock()
        self.history = RecordedHistory()
        self.limiter = MemoryLimiter(self.history, self.clock)
        self.generation = 0
        loader = MeterLoader(self.limiter, mark=int, reached=reached)
        self.kept = KeptLimits()
        self.book = LimitBook(self.kept)
        self.subjects = ListedSubjects(self.book)
        limits = Limits(
            self.subjects,
            ListedModels(),
            self.book,
            loader.load,
            generation=lambda: self.generation,
            clock=self.clock,
        )
        app = FastAPI()
        install_error_handlers(app)
        app.include_router(limit_routes(limits))

        async def authenticate(request):
            return caller

        app.state.authenticate = authenticate
        self.client = TestClient(app, raise_server_exceptions=False)

    def get(self, **params):
        return self.client.get("/api/v1/limits", params=params).json()

    def put(self, **body):
        return self.client.put("/api/v1/limits", json=body)

    def explain(self, **params):
        return self.client.get("/api/v1/limits/explain", params=params)


# -- lists


def test_all_limits_are_listed_with_their_state():
    server = Server(ADMIN)
    server.history.times = [server.clock() - 3600]

    rows = server.get()["data"]

    assert [(row["subject"], row["name"], row["limit"], row["used"]) for row in rows] == [
        ("user", "alice", "20/week", 1),
        ("key", "ci", "10/day@Asia/Shanghai", 1),
        ("key", "ci", "5/1s", 0),
        ("client", "nightly", "7/day", 1),
    ]
    assert rows[1] == {
        "subject": "key",
        "id": "k1",
        "name": "ci",
        "limit": "10/day@Asia/Shanghai",
        "unit": "requests",
        "source": "set",
        "used": 1,
        "reserved": 0,
        "remaining": 9,
        "resets_at": "2026-11-20T16:00:00Z",
        "waits_s": 0,
    }


def test_one_key_or_user_can_be_asked_for_by_id_or_name():
    server = Server(ADMIN)

    by_name = server.get(key="ci")["data"]
    both = server.get(key="k1", user="alice")["data"]

    assert {row["id"] for row in by_name} == {"k1"}
    assert {row["id"] for row in both} == {"k1", "u1"}


def test_a_key_that_the_caller_may_not_see_does_not_exist():
    answer = Server(MEMBER).client.get("/api/v1/limits", params={"key": "ci"})

    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "not_found")


def test_pages_neither_repeat_nor_skip_a_subject():
    server = Server(ADMIN)
    for model in ("acme/a", "acme/b"):
        server.put(subject="model", id=model, limits=["5/day"])

    rows, cursor, pages = [], {}, 0
    while cursor is not None:
        page = server.get(limit=1, **cursor)
        rows += page["data"]
        cursor = {"cursor": page["next_cursor"]} if page["next_cursor"] else None
        pages += 1

    assert [row["id"] for row in rows] == ["u1", "k1", "k1", "cl-lp-1", "acme/a", "acme/b"]
    assert pages == 5


@pytest.mark.parametrize("cursor", ["x", "WzEuMCwgInRlYW0gYSJd", "WzEuMCwgMV0"])
def test_a_cursor_of_another_list_is_refused(cursor):
    answer = Server(ADMIN).client.get("/api/v1/limits", params={"cursor": cursor})

    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "cursor")


def test_limits_for_each_user_have_no_count_of_their_own():
    """Every user counts apart, so there is nothing to show, and no meter is made for nobody."""
    server = Server(ADMIN)

    answer = server.put(subject="user_model", user="*", model="acme/chat", limits=["2/day"]).json()

    [row] = answer["data"]
    assert (row["id"], row["limit"], row["unit"]) == ("* acme/chat", "2/day", "requests")
    assert (row["used"], row["reserved"], row["remaining"], row["resets_at"]) == (None, None, None, None)
    assert len(server.limiter) == 0


def test_limits_changed_while_they_are_read_are_read_again():
    server = Server(ADMIN)
    page = server.subjects.page

    def page_then_change(*args, **kwargs):
        found = page(*args, **kwargs)
        if server.generation == 0:
            server.generation = 1
            server.subjects.subjects[0] = replace(server.subjects.subjects[0], limits=("30/week",))
        return found

    server.subjects.page = page_then_change

    assert server.get(user="alice")["data"][0]["limit"] == "30/week"


# -- changes


def test_new_limits_take_effect_at_once_and_keep_what_is_used():
    server = Server(ADMIN)
    server.get()
    meters = server.limiter.attach(("key", "k1"), ("10/day@Asia/Shanghai", "5/1s"))
    server.limiter.admit(limit_set(meters), server.clock())

    answer = server.put(subject="key", id="ci", limits=["1 / day @ asia/shanghai"])

    assert answer.status_code == 200
    assert [(row["limit"], row["used"], row["remaining"]) for row in answer.json()["data"]] == [
        ("1/day@Asia/Shanghai", 1, 0)
    ]
    assert server.limiter.admit(limit_set(meters[:1]), server.clock()) is not None


def test_the_limits_of_a_model_are_kept_in_the_book():
    server = Server(ADMIN)

    answer = server.put(subject="model", model="acme/chat", limits=["8 concurrent wait 30s"]).json()

    assert answer["warning"] is None
    assert [(row["limit"], row["unit"], row["waits_s"]) for row in answer["data"]] == [
        ("8 concurrent wait 30s", "concurrent", 30)
    ]
    assert server.book.find(("model", "acme/chat")).limits == ("8 concurrent wait 30s",)


def test_new_limits_of_a_client_take_effect_at_once_and_keep_what_is_used():
    server = Server(ADMIN)
    server.get()
    meters = server.limiter.attach(("client", "cl-lp-1"), ("7/day",))
    server.limiter.admit(limit_set(meters), server.clock())

    answer = server.put(subject="client", id="nightly", limits=["1/day"])

    assert [(row["subject"], row["id"], row["remaining"]) for row in answer.json()["data"]] == [
        ("client", "cl-lp-1", 0)
    ]
    assert server.get(client="nightly")["data"] == answer.json()["data"]


def test_a_user_on_a_model_is_named_by_both():
    server = Server(ADMIN)

    server.put(subject="user_model", user="alice", model="acme/chat", limits=["5 usd/month"])

    assert server.book.for_user("u1", "acme/chat").limits == ("5 USD/month",)


def test_what_was_set_for_a_model_can_be_taken_back():
    server = Server(ADMIN)
    server.put(subject="model", id="acme/chat", limits=["5/day"])

    answer = server.put(subject="model", id="acme/chat", limits=None)

    assert answer.json() == {"data": [], "warning": None}
    assert server.book.find(("model", "acme/chat")).source == "settings"


@pytest.mark.parametrize("body", [{"subject": "model"}, {"subject": "user_model", "user": "*"}])
def test_limits_for_a_model_that_is_not_there_are_kept_with_a_warning(body):
    answer = Server(ADMIN).put(**body, model="acme/chta", limits=["5/day"])

    assert answer.status_code == 200
    assert answer.json()["data"][0]["limit"] == "5/day"
    assert answer.json()["warning"] == (
        "There is no model `acme/chta` now; its limits hold once there is. Did you mean `acme/chat`?"
    )


@pytest.mark.parametrize("limits", [[], ["none"], [" None "]])
def test_limits_can_be_taken_away(limits):
    assert Server(ADMIN).put(subject="key", id="ci", limits=limits).json() == {"data": [], "warning": None}


@pytest.mark.parametrize(
    ("body", "status", "code", "param"),
    [
        ({"subject": "key", "id": "ci", "limits": ["5/fortnight"]}, 400, "invalid_request", "limits"),
        ({"subject": "key", "id": "ci", "limits": ["5/day", "none"]}, 400, "invalid_request", "limits"),
        ({"subject": "team", "id": "ci", "limits": []}, 400, "invalid_request", "subject"),
        ({"subject": "key", "id": "ci", "limits": "5/day"}, 400, "invalid_request", "limits"),
        ({"subject": "key", "id": "ci", "limits": [5]}, 400, "invalid_request", "limits.0"),
        ({"subject": "key", "id": "ci"}, 400, "invalid_request", "limits"),
        ({"subject": "key", "id": "ci", "limits": None}, 400, "invalid_request", "limits"),
        ({"subject": "key", "id": "ci", "limits": [], "x": 1}, 400, "invalid_request", "x"),
        ({"subject": "key", "id": "who", "limits": []}, 404, "not_found", None),
        ({"subject": "key", "limits": []}, 400, "invalid_request", "id"),
        ({"subject": "key", "id": "ci", "model": "acme/chat", "limits": []}, 400, "invalid_request", "model"),
        ({"subject": "model", "limits": []}, 400, "invalid_request", "model"),
        ({"subject": "model", "model": "a b", "limits": []}, 400, "invalid_request", "model"),
        ({"subject": "user_model", "model": "acme/chat", "limits": []}, 400, "invalid_request", "user"),
        ({"subject": "user_model", "user": "alice", "limits": []}, 400, "invalid_request", "model"),
        (
            {"subject": "user_model", "user": "alice x", "model": "acme/chat", "limits": []},
            400,
            "invalid_request",
            "user",
        ),
    ],
)
def test_bad_requests_are_refused_with_the_field_that_is_wrong(body, status, code, param):
    answer = Server(ADMIN).put(**body)

    error = answer.json()["error"]
    assert (answer.status_code, error["code"], error["param"]) == (status, code, param)


@pytest.mark.parametrize("caller", [MEMBER, READER])
def test_limits_are_changed_by_administrators_with_the_scope_only(caller):
    answer = Server(caller).put(subject="key", id="ci", limits=[])

    assert (answer.status_code, answer.json()["error"]["code"]) == (403, "insufficient_scope")


# -- explanations


def test_a_key_may_ask_what_applies_to_itself_without_any_scope():
    server = Server(CALLER)
    server.history.times = [server.clock() - 60]

    answers = [server.explain(**params).json() for params in ({}, {"key": "k1"}, {"key": "ci"})]

    assert answers[0] == answers[1] == answers[2]
    assert [(line["subject"], line["limit"], line["remaining"]) for line in answers[0]["data"]] == [
        ("key", "10/day@Asia/Shanghai", 9),
        ("key", "5/1s", 5),
        ("user", "20/week", 19),
    ]
    assert (answers[0]["model"], answers[0]["tightest"]["limit"]) == (None, "10/day@Asia/Shanghai")


def test_an_access_token_may_ask_what_applies_to_itself_without_any_scope():
    server = Server(TOKEN)

    answers = [
        server.explain(**params).json() for params in ({}, {"client": "cl-lp-1"}, {"client": "nightly"})
    ]

    assert answers[0] == answers[1] == answers[2]
    assert (answers[0]["key"], answers[0]["client"]) == (None, {"id": "cl-lp-1", "name": "nightly"})
    assert [(line["subject"], line["limit"]) for line in answers[0]["data"]] == [
        ("client", "7/day"),
        ("user", "20/week"),
    ]
    assert "all tokens of the client share it" in answers[0]["data"][0]["why"]


def test_an_administrator_may_ask_about_any_client():
    answer = Server(ADMIN).explain(client="nightly").json()

    assert (answer["key"], answer["client"]) == (None, {"id": "cl-lp-1", "name": "nightly"})


def test_the_limits_of_the_model_are_explained_by_id_or_alias():
    server = Server(CALLER)
    server.kept.replace(("model", "acme/chat"), ("3/day",))
    server.book.load()

    answer = server.explain(model="chat").json()

    assert answer["model"] == "acme/chat"
    assert [line["name"] for line in answer["data"] if line["subject"] == "model"] == ["acme/chat"]
    assert [subject["subject"] for subject in answer["unlimited"]] == ["user_model"]


def test_an_administrator_may_ask_about_any_key():
    assert Server(ADMIN).explain(key="ci").json()["key"] == {"id": "k1", "name": "ci"}


@pytest.mark.parametrize(
    ("caller", "params", "status", "code"),
    [
        (CALLER, {"key": "other"}, 403, "insufficient_scope"),
        (MEMBER, {"key": "ci"}, 404, "not_found"),
        (ADMIN, {}, 400, "invalid_request"),
        (ADMIN, {"key": "ci", "client": "nightly"}, 400, "invalid_request"),
        (ADMIN, {"client": "other"}, 404, "not_found"),
        (TOKEN, {"client": "other"}, 403, "insufficient_scope"),
        (TOKEN, {"key": "ci"}, 403, "insufficient_scope"),
        (TOKEN, {"model": "acme/secret"}, 403, "model_not_allowed"),
        (CALLER, {"model": "acme/secret"}, 403, "model_not_allowed"),
        (CALLER, {"model": "acme/chta"}, 404, "model_not_found"),
    ],
)
def test_what_cannot_be_explained_is_refused_as_the_call_would_be(caller, params, status, code):
    answer = Server(caller).explain(**params)

    assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)
