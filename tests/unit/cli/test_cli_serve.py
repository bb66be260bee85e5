"""`lingpai serve`: what it makes of the command line. The server itself is in tests/unit/serving and tests/e2e."""

import pytest

from lingpai.cli import app, execute, serve
from lingpai.serving.options import ServeOptions

ALL = (
    "serve app.py http://127.0.0.1:8000/v1 --config a.toml --data d --host :: --port 0 --tls-cert c.pem --tls-key k.pem"
    " --insecure --reload --log-level debug --log-format json"
)


def test_reload_is_a_switch():
    command, bound, _ = app.parse_args(["serve", "app.py", "--reload"], exit_on_error=False)

    assert command is serve.serve
    assert bound.arguments["reload"] is True
    assert bound.args == ("app.py",)


@pytest.mark.parametrize(
    ("line", "options"),
    [
        ("serve", ServeOptions()),
        (
            ALL,
            ServeOptions(
                targets=("app.py", "http://127.0.0.1:8000/v1"),
                config="a.toml",
                data="d",
                reload=True,
                server={
                    "host": "::", "port": 0, "tls_cert": "c.pem", "tls_key": "k.pem", "insecure": True,
                    "log_level": "debug", "log_format": "json",
                },
            ),
        ),
    ],
)  # fmt: skip
def test_what_was_typed_is_handed_over_and_nothing_else(monkeypatch, line, options):
    handed = []

    def note(self):
        handed.append(self)

    monkeypatch.setattr(ServeOptions, "become_server", note)

    assert execute(line.split()) == 0

    assert handed == [options]


@pytest.mark.parametrize("mistake", [("--port", "many"), ("--log-level", "loud"), ("--prot", "1")])
def test_a_mistake_is_told_before_a_server_is_loaded(lingpai, mistake):
    outcome = lingpai("serve", *mistake, environment={"PYTHONPROFILEIMPORTTIME": "1"})

    assert outcome.returncode != 0
    assert "lingpai.serving.options" in outcome.stderr
    assert "uvicorn" not in outcome.stderr
