"""Targets become backends and models: names, the operator's wishes, failures, coming and going."""

import asyncio
import contextlib
import json

import pytest

from lingpai import targets as module
from lingpai.catalog.service import Catalog
from lingpai.settings import ModelSettings
from lingpai.storage.sealing import SealError
from lingpai.targets import CatalogLimits, Fleet, TargetError
from tests.fakes.scripted_server import scripted_server


class Origin:
    """An OpenAI-compatible server on the loopback address whose list the test changes."""

    def __init__(self, *ids):
        self.ids = ids
        self.status = b"200 OK"
        self.requests = []
        self.address = ""

    async def script(self, connection):
        while True:
            self.requests.append(await connection.request())
            body = json.dumps({"data": [{"id": id_} for id_ in self.ids]}).encode()
            await connection.answer(body, status=self.status)


class World:
    """A fleet, its catalog, and origins."""

    def __init__(self, folder, environment):
        self.catalog = Catalog()
        self.removed = []
        self.health = []
        self.fleet = Fleet(
            self.catalog,
            socket_folder=folder,
            environment=environment,
            on_removed=self.removed.append,
            on_health=lambda backend, why: self.health.append((backend.name, why)),
        )
        self._stack = contextlib.AsyncExitStack()

    async def origin(self, *ids) -> Origin:
        origin = Origin(*ids)
        server = await self._stack.enter_async_context(scripted_server(origin.script))
        origin.address = f"http://127.0.0.1:{server.port}/v1"
        return origin

    async def add(self, target, **settings):
        return [model.id for model in await self.fleet.add(ModelSettings(target=target, **settings))]

    async def refusal(self, target, **settings) -> str:
        with pytest.raises(TargetError) as caught:
            await self.fleet.add(ModelSettings(target=target, **settings))
        return str(caught.value)

    @property
    def ids(self):
        return [model.id for model in self.catalog.models()]


@pytest.fixture
def play(tmp_path):
    """Runs `test(world)`; everything the world has started ends with it."""

    def play(test, **environment):
        async def run():
            world = World(tmp_path, environment)
            try:
                async with asyncio.timeout(20):
                    return await test(world)
            finally:
                await world.fleet.stop()
                await world._stack.aclose()

        return asyncio.run(run())

    return play


# -- adding


def test_models_of_an_origin_come_into_the_catalog(play):
    async def test(world):
        origin = await world.origin("qwen3:8b", "bge-m3")
        added = await world.add(origin.address)
        return added, world.ids, world.fleet.is_loading

    assert play(test) == (["qwen3:8b", "bge-m3"], ["qwen3:8b", "bge-m3"], False)


def test_target_is_served_once(play):
    async def test(world):
        origin = await world.origin("a")
        await world.add(origin.address)
        return await world.refusal(origin.address), len(world.fleet.served())

    message, count = play(test)

    assert "served already" in message
    assert count == 1


def test_nothing_stays_of_a_target_that_failed_and_it_can_be_tried_again(play):
    async def test(world):
        origin = await world.origin("a")
        origin.status = b"500 Oops"
        message = await world.refusal(origin.address)
        left = (world.fleet.served(), world.ids, world.fleet.is_loading)
        origin.status = b"200 OK"
        return message, left, await world.add(origin.address)

    message, left, added = play(test)

    assert "does not list models" in message
    assert left == ([], [], False)
    assert added == ["a"]


@pytest.mark.parametrize(
    ("target", "advice"),
    [
        ("hf:owner/name", "examples/minilm.py"),
        ("ms:owner/name", "examples/minilm.py"),
        ("http://user:pw@127.0.0.1/v1", "api_key_env"),
        ("http://127.0.0.1:1/v1", "Is the server running there?"),
        ("http://[::1", ""),
        ("http://exa mple/v1", ""),
    ],
)
def test_target_that_cannot_be_served_is_refused_with_advice(play, target, advice):
    async def test(world):
        return await world.refusal(target), world.fleet.served()

    message, served = play(test)

    assert advice in message
    assert served == []


def test_missing_ollama_is_told_how_to_start_it(play, monkeypatch):
    monkeypatch.setenv("OLLAMA_HOST", "127.0.0.1:1")

    assert "ollama serve" in play(lambda world: world.refusal("ollama"))


def test_missing_python_file_is_told_by_name(play):
    assert "nowhere.py" in play(lambda world: world.refusal("nowhere.py:model"))


