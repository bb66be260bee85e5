"""Logging: one line per event, for people or for programs, and nothing that a caller wrote can forge a line."""

import json
import logging
import re
import sys
from typing import Any, Final, Literal

_CONTROL: Final = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029]")
# Looser than the exact form: half a credential in a log is half a credential too many.
_CREDENTIAL: Final = re.compile(r"(?:sk|at|rt|cs)-lp-[0-9A-Za-z]{8,}")
_BEARER: Final = re.compile(r"(?i)(bearer\s+)[^\s\"']{8,}")


def mask(text: str) -> str:
    """`text` without credentials: ours by their exact form, others by the word Bearer before them."""
    return _BEARER.sub(r"\1[hidden]", _CREDENTIAL.sub(lambda match: f"{match[0][:6]}[hidden]", text))


class _TextFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        text = mask(super().format(record))
        head, *rest = text.split("\n")
        lines = [
            head,
            *(f"    {line}" for line in rest),
        ]  # a traceback stays readable, and cannot look like a new entry
        return "\n".join(_CONTROL.sub(_escape, line) for line in lines)


class _JsonFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        entry: dict[str, Any] = {
            "time": self.formatTime(record, "%Y-%m-%dT%H:%M:%S%z"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": mask(record.getMessage()),
        }
        if record.exc_info:
            entry["exception"] = mask(self.formatException(record.exc_info))
        return json.dumps(entry, ensure_ascii=False)


def _escape(match: re.Match[str]) -> str:
    return match[0].encode("unicode_escape").decode()


def set_up_logging(
    *, level: Literal["debug", "info", "warning", "error"], format_: Literal["text", "json"]
) -> None:
    """Log everything to standard error in the given form. Call it once, at start."""
    handler = logging.StreamHandler(sys.stderr)
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
