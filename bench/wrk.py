"""wrk, the load generator for plain calls."""

import json
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from bench.payloads import CALL_BODY, CALL_PATH
from bench.processes import BenchError
from bench.run import Run

CONNECTIONS: Final = 64

_COMMON: Final = """\
wrk.method = "POST"
wrk.headers["Content-Type"] = "{content_type}"
wrk.body = [==[{body}]==]

done = function(summary, latency, requests)
  local errors = summary.errors
  io.write(string.format(
    '\\n{{"requests": %d, "microseconds": %d, "p50_us": %d, "p99_us": %d, "bad_statuses": %d, "broken": %d}}\\n',
    summary.requests, summary.duration, latency:percentile(50), latency:percentile(99),
    errors.status, errors.connect + errors.read + errors.write + errors.timeout))
end
"""

_ONE_KEY: Final = """\
wrk.headers["Authorization"] = "Bearer {key}"
"""

# The requests are made once and then taken in turn: making one costs wrk more than sending it.
_SEVERAL_KEYS: Final = """\
local keys = {{ {keys} }}
local requests = {{}}
local turn = 0
init = function(arguments)
  for index, key in ipairs(keys) do
    wrk.headers["Authorization"] = "Bearer " .. key
    requests[index] = wrk.format()
  end
end
request = function()
  turn = turn % #requests + 1
  return requests[turn]
end
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """What wrk counted. It leaves out up to `CONNECTIONS` calls that were under way when its time was up."""

    requests: int
    seconds: float
    p50_ms: float
    p99_ms: float
    errors: int

    @property
    def calls_per_s(self) -> float:
        return self.requests / self.seconds


@dataclass(frozen=True, slots=True)
class Posted:
    """What is posted, and where."""

    path: str
    content_type: str
    body: str


CALL: Final = Posted(CALL_PATH, "application/json", CALL_BODY)
"""The model call that everything here is measured with."""


def script(posted: Posted, keys: Sequence[str]) -> str:
    """The Lua script that posts with each of `keys` in turn (none: without one) and prints its counts as JSON."""
    common = _COMMON.format(body=posted.body, content_type=posted.content_type)
    if not keys:
        return common
    if len(keys) == 1:
        return common + _ONE_KEY.format(key=keys[0])
    return common + _SEVERAL_KEYS.format(keys=", ".join(f'"{key}"' for key in keys))


def parse(output: str) -> Load:
    """The counts in what wrk has printed: the last line. Raises ValueError when they are not there."""
    lines = output.strip().splitlines()
    if not lines or not lines[-1].startswith("{"):
        raise ValueError(f"wrk printed no counts: {output!r}")
    counts: dict[str, Any] = json.loads(lines[-1])
    return Load(
        requests=counts["requests"],
        seconds=counts["microseconds"] / 1e6,
        p50_ms=counts["p50_us"] / 1e3,
        p99_ms=counts["p99_us"] / 1e3,
        errors=counts["bad_statuses"] + counts["broken"],
    )


def put_under_load(
    run: Run,
    port: int,
    *,
    seconds: int,
    keys: Sequence[str] = (),
    posted: Posted = CALL,
    is_tls: bool = False,
) -> Load:
    """Call as fast as `CONNECTIONS` connections can for `seconds`. Raises BenchError when any answer is not 200."""
    path = run.folder / "post.lua"
    path.write_text(script(posted, keys), encoding="utf-8")
    url = f"{'https' if is_tls else 'http'}://127.0.0.1:{port}{posted.path}"
    command = [run.wrk, "-t1", f"-c{CONNECTIONS}", f"-d{seconds}s", "-s", str(path), url]
    outcome = subprocess.run(
        ["taskset", "-c", str(run.cpus.load), *command], capture_output=True, text=True, check=False
    )
    if outcome.returncode:
        raise BenchError(f"wrk failed: {outcome.stderr.strip() or outcome.stdout.strip()}")
    load = parse(outcome.stdout)
    if load.errors or not load.requests:
        raise BenchError(
            f"{load.errors} of {load.requests} calls failed; what is fast and wrong does not count"
        )
    return load
