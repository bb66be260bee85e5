"""CSV and JSON lines, piece by piece: what is exported never stands in memory as a whole."""

import csv
import io
import json
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import IO, Any, Final, Literal

Format = Literal["csv", "jsonl"]
Fields = Mapping[str, Any]

# What makes a spreadsheet take a cell for a formula, which could send the sheet elsewhere (OWASP, "CSV Injection").
_FORMULA_STARTS: Final = ("=", "+", "-", "@", "\t", "\r", "\n")
_BOM: Final = "\ufeff".encode()
_MEMORY_BYTES: Final = 1024 * 1024
_PIECE_BYTES: Final = 64 * 1024


def as_csv(
    columns: Sequence[str], chunks: Iterable[Sequence[Fields]], *, bom: bool = False
) -> Iterator[bytes]:
    """RFC 4180 in UTF-8 with a header: a piece for each chunk. `bom` is for spreadsheets that guess encodings.

    Texts that a spreadsheet would run get an apostrophe in front; None is an empty cell.
    """
    header = _lines([columns])
    yield _BOM + header if bom else header
    for chunk in chunks:
        yield _lines([[safe_cell(fields.get(column)) for column in columns] for fields in chunk])


def as_jsonl(chunks: Iterable[Sequence[Fields]]) -> Iterator[bytes]:
    """One JSON object to a line, in UTF-8: a piece for each chunk."""
    for chunk in chunks:
        lines = (json.dumps(fields, ensure_ascii=False, separators=(",", ":")) for fields in chunk)
        yield "".join(f"{line}\n" for line in lines).encode()


def safe_cell(value: Any) -> Any:
    """`value` as it may stand in a file that somebody opens in a spreadsheet."""
    return f"'{value}" if isinstance(value, str) and value.startswith(_FORMULA_STARTS) else value


def _lines(rows: Iterable[Sequence[Any]]) -> bytes:
    text = io.StringIO()
    csv.writer(text, lineterminator="\r\n").writerows(rows)
    return text.getvalue().encode()


def spool(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """The same pieces once all of them are in a temporary file: their source is done with before anybody reads slowly.

    The file is in memory up to a megabyte, and is gone when the iterator is.
    """
    file = tempfile.SpooledTemporaryFile(_MEMORY_BYTES)  # noqa: SIM115  it lives as long as the iterator
    try:
        file.writelines(pieces)
    except BaseException:
        file.close()
        raise
    file.seek(0)
    return _read(file)


def _read(file: IO[bytes]) -> Iterator[bytes]:
    with file:
        while piece := file.read(_PIECE_BYTES):
            yield piece
