"""Reloading: what a running server takes over, and what it says about the rest."""

import dataclasses

from lingpai.reload import RELOADABLE, plan_reload
from lingpai.settings import SECTIONS, ModelSettings, Settings, load_settings


def settings(tmp_path, text: str) -> Settings:
    config = tmp_path / "lingpai.toml"
    config.write_text(text)
    return load_settings(config=config, environment={}, flags={})


def test_what_can_change_is_taken_over_and_the_rest_waits(tmp_path):
    old = settings(tmp_path, "")
    new = settings(
        tmp_path,
        '[server]\nport = 1\nlog_level = "debug"\nkeep_alive_s = 5\n[gateway]\ncors_origins = ["https://a.test"]\n'
        '[limits]\ndefault = ["7/day"]\n[metering]\nfsync = "never"\n[[models]]\ntarget = "http://h/v1"\n',
    )

    reload = plan_reload(old, new)

    assert reload.changed == (
        "server.keep_alive_s", "server.log_level", "gateway.cors_origins", "limits.default",
    )  # fmt: skip
    assert reload.waiting == ("server.port", "metering.fsync", "models")
    assert (reload.settings.server.log_level, reload.settings.server.port) == ("debug", 8741)
    assert reload.settings.limits.default == ("7/day",)
    assert (reload.settings.metering.fsync, reload.settings.models) == ("interval", ())


def test_same_settings_change_nothing(tmp_path):
    text = '[server]\nport = 1\n[[models]]\ntarget = "http://h/v1"\n'
    old = settings(tmp_path, text)

    reload = plan_reload(old, settings(tmp_path, text))

    assert (reload.settings, reload.changed, reload.waiting) == (old, (), ())
    assert reload.summary == "nothing changed"


def test_what_waits_is_said_again_each_time(tmp_path):
    """It differs from what the server runs with, until it is started anew."""
    old, new = settings(tmp_path, ""), settings(tmp_path, "[server]\nport = 1\n")

    again = plan_reload(plan_reload(old, new).settings, new)

    assert again.waiting == ("server.port",)


def test_summary_names_keys_and_no_values(tmp_path):
    new = settings(tmp_path, '[server]\nmetrics_token = "secret-token"\nkeep_alive_s = 12345\n')

    summary = plan_reload(Settings(), new).summary

    assert summary == "changed server.keep_alive_s; a restart is needed for server.metrics_token"


def test_models_are_compared_whole():
    old = Settings(models=(ModelSettings(target="http://h/v1"),))
    new = Settings(models=(ModelSettings(target="http://h/v1", only=("a",)),))

    assert plan_reload(old, new).waiting == ("models",)


def test_what_is_said_to_be_reloadable_exists():
    for section, keys in RELOADABLE.items():
        assert keys - {"log_calls", "max_connections", "max_connections_per_address"} <= {
            field.name for field in dataclasses.fields(SECTIONS[section])
        }
