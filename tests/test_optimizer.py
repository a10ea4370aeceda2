"""The optimizers as a user meets them: environments of every kind, metrics by hand, and what can go wrong."""

import math
import random
from collections.abc import Callable
from dataclasses import replace
from typing import Any, get_type_hints

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.spaces import Discrete, Text
from gymnasium.vector import AutoresetMode, SyncVectorEnv, VectorEnv
from stable_baselines3.common.logger import configure
from tiny import SMALL, global_random_state, not_none, random_rollout, same_state, state, teaching_policy, tiny_policy
from typing_extensions import assert_type

from espo_gym.algorithms import DAPO, ESPO, GRPO, PPO, collector
from espo_gym.algorithms.base import PolicyOptimizer
from espo_gym.collect import collect as honest
from espo_gym.envs import Addition, MathVectorEnv, TextEnv, UnicodeText, Verdict
from espo_gym.metrics import explained_variance, logp_gap, rollout_metrics
from espo_gym.policy import Policy

ADDITION = "espo_gym/Addition-v0"


class Echo(gymnasium.Env):
    """A text environment from elsewhere: no task, no verdict. The reward is 1 for an even number of characters."""

    observation_space, action_space = UnicodeText(100), UnicodeText(1000)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.question = f"{self.np_random.integers(10, 99)}="
        return self.question, {}

    def step(self, action):
        return "", float(len(action) % 2 == 0), True, False, {}


class Failing(Addition):
    """Addition whose verifier fails on some completions: on those of the problems in ``broken``, or on all."""

    broken: float = 0.5

    def verify(self, completions, problems):
        verdicts = super().verify(completions, problems)
        return [
            Verdict("no_verdict", reason="timeout") if random.Random(p.key).random() < self.broken else v
            for v, p in zip(verdicts, problems, strict=True)
        ]


class AllFailing(Failing):
    broken = 1.0


class Nothing(Addition):
    """Addition where nothing is right, so no group has rewards that differ."""

    def verify(self, completions, problems):
        return [Verdict("incorrect", answer="0") for _ in completions]


class Numbers(gymnasium.Env):
    observation_space, action_space = Text(10), Discrete(3)


def make(algorithm=GRPO, env=ADDITION, policy=None, **kwargs) -> PolicyOptimizer:
    return algorithm(policy or tiny_policy(), env, **(SMALL | kwargs))


def logged(algo) -> dict[str, float]:
    return dict(algo.logger.name_to_value)


def trained(algo) -> dict[str, float]:
    """One rollout, with its metrics."""
    rollout = algo.collect_rollout()
    algo.train(rollout)
    return logged(algo)


# -- environments ----------------------------------------------------------------------------------------------------

ENVIRONMENTS: dict[str, Callable[[], Any]] = {
    "id": lambda: ADDITION,
    "id with module": lambda: "espo_gym:espo_gym/Addition-v0",
    "gym.make": lambda: gymnasium.make(ADDITION),
    "make_vec": lambda: gymnasium.make_vec(ADDITION, num_envs=8),
    "TextEnv": lambda: TextEnv(Addition()),
    "MathVectorEnv": lambda: MathVectorEnv(Addition(), num_envs=8),
    "MathVectorEnv, same step": lambda: MathVectorEnv(Addition(), num_envs=8, autoreset_mode="SameStep"),
    "from elsewhere": Echo,
    "from elsewhere, same step": lambda: SyncVectorEnv([Echo] * 8, autoreset_mode=AutoresetMode.SAME_STEP),
    "from elsewhere, next step": lambda: SyncVectorEnv([Echo] * 8, autoreset_mode=AutoresetMode.NEXT_STEP),
    "from elsewhere, disabled": lambda: SyncVectorEnv([Echo] * 8, autoreset_mode=AutoresetMode.DISABLED),
    "sync of ours, disabled": lambda: SyncVectorEnv(
        [lambda: TextEnv(Addition())] * 8, autoreset_mode=AutoresetMode.DISABLED
    ),
    "sync of ours, same step": lambda: SyncVectorEnv(
        [lambda: TextEnv(Addition())] * 8, autoreset_mode=AutoresetMode.SAME_STEP
    ),
}


