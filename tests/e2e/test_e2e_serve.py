"""`lingpai serve`: what it serves, how it starts, how it stops, what it says and what it never says."""

import asyncio
import json
import re
import signal
import socket
import subprocess
import sys
import time

import pytest

from tests.e2e.conftest import MakeServer
from tests.e2e.lingpai_server import METRICS_TOKEN, LingpaiServer, StartFailed, free_port
from tests.e2e.processes import children_of, is_alive
from tests.e2e.raw_http import RawConnection, chat, get, post, post_bytes
from tests.e2e.waiting import wait_until
from tests.fakes.openai_engine import EngineCall, chunk

CHAT = "/v1/chat/completions"

APP = """
import asyncio
from pathlib import Path
import lingpai as lp

@lp.model("acme/shout", task="text-generation", aliases=("shout",))
def shout(prompt: str, *, times: int = 1) -> str:
    return (prompt.upper() + "! ") * times

@lp.model("acme/parrot", task="chat")
async def parrot(messages: list[lp.Message], *, max_tokens: int = 256):
    for word in messages[-1].text.split():
        yield word + " "

@lp.model("acme/held", task="chat")
async def held(messages: list[lp.Message]):
    yield "first "
    while not Path("go-on").exists():
        await asyncio.sleep(0.02)
    yield "last "

@lp.model("acme/embed", task="embedding")
class Embed:
    def load(self, context):
        self.scale = 2.0

    def __call__(self, text: str) -> list[float]:
        return [len(text) * self.scale, 1.0]
"""
PREDICT = "def predict(input_data):\n    return {'prediction': input_data}\n"
SLOW_START = """
import time
from pathlib import Path
Path("loading").touch()
for _ in range(1000):
    if Path("go-on").exists():
        break
    time.sleep(0.02)
"""
CRASHING_LOAD = """
import lingpai as lp

@lp.model("acme/heavy", task="embedding")
class Heavy:
    def load(self, context):
        raise RuntimeError("no weights here")

    def __call__(self, text: str) -> list[float]:
        return [1.0]
"""


def models_of(server: LingpaiServer) -> list[str]:
    return [model["id"] for model in get(server.port, "/v1/models", key=server.key).json["data"]]


def refused_start(make_server: MakeServer, *targets: str, **options) -> LingpaiServer:
    """A server that does not come up: exit code 1, a sentence, no stack trace."""
    files = options.pop("files", {})
    server = make_server(*targets, **options)
    for name, text in files.items():
        (server.folder / name).write_text(text)
    with pytest.raises(StartFailed):
        server.start(timeout=20)
    assert server.process.returncode == 1
    assert "error: " in server.stderr
    return server


# -- targets


def test_python_files_of_all_kinds_and_an_engine_at_once(make_server: MakeServer, engine):
    """Decorated functions, a class, a plain function and an engine are served side by side."""
    server = make_server("app.py", "plain.py:predict", engine.url)
    (server.folder / "app.py").write_text(APP)
    (server.folder / "plain.py").write_text(PREDICT)
    server.start()

    shout = post(
        server.port, "/v1/completions", {"model": "acme/shout", "prompt": "hi", "times": 2}, key=server.key
    )
    alias = post(server.port, "/api/v1/generate", {"model": "shout", "prompt": "hi"}, key=server.key)
    parrot = post(server.port, CHAT, chat("a b c", model="acme/parrot", stream=True), key=server.key)
    embed = post(server.port, "/v1/embeddings", {"model": "acme/embed", "input": ["abc"]}, key=server.key)
    plain = [each for each in models_of(server) if "predict" in each]
    predict = post(
        server.port, "/predict", {"model": plain[0], "input_data": [1, {"a": None}]}, key=server.key
    )
    remote = post(server.port, CHAT, chat(), key=server.key)

    assert shout.json["choices"][0]["text"].strip() == "HI! HI!"
    assert alias.json["results"][0]["text"].strip() == "HI!"
    assert "".join(each["choices"][0]["delta"].get("content") or "" for each in parrot.chunks) == "a b c "
    assert embed.json["data"][0]["embedding"] == [6.0, 1.0]
    assert predict.json == {"prediction": [1, {"a": None}]}
    assert remote.status == 200
    assert f"{server.base}/v1" in server.stdout


