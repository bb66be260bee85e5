"""The command line against a real server, over admin.sock and over the network."""

import csv
import datetime
import io
import json
import re
import stat
from zoneinfo import ZoneInfo

import pytest

from tests.e2e.conftest import MakeServer
from tests.e2e.lingpai_server import LingpaiServer, StartFailed, run_cli
from tests.e2e.raw_http import chat, get, post

CHAT = "/v1/chat/completions"
ELIZA = chat(model="lingpai/eliza")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory):
    server = LingpaiServer(tmp_path_factory.mktemp("cli")).start()
    yield server
    server.stop()


def call(server: LingpaiServer, key: str, **fields):
    return post(server.port, CHAT, {**ELIZA, **fields}, key=key)


def refused_code(server: LingpaiServer, key: str) -> str:
    return call(server, key).error["code"]


# -- keys


def test_keys_from_birth_to_death(server, key_name):
    """Create, show, disable, enable and delete; each takes effect on the very next call."""
    made = server.cli("keys", "create", key_name)
    key = made.stdout.strip()
    assert made.returncode == 0
    assert re.fullmatch(r"sk-lp-\w+", key)
    assert call(server, key).status == 200

    shown = server.cli_json("keys", "show", key_name)
    disabled = server.cli("keys", "disable", key_name)
    after_disable = refused_code(server, key)
    enabled = server.cli("keys", "enable", key_name)
    after_enable = call(server, key).status
    unsure = server.cli("keys", "delete", key_name)
    still = call(server, key).status
    deleted = server.cli("keys", "delete", key_name, "--yes")

    assert "key" not in shown
    assert shown["user"] == "admin"
    assert (disabled.returncode, after_disable) == (0, "key_disabled")
    assert (enabled.returncode, after_enable) == (0, 200)
    assert (unsure.returncode, still) == (2, 200)
    assert deleted.returncode == 0
    assert refused_code(server, key) == "invalid_api_key"
    assert server.cli("keys", "show", key_name).returncode == 1
    assert key not in server.cli("keys", "list").stdout


def test_key_with_everything(server, key_name):
    """All options of `keys create` arrive, with --json in the promised shape and order."""
    user = server.cli_json("users", "create", f"u-{key_name}")
    outcome = server.cli(
        "keys", "create", key_name, "--user", f"u-{key_name}", "--model", "lingpai/*", "--limit", "10/day@Asia/Shanghai",
        "--limit", "5/1s", "--allow-ip", "127.0.0.0/8", "--allow-ip", "::1", "--expires", "90d", "--scope", "model:inference",
        "--scope", "usage:read", "--json",
    )  # fmt: skip
    made = json.loads(outcome.stdout)

    assert list(made) == [
        "id",
        "name",
        "key",
        "user",
        "scopes",
        "models",
        "limits",
        "allowed_ips",
        "expires_at",
        "created_at",
    ]
    assert (made["user"], made["models"]) == (user["name"], ["lingpai/*"])
    assert made["limits"] == ["10/day@Asia/Shanghai", "5/1s"]
    assert made["scopes"] == ["model:inference", "usage:read"]
    left = datetime.datetime.fromisoformat(made["expires_at"]) - datetime.datetime.now(datetime.UTC)
    assert 89 < left.total_seconds() / 86400 <= 90
    assert call(server, made["key"]).status == 200
    listed = {each["name"]: each for each in server.cli_json("keys", "list", "--user", f"u-{key_name}")}
    assert list(listed) == [key_name]
    assert {name: value for name, value in listed[key_name].items() if name in made} == {
        name: value for name, value in made.items() if name != "key"
    }


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--limit", "2000/fortnight"), "fortnight"), (("--expires", "yesterday"), "expire"), (("--allow-ip", "300.1.1.1"), "300.1.1.1"),
        (("--scope", "model:inferense"), "model:inference"), (("--user", "nobody"), "nobody"),
    ],
)  # fmt: skip
def test_mistakes_in_keys_create_are_explained(server, key_name, arguments, said):
    """A wrong value makes no key, is named, and has a non-zero exit code without a stack trace."""
    outcome = server.cli("keys", "create", key_name, *arguments)

    assert outcome.returncode in (1, 2)
    assert said in outcome.stderr
    assert "Traceback" not in outcome.stderr
    assert outcome.stdout == ""
    assert server.try_admin("GET", f"/api/v1/keys/{key_name}")[0] == 404


