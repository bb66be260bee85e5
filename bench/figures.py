"""What a measurement comes to: figures with their must and goal, and what they were made from."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any, Literal

Verdict = Literal["goal", "must", "missed", ""]


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """One row of the result. Without `must` it is there to explain the others and is not judged."""

    name: str
    measured: float
    unit: str
    must: float | None = None
    goal: float | None = None
    is_higher_better: bool = False
    detail: str = ""

    @property
    def verdict(self) -> Verdict:
        """What the measured value reaches: the goal, only the must, or not even that; empty when nobody judges."""
        if self.must is None:
            return ""
        if not self._reaches(self.must):
            return "missed"
        return "goal" if self.goal is not None and self._reaches(self.goal) else "must"

    def _reaches(self, bound: float) -> bool:
        return self.measured >= bound if self.is_higher_better else self.measured <= bound


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """The same quantity of several contestants, to be drawn as bars."""

    title: str
    unit: str
    values: Mapping[str, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupResult:
    """What one row group found. `raw` has each round, for whoever wants to recalculate."""

    name: str
    figures: Sequence[Figure]
    comparisons: Sequence[Comparison] = ()
    notes: Sequence[str] = ()
    raw: Mapping[str, Any] = field(default_factory=dict)


def ratio_of_pairs(ours: Sequence[float], theirs: Sequence[float]) -> float:
    """The median of the rounds' ratios: both of a pair ran back to back, so a slow minute slows both."""
    return median(our / their for our, their in zip(ours, theirs, strict=True))


def percentile(values: Sequence[float], share: float) -> float:
    """The value below which `share` (0 to 1) of `values` lie; `values` must not be empty."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]
