"""Settings: file, environment, command line, in rising order; a mistake stops the start and names the key."""

import re
from dataclasses import fields
from pathlib import Path

import pytest

from lingpai.settings import SECTIONS, ModelSettings, Settings, SettingsError, load_settings


@pytest.fixture
def load(tmp_path):
    def load(text: str | None = None, *, environment=None, flags=None) -> Settings:
        config = None
        if text is not None:
            config = tmp_path / "some.toml"
            config.write_text(text, encoding="utf-8")
        return load_settings(config=config, environment=environment or {}, flags=flags or {})

    return load


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path, monkeypatch):
    """No `lingpai.toml` of this machine may matter."""
    monkeypatch.chdir(tmp_path)


def problem(load, *args, **kwargs) -> str:
    with pytest.raises(SettingsError) as caught:
        load(*args, **kwargs)
    return str(caught.value)


# -- where values come from


def test_nothing_given_means_defaults(load):
    assert load() == Settings()


def test_file_is_read(load):
    settings = load('[server]\nport = 1\n[limits]\ndefault = ["5/day"]\n[gateway]\nconnect_timeout_s = 2\n')

    assert settings.server.port == 1
    assert settings.limits.default == ("5/day",)
    assert settings.gateway.connect_timeout_s == 2.0
    assert settings.server.host == "127.0.0.1"


def test_lingpai_toml_of_the_working_directory_is_read_without_being_named(load, tmp_path):
    (tmp_path / "lingpai.toml").write_text("[server]\nport = 7\n")

    assert load().server.port == 7


def test_named_file_replaces_the_one_of_the_working_directory(load, tmp_path):
    (tmp_path / "lingpai.toml").write_text("[server]\nport = 7\nhost = '::1'\n")

    assert load("[server]\nport = 8\n").server == Settings().server.__class__(port=8)


def test_environment_wins_over_the_file_and_flags_over_both(load):
    text = "[server]\nport = 1\nhost = 'file'\nlog_level = 'error'\n"
    environment = {"LINGPAI__SERVER__PORT": "2", "LINGPAI__SERVER__HOST": "environment"}

    server = load(text, environment=environment, flags={"server": {"port": 3, "host": None}}).server

    assert (server.port, server.host, server.log_level) == (3, "environment", "error")


def test_other_variables_of_the_environment_do_not_matter(load):
    environment = {"LINGPAI_SERVER": "https://x", "LINGPAI_DATA": "/x", "PATH": "/bin", "LINGPAI_PEPPER": "x"}

    assert load(environment=environment) == Settings()


@pytest.mark.parametrize(
    ("variable", "text", "expected"),
    [
        ("SERVER__PORT", "8742", 8742),
        ("SERVER__KEEP_ALIVE_S", "2.5", 2.5),
        ("SERVER__KEEP_ALIVE_S", "3", 3.0),
        ("SERVER__METRICS_TOKEN", "12345", "12345"),
        ("SERVER__LOG_FORMAT", "json", "json"),
        ("LIMITS__DEFAULT", "5/day, 10/1s", ("5/day", "10/1s")),
        ("LIMITS__DEFAULT", "5/day", ("5/day",)),
        ("LIMITS__DEFAULT", "", ()),
        ("METERING__FSYNC", "always", "always"),
        (
            "GATEWAY__CORS_ORIGINS",
            "https://a.example,https://b.example",
            ("https://a.example", "https://b.example"),
        ),
    ],
)
def test_text_of_the_environment_becomes_the_type_of_the_setting(load, variable, text, expected):
    section, key = variable.lower().split("__")

    settings = load(environment={f"LINGPAI__{variable}": text})

    assert getattr(getattr(settings, section), key) == expected


# -- mistakes


@pytest.mark.parametrize(
    ("text", "name", "nearest"),
    [
        ("[server]\nprot = 1", "server.prot", "`port`"),
        ("[metering]\nfsnyc = 'never'", "metering.fsnyc", "`fsync`"),
        ("[servre]\nport = 1", "[servre]", "`server`"),
        ("[model]\ntarget = 'x'", "[model]", "`models`"),
        ("port = 1", "[port]", ""),
        ("[[models]]\ntarget = 'ollama'\nrenam = {}", "models[0].renam", "`rename`"),
    ],
)
def test_unknown_key_stops_the_start_with_the_nearest_name(load, text, name, nearest):
    message = problem(load, text)

    assert name in message
    assert nearest in message


