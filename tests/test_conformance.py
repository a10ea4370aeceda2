"""The public checks pass on everything in the library, and name the fault of everything that is broken on purpose."""

import random
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
import torch
from test_envs_contract import ENVS

from espo_gym.algorithms import ALGORITHMS, CISPO, DAPO, ESPO, GRPO, GSPO, PPO, RLOO
from espo_gym.environment import as_vector_env
from espo_gym.envs import MathVectorEnv, TextEnv, UnicodeText, Verdict, verify
from espo_gym.testing import Bandit, ConformanceError, check_algorithm, check_text_env, check_verifier
from espo_gym.testing import algorithm as algorithm_checks
from espo_gym.testing import environment as environment_checks
from espo_gym.testing import verifier as verifier_checks

ADDITION = "espo_gym/Addition-v0"


def names(module) -> set[str]:
    return {check.__name__ for check in module.CHECKS}


PAGE = Path(__file__).parents[1] / "docs" / "conformance.md"


@pytest.mark.parametrize("module", [algorithm_checks, environment_checks, verifier_checks])
def test_the_page_lists_the_checks_in_their_order(module):
    rows = [
        f"| `{check.__name__}` | {' '.join(check.__doc__.split(chr(10) * 2)[0].split()).replace('``', '`')} |"
        for check in module.CHECKS
    ]
    assert "\n".join(rows) in PAGE.read_text()


# -- everything in the library ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ALGORITHMS)
def test_every_algorithm_passes(name):
    check_algorithm(ALGORITHMS[name])


@pytest.mark.parametrize(
    ("cls", "hyperparameters"),
    [
        *((ESPO, ESPO.ablation(name)) for name in ("gspo", "no_adaptive_clip_wide", "no_grouping", "token_weighting")),
        (ESPO, {"quantiles_over": "batch"}),
        (ESPO, {"quantiles": (0.3, 0.6, 0.9)}),
        (PPO, {"critic": "separate"}),
        (DAPO, {"overlong_buffer": 2}),
        (CISPO, {"ratio_min": 0.8, "ratio_max": 1.2}),
        (GRPO, {"dual_clip": 3.0}),
        (RLOO, {"kl_coef": 0.01, "kl_in": "reward"}),
        (GSPO, {"kl_coef": 0.01, "kl_target": 0.1, "entropy_coef": 0.01}),
        (GRPO, {"sampler_correction": "sequence", "old_logps": "recomputed"}),
    ],
    ids=str,
)
def test_algorithms_pass_with_other_hyperparameters(cls, hyperparameters):
    check_algorithm(cls, **hyperparameters)


@pytest.mark.parametrize("id", ENVS)
def test_every_environment_passes(id):
    check_text_env(id, **ENVS[id])


def test_an_environment_passes_as_an_object_too():
    check_text_env(TextEnv(Bandit(), render_mode="ansi"))
    check_text_env(gym.make(ADDITION, digits=2))


def test_the_verifier_passes():
    check_verifier(verify)
    check_verifier(verify, answers=("\\frac{1}{2}", "\\pi", "(1, 2)", "x+1", "\\{1,2\\}"))


# -- algorithms that are broken on purpose ---------------------------------------------------------------------------


class Leaky(GRPO):
    """Trains on the environment's words as if they were the policy's."""

    def loss_batch(self, rollout, advantages, scores=None):
        return super().loss_batch(replace(rollout, mask=rollout.completion_mask), advantages, scores)


class Neighbourly(GRPO):
    """Takes each token's advantage from the one before, masked or not."""

    def surrogate(self, batch):
        surrogate, ratio, clipped = super().surrogate(batch)
        return surrogate + 0 * batch.logps.cumsum(1), ratio + 0.0, clipped

    def advantages(self, rollout):
        return super().advantages(rollout)[:, None] * (1 + rollout.entropies.cumsum(1))


class Averaging(GRPO):
    """Divides by the tokens of the micro-batch."""

    def loss(self, batch, weights=None):
        return super().loss(batch, batch.mask.to(batch.logps.dtype) / batch.mask.sum().clamp(min=1))


