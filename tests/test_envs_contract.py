"""What holds for every registered environment."""

import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from gymnasium.vector import AutoresetMode

import espo_gym  # noqa: F401
from espo_gym.envs import MathVectorEnv, ProceduralTask, Verdict, make_task
from espo_gym.envs.task import split_of

DATA = Path(__file__).parent / "data"
PROCEDURAL: dict[str, dict[str, Any]] = {
    "espo_gym/Addition-v0": {},
    "espo_gym/ChainArithmetic-v0": {},
    "espo_gym/Countdown-v0": {},
    "espo_gym/LinearEquation-v0": {},
    "espo_gym/ModularArithmetic-v0": {},
}
ENVS: dict[str, dict[str, Any]] = {
    **PROCEDURAL,
    "espo_gym/JSONL-v0": {"path": str(DATA / "problems.jsonl")},
    "espo_gym/GSM8K-v0": {"path": {split: str(DATA / f"gsm8k_{split}.jsonl") for split in ("train", "test")}},
    "espo_gym/MATH500-v0": {"path": str(DATA / "math.jsonl")},
    "espo_gym/AIME-v0": {"path": str(DATA / "aime.jsonl")},
    "espo_gym/Retry-v0": {},
}
every_env = pytest.mark.parametrize("id", ENVS)


def comparable(data):
    """Infos as plain lists; a verdict without the time that it took."""
    if isinstance(data, dict):
        return {key: comparable(value) for key, value in data.items()}
    if isinstance(data, np.ndarray):
        return [str(data.dtype), *map(comparable, data.tolist())]
    if isinstance(data, Verdict):
        return (data.status, data.answer, data.normalized, data.tier, data.reason)
    return data


def test_every_registered_id_is_tested():
    assert set(ENVS) == {id for id in gymnasium.registry if id.startswith("espo_gym/")}


@pytest.mark.filterwarnings("error")
@every_env
def test_gymnasium_checker_is_silent(id):
    check_env(gymnasium.make(id, render_mode="ansi", **ENVS[id]).unwrapped)


@every_env
def test_reference_answers_are_right(id):
    env = gymnasium.make_vec(id, num_envs=30, **ENVS[id])
    assert isinstance(env, MathVectorEnv)
    for split in env.task.splits:
        if env.task.size(split) == 0:
            continue
        _, infos = env.reset(seed=0, options={"split": split})
        answers = [f"So it is \\boxed{{{problem.answer}}}." for problem in infos["problem"]]
        _, rewards, terminated, truncated, infos = env.step(answers)
        assert rewards.dtype == np.float64 and rewards.tolist() == [1.0] * 30
        assert terminated.all() and not truncated.any() and infos["is_success"].all() and infos["has_verdict"].all()


@every_env
def test_reset_is_a_function_of_its_seed_and_touches_no_global_generator(id):
    env = gymnasium.make(id, **ENVS[id])
    random.seed(1)
    np.random.seed(1)
    before = random.getstate(), str(np.random.get_state())
    first = [env.reset(seed=seed) for seed in range(20)]
    for seed in reversed(range(20)):
        assert env.reset(seed=seed) == first[seed]
    env.step("5")
    assert (random.getstate(), str(np.random.get_state())) == before
    env.reset(seed=3)
    follow = [env.reset()[0] for _ in range(5)]
    env.reset(seed=3)
    assert [env.reset()[0] for _ in range(5)] == follow


@pytest.mark.parametrize("id", PROCEDURAL)
def test_splits_are_disjoint_whatever_the_seeds(id):
    task = make_task(id)
    keys = {split: {task.problem(split, seed).key for seed in range(400)} for split in task.splits}
    for split, found in keys.items():
        assert len(found) > 50
        assert {split_of(task.name, key) for key in found} == {split}


@pytest.mark.parametrize("id", PROCEDURAL)
def test_neighbouring_seeds_do_not_overlap(id):
    """The trap of Random(seed + index): runs that start at neighbouring seeds would see nearly the same problems."""
    task = make_task(id)
    assert isinstance(task, ProceduralTask)
    streams = [[task.sample(task.generator(seed, draw)).prompt for draw in range(50)] for seed in (42, 43)]
    assert len(set(streams[0]) & set(streams[1])) < 10


def test_problems_of_version_0_stay_what_they_are():
    """If this fails the problems have changed: raise the version of the id."""
    prompts = [make_task(id).problem("test", 7).prompt for id in PROCEDURAL]
    assert prompts == [
        "181+640=",
        "1-3+5-5+2=",
        "8,2,5>50:",
        "Solve for x: 7x + 1 = -5x - 2",
        "What is (93*12+39) mod 12?",
    ]


