"""Step 3: which model, on which backend, and may this principal call it?"""

import pytest
from gateway_fakes import FakeBackend, FakeFront, model, principal

CHAT = b"/v1/chat/completions"


def ask(stage, name="acme/chat", path=CHAT, **fields):
    """The front of a call for this model, after its steps."""
    front = FakeFront()
    payload = {
        "messages": [{"role": "user", "content": "hi"}],
        "input": "hi",
        "prompt": "hi",
        "input_data": "hi",
    }
    stage.call(path, {"model": name, **payload, **fields}, front=front)
    return front


def test_model_is_called_at_its_backend(stage):
    stage.serve(model())

    ask(stage)

    path, body = stage.sent
    assert path == b"/chat/completions"
    assert body["model"] == "acme/chat"


def test_model_is_called_by_the_name_its_backend_knows(stage):
    stage.serve(model("ours", upstream_name="theirs", aliases=("gpt-4o",)))

    ask(stage, "gpt-4o")

    assert stage.sent[1]["model"] == "theirs"


@pytest.mark.parametrize(
    ("wrong", "near"), [("acme/chatt", "`acme/chat`"), ("CHAT", "`acme/chat`"), ("zzzz", "")]
)
def test_unknown_model_is_answered_with_the_nearest(stage, error_of, wrong, near):
    stage.serve(model())

    error = error_of(ask(stage, wrong))

    assert (error["code"], error["param"]) == ("model_not_found", "model")
    assert f"`{wrong}`" in error["message"]
    assert near in error["message"]
    assert "Did you mean" in error["message"] or not near


def test_models_that_the_key_may_not_call_are_not_suggested(stage, error_of):
    stage.allow(principal(models=("public/*",)))
    stage.serve(model("secret/chat"), model("public/other"))

    assert "secret/chat" not in error_of(ask(stage, "secre/chat"))["message"]


@pytest.mark.parametrize("missing", [None, ""])
def test_no_model_named_means_the_first_that_fits(stage, missing):
    stage.serve(model("embed", "embedding"), model("first"), model("second"))

    ask(stage, missing)

    assert stage.sent[1]["model"] == "first"


def test_no_model_named_and_none_fits(stage, error_of):
    stage.serve(model("embed", "embedding"))

    assert error_of(ask(stage, None))["code"] == "model_not_found"


def test_key_may_call_only_its_models(stage, error_of):
    stage.allow(principal(models=("acme/*",)))
    stage.serve(model(), model("other/chat"))

    allowed, refused = ask(stage, "acme/chat"), ask(stage, "other/chat")

    assert allowed.sent == b""
    assert (error_of(refused)["code"], refused.head["status"]) == ("model_not_allowed", "403 Forbidden")


def test_model_that_was_allowed_once_is_not_remembered_beyond_a_change(stage, error_of):
    """What is kept per key belongs to one version of the catalog."""
    stage.serve(model())
    ask(stage)

    stage.serve(model("acme/other", backend=FakeBackend()))
    stage.gateway.catalog.remove(
        next(m.backend for m in stage.gateway.catalog.models() if m.id == "acme/chat")
    )

    assert error_of(ask(stage))["code"] == "model_not_found"


@pytest.mark.parametrize(
    ("task", "path", "better"),
    [
        ("embedding", CHAT, "/v1/embeddings"),
        ("chat", b"/v1/embeddings", "/v1/chat/completions"),
        ("generic", CHAT, "/api/v1/models/m/inference"),
        ("embedding", b"/api/v1/generate", "/v1/embeddings"),
    ],
)
def test_wrong_endpoint_is_answered_with_the_right_one(stage, error_of, task, path, better):
    stage.serve(model("m", task))

    error = error_of(ask(stage, "m", path))

    assert error["code"] == "unsupported_task"
    assert better in error["message"]


def test_task_that_was_only_guessed_refuses_nobody(stage):
    stage.serve(model("m", "embedding", is_task_certain=False))

    ask(stage, "m")

    assert stage.sent[1]["model"] == "m"


@pytest.mark.parametrize("path", [CHAT, b"/v1/completions"])
@pytest.mark.parametrize("task", ["chat", "completion"])
def test_models_that_generate_answer_both_endpoints(stage, task, path):
    stage.serve(model("m", task))

    ask(stage, "m", path)

    assert stage.sent[0] == path.removeprefix(b"/v1")


@pytest.mark.parametrize(
    ("state", "code"),
    [("loading", "model_loading"), ("restarting", "backend_unavailable"), ("stopped", "backend_unavailable")],
)
def test_backend_that_is_not_ready_is_told_with_when_to_try_again(stage, error_of, state, code):
    stage.serve(model("m", backend=FakeBackend(state=state)))

    front = ask(stage, "m")

    assert (error_of(front)["code"], front.head["retry-after"]) == (code, "2")
    assert stage.limiter.held == 0


@pytest.mark.parametrize("name", ["late/model", None])
def test_while_models_load_a_missing_one_may_still_come(stage, error_of, name):
    stage.is_loading = True

    front = ask(stage, name)

    assert (error_of(front)["code"], front.head["retry-after"]) == ("model_loading", "1")


def test_model_in_the_path_wins(stage):
    stage.serve(model("acme/a", "generic", backend=FakeBackend(kind="worker")), model("acme/b", "generic"))

    ask(stage, "acme/b", b"/api/v1/models/acme%2Fa/inference")

    assert stage.sent[1]["model"] == "acme/a"


def test_model_with_a_very_long_name_is_not_repeated_in_full(stage, error_of):
    assert len(error_of(ask(stage, "x" * 100_000))["message"]) < 1000


def test_name_of_a_model_cannot_forge_a_header_or_break_the_answer(stage, error_of):
    assert error_of(ask(stage, 'a"\r\nx-evil: 1\u2028'))["code"] == "model_not_found"
