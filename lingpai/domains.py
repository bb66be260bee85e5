"""The parts that stand on the database: users, keys, projects, limits, usage, events. Built by `app`, one per server."""

import time
from collections.abc import Callable, Mapping, Sequence
from math import ceil
from pathlib import Path
from typing import Any, Final

import lingpai.identity.oauth.tables
import lingpai.identity.sessions.tables
import lingpai.identity.signing.tables  # noqa: F401  an empty database gets every table that is imported here
from lingpai.audit.service import SqlTrail
from lingpai.catalog.interfaces import Backend
from lingpai.catalog.service import Catalog
from lingpai.catalog.store import SqlTargetStore
from lingpai.events.endpoints import endpoints_from, recipients
from lingpai.events.service import Events
from lingpai.events.store import SqlEventStore
from lingpai.events.webhooks import Webhooks
from lingpai.identity.invitations.leaked_invitations import LeakedInvitations
from lingpai.identity.keyring import Keyring
from lingpai.identity.known_ids import KnownIds, LookUps, SqlIds, fill_in_background
from lingpai.identity.leaks import Finder, Leak, LeakedKeys, LeakReports
from lingpai.identity.members import Members
from lingpai.identity.minting import Minting
from lingpai.identity.oauth.client_authentication import ClientAuthenticator
from lingpai.identity.oauth.client_store import SqlClientIds, SqlClientReader
from lingpai.identity.oauth.clients import Clients
from lingpai.identity.oauth.interfaces import CLIENT_ID_PREFIX
from lingpai.identity.oauth.jwt_tokens import JwtTokens
from lingpai.identity.oauth.known_clients import KnownClients
from lingpai.identity.oauth.leaked_clients import LeakedClientSecrets
from lingpai.identity.oauth.leaked_tokens import LeakedAccessTokens, LeakedJwts, LeakedRefreshTokens
from lingpai.identity.oauth.live_tokens import LiveTokens
from lingpai.identity.oauth.passwords import CheckedPasswords
from lingpai.identity.oauth.server import AuthorizationServer
from lingpai.identity.oauth.token_request import Parts
from lingpai.identity.oauth.token_store import SqlTokenIds, SqlTokenStore
from lingpai.identity.oauth.tokens import TokenMint
from lingpai.identity.people import People
from lingpai.identity.peppers import Peppers
from lingpai.identity.projects import Projects
from lingpai.identity.rotation import KeyRotation
from lingpai.identity.service import Keys, Users
from lingpai.identity.sessions.ending import SessionEnder
from lingpai.identity.sessions.leaked_sessions import LeakedSessions
from lingpai.identity.signing.leaked_signing_keys import LeakedSigningKeys
from lingpai.identity.signing.nonces import FileNonceStore
from lingpai.identity.signing.service import SigningKeys
from lingpai.identity.signing.verifying import SigningKeyring
from lingpai.identity.store import SqlCredentialStore
from lingpai.identity.token_ids import TokenIds
from lingpai.lane.doorman import is_shared, network_of
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
from lingpai.server_secrets import ServerSecrets
from lingpai.settings import Settings
from lingpai.storage.database import Database, sqlite_url
from lingpai.storage.group_commit import GroupCommit
from lingpai.storage.metadata import metadata
from lingpai.targets import CatalogLimits

_PAUSE_S: Final = 0.02
"""Between two transactions that delete what has expired: whoever waits for the write lock shall get it."""


