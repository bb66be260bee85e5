"""The first lines on stdout: where the server is, what it serves, and a call to try."""

import sys
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

import lingpai
from lingpai.app import Started
from lingpai.catalog.interfaces import Model
from lingpai.targets import DEMONSTRATION_NAME
from lingpai.terminal import BOLD, DIM, printable, styled


def announce(started: Started, *, data: Path, models: Sequence[Model]) -> None:
    """Print address, models and, on the very first start, one key. It is not printed or logged again."""
    print("\n".join(_lines(started, data, models)), flush=True)


def _lines(started: Started, data: Path, models: Sequence[Model]) -> Iterator[str]:
    style = partial(styled, stream=sys.stdout)
    yield f"{style(f'Lingpai {lingpai.__version__}', BOLD)} is ready.\n"
    yield f"Address  {style(f'{started.address}/v1', BOLD)}"
    yield f"Data     {printable(str(data))}"
    width = max((len(model.id) for model in models), default=0)
    for number, model in enumerate(models):
        label = "Models" if number == 0 else ""
        name = printable(model.id.ljust(width))
        yield f"{label:7}  {name}  {style(f'{model.task}{_mark(model)}', DIM)}"
    if started.first_key is not None:
        yield "\nYour first API key, shown only now. Store it, for example so:\n"
        yield f"  export LINGPAI_API_KEY={started.first_key}"
    yield f"\nTry it:\n\n{_try_it(started.address, models)}\n\nStop with Ctrl-C."


def _mark(model: Model) -> str:
    return " · demonstration" if model.backend.name == DEMONSTRATION_NAME else ""


def _try_it(address: str, models: Sequence[Model]) -> str:
    """A command that works: for the first model that chats, else that takes a text, else that takes a file."""
    head = f'  curl {address}{{path}} -H "Authorization: Bearer $LINGPAI_API_KEY" \\\n'
    json_head = head + "    -H 'Content-Type: application/json' -d '{body}'"
    chats = [model.id for model in models if model.task == "chat"]
    if chats:
        body = f'{{"model": "{chats[0]}", "messages": [{{"role": "user", "content": "Hello"}}]}}'
        return json_head.format(path="/v1/chat/completions", body=body)
    for takes, line in ((_takes_text, json_head), (_takes_file, head + "    -F file=@FILE")):
        fitting = [model.id for model in models if takes(model)]
        if fitting:
            path = f"/api/v1/models/{fitting[0]}/inference"
            return line.format(path=path, body='{"input": "Hello"}')
    if models:
        return f"  lingpai models show {models[0].id}"
    return head.format(path="/v1/models").rstrip(" \\\n")


def _takes_text(model: Model) -> bool:
    # Of a plain function, or a model elsewhere, it is not known what it takes.
    return not model.input or (_takes_string(model) and "contentMediaType" not in model.input)


def _takes_file(model: Model) -> bool:
    return _takes_string(model) and "contentMediaType" in model.input


def _takes_string(model: Model) -> bool:
    return model.input.get("type") == "string" and not model.parameters.get("required")