def test_key_comes_from_the_environment_variable_that_is_named(play):
    async def test(world):
        origin = await world.origin("a")
        await world.add(origin.address, api_key_env="PROVIDER_KEY")
        return origin.requests[0]

    assert b"authorization: bearer sk-provider" in play(test, PROVIDER_KEY=" sk-provider\n").lower()


@pytest.mark.parametrize("environment", [{}, {"PROVIDER_KEY": "  "}])
def test_missing_key_is_told_by_its_variable(play, environment):
    async def test(world):
        return await world.refusal("http://127.0.0.1:1/v1", api_key_env="PROVIDER_KEY")

    assert "PROVIDER_KEY" in play(test, **environment)


# -- keys that are kept


def authorization(request):
    lines = [line for line in request.lower().split(b"\r\n") if line.startswith(b"authorization:")]
    return lines[0].decode() if lines else None


def test_kept_key_is_sent_to_its_origin(play):
    async def test(world):
        origin = await world.origin("a")
        await world.fleet.add(ModelSettings(target=origin.address), read_key=lambda: "sk-kept")
        backend = world.catalog.find("a").backend
        return authorization(origin.requests[0]), dict(backend.headers), repr(backend)

    sent, headers, shown = play(test)

    assert sent == "authorization: bearer sk-kept"
    assert headers == {"authorization": "Bearer sk-kept"}
    assert "sk-kept" not in shown


def test_key_of_the_environment_goes_before_a_kept_one(play):
    async def test(world):
        origin = await world.origin("a")
        settings = ModelSettings(target=origin.address, api_key_env="PROVIDER_KEY")
        await world.fleet.add(settings, read_key=lambda: "sk-kept")
        return authorization(origin.requests[0])

    assert play(test, PROVIDER_KEY="sk-env") == "authorization: bearer sk-env"


def test_key_of_the_environment_is_not_replaced_by_a_kept_one(play):
    async def test(world):
        origin = await world.origin("a")
        await world.fleet.add(ModelSettings(target=origin.address, api_key_env="PROVIDER_KEY"))
        used = world.fleet.use_key(origin.address, "sk-kept")
        await world.fleet.refresh()
        return used, authorization(origin.requests[-1])

    assert play(test, PROVIDER_KEY="sk-env") == (None, "authorization: bearer sk-env")


def test_kept_key_that_does_not_open_is_told_and_the_origin_is_not_asked(play):
    def read_key():
        raise SealError("The provider-key of X was sealed under root key 1, which this server does not have.")

    async def test(world):
        origin = await world.origin("a")
        with pytest.raises(TargetError) as caught:
            await world.fleet.add(ModelSettings(target=origin.address), read_key=read_key)
        return str(caught.value), origin.requests, world.fleet.served()

    message, requests, served = play(test)

    assert "root key 1" in message
    assert (requests, served) == ([], [])


def test_kept_key_is_read_anew_with_every_try(play, monkeypatch):
    """It may have been replaced because the origin refused it."""
    monkeypatch.setattr(module, "REFRESH_S", 0.01)
    keys = iter(["sk-1", "sk-2", "sk-3"])

    async def test(world):
        origin = await world.origin("a")
        origin.status = b"401 Unauthorized"
        adding = asyncio.create_task(
            world.fleet.add_patiently(ModelSettings(target=origin.address), read_key=lambda: next(keys))
        )
        while len(origin.requests) < 2:
            await asyncio.sleep(0.001)
        origin.status = b"200 OK"
        await adding
        return [authorization(request) for request in origin.requests]

    assert play(test) == [f"authorization: bearer sk-{number}" for number in (1, 2, 3)]


def test_new_key_is_tried_on_its_own_origin_first(play):
    async def test(world):
        origin = await world.origin("a")
        await world.fleet.add(ModelSettings(target=origin.address), read_key=lambda: "sk-old")
        origin.status = b"403 Forbidden"
        with pytest.raises(TargetError) as caught:
            await world.fleet.check_key(origin.address, "sk-new")
        headers = dict(world.catalog.find("a").backend.headers)
        return str(caught.value), authorization(origin.requests[-1]), headers

    message, sent, headers = play(test)

    assert "refuses the key that it was sent (403). Nothing was changed." in message
    assert "sk-new" not in message
    assert sent == "authorization: bearer sk-new"
    assert headers == {"authorization": "Bearer sk-old"}


def test_origin_that_is_away_says_nothing_about_a_key(play):
    async def test(world):
        await world.fleet.check_key("http://127.0.0.1:1/v1", "sk-new")
        return True

    assert play(test)


