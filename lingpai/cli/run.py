"""`lingpai run`: call any model once."""

import json
import sys
from collections.abc import Mapping
from typing import Annotated, Any, Final

from cyclopts import Parameter

from lingpai.cli.failures import CommandError, UsageError
from lingpai.cli.options import NO_OPTIONS, Options
from lingpai.cli.output import bar, print_json, print_line
from lingpai.cli.server import command_error, connect, find_place
from lingpai.cli.tables import print_table
from lingpai.client import APIError
from lingpai.terminal import say

SHOWN_NUMBERS: Final = 6  # of a vector; the rest is for programs (--json)


def run(
    model: Annotated[str, Parameter(help="The model's id, owner/name.")],
    text: Annotated[
        str,
        Parameter(
            name="INPUT", help="The input; - or nothing reads it from stdin.", allow_leading_hyphen=True
        ),
    ] = "-",
    /,
    *,
    input_json: Annotated[bool, Parameter(help="The input is JSON (a list is a batch).")] = False,
    parameter: Annotated[
        tuple[str, ...],
        Parameter(
            name=["--parameter", "-p"], help="A parameter of the model, name=value; JSON values. Repeatable."
        ),
    ] = (),
    options: Options = NO_OPTIONS,
) -> None:
    """Call a model once and show its output; with --json the whole answer."""
    parameters = read_parameters(parameter)
    payload = read_input(text, is_json=input_json)
    with connect(options) as client:
        try:
            result = client.run(model, payload, **parameters)
        except APIError as exc:
            if not _is_undecoded_json(payload, exc):
                raise
            hint = "The input looks like JSON: add --input-json to send it as such."
            raise CommandError(f"{command_error(exc, find_place(options))} {hint}") from exc
    if options.as_json:
        print_json(result.raw)
    else:
        show_output(result.output)


def _is_undecoded_json(payload: Any, error: APIError) -> bool:
    """Whether the server did not take a text that was probably meant as JSON."""
    is_about_input = error.status == 400 and (error.param or "input").startswith("input")
    return is_about_input and isinstance(payload, str) and payload.lstrip().startswith(("[", "{"))


def read_input(text: str, *, is_json: bool) -> Any:
    """The input: `text`, or stdin for `-`; decoded when it is JSON."""
    if text == "-":
        text = read_stdin()
    if not is_json:
        return text
    try:
        return json.loads(text)
    except ValueError as exc:
        raise UsageError(f"The input is not JSON: {exc}.") from exc


def read_stdin() -> str:
    """All of stdin, without the line break that ends it."""
    if sys.stdin.isatty():
        say("Reading the input from the terminal; Ctrl-D on an empty line ends it.")
    try:
        return sys.stdin.read().removesuffix("\n")
    except UnicodeDecodeError as exc:
        raise CommandError(
            f"The input is not text in {sys.stdin.encoding}: {exc.reason} at byte {exc.start}."
        ) from exc


def read_parameters(pairs: tuple[str, ...]) -> dict[str, Any]:
    """`name=value` pairs; a value that is not JSON is a text."""
    parameters = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals or not name:
            raise UsageError(f"-p {pair!r} is not name=value.")
        try:
            parameters[name] = json.loads(value)
        except ValueError:
            parameters[name] = value
    return parameters


def show_output(output: Any) -> None:
    """`output` for a person: text as it is, labels with bars, vectors in short, anything else as JSON."""
    if isinstance(output, str):
        print_line(output)
    elif isinstance(output, dict) and isinstance(output.get("text"), str):
        print_line(output["text"])
    elif _is_scores(output):
        _print_scores(output)
    elif _is_vector(output):
        print_line(describe_vector(output))
    elif isinstance(output, list) and output and all(map(_is_shown_in_short, output)):
        for item in output:
            show_output(item)
    elif isinstance(output, dict) and _is_vector(output.get("embedding")):
        print_line(describe_vector(output["embedding"]))
    else:
        print_json(output)


def describe_vector(vector: list[float]) -> str:
    """`384 dimensions: 0.0123, -0.0456, …`"""
    first = ", ".join(f"{number:.4f}" for number in vector[:SHOWN_NUMBERS])
    return f"{len(vector)} dimensions: {first}{', …' if len(vector) > SHOWN_NUMBERS else ''}"


def _print_scores(scores: list[Mapping[str, Any]]) -> None:
    rows = [(str(item["label"]), bar(item["score"]), f"{item['score']:.4f}") for item in scores]
    print_table(("label", "", "score"), rows, right=("score",))


def _is_scores(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(map(_is_score, value))


def _is_score(value: Any) -> bool:
    return isinstance(value, dict) and "label" in value and _is_number(value.get("score"))


def _is_vector(value: Any) -> bool:
    return isinstance(value, list) and len(value) > 1 and all(map(_is_number, value))


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_shown_in_short(value: Any) -> bool:
    is_text = isinstance(value, str) or (isinstance(value, dict) and isinstance(value.get("text"), str))
    return is_text or _is_vector(value) or _is_scores(value)
