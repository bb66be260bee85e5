"""Write docs/reference/ anew: settings, errors and command line from the code, conformance from the list of requirements.

`pages()` is what a test compares with the files that are there.
"""

import contextlib
import dataclasses
import io
import pathlib
import types
from collections.abc import Iterator
from typing import Annotated, Any, Final, Literal, Union, get_args, get_origin

import msgspec
from cyclopts import App

from lingpai.cli import app as command_line
from lingpai.cli.output import UNFOLDED, console_for
from lingpai.errors import CATALOGUE
from lingpai.events.settings import WebhookSettings
from lingpai.settings import CONFIG_FILE, ENVIRONMENT_PREFIX, SECTIONS, ModelSettings
from scripts.conformance import conformance_page
from scripts.markdown_table import row

ROOT: Final = pathlib.Path(__file__).resolve().parent.parent
REFERENCE: Final = ROOT / "docs" / "reference"
NOTICE: Final = "<!-- Written by scripts/write_reference.py from the code; `make docs` writes it anew. -->"

SETTINGS_INTRODUCTION: Final = f"""
{NOTICE}

# Settings

Settings are read once, at start: from `{CONFIG_FILE}` in the working directory (or the file that `--config` names), then
from the environment, then from the command line; what comes later wins. The environment variable of a setting is
`{ENVIRONMENT_PREFIX}SECTION__KEY`; lists are written with commas between. An unknown key or a bad value stops the start
and is named, with the nearest known name.

```toml
[server]
host = "0.0.0.0"
tls_cert = "fullchain.pem"
tls_key = "privkey.pem"

[limits]
default = ["500/day@Europe/Berlin", "10/1s"]

[[models]]
target = "https://models.example/v1"
api_key_env = "EXAMPLE_KEY"
aliases = {{ "gpt-4o-mini" = "qwen3-32b" }}
```
"""

ERRORS_INTRODUCTION: Final = f"""
{NOTICE}

# Errors

Every refusal has one shape, the one OpenAI's clients read: `{{"error": {{"message", "type", "param", "code"}}}}`.
`code` is stable and meant for programs; `message` is for people and says what to do next; `param` names the field at
fault or is null. The header `x-request-id` names the request; for a fault of the server the log has the details under
it.

| status | code | type | meaning |
|---|---|---|---|
"""

COMMANDS_INTRODUCTION: Final = f"""
{NOTICE}

# Command line

Data goes to standard output, words to standard error. Exit codes: 0 ok, 1 failed, 2 usage, 3 not signed in, 4 refused.
Commands reach a server on the same machine through `admin.sock` in its data directory and need no key there; any other
through `LINGPAI_SERVER` and `LINGPAI_API_KEY`, and `LINGPAI_CA_FILE` where an authority of your own has signed its
certificate.
"""


def pages() -> dict[pathlib.Path, str]:
    """Every generated page: its path and its text."""
    texts = {
        "settings.md": settings_page(),
        "errors.md": errors_page(),
        "cli.md": cli_page(),
        "conformance.md": conformance_page(),
    }
    return {REFERENCE / name: text.lstrip("\n").rstrip("\n") + "\n" for name, text in texts.items()}


def settings_page() -> str:
    """All settings, section by section."""
    parts = [SETTINGS_INTRODUCTION]
    for section, kind in SECTIONS.items():
        parts += [f"\n## `[{section}]`\n\n", _settings_table(kind, section)]
    parts.append("\n### `[[events.webhooks]]`\n\nOne entry per webhook. ")
    parts += ["They have no environment variables.\n\n", _settings_table(WebhookSettings, None)]
    parts.append("\n## `[[models]]`\n\nOne entry per target, beside those of the command line. ")
    parts += ["They have no environment variables.\n\n", _settings_table(ModelSettings, None)]
    return "".join(parts)


def _settings_table(kind: type[Any], section: str | None) -> str:
    headers = ["key", "type", "default", "environment", "meaning"]
    rows = []
    for item in dataclasses.fields(kind):
        variable = f"`{ENVIRONMENT_PREFIX}{section}__{item.name}`".upper()
        rows.append([f"`{item.name}`", _type(item.type), _default(item), variable, item.metadata["help"]])
    if section is None:
        headers.remove("environment")
        rows = [[*row[:3], row[4]] for row in rows]
    return "".join([row(headers), row(["---"] * len(headers)), *map(row, rows)])


def _type(annotation: Any) -> str:
    if get_origin(annotation) is Annotated:
        kind, bounds = get_args(annotation)
        return f"{_type(kind)} {_range(bounds)}"
    if get_origin(annotation) is Literal:
        return " or ".join(f"`{value}`" for value in get_args(annotation))
    if get_origin(annotation) in (Union, types.UnionType):
        return _type(next(each for each in get_args(annotation) if each is not type(None)))
    if get_origin(annotation) is tuple and get_args(annotation)[0] is not str:
        entry = get_args(annotation)[0]
        return "list of tables" if dataclasses.is_dataclass(entry) else f"list of {_type(entry)}s"
    words: dict[Any, str] = {str: "text", int: "whole number", float: "number", bool: "true or false"}
    words |= {tuple[str, ...]: "list of texts", dict[str, str]: "table of texts", str | None: "text"}
    words |= {dict[str, Any]: "table", dict[str, dict[str, Any]]: "table of tables"}
    words |= {dict[str, tuple[str, ...]]: "table of lists"}
    return words[annotation]


def _range(bounds: msgspec.Meta) -> str:
    if bounds.gt is not None:
        return f"over {bounds.gt}"
    return f"from {bounds.ge}" + (f" to {bounds.le}" if bounds.le is not None else "")


def _default(item: "dataclasses.Field[Any]") -> str:
    if item.default is dataclasses.MISSING:
        return "required" if item.default_factory is dataclasses.MISSING else "empty"
    if item.default is None or item.default == ():
        return "none"
    values = item.default if isinstance(item.default, tuple) else (item.default,)
    return ", ".join(f"`{value}`" for value in values)


def errors_page() -> str:
    """The catalogue of errors, by status."""
    entries = sorted(CATALOGUE.values(), key=lambda entry: entry.status)
    rows = [[str(entry.status), f"`{entry.code}`", f"`{entry.type}`", entry.meaning] for entry in entries]
    return ERRORS_INTRODUCTION + "".join(map(row, rows))


def cli_page() -> str:
    """The help of every command."""
    parts = [COMMANDS_INTRODUCTION]
    for path in _commands(command_line, ()):
        level = "##" if len(path) < 2 else "###"
        parts.append(f"\n{level} `{' '.join(['lingpai', *path])}`\n\n```text\n{_help(path)}\n```\n")
    return "".join(parts)


def _commands(app: App, path: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    yield path
    for name in sorted(name for name in app if not name.startswith("-")):
        yield from _commands(app[name], (*path, name))


def _help(path: tuple[str, ...]) -> str:
    output = io.StringIO()
    command_line.help_formatter = "plain"
    with contextlib.redirect_stdout(output):
        console = console_for(output, width=UNFOLDED)
        command_line([*path, "--help"], console=console, result_action="return_value")
    lines = [line.rstrip() for line in output.getvalue().strip().splitlines()]
    return "\n".join(lines).replace("\n\n\n", "\n\n")


def main() -> None:
    """Write the pages."""
    REFERENCE.mkdir(parents=True, exist_ok=True)
    for path, text in pages().items():
        path.write_text(text, encoding="utf-8")
        print(f"wrote {path.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
