"""The process that `lingpai serve` becomes: how it begins, and what it does not keep in memory."""

import subprocess
import sys

from lingpai.serving.options import ServeOptions, read_options


def python(*arguments, cwd):
    return subprocess.run(
        [sys.executable, *arguments], cwd=cwd, capture_output=True, text=True, timeout=60, check=False
    )


def test_options_arrive_as_they_were_sent(tmp_path):
    """Through a real `execv`, which keeps the process id."""
    options = ServeOptions(targets=("模型.py:f", "a b"), data="/tmp/d", server={"port": 0, "insecure": True})
    program = f"""
import os, sys
from lingpai.serving.options import ServeOptions
sys.executable = {str(tmp_path / "show")!r}
print(os.getpid())
ServeOptions(targets={options.targets!r}, data={options.data!r}, server={options.server!r}).become_server()
"""
    show = tmp_path / "show"
    show.write_text(f"#!{sys.executable}\nimport os, sys; print(os.getpid(), *sys.argv[1:], sep=chr(10))\n")
    show.chmod(0o755)

    before, after, *command = python("-c", program, cwd=tmp_path).stdout.splitlines()

    assert before == after
    assert command[:3] == ["-P", "-m", "lingpai.serving"]
    assert read_options(command[3]) == options


def test_started_by_hand_it_says_what_to_start(tmp_path):
    outcome = python("-m", "lingpai.serving", cwd=tmp_path)

    assert outcome.returncode == 2
    assert outcome.stderr.startswith("error: This is the process that `lingpai serve` becomes")


def test_a_folder_without_the_server_s_packages_is_told_what_to_install(tmp_path):
    (tmp_path / "uvloop.py").write_text("raise ModuleNotFoundError('No module named uvloop', name='uvloop')")
    program = (
        "import runpy, sys; sys.argv[1:] = ['{}']; runpy.run_module('lingpai.serving', run_name='__main__')"
    )

    outcome = python("-c", program, cwd=tmp_path)

    assert outcome.returncode == 1
    assert "pip install 'lingpai[server]'" in outcome.stderr
    assert "Traceback" not in outcome.stderr


def test_a_server_keeps_nothing_in_memory_that_only_commands_need(tmp_path):
    """And no dialect of a database that is not used, nor what changes tables: together a tenth of its memory."""
    outcome = python("-c", "import sys, lingpai.serving.process; print(*sys.modules)", cwd=tmp_path)

    loaded = set(outcome.stdout.split())
    assert "lingpai.app" in loaded
    assert not loaded & {"cyclopts", "rich", "lingpai.cli", "alembic", "sqlalchemy.dialects.postgresql"}
