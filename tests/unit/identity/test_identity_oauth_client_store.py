"""The table of clients: when a client's tokens were last used."""

from collections.abc import Callable

import pytest
from identity_fakes import NOW

from lingpai.identity.interfaces import Use
from lingpai.identity.oauth.clients import Clients
from lingpai.identity.oauth.interfaces import Client
from lingpai.identity.oauth.schemas import ClientCreate
from lingpai.principal import Principal


@pytest.fixture
def make(clients: Clients, admin: Principal) -> Callable[[str], Client]:
    return lambda name: clients.create(admin, ClientCreate(name=name)).client


def test_last_use_is_noted_and_nothing_else_changes(
    clients: Clients, admin: Principal, make: Callable[[str], Client]
) -> None:
    nightly, hourly = make("nightly"), make("hourly")

    clients.touch([
        Use("client", nightly.client_id, NOW, "192.0.2.7"),
        Use("client", hourly.client_id, NOW + 1, None),
        Use("client", "cl-lp-000000000000", NOW, "192.0.2.7"),
    ])  # fmt: skip

    found = {client.id: (client.last_used_at, client.last_used_ip) for client in clients.list(admin)}
    assert found == {nightly.id: (NOW, "192.0.2.7"), hourly.id: (NOW + 1, None)}


def test_earlier_use_never_replaces_a_later_one(
    clients: Clients, admin: Principal, make: Callable[[str], Client]
) -> None:
    nightly = make("nightly")

    for time, address in ((NOW, "192.0.2.7"), (NOW - 60, "192.0.2.8")):
        clients.touch([Use("client", nightly.client_id, time, address)])

    assert clients.get(admin, "nightly").last_used_ip == "192.0.2.7"
