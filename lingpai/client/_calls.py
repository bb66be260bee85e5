"""What goes into a call and what comes out of it, without I/O: shared by `Client` and `AsyncClient`."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

import httpx2

from lingpai.client._errors import UnexpectedAnswerError, error_from_event, error_from_response
from lingpai.client._sse import Event, EventDecoder, EventTooLargeError

Messages = str | Sequence[Mapping[str, Any]]
CHAT_PATH = "/v1/chat/completions"


@dataclass(frozen=True, slots=True)
class Result:
    """What `run` returns. `output` is typed by the task: text, a list of label and score, vectors, …"""

    model: str
    task: str
    output: Any
    usage: Mapping[str, Any] | None
    request_id: str | None
    raw: Mapping[str, Any] = field(repr=False)  # the whole answer, with what this version does not know


def inference_path(model: str) -> str:
    """The inference endpoint of `model`; a model id may contain `/` and `:`."""
    return f"/api/v1/models/{quote(model, safe='/:@')}/inference"


def result_of(answer: Any) -> Result:
    """The answer to an inference call. Raises `UnexpectedAnswerError` when it has no output."""
    if not isinstance(answer, dict) or "output" not in answer:
        raise UnexpectedAnswerError("The answer has no `output`. Is the address that of a Lingpai server?")
    return Result(
        model=answer.get("model", ""),
        task=answer.get("task", "generic"),
        output=answer["output"],
        usage=answer.get("usage"),
        request_id=answer.get("request_id"),
        raw=answer,
    )


def chat_body(model: str, messages: Messages, parameters: Mapping[str, Any]) -> dict[str, Any]:
    """The body of a chat call; a text is one message of the user."""
    if isinstance(messages, str):
        messages = [{"role": "user", "content": messages}]
    return {"model": model, "messages": list(messages), **parameters}


def chat_text(answer: Any) -> str:
    """The text of an unary chat answer, empty when the model only called tools."""
    try:
        return answer["choices"][0]["message"].get("content") or ""
    except (KeyError, IndexError, TypeError, AttributeError) as exc:
        raise UnexpectedAnswerError("The answer is not a chat completion.") from exc


def json_of(response: httpx2.Response) -> Any:
    """The JSON of a good answer, None for 204. Raises the exception for anything else."""
    if response.is_redirect:
        raise UnexpectedAnswerError(
            f"{response.request.url} redirects to {response.headers.get('location')}."
            " Use that server's address: a key is not sent to where somebody else points."
        )
    if response.is_error:
        raise error_from_response(response)
    if response.status_code == 204:
        return None
    try:
        return response.json()
    except ValueError as exc:
        raise UnexpectedAnswerError(
            f"{response.request.url} did not answer with JSON. Is it the address of a Lingpai server?"
        ) from exc


class ChatPieces:
    """Turns the bytes of a streamed chat answer into pieces of text."""

    def __init__(self, headers: Mapping[str, str]) -> None:
        self._headers = headers
        self._decoder = EventDecoder()
        self._finished = False

    def feed(self, piece: bytes) -> Iterator[str]:
        """The texts in `piece`. Raises `APIError` for an error event."""
        try:
            events = self._decoder.feed(piece)
        except EventTooLargeError as exc:
            raise UnexpectedAnswerError(str(exc)) from exc
        for event in events:
            yield from self._read(event)

    def finish(self) -> Iterator[str]:
        """To be called at the end of the stream. Raises `UnexpectedAnswerError` when the answer is not complete."""
        for event in self._decoder.finish():
            yield from self._read(event)
        if not self._finished:
            raise UnexpectedAnswerError("The stream ended before the answer did.")

    def _read(self, event: Event) -> Iterator[str]:
        if event.data.strip() == "[DONE]":
            self._finished = True
            return
        chunk = _chunk_of(event)
        if event.name == "error" or chunk.get("error"):
            raise error_from_event(chunk.get("error") or chunk, headers=self._headers)
        for choice in chunk.get("choices") or ():  # null and [] both occur (usage chunks)
            if choice.get("finish_reason"):
                self._finished = True
            text = (choice.get("delta") or {}).get("content")
            if text:
                yield text


def _chunk_of(event: Event) -> dict[str, Any]:
    try:
        chunk = json.loads(event.data)
    except ValueError:
        chunk = event.data
    if isinstance(chunk, dict):
        return chunk
    if event.name == "error":
        return {"message": event.data}
    raise UnexpectedAnswerError("The stream contains something that is not a chat completion chunk.")
