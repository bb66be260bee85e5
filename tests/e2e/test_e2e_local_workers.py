"""Workers that misbehave, and several of them: whatever a model does, it does to itself."""

import collections
import os
import re
import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import pytest

from tests.e2e.conftest import MakeServer
from tests.e2e.lingpai_server import LingpaiServer
from tests.e2e.processes import is_alive
from tests.e2e.raw_http import RawAnswer, exchange, post_bytes
from tests.e2e.waiting import wait_until

STUCK = """
import ctypes
import os
import time
import lingpai as lp

@lp.model("acme/{name}", task="generic", timeout_s=0.3, concurrency=2)
def {name}(seconds: float):
    {code}
    return os.getpid()
"""
MODELS = """
import os
import resource
import subprocess
import sys
import threading
import time
from pathlib import Path
import lingpai as lp

hoard = []

@lp.model("acme/who", task="generic", concurrency=8{options})
def who(seconds: float):
    time.sleep(seconds)
    return os.getpid()

@lp.model("acme/meet", task="generic", concurrency=8)
def meet(_: int):
    Path("met-%d-%d" % (os.getpid(), threading.get_ident())).touch()
    while not Path("go-on").exists():
        time.sleep(0.01)
    return os.getpid()

@lp.model("acme/leak", task="generic", memory_mb=250)
def leak(megabytes: int):
    hoard.append(b"x" * (megabytes * 10**6))
    return os.getpid()

@lp.model("acme/end", task="generic")
def end(code: int):
    os._exit(code)

@lp.model("acme/print", task="generic")
def print_(megabytes: int):
    for number in range(megabytes * 10):
        print("x" * 50_000 * 2)
    sys.stderr.write("the end of it\\n")
    return megabytes

@lp.model("acme/fork", task="generic")
def fork(count: int):
    script = "import time; time.sleep(600)"
    own = dict(stdin=subprocess.DEVNULL, start_new_session=True)
    return [os.getpid(), *(subprocess.Popen([sys.executable, "-c", script], **own).pid for _ in range(count))]

@lp.model("acme/files", task="generic")
def files(_: int):
    resource.setrlimit(resource.RLIMIT_NOFILE, (120, 120))
    try:
        while True:
            hoard.append(open("/dev/null"))
    except OSError as error:
        return str(error)
"""


@pytest.fixture
def serve(make_server: MakeServer):
    """A server with the models above, `options` added to the decorator of `acme/who`."""

    def start(options: str = "", *arguments: str) -> LingpaiServer:
        server = make_server("app.py", arguments=arguments)
        (server.folder / "app.py").write_text(MODELS.format(options=options))
        server.start()
        server.key = server.make_key("unlimited")
        return server

    return start


def infer(server: LingpaiServer, model: str, value: Any) -> RawAnswer:
    path = f"/api/v1/models/acme/{model}/inference"
    return exchange(server.port, post_bytes(path, {"input": value}, key=server.key), timeout=60)


def output(server: LingpaiServer, model: str, value: Any) -> Any:
    answer = infer(server, model, value)
    assert answer.status == 200, answer.body
    return answer.json["output"]


def patiently(server: LingpaiServer, model: str, value: Any) -> Any:
    """The output, once the worker is back; meanwhile every answer says when to come again."""
    deadline = time.monotonic() + 20
    while (answer := infer(server, model, value)).status != 200:
        assert answer.status == 503, answer.body
        assert int(answer.headers["retry-after"]) >= 1
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return answer.json["output"]


@contextmanager
def meeting(server: LingpaiServer, count: int) -> Iterator[list[Future[RawAnswer]]]:
    """So many calls at the same time, all of them in a worker, where they stay until the block ends."""
    go_on = server.folder / "go-on"
    go_on.unlink(missing_ok=True)
    for each in server.folder.glob("met-*"):
        each.unlink()
    with ThreadPoolExecutor(count) as pool:
        calls = [pool.submit(infer, server, "meet", 0) for _ in range(count)]
        try:
            wait_until(lambda: len(list(server.folder.glob("met-*"))) == count, "they do not meet")
            yield calls
        finally:
            go_on.touch()


