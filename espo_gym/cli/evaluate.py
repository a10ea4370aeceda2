"""The command line's ``espo-gym eval``."""

from __future__ import annotations

import json
from collections.abc import Collection
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from espo_gym.choices import DTYPES, SAMPLERS
from espo_gym.plugins import modules_in

from .errors import report_errors
from .options import ALLOW_IMPORT, TRUST_REMOTE_CODE, env_arguments
from .tables import interval, make_table, print_table, problems, report_failures

if TYPE_CHECKING:
    from gymnasium.vector import VectorEnv

    from espo_gym.evaluation import Evaluation
    from espo_gym.policy import Policy
    from espo_gym.sampling import Sampling


@click.command("eval")
@click.argument("source")
@click.option("--env", help="Id of the environment; your own as module:id.  [default: a checkpoint's own]")
@click.option("--env-arg", "env_args", multiple=True, metavar="KEY=VALUE", help="Argument of the environment.")
@click.option("--split", default="test", help="Split of the problems; none for an environment that has no splits.")
@click.option("--problems", "n_problems", default=256, type=click.IntRange(1), help="How many problems, at most.")
@click.option("--k", default=8, type=click.IntRange(0), help="Sampled completions per problem.")
@click.option("--seed", default=0, help="Of the sampling.")
@click.option("--temperature", type=float, help="Of the sampling.  [default: a checkpoint's own, else 1]")
@click.option(
    "--max-completion-tokens",
    type=click.IntRange(1),
    help="Tokens per completion.  [default: a checkpoint's own, else 1024]",
)
@click.option(
    "--dtype",
    type=click.Choice((*DTYPES, "float16")),
    help="Of the weights.  [default: a checkpoint's own, else float32]",
)
@click.option(
    "--sampler", type=click.Choice(SAMPLERS), help="What writes completions.  [default: a checkpoint's own, else auto]"
)
@click.option("--json", "json_file", type=click.Path(path_type=Path), help="Also write every completion to this file.")
@ALLOW_IMPORT
@TRUST_REMOTE_CODE
@report_errors
def eval_command(
    source: str,
    env: str | None,
    env_args: tuple[str, ...],
    split: str,
    n_problems: int,
    k: int,
    seed: int,
    temperature: float | None,
    max_completion_tokens: int | None,
    dtype: str | None,
    sampler: str | None,
    json_file: Path | None,
    allow_import: tuple[str, ...],
    trust_remote_code: bool,
) -> None:
    """Evaluate SOURCE on held-out problems: a checkpoint, the folder of a run, a policy's folder, or a model's name."""
    from espo_gym.evaluation import evaluate

    if json_file is not None:
        json_file.parent.mkdir(parents=True, exist_ok=True)  # now, not after the work
    allowed = (*allow_import, *modules_in([env]))
    loaded = load_policy(
        source,
        env,
        env_arguments(env_args),
        dtype=dtype,
        sampler=sampler,
        allow_import=allowed,
        trust_remote_code=trust_remote_code,
    )
    changes: dict[str, Any] = {"temperature": temperature, "max_completion_tokens": max_completion_tokens}
    result = evaluate(
        loaded.policy,
        loaded.env,
        split=None if split == "none" else split,
        n_problems=n_problems,
        k=k,
        sampling=replace(loaded.sampling, **{name: value for name, value in changes.items() if value is not None}),
        seed=seed,
        details=json_file is not None,
    )
    table = make_table(header=False)
    for name, e in result.items():
        table.add_row(name, interval(e.value, e.low, e.high))
    print_table(table, f"{result.env}, {problems(result.split, result.n_problems)}, with Wilson's 95 % intervals")
    report_failures(result.no_verdict)
    if json_file is not None:
        _write_completions(result, json_file)


@dataclass
class Loaded:
    """A policy, the environment to evaluate it in, and how it samples there."""

    policy: Policy
    env: VectorEnv
    sampling: Sampling


def load_policy(
    source: str,
    env: str | None,
    env_args: dict[str, Any],
    *,
    dtype: str | None = None,
    sampler: str | None = None,
    allow_import: Collection[str] = (),
    trust_remote_code: bool = False,
) -> Loaded:
    """What ``source`` names: a checkpoint or a run, with its own environment and sampling unless ``env`` is another,
    or else a policy, which needs an ``env``.

    Raises:
        click.UsageError: a policy without ``env``.
        FileNotFoundError, ValueError, OSError: there is no such source, or it cannot be read.
    """
    import torch

    from espo_gym import checkpoint
    from espo_gym.algorithms import PolicyOptimizer
    from espo_gym.environment import as_vector_env, make_env
    from espo_gym.policy import Policy
    from espo_gym.sampling import Sampling

    path = checkpoint.find(source)
    if path is None and not source.endswith(".zip"):
        if env is None:
            raise click.UsageError(f"{source} is no checkpoint or run; a policy knows no environment, so give --env")
        policy = Policy.from_pretrained(
            source, dtype=dtype or "float32", sampler=sampler or "auto", trust_remote_code=trust_remote_code
        )
        return Loaded(policy, as_vector_env(make_env(env, **env_args), 64), Sampling(max_completion_tokens=1024))
    other: Any = make_env(env, **env_args) if env is not None else None
    algorithm = PolicyOptimizer.load(
        source, other, env_args=env_args, allow_import=allow_import, trust_remote_code=trust_remote_code
    )
    policy = algorithm.policy
    policy.sampler = sampler or policy.sampler
    if dtype is not None:
        for parameter in policy.parameters():  # not buffers, such as the frequencies of rotary embeddings
            parameter.data = parameter.data.to(getattr(torch, dtype))
        # Another policy, whose shortcuts are checked in this dtype: the checkpoint's were checked in its own.
        policy = Policy(policy.model, policy.tokenizer, autocast=policy.autocast, sampler=policy.sampler)
    return Loaded(policy, algorithm.env, algorithm.sampling)


def _write_completions(result: Evaluation, path: Path) -> None:
    with path.open("w") as file:
        for problem in result.problems:
            for row in problem.rows():
                file.write(json.dumps(row) + "\n")