def test_used_key_is_sent_from_now_on_and_so_is_none(play):
    async def test(world):
        origin = await world.origin("a")
        await world.fleet.add(ModelSettings(target=origin.address), read_key=lambda: "sk-old")
        world.fleet.use_key(origin.address, "sk-new")
        await world.fleet.refresh()
        backend = world.fleet.use_key(origin.address, None)
        await world.fleet.refresh()
        sent = [authorization(request) for request in origin.requests]
        return sent, backend is world.catalog.find("a").backend, world.fleet.use_key("http://other", "x")

    sent, is_same, unknown = play(test)

    assert sent == ["authorization: bearer sk-old", "authorization: bearer sk-new", None]
    assert is_same
    assert unknown is None


# -- names


def test_every_backend_has_a_name_of_its_own(play):
    """Connections, prefix and key are kept by name: two backends of one name would share the first one's."""

    async def test(world):
        origin = await world.origin("a")
        await world.add(origin.address)
        origin.ids = ("b",)
        await world.add(origin.address.removesuffix("/v1"))
        origin.ids = ("c",)
        await world.add(f"{origin.address}/", name=world.fleet.served()[0].backend.name)
        return [served.backend.name for served in world.fleet.served()]

    names = play(test)

    assert len(set(names)) == 3


def test_backend_is_called_what_the_operator_calls_it(play):
    async def test(world):
        origin = await world.origin("a")
        await world.add(origin.address, name="gpu-box")
        return world.catalog.find("a").backend.name

    assert play(test) == "gpu-box"


def test_operator_chooses_which_models_are_offered_and_what_they_are_called(play):
    async def test(world):
        origin = await world.origin("a", "b", "c")
        await world.add(
            origin.address,
            only=("a", "b"),
            rename={"a": "acme/a"},
            aliases={"gpt-4o": "acme/a", "gpt-3.5": "a", "x": "b", "y": "c"},
            task="completion",
        )
        return world.catalog

    catalog = play(test)

    a, b = catalog.models()
    assert (a.id, a.upstream_name, a.aliases) == ("acme/a", "a", ("gpt-4o", "gpt-3.5"))
    assert (b.id, b.upstream_name, b.aliases) == ("b", "b", ("x",))
    assert all((model.task, model.is_task_certain) == ("completion", True) for model in (a, b))
    assert catalog.find("c") is None


def test_model_that_another_backend_has_is_left_out_with_a_warning(play, caplog):
    async def test(world):
        first, second = await world.origin("a"), await world.origin("a", "b")
        await world.add(first.address, name="first")
        added = await world.add(second.address, name="second")
        return added, world.catalog.find("a").backend.name

    assert play(test) == (["b"], "first")
    assert "model a of second is left out" in caplog.text


# -- later


def test_refresh_follows_the_origins_list(play):
    async def test(world):
        origin = await world.origin("a", "b")
        await world.add(origin.address, rename={"c": "acme/c"})
        origin.ids = ("b", "c")
        await world.fleet.refresh()
        return world.ids

    assert play(test) == ["b", "acme/c"]


def test_refresh_without_a_change_leaves_the_catalog_as_it_is(play):
    async def test(world):
        origin = await world.origin("a")
        await world.add(origin.address)
        before = world.catalog.version
        await world.fleet.refresh()
        return world.catalog.version - before

    assert play(test) == 0


def test_origin_that_is_away_for_a_while_keeps_its_models(play, caplog):
    async def test(world):
        away, there = await world.origin("a"), await world.origin("b")
        await world.add(away.address, name="away")
        await world.add(there.address)
        away.status, there.ids = b"503 Away", ("b", "c")
        await world.fleet.refresh()
        return world.ids

    assert play(test) == ["a", "b", "c"]
    assert "backend away" in caplog.text


def test_every_look_at_an_origin_says_whether_it_is_there(play):
    """One that answers something else than a list is there: it may well answer calls."""

    async def test(world):
        away = "http://127.0.0.1:1/v1"
        origin = await world.origin("a")
        await world.add(origin.address, name="gpu-1")
        backend = world.fleet.served()[0].backend
        await world.fleet.refresh({"gpu-1"})
        origin.status = b"500 Busy"
        await world.fleet.refresh({"gpu-1", away})
        port, backend.port = backend.port, 1
        await world.fleet.refresh({"gpu-1"})
        await world.fleet.refresh({"another"})
        backend.port = port
        return world.health

    (there, answers, away) = play(test)

    assert there == answers == ("gpu-1", None)
    assert away[0] == "gpu-1"
    assert "Nothing answers at http://127.0.0.1:1" in away[1]