class Domains:
    """Opens the database, brings it up to date and builds what stands on it.

    `on_identity_change` is told, in any thread, which key, user or project changed, and when that began;
    `on_limits_change`, on the event loop, whose limits on a model did. Raises what is wrong with the settings of webhooks or with the secrets.
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
        self.trail = SqlTrail(self.database)
        self.names = Names(self.database)
        self.secrets = ServerSecrets(self.database, data=data, environment=environment, trail=self.trail)
        self.targets = SqlTargetStore(self.database, self.secrets.sealer, trail=self.trail)
        self._open_identity(settings, on_identity_change)
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
        fill_in_background(self._client_ids, SqlClientIds(self.database))
        self.known_tokens.renew(SqlTokenIds(self.database))

    def forget_client(self, client_id: str) -> None:
        """A client (`cl-lp-…`) was made or has changed: what is in memory of it and of its tokens goes."""
        self._client_ids.add(client_id.removeprefix(CLIENT_ID_PREFIX))
        self.keyring.forget_client(client_id)

    def renew_token_ids(self) -> None:
        """Let go of the ids of tokens that have expired. Call it now and then."""
        self.known_tokens.renew(SqlTokenIds(self.database))

    def delete_expired_tokens(self) -> None:
        """Delete the tokens and families that have ended, a few at a time. Blocks."""
        store, now = SqlTokenStore(), time.time()
        while True:
            with self.database.write(durable=False) as connection:
                if not store.delete_expired(connection, now=now):
                    return
            time.sleep(_PAUSE_S)

    def set_default_limits(self, limits: tuple[str, ...]) -> None:
        """Change the limits that new users and keys get when none are given."""
        self.clients.set_default_limits(limits)
        self.users.set_default_limits(limits)
        self.keys.set_default_limits(limits)

    def close(self) -> None:
        """Close the database, after those who use it, and the file of nonces."""
        self._commit.close()
        self.people.close()
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

    def note_leak(self, leak: Leak) -> None:
        """Make an event of a credential that somebody has found where it should not be."""
        self.events.emit(
            "key.leaked",
            f"{leak.what} was reported as leaked. {leak.done}",
            data={"kind": leak.kind, "id": leak.id},
            subject=leak.about or (leak.kind, leak.id),
        )

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

    def _open_identity(self, settings: Settings, on_change: Callable[[str, str, float], None]) -> None:
        shared: dict[str, Any] = {
            "on_change": on_change,
            "validate_limit": canonical_limit,
            "trail": self.trail,
        }
        defaults = settings.limits.default
        self._minting = Minting(settings.identity.credentials_per_hour)
        minted: dict[str, Any] = {
            "peppers": self.secrets.peppers,
            "default_limits": defaults,
            "minting": self._minting,
        }
        self.known_ids = KnownIds()
        self.known_tokens = TokenIds()
        peppers = self.secrets.peppers
        jwts = JwtTokens(
            self.secrets.token_keys,
            issuer=lambda: self.authorization.issuer(),  # noqa: PLW0108  built below, with these
        )
        self.keyring = Keyring(
            SqlCredentialStore(self.database),
            peppers,
            known_ids=self.known_ids,
            known_tokens=self.known_tokens,
            jwts=jwts,
            rehashes=self.secrets.rehashes,
        )
        self.users = Users(
            self.database,
            default_limits=defaults,
            end_sessions=SessionEnder(self.trail).end_of_user,
            **shared,
        )
        self.keys = Keys(self.database, **minted, **shared)
        self.clients = Clients(self.database, **minted, **shared)
        self.live_tokens = LiveTokens(self.database, on_change=on_change, trail=self.trail)
        self.projects = Projects(self.database, **shared)
        self.members = Members(self.database, on_change=on_change, trail=self.trail)
        self.rotation = KeyRotation(
            self.database, on_change=on_change, peppers=peppers, trail=self.trail, minting=self._minting
        )
        self.users.ensure_admin()
        self.people = People(
            self.database,
            settings=settings.identity,
            peppers=peppers,
            network_of=_network_of,
            generation=lambda: self.keyring.generation,
            on_change=on_change,
            trail=self.trail,
        )
        self._open_leaks(settings, jwts, on_change)
        self._open_authorization(settings, peppers, jwts)

    def _open_leaks(
        self, settings: Settings, jwts: JwtTokens, on_change: Callable[[str, str, float], None]
    ) -> None:
        peppers, sessions = self.secrets.peppers, self.people.sessions
        told: dict[str, Any] = {"on_change": on_change, "trail": self.trail}
        idle_s = settings.identity.session_idle_s
        finders: dict[str, Finder] = {
            "sk-lp-": LeakedKeys(self.database, peppers, **told),
            "at-lp-": LeakedAccessTokens(peppers, **told),
            "eyJ": LeakedJwts(jwts, peppers, **told),
            "rt-lp-": LeakedRefreshTokens(peppers, **told),
            "cs-lp-": LeakedClientSecrets(peppers, **told),
            "sg-lp-": LeakedSigningKeys(self.secrets.sealer, **told),
            "ss-lp-": LeakedSessions(peppers, idle_s=idle_s, on_ended=sessions.forget, trail=self.trail),
            "in-lp-": LeakedInvitations(peppers, trail=self.trail),
        }
        self.leaks = LeakReports(self.database, finders, on_leak=self.note_leak)

    def _open_authorization(self, settings: Settings, peppers: Peppers, jwts: JwtTokens) -> None:
        self._commit = GroupCommit(self.database)
        self._client_ids = KnownIds()
        known = KnownClients(
            SqlClientReader(self.database),
            peppers,
            generation=lambda: self.keyring.changes,
            ids=self._client_ids,
            rehashes=self.secrets.rehashes,
        )
        self.authorization = AuthorizationServer(
            authenticator=ClientAuthenticator(known, LookUps(), same_network=network_of),
            parts=Parts(
                mint=TokenMint(peppers, settings.oauth),
                jwts=jwts,
                is_known_token=self.known_tokens.is_known,
                database=self.database,
                commit=self._commit.run,
                trail=self.trail,
                passwords=CheckedPasswords(self.people.passwords),
                on_revoked=self._forget_tokens,
            ),
            database=self.database,
            known_tokens=self.known_tokens,
            settings=settings.oauth,
        )

    def _forget_tokens(self, ids: Sequence[str]) -> None:
        for each in ids:
            self.keyring.forget_token(each)

    def _open_signing(
        self, settings: Settings, data: Path, on_change: Callable[[str, str, float], None]
    ) -> None:
        sealer = self.secrets.sealer
        self.nonces = FileNonceStore(
            data / "nonces",
            most=settings.signing.max_nonces,
            most_per_user=settings.signing.max_nonces_per_user,
        )
        self.signing_keyring = SigningKeyring(self.database, sealer)
        shared: dict[str, Any] = {
            "on_change": on_change,
            "sealer": sealer,
            "trail": self.trail,
            "minting": self._minting,
        }
        self.signing_keys = SigningKeys(self.database, **shared)
        self.client_signing_keys = SigningKeys(self.database, of="client", **shared)

    def _open_limits(self, catalog: Catalog, on_change: Callable[[Subject], None]) -> None:
        self.models = ServedModels(catalog)
        self.book = LimitBook(
            SqlLimitStore(self.database, trail=self.trail),
            configured=CatalogLimits(catalog),
            on_change=on_change,
        )
        self.book.load()
        self.subjects = Subjects(
            self.database,
            keys=self.keys,
            clients=self.clients,
            users=self.users,
            projects=self.projects,
            book=self.book,
            models=self.models,
        )


def _network_of(address: str) -> str | None:
    """The network that stands for who calls from `address`; None for this machine, whose proxy anybody may be behind."""
    network = network_of(address)
    return None if is_shared(network) else network
