"""What the API shows of a limit."""

from quota_doubles import NOON_ISH, USER, admitted_at_once, fresh_meters

from lingpai.quotas.description import describe


def test_every_limit_is_shown_with_what_is_left_and_when_it_resets():
    [daily] = fresh_meters("2000/day@Asia/Shanghai")
    [smooth] = fresh_meters("3/1m", subject=USER)
    daily.take(NOON_ISH)
    admitted_at_once(smooth, NOON_ISH)

    assert describe([daily, smooth], NOON_ISH + 20.5) == [
        {
            "subject": "key",
            "limit": "2000/day@Asia/Shanghai",
            "unit": "requests",
            "used": 1,
            "reserved": 0,
            "remaining": 1999,
            "resets_at": "2026-11-20T16:00:00Z",
            "resets_in_s": 28780,
        },
        {
            "subject": "user",
            "limit": "3/1m",
            "unit": "requests",
            "used": 2,
            "reserved": 0,
            "remaining": 1,
            "resets_at": "2026-11-20T08:01:00Z",
            "resets_in_s": 40,
        },
    ]


def test_an_unused_rate_resets_now():
    [state] = describe(fresh_meters("3/1m"), NOON_ISH)

    assert (state["remaining"], state["resets_at"], state["resets_in_s"]) == (3, "2026-11-20T08:00:00Z", 0)


def test_money_is_a_decimal_text_and_what_is_reserved_is_part_of_what_is_used():
    [meter] = fresh_meters("0.5 USD/day wait 5s", subject=("project", "p1"))
    meter.reserve(NOON_ISH, 125_000_000)

    assert describe([meter], NOON_ISH) == [
        {
            "subject": "project",
            "limit": "0.5 USD/day wait 5s",
            "unit": "USD",
            "used": "0.125",
            "reserved": "0.125",
            "remaining": "0.375",
            "resets_at": "2026-11-21T00:00:00Z",
            "resets_in_s": 57600,
        }
    ]


def test_concurrent_calls_do_not_reset():
    [meter] = fresh_meters("3 concurrent")
    meter.take(NOON_ISH)

    [state] = describe([meter], NOON_ISH)

    assert (state["used"], state["remaining"], state["resets_at"], state["resets_in_s"]) == (1, 2, None, None)
