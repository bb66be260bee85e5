"""Every operation of the OpenAPI document, and what it takes to call it: for tests that try all of them."""

import re
from typing import Any, Final

import httpx2

from tests.e2e.lingpai_server import LingpaiServer

CALLS: Final = re.compile(r"/v[12]/|/predict$|/api/v1/generate$|.*/inference$")
"""Model calls: they take any field, because engines have parameters of their own."""

Operation = tuple[str, str, dict[str, Any]]
"""Method, path and description."""


def client_with(server: LingpaiServer, key: str) -> httpx2.Client:
    """A client that sends this key with every request."""
    headers = {"authorization": f"Bearer {key}"}
    return httpx2.Client(base_url=server.base, headers=headers, trust_env=False, timeout=30)


def operations_of(document: dict[str, Any]) -> list[Operation]:
    return [
        (method.upper(), path, operation)
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    ]


def resolved(document: dict[str, Any], schema: dict[str, Any]) -> dict[str, Any]:
    while "$ref" in schema:
        schema = document["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
    return schema


def body_schema(document: dict[str, Any], operation: dict[str, Any]) -> dict[str, Any] | None:
    """Of the JSON body, with an example; None when there is none."""
    content = operation.get("requestBody", {}).get("content", {}).get("application/json")
    if content is None:
        return None
    schema = resolved(document, content["schema"])
    example = content.get("example") or (schema.get("examples") or [{}])[0]
    return {**schema, "example": example}


def filled(path: str) -> str:
    """The path with something in each place that names nothing."""
    return re.sub(r"\{.*?\}", "nothing", path.replace("{kind}", "pepper"))
