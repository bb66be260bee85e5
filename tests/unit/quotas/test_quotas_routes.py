"""``/api/v1/limits`` over HTTP."""

from dataclasses import replace

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from quota_doubles import RecordedHistory, VirtualClock

from lingpai.errors import LingpaiError
from lingpai.principal import Principal
from lingpai.quotas.interfaces import LimitedSubject
from lingpai.quotas.limiter import MemoryLimiter
from lingpai.quotas.loader import MeterLoader
from lingpai.quotas.routes import limit_routes
from lingpai.web.errors import install_error_handlers

ADMIN = Principal("usr_1", "admin", "admin", scopes=frozenset({"limits:read", "limits:write"}))
MEMBER = Principal("usr_2", "alice", "member", scopes=frozenset({"limits:read", "limits:write"}))
READER = Principal("usr_2", "alice", "admin", scopes=frozenset({"limits:read"}))


class ListedSubjects:
    """A directory of one key and one user; members see nothing."""

    def __init__(self) -> None:
        self.subjects = [
            LimitedSubject(kind="key", id="k1", name="ci", limits=("10/day@Asia/Shanghai", "5/1s")),
            LimitedSubject(kind="user", id="u1", name="alice", limits=("20/week",)),
        ]

    def all(self, caller):
        return [subject for subject in self.subjects if caller.is_admin and subject.limits]

    def find(self, caller, kind, id_or_name):
        for subject in self.subjects if caller.is_admin else []:
            if subject.kind == kind and id_or_name in (subject.id, subject.name):
                return subject
        raise LingpaiError("not_found", f"There is no {kind} `{id_or_name}`.")

    def replace_limits(self, caller, subject, limits):
        [index] = [at for at, known in enumerate(self.subjects) if known.subject == subject]
        self.subjects[index] = replace(self.subjects[index], limits=limits)
        return self.subjects[index]


async def reached(mark: int) -> bool:
    return True


class Server:
    def __init__(self, caller: Principal) -> None:
        self.clock = VirtualClock()
        self.history = RecordedHistory()
        self.limiter = MemoryLimiter(self.history, self.clock)
        loader = MeterLoader(self.limiter, mark=int, reached=reached)
        app = FastAPI()
        install_error_handlers(app)
        app.include_router(limit_routes(ListedSubjects(), loader.load, lambda: 0, self.clock))

        async def authenticate(request):
            return caller

        app.state.authenticate = authenticate
        self.client = TestClient(app, raise_server_exceptions=False)

    def put(self, **body):
        return self.client.put("/api/v1/limits", json=body)


def test_all_limits_are_listed_with_their_state():
    server = Server(ADMIN)
    server.history.times = [server.clock() - 3600]

    rows = server.client.get("/api/v1/limits").json()["data"]

    assert [(row["subject"], row["name"], row["limit"], row["used"]) for row in rows] == [
        ("key", "ci", "10/day@Asia/Shanghai", 1),
        ("key", "ci", "5/1s", 0),
        ("user", "alice", "20/week", 1),
    ]
    assert rows[0] == {
        "subject": "key",
        "id": "k1",
        "name": "ci",
        "limit": "10/day@Asia/Shanghai",
        "used": 1,
        "remaining": 9,
        "resets_at": "2026-11-20T16:00:00Z",
    }


def test_one_key_or_user_can_be_asked_for_by_id_or_name():
    server = Server(ADMIN)

    by_name = server.client.get("/api/v1/limits", params={"key": "ci"}).json()["data"]
    both = server.client.get("/api/v1/limits", params={"key": "k1", "user": "alice"}).json()["data"]

    assert {row["id"] for row in by_name} == {"k1"}
    assert {row["id"] for row in both} == {"k1", "u1"}


def test_a_key_that_the_caller_may_not_see_does_not_exist():
    answer = Server(MEMBER).client.get("/api/v1/limits", params={"key": "ci"})

    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "not_found")


def test_new_limits_take_effect_at_once_and_keep_what_is_used():
    server = Server(ADMIN)
    server.client.get("/api/v1/limits")
    meters = server.limiter.attach(("key", "k1"), ("10/day@Asia/Shanghai", "5/1s"))
    server.limiter.admit(meters, server.clock())

    answer = server.put(subject="key", id="ci", limits=["1 / day @ asia/shanghai"])

    assert answer.status_code == 200
    assert [(row["limit"], row["used"], row["remaining"]) for row in answer.json()["data"]] == [
        ("1/day@Asia/Shanghai", 1, 0)
    ]
    assert server.limiter.admit(meters[:1], server.clock()) is not None


@pytest.mark.parametrize("limits", [[], ["none"], [" None "]])
def test_limits_can_be_taken_away(limits):
    assert Server(ADMIN).put(subject="key", id="ci", limits=limits).json() == {"data": []}


@pytest.mark.parametrize(
    ("body", "status", "code", "param"),
    [
        ({"subject": "key", "id": "ci", "limits": ["5/fortnight"]}, 400, "invalid_request", "limits"),
        ({"subject": "key", "id": "ci", "limits": ["5/day", "none"]}, 400, "invalid_request", "limits"),
        ({"subject": "team", "id": "ci", "limits": []}, 400, "invalid_request", "subject"),
        ({"subject": "key", "id": "ci", "limits": "5/day"}, 400, "invalid_request", "limits"),
        ({"subject": "key", "id": "ci", "limits": [5]}, 400, "invalid_request", "limits.0"),
        ({"subject": "key", "id": "ci"}, 400, "invalid_request", "limits"),
        ({"subject": "key", "id": "ci", "limits": [], "x": 1}, 400, "invalid_request", "x"),
        ({"subject": "key", "id": "who", "limits": []}, 404, "not_found", None),
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
