"""The catalog in memory: ids, aliases, defaults, and what happens when backends come and go."""

import pytest

from lingpai.catalog.interfaces import Model
from lingpai.catalog.service import Catalog


class Backend:
    """Told apart by identity, as the catalog does."""

    def __init__(self, name="gpu-1"):
        self.name = name


GPU, CPU = Backend("gpu-1"), Backend("cpu-1")


def model(id_, task="chat", *, backend=GPU, aliases=()):
    return Model(id=id_, task=task, backend=backend, upstream_name=id_, aliases=aliases)


def ids(catalog):
    return [each.id for each in catalog.models()]


@pytest.fixture
def catalog():
    return Catalog()


def test_model_is_found_by_id_and_by_alias(catalog):
    one = model("acme/a", aliases=("a", "gpt-4o"))
    catalog.replace(GPU, [one])

    assert [catalog.find(name) for name in ("acme/a", "a", "gpt-4o", "b", "")] == [one, one, one, None, None]


def test_id_wins_over_somebody_elses_alias_whoever_came_first(catalog):
    """Else a backend could take over the calls of another one's model."""
    real, thief = model("gpt-4o"), model("x", backend=CPU, aliases=("gpt-4o",))

    catalog.replace(CPU, [thief])
    catalog.replace(GPU, [real])

    assert catalog.find("gpt-4o") is real


def test_of_two_equal_aliases_the_first_stays(catalog):
    first, second = model("a", aliases=("x",)), model("b", backend=CPU, aliases=("x",))

    catalog.replace(GPU, [first])
    catalog.replace(CPU, [second])

    assert catalog.find("x") is first


def test_id_that_another_backend_has_is_left_out_and_told(catalog):
    first = model("a")
    catalog.replace(GPU, [first])

    left_out = catalog.replace(CPU, [model("a", backend=CPU), model("b", backend=CPU)])

    assert [each.id for each in left_out] == ["a"]
    assert catalog.find("a") is first
    assert ids(catalog) == ["a", "b"]


def test_id_that_a_backend_lists_twice_is_there_once(catalog):
    assert len(catalog.replace(GPU, [model("a"), model("a")])) == 1
    assert ids(catalog) == ["a"]


def test_replacing_a_backends_models_leaves_those_of_others(catalog):
    catalog.replace(GPU, [model("a", aliases=("x",)), model("b")])
    catalog.replace(CPU, [model("c", backend=CPU)])

    catalog.replace(GPU, [model("d")])

    assert set(ids(catalog)) == {"c", "d"}
    assert catalog.find("x") is None


def test_removed_backend_takes_its_models_along_and_frees_their_ids(catalog):
    catalog.replace(GPU, [model("a")])
    catalog.remove(GPU)

    assert catalog.replace(CPU, [model("a", backend=CPU)]) == []
    assert catalog.find("a").backend is CPU


def test_models_come_in_the_order_of_their_backends_whichever_was_ready_first(catalog):
    catalog.replace(CPU, [model("c", backend=CPU)], order=[GPU, CPU])
    catalog.replace(GPU, [model("b"), model("a")], order=[GPU, CPU])

    assert ids(catalog) == ["b", "a", "c"]


def test_of_two_backends_with_the_same_id_the_first_in_order_has_it_whichever_was_ready_first(catalog):
    catalog.replace(CPU, [model("a", backend=CPU)], order=[GPU, CPU])

    left_out = catalog.replace(GPU, [model("a")], order=[GPU, CPU])

    assert [out.backend for out in left_out] == [CPU]
    assert catalog.find("a").backend is GPU


def test_order_outlives_a_backend_that_goes(catalog):
    """Else calls of a model move to another backend when a third one is removed."""
    third = Backend("third")
    order = [GPU, CPU, third]
    catalog.replace(CPU, [model("a", backend=CPU), model("c", backend=CPU)], order=order)
    catalog.replace(third, [model("x", backend=third)], order=order)
    catalog.replace(GPU, [model("a"), model("b")], order=order)

    catalog.remove(third)

    assert catalog.find("a").backend is GPU
    assert ids(catalog) == ["a", "b", "c"]


def test_model_that_was_left_out_takes_its_place_when_the_id_is_free(catalog):
    catalog.replace(GPU, [model("a")])
    catalog.replace(CPU, [model("a", backend=CPU)])

    catalog.remove(GPU)

    assert catalog.find("a").backend is CPU


def test_every_change_has_its_version(catalog):
    versions = [catalog.version]
    for models in ([model("a")], [], [model("b")]):
        catalog.replace(GPU, models)
        versions.append(catalog.version)

    assert len(set(versions)) == 4


# -- defaults


def test_first_model_of_a_fitting_task_is_the_default(catalog):
    catalog.replace(GPU, [model("e", "embedding"), model("c"), model("d")])

    assert catalog.default_for(frozenset({"chat", "completion"})).id == "c"
    assert catalog.default_for(frozenset({"embedding"})).id == "e"
    assert catalog.default_for(frozenset({"rerank"})) is None
    assert catalog.default_for(None).id == "e"


def test_configured_default_is_the_default_also_by_alias():
    catalog = Catalog(default_model="x")
    catalog.replace(GPU, [model("a"), model("b", aliases=("x",))])

    assert catalog.default_for(frozenset({"chat"})).id == "b"


def test_configured_default_that_is_not_there_is_not_replaced_by_another():
    catalog = Catalog(default_model="gone")
    catalog.replace(GPU, [model("a")])

    assert catalog.default_for(None) is None


# -- names


def test_nearest_names_can_be_limited_to_what_the_caller_may_see(catalog):
    catalog.replace(GPU, [model("acme/chat"), model("secret/chat")])

    assert "secret/chat" in catalog.nearest("chat2")
    assert catalog.nearest("chat2", among=["acme/chat"]) == " Did you mean `acme/chat`?"


@pytest.mark.parametrize(
    ("id_", "owner"), [("acme/shout", "acme"), ("hf.co/a/b", "hf.co"), ("qwen3:8b", "gpu-1")]
)
def test_owner_is_the_first_part_of_the_id_or_the_backend(id_, owner):
    assert model(id_).owner == owner