def test_unknown_key_of_the_environment_stops_the_start(load):
    message = problem(load, environment={"LINGPAI__SERVER__PROT": "1"})

    assert "server.prot" in message
    assert "`port`" in message


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("[server]\nport = 'many'", "server.port"),
        ("[server]\nport = true", "server.port"),
        ("[server]\nport = 1.5", "server.port"),
        ("[server]\nport = '1'", "server.port"),
        ("[server]\nlog_level = 'loud'", "server.log_level"),
        ("[limits]\ndefault = '5/day'", "limits.default"),
        ("[limits]\ndefault = [5]", "limits.default"),
        ("[server]\nhost = 2026-11-20", "server.host"),
        ("[gateway]\nconnect_timeout_s = 'soon'", "gateway.connect_timeout_s"),
        ("[[models]]\ntarget = 5", "models[0].target"),
        ("[[models]]\ntarget = 'a'\n[[models]]\ntarget = 'b'\nrename = {a = 1}", "models[1].rename"),
    ],
)
def test_value_of_a_wrong_type_names_the_key(load, text, name):
    message = problem(load, text)

    assert message.startswith(f"`{name}`")
    assert re.search("Expected|Invalid", message)


@pytest.mark.parametrize(
    ("variable", "text"),
    [
        ("SERVER__PORT", "many"),
        ("SERVER__PORT", ""),
        ("SERVER__KEEP_ALIVE_S", "long"),
        ("SERVER__LOG_LEVEL", "loud"),
    ],
)
def test_bad_text_of_the_environment_names_the_key(load, variable, text):
    message = problem(load, environment={f"LINGPAI__{variable}": text})

    assert f"`{variable.lower().replace('__', '.')}`" in message


@pytest.mark.parametrize("flags", [{}, {"server": {"port": 1}}])
@pytest.mark.parametrize("environment", [{}, {"LINGPAI__SERVER__PORT": "1"}])
@pytest.mark.parametrize("text", ["server = 5", "server = 'x'", "[[server]]\nport = 1"])
def test_section_that_is_no_table_is_told_to_be_one(load, text, environment, flags):
    """Also when the environment or the command line has something to put into it."""
    message = problem(load, text, environment=environment, flags=flags)

    assert "`server`" in message
    assert "table" in message


@pytest.mark.parametrize(
    "variable", ["LINGPAI__SERVER", "LINGPAI__", "LINGPAI__SERVER__", "LINGPAI__MODELS__TARGET"]
)
def test_variable_that_names_no_setting_stops_the_start(load, variable):
    problem(load, environment={variable: "1"})


def test_missing_file_is_named(load, tmp_path):
    with pytest.raises(SettingsError, match=r"no file .*gone\.toml"):
        load_settings(config=tmp_path / "gone.toml", environment={}, flags={})


def test_broken_toml_says_where(load):
    assert "line 2" in problem(load, "[server]\nport = = 1")


def test_file_that_is_not_utf_8_cannot_be_read(tmp_path):
    path = tmp_path / "latin.toml"
    path.write_bytes(b"[server]\nhost = '\xff'\n")

    with pytest.raises(SettingsError, match="cannot be read"):
        load_settings(config=path, environment={}, flags={})


def test_folder_instead_of_a_file_cannot_be_read(tmp_path):
    with pytest.raises(SettingsError, match="cannot be read"):
        load_settings(config=Path(tmp_path), environment={}, flags={})


# -- [[models]]


def test_models_are_read_in_order(load):
    settings = load(
        "[[models]]\ntarget = 'ollama'\n"
        "[[models]]\ntarget = 'http://h/v1'\nname = 'gpu'\napi_key_env = 'KEY'\nonly = ['a']\n"
        "rename = {a = 'b'}\naliases = {gpt-4o = 'b'}\ntask = 'chat'\n"
    )

    assert settings.models == (
        ModelSettings(target="ollama"),
        ModelSettings(
            target="http://h/v1", name="gpu", api_key_env="KEY", only=("a",),
            rename={"a": "b"}, aliases={"gpt-4o": "b"}, task="chat",
        ),
    )  # fmt: skip


@pytest.mark.parametrize("text", ["[models]\ntarget = 'x'", "models = 'ollama'"])
def test_models_in_single_brackets_are_told_of_double_ones(load, text):
    assert "[[models]]" in problem(load, text)


def test_models_that_are_no_tables_are_named(load):
    assert "`models[1]`" in problem(load, "models = [{target = 'a'}, 'ollama']")