@pytest.mark.parametrize("kind", ENVIRONMENTS)
def test_any_text_environment_will_do(kind):
    env = ENVIRONMENTS[kind]()
    kwargs: dict[str, Any] = {} if isinstance(env, gymnasium.vector.VectorEnv) else {"rollout_size": 8}
    algo = GRPO(tiny_policy(), env, **{k: v for k, v in SMALL.items() if k != "rollout_size"}, **kwargs)
    assert algo.rollout_size == 8 and algo.get_env().num_envs == 8
    for _ in range(3):
        rollout = algo.collect_rollout()
        assert len(rollout) == 8 and len(set(rollout.prompts)) == 2
        assert rollout.prompts[:4] == [rollout.prompts[0]] * 4  # a group shares its problem
        for text, reward, truncated in zip(rollout.texts, rollout.rewards, rollout.truncated, strict=True):
            if truncated:
                assert reward == 0
            elif "elsewhere" in kind:
                assert reward == (len(text) % 2 == 0)
        algo.num_timesteps += 8
    assert algo.learn(16).num_timesteps == 40


def test_an_environment_from_elsewhere_gets_its_reward_and_the_policy_learns_from_it():
    algo = make(env=Echo(), rollout_size=64, max_completion_tokens=20, learning_rate=3e-3, n_minibatches=4)
    before = state(algo.policy)
    rollout = algo.collect_rollout()
    assert 0 < rollout.rewards.mean() < 1
    assert rollout.has_verdict.all() and [v.correct for v in rollout.verdicts] == rollout.rewards.bool().tolist()
    algo.train(rollout)
    assert not same_state(state(algo.policy), before)


def test_every_rollout_asks_new_problems():
    algo = make()
    algo.learn(8)
    one = algo.collect_rollout().prompts
    algo.num_timesteps += 8
    two = algo.collect_rollout().prompts
    assert len({*one, *two}) == 4


def test_training_never_asks_a_problem_of_the_test_split():
    algo = make(rollout_size=64)
    held_out = MathVectorEnv(Addition(), num_envs=256, split="test").reset(seed=0)[0]
    assert not set(algo.collect_rollout().prompts) & set(held_out)


def test_rollout_size_must_agree_with_the_vector_environment():
    env = gymnasium.make_vec(ADDITION, num_envs=8)
    with pytest.raises(ValueError, match="rollout_size=16 conflicts with num_envs=8"):
        GRPO(tiny_policy(), env, rollout_size=16)
    assert GRPO(tiny_policy(), env, group_size=4).rollout_size == 8
    assert GRPO(tiny_policy(), env, group_size=4, preset="teaching").rollout_size == 8


def test_a_group_size_that_does_not_divide_the_vector_environment_is_an_error():
    with pytest.raises(ValueError, match="rollout of 6 completions cannot be split into groups of 4"):
        GRPO(tiny_policy(), gymnasium.make_vec(ADDITION, num_envs=6), group_size=4)


def test_spaces_that_are_not_text_are_an_error():
    with pytest.raises(TypeError, match=r"the actions of .*Discrete\(3\).*must be gymnasium\.spaces\.Text"):
        make(env=Numbers())
    with pytest.raises(TypeError, match="the observations of CartPole-v1 are Box"):
        make(env="CartPole-v1")


def test_what_is_no_environment_is_an_error():
    with pytest.raises(TypeError, match=r"must be an environment id, a gymnasium\.Env or .*, not int"):
        make(env=3)


def test_an_unknown_id_is_an_error_that_names_a_close_one():
    with pytest.raises(gymnasium.error.Error, match="Addition"):
        make(env="espo_gym/Adition-v0")


