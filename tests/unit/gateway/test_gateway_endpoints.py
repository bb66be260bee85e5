"""Addresses as people paste them, and what each endpoint makes of a request and an answer."""

import pytest

from lingpai.gateway.endpoints import (
    CHAT,
    COMPLETIONS,
    EMBEDDINGS,
    ENDPOINTS,
    GENERATE,
    IMAGES,
    INFERENCE,
    PREDICT,
    RERANK,
    SPEECH,
    TRANSCRIPTIONS,
    find_endpoint,
)


@pytest.mark.parametrize(
    "endpoint",
    [CHAT, COMPLETIONS, EMBEDDINGS, RERANK, TRANSCRIPTIONS, SPEECH, IMAGES],
    ids=lambda endpoint: endpoint.name,
)
@pytest.mark.parametrize(
    "form",
    ["/v1{}", "/v1{}/", "{}", "/v1/v1{}", "/v1/v1/v1{}", "//v1{}", "/v1/{}", "/v1{}?a=b", "/v1{}/?a=b&c",
     "http://models.example/v1{}", "https://h:8741/v1{}?x=1", "http://h{}"],
)  # fmt: skip
def test_openais_addresses_are_found_in_every_form_they_are_pasted(endpoint, form):
    path = endpoint.path.removeprefix("/v1")

    assert find_endpoint(form.format(path).encode()) == (endpoint, None)


@pytest.mark.parametrize(
    ("url", "endpoint"),
    [
        (b"/predict", PREDICT),
        (b"/predict/", PREDICT),
        (b"/predict?x", PREDICT),
        (b"/api/v1/generate", GENERATE),
        (b"/v2/rerank", RERANK),
        (b"/v2/rerank/?x", RERANK),
    ],
)
def test_plain_calls_are_found(url, endpoint):
    assert find_endpoint(url) == (endpoint, None)


@pytest.mark.parametrize(
    ("written", "model"),
    [
        (b"acme/shout", "acme/shout"),
        (b"shout", "shout"),
        (b"acme%2Fshout", "acme/shout"),
        (b"acme%2fshout", "acme/shout"),
        (b"qwen3:8b", "qwen3:8b"),
        (b"qwen3%3A8b", "qwen3:8b"),
        (b"hf.co/a/b-GGUF:Q6_K", "hf.co/a/b-GGUF:Q6_K"),
        (b"%E6%A8%A1%E5%9E%8B", "模型"),
        (b"a%20b", "a b"),
        (b"inference", "inference"),
        (b"a/inference", "a/inference"),
        (b"a%2525b", "a%25b"),
    ],
)
def test_model_in_the_path_is_decoded_once(written, model):
    url = b"/api/v1/models/" + written + b"/inference"

    assert find_endpoint(url) == (INFERENCE, model)
    assert find_endpoint(url + b"/?x=1") == (INFERENCE, model)


@pytest.mark.parametrize(
    "url",
    [
        b"/",
        b"",
        b"*",
        b"/v1",
        b"/v1/models",
        b"/v1/chat",
        b"/v1/chat/completions/x",
        b"/v1/chat/completionsx",
        b"/v1x/chat/completions",
        b"/v2/chat/completions",
        b"/x/v1/chat/completions",
        b"/V1/Chat/Completions",
        b"/v1/chat/completions;x",
        b"/v1/../v1/chat/completions",
        b"/api/v1/models/inference",
        b"/api/v1/models//inference",
        b"/api/v1/models/a/inferences",
        b"/api/v1/models/check",
        b"/api/v1/generate/x",
        b"http://",
        b"\xff\xfe",
        b"/v1/chat/completions\xff",
        b"h:80",
        b"?/v1/chat/completions",
        b"#/v1/chat/completions",
    ],
)
def test_other_addresses_are_not_ours(url):
    assert find_endpoint(url) is None


@pytest.mark.parametrize("bytes_", [b"%", b"%zz", b"%ff", b"%00", b"\xff", b"%0d%0a"])
def test_odd_bytes_in_a_path_are_no_error(bytes_):
    """Whatever model is meant, it is looked for and not found."""
    found = find_endpoint(b"/api/v1/models/" + bytes_ + b"/inference")

    assert found is None or found[0] is INFERENCE


def test_names_and_addresses_are_unique():
    names, paths = ({getattr(each, key) for each in ENDPOINTS} for key in ("name", "path"))

    assert len(names) == len(paths) == len(ENDPOINTS)