class SteadyCallers:
    """Call without pause until the block ends; what they were answered."""

    def __init__(self, server: LingpaiServer, model: str, value: Any, *, callers: int = 3) -> None:
        self.answers: list[RawAnswer] = []
        self._call = lambda: infer(server, model, value)
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._run) for _ in range(callers)]

    def __enter__(self) -> "SteadyCallers":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _run(self) -> None:
        while not self._stop.is_set():
            self.answers.append(self._call())

    @property
    def failed(self) -> list[bytes]:
        return [answer.body for answer in self.answers if answer.status != 200]

    @property
    def outputs(self) -> set[Any]:
        return {answer.json["output"] for answer in self.answers if answer.status == 200}


# -- time


@pytest.mark.slow
def test_stuck_workers_are_restarted_and_others_do_not_notice(make_server: MakeServer):
    """One call that does not end in its thread, one that holds the interpreter: two workers, each for itself."""
    server = make_server("thread.py", "holder.py", "app.py")
    codes = {"thread": "time.sleep(seconds)", "holder": "ctypes.PyDLL(None).sleep(int(seconds))"}
    for name, code in codes.items():
        (server.folder / f"{name}.py").write_text(STUCK.format(name=name, code=code))
    (server.folder / "app.py").write_text(MODELS.format(options=""))
    server.start()
    before = {name: output(server, name, 0.0) for name in codes}

    with ThreadPoolExecutor() as pool, SteadyCallers(server, "who", 0.01, callers=1) as others:
        late = {name: pool.submit(infer, server, name, 100) for name in codes}
        wait_until(lambda: server.stderr.count("is back") == 2, server.stderr, seconds=40)

    assert late["thread"].result().error["code"] == "backend_timeout"
    assert late["holder"].result().status in (502, 503, 504)
    assert "a call of acme/thread does not end" in server.stderr
    assert re.search(r"worker holder is restarted: it has not answered for \d+ s", server.stderr)
    assert others.failed == []
    assert len(others.answers) > 100
    for name, pid in before.items():
        assert output(server, name, 0.0) != pid


# -- memory and descriptors


def test_leaking_worker_is_restarted_and_calls_that_run_are_answered(serve):
    server = serve()
    before = output(server, "leak", 1)

    with meeting(server, 1) as (running,):
        output(server, "leak", 240)
        wait_until(lambda: "is restarted: it holds" in server.stderr, server.stderr)
        meanwhile = infer(server, "who", 0.0)

    assert running.result().json["output"] == before
    assert meanwhile.status in (200, 503)
    assert patiently(server, "leak", 1) != before


def test_worker_without_descriptors_is_restarted(serve):
    server = serve()
    before = output(server, "who", 0.0)

    assert "Too many open files" in output(server, "files", 1)

    wait_until(lambda: "file descriptors" in server.stderr, server.stderr)
    wait_until(lambda: "is back" in server.stderr, server.stderr)
    assert patiently(server, "who", 0.0) != before


# -- replicas


def pids(server: LingpaiServer, count: int) -> list[int]:
    """The processes in which so many calls run at the same time."""
    with meeting(server, count) as calls:
        pass
    return [call.result().json["output"] for call in calls]


def test_calls_spread_over_replicas_and_run_side_by_side(serve):
    """Four processes, each with a quarter of what runs at the same time."""
    server = serve(", replicas=4")

    assert sorted(collections.Counter(pids(server, 8)).values()) == [2, 2, 2, 2]


def test_replica_that_is_killed_leaves_the_others_serving(serve):
    """Its own calls fail with an error that says so, nobody gets a wrong answer, and it comes back."""
    server = serve(", replicas=3")
    before = set(pids(server, 6))
    victim, *others = sorted(before)

    with meeting(server, 6) as calls:
        os.kill(victim, signal.SIGKILL)
        wait_until(lambda: sum(call.done() for call in calls) == 2)
    answers = [call.result() for call in calls]
    with SteadyCallers(server, "who", 0.02) as callers:
        wait_until(lambda: "is back" in server.stderr, server.stderr)

    assert len(others) == 2
    assert [answer.error["code"] for answer in answers if answer.status != 200] == ["backend_error"] * 2
    assert sorted(answer.json["output"] for answer in answers if answer.status == 200) == sorted(others * 2)
    assert callers.failed == []
    assert len(set(pids(server, 6)) - before) == 1