def test_same_name_twice(server, key_name):
    """A second key with the same name is refused, so that names stay unique addresses."""
    server.cli("keys", "create", key_name)
    outcome = server.cli("keys", "create", key_name)

    assert outcome.returncode == 1
    assert key_name in outcome.stderr


def test_users(server, key_name):
    """A disabled user's keys stop at once; the list shows role, state and limits."""
    name = f"u-{key_name}"
    assert server.cli("users", "create", name, "--limit", "7/day").returncode == 0
    key = server.cli("keys", "create", key_name, "--user", name).stdout.strip()
    assert call(server, key).status == 200

    assert server.cli("users", "disable", name).returncode == 0
    assert refused_code(server, key) == "key_disabled"
    assert server.cli("users", "enable", name).returncode == 0
    assert call(server, key).status == 200
    (row,) = [each for each in server.cli_json("users", "list") if each["name"] == name]
    assert (row["role"], row["limits"], row["disabled"]) == ("member", ["7/day"], False)
    assert name in server.cli("users", "list").stdout


# -- models


def test_models_list_show_and_check(server):
    """The models, their parameters, and a trial call."""
    listed = server.cli_json("models", "list")
    table = server.cli("models", "list").stdout
    shown = server.cli_json("models", "show", "lingpai/eliza")
    checks = [server.cli("models", "check", model["id"]) for model in listed]

    assert {model["id"] for model in listed} == {
        "lingpai/eliza",
        "lingpai/sentiment",
        "lingpai/hashing-embedding",
    }
    assert all(model["status"] == "ready" for model in listed)
    assert "lingpai/eliza" in table
    assert "max_tokens" in shown["parameters"]["properties"]
    assert [check.returncode for check in checks] == [0, 0, 0]
    assert "✓" in checks[0].stdout


def test_models_added_at_run_time_stay_after_a_restart_and_can_be_removed(make_server: MakeServer, engine):
    """`models add` serves an engine at once and after a restart, until `models remove`."""
    server = make_server().start()
    added = server.cli("models", "add", engine.url)
    first = call(server, server.key, model="fake/chat").status
    server.stop()
    server.start()
    deadline = datetime.datetime.now() + datetime.timedelta(seconds=5)
    while (
        again := call(server, server.key, model="fake/chat").status
    ) != 200 and datetime.datetime.now() < deadline:
        pass
    checked = server.cli("models", "check", "fake/chat")
    removed = server.cli("models", "remove", "fake/chat")
    gone = call(server, server.key, model="fake/chat").status
    demonstration = server.cli("models", "remove", "lingpai/eliza")

    assert (added.returncode, first, again, checked.returncode) == (0, 200, 200, 0)
    assert (removed.returncode, gone) == (0, 404)
    assert demonstration.returncode == 1
    assert "command line" in demonstration.stderr
    assert call(server, server.key).status == 200


def test_model_that_cannot_be_added(server):
    """An address where nothing answers is refused with advice, and nothing of it stays."""
    outcome = server.cli("models", "add", "http://127.0.0.1:9/v1")

    assert outcome.returncode == 1
    assert "127.0.0.1:9" in outcome.stderr
    assert len(server.cli_json("models", "list")) == 3


# -- limits and usage


