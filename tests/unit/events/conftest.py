"""A migrated database, a clock, receivers on real sockets, and events that reach them."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from event_fakes import NOW, SECRET, Clock, Owners, Receiver

from lingpai.events.endpoints import Endpoint, endpoints_from, recipients
from lingpai.events.service import Events
from lingpai.events.settings import WebhookSettings
from lingpai.events.store import SqlEventStore
from lingpai.events.webhooks import WebhookClient, Webhooks
from lingpai.storage.database import Database, sqlite_url


@pytest.fixture(scope="session")
def migrated_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("migrated") / "lingpai.db"
    database = Database(sqlite_url(path))
    database.migrate()
    database.close()
    return path


@pytest.fixture
def database(migrated_file: Path, tmp_path: Path) -> Iterator[Database]:
    path = tmp_path / "lingpai.db"
    shutil.copyfile(migrated_file, path)
    database = Database(sqlite_url(path))
    yield database
    database.close()


@pytest.fixture
def store(database: Database) -> SqlEventStore:
    return SqlEventStore(database)


@pytest.fixture
def clock() -> Clock:
    return Clock(NOW)


@pytest.fixture
def owners() -> Owners:
    return Owners({("key", "k1"): "usr_bob", ("user", "usr_bob"): "usr_bob"})


@pytest.fixture
def receiver() -> Iterator[Callable[..., Receiver]]:
    """Starts receivers: ``receiver(503, 200)`` answers 503, then 200 for ever."""
    started: list[Receiver] = []

    def start(*behaviours: Any) -> Receiver:
        started.append(Receiver(behaviours or (200,)))
        return started[-1]

    yield start
    for each in started:
        each.close()


def endpoints_of(*receivers: Receiver, types: tuple[str, ...] = ()) -> tuple[Endpoint, ...]:
    settings = [WebhookSettings(url=each.url, secret_env="SECRET", types=types) for each in receivers]
    return endpoints_from(settings, {"SECRET": SECRET})


class Post:
    """The parts of one server that have to do with events, as `app.py` joins them; made anew it is the next start."""

    def __init__(
        self, endpoints: tuple[Endpoint, ...], store: SqlEventStore, clock: Clock, owners: Owners
    ) -> None:
        self.webhooks = Webhooks(
            endpoints, store, make_client=lambda: WebhookClient(timeout_s=1.0, clock=clock), clock=clock
        )
        self.events = Events(
            store,
            owners=owners,
            recipients=recipients(endpoints),
            on_stored=self.webhooks.wake,
            clock=clock,
        )

    async def happen(self, message: str = "Something happened.", **details: Any) -> None:
        """An event, stored."""
        self.events.emit("backend.down", message, data={"backend": "b1"}, **details)
        await self.events.flush()

    async def round(self) -> None:
        """One round of every courier, one after the other."""
        for courier in self.webhooks.couriers:
            await courier.deliver_due()


@pytest.fixture
def start(store: SqlEventStore, clock: Clock, owners: Owners) -> Callable[..., Post]:
    """Starts the parts: ``start(receiver, …, types=(…))``."""

    def make(*receivers: Receiver, types: tuple[str, ...] = ()) -> Post:
        return Post(endpoints_of(*receivers, types=types), store, clock, owners)

    return make
