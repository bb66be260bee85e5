"""Exports, which are too long to be held in memory, from the server to stdout or to a file."""

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import httpx2

from lingpai.cli.failures import CommandError
from lingpai.cli.options import Options
from lingpai.cli.server import connect
from lingpai.client import Client
from lingpai.client._calls import json_of
from lingpai.terminal import say


def download(options: Options, path: str, query: Mapping[str, Any], *, output: Path | None) -> None:
    """Write what the server answers to `GET path` to the file `output`, else to stdout. Raises CommandError."""
    with connect(options) as client, _pieces(client, path, query) as pieces:
        if output is None:
            _copy(pieces, sys.stdout.buffer)
        else:
            _write(pieces, output)


@contextmanager
def _pieces(client: Client, path: str, query: Mapping[str, Any]) -> Iterator[Iterator[bytes]]:
    try:
        with client._http.stream("GET", path, params=query) as response:
            if not response.is_success:
                response.read()
                json_of(response)
            yield response.iter_bytes()
    except httpx2.HTTPError as error:
        raise CommandError(f"The export broke off: {error}") from error


def _copy(pieces: Iterator[bytes], file: IO[bytes]) -> None:
    for piece in pieces:
        file.write(piece)
    file.flush()


def _write(pieces: Iterator[bytes], path: Path) -> None:
    """Write the whole file or none: half an export looks like one of a quiet month."""
    part = path.with_name(f"{path.name}.part")
    try:
        with part.open("wb") as file:
            _copy(pieces, file)
        part.replace(path)
    except OSError as error:
        raise CommandError(f"{path} cannot be written: {error.strerror or error}") from error
    finally:
        part.unlink(missing_ok=True)
    say(f"Wrote {path}.")
