"""The parts that stand on the database: users, keys, projects, limits, usage, events. Built by `app`, one per server."""

from collections.abc import Callable, Mapping
from math import ceil
from pathlib import Path
from typing import Any

import lingpai.audit.tables
import lingpai.identity.oauth.tables
import lingpai.identity.sessions.tables
import lingpai.identity.signing.tables  # noqa: F401  an empty database gets every table that is imported here
from lingpai.catalog.interfaces import Backend
from lingpai.catalog.service import Catalog
from lingpai.catalog.store import SqlTargetStore
from lingpai.events.endpoints import endpoints_from, recipients
from lingpai.events.service import Events
from lingpai.events.store import SqlEventStore
from lingpai.events.webhooks import Webhooks
from lingpai.identity.keyring import Keyring
from lingpai.identity.known_ids import KnownIds, SqlIds, fill_in_background
from lingpai.identity.peppers import Peppers, peppers_from_file, peppers_from_text
from lingpai.identity.projects import Projects
from lingpai.identity.service import Keys, Users
from lingpai.identity.signing.nonces import FileNonceStore
from lingpai.identity.signing.sealing import PepperSealer
from lingpai.identity.signing.service import SigningKeys
from lingpai.identity.signing.verifying import SigningKeyring
from lingpai.identity.store import SqlCredentialStore
from lingpai.limit_subjects import ServedModels, Subjects
from lingpai.metering.requests import SqlRequestStore
from lingpai.metering.retention import Retention
from lingpai.metering.service import UsageReport
from lingpai.metering.store import SqlUsageStore
from lingpai.metering.watch import Damage
from lingpai.names import Names, Owners
from lingpai.quotas.book import LimitBook
from lingpai.quotas.calendar_meter import CalendarMeter
from lingpai.quotas.grammar import canonical_limit
from lingpai.quotas.interfaces import Subject
from lingpai.quotas.meter import Meter
from lingpai.quotas.store import SqlLimitStore
from lingpai.settings import Settings
from lingpai.storage.database import Database, sqlite_url
from lingpai.storage.metadata import metadata
from lingpai.storage.trail import NoTrail
from lingpai.targets import CatalogLimits


