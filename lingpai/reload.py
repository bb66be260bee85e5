"""What SIGHUP changes: the settings that a running server can take over, and what has to wait for the next start.

The settings are read again, from the file and with the environment and flags of the start. A file that cannot be used
changes nothing. Certificates belong here too, when there are any: they are read again whether their paths changed or
not, because renewing replaces the files.
"""

import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from lingpai.settings import SECTIONS, Settings

RELOADABLE: Final[Mapping[str, frozenset[str]]] = {
    "server": frozenset({
        "default_model", "keep_alive_s", "log_calls", "log_format", "log_level", "max_connections",
        "max_connections_per_address", "stop_timeout_s", "tls_cert", "tls_client_ca", "tls_key",
    }),
    "gateway": frozenset({
        "connect_timeout_s", "cors_origins", "default_max_tokens", "first_byte_timeout_s", "idle_timeout_s",
        "max_answer_bytes", "max_body_bytes", "max_choices", "max_messages",
    }),
    "oauth": frozenset({
        "access_token_format", "access_token_lifetime", "issuer", "jwt_algorithm", "jwt_lifetime", "password_grant",
        "refresh_family_lifetime", "refresh_grace", "refresh_token_lifetime",
    }),
    "limits": frozenset({"default", "evict_after_s"}),
    "metering": frozenset({"usage_wait_s"}),
}  # fmt: skip
"""By section; of the files, which others they are, but not that there are any. Everything else was built into something at the start: sockets, the journal, the connections to models."""


@dataclass(frozen=True, slots=True)
class Reload:
    """What to do about new settings."""

    settings: Settings
    """The old ones, with all that can be taken over."""
    changed: tuple[str, ...]
    """What was taken over, as ``section.key``."""
    waiting: tuple[str, ...]
    """What differs and needs a restart, in the same form; ``models`` for the targets."""

    @property
    def summary(self) -> str:
        """A sentence for the log. It names keys and no values: some are secret."""
        said = f"changed {', '.join(self.changed)}" if self.changed else "nothing changed"
        return f"{said}; a restart is needed for {', '.join(self.waiting)}" if self.waiting else said


def plan_reload(old: Settings, new: Settings) -> Reload:
    """What of `new` a server that runs with `old` takes over."""
    changed: list[str] = []
    waiting: list[str] = []
    sections: dict[str, Any] = {}
    for name in SECTIONS:
        before, after = getattr(old, name), getattr(new, name)
        taken: dict[str, Any] = {}
        for key, value in _differences(before, after):
            if key in RELOADABLE.get(name, ()) and not _comes_or_goes(key, before, after):
                taken[key] = value
                changed.append(f"{name}.{key}")
            else:
                waiting.append(f"{name}.{key}")
        sections[name] = dataclasses.replace(before, **taken)
    if old.models != new.models:
        waiting.append("models")
    return Reload(dataclasses.replace(old, **sections), tuple(changed), tuple(waiting))


def _comes_or_goes(key: str, before: Any, after: Any) -> bool:
    """Whether a certificate's file is named for the first time, or no more: then TLS would begin, or end."""
    return key.startswith("tls_") and None in (getattr(before, key), getattr(after, key))


def _differences(before: Any, after: Any) -> Iterator[tuple[str, Any]]:
    for field in dataclasses.fields(before):
        value = getattr(after, field.name)
        if value != getattr(before, field.name):
            yield field.name, value
