"""What the bench reads out of wrk."""

import pytest

from bench.calls import outside_bound
from bench.wrk import CALL, parse, script

PRINTED = """\
Running 6s test @ http://127.0.0.1:20123/v1/chat/completions
  1 threads and 64 connections
  Thread Stats   Avg      Stdev     Max   +/- Stdev
    Latency     2.09ms    1.07ms  29.15ms   92.25%
    Req/Sec    21.86k     2.48k   24.67k    82.50%
  120000 requests in 6.00s, 70.91MB read
Requests/sec:  20000.00
Transfer/sec:     17.69MB

{"requests": 120000, "microseconds": 6000000, "p50_us": 1900, "p99_us": 8250, "bad_statuses": 2, "broken": 1}
"""


def test_counts_are_read_from_the_last_line() -> None:
    load = parse(PRINTED)

    assert load.requests == 120_000
    assert load.calls_per_s == 20_000
    assert (load.p50_ms, load.p99_ms) == (1.9, 8.25)
    assert load.errors == 3


@pytest.mark.parametrize("output", ["", "unable to connect to 127.0.0.1:1 Connection refused\n"])
def test_output_without_counts_is_refused(output: str) -> None:
    with pytest.raises(ValueError, match="no counts"):
        parse(output)


def test_one_key_is_a_fixed_header_and_several_are_taken_in_turn() -> None:
    assert 'wrk.headers["Authorization"] = "Bearer one"' in script(CALL, ["one"])
    assert "request = function" not in script(CALL, ["one"])

    assert '"one", "two"' in script(CALL, ["one", "two"])
    assert "request = function" in script(CALL, ["one", "two"])


@pytest.mark.parametrize(
    ("reported", "wrong"),
    [(100, 0), (164, 0), (165, 1), (99, 1)],
    ids=["equal", "all in flight recorded", "too many", "one lost"],
)
def test_a_report_may_exceed_the_count_by_the_calls_in_flight_only(reported: int, wrong: int) -> None:
    assert outside_bound(reported, 100, in_flight=64) == wrong
