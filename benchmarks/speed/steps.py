"""G1, G1b, G2: a full step beside TRL's. G3: its memory."""

from __future__ import annotations

import time

from . import workload
from .goals import Interval, Row
from .measure import against, megabytes, peak_bytes, ratio
from .workload import LARGE, SMALL, Size


def measure_g1(repeats: int) -> list[Row]:
    return [_beside_trl("G1", SMALL, repeats)]


def measure_g1b(repeats: int) -> list[Row]:
    return [_beside_trl("G1b", SMALL, repeats, silent=True)]


def measure_g2(repeats: int) -> list[Row]:
    return [_beside_trl("G2", LARGE, repeats, per_token=True)]


def measure_g3(repeats: int) -> list[Row]:
    from .trainer import MICRO_BATCHES, best_micro_batch

    micro_batch = best_micro_batch(SMALL)
    ours = peak_bytes("step")
    peers = {size: peak_bytes("trl-step", size) for size in MICRO_BATCHES}
    others = ", ".join(f"{peak / 1e6:.0f} MB at {size}" for size, peak in peers.items() if size != micro_batch)
    detail = f"{megabytes(ours, peers[micro_batch])}; TRL's others: {others}"
    return [Row("G3", f"TRL's micro-batch {micro_batch}", Interval.exactly(peers[micro_batch] / ours), detail)]


def _beside_trl(goal: str, size: Size, repeats: int, silent: bool = False, per_token: bool = False) -> Row:
    from .trainer import best_micro_batch, run

    micro_batch = best_micro_batch(size, silent)
    algorithm = workload.grpo(size, silent)
    ours: list[tuple[float, int]] = []
    peer: list[tuple[float, int]] = []

    def after_theirs(seconds: float, tokens: int) -> None:
        peer.append((seconds, tokens))
        begin = time.process_time()
        tokens = workload.step(algorithm)
        ours.append((time.process_time() - begin, tokens))

    run(workload.model(size), size, micro_batch, repeats + 1, after_theirs, silent)
    del ours[0], peer[0]  # the first of each warms up
    our_seconds, their_seconds = [s for s, _ in ours], [s for s, _ in peer]
    per = [s / n for s, n in ours], [s / n for s, n in peer]
    lengths = [sum(n for _, n in side) / len(side) / workload.ROWS for side in (ours, peer)]
    detail = (
        f"{against(*per, unit='us')} a token" if per_token else f"{against(our_seconds, their_seconds)} a step"
    ) + f"; {lengths[0]:.1f} and {lengths[1]:.1f} tokens a completion"
    figure = ratio(*per) if per_token else ratio(our_seconds, their_seconds)
    return Row(goal, f"TRL's micro-batch {micro_batch}", figure, detail)
