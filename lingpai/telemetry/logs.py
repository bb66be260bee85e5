"""Logging: one line per event, for people or for programs, and nothing that a caller wrote can forge a line.

Whatever concerns a call carries its request id: from `current_request` where a task serves it, else from
``extra={"request_id": …}``. Further fields for programs come in ``extra={"fields": {…}}``.
"""

import contextlib
import json
import logging
import re
import sys
from collections.abc import Mapping
from contextvars import ContextVar
from typing import Any, Final, Literal

# Control characters, what some readers take for a line break, and what turns the direction of writing (a line that
# reads otherwise than it is written; Unicode TR 36, section 2.10).
_UNSAFE: Final = r"\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff"
_CONTROL: Final = re.compile(f"[{_UNSAFE}]")
_NEEDS_QUOTES: Final = re.compile(f'[{_UNSAFE}\\s"=]|^$')
# Looser than the exact form: half a credential in a log is half a credential too many.
_CREDENTIAL: Final = re.compile(r"(?:sk|at|rt|cs|ss|in|sg)-lp-[0-9A-Za-z]{8,}")
_JWT: Final = re.compile(r"\beyJ[\w-]{8,}\.[\w-]{8,}\.[\w-]*")
_BEARER: Final = re.compile(r"(?i)(bearer\s+)[^\s\"']{8,}")
_MOST_CHARACTERS: Final = 64_000

current_request: Final[ContextVar[str]] = ContextVar("lingpai_request", default="")
"""The id of the request that the running task serves."""


def mask(text: str) -> str:
    """`text` without credentials: ours by their exact form, JWTs by theirs, others by the word Bearer before them."""
    masked = _CREDENTIAL.sub(lambda match: f"{match[0][:6]}[hidden]", text)
    return _BEARER.sub(r"\1[hidden]", _JWT.sub("eyJ[hidden]", masked))


def _request_id(record: logging.LogRecord) -> str:
    return str(getattr(record, "request_id", "") or current_request.get())


def _fields(record: logging.LogRecord) -> Mapping[str, Any]:
    fields: Mapping[str, Any] = getattr(record, "fields", {})
    return fields


class _TextFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        text = mask(super().format(record)[:_MOST_CHARACTERS])
        head, *rest = text.split("\n")
        request_id = _request_id(record)
        if request_id and request_id not in head:
            head += f" ({request_id})"
        fields = "".join(f" {name}={_quoted(value)}" for name, value in _fields(record).items())
        # A traceback stays readable, and cannot look like a new entry.
        lines = [head + mask(fields), *(f"    {line}" for line in rest)]
        return "\n".join(_CONTROL.sub(_escape, line) for line in lines)


class _JsonFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        entry: dict[str, Any] = {
            "time": self.formatTime(record, "%Y-%m-%dT%H:%M:%S%z"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": mask(record.getMessage()[:_MOST_CHARACTERS]),
        }
        if request_id := _request_id(record):
            entry["request_id"] = request_id
        for name, value in _fields(record).items():
            entry.setdefault(name, mask(value) if isinstance(value, str) else value)
        if record.exc_info:
            entry["exception"] = mask(self.formatException(record.exc_info)[-_MOST_CHARACTERS:])
        return _CONTROL.sub(_escape_in_json, json.dumps(entry, ensure_ascii=False, default=str))


class _Handler(logging.StreamHandler[Any]):
    """Writes to standard error. What cannot be written is lost, and never shown by the way round: Python would print
    the arguments of the line as they are.
    """

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802  logging's name
        with contextlib.suppress(Exception):  # nothing is left to tell it to
            self.stream.write(f"a log line of {record.name} (line {record.lineno}) could not be written\n")


def _quoted(value: Any) -> str:
    """A value for a line of text: as it is, or as a JSON string when it could be taken for more than one value."""
    text = str(value)
    return json.dumps(text, ensure_ascii=False) if _NEEDS_QUOTES.search(text) else text


def _escape(match: re.Match[str]) -> str:
    return match[0].encode("unicode_escape").decode()


def _escape_in_json(match: re.Match[str]) -> str:
    return f"\\u{ord(match[0]):04x}"


def set_up_logging(
    *, level: Literal["debug", "info", "warning", "error"], format_: Literal["text", "json"]
) -> None:
    """Log everything to standard error in the given form. Call it at start, and again to change level or form."""
    handler = _Handler(sys.stderr)
    handler.setFormatter(
        _JsonFormatter()
        if format_ == "json"
        else _TextFormatter("%(asctime)s %(levelname)-7s %(name)s  %(message)s")
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    logging.getLogger("lingpai").setLevel(level.upper())
    logging.captureWarnings(capture=True)