def test_models_and_the_default_model_follow_the_order_of_the_targets(make_server: MakeServer):
    """The first target's models come first, and answer where no model is named, however long they take to load."""
    slow = "import time\ntime.sleep(0.6)\ndef predict(input_data):\n    return {'who': 'first'}\n"
    quick = "def predict(input_data):\n    return {'who': 'second'}\n"
    server = make_server("one.py:predict", "two.py:predict")
    (server.folder / "one.py").write_text(slow)
    (server.folder / "two.py").write_text(quick)
    server.start()

    answer = post(server.port, "/predict", {"input_data": 1}, key=server.key)

    assert answer.json == {"who": "first"}


@pytest.mark.parametrize(
    ("targets", "said"),
    [
        (("missing.py",), "missing.py"), (("app.py:shoot",), "shout"), (("heavy.py",), "no weights here"), (("syntax.py",), "SyntaxError"),
        (("http://127.0.0.1:9/v1",), "127.0.0.1:9"), (("http://user:pw@127.0.0.1/v1",), "password"), (("app.py", "app.py"), "app.py"),
    ],
)  # fmt: skip
def test_target_that_cannot_be_served(make_server: MakeServer, targets, said):
    """The start fails with exit code 1 and a sentence that names the target and what to do."""
    files = {
        "app.py": APP,
        "heavy.py": CRASHING_LOAD,
        "syntax.py": "def f(:\n",
    }

    server = refused_start(make_server, *targets, files=files)

    assert said in server.stderr
    assert "lingpai/cli" not in server.stderr  # the user's own traceback may be shown, ours not
    assert "pw@" not in server.stderr


def test_ollama_that_is_not_there(make_server: MakeServer):
    """`ollama` without Ollama says how to start it; OLLAMA_HOST is looked at."""
    server = refused_start(make_server, "ollama", environment={"OLLAMA_HOST": "127.0.0.1:9"})

    assert "ollama serve" in server.stderr
    assert "127.0.0.1:9" in server.stderr


def test_origin_pasted_without_v1(make_server: MakeServer, engine):
    """An origin without /v1 is found."""
    server = make_server(engine.url.removesuffix("/v1")).start()

    assert post(server.port, CHAT, chat(), key=server.key).status == 200


# -- settings


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ("[server]\nprot = 1\n", "`port`"), ("[limits]\ndefault = ['2000 per day']\n", "2000"),
        ("[[models]]\ntarget = 'http://127.0.0.1:9/v1'\napi_key_env = 'NO_SUCH'\n", "NO_SUCH"),
        ("[gateway]\nmax_body_bytes = -1\n", "gateway.max_body_bytes"), ("[gateway]\nidle_timeout_s = 0\n", "gateway.idle_timeout_s"),
    ],
)  # fmt: skip
def test_settings_that_make_no_sense_stop_the_start(make_server: MakeServer, config, said):
    """An unknown key or a bad value in lingpai.toml is named, with the nearest known one."""
    server = refused_start(make_server, config=config)

    assert said in server.stderr
    assert "Traceback" not in server.stderr


def test_environment_wins_over_the_file_and_wrong_names_are_found(make_server: MakeServer):
    """LINGPAI__SECTION__KEY works, and a mistyped one stops the start with the nearest name."""
    good = make_server(
        environment={"LINGPAI__LIMITS__DEFAULT": "7/day@Asia/Shanghai"},
        config="[limits]\ndefault = ['9/day']\n",
    ).start()
    (limit,) = get(good.port, "/v1/key", key=good.key).json["limits"]
    wrong = refused_start(make_server, environment={"LINGPAI__LIMITS__DEFALUT": "7/day"})

    assert limit["limit"] == "7/day@Asia/Shanghai"
    assert "default" in wrong.stderr


