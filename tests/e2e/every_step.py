"""A server in this process whose limits are looked at after every step: `python -m tests.e2e.every_step FOLDER ENGINE SCRIPT SEED`.

A process of its own, with nothing in it but the server and its callers. Prints what was seen, as JSON.
"""

import asyncio
import collections
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lingpai.gateway.settings import GatewaySettings
from lingpai.quotas.limit_set import LimitSet
from lingpai.quotas.limiter import MemoryLimiter
from lingpai.settings import ModelSettings, ServerSettings, Settings
from tests.e2e.limited_callers import EACH_USER, KEYS, MODEL, ON_MODEL, PRICES, USER, Callers
from tests.in_process import InProcessServer


class EveryStep:
    """Looks at all limits of a call after each step that the call takes with them."""

    def __init__(self) -> None:
        self.steps: collections.Counter[str] = collections.Counter()
        self.over: list[str] = []
        self.fullest: dict[str, float] = {}
        for name in ("admit", "reserve", "extend", "settle"):  # `give_back` settles
            setattr(MemoryLimiter, name, self._looking(name, getattr(MemoryLimiter, name)))

    def _looking(self, name: str, step: Callable[..., Any]) -> Callable[..., Any]:
        def looking(limiter: MemoryLimiter, limits: LimitSet, *told: Any) -> Any:
            outcome = step(limiter, limits, *told)
            self.steps[name] += 1
            for meter in limits.meters:
                if not 0 <= meter.reserved <= meter.used <= meter.amount:
                    self.over.append(
                        f"{meter.limit} of {meter.label}: {meter.used}, {meter.reserved} reserved"
                    )
                self.fullest[meter.unit] = max(self.fullest.get(meter.unit, 0), meter.used / meter.amount)
            return outcome

        return looking


async def play(folder: Path, engine: str, script: str, seed: int) -> dict[str, Any]:
    """All callers to their ends, and what is left then."""
    every_step = EveryStep()
    settings = Settings(
        server=ServerSettings(port=0), gateway=GatewaySettings(first_byte_timeout_s=0.5, idle_timeout_s=0.5)
    )
    target = ModelSettings(
        target=engine, name="engine", prices={MODEL: PRICES}, limits=ON_MODEL, user_limits=EACH_USER
    )
    server = InProcessServer(folder, settings, [target])
    await server.start()
    await server.make_user("ada", USER)
    keys = [await server.make_key(name, limits, user="ada") for name, limits in KEYS.items()]
    callers = Callers(server.port, keys, script, seed)
    await callers.run()
    left = await server.wait_until_free()
    odd = [
        f"{meter.limit}: {meter.used}"
        for meter in server.meters()
        if meter.reserved or meter.used > meter.amount
    ]
    await server.stop()
    callers.check()
    return {
        "over": every_step.over, "left": left, "odd": odd, "steps": every_step.steps, "fullest": every_step.fullest,
        "statuses": callers.statuses, "refused_by": callers.refused_by,
    }  # fmt: skip


if __name__ == "__main__":
    _, folder, engine, script, seed = sys.argv
    print(json.dumps(asyncio.run(play(Path(folder), engine, script, int(seed)))))
