"""The program as a whole: help, unknown commands, exit codes, what is imported."""

import json
import subprocess
import sys

import pytest

from lingpai.cli import app, execute


def pages(command, name=()):
    """The command itself and all below it, by their words."""
    yield list(name)
    for word in command:
        if not word.startswith("-"):
            yield from pages(command[word], (*name, word))


PAGES = list(pages(app))
GROUPS = [page[:-1] for page in PAGES]
# `serve` prints no data, and `usage` is both a command and a group of them.
COMMANDS = [page for page in PAGES if page not in [*GROUPS, ["serve"]] or page == ["usage"]]


@pytest.mark.parametrize("page", PAGES, ids=" ".join)
def test_every_help_page_ends_with_its_own_examples(capsys, page):
    code = execute([*page, "--help"])

    text = capsys.readouterr().out
    examples = text[text.index("Examples:\n") :].splitlines()[1:]
    assert code == 0
    assert examples
    assert all(line.startswith("  ") for line in examples)
    assert any(" ".join(["lingpai", *page]) in line for line in examples)


@pytest.mark.parametrize("page", COMMANDS, ids=" ".join)
def test_every_command_offers_json(capsys, page):
    execute([*page, "--help"])

    assert "--json" in capsys.readouterr().out


def test_no_command_takes_a_key_as_an_argument(capsys):
    """An argument would be in the process list. `--api-key-stdin` takes none."""
    for page in PAGES:
        execute([*page, "--help"])
    assert "--api-key" not in capsys.readouterr().out.replace("--api-key-stdin", "")


def test_help_and_commands_load_no_server_code(surroundings, tmp_path):
    """Plain `pip install lingpai` has nothing of the server."""
    program = """
import sys
from lingpai.cli import app, execute
execute(["--help"])
for name in app:
    if not name.startswith("-"):
        app[name]
print(*sys.modules, file=sys.stderr)
"""

    outcome = subprocess.run(
        [sys.executable, "-c", program],
        env=surroundings,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )

    loaded = {name.partition(".")[0] for name in outcome.stderr.split()}
    assert not loaded & {
        "fastapi",
        "starlette",
        "sqlalchemy",
        "alembic",
        "uvicorn",
        "uvloop",
        "httptools",
        "pydantic",
    }


def test_help_alone_loads_no_http_client(surroundings, tmp_path):
    """What `lingpai --help` does not need must not slow it down."""
    program = (
        "import sys; from lingpai.cli import execute; execute(['--help']); sys.exit('httpx2' in sys.modules)"
    )

    outcome = subprocess.run(
        [sys.executable, "-c", program], env=surroundings, cwd=tmp_path, capture_output=True, check=False
    )

    assert outcome.returncode == 0


def test_an_unknown_command_names_the_nearest(lingpai):
    outcome = lingpai("kyes", "list")

    assert outcome.returncode == 2
    assert outcome.stdout == ""
    assert "Did you mean `keys`" in outcome.stderr


def test_an_unknown_subcommand_names_the_nearest(lingpai):
    outcome = lingpai("keys", "craete", "x")

    assert outcome.returncode == 2
    assert "`create`" in outcome.stderr


def test_an_unknown_option_names_the_nearest(lingpai):
    outcome = lingpai("usage", "--sicne", "7d")

    assert outcome.returncode == 2
    assert "--since" in outcome.stderr


def test_a_missing_argument_is_a_usage_error_that_names_the_help_page(lingpai):
    outcome = lingpai("projects", "members", "add", "search")

    assert outcome.returncode == 2
    assert outcome.stderr.startswith(
        "error: `lingpai projects members add` needs USER. `lingpai projects members add --help` shows"
    )


def test_an_option_without_its_value_is_named(lingpai):
    outcome = lingpai("keys", "create", "my-app", "--limit")

    assert outcome.returncode == 2
    assert "--limit requires an argument" in outcome.stderr


def test_the_reader_may_leave_early(api, surroundings):
    """`lingpai keys list --json | head -1` ends without a traceback."""
    for number in range(300):
        api.add_key(f"key-{number}")
    command = f"{sys.executable} -m lingpai.cli keys list --json | head -1"

    outcome = subprocess.run(
        ["/bin/sh", "-c", command],
        env=surroundings,
        capture_output=True,
        text=True,
        check=False,
    )

    assert outcome.stdout == "[\n"
    assert outcome.stderr == ""


def test_an_encoding_without_the_signs_does_not_end_the_command(lingpai, api):
    api.add_key("钥匙")

    table = lingpai("keys", "list", environment={"PYTHONIOENCODING": "latin-1", "PYTHONUTF8": "0"})
    document = lingpai(
        "keys", "list", "--json", environment={"PYTHONIOENCODING": "latin-1", "PYTHONUTF8": "0"}
    )

    assert table.returncode == 0
    assert json.loads(document.stdout)[0]["name"] == "钥匙"


def test_an_argument_that_is_not_text_is_refused(capsys):
    code = execute(["keys", "create", "\udcff"])

    assert code == 2
    assert "Argument 3" in capsys.readouterr().err
