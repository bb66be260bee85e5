"""Settings: read once, at start, from `lingpai.toml`, the environment and the command line, in rising order.

Each part owns its settings (`<part>/settings.py`); here they are put together, read and checked. An unknown key or a
bad value stops the start and names the key.
"""

import dataclasses
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Final, Literal, get_args, get_origin

import msgspec
from msgspec import Meta

from lingpai.authoring import canonical_task
from lingpai.errors import did_you_mean
from lingpai.events.settings import EventsSettings
from lingpai.gateway.settings import GatewaySettings, MaxTokens, Seconds
from lingpai.identity.oauth.settings import OAuthSettings
from lingpai.identity.settings import IdentitySettings
from lingpai.identity.signing.settings import SigningSettings
from lingpai.lane.forwarded import ForwardedHeader, Proxies
from lingpai.lane.tls import ClientCertificates
from lingpai.metering.settings import MeteringSettings
from lingpai.prices import parse_price
from lingpai.quotas.grammar import canonical_limit
from lingpai.quotas.settings import LimitsSettings

ENVIRONMENT_PREFIX: Final = "LINGPAI__"
CONFIG_FILE: Final = "lingpai.toml"


class SettingsError(Exception):
    """The settings cannot be used. The message names the key and says what it wants."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerSettings:
    """Section `[server]`."""

    host: str = field(default="127.0.0.1", metadata={"help": "Address to listen on."})
    port: Annotated[int, Meta(ge=0, le=65535)] = field(
        default=8741, metadata={"help": "Port to listen on; 0 takes a free one."}
    )
    tls_cert: str | None = field(
        default=None,
        metadata={
            "help": "PEM file with the certificate and its chain: speak TLS. Read again when it changes."
        },
    )
    tls_key: str | None = field(
        default=None,
        metadata={
            "help": "PEM file with the certificate's private key, which others may not be able to read."
        },
    )
    tls_client_ca: str | None = field(
        default=None, metadata={"help": "PEM file with the authorities that sign clients' certificates."}
    )
    tls_client_certificates: ClientCertificates = field(
        default="off", metadata={"help": "Whether clients are asked for a certificate, or need one."}
    )
    trusted_proxies: tuple[str, ...] = field(
        default=(),
        metadata={"help": "Addresses and networks of proxies whose word about who calls is taken."},
    )
    forwarded_header: ForwardedHeader = field(
        default="x-forwarded-for",
        metadata={"help": "The header in which these proxies say so; the other one is ignored."},
    )
    insecure: bool = field(
        default=False,
        metadata={"help": "Listen in clear text where others can read along, without declared proxies."},
    )
    default_model: str | None = field(
        default=None,
        metadata={"help": "Model that answers where a call names none; default: the first that fits."},
    )
    keep_alive_s: Seconds = field(
        default=650.0, metadata={"help": "Seconds an idle connection of a caller is kept."}
    )
    stop_timeout_s: Seconds = field(
        default=30.0, metadata={"help": "Seconds that streams may take to finish when the server stops."}
    )
    max_connections: Annotated[int, Meta(ge=0)] = field(
        default=16384,
        metadata={
            "help": "Most connections of callers; the longest idle ones make room. 0: as many as file descriptors allow."
        },
    )
    max_connections_per_address: Annotated[int, Meta(ge=0)] = field(
        default=4096,
        metadata={
            "help": "Most connections from one address (0: any number); this machine's own has no bound."
        },
    )
    max_calls_per_address: Annotated[int, Meta(ge=0)] = field(
        default=0,
        metadata={
            "help": "Most model calls at a time from one address (0: any number); not for this machine's own."
        },
    )
    metrics_token: str | None = field(
        default=None,
        metadata={
            "help": "Token for `GET /metrics` from elsewhere; without one only this machine may read them."
        },
    )
    log_level: Literal["debug", "info", "warning", "error"] = field(
        default="info", metadata={"help": "How much is logged."}
    )
    log_format: Literal["text", "json"] = field(
        default="text", metadata={"help": "Log lines for people or for programs."}
    )
    log_calls: bool = field(
        default=False,
        metadata={"help": "Log one line per model call: who, what, how it ended; never its text."},
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSettings:
    """One `[[models]]` entry: a target beside those of the command line."""

    target: str = field(
        metadata={"help": "As on the command line: `app.py:name`, `http://host:port/v1`, `ollama`, …"}
    )
    name: str | None = field(
        default=None, metadata={"help": "Name of the backend in logs and usage records."}
    )
    api_key_env: str | None = field(
        default=None, metadata={"help": "Environment variable that holds the provider's key."}
    )
    only: tuple[str, ...] = field(default=(), metadata={"help": "Offer only these models of the target."})
    rename: dict[str, str] = field(
        default_factory=dict, metadata={"help": "Own names for the target's models: `{theirs = ours}`."}
    )
    aliases: dict[str, str] = field(
        default_factory=dict,
        metadata={"help": "Further names: `{alias = model}`, for programs with fixed names."},
    )
    task: str | None = field(
        default=None, metadata={"help": "Task of these models where it cannot be discovered."}
    )
    price: dict[str, Any] | None = field(
        default=None,
        metadata={
            "help": 'Price of each of these models: `{input = "0.5", output = "1.5", cached_input = "0.1", request = "0", '
            'currency = "USD"}`, per million tokens (`request`: per call), in USD or CNY.'
        },
    )
    prices: dict[str, dict[str, Any]] = field(
        default_factory=dict, metadata={"help": "Prices of single models: `{model = {…}}`."}
    )
    limits: tuple[str, ...] = field(
        default=(),
        metadata={"help": "Limits of each of these models, shared by all who call it."},
    )
    model_limits: dict[str, tuple[str, ...]] = field(
        default_factory=dict,
        metadata={"help": 'Limits of single models, instead of `limits`: `{model = ["…"]}`.'},
    )
    user_limits: tuple[str, ...] = field(
        default=(), metadata={"help": "Limits that each user has on each of these models."}
    )
    model_user_limits: dict[str, tuple[str, ...]] = field(
        default_factory=dict,
        metadata={"help": "Limits that each user has on single models, instead of `user_limits`."},
    )
    default_max_tokens: MaxTokens | None = field(
        default=None,
        metadata={
            "help": "Longest answer of a call that names no length and has token or money limits; "
            "default: `gateway.default_max_tokens`."
        },
    )
    tokenizer: str | None = field(
        default=None,
        metadata={
            "help": "The models' `tokenizer.json`, to count tokens that the backend does not report. "
            "Relative to the folder of lingpai.toml."
        },
    )
    tokenizers: dict[str, str] = field(
        default_factory=dict, metadata={"help": "Tokenizers of single models: `{model = path}`."}
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """All settings."""

    server: ServerSettings = field(default_factory=ServerSettings)
    gateway: GatewaySettings = field(default_factory=GatewaySettings)
    identity: IdentitySettings = field(default_factory=IdentitySettings)
    oauth: OAuthSettings = field(default_factory=OAuthSettings)
    limits: LimitsSettings = field(default_factory=LimitsSettings)
    metering: MeteringSettings = field(default_factory=MeteringSettings)
    events: EventsSettings = field(default_factory=EventsSettings)
    signing: SigningSettings = field(default_factory=SigningSettings)
    models: tuple[ModelSettings, ...] = ()


SECTIONS: Final[Mapping[str, type[Any]]] = {
    "server": ServerSettings,
    "gateway": GatewaySettings,
    "identity": IdentitySettings,
    "oauth": OAuthSettings,
    "limits": LimitsSettings,
    "metering": MeteringSettings,
    "events": EventsSettings,
    "signing": SigningSettings,
}


def load_settings(
    *, config: Path | None, environment: Mapping[str, str], flags: Mapping[str, Mapping[str, Any]]
) -> Settings:
    """Read the settings.

    `config` is a TOML file (None: `lingpai.toml` in the working directory, if there is one); `environment` holds
    `LINGPAI__SECTION__KEY`; `flags` holds what the command line sets, by section and key, None meaning unset.
    Raises SettingsError.
    """
    given = _read_file(config)
    entries = given.pop("models", [])
    if not isinstance(entries, list):
        raise SettingsError("`models` must be a list of tables: write [[models]], in double brackets.")
    _overlay_environment(given, environment)
    for section, values in flags.items():
        _table(given, section).update({key: value for key, value in values.items() if value is not None})
    known = {name: _section(name, values) for name, values in given.items()}
    _check_limits(known.get("limits", LimitsSettings()))
    _check_proxies(known.get("server", ServerSettings()))
    folder = (config or Path(CONFIG_FILE)).absolute().parent
    models = tuple(
        _model_settings(entry, f"models[{number}]", folder) for number, entry in enumerate(entries)
    )
    return Settings(**known, models=models)


def _model_settings(entry: Any, where: str, folder: Path) -> ModelSettings:
    settings: ModelSettings = _build(ModelSettings, entry, where)
    _check_prices(settings, where)
    changes: dict[str, Any] = {}
    if settings.task is not None:
        try:
            changes["task"] = canonical_task(settings.task)
        except ValueError as error:
            raise SettingsError(f"`{where}.task`: {error}") from error
    for key in ("limits", "user_limits"):
        changes[key] = _canonical_limits(getattr(settings, key), f"{where}.{key}")
    for key in ("model_limits", "model_user_limits"):
        tables: Mapping[str, tuple[str, ...]] = getattr(settings, key)
        changes[key] = {
            name: _canonical_limits(limits, f"{where}.{key}.{name}") for name, limits in tables.items()
        }
    if settings.tokenizer is not None:
        changes["tokenizer"] = _tokenizer(settings.tokenizer, f"{where}.tokenizer", folder)
    changes["tokenizers"] = {
        name: _tokenizer(path, f"{where}.tokenizers.{name}", folder)
        for name, path in settings.tokenizers.items()
    }
    return dataclasses.replace(settings, **changes)


def _check_prices(settings: ModelSettings, where: str) -> None:
    tables = {f"{where}.prices.{name}": table for name, table in settings.prices.items()}
    if settings.price is not None:
        tables[f"{where}.price"] = settings.price
    for key, table in tables.items():
        try:
            parse_price(table)
        except ValueError as error:
            raise SettingsError(f"`{key}`: {error}") from error


def _tokenizer(path: str, key: str, folder: Path) -> str:
    """The absolute path of a tokenizer's file."""
    found = folder / Path(path).expanduser()
    if not found.is_file():
        raise SettingsError(f"`{key}`: There is no file {found}.")
    return str(found)


