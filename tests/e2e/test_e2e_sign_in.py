"""People sign in to a real server: with a password, by invitation, in a browser, and while somebody guesses."""

import itertools
import json
import math
import sqlite3
import ssl
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx2
import pytest

from tests.e2e.conftest import MakeServer
from tests.e2e.lingpai_server import LingpaiServer
from tests.secrets_scan import SCAN

PASSWORD = "quiet harbour lamp of e2e"
OTHER = "another harbour lamp of e2e"
CALL = {"model": "lingpai/eliza", "messages": [{"role": "user", "content": "Hello"}]}
_names = itertools.count()

for _password in (PASSWORD, OTHER):
    SCAN.secrets.add("password", _password)


class Browser:
    """One browser: it keeps cookies, and says of its pages whose they are."""

    def __init__(self, server: LingpaiServer, *, verify: ssl.SSLContext | bool = True) -> None:
        """`verify` is what it trusts, where the server speaks TLS."""
        self.client = httpx2.Client(base_url=server.base, verify=verify, trust_env=False, timeout=30)
        self.csrf = ""

    def __enter__(self) -> "Browser":
        return self

    def __exit__(self, *_: object) -> None:
        self.client.close()

    def send(self, method: str, path: str, body: Any = None, **headers: str) -> httpx2.Response:
        """What a page of ours sends."""
        ours = {"sec-fetch-site": "same-origin", "x-lingpai-csrf": self.csrf}
        answer = self.client.request(method, path, json=body, headers={**ours, **headers})
        if answer.status_code >= 400:
            SCAN.note(f"answer {answer.status_code} to {method} {path}", answer.text)
        assert answer.headers["cache-control"] == "no-store"
        return answer

    def sign_in(self, name: str, password: str = PASSWORD) -> httpx2.Response:
        answer = self.send("POST", "/api/v1/sessions", {"name": name, "password": password})
        if answer.status_code == 201:
            self.csrf = answer.json()["csrf_token"]
        return answer

    @property
    def is_signed_in(self) -> bool:
        answer = self.send("GET", "/api/v1/sessions/current")
        assert answer.status_code in (200, 401), answer.text
        return bool(answer.status_code == 200)


