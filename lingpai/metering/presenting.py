"""Records and report rows as the management API shows them: names for ids, decimals for money, times in a zone."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, Final
from zoneinfo import ZoneInfo

from lingpai.metering.interfaces import UsageNames
from lingpai.metering.service import Group, UsageRow
from lingpai.prices import NANO, decimal_text
from lingpai.web.periods import iso_in_zone

Fields = dict[str, Any]

WITH_IDS: Final = frozenset({"key", "client", "project"})
"""Groups of a report that show their id beside the name: names of these are not unique, and change."""


class NameBook:
    """Names that were looked up once. All methods but `name` block."""

    def __init__(self, names: UsageNames) -> None:
        self._look_up = {
            "key": names.key_names,
            "client": names.client_names,
            "user": names.user_names,
            "project": names.project_names,
        }
        self._known: dict[str, dict[str, str]] = {kind: {} for kind in self._look_up}

    def learn(self, kind: str, ids: Collection[str]) -> None:
        """Look up those of the ids that are new. An id without a name is its own."""
        known = self._known[kind]
        new = {id_ for id_ in ids if id_ and id_ not in known}
        if new:
            found: Mapping[str, str] = self._look_up[kind](new)
            known.update({id_: found.get(id_, id_) for id_ in new})

    def learn_records(self, records: Sequence[Any]) -> None:
        """Look up the names that records need."""
        for kind in self._known:
            self.learn(kind, {getattr(record, f"{kind}_id") for record in records})

    def learn_rows(self, by: Sequence[Group], rows: Iterable[UsageRow]) -> None:
        """Look up the names that report rows need."""
        for index, group in enumerate(by):
            if group in self._known:
                self.learn(group, {row.group[index] for row in rows})

    def name(self, kind: str, id_: str) -> str | None:
        """The name of what was learned; None for no id, which stands for a call without a key, client or project."""
        return self._known[kind][id_] if id_ else None


def record_fields(record: Any, book: NameBook, zone: ZoneInfo) -> Fields:
    """A record as the fields of `RequestBody`, in its order."""
    has_price = bool(record.currency)
    return {
        "id": record.request_id,
        "started_at": iso_in_zone(record.started_at, zone),
        "key": book.name("key", record.key_id),
        "key_id": record.key_id or None,
        "client": book.name("client", record.client_id),
        "client_id": record.client_id or None,
        "user": book.name("user", record.user_id) or "",
        "user_id": record.user_id,
        "project": book.name("project", record.project_id),
        "project_id": record.project_id or None,
        "model": record.model or None,
        "backend": record.backend or None,
        "task": record.task or None,
        "endpoint": record.endpoint,
        "status": record.status,
        "end_reason": record.end_reason,
        "first_byte_ms": None if record.first_byte_ms is None else round(record.first_byte_ms, 3),
        "duration_ms": round(record.duration_ms, 3),
        "queued_ms": round(record.queued_ms, 3),
        "prompt_tokens": record.prompt_tokens,
        "completion_tokens": record.completion_tokens,
        "cached_tokens": record.cached_tokens,
        "reasoning_tokens": record.reasoning_tokens,
        "counted": record.counted,
        "cost": decimal_text(record.cost) if has_price else None,
        "currency": record.currency or None,
        "charged": record.charged,
        "charged_tokens": record.charged_tokens,
        "charged_cost": decimal_text(record.charged_cost) if has_price else None,
        "retries": record.retries,
        "client_address": record.client_address,
    }


def group_fields(row: UsageRow, by: Sequence[Group], book: NameBook) -> Fields:
    """The group of a report row: names, and beside them the ids that can be looked up."""
    fields: Fields = {}
    for group, value in zip(by, row.group, strict=True):
        if group in WITH_IDS:
            fields |= {group: book.name(group, value), f"{group}_id": value or None}
        else:
            fields[group] = book.name(group, value) if group == "user" else value
    return fields


def amount_fields(row: UsageRow) -> Fields:
    """What a report row adds up, as the fields of `UsageRowBody`."""
    currency = next(iter(row.costs)) if len(row.costs) == 1 else None
    # The nearest double to the exact decimal; `costs` has the decimal itself.
    cost = row.costs[currency] / NANO if currency else None if row.costs else 0.0
    return {
        "requests": row.requests,
        "prompt_tokens": row.prompt_tokens,
        "completion_tokens": row.completion_tokens,
        "cost": cost,
        "errors": row.errors,
        "refused": row.refused,
        "currency": currency,
        "costs": {name: decimal_text(amount) for name, amount in row.costs.items()},
        "cached_tokens": row.cached_tokens,
        "reasoning_tokens": row.reasoning_tokens,
        "charged": row.charged,
        "charged_tokens": row.charged_tokens,
        "charged_costs": {name: decimal_text(amount) for name, amount in row.charged_costs.items()},
    }