def test_set_env_goes_on_elsewhere_and_checks_the_size():
    algo = make()
    other = gymnasium.make_vec(ADDITION, num_envs=8, digits=2)
    algo.set_env(other)
    assert algo.get_env() is other and all(len(p) == 6 for p in algo.collect_rollout().prompts)
    with pytest.raises(ValueError, match="has 4 rows, the rollout size is 8"):
        algo.set_env(gymnasium.make_vec(ADDITION, num_envs=4))
    assert algo.get_env() is other


# -- learn, predict, evaluate ----------------------------------------------------------------------------------------


def test_learn_counts_completions_in_whole_rollouts(algorithm):
    algo = make(algorithm)
    assert algo.learn(10) is algo
    assert (algo.num_timesteps, algo.n_rollouts) == (16, 2)
    algo.learn(8)
    assert (algo.num_timesteps, algo.n_rollouts) == (24, 3)


def test_updates_are_epochs_times_minibatches():
    algo = make(env=Echo(), n_epochs=3, n_minibatches=2)
    algo.learn(8)
    assert algo.n_updates == 6


def test_the_learning_rate_warms_up_and_reaches_its_value():
    algo = make(env=Echo(), learning_rate=0.01, warmup_steps=4, n_minibatches=1)
    seen = []
    for _ in range(6):
        seen.append(algo.current_learning_rate)
        algo.learn(8)
        assert algo.optimizer.param_groups[0]["lr"] == seen[-1]
    assert seen == pytest.approx([0.0025, 0.005, 0.0075, 0.01, 0.01, 0.01])


def test_predict_answers_one_observation_or_several():
    algo = make(policy=teaching_policy(), max_completion_tokens=40)
    text, _ = algo.predict("358+467=", deterministic=True)
    assert isinstance(text, str) and text.startswith("8+7=15")
    texts, _ = algo.predict(["358+467=", "111+222="], deterministic=True)
    assert texts.shape == (2,) and texts.dtype == object and texts[0] == text
    assert algo.predict("358+467=", deterministic=True)[0] == text
    assert len({algo.predict("358+467=")[0] for _ in range(8)}) > 1


def test_evaluating_changes_nothing():
    algo = make(policy=teaching_policy(), max_completion_tokens=40)
    before, counters = state(algo.policy), (algo.num_timesteps, algo.n_updates, algo.n_predictions)
    one, other = algo.evaluate(k=2, n_problems=8), algo.evaluate(k=2, n_problems=8)
    assert dict(one) == dict(other) and set(one) == {"greedy", "avg@2", "pass@2", "maj@2"}
    assert same_state(state(algo.policy), before)
    assert (algo.num_timesteps, algo.n_updates, algo.n_predictions) == counters


def test_evaluate_takes_another_environment():
    algo = make(policy=teaching_policy(), max_completion_tokens=40)
    result = algo.evaluate(k=0, n_problems=8, env=gymnasium.make(ADDITION, digits=1), details=True)
    assert all(len(p.prompt) == 4 for p in result.problems)


def test_learning_evaluating_and_predicting_touch_no_global_random_state(algorithm):
    algo = make(algorithm, env=ADDITION, policy=teaching_policy(), max_completion_tokens=30, kl_coef=0.01)
    untouched = global_random_state()
    algo.learn(8)
    algo.evaluate(k=2, n_problems=4)
    algo.predict("1+1=")
    assert untouched()


def test_the_global_seed_makes_no_difference():
    states = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        np.random.seed(seed)
        random.seed(seed)
        algo = make(PPO, policy=teaching_policy(), max_completion_tokens=30)
        algo.learn(8)
        states.append(state(algo.policy))
    assert same_state(*states)


# -- no verdict ------------------------------------------------------------------------------------------------------