def test_limits_set_and_list(server, key_name):
    """Limits are set by name, shown with what is left, and lifted with `none`."""
    key = server.make_key(key_name)
    set_ = server.cli_json("limits", "set", "key", key_name, "3/day@Asia/Shanghai", "100/1m")
    statuses = [call(server, key).status for _ in range(4)]
    listed = server.cli_json("limits", "list", "--key", key_name)
    table = server.cli("limits", "list").stdout
    wrong = server.cli("limits", "set", "key", key_name, "many")
    lifted = server.cli("limits", "set", "key", key_name, "none")

    assert [row["limit"] for row in set_] == ["3/day@Asia/Shanghai", "100/1m"]
    assert statuses == [200, 200, 200, 429]
    assert (listed[0]["used"], listed[0]["remaining"]) == (3, 0)
    assert key_name in table
    assert wrong.returncode == 1
    assert lifted.returncode == 0
    assert call(server, key).status == 200


def test_usage_in_every_grouping(server, key_name):
    """Every call is in the report, by key, user, model, task, day and hour, in any zone."""
    server.admin("POST", "/api/v1/users", {"name": f"u-{key_name}", "limits": ["none"]})
    key = server.make_key(key_name, user=f"u-{key_name}", limits=["5/day"])
    statuses = [call(server, key).status for _ in range(6)]
    statuses.append(post(server.port, "/v1/embeddings", {"model": "no/such", "input": "x"}, key=key).status)
    assert statuses == [200] * 5 + [429, 404]

    def rows(by: str, *more: str) -> list[dict]:
        return server.cli_json("usage", "--by", by, "--user", f"u-{key_name}", *more)

    shanghai = datetime.datetime.now(ZoneInfo("Asia/Shanghai"))
    (by_key,) = rows("key")
    (by_day,) = rows("day", "--tz", "Asia/Shanghai")
    (by_hour,) = rows("hour", "--tz", "Asia/Shanghai")
    by_model = {row["model"]: row for row in rows("model,task")}
    assert (by_key["key"], by_key["requests"], by_key["refused"], by_key["errors"]) == (key_name, 5, 2, 0)
    assert by_key["prompt_tokens"] > 0
    assert by_key["completion_tokens"] > 0
    assert by_day["day"] == shanghai.strftime("%Y-%m-%d")
    assert by_hour["hour"] == shanghai.strftime("%Y-%m-%dT%H:00+08:00")
    assert (by_model["lingpai/eliza"]["task"], by_model["lingpai/eliza"]["requests"]) == ("chat", 5)
    assert rows("user")[0]["user"] == f"u-{key_name}"
    assert server.cli_json("usage", "--key", key_name)[0]["requests"] == 5
    assert server.cli_json("usage", "--key", key_name, "--since", "1d")[0]["requests"] == 5


def test_usage_as_csv_and_table(server):
    """--csv is a table for programs, without it one for people."""
    call(server, server.key)
    as_csv = list(csv.DictReader(io.StringIO(server.cli("usage", "--by", "key,model", "--csv").stdout)))
    table = server.cli("usage", "--by", "key,model").stdout

    row = next(row for row in as_csv if row["key"] == "first" and row["model"] == "lingpai/eliza")
    assert int(row["requests"]) >= 1
    assert set(row) == {
        "key",
        "model",
        "requests",
        "currency",
        "prompt_tokens",
        "completion_tokens",
        "cost",
        "errors",
        "refused",
    }
    assert "lingpai/eliza" in table
    assert "total" in table


@pytest.mark.parametrize(
    "arguments", [("--by", "colour"), ("--tz", "Mars/Olympus"), ("--since", "whenever"), ("--key", "nobody")]
)
def test_usage_questions_that_make_no_sense(server, arguments):
    """A wrong question is explained."""
    outcome = server.cli("usage", *arguments)

    assert outcome.returncode in (1, 2)
    assert outcome.stderr.startswith("error: ")
    assert "Traceback" not in outcome.stderr


# -- calls


