"""A server in front of engines with priced models, and callers who share nothing but what a test gives them."""

import asyncio
import itertools
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import openai
from openai import OpenAI

from tests.e2e.lingpai_server import LingpaiServer
from tests.fakes.openai_engine import EngineCall, FakeEngine, answer_well

MODELS = 200
"""How many models each engine has, so that every test can take some that nobody else calls."""

PROMPT = "callerscanary"
"""One word of two tokens by our estimate, because some tests have limits of few tokens."""

CONFIG = """
[[models]]
target = "{dollars}"
name = "dollars"
price = {{ input = "2.5", output = "10", currency = "USD" }}

[[models]]
target = "{yuan}"
name = "yuan"
price = {{ input = "3", output = "7", currency = "CNY" }}

[[models]]
target = "{free}"
name = "free"
"""


def assert_spaced(times: Sequence[float], *, at_once: int, per_s: float) -> None:
    """Of calls admitted at these times, in order, so many came at once, and no more than `per_s` after them.

    However late a call came: what was admitted between any two of them is bounded.
    """
    for number, last in enumerate(times):
        for before, first in enumerate(times[:number]):
            more = number - before + 1 - at_once
            assert last - first >= more / per_s - 0.001, (before, number, times)


@dataclass
class World:
    """The server, and engines whose models are priced in USD (`usd/0`, `usd/1`, …), in CNY (`cny/…`), or not (`free/…`)."""

    server: LingpaiServer
    engines: dict[str, FakeEngine]
    _numbers: Iterator[int] = field(default_factory=itertools.count)

    @classmethod
    def start(cls, folder: Path, **options: Any) -> "World":
        engines = {
            name: FakeEngine(models=tuple(f"{name}/{number}" for number in range(MODELS))).start()
            for name in ("usd", "cny", "free")
        }
        config = CONFIG.format(
            dollars=engines["usd"].url, yuan=engines["cny"].url, free=engines["free"].url
        ) + options.pop("config", "")
        return cls(LingpaiServer(folder, config=config, **options).start(), engines)

    def stop(self) -> None:
        self.server.stop()
        for engine in self.engines.values():
            engine.stop()

    def caller(self, *, of: str = "usd") -> "Caller":
        """A new user with a project and a key, and two models that nobody else calls."""
        number = next(self._numbers)
        user = f"user-{number}"
        self.server.admin("POST", "/api/v1/users", {"name": user, "limits": ["none"]})
        self.server.admin("POST", "/api/v1/projects", {"name": f"project-{number}", "owner": user})
        model, spare = (f"{of}/{2 * number + each}" for each in range(2))
        return Caller(self, user, f"project-{number}", model, spare).with_key(f"key-{number}")

    @contextmanager
    def held(self, caller: "Caller") -> Iterator[None]:
        """While a call of `caller` is under way."""
        has_come, may_end = threading.Event(), threading.Event()

        async def hold(call: EngineCall) -> None:
            has_come.set()
            while not may_end.is_set():
                await asyncio.sleep(0.005)
            await answer_well(call)

        script = self.engines[caller.model.partition("/")[0]].script(hold)

        def call() -> None:
            with suppress(openai.APIError):  # the server may stop meanwhile
                caller.call(script=script)

        thread = threading.Thread(target=call)
        thread.start()
        try:
            assert has_come.wait(10)
            yield
        finally:
            may_end.set()
            thread.join(10)


@dataclass
class Caller:
    """Somebody with a key, who calls a model with the stock SDK."""

    world: World
    user: str
    project: str
    model: str
    spare: str
    """Another model of the same engine."""
    key: str = ""
    sdk: OpenAI = field(default=None, repr=False)  # type: ignore[assignment]  # `with_key` sets it

    def with_key(self, name: str, *, project: str | None = None) -> "Caller":
        """The same user with a new key."""
        fields = {"user": self.user, "project": self.project if project is None else project}
        secret = self.world.server.make_key(name, **{k: v for k, v in fields.items() if v})
        sdk = self.world.server.openai(secret)
        return Caller(self.world, self.user, self.project, self.model, self.spare, name, sdk)

    def limit(self, subject: str, limits: Sequence[str]) -> None:
        """Set limits on the caller's key, user, project, model, on the user on the model, or on each user of it."""
        body: dict[str, Any] = {"subject": subject, "id": getattr(self, subject, None)}
        if subject in {"user_model", "each user"}:
            user = self.user if subject == "user_model" else "*"
            body = {"subject": "user_model", "user": user, "model": self.model}
        self.world.server.admin("PUT", "/api/v1/limits", {**body, "limits": list(limits)})

    def call(self, *, model: str | None = None, **fields: Any) -> Any:
        """A chat call that asks for at most 8 tokens; the SDK's answer."""
        return self.sdk.chat.completions.create(
            model=model or self.model,
            messages=[{"role": "user", "content": PROMPT}],
            max_tokens=8,
            extra_body={name: value for name, value in fields.items() if name != "stream"},
            **({"stream": fields["stream"]} if "stream" in fields else {}),
        )

    def refusal(self, *, model: str | None = None) -> openai.RateLimitError | None:
        """What a call is refused with; None when it is answered."""
        try:
            self.call(model=model)
        except openai.RateLimitError as error:
            return error
        return None

    def explain(self, *, model: str | None = None) -> dict[str, Any]:
        """The API's explanation of what applies to a call."""
        answer = self.world.server.admin(
            "GET", f"/api/v1/limits/explain?key={self.key}&model={model or self.model}"
        )
        return dict(answer)

    def used(self) -> dict[str, Any]:
        """What the caller's limits say is used, by limit."""
        return {row["limit"]: row["used"] for row in self.explain()["data"]}
