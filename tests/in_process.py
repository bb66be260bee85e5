"""A whole server in this process: sockets, parser, keys, limits, journal and ingester are all real.

It runs here, and not in a process of its own, where what happens inside it must be seen: every step of the limits, every
exception, whatever is left behind.
"""

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lingpai.app import Application
from lingpai.identity.schemas import KeyCreate, UserCreate
from lingpai.quotas.meter import Meter
from lingpai.settings import ModelSettings, Settings


class InProcessServer:
    """Start and stop it on a running event loop."""

    def __init__(self, folder: Path, settings: Settings, targets: Sequence[ModelSettings]) -> None:
        self.application = Application(settings, data=folder / "data", environment={})
        self.port = 0
        self._targets = tuple(targets)

    async def start(self) -> None:
        started = await self.application.start(self._targets)
        self.port = int(started.address.rpartition(":")[2])
        self._running = asyncio.create_task(self.application.run())

    async def stop(self) -> None:
        self.application.request_stop()
        await self._running
        await self.application.stop()

    async def make_user(self, name: str, limits: Sequence[str]) -> None:
        await self._as_administrator(
            self.application.domains.users.create, UserCreate(name=name, limits=list(limits))
        )

    async def make_key(self, name: str, limits: Sequence[str], *, user: str | None = None) -> str:
        body = KeyCreate(name=name, limits=list(limits), user=user)
        made = await self._as_administrator(self.application.domains.keys.create, body)
        return str(made.token)

    def left_behind(self) -> list[str]:
        """What callers who have all left hold still; nothing, soon."""
        application = self.application
        calls = [f"call {front.call}" for front in application.server.fronts if front.call is not None]
        busy = [
            f"upstream for {upstream.receiver}"
            for link in application.gateway._links.values()
            for upstream in link.pool.open_connections
            if upstream.receiver is not None
        ]
        held = [
            f"{meter.limit} of {meter.label}: {meter.reserved} reserved"
            for meter in self.meters()
            if meter.reserved
        ]
        return calls + busy + held

    async def wait_until_free(self, seconds: float = 5.0) -> list[str]:
        """What is still held when the time is over."""
        deadline = asyncio.get_running_loop().time() + seconds
        while (left := self.left_behind()) and asyncio.get_running_loop().time() < deadline:
            await asyncio.sleep(0.02)
        return left

    def meters(self) -> set[Meter]:
        """Of all principals in memory and the models they have called."""
        accounts = [
            each.account for each in self.application.domains.keyring.principals() if each.account is not None
        ]
        found: set[Meter] = set()
        for account in accounts:
            found.update(account.meters)
            for access in account.accesses.values():
                found.update(() if access.limits is None else access.limits.meters)
        return found

    async def _as_administrator(self, do: Any, body: Any) -> Any:
        return await asyncio.to_thread(do, self.application.local_administrator, body)