def test_completions_without_a_verdict_take_no_part(algorithm):
    """Training on a rollout with failures is training on the rest of it."""
    after = []
    for broken in (False, True):
        policy = tiny_policy()
        if algorithm is PPO:
            policy.add_value_head()
        rollout = random_rollout(policy, lengths=[3, 1, 7, 2, 5, 5, 1, 4], no_verdict=[1, 4, 6])
        if not broken:
            rollout = rollout.rows(rollout.has_verdict.nonzero().squeeze(1))
        algo = make(algorithm, policy=policy, rollout_size=len(rollout), group_size=1, n_minibatches=1, adam_eps=1.0)
        algo.train(rollout)
        after.append(algo.policy)
    for one, other in zip(after[0].parameters(), after[1].parameters(), strict=True):
        np.testing.assert_allclose(other.detach(), one.detach(), atol=1e-7)


def test_metrics_leave_completions_without_a_verdict_out():
    rollout = random_rollout(tiny_policy(), lengths=[3, 1, 7, 2, 5, 5, 1, 4], no_verdict=[1, 4])
    rollout.rewards = torch.tensor([1.0, 9.0, 0.0, 1.0, 9.0, 1.0, 1.0, 1.0])
    rollout.verdicts = [
        replace(v, status="correct" if r == 1 else "incorrect") if v.has_verdict else v
        for v, r in zip(rollout.verdicts, rollout.rewards, strict=True)
    ]
    rollout.truncated[2] = True
    metrics = rollout_metrics(rollout)
    rest = [1, 0, 1, 1, 1, 1]
    assert metrics["reward_mean"] == pytest.approx(np.mean(rest))
    assert metrics["reward_std"] == pytest.approx(np.std(rest, ddof=1))
    assert metrics["accuracy"] == pytest.approx(5 / 6)
    assert metrics["verdict_no_verdict"] == metrics["no_verdict_crash"] == 2 / 8
    assert (metrics["verdict_correct"], metrics["verdict_incorrect"], metrics["verdict_no_answer"]) == (5 / 8, 1 / 8, 0)
    assert metrics["truncated"] == 1 / 8
    assert metrics["zero_variance_groups"] == 1 / 2  # of 1, 0, 1 and of 1, 1, 1
    assert metrics["completion_length"] == 28 / 8 and metrics["completion_length_max"] == 7
    judged = rollout.mask & rollout.has_verdict[:, None]
    assert metrics["entropy"] == pytest.approx(float(rollout.entropies[judged].mean()), rel=1e-6)


def failing(task, **kwargs):
    algo = make(env=MathVectorEnv(task, num_envs=64), policy=teaching_policy(), rollout_size=64, group_size=4, **kwargs)
    algo.max_completion_tokens = 40
    return algo


def test_training_goes_on_while_few_enough_verifications_fail(algorithm):
    algo = failing(Failing(), max_no_verdict=0.9)
    metrics = trained(algo)
    assert 0.1 < metrics["rollout/verdict_no_verdict"] < 0.9
    assert metrics["rollout/no_verdict_timeout"] == metrics["rollout/verdict_no_verdict"]
    assert math.isfinite(metrics["rollout/accuracy"])


def test_training_stops_where_too_many_verifications_fail(algorithm):
    algo = failing(AllFailing(), max_no_verdict=0.9)
    before = state(algo.policy)
    with pytest.raises(RuntimeError, match=r"failed on \d+% of a rollout .*'timeout': \d+.*max_no_verdict = 90%"):
        algo.learn(64)
    assert same_state(state(algo.policy), before) and algo.num_timesteps == 0


def test_a_rollout_without_any_verdict_changes_nothing(algorithm):
    algo = make(algorithm)
    if algorithm is PPO:
        algo.policy.add_value_head()
    rollout = random_rollout(algo.policy, lengths=[3, 1, 7, 2, 5, 5, 1, 4], no_verdict=list(range(8)))
    before = state(algo.policy)
    algo.train(rollout)
    assert same_state(state(algo.policy), before) and algo.n_updates == 0
    assert math.isnan(rollout_metrics(rollout)["reward_mean"])