def test_replica_that_leaks_is_replaced_without_a_failed_call(serve):
    server = serve(", replicas=2")
    before = set(pids(server, 4))

    with SteadyCallers(server, "who", 0.05) as callers:
        leaked = output(server, "leak", 240)
        output(server, "leak", 1)
        wait_until(lambda: "is back" in server.stderr, server.stderr)

    assert leaked in before
    assert callers.failed == []


# -- reload


def test_edited_file_is_served_under_running_calls(serve):
    """No call fails; a slip of the pen is shown and changes nothing."""
    server = serve("", "--reload")
    source = (server.folder / "app.py").read_text()

    with SteadyCallers(server, "who", 0.05) as callers:
        (server.folder / "app.py").write_text(source.replace("return os.getpid()", "return 'new'", 1))
        wait_until(lambda: "new" in callers.outputs, server.stderr)
        (server.folder / "app.py").write_text(source + "\ndef broken(:\n")
        wait_until(lambda: "goes on with the code from before" in server.stderr, server.stderr)
        seen = len(callers.answers)
        wait_until(lambda: len(callers.answers) > seen + 5, server.stderr)

    assert callers.failed == []
    assert {answer.json["output"] for answer in callers.answers[seen:]} == {"new"}
    assert "def broken(:" in server.stderr
    assert "SyntaxError" in server.stderr
    assert f'app.py", line {source.count(chr(10)) + 2}' in server.stderr


def test_no_call_goes_to_the_old_process_once_the_new_one_serves(serve):
    """Not even over connections that were open to it: it cannot be relied on to read what is on them."""
    server = serve("", "--reload")
    source = (server.folder / "app.py").read_text()
    old = output(server, "who", 0.0)

    os.kill(old, signal.SIGSTOP)  # what is sent to it now is never read
    (server.folder / "app.py").write_text(source.replace("return os.getpid()", "return 'new'", 1))
    wait_until(lambda: "serves the new code" in server.stderr, server.stderr)

    assert [output(server, "who", 0.0) for _ in range(4)] == ["new"] * 4
    os.kill(old, signal.SIGKILL)


def test_model_that_an_edit_adds_is_there(serve):
    server = serve("", "--reload")
    more = '\n@lp.model("acme/more", task="generic")\ndef more(value):\n    return value\n'

    with (server.folder / "app.py").open("a") as file:
        file.write(more)
    wait_until(lambda: infer(server, "more", 1).status == 200, server.stderr)

    assert "acme/more" in server.cli("models", "list").stdout


# -- what else models do


def test_worker_that_ends_is_restarted_and_its_calls_are_told(serve):
    server = serve()

    with meeting(server, 1) as (running,):
        ended = infer(server, "end", 3)

    for answer in (ended, running.result()):
        assert answer.status in (502, 503), answer.body
        assert server.record_of(answer.headers["x-request-id"])["end_reason"] == "upstream_error"
    assert "worker app ended: exit code 3" in server.stderr
    assert isinstance(patiently(server, "who", 0.0), int)


def test_megabytes_of_output_do_not_hold_up_others_or_fill_the_log(serve):
    server = serve()

    with SteadyCallers(server, "who", 0.0) as callers:
        assert output(server, "print", 30) == 30

    assert callers.failed == []
    wait_until(lambda: "left out" in server.stderr, server.stderr[-1000:])
    assert len(server.stderr) < 4_000_000
    assert len(max(server.stderr.splitlines(), key=len)) < 9_000


@pytest.mark.parametrize("how", ["kill", "stop"])
def test_children_of_a_model_end_with_the_server(serve, how):
    """Also those in sessions of their own, and also when the server is killed with -9."""
    server = serve()
    worker, *children = output(server, "fork", 3)
    assert all(map(is_alive, [worker, *children]))

    getattr(server, how)()

    wait_until(lambda: not any(map(is_alive, [worker, *children])), "they live")


def test_children_of_a_worker_that_is_killed_end_with_it(serve):
    server = serve()
    worker, *children = output(server, "fork", 3)

    os.kill(worker, signal.SIGKILL)

    wait_until(lambda: not any(map(is_alive, children)), "they live")
    assert patiently(server, "who", 0.0) != worker
