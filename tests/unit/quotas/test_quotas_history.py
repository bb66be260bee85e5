"""Rebuilding what is used after a restart."""

from hypothesis import given, settings
from hypothesis import strategies as st
from quota_doubles import KEY, NOON_ISH, RecordedHistory, SlowRate, VirtualClock, attach

from lingpai.quotas import history as history_module
from lingpai.quotas.amounts import Amounts
from lingpai.quotas.limiter import MemoryLimiter


def restored(times: list[float], limit: str, now: float = NOON_ISH):
    return attach(MemoryLimiter(RecordedHistory(times), VirtualClock(now)), KEY, limit)[0]


def test_a_calendar_window_counts_what_lies_in_it():
    midnight = NOON_ISH - 16 * 3600  # in Shanghai

    meter = restored([midnight - 0.001, midnight, NOON_ISH - 1], "5/day@Asia/Shanghai")

    assert meter.used == 2


def test_a_window_that_ends_before_the_meter_is_attached_is_left_behind():
    clock = VirtualClock(NOON_ISH - 0.5)
    limiter = MemoryLimiter(RecordedHistory([NOON_ISH - 1] * 3), clock)
    snapshot = limiter.read_history(KEY, ("3/hour",))
    clock.advance(1)

    [meter] = limiter.attach(KEY, ("3/hour",), snapshot)

    assert meter.remaining(clock()) == 3


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_a_rate_is_rebuilt_exactly_after_a_pause_and_otherwise_never_more_generous(data):
    amount, period = data.draw(st.sampled_from([(1, 1), (5, 10), (7, 60)]))
    model, now = SlowRate(amount, period), NOON_ISH
    for pause in data.draw(st.lists(st.floats(0, period), max_size=40)):
        now += pause
        if model.admits(now):
            model.times.append(now)
    now += data.draw(st.floats(0, period))

    meter = restored(model.times, f"{amount}/{period}s", now)

    since = now - 2 * period
    if any(since - period <= time < since for time in model.times):
        assert meter.remaining(now) <= model.remaining(now)
    else:
        assert meter.remaining(now) == model.remaining(now)


def test_a_rate_whose_history_starts_busy_is_taken_to_be_full_there():
    """The schedule is full until ten seconds after the start; the requests since push it into the present."""
    since = NOON_ISH - 20
    requests = [since + 9] * 5 + [since + 12] * 6

    quiet_before = restored(requests, "10/10s")
    busy_before = restored([since - 9.0, *requests], "10/10s")

    assert quiet_before.remaining(NOON_ISH) == 10
    assert busy_before.remaining(NOON_ISH) == 9


def test_a_rate_with_a_lowered_amount_is_used_up_but_no_longer_than_a_period():
    meter = restored([NOON_ISH] * 1000, "10/10s")

    assert meter.remaining(NOON_ISH) == 0
    assert meter.free_at(NOON_ISH) == NOON_ISH + 1
    assert meter.resets_at(NOON_ISH) == NOON_ISH + 10


def test_requests_beyond_a_lowered_amount_are_forgotten_after_a_period_too():
    meter = restored([NOON_ISH - 15.0] * 1000, "10/10s")

    assert meter.remaining(NOON_ISH) == 10


def test_a_very_long_history_is_counted_instead_of_replayed_and_errs_on_the_safe_side(monkeypatch):
    times = [NOON_ISH - 0.1 * number for number in range(90, 0, -1)]
    exact = restored(times, "100/10s").remaining(NOON_ISH)
    monkeypatch.setattr(history_module, "REPLAY_MOST", 50)

    counted = restored(times, "100/10s").remaining(NOON_ISH)

    assert counted == 10
    assert counted <= exact


def test_requests_from_the_future_block_for_a_period_at_most():
    """The clock was set back by a day while the server was down."""
    meter = restored([NOON_ISH + 86_400] * 3, "10/10s")

    assert meter.remaining(NOON_ISH) == 0
    assert meter.resets_at(NOON_ISH) == NOON_ISH + 10


def test_each_unit_is_rebuilt_from_what_was_charged_of_it():
    history = RecordedHistory()
    history.charges = [(NOON_ISH - 4000, Amounts(tokens=700)), (NOON_ISH - 2, Amounts(tokens=50, usd=9))]

    meters = attach(
        MemoryLimiter(history, VirtualClock(NOON_ISH)),
        KEY,
        "9/day",
        "900 tokens/day",
        "90 tokens/9s",
        "1 USD/day",
    )

    assert [meter.used_at(NOON_ISH) for meter in meters] == [2, 750, 30, 9]
    assert [meter.reserved for meter in meters] == [0, 0, 0, 0]


def test_a_snapshot_needs_nothing_for_concurrent_calls():
    limiter = MemoryLimiter(RecordedHistory(), VirtualClock(NOON_ISH))

    [meter] = limiter.attach(KEY, ("3 concurrent",))

    assert meter.remaining(NOON_ISH) == 3


def test_a_rate_of_tokens_remembers_what_a_long_call_took_when_it_ended():
    """The history tells the time of the end; the call began before everything that the rate looks back on."""

    class ToldByTheirEnd(RecordedHistory):
        def charged_since(self, subject, unit, since):
            return 1000 if since <= NOON_ISH - 500 else 0

        def charges_since(self, subject, unit, since):
            return [(NOON_ISH - 1, 1000)] if since <= NOON_ISH - 500 else []

    [meter] = attach(MemoryLimiter(ToldByTheirEnd(), VirtualClock(NOON_ISH)), KEY, "1000 tokens/10s")

    assert meter.remaining(NOON_ISH) == 100
