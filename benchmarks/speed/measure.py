"""Stop-watches: ours and the peer's in turn, peak memory in a process of its own, what the machine can do."""

from __future__ import annotations

import contextlib
import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch

from espo_gym.policy.matmul import product

from .goals import Interval

ROOT = Path(__file__).resolve().parents[2]


def alternate(
    ours: Callable[[], Any],
    peer: Callable[[], Any],
    repeats: int,
    clock: Callable[[], float] = time.process_time,
) -> tuple[list[float], list[float]]:
    """CPU seconds of ``ours`` and of ``peer``, round by round, after one of each that is not counted.

    Who begins changes from round to round.
    """
    seconds: dict[int, list[float]] = {0: [], 1: []}
    for turn in range(repeats + 1):
        for which in (0, 1) if turn % 2 else (1, 0):
            begin = clock()
            (ours, peer)[which]()
            seconds[which].append(clock() - begin)
    return seconds[0][1:], seconds[1][1:]


def ratio(ours: Sequence[float], peer: Sequence[float]) -> Interval:
    """Median over the rounds of peer / ours, with a 95 % percentile bootstrap over rounds."""
    each = np.asarray(peer) / np.asarray(ours)
    drawn = np.random.default_rng(0).choice(each, (2000, len(each)))
    low, high = np.quantile(np.median(drawn, 1), [0.025, 0.975])
    return Interval(float(np.median(each)), float(low), float(high))


def against(ours: Sequence[float], peer: Sequence[float], unit: str = "s") -> str:
    """``0.84 s against 2.41 s``, medians."""
    scale = {"s": 1.0, "ms": 1e3, "us": 1e6}[unit]
    return f"{np.median(ours) * scale:.3g} {unit} against {np.median(peer) * scale:.3g} {unit}"


def peak_bytes(case: str, *arguments: Any) -> int:
    """Peak memory of a case of ``benchmarks.speed.peak`` beyond what it had built before, in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.speed.peak", case, *map(str, arguments)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} failed:\n{done.stderr}")
    return int(json.loads(done.stdout.splitlines()[-1])["bytes"])


def peak_of(run: Callable[[], Any]) -> int:
    """Bytes by which the resident memory of this process rises, at most, while ``run`` runs."""
    with contextlib.suppress(OSError):  # Linux: forget the peak so far
        Path("/proc/self/clear_refs").write_text("5")
    before = int(psutil.Process().memory_info().rss)
    run()
    return _peak() - before


def _peak() -> int:
    """Peak resident memory of this process; on Linux ``ru_maxrss`` would include that of the process that began it."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def megabytes(ours: int, peer: int) -> str:
    return f"{ours / 1e6:.0f} MB against {peer / 1e6:.0f} MB"


def gemm_flops(multiply: Callable[[torch.Tensor, torch.Tensor], Any] = product, n: int = 1024) -> float:
    """Floating-point operations a second in a square matrix product, float32, the best of ten."""
    a, b = torch.randn(n, n), torch.randn(n, n)
    return 2 * n**3 / min(_timed(lambda: multiply(a, b)) for _ in range(10))


def read_bandwidth(size: int) -> float:
    """Bytes a second at which ``size`` bytes, time and again the same, are read: a matrix times a vector."""
    matrix = torch.randn(max(size // 4096, 1), 1024)
    vector, out = torch.randn(1024), torch.empty(len(matrix))
    calls = max(1, 2**26 // size)

    def read() -> None:
        for _ in range(calls):
            torch.mv(matrix, vector, out=out)

    return matrix.numel() * 4 * calls / min(_timed(read) for _ in range(10))


def _timed(run: Callable[[], Any]) -> float:
    begin = time.perf_counter()
    run()
    return time.perf_counter() - begin
