"""The section `[events]` of the settings."""

from dataclasses import dataclass, field
from typing import Annotated

from msgspec import Meta


@dataclass(frozen=True, slots=True, kw_only=True)
class WebhookSettings:
    """One `[[events.webhooks]]` entry: an address that events are sent to."""

    url: str = field(metadata={"help": "Address that gets a POST for each event: `https://host/path`."})
    secret_env: str = field(
        metadata={
            "help": "Environment variable with the secret that signs: `whsec_` and base64 of 24 to 64 bytes. "
            "Two of them with a blank between, while receivers change over: both sign."
        }
    )
    types: tuple[str, ...] = field(default=(), metadata={"help": "Send only these types of events."})


@dataclass(frozen=True, slots=True, kw_only=True)
class EventsSettings:
    """How long events are kept, and where they are sent."""

    keep_days: Annotated[int, Meta(ge=4)] = field(
        default=90, metadata={"help": "Days that events are kept; at least 4, as deliveries are tried for 3."}
    )
    webhooks: tuple[WebhookSettings, ...] = field(
        default=(), metadata={"help": "Where events are sent: one `[[events.webhooks]]` table for each."}
    )
