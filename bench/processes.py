"""Starting, watching and stopping the processes that take part. Nothing outlives the bench."""

import os
import random
import signal
import socket
import ssl
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_TICKS_PER_S: Final = os.sysconf("SC_CLK_TCK")
_PAGE_BYTES: Final = os.sysconf("SC_PAGE_SIZE")
_LOG_TAIL_CHARACTERS: Final = 2000

# Below Linux's usual range for outgoing connections, so that none of the thousands we open is in a listener's way.
_PORTS: Final = range(20_000, 32_000)


class BenchError(Exception):
    """Something cannot be measured. The message says what and why."""


class Process:
    """A running process together with its descendants (workers of nginx, our ingester)."""

    def __init__(self, popen: subprocess.Popen[bytes], log: Path) -> None:
        self._popen = popen
        self.log = log

    @property
    def pid(self) -> int:
        return self._popen.pid

    def check_alive(self) -> None:
        """Raise BenchError with the end of its log when the process has ended."""
        if self._popen.poll() is not None:
            tail = self.log.read_text(encoding="utf-8", errors="replace")[-_LOG_TAIL_CHARACTERS:]
            raise BenchError(f"{self.log.stem} ended with status {self._popen.returncode}:\n{tail}")

    def cpu_seconds(self) -> float:
        """User and system time used so far by the process and all its descendants (proc(5), /proc/PID/stat)."""
        return sum(_cpu_ticks(pid) for pid in self.family()) / _TICKS_PER_S

    def own_cpu_seconds(self) -> float:
        """The same without the descendants."""
        return _cpu_ticks(self.pid) / _TICKS_PER_S

    def own_resident_bytes(self) -> int:
        """Resident memory of the process itself."""
        return _resident_bytes(self.pid)

    def resident_bytes(self) -> int:
        """Resident memory of the process and its descendants; pages they share count once for each."""
        return sum(_resident_bytes(pid) for pid in self.family())

    def family(self) -> list[int]:
        """The process's id and those of its living descendants."""
        children: dict[int, list[int]] = {}
        for entry in Path("/proc").iterdir():
            if entry.name.isdecimal():
                fields = _stat_fields(int(entry.name))
                if fields:
                    children.setdefault(int(fields[1]), []).append(int(entry.name))
        found = [self.pid]
        for pid in found:  # grows while we look
            found += children.get(pid, [])
        return found

    def stop(self, *, timeout: float) -> None:
        """Ask the process to end; kill it and its descendants when that takes over `timeout` seconds."""
        family = self.family()
        if self._popen.poll() is None:
            self._popen.terminate()
            try:
                self._popen.wait(timeout)
            except subprocess.TimeoutExpired:
                for pid in family:
                    _kill(pid)
                self._popen.wait()


@dataclass(frozen=True, slots=True, kw_only=True)
class CpuUse:
    """What happened on a processor meanwhile. `others_s` is what processes that were not watched took of it."""

    elapsed_s: float
    process_s: float
    descendants_s: float
    others_s: float

    @property
    def total_s(self) -> float:
        """Of the watched process and its descendants."""
        return self.process_s + self.descendants_s

    @property
    def share(self) -> float:
        return self.total_s / self.elapsed_s

    @property
    def others_share(self) -> float:
        return self.others_s / self.elapsed_s


class CpuWatch:
    """Watches a process and the processor it is bound to, from now on."""

    def __init__(self, process: Process, cpu: int) -> None:
        self._process = process
        self._cpu = cpu
        self._before = self._read()

    def use(self) -> CpuUse:
        """What happened since the beginning."""
        elapsed, own, total, busy = (
            now - before for now, before in zip(self._read(), self._before, strict=True)
        )
        return CpuUse(
            elapsed_s=elapsed,
            process_s=own,
            descendants_s=total - own,
            others_s=max(0.0, busy - total),
        )

    def _read(self) -> tuple[float, float, float, float]:
        process = self._process
        return (
            time.perf_counter(),
            process.own_cpu_seconds(),
            process.cpu_seconds(),
            busy_seconds(self._cpu),
        )


@contextmanager
def running(
    *command: str | Path,
    cpu: int,
    log: Path,
    folder: Path,
    stop_timeout: float = 15.0,
) -> Iterator[Process]:
    """Run `command` on one processor while the block lasts; its output goes to `log`."""
    # setpriv: the kernel ends the process when the bench is killed in a way that leaves it no time to clean up
    prefix = ["setpriv", "--pdeathsig", "TERM", "taskset", "-c", str(cpu)]
    with log.open("wb") as output:
        popen = subprocess.Popen(
            [*prefix, *map(str, command)],
            cwd=folder,
            env=clean_environment(),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # Ctrl-C is for the bench, which then stops everything in order
        )
    process = Process(popen, log)
    try:
        yield process
    finally:
        process.stop(timeout=stop_timeout)


def clean_environment() -> dict[str, str]:
    """The environment without settings of Lingpai: what is measured is the default."""
    return {name: value for name, value in os.environ.items() if not name.startswith("LINGPAI")}


def free_port() -> int:
    """A port on 127.0.0.1 that nobody listens on."""
    while True:
        port = random.choice(_PORTS)
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        return port


def wait_for_answer(
    process: Process, port: int, path: str, *, tls: ssl.SSLContext | None = None, timeout: float = 30.0
) -> None:
    """Wait until `GET path` is answered with 200, with `tls` over TLS. Raises BenchError when that takes too long."""
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline:
        process.check_alive()
        if _answers(port, path, tls):
            return
        time.sleep(0.02)
    raise BenchError(f"nothing answers at port {port}, {path}, after {timeout:g} s")


def _answers(port: int, path: str, tls: ssl.SSLContext | None) -> bool:
    try:
        connection = socket.create_connection(("127.0.0.1", port), timeout=2)
        if tls is not None:
            connection = tls.wrap_socket(connection, server_hostname="127.0.0.1")
        with connection:
            connection.sendall(f"GET {path} HTTP/1.1\r\nhost: bench\r\nconnection: close\r\n\r\n".encode())
            return connection.recv(64).startswith(b"HTTP/1.1 200")
    except OSError:
        return False


def busy_seconds(cpu: int) -> float:
    """How long a processor has not been idle since the machine started (proc(5), /proc/stat), steal included."""
    for line in Path("/proc/stat").read_text(encoding="ascii").splitlines():
        name, *ticks = line.split()
        if name == f"cpu{cpu}":
            user, nice, system, _, _, irq, softirq, steal = map(int, ticks[:8])
            return (user + nice + system + irq + softirq + steal) / _TICKS_PER_S
    raise BenchError(f"/proc/stat does not know cpu{cpu}")


def _stat_fields(pid: int) -> list[str]:
    """The fields of /proc/PID/stat after the name, which may contain anything; none when the process is gone."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return []
    return text.rpartition(")")[2].split()


def _cpu_ticks(pid: int) -> int:
    fields = _stat_fields(pid)
    return (
        sum(map(int, fields[11:15])) if fields else 0
    )  # utime, stime, and those of children that have ended


def _resident_bytes(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1]) * _PAGE_BYTES
    except OSError:
        return 0


def _kill(pid: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
