"""`lingpai chat`: talk to a chat model."""

import sys
from collections.abc import Iterator
from contextlib import closing
from typing import Annotated, Any, Final

from cyclopts import Parameter

from lingpai.cli.failures import CommandError, UsageError
from lingpai.cli.options import NO_OPTIONS, Options
from lingpai.cli.output import print_json
from lingpai.cli.run import read_stdin
from lingpai.cli.server import Place, command_error, connect, find_place
from lingpai.client import Client, ClientError
from lingpai.terminal import printable, say, say_error

HELP: Final = "/reset forgets the conversation, /exit or Ctrl-D leaves, Ctrl-C stops an answer."

Message = dict[str, str]


def chat(
    model: Annotated[str, Parameter(help="The model's id, owner/name.")],
    question: Annotated[
        str | None,
        Parameter(help="Ask this once and leave; - reads it from stdin.", allow_leading_hyphen=True),
    ] = None,
    /,
    *,
    system: Annotated[str | None, Parameter(help="A system prompt.")] = None,
    options: Options = NO_OPTIONS,
) -> int:
    """Talk to a chat model; answers stream as they arrive."""
    if question is None and not sys.stdin.isatty():
        question = "-"
    if question == "-":
        question = read_stdin()
    opening: list[Message] = [{"role": "system", "content": system}] if system else []
    with connect(options) as client:
        if question is None:
            _converse(client, model, opening, options)
        elif options.as_json:
            body = {"model": model, "messages": [*opening, _message("user", question)]}
            print_json(client.request("POST", "/v1/chat/completions", json=body))
        else:
            return _answer_once(client, model, [*opening, _message("user", question)])
    return 0


def _answer_once(client: Client, model: str, messages: list[Message]) -> int:
    try:
        _print_answer(client.chat(model, messages, stream=True))
    except Interrupted:
        print()
        return 130  # as shells report Ctrl-C
    return 0


def _converse(client: Client, model: str, opening: list[Message], options: Options) -> None:
    if options.as_json:
        raise UsageError("--json needs a question: lingpai chat MODEL QUESTION --json.")
    import readline  # noqa: F401, PLC0415  gives input() its history and editing; not every Python has it, nor needs it

    say(f"Talking to {model}. {HELP}")
    Conversation(client, model, opening, find_place(options)).run()


class Conversation:
    """Questions from the terminal, answers from the model, until the person leaves."""

    def __init__(self, client: Client, model: str, opening: list[Message], place: Place) -> None:
        self._client = client
        self._model = model
        self._opening = opening
        self._place = place
        self._messages = list(opening)

    def run(self) -> None:
        """Until Ctrl-D or /exit."""
        for line in _lines():
            command = line.strip()
            if command in {"/exit", "/quit", "/bye"}:
                return
            if command == "/reset":
                self._messages = list(self._opening)
                say("The conversation starts anew.")
            elif command.startswith("/") and " " not in command:
                say(f"{command} is no command. {HELP}")
            elif command:
                self._ask(line)

    def _ask(self, question: str) -> None:
        """One question and its answer. A failed question leaves the conversation as it was."""
        messages = [*self._messages, _message("user", question)]
        answer = ""
        try:
            answer = _print_answer(self._client.chat(self._model, messages, stream=True))
        except Interrupted as exc:
            answer = exc.answer
            say("\n(stopped)")
        except ClientError as exc:
            self._report(exc)
        if answer:
            self._messages = [*messages, _message("assistant", answer)]

    def _report(self, error: ClientError) -> None:
        """A rate limit or a hiccup does not end the conversation; a wrong key or a missing model does."""
        failure: CommandError = command_error(error, self._place)
        if getattr(error, "status", 500) in {401, 403, 404}:
            raise failure
        say_error(str(failure))


class Interrupted(Exception):  # noqa: N818  not an error: the person has heard enough
    """Ctrl-C during an answer."""

    def __init__(self, answer: str) -> None:
        super().__init__("interrupted")
        self.answer = answer


def _lines() -> Iterator[str]:
    """What the person types. Ctrl-C clears the line, Ctrl-D ends."""
    while True:
        try:
            yield input("> ")
        except KeyboardInterrupt:
            print()
        except EOFError:
            print()
            return


def _print_answer(pieces: Any) -> str:
    """Print the pieces as they arrive; the whole text comes back. Raises `Interrupted` at Ctrl-C."""
    answer = ""
    is_terminal = sys.stdout.isatty()
    with closing(pieces):  # closing the stream tells the server to stop
        try:
            for piece in pieces:
                answer += piece
                print(printable(piece) if is_terminal else piece, end="", flush=True)
        except KeyboardInterrupt:
            raise Interrupted(answer) from None
        except ClientError:
            if answer and not answer.endswith("\n"):
                print(flush=True)  # what went wrong begins a line of its own
            raise
    print()
    return answer


def _message(role: str, content: str) -> Message:
    return {"role": role, "content": content}