@every_env
@pytest.mark.parametrize("mode", [AutoresetMode.SAME_STEP, AutoresetMode.DISABLED])
def test_vector_environment_equals_single_ones(id, mode):
    n = 6
    native = gymnasium.make_vec(id, num_envs=n, autoreset_mode=mode, **ENVS[id])
    single = gymnasium.make_vec(
        id, num_envs=n, vectorization_mode="sync", vector_kwargs={"autoreset_mode": mode}, **ENVS[id]
    )
    seeds: Any = [5, 5, 6, None, 0, 2**40]
    for envs in (native, single):
        for i, env in enumerate(getattr(envs, "envs", [])):
            env.reset(seed=100 + i)
    native.reset(seed=100)
    assert native.observation_space == single.observation_space and native.action_space == single.action_space
    results: Any = [[envs.reset(seed=seeds)] for envs in (native, single)]
    for step in range(3 if mode is AutoresetMode.SAME_STEP else 1):
        rights = results[0][0][1]["problem"]
        actions = [rights[i].answer if step == 0 and i % 2 else "I do not know" for i in range(n)]
        for envs, result in zip((native, single), results, strict=True):
            result.append(envs.step(actions))
    for ours, theirs in zip(*results, strict=True):
        for a, b in zip(ours[:-1], theirs[:-1], strict=True):
            assert type(a) is type(b) and np.array_equal(a, b)
        assert comparable(ours[-1]) == comparable(theirs[-1])


@every_env
def test_asynchronous_vector_environment_shows_what_the_native_one_does(id):
    """Gymnasium's AsyncVectorEnv with shared memory returns empty strings for its own Text space."""
    native = gymnasium.make_vec(id, num_envs=2, **ENVS[id])
    workers = gymnasium.make_vec(
        id, num_envs=2, vectorization_mode="async", vector_kwargs={"autoreset_mode": "SameStep"}, **ENVS[id]
    )
    try:
        for seed in (1, 2):
            observations, infos = native.reset(seed=seed)
            theirs, their_infos = workers.reset(seed=seed)
            assert theirs == observations and all(theirs)
            assert comparable(their_infos) == comparable(infos)
        answers = [problem.answer for problem in infos["problem"]]
        observations, rewards, *_ = workers.step(answers)
        assert rewards.tolist() == [1.0, 1.0] and all(observations)
    finally:
        workers.close()


def run_python(code: str) -> str:
    """What ``code`` prints in a fresh interpreter."""
    command = [sys.executable, "-c", code]
    return subprocess.run(command, capture_output=True, text=True, check=True, cwd=Path(__file__).parents[1]).stdout


HEAVY = {"torch", "transformers", "sympy", "mpmath", "math_verify", "datasets", "pandas", "scipy", "stable_baselines3"}


def test_import_loads_nothing_heavy():
    """Nor does making an environment and reading from it."""
    code = f"""
import sys, gymnasium
env = gymnasium.make("espo_gym:espo_gym/Addition-v0")
env.reset(seed=1)
env.step("1+1=2,2")
print(sorted({HEAVY!r} & set(sys.modules)))
"""
    assert run_python(code).strip() == "[]"


def test_the_verifier_is_loaded_when_it_is_first_used():
    code = f"""
import sys, gymnasium, espo_gym
from espo_gym.envs import Verdict

def loaded():
    return sorted(name for name in sys.modules if name.split(".")[0] in {HEAVY!r} or "envs.verifier" in name)

print(loaded())
for id, kwargs in {ENVS!r}.items():
    gymnasium.make(id, **kwargs).reset(seed=1)
    envs = gymnasium.make_vec(id, num_envs=2, **kwargs)
    envs.reset(seed=1)
print(loaded())
print(envs.step(["The answer is 5.", "5"])[1].shape, "espo_gym.envs.verifier" in loaded())
"""
    assert run_python(code).splitlines() == ["[]", "[]", "(2,) True"]


@pytest.mark.parametrize("first", ["from espo_gym.envs.verifier.verify import clear_cache", "", "import espo_gym"])
def test_verify_is_the_function_however_it_is_imported(first):
    code = f"""
{first}
from espo_gym.envs import Verdict, verify
import espo_gym.envs, espo_gym.envs.verifier as verifier
assert verify is espo_gym.envs.verify is verifier.verify and verifier.Verdict is Verdict
assert "verify" in dir(espo_gym.envs)
print(verify(["5"], ["5"])[0].status)
"""
    assert run_python(code).strip() == "correct"


def test_these_tests_do_not_import_torch():
    """Neither tests/conftest.py nor the settings of pytest bring it in."""
    code = """
import sys
from pathlib import Path
import pytest
options = ["-q", "-p", "no:cacheprovider"]
files = [str(path) for kind in ("envs", "verifier") for path in sorted(Path("tests").glob(f"test_{kind}_*.py"))]
codes = [pytest.main([*options, "--collect-only", *files]), pytest.main([*options, files[0], "-k", "bare_name"])]
print(len(files), codes, {"torch", "transformers"} & set(sys.modules))
"""
    files = [path for kind in ("envs", "verifier") for path in Path(__file__).parent.glob(f"test_{kind}_*.py")]
    assert run_python(code).splitlines()[-1] == f"{len(files)} [<ExitCode.OK: 0>, <ExitCode.OK: 0>] set()"


def test_bare_name_is_refused():
    result = subprocess.run(
        [sys.executable, "-c", "import envs"], capture_output=True, text=True, cwd=Path(__file__).parents[1]
    )
    assert "this package is espo_gym.envs" in result.stderr