@pytest.mark.parametrize("algorithm", [ESPO, GRPO])
def test_groups_of_equal_rewards_give_a_gradient_of_exactly_zero(algorithm):
    algo = make(algorithm, n_minibatches=1, weight_decay=0.0)
    rollout = random_rollout(algo.policy, lengths=[3, 1, 7, 2, 5, 5, 1, 4])
    rollout.rewards = torch.tensor([1.0] * 4 + [0.0] * 4)
    before = state(algo.policy)
    algo.train(rollout)
    assert logged(algo)["train/grad_norm"] == 0 and same_state(state(algo.policy), before)


# -- NaN and infinity ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_stops_before_the_step(algorithm, bad):
    algo = make(algorithm)
    if algorithm is PPO:
        algo.policy.add_value_head()
    rollout = random_rollout(algo.policy, lengths=[3, 1, 7, 2, 5, 5, 1, 4])
    rollout.rewards = torch.tensor([1.0, 0.0] * 4)
    rollout.old_logps[:] = torch.where(rollout.mask, -bad, 0.0)
    before = state(algo.policy)
    with pytest.raises(FloatingPointError, match=r"the loss is (nan|-?inf) at update 0 .*learning rate") as raised:
        algo.train(rollout)
    assert same_state(state(algo.policy), before) and algo.n_updates == 0
    assert "train/grad_norm" in str(raised.value)
    assert all(p.grad is None or p.grad.eq(0).all() for p in algo.policy.parameters())


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_gradient_that_is_not_finite_stops_before_the_step(algorithm, bad):
    algo = make(algorithm, env=Echo(), max_completion_tokens=20)
    algo.learn(8)
    before, updates = state(algo.policy), algo.n_updates
    moments = [v["exp_avg"].clone() for v in algo.optimizer.state.values()]
    hook = next(algo.policy.parameters()).register_hook(lambda g: g * bad)
    with pytest.raises(FloatingPointError, match=r"the gradient is (nan|inf) at update \d+ \(timestep 8\)"):
        for _ in range(5):
            algo.learn(8)
    hook.remove()
    assert same_state(state(algo.policy), before) and algo.n_updates == updates
    assert all(torch.equal(a, v["exp_avg"]) for a, v in zip(moments, algo.optimizer.state.values(), strict=True))


# -- old log-probs and the reference ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("dtype", "old_logps", "recomputed"),
    [
        (torch.float32, "auto", False),
        (torch.bfloat16, "auto", True),
        (torch.float32, "recomputed", True),
        (torch.bfloat16, "sampled", False),
    ],
)
def test_old_log_probs_are_recomputed_below_float32_or_when_asked(dtype, old_logps, recomputed, monkeypatch):
    """The sampler is made to lie by 1 nat, so that it shows whose log-probs are used."""

    def collect(*args, **kwargs):
        rollout = honest(*args, **kwargs)
        return replace(rollout, old_logps=rollout.old_logps + 1.0, entropies=rollout.entropies + 1.0)

    monkeypatch.setattr(collector, "collect", collect)
    algo = make(env=Echo(), policy=tiny_policy(dtype=dtype), old_logps=old_logps, temperature=0.8)
    rollout = algo.collect_rollout()
    with torch.no_grad():
        scores = algo.policy.logps(rollout, temperature=0.8, entropies=True)
    for ours, exact in ((rollout.old_logps, scores.logps), (rollout.entropies, not_none(scores.entropies))):
        gap = (ours - exact)[rollout.mask].abs()
        assert gap.max() < 0.3 if recomputed else gap.min() > 0.7
    algo.train(rollout)
    metrics = logged(algo)  # recorded either way, before any step
    assert 0.7 < metrics["train/logp_gap_token"] < 1.3 and 0.7 < metrics["train/logp_gap_sequence"] < 1.3


def test_in_float32_the_sampler_and_the_training_pass_agree():
    metrics = trained(make(env=Echo(), max_completion_tokens=20))
    assert metrics["train/logp_gap_token"] < 2e-5 and metrics["train/logp_gap_sequence"] < 1e-5


