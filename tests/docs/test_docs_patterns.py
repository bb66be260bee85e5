"""What the guides publish for secret scanners is what the code looks for."""

from pathlib import Path

from lingpai.ids import CREDENTIAL_PATTERN

GUIDE = Path(__file__).parent.parent.parent / "docs" / "guides" / "keys.md"


def test_published_pattern_is_that_of_the_code():
    assert f"```text\n{CREDENTIAL_PATTERN}\n```" in GUIDE.read_text(encoding="utf-8")
