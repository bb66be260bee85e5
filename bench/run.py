"""What every measurement is given."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from bench.machine import Cpus


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One run of the bench. `folder` is temporary; `say` tells progress."""

    folder: Path
    cpus: Cpus
    rounds: int
    is_quick: bool
    descriptors: int
    nginx: str
    wrk: str
    say: Callable[[str], None]

    def pick(self, usual: float, quick: float) -> float:
        """`usual`, or `quick` in a quick run."""
        return quick if self.is_quick else usual

    def new_folder(self, name: str) -> Path:
        """An empty folder for one process."""
        number = sum(1 for _ in self.folder.iterdir())
        path = self.folder / f"{number:02d}-{name}"
        path.mkdir(mode=0o700)
        return path
