"""The siblings and the options of the base: ablations, penalties, corrections, controllers, against arithmetic."""

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from tiny import not_none, random_batch, random_rollout, teaching_policy, tiny_policy

from espo_gym import algorithms
from espo_gym.algorithms import DAPO, ESPO, GRPO, PPO, RLOO, espo_loss, gmpo_loss, grpo_loss, gspo_loss
from espo_gym.algorithms.terms import gae

ADDITION = "espo_gym/Addition-v0"
SMALL: dict[str, Any] = {
    "rollout_size": 16,
    "group_size": 4,
    "n_minibatches": 2,
    "learning_rate": 1e-3,
    "max_completion_tokens": 24,
}


def value_and_gradient(loss, batch, **hyperparameters):
    leaf = batch.logps.detach().clone().requires_grad_()
    out = loss(replace(batch, logps=leaf), **hyperparameters)
    out.loss.backward()
    return out, leaf.grad


def same(a, b) -> None:
    torch.testing.assert_close(a[0].loss, b[0].loss, rtol=1e-12, atol=1e-14)
    torch.testing.assert_close(a[1], b[1], rtol=1e-10, atol=1e-14)


# -- ESPO's ladder ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(
    ("rung", "sibling", "hyperparameters"),
    [
        ("grpo", grpo_loss, {}),
        ("gspo", gspo_loss, {}),
        ("espo", espo_loss, {}),
        ("no_adaptive_clip_wide", espo_loss, {"clip_low": 0.2, "clip_high": 0.28}),
    ],
)
def test_a_rung_equals_its_sibling(rung, sibling, hyperparameters, seed):
    batch = random_batch(seed)
    ours = value_and_gradient(espo_loss, batch, **ESPO.ablation(rung))
    same(ours, value_and_gradient(sibling, batch, **hyperparameters))


def test_entropies_of_one_value_make_the_adaptive_rungs_those_of_a_fixed_clip():
    batch = random_batch(2)
    flat = replace(batch, entropies=torch.full_like(not_none(batch.entropies), 1.3))
    eps = 0.02 / math.log(not_none(batch.vocab_size)) * 1.3
    fixed = {"clip_low": eps, "clip_high": eps}
    same(
        value_and_gradient(espo_loss, flat, **ESPO.ablation("one_group")), value_and_gradient(gspo_loss, flat, **fixed)
    )
    same(
        value_and_gradient(espo_loss, flat, **ESPO.ablation("no_grouping")),
        value_and_gradient(grpo_loss, flat, **fixed),
    )


def test_token_weighting_has_the_weights_of_gspo():
    batch = random_batch(3)
    ours = espo_loss(batch, **ESPO.ablation("token_weighting"))
    torch.testing.assert_close(ours.weights, gspo_loss(batch).weights)
    assert not torch.allclose(ours.weights, espo_loss(batch).weights)


def test_an_unknown_rung_names_the_known_ones():
    with pytest.raises(ValueError, match=r"no ablation 'nothing'; there are grpo, gspo, no_adaptive_clip"):
        ESPO.ablation("nothing")


def test_quantiles_over_the_batch_take_the_most_uncertain_tokens_of_all_completions():
    batch = random_batch(5, rows=8, width=9)
    groups = ESPO.formula(quantiles_over="batch", quantiles=(0.5, 0.9)).groups(batch)
    entropies = not_none(batch.entropies)[batch.mask]
    order = entropies.argsort(descending=True)
    n = len(entropies)
    expected = torch.zeros(n, dtype=torch.long)
    expected[order[: round(0.5 * n)]] = 1
    expected[order[: round(0.1 * n)]] = 2
    assert torch.equal(groups[batch.mask], expected)


def test_groups_over_the_batch_do_not_depend_on_the_micro_batch():
    rollout = random_rollout(tiny_policy(), lengths=[3, 1, 7, 2, 5, 5, 1, 4])
    gradients = []
    for size in (None, 1, 12):
        policy = tiny_policy()
        algorithm = ESPO(
            policy,
            ADDITION,
            rollout_size=8,
            group_size=4,
            n_minibatches=1,
            quantiles_over="batch",
            micro_batch_tokens=size,
        )
        rollout = algorithm.annotate(rollout)
        algorithm.step(rollout, algorithm.advantages(rollout), torch.arange(8))
        gradients.append(torch.cat([not_none(p.grad).flatten() for p in policy.parameters()]))
    for other in gradients[1:]:
        torch.testing.assert_close(other, gradients[0], rtol=1e-4, atol=1e-7)


