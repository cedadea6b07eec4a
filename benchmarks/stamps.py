"""The children the benchmarks supervise, and the FIFO they report their births through."""

from __future__ import annotations

import os
import select
import shutil
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
PYTHON_STAMP = (
    "import os,sys,time;"
    "n=time.clock_gettime_ns(time.CLOCK_MONOTONIC);"
    "f=os.open(sys.argv[1],os.O_WRONLY);"
    "os.write(f,f'{n} {os.getpid()} {sys.argv[2]}\\n'.encode());os.close(f);"
    "import signal;signal.pause()"
)


def stamp_command(work: Path) -> list[str]:
    """The child's argv (without FIFO and name): compiled C where there is a compiler, else a small Python."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        return [sys.executable, "-I", "-S", "-c", PYTHON_STAMP]
    program = work / "stamp"
    subprocess.run([compiler, "-O2", "-o", str(program), str(HERE / "stamp.c")], check=True)
    return [str(program)]


@dataclass(frozen=True, slots=True)
class Birth:
    at_ns: int
    pid: int
    name: str


class Births:
    """Reads the births from the FIFO."""

    def __init__(self, path: Path) -> None:
        os.mkfifo(path, 0o600)
        self.path = path
        self._fd = os.open(path, os.O_RDWR | os.O_NONBLOCK)
        self._rest = b""
        self._ready: list[Birth] = []

    def next(self, timeout_s: float) -> Birth:
        deadline = time.monotonic() + timeout_s
        while not self._ready:
            left_s = deadline - time.monotonic()
            if left_s <= 0 or not select.select([self._fd], [], [], left_s)[0]:
                raise TimeoutError(f"no child started within {timeout_s:g} s")
            *lines, self._rest = (self._rest + os.read(self._fd, 65536)).split(b"\n")
            for line in lines:
                at_ns, pid, name = line.split()
                self._ready.append(Birth(int(at_ns), int(pid), name.decode()))
        return self._ready.pop(0)

    def close(self) -> None:
        os.close(self._fd)


def percentile(values: list[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def summary(values_ms: list[float]) -> str:
    return (
        f"n={len(values_ms)} p50={percentile(values_ms, 0.5):.2f} p95={percentile(values_ms, 0.95):.2f} "
        f"p99={percentile(values_ms, 0.99):.2f} max={max(values_ms):.2f} mean={statistics.fmean(values_ms):.2f} ms"
    )
