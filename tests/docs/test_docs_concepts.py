"""The tables of the concepts page are complete."""

import re

from document_parts import ROOT

from lingpai.identity.scopes import Scope
from lingpai.metering.service import _COLUMNS as GROUPS

PAGE = (ROOT / "docs" / "concepts.md").read_text(encoding="utf-8")


def test_every_scope_is_in_the_table_of_scopes():
    table = PAGE.partition("| scope | allows |")[2].partition("\n\n")[0]

    named = re.findall(r"`([a-z]+:[a-z]+)`", "\n".join(re.findall(r"^\|([^|]+)\|", table, re.MULTILINE)))

    assert sorted(named) == sorted(Scope)


def test_every_group_of_the_usage_report_is_named():
    sentence = PAGE.partition("add up usage by any of ")[2].partition(", in any")[0]

    assert re.findall(r"`(\w+)`", sentence) == list(GROUPS)
