"""The command line. One file per noun; each is imported when its command runs, so that `lingpai --help` stays quick.

Data goes to stdout and words to stderr. Exit codes: 0 ok, 1 failed, 2 usage, 3 not signed in, 4 refused.
"""

import sys
from collections.abc import Sequence

from cyclopts import App, CycloptsError, MissingArgumentError, Parameter, UnknownCommandError
from rich.text import Text

import lingpai
from lingpai.cli.failures import CommandError, UsageError
from lingpai.cli.options import examples
from lingpai.cli.output import UNFOLDED, console_for
from lingpai.errors import did_you_mean
from lingpai.terminal import explain_missing_package, prepare_streams, printable, say_error, silence_stdout

__all__ = ["app", "execute", "main"]


def main() -> None:
    """The `lingpai` program."""
    sys.exit(execute(sys.argv[1:]))


def execute(arguments: Sequence[str]) -> int:
    """Run one command line and return its exit code."""
    prepare_streams()
    is_terminal = sys.stdout.isatty()
    app.help_formatter = "default" if is_terminal else "plain"
    try:
        _refuse_undecodable(arguments)
        result = app(
            arguments,
            console=console_for(sys.stdout, width=None if is_terminal else UNFOLDED),
            error_console=console_for(sys.stderr, width=None if sys.stderr.isatty() else UNFOLDED),
            result_action="return_value",
        )
        sys.stdout.flush()
    except CommandError as error:
        say_error(str(error))
        return error.exit_code
    except BrokenPipeError:
        silence_stdout()
        return 1
    except ImportError as error:
        say_error(explain_missing_package(error))
        return 1
    return result if isinstance(result, int) else 0


def _refuse_undecodable(arguments: Sequence[str]) -> None:
    """Bytes that are no text in the terminal's encoding arrive as lone surrogates, which no JSON can carry."""
    for position, argument in enumerate(arguments, start=1):
        if any("\ud800" <= character <= "\udfff" for character in argument):
            raise UsageError(f"Argument {position} is not text in this terminal's encoding.")


def explain_usage(error: CycloptsError) -> Text:
    """One sentence for a command line that cannot be understood, with the nearest name."""
    if isinstance(error, UnknownCommandError) and error.unused_tokens and error.app is not None:
        wrong = error.unused_tokens[0]
        # Not the library's own sentence: it imports every command to look for hidden ones.
        names = sorted(name for name in error.app if not name.startswith("-"))
        message = f"There is no command `{wrong}`.{did_you_mean(wrong, names)} Commands: {', '.join(names)}."
    elif isinstance(error, MissingArgumentError) and error.argument is not None and error.keyword is None:
        command = " ".join(("lingpai", *(error.command_chain or ())))
        message = (
            f"`{command}` needs {error.argument.name}. `{command} --help` shows what it takes, with examples."
        )
    else:
        message = str(error)
    return Text.assemble(("error: ", "bold red"), printable(message))


app = App(
    name="lingpai",
    help="Put models behind API keys, limits and usage. A server on this machine is reached by its data directory,"
    " any other by LINGPAI_SERVER and LINGPAI_API_KEY.",
    version=lambda: lingpai.__version__,
    default_parameter=Parameter(negative=(), show_default=False),
    help_format="plaintext",
    error_formatter=explain_usage,
    help_epilogue=examples(
        "lingpai serve app.py",
        "lingpai keys create my-app",
        "lingpai chat lingpai/eliza",
        "lingpai usage --by key,model",
    ),
)

app.command(
    "lingpai.cli.serve:serve",
    name="serve",
    help="Serve models: the demonstration ones, or what you name.",
    help_epilogue=examples(
        "lingpai serve",
        "lingpai serve app.py:predict --port 9000",
        "lingpai serve ollama http://127.0.0.1:8000/v1",
    ),
)
app.command("lingpai.cli.keys:app", name="keys", help="Make and manage API keys.")
app.command(
    "lingpai.cli.clients:app",
    name="clients",
    help="Make and manage OAuth clients: programs that get access tokens.",
)
app.command(
    "lingpai.cli.tokens:app",
    name="tokens",
    help="See which programs are signed in and which tokens are out, and end them.",
)
app.command("lingpai.cli.users:app", name="users", help="Manage the users who own keys.")
app.command("lingpai.cli.models:app", name="models", help="List, add, check and remove models.")
app.command("lingpai.cli.limits:app", name="limits", help="Set limits and see what is left of them.")
app.command("lingpai.cli.projects:app", name="projects", help="Manage the projects that keys belong to.")
app.command(
    "lingpai.cli.usage:app",
    name="usage",
    help="Show how much was used, by key, client, user, project, model or time. Every call that was answered is in it.",
)
app.command(
    "lingpai.cli.secrets:app",
    name="secrets",
    help="See and replace the server's own secrets: pepper, root key, signing keys.",
)
app.command("lingpai.cli.requests:app", name="requests", help="List, follow and export the calls one by one.")
app.command(
    "lingpai.cli.audit:app",
    name="audit",
    help="See who did what, and verify that nobody changed the records.",
)
app.command("lingpai.cli.events:app", name="events", help="See what happened, and try the webhooks.")
app.command(
    "lingpai.cli.run:run",
    name="run",
    help="Call a model once and show its output; with --json the whole answer.",
    help_epilogue=examples(
        "lingpai run lingpai/sentiment '这家店很好'",
        "lingpai run acme/shout hi -p times=2",
        "cat review.txt | lingpai run lingpai/sentiment",
        """lingpai run lingpai/sentiment '["good", "bad"]' --input-json --json""",
    ),
)
app.command(
    "lingpai.cli.chat:chat",
    name="chat",
    help="Talk to a chat model; answers stream as they arrive.",
    help_epilogue=examples(
        "lingpai chat lingpai/eliza",
        "lingpai chat lingpai/eliza 'I am sad' --system 'Be kind.'",
        "lingpai chat acme/writer - < question.txt",
    ),
)
app.command(
    "lingpai.cli.doctor:doctor",
    name="doctor",
    help="Find out why calls do not work: address, server, clock, key, data directory. Exit code 1 when a step fails.",
    help_epilogue=examples(
        "lingpai doctor",
        "lingpai doctor https://models.example",
        "lingpai doctor --data /srv/lingpai --json",
        "lingpai doctor --signature refused.http --signed-base base.txt",
    ),
)