def test_port_in_use(make_server: MakeServer):
    """A taken port is named, with what to do."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]

        server = refused_start(make_server, arguments=("--port", str(port)))

    assert str(port) in server.stderr
    assert "--port" in server.stderr


@pytest.mark.parametrize("port", ["70000", "-1"])
def test_port_that_does_not_exist(make_server: MakeServer, port):
    """A number that is no port is refused with a sentence."""
    server = refused_start(make_server, arguments=("--port", port))

    assert "Traceback" not in server.stderr


# -- start and stop


def test_ready_once_models_can_be_called(make_server: MakeServer):
    """While a model loads /readyz says so, /healthz is fine, calls are told to wait, and progress is shown."""
    server = make_server("slow.py:predict")
    (server.folder / "slow.py").write_text(SLOW_START + PREDICT)
    port = free_port()
    server.arguments = ("--port", str(port))
    server.launch()
    wait_until(lambda: is_listening(port))

    early = get(port, "/readyz")
    healthy = get(port, "/healthz")
    call = server.try_admin("POST", "/predict", {"input_data": 1})
    wait_until(lambda: "slow" in server.stderr, "no progress is shown")
    (server.folder / "go-on").touch()
    wait_until(lambda: get(port, "/readyz").status == 200)

    assert (early.status, healthy.status) == (503, 200)
    assert (call[0], call[1]["error"]["code"]) == (503, "model_loading")


def is_listening(port: int) -> bool:
    """Whether new connections are taken."""
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except ConnectionRefusedError:
        return False
    return True


@pytest.mark.parametrize("kind", ["worker", "engine"])
def test_sigterm_lets_a_running_stream_finish(make_server: MakeServer, engine, kind):
    """A stream under way at SIGTERM comes to its end and is recorded as complete; the server then exits with 0."""

    async def held(call: EngineCall) -> None:
        await call.stream_head()
        await call.event(chunk(call.json, {"content": "first "}))
        while not (server.folder / "go-on").exists():
            await asyncio.sleep(0.02)
        await call.event(chunk(call.json, {"content": "last "}))
        await call.event(b"[DONE]")
        await call.chunk(b"")

    server = make_server("app.py", engine.url)
    (server.folder / "app.py").write_text(APP)
    server.start()
    body = (
        chat(model="acme/held", stream=True)
        if kind == "worker"
        else chat(stream=True, script=engine.script(held))
    )
    with RawConnection(server.port) as connection, RawConnection(server.port) as idle:
        idle.send(b"GET /healthz HTTP/1.1\r\nhost: a\r\n\r\n")
        idle.read_answer()
        connection.send(post_bytes(CHAT, body, key=server.key))
        connection.read_until(b"first ")
        server.process.send_signal(signal.SIGTERM)
        wait_until(lambda: not is_listening(server.port), "it still takes new connections")
        (server.folder / "go-on").touch()
        rest = connection.read_rest()
    code = server.process.wait(10)

    assert b"last " in rest
    assert b"data: [DONE]" in rest
    assert rest.endswith(b"0\r\n\r\n")
    assert code == 0
    server.start()
    (record,) = server.records()
    assert (record["end_reason"], record["status"]) == ("complete", 200)


def test_request_whose_body_is_under_way_at_sigterm_is_finished(make_server: MakeServer, engine):
    """A call that has begun to arrive is served, or refused at once; the stop does not hang on it."""
    server = make_server(engine.url, config="[server]\nstop_timeout_s = 10.0\n").start()
    request = post_bytes(CHAT, chat(), key=server.key)
    with RawConnection(server.port) as connection:
        connection.send(request[:-10])
        time.sleep(0.1)
        started = time.monotonic()
        server.process.send_signal(signal.SIGTERM)
        time.sleep(0.3)
        connection.send(request[-10:])
        answer = connection.read_answer()
        took = time.monotonic() - started

    assert answer.status in (200, 503)
    assert took < 5
    assert server.process.wait(10) == 0


def test_sigterm_right_after_the_start_is_an_orderly_stop(make_server: MakeServer):
    """From the moment on at which the server says it is ready, it stops in order: exit code 0, no socket left."""
    server = make_server().start()
    server.process.send_signal(signal.SIGTERM)

    assert server.process.wait(10) == 0
    assert not (server.data / "admin.sock").exists()


def test_sigterm_while_a_model_loads(make_server: MakeServer):
    """A start can be given up at once; nothing is left of it, and no stack trace is shown."""
    server = make_server("slow.py:predict")
    (server.folder / "slow.py").write_text(SLOW_START + PREDICT)
    server.launch()
    wait_until(lambda: (server.folder / "loading").exists() and (server.data / "admin.sock").exists())
    children = children_of(server.process.pid)
    started = time.monotonic()
    server.process.send_signal(signal.SIGTERM)
    server.process.wait(10)

    assert time.monotonic() - started < 5
    assert not (server.data / "admin.sock").exists()
    assert "Traceback" not in server.stderr
    assert children
    wait_until(lambda: not any(map(is_alive, children)), "a child lives on")


def test_stream_that_outlasts_the_stop_gets_a_last_event(make_server: MakeServer, engine):
    """After the stop time-out a stream ends with an error event, and the record says `stopped`."""

    async def endless(call: EngineCall) -> None:
        await call.stream_head()
        await call.event(chunk(call.json, {"content": "a"}))
        await call.wait_gone(10)

    server = make_server(engine.url, config="[server]\nstop_timeout_s = 1.0\n").start()
    with RawConnection(server.port) as connection:
        connection.send(post_bytes(CHAT, chat(stream=True, script=engine.script(endless)), key=server.key))
        connection.read_until(b'"a"')
        server.process.send_signal(signal.SIGTERM)
        rest = connection.read_rest()
    code = server.process.wait(10)

    assert b'"shutting_down"' in rest
    assert b"[DONE]" not in rest
    assert code == 0
    server.start()
    (record,) = server.records()
    assert record["end_reason"] == "stopped"


def test_stop_leaves_no_socket_and_no_process(make_server: MakeServer):
    """After Ctrl-C the admin socket and the workers are gone, and a command says that no server runs."""
    server = make_server().start()
    children = children_of(server.process.pid)
    server.process.send_signal(signal.SIGINT)

    assert server.process.wait(10) in (0, 130)  # 130 is what shells report of Ctrl-C
    assert not (server.data / "admin.sock").exists()
    assert "Traceback" not in server.stderr
    assert children
    assert not any(map(is_alive, children))
    assert "No server is running" in server.cli("keys", "list").stderr


# -- what it says


def test_no_secret_is_ever_printed_logged_or_stored(make_server: MakeServer, engine):
    """Keys, prompts and answers are in no output after the first start and in no file of the data directory."""
    engine_url = engine.url
    server = make_server(engine_url, arguments=("--log-level", "debug")).start()
    first_key = server.key
    first_output = server.stdout
    made = server.cli("keys", "create", "canary").stdout.strip()
    prompt = "canary-prompt-31337"
    for key in (first_key, made):
        post(server.port, CHAT, chat(prompt, marker=prompt), key=key)
        post(server.port, CHAT, chat(prompt, stream=True), key=key)
        post(server.port, CHAT, chat(prompt, model="no/such"), key=key)
        post(server.port, CHAT, b'{"messages": ' + prompt.encode(), key=key)
        post(server.port, f"{CHAT}?key={key}", chat(prompt))
        post(server.port, CHAT, chat(prompt), key=key + "x")
        get(server.port, f"/v1/models?api_key={key}", key=key)
        get(server.port, f"/api/v1/keys/{key}", key=key)
        get(server.port, f"/{key}")
        server.cli(
            "doctor", environment={"LINGPAI_SERVER": server.base, "LINGPAI_API_KEY": key}, at_data=False
        )
    listed = "".join(
        server.cli("keys", *command, "--json").stdout for command in (("list",), ("show", "canary"))
    )
    metrics = get(server.port, "/metrics").body.decode()
    server.stop()
    server.start()
    server.stop()

    secrets = [first_key, made, first_key.removeprefix("sk-lp-")[12:-6], made.removeprefix("sk-lp-")[12:-6]]
    assert first_output.count(first_key) == 1
    told = server.stdout.replace(first_output, "", 1) + server.stderr + listed + metrics
    for secret in [*secrets, prompt]:
        assert secret not in told
    for path in server.data.rglob("*"):
        if path.is_file():
            content = path.read_bytes()
            assert not [secret for secret in [*secrets, prompt] if secret.encode() in content], path


def test_json_log(make_server: MakeServer):
    """With --log-format json every line on stderr that is a log line is JSON."""
    server = make_server("noisy.py:predict", arguments=("--log-format", "json"))
    (server.folder / "noisy.py").write_text(
        "import sys\nprint('to stdout')\nprint('to stderr', file=sys.stderr)\n" + PREDICT
    )
    server.start()
    time.sleep(0.2)

    lines = [line for line in server.stderr.splitlines() if line.startswith("{")]

    assert lines
    entries = [json.loads(line) for line in lines]
    assert any("to stderr" in str(entry) and "lingpai.models.noisy" in str(entry) for entry in entries)


# -- addresses for operators


def test_health_ready_and_metrics(demo):
    """/healthz, /readyz and, from this machine, /metrics need no key."""
    post(demo.port, CHAT, chat(model="lingpai/eliza"), key=demo.key)

    metrics = get(demo.port, "/metrics")

    assert get(demo.port, "/healthz").json["status"] == "ok"
    assert get(demo.port, "/readyz").status == 200
    assert metrics.headers["content-type"].startswith("text/plain")
    assert re.search(r"^lingpai_\w+\{.*chat\.completions.*\} [1-9]", metrics.body.decode(), re.MULTILINE)


@pytest.mark.parametrize(
    "header", ["origin: https://evil.example", "x-forwarded-for: 8.8.8.8", "forwarded: for=8.8.8.8"]
)
def test_metrics_are_not_for_those_who_come_through_somebody_here(demo, header):
    """A page in a browser on this machine, or a proxy on it, comes from loopback too, but for somebody else."""
    answer = get(demo.port, "/metrics", headers=(header,))

    assert (answer.status, answer.error["code"]) == (403, "metrics_not_allowed")
    assert "access-control-allow-origin" not in answer.headers


@pytest.mark.parametrize("path", ["/api/v1/key", "/api/usage/token"])
def test_own_limits_in_other_products_shapes(demo, path):
    """OpenRouter's and New API's clients ask there what is left (W16)."""
    body = get(demo.port, path, key=demo.key).json["data"]

    assert body.get("limit_remaining", body.get("total_available")) <= 2000
    assert body.get("label", body.get("name")) == "first"


def test_metrics_with_a_token(make_server: MakeServer):
    """With a token set, only the token opens /metrics; an API key does not."""
    server = make_server(environment={METRICS_TOKEN: "metrics-canary"}).start()

    statuses = [
        get(server.port, "/metrics").status, get(server.port, "/metrics", key="wrong").status,
        get(server.port, "/metrics", key=server.key).status, get(server.port, "/metrics", key="metrics-canary").status,
    ]  # fmt: skip

    assert statuses == [403, 403, 403, 200]
    assert "metrics-canary" not in server.stdout + server.stderr


SERVED = {
    "/v1/chat/completions": "post", "/v1/completions": "post", "/v1/embeddings": "post", "/v1/models": "get", "/v1/models/{id}": "get",
    "/v1/key": "get", "/predict": "post", "/api/v1/generate": "post", "/api/v1/models/{model}/inference": "post",
    "/api/v1/keys": "post", "/api/v1/keys/{id}": "patch", "/api/v1/users": "post", "/api/v1/users/{id}": "patch", "/api/v1/models": "get",
    "/api/v1/models/{id}": "delete", "/api/v1/models/check": "post", "/api/v1/limits": "put", "/api/v1/usage": "get",
    "/healthz": "get", "/readyz": "get", "/metrics": "get",
}  # fmt: skip


def test_openapi_lists_every_served_route(demo):
    """The document has every address that is served, and describes the errors in our shape."""
    document = get(demo.port, "/openapi.json").json

    without_names = {re.sub(r"\{[^}]+\}", "{}", path): methods for path, methods in document["paths"].items()}
    for path, method in SERVED.items():
        assert method in without_names[re.sub(r"\{[^}]+\}", "{}", path)], path
    assert "HTTPValidationError" not in json.dumps(document)


@pytest.mark.parametrize("path", [CHAT, "/v1/models", "/v1/embeddings", "/predict"])
def test_cors_preflight(demo, path):
    """A page of another origin may ask first, with any headers, without a key (W6)."""
    headers = (
        "origin: https://app.example", "access-control-request-method: POST",
        "access-control-request-headers: authorization, content-type, x-stainless-os",
    )  # fmt: skip

    answer = get(demo.port, path, method="OPTIONS", headers=headers)

    assert answer.status in (200, 204)
    assert answer.headers["access-control-allow-origin"] in ("*", "https://app.example")
    assert "POST" in answer.headers["access-control-allow-methods"]
    allowed = answer.headers["access-control-allow-headers"].lower()
    assert allowed == "*" or all(
        name in allowed for name in ("authorization", "content-type", "x-stainless-os")
    )
    assert "access-control-allow-credentials" not in answer.headers


@pytest.mark.parametrize("case", ["unary", "stream", "refused", "models", "no key", "not found"])
def test_cors_headers_on_every_answer(demo, case):
    """Scripts of other origins may read every answer, errors too, and the headers that matter (W6)."""
    origin = ("origin: https://app.example",)
    body = chat(model="no/such" if case == "refused" else "lingpai/eliza", stream=case == "stream")
    if case == "models":
        answer = get(demo.port, "/v1/models", key=demo.key, headers=origin)
    elif case == "not found":
        answer = get(demo.port, "/v1/nothing", key=demo.key, headers=origin)
    else:
        answer = post(demo.port, CHAT, body, key=None if case == "no key" else demo.key, headers=origin)

    exposed = answer.headers["access-control-expose-headers"].lower()
    assert answer.headers["access-control-allow-origin"] in ("*", "https://app.example")
    for name in ("x-request-id", "retry-after", "retry-after-ms", "x-ratelimit-limit-requests", "x-ratelimit-remaining-requests",
                 "x-ratelimit-reset-requests", "ratelimit", "ratelimit-policy", "x-should-retry"):  # fmt: skip
        assert name in exposed


def test_chosen_origins_only(make_server: MakeServer):
    """With named origins, pages of others may read nothing."""
    server = make_server(config='[gateway]\ncors_origins = ["https://app.example"]\n').start()

    good = post(
        server.port,
        CHAT,
        chat(model="lingpai/eliza"),
        key=server.key,
        headers=("origin: https://app.example",),
    )
    bad = post(
        server.port,
        CHAT,
        chat(model="lingpai/eliza"),
        key=server.key,
        headers=("origin: https://evil.example",),
    )
    bad_list = get(server.port, "/v1/models", key=server.key, headers=("origin: https://evil.example",))

    assert good.headers["access-control-allow-origin"] == "https://app.example"
    assert "origin" in good.headers["vary"].lower()
    assert "access-control-allow-origin" not in bad.headers
    assert "access-control-allow-origin" not in bad_list.headers


def test_first_lines_can_be_pasted(demo):
    """The example that the first start prints works as it stands."""
    text = demo.stdout
    assert "demonstration" in text
    command = text.partition("Try it:")[2].partition("Stop with")[0].strip()

    outcome = subprocess.run(
        ["bash", "-c", command],
        env={**demo.environment, "LINGPAI_API_KEY": demo.key, "NO_PROXY": "*"},
        capture_output=True,
        text=True,
        check=True,
    )

    assert json.loads(outcome.stdout)["choices"]


def test_admin_socket_needs_no_key_but_the_port_does(demo):
    """The local administrator is whoever may open the socket; nothing a network caller sends makes them one."""
    status, _ = demo.try_admin("GET", "/api/v1/keys")
    tricks = [
        get(demo.port, "/api/v1/keys", headers=headers)
        for headers in ((), ("x-forwarded-for: 127.0.0.1",), ("x-lingpai-local: 1",))
    ]

    assert status == 200
    assert {answer.status for answer in tricks} == {401}


def test_servers_know_nothing_of_each_other_s_keys(demo, relay):
    """A key of one data directory is no key on another."""
    assert get(demo.port, "/v1/models", key=demo.key).status == 200
    assert get(relay.port, "/v1/models", key=demo.key).status == 401


def test_serve_and_help_from_the_console_script():
    """`lingpai --help` and `lingpai serve --help` come without loading the server's parts."""
    outcome = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "lingpai.cli", "--help"],
        capture_output=True,
        text=True,
        check=True,
    )

    assert "serve" in outcome.stdout
    assert "fastapi" not in outcome.stderr


