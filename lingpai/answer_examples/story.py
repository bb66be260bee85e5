"""When what the examples tell of happened."""

from typing import Any, Final

Fields = dict[str, Any]

DAY: Final = "2026-11-20"
MADE: Final = f"{DAY}T08:00:00Z"
ENDS: Final = "2027-02-18T08:00:00Z"