class Domains:
    """Opens the database, brings it up to date and builds what stands on it.

    `on_identity_change` is told, in any thread, which key, user or project changed, and when that began;
    `on_limits_change`, on the event loop, whose limits on a model did. Raises what is wrong with the settings of webhooks or with the pepper.
    """

    def __init__(
        self,
        settings: Settings,
        catalog: Catalog,
        *,
        data: Path,
        environment: Mapping[str, str],
        on_identity_change: Callable[[str, str, float], None],
        on_limits_change: Callable[[Subject], None],
    ) -> None:
        endpoints = endpoints_from(settings.events.webhooks, environment)
        self.database = Database(sqlite_url(data / "lingpai.db"))
        self.database.migrate(metadata)
        self.targets = SqlTargetStore(self.database)
        self.names = Names(self.database)
        self._peppers = _peppers(data, environment)
        self._open_identity(settings, self._peppers, on_identity_change)
        self._open_signing(settings, data, on_identity_change)
        self._open_limits(catalog, on_limits_change)
        self.usage = SqlUsageStore(self.database)
        self.usage_report = UsageReport(self.usage)
        self.requests = SqlRequestStore(self.database)
        self.retention = Retention(self.database, settings.metering.retention_days)
        store = SqlEventStore(self.database)
        self.webhooks = Webhooks(endpoints, store)
        self.events = Events(
            store,
            owners=Owners(self.database),
            recipients=recipients(endpoints),
            on_stored=self.webhooks.wake,
        )

    def learn_key_ids(self) -> None:
        """Begin to read the ids of all keys, so that garbage needs no look-up. Changes must be heard of already."""
        fill_in_background(self.known_ids, SqlIds(self.database))

    def set_default_limits(self, limits: tuple[str, ...]) -> None:
        """Change the limits that new users and keys get when none are given."""
        self.users.set_default_limits(limits)
        self.keys.set_default_limits(limits)

    def close(self) -> None:
        """Close the database, and the file of nonces."""
        self.nonces.close()
        self.database.close()

    def note_threshold(self, meter: Meter, percent: int, now: float) -> None:
        """Make an event of so much of a calendar limit being used; the limiter's `on_threshold`."""
        if not isinstance(meter, CalendarMeter):
            raise TypeError(meter)  # only calendar limits have thresholds
        self.events.emit_threshold(
            meter.subject,
            label=meter.label,
            limit=str(meter.limit),
            unit=meter.limit.unit,
            percent=percent,
            used=meter.used - meter.reserved,  # as the percentages are told of what is used for good
            amount=meter.amount,
            window=(meter.starts_at, meter.ends_at),
            now=now,
        )

    def note_backend(self, backend: Backend, why: str | None, down_s: float) -> None:
        """Make an event of a backend that is away (and why), or (None) back after so many seconds."""
        data: dict[str, Any] = {"backend": backend.name, "kind": backend.kind}
        if why is not None:
            message = f"Backend `{backend.name}` is away, and calls to its models fail. {why}"
            self.events.emit("backend.down", message, data={**data, "reason": why})
        else:
            message = f"Backend `{backend.name}` is back, after {ceil(down_s)} s."
            self.events.emit("backend.up", message, data={**data, "down_s": ceil(down_s)})

    def note_damage(self, damage: Damage) -> None:
        """Make an event of a part of the usage journal that could not be read; once, however often it is told."""
        self.events.emit(
            "journal.damaged",
            f"{damage.description}. Calls recorded there are missing from the usage; everything else was loaded.",
            data={"segment": damage.segment, "description": damage.description},
            once=f"{damage.id} {damage.found_at}",
            occurred_at=damage.found_at,
        )

    def note_delay(self, waiting_s: float, records: int, size: int) -> None:
        """Make an event of usage records that wait for the database too long."""
        self.events.emit(
            "usage.delayed",
            f"Usage records have been waiting for {ceil(waiting_s)} s to get into the database: {records} of them,"
            " kept in the journal. The log says what stops them.",
            data={"waiting_s": ceil(waiting_s), "waiting_records": records, "waiting_bytes": size},
        )

    def _open_identity(
        self, settings: Settings, peppers: Peppers, on_change: Callable[[str, str, float], None]
    ) -> None:
        shared: dict[str, Any] = {"on_change": on_change, "validate_limit": canonical_limit}
        defaults = settings.limits.default
        self.known_ids = KnownIds()
        self.keyring = Keyring(SqlCredentialStore(self.database), peppers, known_ids=self.known_ids)
        self.users = Users(self.database, default_limits=defaults, **shared)
        self.keys = Keys(self.database, peppers=peppers, default_limits=defaults, **shared)
        self.projects = Projects(self.database, **shared)
        self.users.ensure_admin()

    def _open_signing(
        self, settings: Settings, data: Path, on_change: Callable[[str, str, float], None]
    ) -> None:
        sealer = PepperSealer(self._peppers)
        self.nonces = FileNonceStore(
            data / "nonces",
            most=settings.signing.max_nonces,
            most_per_key=settings.signing.max_nonces_per_key,
        )
        self.signing_keyring = SigningKeyring(self.database, sealer)
        self.signing_keys = SigningKeys(self.database, on_change=on_change, sealer=sealer, trail=NoTrail())

    def _open_limits(self, catalog: Catalog, on_change: Callable[[Subject], None]) -> None:
        self.models = ServedModels(catalog)
        self.book = LimitBook(
            SqlLimitStore(self.database), configured=CatalogLimits(catalog), on_change=on_change
        )
        self.book.load()
        self.subjects = Subjects(
            self.database,
            keys=self.keys,
            users=self.users,
            projects=self.projects,
            book=self.book,
            models=self.models,
        )


def _peppers(data: Path, environment: Mapping[str, str]) -> Peppers:
    text = environment.get("LINGPAI_PEPPER")
    return peppers_from_text(text) if text else peppers_from_file(data / "secrets" / "pepper.json")