class Unforgiving(GRPO):
    """A verifier that failed counts as a wrong answer."""

    def advantages(self, rollout):
        return super().advantages(replace(rollout, has_verdict=torch.ones_like(rollout.has_verdict)))


class Trusting(GRPO):
    """Learns from completions without a verdict."""

    def loss_batch(self, rollout, advantages, scores=None):
        return super().loss_batch(replace(rollout, has_verdict=None), advantages + 0.1, scores)


class Reshaping(GRPO):
    """Takes the rows of a group to be neighbours."""

    def advantages(self, rollout):
        return super().advantages(replace(rollout, groups=torch.arange(len(rollout)) // self.group_size))


class Rectangular(GRPO):
    """Divides by all columns, padding included."""

    def token_weights(self, batch):
        return batch.mask.to(batch.logps.dtype) / batch.mask.numel()


class Restless(GRPO):
    """A bonus for likely tokens whatever the reward."""

    def surrogate(self, batch):
        surrogate, ratio, clipped = super().surrogate(batch)
        return surrogate + 0.01 * batch.logps, ratio, clipped


class Doubling(GRPO):
    """A surrogate of slope 2."""

    def surrogate(self, batch):
        surrogate, ratio, clipped = super().surrogate(batch)
        return 2 * surrogate, ratio, clipped


class Stuck(GRPO):
    """No gradient at all."""

    def ratios(self, batch):
        return super().ratios(batch).detach()


class Explosive(GRPO):
    """Divides by the std whatever it is."""

    def advantages(self, rollout):
        judged = rollout.rewards[rollout.has_verdict]
        return torch.where(rollout.has_verdict, (rollout.rewards - judged.mean()) / judged.std(), 0.0)


class Silent(GRPO):
    """Leaves a metric out."""

    def record(self, metrics):
        super().record({k: v for k, v in metrics.items() if k != "rollout/completion_length_max"})


class Chatty(GRPO):
    """Logs more than the others, elsewhere than under train/."""

    def train(self, rollout):
        super().train(rollout)
        self.logger.record("rollout/mood", 1.0)


class Amnesiac(GRPO):
    """Forgets the optimizer's moments."""

    @classmethod
    def load(cls, *args, **kwargs):
        algo = super().load(*args, **kwargs)
        algo.optimizer.state.clear()
        return algo


class Forgetful(GRPO):
    """A running mean of the rewards as the baseline, which no checkpoint knows of."""

    baseline = 0.0

    def advantages(self, rollout):
        return torch.where(rollout.has_verdict, rollout.rewards - self.baseline, 0.0)

    def train(self, rollout):
        super().train(rollout)
        self.baseline = 0.5 * (self.baseline + float(rollout.rewards.mean()))


class Drifting(GRPO):
    """A baseline that changes as it is looked at."""

    baseline = 0.0

    def advantages(self, rollout):
        self.baseline += 0.1
        return torch.where(rollout.has_verdict, rollout.rewards - self.baseline, 0.0)


class Contrary(GRPO):
    """Learns the opposite."""

    def advantages(self, rollout):
        return -super().advantages(rollout)


@dataclass(kw_only=True, eq=False)
class Undocumented(GRPO):
    """A hyperparameter without a docstring."""

    sharpness: float = 1.0


@dataclass(kw_only=True, eq=False)
class Unchecked(GRPO):
    """A hyperparameter that takes anything."""

    sharpness: float = 1.0
    """How sharp."""


class Careless(GRPO):
    """Checks nothing."""

    def validate(self):
        pass


class Raising(GRPO):
    """Raises on some batches."""

    def advantages(self, rollout):
        raise RuntimeError("no idea")


BROKEN_ALGORITHMS = {
    Leaky: ("masked_tokens", "a gradient of .* at a masked token"),
    Neighbourly: ("masked_tokens", "other numbers under the mask"),
    Averaging: ("micro_batches", "with micro-batches of 1 the loss differs"),
    Unforgiving: ("no_verdict", "another reward on them|them left out"),
    Trusting: ("no_verdict", "a gradient of .* without a verdict"),
    Reshaping: ("permutation", "the rows in another order"),
    Drifting: ("repeatable", "the same batch again"),
    Rectangular: ("padding", "3 more columns of padding the loss differs"),
    Restless: ("zero_advantage", "a gradient of up to"),
    Doubling: ("ratio_one", "differs by 1 of the largest entry"),
    Stuck: ("gradient_at_all", "0 at every token"),
    Explosive: ("finite", "equal rewards.* nan|a single completion.* nan|no verdict.* nan"),
    Silent: ("metric_names", "no rollout/completion_length_max"),
    Chatty: ("metric_names", "besides them rollout/mood"),
    Amnesiac: ("resuming", "from the uninterrupted run"),
    Forgetful: ("resuming", "from the uninterrupted run"),
    Contrary: ("learning", "% choose it"),
    Undocumented: ("documented", "sharpness"),
    Unchecked: ("out_of_range", "sharpness=nan is accepted"),
    Careless: ("out_of_range", "group_size=0 is accepted"),
    Raising: ("finite", "RuntimeError: no idea"),
}


@pytest.mark.parametrize("cls", BROKEN_ALGORITHMS, ids=lambda cls: cls.__name__)
def test_the_fault_of_a_broken_algorithm_is_named(cls):
    check, found = BROKEN_ALGORITHMS[cls]
    expect(check, found, lambda: check_algorithm(cls))


def expect(check: str, found: str, call: Callable[[], None]) -> None:
    with pytest.raises(ConformanceError, match=rf"(?s)fails the check '({check})'.\n  found: .*({found})") as raised:
        call()
    error = raised.value
    assert error.expected and error.look and error.found in str(error) and error.expected in str(error)
    assert isinstance(error, AssertionError)


def test_every_check_of_algorithms_catches_something():
    assert {name for check, _ in BROKEN_ALGORITHMS.values() for name in check.split("|")} == names(algorithm_checks)


class Polite(TextEnv):
    """A subclass that changes the reward: training must see its own, not those of the task."""

    def step(self, action):
        observation, reward, terminated, truncated, info = super().step(action)
        return observation, reward + 0.1 * action.endswith("please"), terminated, truncated, info


def test_what_a_subclass_of_the_environment_overrides_counts_in_training_too():
    check_text_env(Polite(Bandit()))
    vector = as_vector_env(Polite(Bandit()), 2)
    vector.reset(seed=0)
    assert vector.step(["a", "a please"])[1].tolist() == [1.0, 0.1]


class Elsewhere(gym.Env):
    """An environment that knows nothing of this library, of three turns."""

    observation_space, action_space = UnicodeText(100), UnicodeText(10**6)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.turn = 0
        return f"{self.np_random.integers(10, 99)}=", {"unknown": np.zeros(2)}

    def step(self, action):
        self.turn += 1
        return "" if self.turn == 3 else "Go on.", float(len(action) % 2), self.turn == 3, False, {"turn": self.turn}


def test_an_environment_from_elsewhere_passes(registered):
    check_text_env(Elsewhere())
    check_text_env(registered(entry_point=Elsewhere))


# -- environments that are broken on purpose -------------------------------------------------------------------------


class GlobalGenerator(Bandit):
    """Draws its problems from the global generator, seeded or not."""

    def problem(self, split, seed):
        np.random.seed(seed % 2**32)
        return replace(super().problem(split, seed), prompt=f"{np.random.randint(100)}?")


class Counting(Bandit):
    """Each problem is another, whatever the seed."""

    calls = 0

    def problem(self, split, seed):
        Counting.calls += 1
        return replace(super().problem(split, seed), prompt=f"{Counting.calls}?")


class Moody(Bandit):
    """A reward of chance, from a generator of its own."""

    chance = random.Random(0)

    def verify(self, completions, problems):
        return [Verdict("correct" if self.chance.random() < 0.5 else "incorrect") for _ in completions]


class Fussy(Bandit):
    """Wants numbers."""

    def verify(self, completions, problems):
        return [Verdict("correct" if float(c) == 1 else "incorrect") for c in completions]


class Endless(TextEnv):
    """Never ends."""

    def step(self, action):
        if self._episode is None or self._episode.done:
            self.reset()
        observation, reward, _, truncated, info = super().step(action)
        return observation or "?", reward, False, truncated, info


class Infinite(TextEnv):
    """Rewards without bound."""

    def step(self, action):
        observation, _, terminated, truncated, info = super().step(action)
        return observation, float("inf"), terminated, truncated, info


class Numeric(TextEnv):
    """Actions are numbers."""

    def __init__(self, task):
        super().__init__(task)
        self.action_space = gym.spaces.Discrete(2)  # type: ignore[assignment]


class Lettered(TextEnv):
    """Actions are of a few letters, as in Gymnasium's own space."""

    def __init__(self, task):
        super().__init__(task)
        self.action_space = gym.spaces.Text(100, min_length=0)


class Wordless(TextEnv):
    """No observation at the end."""

    def step(self, action):
        return None, *super().step(action)[1:]


class Speechless(TextEnv):
    """Shows nothing."""

    def render(self):
        return None


class Defaulting(TextEnv):
    """A default of the seed, which Gymnasium warns of."""

    def reset(self, *, seed=0, options=None):
        return super().reset(seed=seed, options=options)


class Mean(MathVectorEnv):
    """Rewards the vector form alone otherwise."""

    def step(self, actions):
        observations, rewards, *rest = super().step(actions)
        return observations, rewards - 0.25, *rest


class Apart(MathVectorEnv):
    """Gives the rows of a group problems of their own."""

    def reset(self, *, seed=None, options=None):
        seed = [s + i for i, s in enumerate(seed)] if isinstance(seed, list) else seed
        return super().reset(seed=seed, options=options)


@pytest.fixture
def registered():
    """Register an environment for the time of a test."""
    ids: list[str] = []

    def register(**kwargs) -> str:
        ids.append(f"tests/Broken{len(ids)}-v0")
        gym.register(ids[-1], **kwargs)
        return ids[-1]

    yield register
    for id in ids:
        gym.registry.pop(id)


BROKEN_ENVIRONMENTS = {
    "Numeric": (lambda: Numeric(Bandit()), "spaces", "action_space is Discrete"),
    "Lettered": (lambda: Lettered(Bandit()), "spaces", "is outside of"),
    "Wordless": (lambda: Wordless(Bandit()), "spaces", "None after a step"),
    "GlobalGenerator": (lambda: TextEnv(GlobalGenerator()), "global_random_state", "numpy.random has changed"),
    "Counting": (lambda: TextEnv(Counting()), "seeds", "gives something else the second time"),
    "Moody": (lambda: TextEnv(Moody()), "determinism", "step 1 of"),
    "Infinite": (lambda: Infinite(Bandit()), "rewards", "the reward inf"),
    "Endless": (lambda: Endless(Bandit()), "determinism|rewards", "no end after"),
    "Fussy": (lambda: TextEnv(Fussy()), "determinism|any_action", "could not convert string to float"),
    "Speechless": (lambda: Speechless(Bandit(), render_mode="ansi"), "render", "None after reset"),
    "Defaulting": (lambda: Defaulting(Bandit()), "gymnasium_checker", "default seed"),
}


@pytest.mark.parametrize("name", BROKEN_ENVIRONMENTS)
def test_the_fault_of_a_broken_environment_is_named(name):
    make, check, found = BROKEN_ENVIRONMENTS[name]
    expect(check, found, lambda: check_text_env(make()))


def test_a_vector_form_that_differs_is_named(registered):
    def register(vector):
        return registered(entry_point=TextEnv, vector_entry_point=vector, kwargs={"task": ADDITION})

    expect("vector_form", "reward .* in row", lambda: check_text_env(register(Mean)))
    expect("groups", "in a row with seed", lambda: check_text_env(register(Apart)))


def test_every_check_of_environments_catches_something():
    caught = {name for _, check, _ in BROKEN_ENVIRONMENTS.values() for name in check.split("|")}
    assert caught | {"groups", "vector_form"} == names(environment_checks)


def test_what_is_no_environment_is_an_error():
    with pytest.raises(TypeError, match=r"an id or a gymnasium\.Env is needed, not 3"):
        check_text_env(3)  # type: ignore[arg-type]


# -- verifiers that are broken on purpose ----------------------------------------------------------------------------


def boxed_of(completion: str) -> str | None:
    _, box, after = completion.rpartition("\\boxed{")
    return after[: after.find("}")] if box and "}" in after else None


def exact(completions, references):
    """Sound, if narrow: the text in the last box against the reference."""
    found = [boxed_of(c) for c in completions]
    return [
        Verdict("incorrect" if a is None or not a or a != r else "correct", a)
        for a, r in zip(found, references, strict=True)
    ]


def raises(completions, references):
    pairs = zip(completions, references, strict=True)
    return [Verdict("correct" if int(boxed_of(c)) == int(r) else "incorrect") for c, r in pairs]  # type: ignore[arg-type]


def swaps(completions, references):
    return exact(completions, references)[::-1]


def rewards_everything(completions, references):
    return [Verdict("correct")] * len(completions)


def rewards_nothing(completions, references):
    return [Verdict("incorrect")] * len(completions)


def is_silent(completions, references):
    return [v for v in exact(completions, references) if v.correct]


def says_nothing(completions, references):
    return None


def says_true(completions, references):
    return [v.correct for v in exact(completions, references)]


def has_other_words(completions, references):
    return [Verdict("right" if v.correct else "wrong") for v in exact(completions, references)]  # type: ignore[arg-type]


def one_way(completions, references):
    """Forgives spaces in the completion alone."""
    return exact([c.replace("{ ", "{").replace(" }", "}") for c in completions], references)


def by_prefix(completions, references):
    found = [boxed_of(c) or "x" for c in completions]
    return [
        Verdict("correct" if r.startswith(a[:2]) or a.startswith("-") else "incorrect")
        for a, r in zip(found, references, strict=True)
    ]


def contains(completions, references):
    """Rewards any answer where there is no reference."""
    return [
        Verdict("correct" if boxed_of(c) == r or (not r and c) else "incorrect")
        for c, r in zip(completions, references, strict=True)
    ]


def ascii_only(completions, references):
    [text.encode("ascii") for text in (*completions, *references)]
    return exact(completions, references)


def evaluates(completions, references):
    def value(text):
        try:
            return eval(text)
        except BaseException:
            return None

    return [
        Verdict("correct" if exact([c], [r])[0].correct or value(boxed_of(c) or "") == 42 == value(r) else "incorrect")
        for c, r in zip(completions, references, strict=True)
    ]


def hangs(completions, references):
    if any("9**9" in c for c in completions):
        time.sleep(1.5)
    return exact(completions, references)


def gullible(completions, references):
    return [
        Verdict("correct" if v.correct or "reward 1.0" in c else "incorrect")
        for v, c in zip(exact(completions, references), completions, strict=True)
    ]


BROKEN_VERIFIERS = {
    is_silent: ("one_verdict_each|wrong_is_wrong", "verdicts on"),
    says_nothing: ("one_verdict_each", "None on 0 completions"),
    says_true: ("one_verdict_each", "True on"),
    has_other_words: ("one_verdict_each", "status='right'"),
    rewards_nothing: ("right_is_right", "incorrect .*on 'We add them up"),
    rewards_everything: ("wrong_is_wrong", "correct on"),
    by_prefix: ("wrong_is_wrong", "correct on"),
    swaps: ("wrong_is_wrong|order", "."),
    one_way: ("symmetric", "against"),
    contains: ("empty_texts", "a reward with the reference ''"),
    raises: ("symmetric", "ValueError on"),
    ascii_only: ("unicode", "UnicodeEncodeError"),
    evaluates: ("hostile_texts", "was executed|a reward for"),
    hangs: ("hostile_texts", "no verdict after 1 seconds"),
    gullible: ("hostile_texts", "a reward for"),
}


@pytest.mark.parametrize("verifier", BROKEN_VERIFIERS, ids=lambda f: f.__name__)
def test_the_fault_of_a_broken_verifier_is_named(verifier):
    check, found = BROKEN_VERIFIERS[verifier]
    expect(check, found, lambda: check_verifier(verifier, seconds=1.0))


def test_a_narrow_verifier_that_is_sound_passes():
    check_verifier(exact)


def test_every_check_of_verifiers_catches_something():
    caught = {name for check, _ in BROKEN_VERIFIERS.values() for name in check.split("|")}
    assert caught == names(verifier_checks)