def test_the_clip_of_espo_may_be_asymmetric_and_has_a_floor():
    batch = random_batch(1)
    low, high = ESPO.formula(alpha=0.5, alpha_high=1.0).clip_range(batch)
    torch.testing.assert_close(high, 2 * low)
    low, high = ESPO.formula(alpha=0.04, eps_min=0.015).clip_range(batch)
    plain, _ = ESPO.formula(alpha=0.04).clip_range(batch)
    assert (plain[batch.mask] < 0.015).any()
    assert torch.equal(low, plain.clamp(min=0.015)) and torch.equal(low, high) and (low > 0.015).any()


@pytest.mark.parametrize("wrong", [{"clip_low": 0.1}, {"clip_low": 0.1, "clip_high": 0.1, "eps_min": 0.1}])
def test_half_a_fixed_clip_or_one_with_a_floor_is_an_error(wrong):
    with pytest.raises(ValueError, match=r"a fixed clip"):
        ESPO.formula(**wrong)


@pytest.mark.parametrize(
    ("name", "value", "switch"),
    [
        ("kl_estimator", "k1", "kl_coef"),
        ("kl_target", 0.1, "kl_coef"),
        ("kl_horizon", 5, "kl_target"),
        ("sampler_cap", 3.0, "sampler_correction"),
        ("max_resamples", 1, "dynamic_sampling"),
    ],
)
def test_an_option_without_its_switch_is_an_error(name, value, switch):
    with pytest.raises(ValueError, match=f"{name}=.* has no effect without {switch}"):
        GRPO.formula(**{name: value})


# -- options of the base ---------------------------------------------------------------------------------------------


def test_dual_clip_bounds_the_loss_of_a_bad_completion():
    batch = random_batch(0, noise=2.0, rows=16)
    out = grpo_loss(batch, dual_clip=1.5)
    ratio = (batch.logps - batch.old_logps).exp().detach()
    a = batch.advantages
    j = torch.minimum(ratio * a, ratio.clamp(0.8, 1.2) * a)
    j = torch.where(a < 0, torch.maximum(j, 1.5 * a), j)
    torch.testing.assert_close(out.loss.detach(), -(out.weights * j)[batch.mask].sum())
    assert (out.clipped & (a < 0) & (ratio > 1.5)).any()


@pytest.mark.parametrize("name", ["cispo", "gmpo", "sapo"])
def test_dual_clip_means_nothing_where_there_is_no_such_ratio(name):
    with pytest.raises(ValueError, match="dual_clip has no effect for"):
        getattr(algorithms, f"{name}_loss")(random_batch(), dual_clip=3.0)


def test_a_divergence_in_the_reward_means_nothing_where_it_is_not_taken_off():
    with pytest.raises(ValueError, match="kl_in='reward' has no effect for GRPO"):
        GRPO.formula(kl_in="reward")


def test_the_entropy_bonus_is_the_weighted_entropy_of_the_new_policy():
    batch = random_batch(1)
    entropies = torch.rand(batch.logps.shape, dtype=torch.float64).requires_grad_()
    plain, bonus = grpo_loss(batch), grpo_loss(replace(batch, new_entropies=entropies), entropy_coef=0.3)
    weights = plain.weights
    torch.testing.assert_close(bonus.loss, plain.loss - 0.3 * (weights * entropies)[batch.mask].sum())
    bonus.loss.backward()
    torch.testing.assert_close(entropies.grad, -0.3 * weights)


def test_the_entropy_bonus_raises_the_entropy():
    def entropy_after(entropy_coef):
        algorithm = GRPO(teaching_policy(), ADDITION, entropy_coef=entropy_coef, **SMALL)
        algorithm.learn(64)
        return float(algorithm.collect_rollout().entropies.sum(1).mean())

    assert entropy_after(1.0) > 1.1 * entropy_after(0.0)


