"""Addresses as people paste them mean what was meant, and model ids mean themselves."""

import pytest

from lingpai.web.paths import usual_path

CHAT, COMPLETIONS, EMBEDDINGS = "/v1/chat/completions", "/v1/completions", "/v1/embeddings"


@pytest.mark.parametrize(
    ("pasted", "meant"),
    [
        # slashes, `/v1` twice or not at all
        ("//v1//models/", "/v1/models"),
        ("/v1/v1/models", "/v1/models"),
        ("/v1/v1/v1/chat/completions/", CHAT),
        ("/models", "/v1/models"),
        ("/models/acme/x", "/v1/models/acme/x"),
        ("/key", "/v1/key"),
        # a whole endpoint as the base
        ("/v1/chat/completions/chat/completions", CHAT),
        ("/v1/chat/completions/v1/chat/completions", CHAT),
        ("/v1/chat/completions/chat/completions/chat/completions/", CHAT),
        ("/chat/completions/chat/completions", CHAT),
        ("/v1/v1/chat/completions//v1/v1/chat/completions", CHAT),
        ("/v1/completions/chat/completions", CHAT),
        ("/v1/chat/completions/completions", COMPLETIONS),
        ("/completions/completions", COMPLETIONS),
        ("/v1/chat/completions/embeddings", EMBEDDINGS),
        ("/v1/embeddings/embeddings", EMBEDDINGS),
        ("/v1/chat/completions/models", "/v1/models"),
        ("/chat/completions/v1/models", "/v1/models"),
        ("/chat/completions/v1/v1/models", "/v1/models"),
        ("/v1/embeddings/models/acme/x", "/v1/models/acme/x"),
        ("/v1/embeddings/models/acme/chat/completions", "/v1/models/acme/chat/completions"),
        ("/v1/chat/completions/key", "/v1/key"),
    ],
)
def test_pasted_address_is_the_one_that_is_meant(pasted, meant):
    assert usual_path(pasted) == meant
    assert usual_path(meant) == meant


@pytest.mark.parametrize(
    "path",
    [
        "/",
        CHAT,
        COMPLETIONS,
        EMBEDDINGS,
        "/chat/completions",
        "/predict",
        "/healthz",
        "/v1/models/acme/chat/completions",
        "/v1/models/chat/completions",
        "/v1/models/chat/completions/models",
        "/v1/models/acme/v1/embeddings/models",
        "/api/v1/generate",
        "/api/v1/models/acme/chat/completions",
        "/api/v1/models/acme/embeddings/inference",
        "/api/v1/chat/completions/models",
        "/v1/chat/completions/unknown",
        "/v1/chat/completions/models2",
        "/v1/chat/completionsmodels",
        "/v1/embeddings/v1",
        "/v1/audio/embeddings/models",
        "/v1/chat/completions/embeddings\n",
    ],
)
def test_other_addresses_mean_themselves(path):
    assert usual_path(path) == path