def test_run(server):
    """`run` calls any model; stdin, parameters and JSON work."""
    text = server.cli("run", "lingpai/eliza", "I am sad, run-canary-20c4")
    labels = server.cli("run", "lingpai/sentiment", "这家店很好")
    short = server.cli("run", "lingpai/eliza", "I am sad", "-p", "max_tokens=1", "--json")
    piped = server.cli("run", "lingpai/hashing-embedding", stdin="some text, stdin-canary-20c4\n")
    unknown = server.cli("run", "lingpai/elisa", "I am sad, unanswered-canary-20c4")

    assert text.stdout.strip()
    assert "positive" in labels.stdout
    assert len(json.loads(short.stdout)["output"]["text"].split()) == 1
    assert "dimensions" in piped.stdout
    assert (unknown.returncode, "lingpai/eliza" in unknown.stderr) == (1, True)


def test_chat(server):
    """`chat` answers a question and leaves, streaming or as JSON."""
    question = "I am sad, chat-canary-20c4"
    spoken = server.cli("chat", "lingpai/eliza", question)
    piped = server.cli("chat", "lingpai/eliza", "-", stdin=question)
    as_json = server.cli_json("chat", "lingpai/eliza", question)

    assert spoken.stdout.strip() == as_json["choices"][0]["message"]["content"]
    assert piped.stdout == spoken.stdout


def test_calls_over_the_socket_are_recorded_for_the_administrator(server):
    """A call without a key over admin.sock counts as the administrator's."""
    server.cli("run", "lingpai/eliza", "who pays?")

    assert server.records("key_id = ''")


def test_doctor_over_the_socket(server):
    """On the server's machine every step is fine, and none is left out for want of something the server should tell."""
    outcome = server.cli("doctor")

    assert outcome.returncode == 0
    assert "✗" not in outcome.stdout
    assert "!" not in outcome.stdout
    assert re.search(r"✓ clock", outcome.stdout)


def test_doctor_over_the_network(server):
    """With address and key all steps are fine, the key's too."""
    environment = {"LINGPAI_SERVER": server.base, "LINGPAI_API_KEY": server.key}

    outcome = server.cli("doctor", environment=environment, at_data=False)

    assert outcome.returncode == 0, outcome.stdout
    for name in ("Lingpai", "ready", "clock", "key", "accepted", "expiry", "limits", "models"):
        assert re.search(rf"✓ {name}\b", outcome.stdout), outcome.stdout
    assert server.key not in outcome.stdout + outcome.stderr


@pytest.mark.parametrize("key", ["sk-lp-wrong", "", "Bearer abc"])
def test_doctor_finds_a_bad_key(server, key):
    """A bad key is the step that fails, with exit code 1."""
    environment = {"LINGPAI_SERVER": server.base, "LINGPAI_API_KEY": key}

    outcome = server.cli("doctor", environment=environment, at_data=False)

    assert outcome.returncode == 1
    assert "✗ key" in outcome.stdout


# -- over the network


def test_management_over_the_network_with_a_key(server, key_name):
    """LINGPAI_SERVER and LINGPAI_API_KEY do what admin.sock does, as far as the key's scopes and role go."""
    admin_key = server.make_key(
        key_name, scopes=["keys:read", "keys:write", "usage:read", "models:read", "model:inference"]
    )
    environment = {"LINGPAI_SERVER": server.base, "LINGPAI_API_KEY": admin_key}

    def remote(*arguments: str):
        return server.cli(*arguments, environment=environment, at_data=False)

    made = remote("keys", "create", f"{key_name}-child")
    run = remote("run", "lingpai/eliza", "hello")
    usage = remote("usage", "--by", "key", "--json")
    too_much = remote("keys", "create", f"{key_name}-more", "--scope", "limits:write")
    no_scope = remote("users", "list")

    assert call(server, made.stdout.strip()).status == 200
    assert run.stdout.strip()
    assert json.loads(usage.stdout)
    assert too_much.returncode == 4
    assert no_scope.returncode == 4