def _check_limits(limits: LimitsSettings) -> None:
    _canonical_limits(limits.default, "limits.default")


def _check_proxies(server: ServerSettings) -> None:
    try:
        Proxies(server.trusted_proxies)
    except ValueError as error:
        raise SettingsError(f"`server.trusted_proxies`: {error}") from error


def _canonical_limits(limits: tuple[str, ...], key: str) -> tuple[str, ...]:
    try:
        return tuple(canonical_limit(text) for text in limits)
    except ValueError as error:
        raise SettingsError(f"`{key}`: {error}") from error


def _read_file(config: Path | None) -> dict[str, Any]:
    path = config or Path(CONFIG_FILE)
    if config is None and not path.exists():
        return {}
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise SettingsError(f"There is no file {path}.") from None
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"{path} cannot be read: {error}.") from error
    except tomllib.TOMLDecodeError as error:
        raise SettingsError(f"{path} is not valid TOML: {error}.") from error


def _overlay_environment(given: dict[str, Any], environment: Mapping[str, str]) -> None:
    for variable, text in environment.items():
        if variable.startswith(ENVIRONMENT_PREFIX):
            section, _, key = variable.removeprefix(ENVIRONMENT_PREFIX).lower().partition("__")
            _table(given, section)[key] = _FromText(text)