def test_the_gap_is_the_largest_difference_of_a_token_and_of_a_mean():
    mask = torch.tensor([[True, True, False], [True, True, True]])
    sampled, again = torch.zeros(2, 3), torch.tensor([[0.1, -0.3, 9.0], [0.2, 0.2, 0.2]])
    assert logp_gap(sampled, again, mask) == pytest.approx({"logp_gap_token": 0.3, "logp_gap_sequence": 0.2})


def test_the_first_step_is_on_policy():
    metrics = trained(make(env=Echo(), n_minibatches=1, n_epochs=1))
    assert metrics["train/ratio_min"] == pytest.approx(1, abs=2e-5)
    assert metrics["train/ratio_max"] == pytest.approx(1, abs=2e-5)
    assert metrics["train/clip_fraction_low"] == metrics["train/clip_fraction_high"] == 0


def test_the_reference_stays_as_the_policy_was_and_its_divergence_is_measured():
    policy = tiny_policy()
    before = state(policy)
    algo = make(env=Echo(), policy=policy, reference_kl=True, max_completion_tokens=20)
    first = trained(algo)
    assert first["train/ref_kl_k3"] >= 0
    algo.learn(32)
    assert isinstance(algo.reference, Policy)
    assert same_state(state(algo.reference), before) and not same_state(state(algo.policy), before)
    rollout = algo.collect_rollout()
    with torch.no_grad():
        expected = algo.reference.logps(rollout).logps
    ref_logps = not_none(rollout.ref_logps)
    np.testing.assert_allclose(ref_logps, expected, atol=2e-5)
    assert (ref_logps - rollout.old_logps).abs().max() > 1e-3


def test_without_a_reference_there_is_no_divergence():
    assert "train/ref_kl_k3" not in trained(make(env=Echo()))
    assert "train/ref_kl_k3" in trained(make(env=Echo(), kl_coef=0.1))


# -- metrics ---------------------------------------------------------------------------------------------------------


def test_every_algorithm_has_the_same_metrics(algorithm):
    keys = set(trained(make(algorithm, env=Echo(), max_completion_tokens=20)))
    others = set(trained(make(GRPO, env=Echo(), max_completion_tokens=20)))
    own = {"train/value_loss", "train/explained_variance"} if algorithm is PPO else set()
    assert keys == others | own
    wanted = {
        *(
            "rollout/" + n
            for n in ("reward_mean", "reward_std", "accuracy", "entropy", "completion_length", "truncated")
        ),
        *("rollout/verdict_" + n for n in ("correct", "incorrect", "no_answer", "no_verdict")),
        *("train/ratio_" + n for n in ("min", "mean", "max")),
        *("train/clip_fraction_" + n for n in ("low", "high", "active")),
        *("train/" + n for n in ("gradient_token_share", "kl_k1", "kl_k3", "grad_norm", "learning_rate", "loss")),
        *("train/logp_gap_" + n for n in ("token", "sequence")),
        *("time/" + n for n in ("generate", "verify", "score", "update", "tokens_per_second")),
        "rollout/zero_variance_groups",
    }
    assert wanted <= keys


def test_explained_variance_by_hand():
    targets = torch.tensor([0.0, 1.0, 2.0, 3.0])
    assert explained_variance(targets, targets) == 1
    assert explained_variance(torch.full((4,), 7.0), targets) == 0
    assert explained_variance(-targets, targets) == pytest.approx(1 - 4)
    assert math.isnan(explained_variance(targets, torch.ones(4)))


def test_the_gradient_norm_is_that_before_it_is_clipped():
    clipped, free = (
        trained(make(env=Echo(), n_minibatches=1, rollout_size=64, max_grad_norm=m)) for m in (1e-4, math.inf)
    )
    assert clipped["train/grad_norm"] == pytest.approx(free["train/grad_norm"], rel=1e-6)
    assert clipped["train/grad_norm"] > 1e-3