@pytest.mark.parametrize("level", ["token", "sequence"])
def test_the_sampler_correction_is_a_truncated_importance_weight(level):
    batch = random_batch(3)
    sampler = torch.where(batch.mask, batch.old_logps + 0.5 * torch.randn_like(batch.old_logps), 0.0)
    out = grpo_loss(replace(batch, sampler_logps=sampler), sampler_correction=level, sampler_cap=1.3)
    total = 0.0
    for i in range(len(batch.logps)):
        own = [t for t in range(batch.logps.shape[1]) if batch.mask[i, t]]
        gap = [float(batch.old_logps[i, t] - sampler[i, t]) for t in own]
        for t, g in zip(own, gap, strict=True):
            weight = min(1.3, math.exp(g if level == "token" else sum(gap)))
            r = math.exp(float(batch.logps[i, t].detach() - batch.old_logps[i, t]))
            a = float(batch.advantages[i, t])
            total -= float(out.weights[i, t]) * weight * min(r * a, min(max(r, 0.8), 1.2) * a)
    assert float(out.loss.detach()) == pytest.approx(total, rel=1e-12)


def test_the_sampler_correction_recomputes_the_old_log_probs():
    algorithm = GRPO(teaching_policy(), ADDITION, sampler_correction="token", **SMALL)
    rollout = algorithm.collect_rollout()
    assert rollout.sampler_logps is not None and not torch.equal(rollout.sampler_logps, rollout.old_logps)
    torch.testing.assert_close(rollout.sampler_logps, rollout.old_logps, atol=1e-4, rtol=0)
    with pytest.raises(ValueError, match="sampler_correction has no effect"):
        GRPO.formula(sampler_correction="token", old_logps="sampled")


def test_a_divergence_above_its_target_raises_its_coefficient_and_below_lowers_it():
    def coefficient(kl_target):
        settings = {"kl_coef": 0.1, "kl_target": kl_target, "kl_horizon": 100, "seed": 1}  # with a reward to learn from
        algorithm = GRPO(teaching_policy(), ADDITION, **SMALL, **settings)
        return algorithm.learn(32).kl_coef

    # Two rollouts of 16 completions: at most a fifth of 16 / 100 each. The first rollout is still near the reference.
    assert coefficient(1e-9) == pytest.approx(0.1 * (1 + 0.2 * 0.16) ** 2)
    assert coefficient(1e3) == pytest.approx(0.1 * (1 - 0.2 * 0.16) ** 2)


def test_target_kl_ends_the_steps_on_a_rollout():
    def updates(target_kl):
        hyperparameters = SMALL | {"n_minibatches": 4, "n_epochs": 4, "learning_rate": 3e-3, "warmup_steps": 0}
        return GRPO(teaching_policy(), ADDITION, target_kl=target_kl, seed=1, **hyperparameters).learn(16).n_updates

    assert updates(None) == 16 and updates(1e6) == 16 and 1 < updates(1e-3) < 16


def test_rloo_takes_the_divergence_off_the_reward_of_the_completion():
    rollout = random_rollout(tiny_policy(), lengths=[3, 1, 7, 2])
    rollout.ref_logps = rollout.old_logps - 0.2 * rollout.mask
    algorithm = RLOO.formula(kl_coef=0.5, kl_in="reward", kl_estimator="k1")
    rewards = rollout.rewards - 0.5 * 0.2 * rollout.mask.sum(1)
    expected = [r - (rewards[rollout.groups == g].sum() - r) / 3 for r, g in zip(rewards, rollout.groups, strict=True)]
    torch.testing.assert_close(algorithm.advantages(rollout), torch.stack(expected))


def test_the_overlong_penalty_of_dapo_falls_from_0_to_minus_1_over_the_buffer():
    algorithm = DAPO.formula(max_completion_tokens=20, overlong_buffer=8)
    penalties = algorithm.overlong_penalty(torch.tensor([1, 12, 14, 16, 20]))
    torch.testing.assert_close(penalties, torch.tensor([0.0, 0.0, -0.25, -0.5, -1.0]))
    assert DAPO.formula().overlong_penalty(torch.tensor([16_384])).item() == 0
    with pytest.raises(ValueError, match="overlong_buffer must be"):
        DAPO.formula(max_completion_tokens=8, overlong_buffer=8)


