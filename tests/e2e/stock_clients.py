"""The libraries that callers use, as they are; only that the scan for secrets hears of prompts and of errors."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx2
import requests
from openai import AsyncOpenAI, OpenAI

from tests.e2e.raw_http import note_error
from tests.secrets_scan import SCAN


def openai_client(**options: Any) -> OpenAI:
    """The stock SDK."""
    client = OpenAI(**options)
    listen(client._client)
    return client


def async_openai_client(**options: Any) -> AsyncOpenAI:
    client = AsyncOpenAI(**options)
    hooks = client._client.event_hooks
    hooks["request"].append(_note_prompts_async)
    hooks["response"].append(_note_error_async)
    return client


@contextmanager
def requests_session() -> Iterator[requests.Session]:
    """`post` and `get` as the module `requests` has them."""
    with requests.Session() as session:
        session.hooks["response"].append(_note_exchange)
        yield session


def httpx2_post(url: str, **options: Any) -> httpx2.Response:
    """`httpx2.post`."""
    with listen(httpx2.Client()) as client:
        return client.post(url, **options)


def listen(client: httpx2.Client) -> httpx2.Client:
    """The same client, with the scan listening."""
    client.event_hooks["request"].append(_note_prompts)
    client.event_hooks["response"].append(_note_error)
    return client


def _note_prompts(request: httpx2.Request) -> None:
    SCAN.secrets.add_prompts(request.read())


def _note_error(response: httpx2.Response) -> None:
    if response.status_code >= 400:
        note_error(response.status_code, dict(response.headers), response.read())


async def _note_prompts_async(request: httpx2.Request) -> None:
    SCAN.secrets.add_prompts(await request.aread())


async def _note_error_async(response: httpx2.Response) -> None:
    if response.status_code >= 400:
        note_error(response.status_code, dict(response.headers), await response.aread())


def _note_exchange(response: requests.Response, **_: Any) -> None:
    body = response.request.body or b""
    SCAN.secrets.add_prompts(body.encode() if isinstance(body, str) else body)
    if response.status_code >= 400:
        note_error(response.status_code, dict(response.headers), response.content)