def test_metrics_reach_the_loggers_formats(tmp_path):
    algo = make(env=Echo(), max_completion_tokens=20)
    algo.set_logger(configure(str(tmp_path), ["csv", "json", "tensorboard"]))
    algo.learn(24)
    algo.logger.close()
    csv = (tmp_path / "progress.csv").read_text().splitlines()
    assert len(csv) == 4 and "train/clip_fraction_low" in csv[0] and "rollout/accuracy" in csv[0]
    assert len((tmp_path / "progress.json").read_text().splitlines()) == 3
    assert list(tmp_path.glob("events.out.tfevents*"))


def test_metrics_are_written_every_so_many_rollouts(tmp_path):
    algo = make()
    algo.set_logger(configure(str(tmp_path), ["json"]))
    algo.learn(48, log_interval=3)
    assert len((tmp_path / "progress.json").read_text().splitlines()) == 2


def test_verbose_prints_the_metrics(capsys):
    make(verbose=1).learn(8)
    assert "reward_mean" in capsys.readouterr().out
    make().learn(8)
    assert capsys.readouterr().out == ""


def test_dynamic_sampling_replaces_groups_of_equal_rewards_and_counts_what_it_drew():
    algo = DAPO("espo_gym/teaching", "espo_gym/Addition-v0", rollout_size=64, seed=1)
    plain = DAPO("espo_gym/teaching", "espo_gym/Addition-v0", rollout_size=64, seed=1, dynamic_sampling=False)
    kept, whole = algo.collect_rollout(), plain.collect_rollout()
    for g in kept.groups.unique():
        assert len(kept.rewards[kept.groups == g]) == 8 and kept.rewards[kept.groups == g].unique().numel() > 1
    assert len(kept) == 64 and kept.n_generated > 64 and whole.n_generated == 64
    learned = algo.learn(1).num_timesteps
    assert learned == kept.n_generated and learned % 64 == 0


def test_dynamic_sampling_makes_do_where_no_group_is_informative():
    algo = DAPO("espo_gym/teaching", MathVectorEnv(Nothing(), num_envs=16), max_resamples=2, weight_decay=0.0)
    before = [p.clone() for p in algo.policy.parameters()]
    assert algo.learn(16).num_timesteps == 16 * 3
    assert all(torch.equal(a, b) for a, b in zip(before, algo.policy.parameters(), strict=True))


def test_policy_and_environment_have_their_types_and_are_required():
    """``assert_type`` is checked by mypy: an editor completes ``algo.policy.`` whatever the policy was given as."""
    algo = GRPO("espo_gym/teaching", "espo_gym/Addition-v0", rollout_size=16)
    assert_type(algo.policy, Policy)
    assert_type(algo.env, VectorEnv[Any, Any, Any])
    assert isinstance(algo.policy, Policy) and isinstance(algo.env, VectorEnv)
    assert get_type_hints(GRPO)["learning_rate"] is float  # every annotation can be evaluated
    with pytest.raises(TypeError, match="env is missing"):
        GRPO("espo_gym/teaching")


def test_callbacks_find_the_rollout_and_everything_that_was_sampled_for_it():
    found = []
    algo = make(DAPO, env=Echo(), max_resamples=1)

    def keep(*_) -> bool:
        found.append((not_none(algo.rollout), not_none(algo.played)))
        return True

    algo.learn(8, keep)
    ((rollout, played),) = found
    assert len(played) == algo.num_timesteps == rollout.n_generated and len(rollout) <= algo.rollout_size


@pytest.mark.parametrize(("limit", "drawn"), [(None, 24), (24, 24), (16, 16), (8, 8), (0, 8)])
def test_dynamic_sampling_keeps_to_the_limit_of_a_run(limit, drawn):
    settings = {name: value for name, value in SMALL.items() if name != "rollout_size"}
    algo = DAPO(tiny_policy(), MathVectorEnv(Nothing(), num_envs=8), max_resamples=2, **settings)
    algo.max_timesteps = limit
    algo.learn(1)
    assert algo.num_timesteps == drawn and algo.max_resamples == 2