def test_gmpo_is_a_geometric_mean_with_the_sign_of_the_advantage():
    batch = random_batch(4, noise=1.0)
    out = gmpo_loss(batch)
    total, n = 0.0, 0
    for i in range(len(batch.logps)):
        own = [t for t in range(batch.logps.shape[1]) if batch.mask[i, t]]
        if not own:
            continue
        n += 1
        a = float(batch.advantages[i, own[0]])
        log_ratios = [float(batch.logps[i, t].detach() - batch.old_logps[i, t]) for t in own]
        pick = min if a > 0 else max
        total -= a * math.exp(np.mean([pick(x, min(max(x, -0.4), 0.4)) for x in log_ratios]))
    assert float(out.loss.detach()) == pytest.approx(total / n, rel=1e-12)


# -- PPO -------------------------------------------------------------------------------------------------------------


def test_gae_passes_over_tokens_that_are_not_the_policys():
    rng = np.random.default_rng(0)
    rewards, values = torch.tensor(rng.normal(size=(1, 6))), torch.tensor(rng.normal(size=(1, 6)))
    mask = torch.tensor([[True, True, False, False, True, True]])
    own = [0, 1, 4, 5]
    advantages, returns = gae(rewards, values, mask, 0.9, 0.8)
    expected, running = {}, 0.0
    for k in reversed(range(4)):
        t, following = own[k], float(values[0, own[k + 1]]) if k < 3 else 0.0
        running = float(rewards[0, t]) + 0.9 * following - float(values[0, t]) + 0.9 * 0.8 * running
        expected[t] = running
    for t in range(6):
        assert float(advantages[0, t]) == pytest.approx(expected.get(t, 0.0))
        assert float(returns[0, t]) == pytest.approx(expected[t] + float(values[0, t]) if t in expected else 0.0)


def test_a_critic_of_its_own_leaves_the_policy_to_the_surrogate():
    algorithm = PPO(teaching_policy(), ADDITION, critic="separate", value_learning_rate=2e-3, vf_coef=1.0, **SMALL)
    value_head = not_none(algorithm.policy.value_head)
    torch.nn.init.constant_(value_head.weight, 0.1)  # at 0 no gradient would reach the trunk
    rollout = algorithm.collect_rollout()
    rollout = algorithm.annotate(rollout)
    advantages = algorithm.advantages(rollout)
    algorithm.step(rollout, advantages * 0, torch.arange(16))
    policy, critic = algorithm.policy, not_none(algorithm.policy.critic)
    assert all(p.grad is None or p.grad.eq(0).all() for p in policy.model.parameters())
    assert any(p.grad is not None and p.grad.abs().max() > 0 for p in critic.parameters())
    assert not_none(value_head.weight.grad).abs().max() > 0
    rates = [group["initial_lr"] for group in algorithm.optimizer.param_groups]
    assert rates == [1e-3, 2e-3]


def test_the_critic_starts_at_the_mean_reward():
    algorithm = PPO(teaching_policy(), ADDITION, **SMALL)
    rollout = algorithm.collect_rollout()
    torch.testing.assert_close(not_none(rollout.values)[rollout.mask].unique(), rollout.rewards.mean()[None])


@pytest.mark.parametrize("critic", ["shared", "separate"])
def test_ppo_resumes_exactly_with_either_critic(critic, tmp_path):
    settings = SMALL | {"critic": critic, "value_learning_rate": 5e-3}
    whole = PPO(teaching_policy(), ADDITION, **settings).learn(64)
    PPO(teaching_policy(), ADDITION, **settings).learn(32).save(tmp_path / "half")
    rest = PPO.load(tmp_path / "half", device="cpu").learn(32)
    a, b = whole.policy.state_dict(), rest.policy.state_dict()
    assert a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)
    assert (critic == "separate") == any(name.startswith("critic.") for name in a)
