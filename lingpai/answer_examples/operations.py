"""Examples of answers whose schema has no name: model calls, OAuth, models, health."""

from typing import Any, Final

from lingpai.answer_examples.story import ENDS, MADE, Fields
from lingpai.identity.scopes import ALL_SCOPES

_HERE: Final = "https://models.example"
_MODEL_PAGE: Final[Fields] = {
    "id": "lingpai/sentiment",
    "task": "text-classification",
    "is_task_certain": True,
    "description": "Demonstration: sentiment of Chinese and English text, by a small lexicon",
    "aliases": [],
    "status": "ready",
    "backends": [{"name": "demonstration", "kind": "worker", "state": "ready"}],
    "parameters": {"type": "object", "properties": {}, "additionalProperties": False},
    "input": {"type": "string"},
    "output": {"type": "array", "items": {"type": "object"}},
    "price": None,
    "limits": [],
    "user_limits": [],
    "default_max_tokens": None,
    "has_tokenizer": False,
}
_OPENAI_MODEL: Final[Fields] = {
    "id": "lingpai/eliza",
    "object": "model",
    "created": 1795161600,
    "owned_by": "lingpai",
    "task": "chat",
}
_USAGE: Final[Fields] = {
    "prompt_tokens": 4,
    "completion_tokens": 11,
    "total_tokens": 15,
    "estimated": True,
}
_TEXT: Final = "How do you do. What is on your mind?"
_SCOPES: Final = sorted(ALL_SCOPES)
_AUTHORIZATION_SERVER: Final[Fields] = {
    "issuer": _HERE,
    "token_endpoint": f"{_HERE}/oauth/token",
    "jwks_uri": f"{_HERE}/.well-known/jwks.json",
    "token_endpoint_auth_methods_supported": ["client_secret_basic", "client_secret_post", "none"],
    "grant_types_supported": ["client_credentials", "password", "refresh_token"],
    "response_types_supported": [],
    "scopes_supported": _SCOPES,
    "revocation_endpoint": f"{_HERE}/oauth/revoke",
    "revocation_endpoint_auth_methods_supported": ["client_secret_basic", "client_secret_post", "none"],
    "introspection_endpoint": f"{_HERE}/oauth/introspect",
    "introspection_endpoint_auth_methods_supported": ["client_secret_basic", "client_secret_post"],
}
_KEY_SET: Final[Fields] = {
    "keys": [
        {
            "kty": "OKP",
            "crv": "Ed25519",
            "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo",  # the public key of RFC 8037, A.1
            "kid": "tsk_4fKx0aZ1bC2d",
            "use": "sig",
            "alg": "EdDSA",
        }
    ]
}
_RERANKED: Final[Fields] = {
    "id": "rerank-916bbe5fb77541409a8e1b6c48089e88",
    "model": "acme/reranker",
    "results": [{"index": 1, "relevance_score": 0.87}],
    "usage": {"prompt_tokens": 6, "completion_tokens": 0, "total_tokens": 6, "estimated": True},
}
_PROTECTED_RESOURCE: Final[Fields] = {
    "resource": _HERE,
    "authorization_servers": [_HERE],
    "scopes_supported": _SCOPES,
    "bearer_methods_supported": ["header"],
    "resource_name": "Lingpai",
}
_TOKENS: Final[Fields] = {
    "access_token": "at-lp-…",
    "token_type": "Bearer",
    "expires_in": 3600,
    "scope": "model:inference",
}
OF_OPERATION: Final[dict[str, Any]] = {
    "POST /api/v1/token": _TOKENS,
    "POST /oauth/token": _TOKENS,
    "POST /oauth/introspect": {
        "active": True,
        "scope": "model:inference",
        "username": "alice",
        "sub": "usr_HqrETuYJTL4t",
        "iss": _HERE,
        "iat": 1795161600,
        "exp": 1795165200,
        "jti": "ktsN9vlpWdky",
        "client_id": "cl-lp-4fKx0aZ1bC2d",
        "token_type": "Bearer",
    },
    "GET /.well-known/jwks.json": _KEY_SET,
    "GET /.well-known/oauth-authorization-server": _AUTHORIZATION_SERVER,
    "GET /.well-known/oauth-authorization-server/{path}": _AUTHORIZATION_SERVER,
    "GET /.well-known/oauth-protected-resource": _PROTECTED_RESOURCE,
    "GET /.well-known/oauth-protected-resource/{path}": _PROTECTED_RESOURCE,
    "GET /healthz": {"status": "ok", "server": "lingpai"},
    "GET /readyz": {"status": "ready"},
    "GET /v1/models": {"object": "list", "data": [_OPENAI_MODEL]},
    "GET /v1/models/{id}": _OPENAI_MODEL,
    "POST /v1/chat/completions": {
        "id": "chatcmpl-92d1a9fa76664a7685f622d0af8441fb",
        "object": "chat.completion",
        "created": 1795161600,
        "model": "lingpai/eliza",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": _TEXT},
                "logprobs": None,
                "finish_reason": "stop",
            }
        ],
        "usage": _USAGE,
    },
    "POST /v1/completions": {
        "id": "cmpl-09cbf2fcef20433783dce18d982d99c9",
        "object": "text_completion",
        "created": 1795161600,
        "model": "lingpai/eliza",
        "choices": [{"index": 0, "text": _TEXT, "logprobs": None, "finish_reason": "stop"}],
        "usage": _USAGE,
    },
    "POST /v1/embeddings": {
        "object": "list",
        "data": [{"object": "embedding", "index": 0, "embedding": [0.0, 0.19, -0.19]}],
        "model": "lingpai/hashing-embedding",
        "usage": {"prompt_tokens": 3, "completion_tokens": 0, "total_tokens": 3, "estimated": True},
    },
    "POST /v1/rerank": _RERANKED,
    "POST /v2/rerank": _RERANKED,
    "POST /v1/audio/transcriptions": {"text": "Hello", "usage": {"type": "duration", "seconds": 1.5}},
    "POST /v1/images/generations": {"created": 1795161600, "data": [{"b64_json": "iVBORw0KGgo="}]},
    "POST /predict": _TEXT,
    "POST /api/v1/generate": {"results": [{"text": _TEXT}], "model": "lingpai/eliza", "usage": _USAGE},
    "POST /api/v1/models/{model}/inference": {
        "request_id": "req_6b0ed03bf3b4d4cdefdd0000002f",
        "model": "lingpai/sentiment",
        "task": "text-classification",
        "output": [{"label": "positive", "score": 0.625}],
        "usage": {"prompt_tokens": 3, "completion_tokens": 0, "total_tokens": 3, "estimated": True},
    },
    "GET /v1/key": {
        "object": "key",
        "id": "7Zk2mWq0PfXa",
        "name": "laptop",
        "user": "alice",
        "scopes": ["model:inference"],
        "models": [],
        "allowed_ips": [],
        "expires_at": ENDS,
        "created_at": MADE,
        "limits": [],
    },
    "GET /api/v1/key": {
        "data": {
            "label": "laptop",
            "limit": 2000,
            "limit_remaining": 1880,
            "limit_reset": "daily",
            "usage": 120,
            "expires_at": ENDS,
            "is_free_tier": False,
        }
    },
    "GET /api/usage/token": {
        "code": True,
        "message": "ok",
        "data": {
            "object": "token_usage",
            "name": "laptop",
            "total_granted": 2000,
            "total_used": 120,
            "total_available": 1880,
            "unlimited_quota": False,
            "model_limits": {},
            "model_limits_enabled": False,
            "expires_at": 0,
        },
    },
    "GET /api/v1/models": {"data": [_MODEL_PAGE]},
    "POST /api/v1/models": {"data": [_MODEL_PAGE]},
    "GET /api/v1/models/{id}": _MODEL_PAGE,
    "POST /api/v1/models/check": {
        "model": "lingpai/eliza",
        "ok": True,
        "steps": [
            {"name": "backend", "ok": True, "ms": 0, "detail": "demonstration: ready"},
            {"name": "call", "ok": True, "ms": 1, "detail": "answered"},
        ],
    },
}
"""By method and path, where the answer has no schema with a name."""
