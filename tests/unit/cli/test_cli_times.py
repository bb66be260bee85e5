"""Times as people write and read them."""

from datetime import UTC, datetime, timedelta

import pytest

from lingpai.cli.failures import UsageError
from lingpai.cli.times import expiry_fields, local_zone, shown_distance, shown_time


@pytest.mark.parametrize(
    ("value", "zone"),
    [
        ("Asia/Shanghai", "Asia/Shanghai"),
        (":Europe/Berlin", "Europe/Berlin"),
        ("America/Argentina/Buenos_Aires", "America/Argentina/Buenos_Aires"),
        ("/usr/share/zoneinfo/Asia/Tokyo", "Asia/Tokyo"),
        ("UTC", "UTC"),
        ("CST-8", "UTC"),
    ],
)
def test_zone_from_the_environment(value, zone, tmp_path):
    assert local_zone({"TZ": value}, tmp_path / "nothing") == zone


def test_zone_from_the_link(tmp_path):
    zone_file = tmp_path / "zoneinfo" / "Asia" / "Shanghai"
    zone_file.parent.mkdir(parents=True)
    zone_file.touch()
    (tmp_path / "localtime").symlink_to(zone_file)

    assert local_zone({}, tmp_path / "localtime") == "Asia/Shanghai"


def test_zone_of_a_machine_that_does_not_say(tmp_path):
    assert local_zone({}, tmp_path / "localtime") == "UTC"


@pytest.mark.parametrize(
    ("text", "fields"),
    [
        (None, {}),
        ("90d", {"expires_in": "90d"}),
        ("12 h", {"expires_in": "12h"}),
        ("2027-01-31", {"expires_at": "2027-01-31"}),
        ("2027-01-31T08:00:00Z", {"expires_at": "2027-01-31T08:00:00Z"}),
    ],
)
def test_expiry(text, fields):
    assert expiry_fields(text) == fields


@pytest.mark.parametrize("text", ["", "soon", "0d", "-1d", "31.01.2027", "2027-02-30"])
def test_an_expiry_that_is_none(text):
    with pytest.raises(UsageError, match="90d"):
        expiry_fields(text)


@pytest.mark.parametrize(
    ("distance", "shown"),
    [
        (timedelta(hours=3, minutes=59), "in 3 hours"),
        (timedelta(days=-1), "1 day ago"),
        (timedelta(seconds=0.4), "now"),
        (timedelta(minutes=-2), "2 minutes ago"),
    ],
)
def test_distances(distance, shown):
    assert shown_distance(distance) == shown


def test_a_time_that_is_none_is_shown_as_it_is():
    assert shown_time("tomorrow") == "tomorrow"
    assert shown_time(None) is None


def test_a_time_has_its_distance():
    now = datetime(2026, 11, 20, 8, tzinfo=UTC)

    assert shown_time("2026-11-20T10:00:00Z", now=now).endswith("(in 2 hours)")