def test_model_without_target_is_named(load):
    assert "`models[0].target` is missing" in problem(load, "[[models]]\nname = 'x'")


# -- all of them


@pytest.mark.parametrize("kind", [*SECTIONS.values(), ModelSettings])
def test_every_setting_has_a_sentence_of_help(kind):
    for item in fields(kind):
        assert item.metadata["help"].endswith((".", "…")), item.name


def test_every_setting_can_come_from_the_environment(load):
    """The defaults, written as text, are read back as they are."""
    defaults = Settings()
    environment = {}
    for section, kind in SECTIONS.items():
        for item in fields(kind):
            value = getattr(getattr(defaults, section), item.name)
            if value is not None:
                text = ",".join(map(str, value)) if isinstance(value, tuple) else str(value)
                environment[f"LINGPAI__{section}__{item.name}".upper()] = text

    assert load(environment=environment) == defaults


# -- prices, limits and tokenizers of models


def models(load, text):
    return load('[[models]]\ntarget = "http://x/v1"\n' + text).models[0]


def test_prices_and_limits_of_models_are_read(load):
    entry = models(
        load,
        'price = {input = "0.5", output = 1.5, currency = "CNY"}\nprices = {"a/b" = {request = "0.01"}}\n'
        'limits = ["100k tokens / day"]\nmodel_limits = {"a/b" = ["8 concurrent wait: 30s"]}\n'
        'user_limits = ["5 USD/month"]\nmodel_user_limits = {"a/b" = []}\ndefault_max_tokens = 512\n',
    )

    assert entry.price == {"input": "0.5", "output": 1.5, "currency": "CNY"}
    assert entry.limits == ("100000 tokens/day",)
    assert entry.model_limits == {"a/b": ("8 concurrent wait 30s",)}
    assert (entry.user_limits, entry.model_user_limits) == (("5 USD/month",), {"a/b": ()})
    assert entry.default_max_tokens == 512


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ('price = {input = "-1"}', "`models[0].price`: `input`"),
        ("price = {input = 1e-9}", "`models[0].price`: `input`"),
        ("price = {output = nan}", "`models[0].price`: `output`"),
        ('price = {inputs = "1"}', "`models[0].price`: Unknown key `inputs`"),
        ('price = {currency = "EUR"}', "`models[0].price`: `currency`"),
        ('price = "1"', "`models[0].price`"),
        ('prices = {m = {input = "x"}}', "`models[0].prices.m`: `input`"),
        ('limits = ["5/fortnight"]', "`models[0].limits`"),
        ('model_limits = {m = ["nonsense"]}', "`models[0].model_limits.m`"),
        ('user_limits = ["-1/day"]', "`models[0].user_limits`"),
        ('model_user_limits = {m = ["x"]}', "`models[0].model_user_limits.m`"),
        ("default_max_tokens = 0", "`models[0].default_max_tokens`"),
        ("default_max_tokens = 10000001", "`models[0].default_max_tokens`"),
        ('tokenizer = "nowhere.json"', "`models[0].tokenizer`: There is no file"),
        ('tokenizers = {m = "nowhere.json"}', "`models[0].tokenizers.m`: There is no file"),
    ],
)
def test_what_is_wrong_with_a_model_is_named_by_its_key(load, text, key):
    message = problem(load, f'[[models]]\ntarget = "http://x/v1"\n{text}\n')

    assert message.startswith(key)


def test_tokenizer_is_found_beside_the_settings(load, tmp_path):
    (tmp_path / "t").mkdir()
    (tmp_path / "t" / "tokenizer.json").write_text("{}")

    entry = models(load, 'tokenizer = "t/tokenizer.json"\ntokenizers = {m = "t/tokenizer.json"}\n')

    assert entry.tokenizer == str(tmp_path / "t" / "tokenizer.json")
    assert entry.tokenizers == {"m": entry.tokenizer}


def test_tables_inside_a_section_are_read_and_checked_by_key(load):
    text = '[[events.webhooks]]\nurl = "https://h/p"\nsecret_env = "S"\n'

    assert load(text).events.webhooks[0].url == "https://h/p"
    assert "`events.webhooks[0].tipes`" in problem(load, text + 'tipes = ["x"]\n')
    assert "`events.webhooks[0].secret_env` is missing" in problem(load, '[[events.webhooks]]\nurl = "x"\n')
    assert "write [[events.webhooks]]" in problem(load, '[events]\nwebhooks = "https://h/p"\n')
