"""SIGHUP: what can change does, without a connection lost; a bad file changes nothing."""

import signal
import time

from tests.e2e.conftest import MakeServer
from tests.e2e.lingpai_server import LingpaiServer
from tests.e2e.raw_http import RawConnection, chat, post_bytes


def reload(server: LingpaiServer, config: str, said: str) -> None:
    (server.folder / "lingpai.toml").write_text(config)
    assert server.process is not None
    server.process.send_signal(signal.SIGHUP)
    deadline = time.monotonic() + 5
    while said not in server.stderr:
        assert time.monotonic() < deadline, server.stderr
        time.sleep(0.02)


def test_settings_change_and_connections_stay(make_server: MakeServer, engine):
    server = make_server(engine.url, config="").start()
    request = post_bytes("/v1/chat/completions", chat("x" * 2000), key=server.key)
    with RawConnection(server.port) as connection:
        connection.send(request)
        before = connection.read_answer().status
        reload(
            server,
            '[server]\nlog_calls = true\nlog_format = "json"\n[gateway]\nmax_body_bytes = 1000\n[metering]\nfsync = "never"\n',
            "a restart is needed for",
        )
        connection.send(request)
        after = connection.read_answer().status

    assert (before, after) == (200, 413)
    assert "changed server.log_format, server.log_calls, gateway.max_body_bytes" in server.stderr
    assert '"logger": "lingpai.calls"' in server.stderr


def test_bad_file_changes_nothing_and_says_why(make_server: MakeServer, engine):
    server = make_server(engine.url, config="").start()
    request = post_bytes("/v1/chat/completions", chat("x" * 2000), key=server.key)

    reload(server, "[gateway\n", "not reloaded, the old ones stay: lingpai.toml is not valid TOML")
    reload(server, "[gateway]\nmax_body_bytez = 1000\n", "Unknown setting `gateway.max_body_bytez`")
    reload(server, '[limits]\ndefault = ["often"]\n', "`limits.default`")

    with RawConnection(server.port) as connection:
        connection.send(request)
        assert connection.read_answer().status == 200
    assert server.stop() == 0
