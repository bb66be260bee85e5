"""The tables of the concepts page are complete."""

import inspect
import re

from document_parts import ROOT

from lingpai.errors import CATALOGUE
from lingpai.gateway.settings import GatewaySettings
from lingpai.identity.scopes import Scope
from lingpai.lane import front, server, upstream
from lingpai.lane.fronts import watch_fronts
from lingpai.metering.service import _COLUMNS as GROUPS
from lingpai.settings import ServerSettings

PAGE = (ROOT / "docs" / "concepts.md").read_text(encoding="utf-8")


def test_every_scope_is_in_the_table_of_scopes():
    table = PAGE.partition("| scope | allows |")[2].partition("\n\n")[0]

    named = re.findall(r"`([a-z]+:[a-z]+)`", "\n".join(re.findall(r"^\|([^|]+)\|", table, re.MULTILINE)))

    assert sorted(named) == sorted(Scope)


def test_every_group_of_the_usage_report_is_named():
    sentence = PAGE.partition("add up usage by any of ")[2].partition(", in any")[0]

    assert re.findall(r"`(\w+)`", sentence) == list(GROUPS)


def test_time_outs_are_those_of_the_code():
    section = PAGE.partition("## Time-outs\n")[2].partition("\n## ")[0]
    times = [
        cells[1].replace(",", "") for line in section.splitlines() if len(cells := line.split(" | ")) == 3
    ][1:]
    gateway, ours = GatewaySettings(), ServerSettings()
    expected = [
        [front.HEAD_TIMEOUT_S],
        [front.BODY_TIMEOUT_S, front.MIN_BODY_BYTES],
        [front.WRITE_TIMEOUT_S, front.MIN_READ_BYTES],
        [server.PEER_TIMEOUT_S],
        [ours.keep_alive_s],
        [front.LINGER_S],
        [gateway.connect_timeout_s],
        [gateway.first_byte_timeout_s],
        [gateway.idle_timeout_s, upstream.QUIET_S],
        [ours.stop_timeout_s],
    ]

    assert [[float(number) for number in re.findall(r"\d[\d.]*", time)] for time in times] == expected
    codes = re.findall(r"(\d{3}) `(\w+)`", section)
    assert [(CATALOGUE[code].status, code) for _, code in codes] == [
        (int(status), code) for status, code in codes
    ]
    every_s = inspect.signature(watch_fronts).parameters["every_s"].default
    assert (
        f"looked at every {every_s:g} seconds, so these times may be up to {2 * every_s:g} seconds" in section
    )
