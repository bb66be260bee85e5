"""`models check` with a real worker behind it."""

import asyncio
import logging
from types import SimpleNamespace

import pytest

from lingpai.backends.worker import Worker
from lingpai.catalog.interfaces import Model
from lingpai.gateway.gateway import Link
from lingpai.lane.upstream_pool import Origin, UpstreamPool
from lingpai.model_operations import TargetOperations
from lingpai.storage.trail import NoTrail

HEAD = b"host: worker\r\ncontent-type: application/json\r\n"

APP = """
import lingpai.authoring as lp

@lp.model("acme/echo", task="text-classification")
def echo(text: str): return [{"label": text, "score": 1.0}]

@lp.model("acme/broken", task="chat")
def broken(messages): raise RuntimeError("secret detail")

@lp.model("acme/picky", task="summarization")
def picky(text: str): raise lp.InputError("Too short to sum up.")

@lp.model("acme/pixels", task="image-classification")
def pixels(image: list[float]): return []

@lp.model("acme/anything")
def anything(value): raise RuntimeError("must not be called")
"""


@pytest.fixture
def check(write_app, short_dir):
    """The last step of a check of the model called so."""
    worker = Worker(
        write_app("checked.py", APP),
        socket_path=short_dir / "w.sock",
        name="checked",
        log=logging.getLogger(),
    )

    async def story(name):
        await worker.start()
        pool = UpstreamPool(
            Origin(host="localhost", port=0, socket_path=str(worker.socket_path)),
            loop=asyncio.get_running_loop(),
        )
        gateway = SimpleNamespace(link=lambda _: Link(pool, HEAD, HEAD, b"/v1"))
        task = next(model.task for model in worker.models if model.id == name)
        try:
            operations = TargetOperations(None, None, gateway, trail=NoTrail())
            return await operations.check(None, Model(id=name, task=task, backend=worker, upstream_name=name))
        finally:
            await pool.close()
            await worker.stop()

    return lambda name: asyncio.run(story(name))[-1]


def test_a_model_that_takes_a_text_is_called(check):
    step = check("acme/echo")

    assert (step["name"], step["ok"], step["detail"]) == ("call", True, "answered")


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("acme/broken", "status 500: The model's own code failed (RuntimeError)."),
        ("acme/picky", "status 400: Too short to sum up."),
    ],
)
def test_a_failure_is_told_in_the_workers_own_words(check, name, said):
    step = check(name)

    assert not step["ok"]
    assert step["detail"].startswith(said)
    assert "secret detail" not in step["detail"]


@pytest.mark.parametrize("name", ["acme/pixels", "acme/anything"])
def test_a_model_that_takes_no_text_is_not_called(check, name):
    step = check(name)

    assert step["ok"]
    assert step["detail"] == "not called: it needs an input of its own kind; try `lingpai run`"