def code_of(answer: httpx2.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["error"]["code"]


@pytest.fixture
def user(demo: LingpaiServer) -> str:
    """A new user with a password."""
    return make_user(demo)


def make_user(server: LingpaiServer, password: str = PASSWORD, **fields: Any) -> str:
    name = f"person-{next(_names)}"
    server.admin("POST", "/api/v1/users", {"name": name, "password": password, **fields})
    return name


@pytest.fixture
def browser(demo: LingpaiServer) -> Iterator[Browser]:
    with Browser(demo) as browser:
        yield browser


def test_signed_in_user_makes_a_key_that_calls_a_model(
    demo: LingpaiServer, user: str, browser: Browser
) -> None:
    signed_in = browser.sign_in(user)
    key = browser.send("POST", "/api/v1/keys", {"name": "playground", "expires_in": "1h"}).json()["key"]

    assert signed_in.status_code == 201
    assert signed_in.json()["user"] == user
    assert "users:write" not in signed_in.json()["scopes"]
    assert demo.openai(key).chat.completions.create(**CALL).choices  # type: ignore[call-overload]


def test_session_secret_is_in_the_cookie_and_in_no_body(user: str, browser: Browser) -> None:
    answer = browser.sign_in(user)

    token = browser.client.cookies["lingpai-session"]
    header = next(
        each for each in answer.headers.get_list("set-cookie") if each.startswith("lingpai-session=")
    )
    assert token.startswith("ss-lp-")
    assert {part.strip().lower() for part in header.split(";")[1:]} >= {
        "httponly",
        "path=/",
        "samesite=strict",
    }
    for path in ("/api/v1/sessions/current", "/api/v1/sessions"):
        assert token[18:] not in browser.send("GET", path).text
    assert token[18:] not in answer.text


def test_model_calls_take_no_cookie(demo: LingpaiServer, user: str, browser: Browser) -> None:
    """A page of another origin could make the browser send it; so these take what no browser sends by itself."""
    browser.sign_in(user)

    for method, path in (("POST", "/v1/chat/completions"), ("GET", "/v1/models"), ("GET", "/v1/key")):
        assert code_of(browser.client.request(method, path, json=CALL if method == "POST" else None)) == (
            401,
            "missing_api_key",
        )
    with_key = {"authorization": f"Bearer {demo.key}"}
    assert browser.client.post("/v1/chat/completions", json=CALL, headers=with_key).status_code == 200


@pytest.mark.parametrize("header", ["authorization", "x-api-key", "api-key"])
def test_cookie_and_key_in_one_request_are_ambiguous(
    demo: LingpaiServer, user: str, browser: Browser, header: str
) -> None:
    browser.sign_in(user)
    value = f"Bearer {demo.key}" if header == "authorization" else demo.key

    answer = browser.send("GET", "/api/v1/keys", **{header: value})

    assert code_of(answer) == (400, "ambiguous_credentials")


def test_asvs_3_5_1_pages_of_others_change_nothing(user: str, browser: Browser) -> None:
    browser.sign_in(user)
    right = browser.csrf
    forged = [
        {"sec-fetch-site": "cross-site", "origin": "https://evil.example"},
        {"sec-fetch-site": "same-site"},
        {"x-lingpai-csrf": ""},
        {"x-lingpai-csrf": right[:-1] + ("A" if right[-1] != "A" else "B")},
    ]

    for headers in forged:
        answer = browser.send("POST", "/api/v1/keys", {"name": "forged"}, **headers)
        assert code_of(answer) == (403, "csrf_refused")
    plain = browser.client.post("/api/v1/keys", json={"name": "forged"}, headers={"x-lingpai-csrf": right})
    assert code_of(plain) == (403, "csrf_refused"), "a browser says where a request comes from"

    assert browser.send("GET", "/api/v1/keys").json()["data"] == []


def test_form_of_another_page_cannot_sign_in(user: str, browser: Browser) -> None:
    """A form sends no JSON, and what sends JSON asks first, which nobody answers."""
    form = browser.client.post("/api/v1/sessions", data={"name": user, "password": PASSWORD})
    as_text = browser.client.post(
        "/api/v1/sessions",
        content=json.dumps({"name": user, "password": PASSWORD}),
        headers={"content-type": "text/plain"},
    )
    preflight = browser.client.options(
        "/api/v1/sessions",
        headers={"origin": "https://evil.example", "access-control-request-method": "POST"},
    )

    assert code_of(form) == code_of(as_text) == (415, "unsupported_media_type")
    assert "access-control-allow-origin" not in preflight.headers
    assert "lingpai-session" not in browser.client.cookies


def test_rfc6749_s10_3_passwords_in_clear_text_from_elsewhere_are_refused(
    user: str, browser: Browser
) -> None:
    for headers in ({"host": "models.example"}, {"x-forwarded-for": "203.0.113.7"}):
        assert code_of(
            browser.send("POST", "/api/v1/sessions", {"name": user, "password": PASSWORD}, **headers)
        ) == (
            403,
            "tls_required",
        )


def test_asvs_7_4_1_sign_out_ends_the_session_on_the_server(
    demo: LingpaiServer, user: str, browser: Browser
) -> None:
    browser.sign_in(user)
    token = browser.client.cookies["lingpai-session"]

    answer = browser.send("DELETE", "/api/v1/sessions/current")

    assert answer.status_code == 204
    assert "lingpai-session" not in browser.client.cookies
    with Browser(demo) as thief:
        thief.client.cookies.set("lingpai-session", token)
        assert code_of(thief.send("GET", "/api/v1/sessions/current")) == (401, "session_ended")


def test_ended_session_is_taken_from_the_browser_too(
    demo: LingpaiServer, user: str, browser: Browser
) -> None:
    browser.sign_in(user)
    demo.admin("DELETE", f"/api/v1/sessions?user={user}")

    assert code_of(browser.send("GET", "/api/v1/keys")) == (401, "session_ended")
    assert "lingpai-session" not in browser.client.cookies


def test_asvs_7_2_4_signing_in_again_gives_another_session_and_ends_the_first(
    demo: LingpaiServer, user: str, browser: Browser
) -> None:
    browser.sign_in(user)
    first = browser.client.cookies["lingpai-session"]
    browser.sign_in(user)

    listed = browser.send("GET", "/api/v1/sessions").json()["data"]

    assert browser.client.cookies["lingpai-session"] != first
    assert [(each["current"], each["user"], each["address"]) for each in listed] == [
        (True, user, "127.0.0.1")
    ]


def test_asvs_7_5_2_user_lists_and_ends_sessions_elsewhere(
    demo: LingpaiServer, user: str, browser: Browser
) -> None:
    browser.sign_in(user)
    with Browser(demo) as phone, Browser(demo) as laptop:
        phone.sign_in(user)
        laptop.sign_in(user)
        others = [
            each["id"]
            for each in browser.send("GET", "/api/v1/sessions").json()["data"]
            if not each["current"]
        ]

        assert browser.send("DELETE", f"/api/v1/sessions/{others[0]}").status_code == 204
        assert (phone.is_signed_in, laptop.is_signed_in) == (False, True)
        assert browser.send("DELETE", "/api/v1/sessions").json() == {"ended": 1, "programs": 0}
        assert (laptop.is_signed_in, browser.is_signed_in) == (False, True)


def test_owasp_api1_session_of_somebody_else_does_not_exist(
    demo: LingpaiServer, user: str, browser: Browser
) -> None:
    other = make_user(demo)
    with Browser(demo) as theirs:
        their_id = theirs.sign_in(other).json()["id"]
        browser.sign_in(user)

        unknown = browser.send("DELETE", "/api/v1/sessions/unknown00000")
        answer = browser.send("DELETE", f"/api/v1/sessions/{their_id}")

        assert (
            (answer.status_code, answer.json())
            == (unknown.status_code, unknown.json())
            == (404, answer.json())
        )
        assert code_of(browser.send("GET", f"/api/v1/sessions?user={other}")) == (404, "not_found")
        assert code_of(browser.send("DELETE", f"/api/v1/sessions?user={other}")) == (404, "not_found")
        assert theirs.is_signed_in


def test_owasp_api3_unknown_fields_are_refused(user: str, browser: Browser) -> None:
    body = {"name": user, "password": PASSWORD, "role": "admin"}

    answer = browser.send("POST", "/api/v1/sessions", body)

    assert (*code_of(answer), answer.json()["error"]["param"]) == (400, "invalid_request", "role")


_ODD: list[Any] = [
    "",
    "\x00",
    "a\x00b",
    "é",
    "\u202e",
    "x" * 65,
    "x" * 1025,
    "🐎" * 300,
    "' OR 1=1 --",
    "%",
    None,
    1,
    True,
    [],
    {"a": 1},
]


@pytest.mark.parametrize("odd", _ODD, ids=lambda odd: repr(odd)[:20])
def test_whatever_is_sent_in_the_open_the_answer_is_a_refusal(browser: Browser, odd: Any) -> None:
    bodies = {
        "/api/v1/sessions": [{"name": odd, "password": PASSWORD}, {"name": "nobody", "password": odd}],
        "/api/v1/invitations/look-up": [{"invitation": odd}],
        "/api/v1/invitations/accept": [
            {"invitation": odd, "password": PASSWORD},
            {"invitation": "in-lp-x", "password": odd},
        ],
    }

    for path, sent in bodies.items():
        for body in sent:
            answer = browser.send("POST", path, body)
            assert answer.status_code in (400, 401, 429), (path, answer.text)
            assert answer.json()["error"]["code"] != "internal_error"


@pytest.mark.parametrize(
    "cookie",
    [
        "lingpai-session=x; lingpai-session=y",
        "lingpai-session=ss-lp-gone",
        'lingpai-session="',
        "lingpai-device=1.2.3",
        "=;=;",
    ],
)
def test_no_cookie_keeps_anybody_from_signing_in(user: str, browser: Browser, cookie: str) -> None:
    body = {"name": user, "password": PASSWORD}

    assert browser.send("POST", "/api/v1/sessions", body, cookie=cookie).status_code == 201


def test_narrow_key_sees_no_sessions(demo: LingpaiServer, user: str, browser: Browser) -> None:
    browser.sign_in(user)
    key = demo.make_key("narrow", user=user)

    answer = httpx2.get(
        f"{demo.base}/api/v1/sessions", headers={"authorization": f"Bearer {key}"}, trust_env=False
    )

    assert code_of(answer) == (403, "insufficient_scope")


def test_asvs_7_4_2_disabling_ends_sessions_at_once(demo: LingpaiServer, user: str, browser: Browser) -> None:
    browser.sign_in(user)
    assert browser.is_signed_in

    demo.admin("PATCH", f"/api/v1/users/{user}", {"disabled": True})

    assert not browser.is_signed_in
    assert code_of(browser.sign_in(user)) == (401, "invalid_credentials")


def test_role_taken_away_is_gone_on_the_next_call(demo: LingpaiServer, browser: Browser) -> None:
    boss = make_user(demo, role="admin")
    browser.sign_in(boss)
    assert browser.send("POST", "/api/v1/users", {"name": f"made-by-{boss}"}).status_code == 201

    demo.admin("PATCH", f"/api/v1/users/{boss}", {"role": "member"})

    assert code_of(browser.send("POST", "/api/v1/users", {"name": "never"})) == (403, "insufficient_scope")


def test_asvs_6_3_8_one_answer_for_unknown_disabled_and_passwordless_users(
    demo: LingpaiServer, user: str, browser: Browser
) -> None:
    disabled, without = make_user(demo), f"person-{next(_names)}"
    demo.admin("POST", "/api/v1/users", {"name": without})
    demo.admin("PATCH", f"/api/v1/users/{disabled}", {"disabled": True})

    answers = [browser.sign_in(name, OTHER) for name in (user, "nobody-at-all", without)]
    answers.append(browser.sign_in(disabled))

    assert {(answer.status_code, answer.text) for answer in answers} == {(401, answers[0].text)}


def test_asvs_6_3_8_time_of_the_answer_does_not_tell_who_exists(make_server: MakeServer) -> None:
    """Compares ranks, in turn, so that a busy machine does no harm. A missing argon2 would give 0 or 1."""
    without_waits = "[identity]\nsign_in_failures_per_account = 1000\nsign_in_failures_per_s = 1000\n"
    server = make_server(config=without_waits).start()
    known, without = make_user(server), f"person-{next(_names)}"
    server.admin("POST", "/api/v1/users", {"name": without})
    times: dict[str, list[float]] = {name: [] for name in (known, without, "nobody-at-all")}

    with Browser(server) as browser:
        for _ in range(40):
            for name, seen in times.items():
                began = time.perf_counter()
                assert browser.sign_in(name, OTHER).status_code == 401
                seen.append(time.perf_counter() - began)

    for name in (without, "nobody-at-all"):
        pairs = itertools.product(times[name], times[known])
        share = sum(this < that for this, that in pairs) / 1600
        assert 0.2 < share < 0.8, f"{name} is told from a wrong password by time: {share:.2f}"


def test_owasp_api2_while_somebody_guesses_keys_sessions_and_known_devices_go_on(
    demo: LingpaiServer, user: str, browser: Browser
) -> None:
    """Incident class 13: no lock-out."""
    key = demo.make_key("of-the-victim", user=user)
    browser.sign_in(user)

    with Browser(demo) as attacker, ThreadPoolExecutor(20) as threads:
        began = time.monotonic()
        guesses = list(threads.map(lambda n: attacker.sign_in(user, f"guess number {n}"), range(100)))
        took_s = time.monotonic() - began
        while _wait_of(attacker.sign_in(user, "another guess")) < 4:  # long enough for what follows
            time.sleep(0.1)
        correct = attacker.sign_in(user)

    refused = [answer for answer in guesses if answer.status_code == 429]
    assert len(guesses) - len(refused) <= 6 + math.log2(1 + took_s)
    assert all(_wait_of(answer) >= 1 for answer in refused)
    assert code_of(correct) == (429, "rate_limit_exceeded"), "a right guess does not help who has to wait"
    assert demo.openai(key).chat.completions.create(**CALL).choices  # type: ignore[call-overload]
    assert browser.is_signed_in
    assert browser.send("DELETE", "/api/v1/sessions/current").status_code == 204
    assert browser.sign_in(user).status_code == 201, "this browser has signed in before"


def _wait_of(answer: httpx2.Response) -> int:
    return int(answer.headers.get("retry-after", 0))


def test_invitation_from_the_command_line_sets_the_password_once(
    demo: LingpaiServer, browser: Browser
) -> None:
    name = f"person-{next(_names)}"
    assert demo.cli("users", "create", name).returncode == 0

    invited = demo.cli("users", "invite", name)

    path, _, token = invited.stdout.strip().partition("#")
    assert path == "/console/invitation"
    assert token not in invited.stderr
    looked_up = browser.send("POST", "/api/v1/invitations/look-up", {"invitation": token})
    assert looked_up.json()["user"] == name
    weak = browser.send(
        "POST", "/api/v1/invitations/accept", {"invitation": token, "password": "password123"}
    )
    assert (*code_of(weak), weak.json()["error"]["param"]) == (400, "invalid_request", "password")
    body = {"invitation": token, "password": PASSWORD}
    accepted = browser.send("POST", "/api/v1/invitations/accept", body)
    assert (accepted.status_code, accepted.json()["user"]) == (201, name)
    assert browser.is_signed_in
    assert code_of(browser.send("POST", "/api/v1/invitations/accept", body)) == (401, "invalid_invitation")
    with Browser(demo) as another:
        assert another.sign_in(name).status_code == 201


def test_asvs_6_3_2_administrator_has_no_password_until_one_is_chosen(make_server: MakeServer) -> None:
    server = make_server().start()

    with Browser(server) as browser:
        for password in ("", "admin", "lingpai", "password", "changeme"):
            assert code_of(browser.sign_in("admin", password)) == (401, "invalid_credentials")
        token = server.cli_json("users", "invite", "admin")["invitation"]
        body = {"invitation": token, "password": PASSWORD}
        assert browser.send("POST", "/api/v1/invitations/accept", body).json()["role"] == "admin"
    assert "in-lp-" not in server.stdout + server.stderr


def test_password_change_in_the_browser_ends_all_other_sessions(
    demo: LingpaiServer, user: str, browser: Browser
) -> None:
    browser.sign_in(user)
    path = f"/api/v1/users/{user}/password"
    with Browser(demo) as phone:
        phone.sign_in(user)

        assert code_of(browser.send("PUT", path, {"password": OTHER})) == (400, "invalid_request")
        changed = browser.send("PUT", path, {"password": OTHER, "current_password": PASSWORD})

        assert changed.status_code == 200
        browser.csrf = changed.json()["csrf_token"]
        assert (phone.is_signed_in, browser.is_signed_in) == (False, True)
        assert browser.send("DELETE", "/api/v1/sessions/current").status_code == 204
        assert code_of(browser.sign_in(user)) == (401, "invalid_credentials")
        assert browser.sign_in(user, OTHER).status_code == 201


def test_operator_sets_passwords_and_signs_users_out_on_the_command_line(
    demo: LingpaiServer, browser: Browser
) -> None:
    name = f"person-{next(_names)}"
    made = demo.cli("users", "create", name, "--password-stdin", stdin=f"{PASSWORD}\n")
    assert made.returncode == 0, made.stderr
    assert browser.sign_in(name).status_code == 201

    assert demo.cli("users", "sign-out", name).stderr == f"Ended 1 session and 0 programs of {name}.\n"
    assert not browser.is_signed_in
    changed = demo.cli("users", "set-password", name, "--password-stdin", stdin=f"{OTHER}\n")

    assert changed.returncode == 0, changed.stderr
    assert browser.sign_in(name, OTHER).status_code == 201


def test_administrator_elsewhere_neither_sets_nor_chooses_a_password(
    demo: LingpaiServer, user: str, browser: Browser
) -> None:
    boss = make_user(demo, role="admin")
    browser.sign_in(boss)

    created = browser.send("POST", "/api/v1/users", {"name": "x", "password": OTHER})
    changed = browser.send("PUT", f"/api/v1/users/{user}/password", {"password": OTHER})

    assert code_of(created) == code_of(changed) == (403, "insufficient_scope")
    assert "lingpai users invite" in created.json()["error"]["message"]


def test_deleted_user_is_gone_with_key_and_session_and_the_name_is_free(
    demo: LingpaiServer, user: str, browser: Browser
) -> None:
    key = demo.make_key("of-the-leaver", user=user)
    browser.sign_in(user)
    assert demo.openai(key).chat.completions.create(**CALL).choices  # type: ignore[call-overload]

    assert demo.cli("limits", "set", "user", user, "50/day").returncode == 0

    deleted = demo.cli("users", "delete", user, "--yes")

    assert deleted.returncode == 0, deleted.stderr
    assert user not in demo.cli("limits", "list").stdout
    assert not browser.is_signed_in
    call = httpx2.post(
        f"{demo.v1}/chat/completions", json=CALL, headers={"authorization": f"Bearer {key}"}, trust_env=False
    )
    assert code_of(call) == (401, "invalid_api_key")
    assert demo.cli("users", "create", user).returncode == 0
    usage = demo.admin("GET", "/api/v1/usage?by=user")["data"]
    assert any(str(row["user"]).startswith(f"{user}~") for row in usage), (
        "what they used stays, under who they were"
    )


def test_admin_and_oneself_cannot_be_deleted(demo: LingpaiServer, browser: Browser) -> None:
    boss = make_user(demo, role="admin")
    browser.sign_in(boss)

    for name in ("admin", boss):
        assert code_of(browser.send("DELETE", f"/api/v1/users/{name}")) == (400, "invalid_request")
    assert demo.cli("users", "delete", "admin", "--yes").returncode == 1
    assert demo.cli("users", "delete", boss).returncode == 2, "there is no terminal to ask on"


def test_session_and_password_survive_a_restart_and_a_kill(make_server: MakeServer) -> None:
    server = make_server().start()
    name = make_user(server)
    with Browser(server) as browser:
        browser.sign_in(name)
        server.kill()
        server.start()
        browser.client.base_url = httpx2.URL(server.base)

        assert browser.is_signed_in
        assert browser.send("DELETE", "/api/v1/sessions/current").status_code == 204
        assert browser.sign_in(name).status_code == 201


def test_limits_of_sessions_and_invitations_are_settings(make_server: MakeServer) -> None:
    config = "[identity]\nsession_idle_s = 60\nsession_lifetime_s = 120\ninvitation_lifetime_s = 60\npassword_min_length = 20\n"
    server = make_server(config=config).start()
    status, refused = server.try_admin(
        "POST", "/api/v1/users", {"name": "a", "password": "nineteen characters"}
    )
    assert (status, refused["error"]["param"]) == (400, "password")
    name = make_user(server)

    with Browser(server) as browser:
        answer = browser.sign_in(name)
        assert answer.headers.get_list("set-cookie")[0].lower().find("max-age=120") > 0
        _move_back(server, "UPDATE sessions SET last_seen_at = last_seen_at - 61")
        time.sleep(1.1)  # what a server remembers of a session holds for a second

        assert not browser.is_signed_in


def test_weak_parameters_stop_the_start_with_the_key_that_is_wrong(make_server: MakeServer) -> None:
    server = make_server(config="[identity]\npassword_passes = 1\n")
    server.launch()

    assert server.process is not None
    assert server.process.wait(30) != 0
    assert "identity.password_memory_kib" in server.stderr


def _move_back(server: LingpaiServer, statement: str) -> None:
    connection = sqlite3.connect(server.data / "lingpai.db", timeout=10)
    with connection:
        connection.execute(statement)
    connection.close()