def test_strict_parameters_are_refused_before_the_model_is_called(make_server: MakeServer):
    """With `gateway.strict_params` a parameter without effect is a 400 that names it, not a header (W24)."""
    server = make_server(config="[gateway]\nstrict_params = true\n").start()
    body = {"model": "lingpai/eliza", "messages": [{"role": "user", "content": "Hi"}]}

    plain = post(server.port, CHAT, body, key=server.key)
    refused = post(server.port, CHAT, {**body, "logit_bias": {"1": 2}}, key=server.key)

    assert plain.status == 200
    assert (refused.status, refused.error["param"]) == (400, "logit_bias")


def test_origin_of_the_settings_file_may_come_later(make_server: MakeServer):
    """An engine in lingpai.toml that is not up yet does not keep the others from being served."""
    server = make_server("one.py:predict", config='[[models]]\ntarget = "http://127.0.0.1:9/v1"\n')
    (server.folder / "one.py").write_text("def predict(input_data):\n    return {'prediction': input_data}\n")
    server.start()

    answer = post(server.port, "/predict", {"input_data": 1}, key=server.key)

    assert answer.json == {"prediction": 1}
    assert "127.0.0.1:9" in server.stderr


def test_kept_target_that_is_gone_can_be_removed(make_server: MakeServer):
    """`models remove TARGET` forgets a target of `models add` that cannot be served any more."""
    server = make_server().start()
    file = server.folder / "two.py"
    file.write_text("def predict(input_data):\n    return {'prediction': input_data}\n")
    server.cli("models", "add", str(file))
    server.stop()
    file.unlink()
    server.start()

    removed = server.cli("models", "remove", str(file))
    again = server.cli("models", "remove", str(file))

    assert removed.returncode == 0, removed.stderr
    assert again.returncode == 1
