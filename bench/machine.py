"""The machine a result belongs to: what makes figures comparable, and nothing that tells where it stands."""

import importlib.metadata
import os
import platform
import re
import resource
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

PACKAGES: Final = ("lingpai", "uvicorn", "uvloop", "httptools", "msgspec", "sqlalchemy")


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """Hardware and versions."""

    cpu: str
    cores: int
    memory_gb: float
    kernel: str
    python: str
    versions: Mapping[str, str]

    @property
    def slug(self) -> str:
        """The processor's name, fit for a file name."""
        return re.sub(r"[^a-z0-9]+", "-", self.cpu.lower()).strip("-") or "unknown-cpu"


@dataclass(frozen=True, slots=True)
class Cpus:
    """Which processor the server has, and which one everything else."""

    server: int
    load: int

    @property
    def are_separate(self) -> bool:
        return self.server != self.load


def describe_machine(*, nginx: str, wrk: str) -> Machine:
    """This machine, and the versions of what takes part. `nginx` and `wrk` are the programs' paths."""
    return Machine(
        cpu=_cpu_model(),
        cores=os.cpu_count() or 1,
        memory_gb=round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        kernel=f"{platform.system()} {platform.release()}",
        python=f"{platform.python_implementation()} {platform.python_version()}",
        versions={
            "nginx": _version_of(nginx, "-v"),
            "wrk": _version_of(wrk, "-v"),
            **{package: importlib.metadata.version(package) for package in PACKAGES},
        },
    )


def choose_cpus() -> Cpus:
    """The first allowed processor for the server, the second for load and upstream; with only one, both share it."""
    allowed = sorted(os.sched_getaffinity(0))
    return Cpus(server=allowed[0], load=allowed[1] if len(allowed) > 1 else allowed[0])


def raise_descriptor_limit(wanted: int = 65536) -> int:
    """Allow this process and its children as many descriptors as possible up to `wanted`; how many they are."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    for target in ((wanted, max(wanted, hard)), (min(wanted, hard), hard)):
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, target)
        except (
            ValueError,
            OSError,
        ):  # only the administrator may go above the hard limit, and not everywhere
            continue
        return target[0]
    return soft


def _cpu_model() -> str:
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        name, _, value = line.partition(":")
        if name.strip() in ("model name", "Model", "cpu model"):
            return value.strip()
    return platform.machine()


def _version_of(program: str, flag: str) -> str:
    said = subprocess.run([program, flag], capture_output=True, text=True, check=False)
    found = re.search(r"[0-9]+(?:\.[0-9]+)+", said.stdout + said.stderr)
    return found[0] if found else "unknown"
