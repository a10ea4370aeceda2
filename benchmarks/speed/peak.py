"""Peak memory, in a process of its own: ``python -m benchmarks.speed.peak CASE [ARGUMENTS]`` prints bytes as JSON."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from typing import Any

import torch

from . import workload
from .measure import peak_of
from .workload import SMALL


def _step() -> Callable[[], Any]:
    llama = workload.model(SMALL)

    def run() -> None:
        algorithm = workload.grpo(SMALL, llama=llama)
        for _ in range(3):
            workload.step(algorithm)

    return run


def _trl_step(micro_batch: str) -> Callable[[], Any]:
    from . import trainer

    llama = workload.model(SMALL)
    return lambda: trainer.run(llama, SMALL, int(micro_batch), 3, lambda *_: None)


def _head(which: str, tokens: str) -> Callable[[], Any]:
    from . import head

    head.case(which, 256, 4096)()  # the code of libraries that a first call brings into memory is not the loss's
    return head.case(which, int(tokens))


CASES: dict[str, Callable[..., Callable[[], Any]]] = {"step": _step, "trl-step": _trl_step, "head": _head}


def main() -> None:
    torch.set_num_threads(1)
    run = CASES[sys.argv[1]](*sys.argv[2:])
    print(json.dumps({"bytes": peak_of(run)}))


if __name__ == "__main__":
    main()
