"""The client for programs: `Client`, and the same for asyncio, `AsyncClient`."""

from collections.abc import AsyncIterator, Iterator, Mapping
from types import TracebackType
from typing import Any, Literal, Self, overload

import httpx2

from lingpai.client._address import is_local
from lingpai.client._calls import (
    CHAT_PATH,
    ChatPieces,
    Messages,
    Result,
    chat_body,
    chat_text,
    inference_path,
    json_of,
    result_of,
)
from lingpai.client._errors import error_from_transport
from lingpai.client._settings import read_settings
from lingpai.client._tls import verification

# Models think for minutes; connecting takes seconds or does not happen.
DEFAULT_TIMEOUT = httpx2.Timeout(600.0, connect=5.0)


class _Addressed:
    """What both clients know about their server."""

    def __init__(self, server: str | None, api_key: str | None) -> None:
        self._settings = read_settings(server, api_key)

    @property
    def server(self) -> str:
        """The server's root address, without a slash at the end."""
        return self._settings.server

    @property
    def base_url(self) -> str:
        """The address that OpenAI clients want: `OpenAI(base_url=lp.base_url, api_key=lp.token)`."""
        return f"{self._settings.server}/v1"

    def token(self) -> str:
        """The credential to send, fresh at every call; for libraries that take a callable as key."""
        return self._settings.api_key

    def _direct(self) -> dict[str, None]:
        """What never goes through a proxy from the environment: a server on this machine."""
        host = httpx2.URL(self.server).host
        return {f"all://[{host}]" if ":" in host else f"all://{host}": None} if is_local(self.server) else {}

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.server!r})"


class Client(_Addressed):
    """Calls models on a Lingpai server. Threads may share one; close it, or use it with `with`.

    `server` is the address (else LINGPAI_SERVER, else this machine), pasted with or without `/v1`; `api_key` the key
    (else LINGPAI_API_KEY; "" sends none). Every call raises a `ClientError`, see `lingpai.client._errors`.
    """

    def __init__(
        self,
        server: str | None = None,
        *,
        api_key: str | None = None,
        timeout: float | httpx2.Timeout = DEFAULT_TIMEOUT,
        transport: httpx2.BaseTransport | None = None,
    ) -> None:
        super().__init__(server, api_key)
        self._http = httpx2.Client(
            base_url=self.server,
            headers=self._settings.headers(),
            timeout=timeout,
            transport=transport,
            mounts=self._direct(),
            verify=verification(self.server) if transport is None else True,
        )

    def run(self, model: str, input: Any, **parameters: Any) -> Result:  # noqa: A002  the API's own word
        """Call any model: `input` is a text, a list (a batch) or an object; parameters are the model's own."""
        body = {"input": input, "parameters": parameters} if parameters else {"input": input}
        return result_of(self.request("POST", inference_path(model), json=body))

    @overload
    def chat(
        self, model: str, messages: Messages, *, stream: Literal[False] = False, **parameters: Any
    ) -> str: ...

    @overload
    def chat(
        self, model: str, messages: Messages, *, stream: Literal[True], **parameters: Any
    ) -> Iterator[str]: ...

    @overload
    def chat(
        self, model: str, messages: Messages, *, stream: bool, **parameters: Any
    ) -> str | Iterator[str]: ...

    def chat(
        self, model: str, messages: Messages, *, stream: bool = False, **parameters: Any
    ) -> str | Iterator[str]:
        """Ask a chat model; `messages` is a text or a list of OpenAI's messages. The answer's text comes back.

        With `stream` an iterator of its pieces, and the call starts with the first of them; closing the iterator
        cancels the answer. Parameters are OpenAI's (`temperature`, `max_tokens`, …).
        """
        body = chat_body(model, messages, parameters)
        if stream:
            return self._stream_chat({**body, "stream": True})
        return chat_text(self.request("POST", CHAT_PATH, json=body))

    def models(self) -> list[dict[str, Any]]:
        """The models that the key may call, as OpenAI's model objects (`id`, `owned_by`, …)."""
        return list(self.request("GET", "/v1/models")["data"])

    def key(self) -> dict[str, Any]:
        """What the key may do, what is left of its limits, and when they reset."""
        return dict(self.request("GET", "/v1/key"))

    def request(
        self, method: str, path: str, *, params: Mapping[str, Any] | None = None, json: Any = None
    ) -> Any:
        """One call of the API that has no method here: the decoded answer, or None for 204."""
        return json_of(self.response(method, path, params=params, json=json))

    def response(
        self, method: str, path: str, *, params: Mapping[str, Any] | None = None, json: Any = None
    ) -> httpx2.Response:
        """The answer as it is, also when it is an error. Raises only `ServerUnreachableError`."""
        try:
            return self._http.request(method, path, params=params, json=json)
        except httpx2.HTTPError as exc:
            raise error_from_transport(exc, server=self.server) from exc

    def _stream_chat(self, body: Mapping[str, Any]) -> Iterator[str]:
        try:
            with self._http.stream("POST", CHAT_PATH, json=body) as response:
                if not response.is_success:
                    response.read()
                    json_of(response)
                pieces = ChatPieces(response.headers)
                for piece in response.iter_bytes():
                    yield from pieces.feed(piece)
                yield from pieces.finish()
        except httpx2.HTTPError as exc:
            raise error_from_transport(exc, server=self.server) from exc

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