def test_removed_target_takes_its_models_along(play):
    async def test(world):
        origin = await world.origin("a")
        await world.add(origin.address)
        backend = world.catalog.find("a").backend
        await world.fleet.remove(origin.address)
        return world.ids, world.fleet.served(), world.removed == [backend]

    assert play(test) == ([], [], True)


def test_removing_what_is_not_served_is_a_key_error(play):
    async def test(world):
        with pytest.raises(KeyError):
            await world.fleet.remove("http://127.0.0.1:1/v1")

    play(test)


def test_kept_target_is_tried_until_it_is_there(play, monkeypatch, caplog):
    monkeypatch.setattr(module, "REFRESH_S", 0.01)

    async def test(world):
        origin = await world.origin("a")
        origin.status = b"503 Starting"
        adding = asyncio.create_task(world.fleet.add_patiently(ModelSettings(target=origin.address)))
        while len(origin.requests) < 3:
            await asyncio.sleep(0.005)
        origin.status = b"200 OK"
        await adding
        return world.ids

    assert play(test) == ["a"]
    assert "Trying again" in caplog.text


def test_fleet_is_loading_until_the_last_target_is_there_or_has_failed(play):
    async def test(world):
        origin = await world.origin("a")
        adding = asyncio.create_task(world.fleet.add(ModelSettings(target=origin.address)))
        await asyncio.sleep(0)
        loading = world.fleet.is_loading
        await adding
        return loading, world.fleet.is_loading

    assert play(test) == (True, False)


# -- prices, limits and tokenizers


def test_models_carry_what_the_operator_says_of_all_and_of_single_ones(play):
    """By the target's name for a model or by ours; what is said of one goes before what is said of all."""

    async def test(world):
        origin = await world.origin("a", "b")
        await world.add(
            origin.address,
            rename={"b": "acme/b"},
            price={"input": "1"},
            prices={"b": {"input": "2", "currency": "CNY"}},
            limits=("5/day",),
            model_limits={"acme/b": ("7/day",)},
            user_limits=("1/day",),
            model_user_limits={"a": ()},
            default_max_tokens=99,
        )
        return world.catalog

    catalog = play(test)
    a, b = catalog.find("a"), catalog.find("acme/b")

    assert (a.price.as_written()["input"], a.limits, a.user_limits) == ("1", ("5/day",), ())
    assert (b.price.as_written()["input"], b.price.currency) == ("2", "CNY")
    assert (b.limits, b.user_limits) == (("7/day",), ("1/day",))
    assert (a.default_max_tokens, b.default_max_tokens, a.tokenizer) == (99, 99, None)

    limits = CatalogLimits(catalog)
    assert limits.find("acme/b") == (("7/day",), ("1/day",))
    assert limits.find("unknown") == ((), ())
    assert limits.model_ids() == ["a", "acme/b"]


def test_tokenizers_are_read_when_a_target_is_added(play):
    read = []

    async def test(world):
        world.fleet._load_tokenizer = lambda path: read.append(path) or f"tokenizer {path.name}"
        origin = await world.origin("a", "b")
        await world.add(origin.address, tokenizer="/t/all.json", tokenizers={"b": "/t/b.json"})
        return [model.tokenizer for model in world.catalog.models()]

    assert play(test) == ["tokenizer all.json", "tokenizer b.json"]
    assert len(read) == 2


def test_tokenizer_that_cannot_be_read_is_said_when_the_target_is_added(play, tmp_path):
    async def test(world):
        origin = await world.origin("a")
        return await world.refusal(origin.address, tokenizer=str(tmp_path / "none.json")), world.ids

    message, ids = play(test)

    assert "none.json" in message
    assert ids == []


@pytest.mark.parametrize("key", ["only", "prices", "model_limits", "model_user_limits", "tokenizers"])
def test_name_without_a_model_is_warned_of(play, caplog, key):
    async def test(world):
        world.fleet._load_tokenizer = str
        origin = await world.origin("qwen3")
        said = ("qwen4",) if key == "only" else {"qwen4": {} if key == "prices" else "x"}
        await world.add(origin.address, **{key: said})

    play(test)

    assert f"`{key}` names no model: qwen4." in caplog.text
