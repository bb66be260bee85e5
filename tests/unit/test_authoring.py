import functools

import pytest

from lingpai.authoring import (
    Batch,
    Context,
    InputError,
    Message,
    Usage,
    canonical_task,
    default_device,
    definition_of,
    model,
)


def test_decorating_leaves_the_function_as_it_was():
    @model("acme/double")
    def double(x):
        """Twice as much.

        More words.
        """
        return 2 * x

    definition = definition_of(double)

    assert double(2) == 4
    assert (definition.id, definition.task, definition.concurrency) == ("acme/double", "generic", None)
    assert definition.description == "Twice as much."


def test_a_subclass_of_a_model_is_not_a_model():
    @model("acme/base")
    class Base:
        def __call__(self, x): ...

    class Derived(Base): ...

    assert definition_of(Base).id == "acme/base"
    assert definition_of(Derived) is None


def test_a_wrapper_of_a_model_is_what_gets_called():
    @model("acme/inner")
    def inner(x): ...

    @functools.wraps(inner)
    def wrapper(x): ...

    assert definition_of(wrapper).served is wrapper


@pytest.mark.parametrize("wrong", ["shout", "acme/", "/shout", "a/b/c", "acme/sh out", "acme/\n", ""])
def test_ids_must_be_owner_and_name(wrong):
    with pytest.raises(ValueError, match="owner/name"):
        model(wrong)


def test_a_forgotten_id_is_explained():
    with pytest.raises(TypeError, match="the id is missing"):

        @model
        def f(x): ...


def test_aliases_must_be_a_list_of_names():
    with pytest.raises(TypeError, match=r"aliases=\['gpt'\]"):
        model("a/b", aliases="gpt")
    with pytest.raises(ValueError, match="not an alias"):
        model("a/b", aliases=["g p t"])


def test_an_object_is_a_model_once():
    @model("a/b")
    def f(x): ...

    with pytest.raises(TypeError, match="aliases="):
        model("a/c")(f)


@pytest.mark.parametrize(
    ("bounds", "message"),
    [
        ({"concurrency": 0}, "concurrency must be at least 1"),
        ({"max_queue": -1}, "max_queue must be at least 0"),
        ({"memory_mb": 0}, "memory_mb must be at least 1"),
        ({"replicas": 0}, "replicas must be at least 1"),
        ({"replicas": 65}, "replicas must be at most 64"),
        ({"timeout_s": 0}, "timeout_s must be more than 0"),
        ({"timeout_s": float("nan")}, "timeout_s must be more than 0"),
    ],
)
def test_bounds_that_make_no_sense_are_refused(bounds, message):
    with pytest.raises(ValueError, match=message):
        model("a/b", **bounds)


@pytest.mark.parametrize("bounds", [{"concurrency": 1.5}, {"replicas": True}, {"max_queue": "9"}])
def test_counts_are_whole_numbers(bounds):
    with pytest.raises(TypeError, match="must be a whole number"):
        model("a/b", **bounds)


@pytest.mark.parametrize(
    ("given", "batch"), [(None, None), (False, None), (True, Batch()), (Batch(max_size=8), Batch(max_size=8))]
)
def test_batches_are_asked_for_with_true_or_in_detail(given, batch):
    @model("a/b", batch=given)
    def f(x): ...

    assert definition_of(f).batch == batch


def test_what_is_no_batch_is_explained():
    with pytest.raises(TypeError, match=r"lp\.Batch\(max_size=…, max_wait_ms=…\) or True"):
        model("a/b", batch=64)
    with pytest.raises(ValueError, match="max_size"):
        Batch(max_size=0)
    with pytest.raises(ValueError, match="max_wait_ms"):
        Batch(max_wait_ms=-1)


class Whole:
    """As NumPy's integers are."""

    def __index__(self):
        return 7


def test_usage_counts_in_whole_numbers():
    usage = Usage(prompt_tokens=Whole(), cached_tokens=2)

    assert usage == Usage(prompt_tokens=7, cached_tokens=2)
    assert type(usage.prompt_tokens) is int
    assert usage + Usage(completion_tokens=3, reasoning_tokens=1) == Usage(
        prompt_tokens=7, completion_tokens=3, cached_tokens=2, reasoning_tokens=1
    )


@pytest.mark.parametrize(
    "wrong", [{"prompt_tokens": -1}, {"cached_tokens": 1}, {"completion_tokens": 1, "reasoning_tokens": 2}]
)
def test_usage_that_cannot_be_is_refused(wrong):
    with pytest.raises(ValueError, match="tokens"):
        Usage(**wrong)


def test_usage_in_fractions_is_refused():
    with pytest.raises(TypeError):
        Usage(prompt_tokens=1.5)


@pytest.mark.parametrize(
    ("spelling", "task"),
    [
        ("chat", "chat"),
        ("feature-extraction", "embedding"),
        ("sentence-embedding", "embedding"),
        ("sentiment-classification", "text-classification"),
        ("auto-speech-recognition", "automatic-speech-recognition"),
        ("text2text-generation", "completion"),
    ],
)
def test_both_hubs_spellings_of_a_task_are_known(spelling, task):
    assert canonical_task(spelling) == task


def test_an_unknown_task_names_the_nearest():
    with pytest.raises(ValueError, match="Did you mean `chat`"):
        canonical_task("chatt")


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ("hi", "hi"),
        (None, ""),
        (
            [
                {"type": "text", "text": "a"},
                {"type": "image_url", "image_url": "x"},
                {"type": "text", "text": "b"},
            ],
            "ab",
        ),
    ],
)
def test_a_messages_text_is_its_content_or_its_text_parts(content, text):
    assert Message(role="user", content=content).text == text


def test_an_input_error_names_the_field():
    error = InputError("too long", param="input")

    assert (str(error), error.param) == ("too long", "input")


def test_a_models_cache_directory_is_made_when_asked_for(tmp_path):
    context = Context(model_id="acme/x", device="cpu", logger=None, cache_root=tmp_path / "cache")

    assert not (tmp_path / "cache").exists()
    assert context.cache_dir.is_dir()


def test_the_device_can_be_chosen(monkeypatch):
    monkeypatch.setenv("LINGPAI_DEVICE", "cuda:1")

    assert default_device() == "cuda:1"
