"""`lingpai serve`, as far as it can be tried without a server; the rest is in tests/e2e."""

from types import SimpleNamespace

import pytest

from lingpai.backends.openai import openai_backend
from lingpai.backends.worker import Worker
from lingpai.catalog.interfaces import Model
from lingpai.cli import app, serve


def test_reload_is_a_switch():
    command, bound, _ = app.parse_args(["serve", "app.py", "--reload"], exit_on_error=False)

    assert command is serve.serve
    assert bound.arguments["reload"] is True
    assert bound.args == ("app.py",)


class WatchingWorker(Worker):
    """Notes that it shall watch its sources."""

    watches = False

    def reload_on_change(self):
        self.watches = True


def test_reload_is_for_workers_and_engines_stay_as_they_are(tmp_path):
    worker = WatchingWorker("app.py", socket_path=tmp_path / "w.sock", name="app", log=None)
    engine = openai_backend("http://127.0.0.1:1/v1", name=None, api_key=None)
    served = [SimpleNamespace(backend=engine), SimpleNamespace(backend=worker)]

    serve._reload_on_change(SimpleNamespace(fleet=SimpleNamespace(served=lambda: served)))

    assert worker.watches


PICTURE = {"type": "string", "contentMediaType": "image/*"}
ROWS = {"type": "array", "items": {"type": "number"}}
TEXT = {"type": "string"}


@pytest.mark.parametrize(
    ("inputs", "shown"),
    [
        ([ROWS, TEXT], """one/1/inference -H "Authorization: Bearer $LINGPAI_API_KEY" \\\n    -H 'Content-Type: application/json' -d '{"input": "Hello"}'"""),
        ([ROWS, PICTURE], "-F file=@FILE"), ([ROWS], "lingpai models show one/0"), ([ROWS, {}], '{"input": "Hello"}'), ([], "/v1/models"),
    ],
)  # fmt: skip
def test_the_first_lines_show_a_call_that_works(inputs, shown):
    """Of a model that can be called with a word, else with a file; else where to read what it takes."""
    models = [
        Model(id=f"one/{number}", task="generic", backend=SimpleNamespace(), upstream_name="", input=schema)
        for number, schema in enumerate(inputs)
    ]

    assert shown in serve._try_it("http://127.0.0.1:8741", models)