class AsyncClient(_Addressed):
    """`Client` for asyncio: the same arguments, methods and exceptions."""

    def __init__(
        self,
        server: str | None = None,
        *,
        api_key: str | None = None,
        timeout: float | httpx2.Timeout = DEFAULT_TIMEOUT,
        transport: httpx2.AsyncBaseTransport | None = None,
    ) -> None:
        super().__init__(server, api_key)
        self._http = httpx2.AsyncClient(
            base_url=self.server,
            headers=self._settings.headers(),
            timeout=timeout,
            transport=transport,
            mounts=self._direct(),
            verify=verification(self.server) if transport is None else True,
        )

    async def run(self, model: str, input: Any, **parameters: Any) -> Result:  # noqa: A002  the API's own word
        """Call any model; see `Client.run`."""
        body = {"input": input, "parameters": parameters} if parameters else {"input": input}
        return result_of(await self.request("POST", inference_path(model), json=body))

    @overload
    async def chat(
        self, model: str, messages: Messages, *, stream: Literal[False] = False, **parameters: Any
    ) -> str: ...

    @overload
    async def chat(
        self, model: str, messages: Messages, *, stream: Literal[True], **parameters: Any
    ) -> AsyncIterator[str]: ...

    async def chat(
        self, model: str, messages: Messages, *, stream: bool = False, **parameters: Any
    ) -> str | AsyncIterator[str]:
        """Ask a chat model; see `Client.chat`. Streaming: `async for piece in await lp.chat(…, stream=True)`."""
        body = chat_body(model, messages, parameters)
        if stream:
            return self._stream_chat({**body, "stream": True})
        return chat_text(await self.request("POST", CHAT_PATH, json=body))

    async def models(self) -> list[dict[str, Any]]:
        """The models that the key may call; see `Client.models`."""
        return list((await self.request("GET", "/v1/models"))["data"])

    async def key(self) -> dict[str, Any]:
        """What the key may do and what is left; see `Client.key`."""
        return dict(await self.request("GET", "/v1/key"))

    async def request(
        self, method: str, path: str, *, params: Mapping[str, Any] | None = None, json: Any = None
    ) -> Any:
        """One call of the API that has no method here; see `Client.request`."""
        return json_of(await self.response(method, path, params=params, json=json))

    async def response(
        self, method: str, path: str, *, params: Mapping[str, Any] | None = None, json: Any = None
    ) -> httpx2.Response:
        """The answer as it is; see `Client.response`."""
        try:
            return await self._http.request(method, path, params=params, json=json)
        except httpx2.HTTPError as exc:
            raise error_from_transport(exc, server=self.server) from exc

    async def _stream_chat(self, body: Mapping[str, Any]) -> AsyncIterator[str]:
        try:
            async with self._http.stream("POST", CHAT_PATH, json=body) as response:
                if not response.is_success:
                    await response.aread()
                    json_of(response)
                pieces = ChatPieces(response.headers)
                async for piece in response.aiter_bytes():
                    for text in pieces.feed(piece):
                        yield text
                for text in pieces.finish():
                    yield text
        except httpx2.HTTPError as exc:
            raise error_from_transport(exc, server=self.server) from exc

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()