def _table(given: dict[str, Any], section: str) -> dict[str, Any]:
    if section == "models":
        raise SettingsError("[[models]] cannot be set by the environment. Use lingpai.toml.")
    table = given.setdefault(section, {})
    if not isinstance(table, dict):
        raise SettingsError(f"`{section}` must be a table.")
    return table


class _FromText(str):
    """A value that came as text, so it may become a number, a truth value or a comma-separated list."""

    __slots__ = ()


def _section(name: str, values: Any) -> Any:
    if name not in SECTIONS:
        raise SettingsError(f"Unknown section [{name}].{did_you_mean(name, [*SECTIONS, 'models'])}")
    return _build(SECTIONS[name], values, name)


def _build(kind: type[Any], values: Any, where: str) -> Any:
    if not isinstance(values, dict):
        raise SettingsError(f"`{where}` must be a table.")
    fields = {item.name: item for item in dataclasses.fields(kind)}
    converted = {}
    for key, value in values.items():
        if key not in fields:
            raise SettingsError(f"Unknown setting `{where}.{key}`.{did_you_mean(key, fields)}")
        converted[key] = _convert(value, fields[key].type, f"{where}.{key}")
    missing = [
        name
        for name, item in fields.items()
        if name not in converted
        and item.default is dataclasses.MISSING
        and item.default_factory is dataclasses.MISSING
    ]
    if missing:
        raise SettingsError(f"`{where}.{missing[0]}` is missing.")
    try:
        return kind(**converted)
    except ValueError as error:
        raise SettingsError(str(error)) from None


def _convert(value: Any, type_: Any, key: str) -> Any:
    entry = _entry_class(type_)
    if entry is not None:
        return _build_entries(entry, value, key)
    is_text = isinstance(value, _FromText)
    try:
        if is_text and "tuple" in str(type_):
            value = [part.strip() for part in value.split(",") if part.strip()]
        return msgspec.convert(
            str(value) if is_text and isinstance(value, str) else value, type_, strict=not is_text
        )
    except msgspec.ValidationError as error:
        raise SettingsError(f"`{key}`: {error}.") from None


def _entry_class(type_: Any) -> type[Any] | None:
    """The class of the entries where a setting is a list of tables."""
    arguments = get_args(type_) if get_origin(type_) is tuple else ()
    first: Any = arguments[0] if arguments else None
    return first if dataclasses.is_dataclass(first) and isinstance(first, type) else None


def _build_entries(entry: type[Any], values: Any, key: str) -> tuple[Any, ...]:
    if isinstance(values, _FromText) and not values.strip():
        return ()  # an empty variable takes away what the file has
    if not isinstance(values, list):
        raise SettingsError(f"`{key}` must be a list of tables: write [[{key}]], in double brackets.")
    return tuple(_build(entry, each, f"{key}[{number}]") for number, each in enumerate(values))
