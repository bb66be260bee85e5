"""Formats of strings in the OpenAPI document beyond those of JSON Schema: what an example of each looks like is tested.

They are not checked by the schema but by the rules of each part, whose messages say more than a pattern could.
"""

from typing import Any, Literal

Format = Literal[
    "client-grant",
    "cursor",
    "ed25519-public-key",
    "expiry",
    "http-request",
    "lifetime",
    "limit",
    "model-pattern",
    "name",
    "network",
    "overlap",
    "period",
    "period-end",
    "scope",
    "time-zone",
    "usage-groups",
    "user-name",
]


def formatted(name: Format) -> dict[str, Any]:
    """The `json_schema_extra` of a string in one of our formats."""
    return {"format": name}
