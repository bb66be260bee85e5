"""The server process, as far as it can be tried without a server; the rest is in tests/e2e."""

from types import SimpleNamespace

from lingpai.backends.openai import openai_backend
from lingpai.backends.worker import Worker
from lingpai.serving import process


class WatchingWorker(Worker):
    """Notes that it shall watch its sources."""

    watches = False

    def reload_on_change(self):
        self.watches = True


def test_reload_is_for_workers_and_engines_stay_as_they_are(tmp_path):
    worker = WatchingWorker("app.py", socket_path=tmp_path / "w.sock", name="app", log=None)
    engine = openai_backend("http://127.0.0.1:1/v1", name=None, api_key=None)
    served = [SimpleNamespace(backend=engine), SimpleNamespace(backend=worker)]

    process._reload_on_change(SimpleNamespace(fleet=SimpleNamespace(served=lambda: served)))

    assert worker.watches