def test_exit_codes_without_a_right_to_be_there(server, tmp_path):
    """3 when not signed in, 1 when there is no server, each with what to do."""
    wrong = server.cli(
        "keys",
        "list",
        environment={"LINGPAI_SERVER": server.base, "LINGPAI_API_KEY": "sk-lp-x"},
        at_data=False,
    )
    missing = server.cli("keys", "list", environment={"LINGPAI_SERVER": server.base}, at_data=False)
    nobody = server.cli("keys", "list", at_data=False)
    away = server.cli(
        "keys",
        "list",
        environment={"LINGPAI_SERVER": "http://127.0.0.1:9", "LINGPAI_API_KEY": server.key},
        at_data=False,
    )

    assert (wrong.returncode, missing.returncode, nobody.returncode, away.returncode) == (3, 3, 1, 1)
    assert "lingpai serve" in nobody.stderr
    for outcome in (wrong, missing, nobody, away):
        assert "Traceback" not in outcome.stderr


def test_member_s_key_sees_only_its_own(server, key_name):
    """A member with keys:read sees own keys; another user's key is a 404, by id and by name."""
    server.admin("POST", "/api/v1/users", {"name": f"u-{key_name}", "limits": ["none"]})
    other = server.admin("POST", "/api/v1/keys", {"name": f"{key_name}-other"})
    key = server.make_key(key_name, user=f"u-{key_name}", scopes=["keys:read", "keys:write", "usage:read"])

    listed = get(server.port, "/api/v1/keys", key=key).json["data"]
    by_id = get(server.port, f"/api/v1/keys/{other['id']}", key=key)
    by_name = get(server.port, f"/api/v1/keys/{key_name}-other", key=key)
    unknown = get(server.port, "/api/v1/keys/AAAAAAAAAAAA", key=key)
    usage = get(server.port, "/api/v1/usage?by=key", key=key).json["data"]

    assert [each["name"] for each in listed] == [key_name]
    assert (by_id.status, by_name.status, unknown.status) == (404, 404, 404)
    assert by_id.error["code"] == unknown.error["code"]
    assert {row["key"] for row in usage} <= {key_name}


# -- the data directory


def test_modes_of_the_data_directory(server):
    """Nobody else can look into the data directory or use the socket."""
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in (server.data, *server.data.rglob("*"))}

    assert modes["data"] == 0o700
    assert modes["admin.sock"] == 0o600
    assert modes["secrets"] == 0o700
    assert modes["pepper.json"] == 0o600
    assert not [name for name, mode in modes.items() if mode & 0o077 and name != "data"]


def test_second_server_on_the_same_data_is_refused(server, tmp_path):
    """Two servers never write one data directory; the first goes on unharmed."""
    outcome = run_cli(
        "serve", "--data", str(server.data), "--port", "0", environment=server.environment, cwd=tmp_path
    )

    assert outcome.returncode == 1
    sentence = f"Another server is running on {server.data}. Stop it, or choose another folder with --data."
    assert sentence in " ".join(outcome.stderr.split())
    assert "Traceback" not in outcome.stderr
    assert server.cli("keys", "list").returncode == 0
    assert call(server, server.key).status == 200


@pytest.mark.parametrize("length", [100, 200])
def test_long_data_path(tmp_path, length):
    """A data path longer than a socket address works for the server and for commands."""
    data = tmp_path / ("d" * length) / "data"
    server = LingpaiServer(tmp_path / "server", data=data).start()
    try:
        made = server.cli("keys", "create", "long")
        doctor = server.cli("doctor")
    finally:
        server.stop()

    assert made.returncode == 0, made.stderr
    assert doctor.returncode == 0, doctor.stdout


def test_data_path_that_cannot_be_made(tmp_path):
    """A data path below a file is refused with a clear message."""
    (tmp_path / "file").write_text("")
    server = LingpaiServer(tmp_path / "server", data=tmp_path / "file" / "data")

    with pytest.raises(StartFailed, match="cannot be used"):
        server.start()

    assert "Traceback" not in server.stderr
