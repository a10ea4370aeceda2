"""What must hold for every batch: equalities between the algorithms, invariances, and inputs at the edge."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import not_none, random_batch, random_rollout, tiny_policy

from espo_gym.algorithms import (
    ESPO,
    GRPO,
    GSPO,
    PPO,
    LossBatch,
    LossOutput,
    PolicyOptimizer,
    espo_loss,
    grpo_loss,
    gspo_loss,
    ppo_loss,
)
from espo_gym.algorithms.terms import kl_estimate

LOSSES: dict[str, tuple[Callable[..., LossOutput], dict[str, Any]]] = {
    "espo": (espo_loss, {"alpha": 0.3}),
    "espo, group_token": (espo_loss, {"alpha": 0.3, "ratio": "group_token"}),
    "espo, four groups": (espo_loss, {"alpha": 0.3, "quantiles": (0.25, 0.5, 0.75)}),
    "grpo": (grpo_loss, {}),
    "grpo, kl": (grpo_loss, {"kl_coef": 0.1}),
    "gspo": (gspo_loss, {"clip_low": 0.05, "clip_high": 0.1}),
    "ppo": (ppo_loss, {}),
}
FORMULAS: dict[type[PolicyOptimizer], dict[str, Any]] = {
    ESPO: {"alpha": 0.3},
    GRPO: {},
    GSPO: {"clip_low": 0.05},
    PPO: {},
}
V = 50

ragged = st.builds(
    random_batch,
    st.integers(0, 2**32),
    rows=st.integers(4, 8),
    width=st.integers(1, 12),
    noise=st.sampled_from([0.001, 0.05, 0.3, 1.0]),
)
quick = settings(max_examples=40, deadline=None, derandomize=True)
each_loss = pytest.mark.parametrize("name", LOSSES)


def loss_and_gradients(loss, batch: LossBatch, **hyperparameters):
    """The loss, and its gradients at log-probs and values."""
    leaves = {n: getattr(batch, n).detach().clone().requires_grad_() for n in ("logps", "values")}
    out = loss(replace(batch, **leaves), **hyperparameters)
    out.loss.backward()
    return out, [torch.zeros_like(x) if x.grad is None else x.grad for x in leaves.values()]


def assert_same(a, b, tolerance: float = 1e-12) -> None:
    (out_a, grads_a), (out_b, grads_b) = a, b
    np.testing.assert_allclose(out_a.loss.detach(), out_b.loss.detach(), rtol=tolerance, atol=tolerance)
    for one, other in zip(grads_a, grads_b, strict=True):
        np.testing.assert_allclose(one, other, rtol=tolerance, atol=tolerance)


def constant_entropies(batch: LossBatch, clip: float, alpha: float = 0.5) -> LossBatch:
    """The batch with entropies that make ESPO's clip ``clip`` everywhere."""
    return replace(batch, entropies=torch.full_like(batch.old_logps, clip * np.log(V) / alpha))


# -- the algorithms contain each other -------------------------------------------------------------------------------


@quick
@given(ragged, st.floats(1e-4, 0.5))
def test_espo_with_one_group_and_constant_entropies_is_gspo(batch, clip):
    espo = loss_and_gradients(espo_loss, constant_entropies(batch, clip), alpha=0.5, quantiles=())
    assert_same(espo, loss_and_gradients(gspo_loss, batch, clip_low=clip, clip_high=clip))


@quick
@given(ragged, st.floats(1e-4, 0.5))
def test_espo_with_every_token_its_own_group_and_constant_entropies_is_grpo(batch, clip):
    parts = 2 * batch.mask.shape[1]
    fine = tuple(k / parts for k in range(1, parts))
    espo = loss_and_gradients(espo_loss, constant_entropies(batch, clip), alpha=0.5, quantiles=fine)
    assert_same(espo, loss_and_gradients(grpo_loss, batch, clip_low=clip, clip_high=clip))


@quick
@given(ragged, st.sampled_from(["group", "group_token"]))
def test_espo_with_a_very_wide_clip_is_unclipped(batch, ratio):
    out, (gradient, _) = loss_and_gradients(espo_loss, batch, alpha=1e9, ratio=ratio)
    product = torch.where(batch.mask, out.weights * out.ratio * batch.advantages, 0.0)
    assert not out.clipped.any()
    np.testing.assert_allclose(out.loss.detach(), -product.sum(), rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(gradient, -product, rtol=1e-12, atol=1e-12)


@quick
@given(ragged, st.floats(0.1, 10))
def test_scaling_all_entropies_scales_every_clip_and_nothing_else(batch, factor):
    scaled = replace(batch, entropies=batch.entropies * factor)
    espo = ESPO.formula(alpha=0.3)
    np.testing.assert_allclose(espo.clip_range(scaled)[0], factor * espo.clip_range(batch)[0], rtol=1e-12)
    assert torch.equal(espo.groups(scaled), espo.groups(batch))
    assert_same(
        loss_and_gradients(espo_loss, scaled, alpha=0.3), loss_and_gradients(espo_loss, batch, alpha=0.3 * factor)
    )


@quick
@given(ragged)
def test_on_policy_the_clip_is_inert_and_grpo_and_gspo_agree(batch):
    batch = replace(batch, logps=batch.old_logps)
    a, b = (loss_and_gradients(loss, batch) for loss in (grpo_loss, gspo_loss))
    assert_same(a, b)
    assert not a[0].clipped.any() and a[0].ratio[batch.mask].eq(1).all()


# -- what makes no difference ----------------------------------------------------------------------------------------


@each_loss
@quick
@given(batch=ragged, seed=st.integers(0, 1000))
def test_permuting_the_tokens_of_a_completion_leaves_the_loss_unchanged(name, batch, seed):
    loss, hyperparameters = LOSSES[name]
    rng = np.random.default_rng(seed)
    order = torch.from_numpy(np.stack([rng.permutation(batch.mask.shape[1]) for _ in batch.mask]))
    tensors = {n: v for n, v in vars(batch).items() if isinstance(v, torch.Tensor) and v.shape == batch.mask.shape}
    shuffled = replace(batch, **{n: v.gather(1, order) for n, v in tensors.items()})
    plain, (here, _) = loss_and_gradients(loss, batch, **hyperparameters)
    moved, (there, _) = loss_and_gradients(loss, shuffled, **hyperparameters)
    np.testing.assert_allclose(moved.loss.detach(), plain.loss.detach(), rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(there, here.gather(1, order), rtol=1e-12, atol=1e-12)


@each_loss
@quick
@given(batch=ragged, seed=st.integers(0, 1000))
def test_permuting_the_completions_leaves_the_loss_unchanged(name, batch, seed):
    loss, hyperparameters = LOSSES[name]
    order = torch.from_numpy(np.random.default_rng(seed).permutation(len(batch.mask)))
    shuffled = replace(batch, **{n: v[order] for n, v in vars(batch).items() if isinstance(v, torch.Tensor)})
    plain, here = loss_and_gradients(loss, batch, **hyperparameters)
    assert_same((plain, [g[order] for g in here]), loss_and_gradients(loss, shuffled, **hyperparameters))


@each_loss
@quick
@given(batch=ragged)
def test_deleting_the_rows_without_a_verdict_changes_nothing(name, batch):
    loss, hyperparameters = LOSSES[name]
    kept = batch.has_verdict
    rows = {n: v[kept] for n, v in vars(batch).items() if isinstance(v, torch.Tensor)} | {"has_verdict": None}
    out, gradients = loss_and_gradients(loss, batch, **hyperparameters)
    assert all(g[~kept].eq(0).all() for g in gradients)
    assert not kept.all()
    assert_same(
        (out, [g[kept] for g in gradients]), loss_and_gradients(loss, replace(batch, **rows), **hyperparameters)
    )
    shorter = loss(replace(batch, **rows), **hyperparameters)
    assert out.metrics == pytest.approx(shorter.metrics, rel=1e-12)


@pytest.mark.parametrize("algorithm", FORMULAS)
@pytest.mark.parametrize("seed", range(5))
def test_deleting_the_rows_without_a_verdict_leaves_the_advantages_unchanged(algorithm, seed):
    policy = tiny_policy()
    policy.add_value_head()
    lengths = [3, 1, 7, 2, 5, 5, 1, 4]
    rollout = random_rollout(policy, lengths=lengths, no_verdict=[1, 2, 7], seed=seed)
    for name in ("old_logps", "rewards", "values"):  # whatever stands there, it is not looked at
        setattr(rollout, name, getattr(rollout, name).double())
        getattr(rollout, name)[~rollout.has_verdict] = torch.nan
    rest = rollout.rows(rollout.has_verdict.nonzero().squeeze(1))
    formula = algorithm.formula()
    rollout, rest = formula.annotate(rollout), formula.annotate(rest)
    whole, part = formula.advantages(rollout), formula.advantages(rest)
    assert whole[~rollout.has_verdict].eq(0).all()
    np.testing.assert_allclose(whole[rollout.has_verdict], part, rtol=1e-12, atol=1e-12)
    if algorithm is PPO:
        returns, expected = not_none(rollout.returns), not_none(rest.returns)
        np.testing.assert_allclose(returns[rollout.has_verdict], expected, rtol=1e-12, atol=1e-12)


@each_loss
@quick
@given(batch=ragged, junk=st.sampled_from([0.0, 1e30, -1e30, np.inf, -np.inf, np.nan]))
def test_what_stands_under_a_masked_position_makes_no_difference(name, batch, junk):
    loss, hyperparameters = LOSSES[name]
    tensors = {n: v for n, v in vars(batch).items() if isinstance(v, torch.Tensor) and v.shape == batch.mask.shape}
    dirty = {n: torch.where(batch.mask, v, junk) for n, v in tensors.items() if n not in ("mask", "logps", "values")}
    leaves = {n: torch.where(batch.mask, tensors[n], junk).detach().requires_grad_() for n in ("logps", "values")}
    out = loss(replace(batch, **dirty, **leaves), **hyperparameters)
    out.loss.backward()
    grads = [torch.zeros_like(x) if x.grad is None else x.grad for x in leaves.values()]
    assert all(g[~batch.mask].eq(0).all() for g in grads)
    assert_same((out, grads), loss_and_gradients(loss, batch, **hyperparameters), tolerance=0)
    assert all(np.isfinite(v) for v in out.metrics.values())


@each_loss
@quick
@given(batch=ragged)
def test_padding_columns_make_no_difference(name, batch):
    loss, hyperparameters = LOSSES[name]
    tensors = {n: v for n, v in vars(batch).items() if isinstance(v, torch.Tensor) and v.shape == batch.mask.shape}
    wide = {n: torch.cat([v, v.new_zeros(len(v), 3)], 1) for n, v in tensors.items()}
    out, gradients = loss_and_gradients(loss, batch, **hyperparameters)
    wider, wide_gradients = loss_and_gradients(loss, replace(batch, **wide), **hyperparameters)
    assert_same((out, gradients), (wider, [g[:, :-3] for g in wide_gradients]))


# -- weights and advantages ------------------------------------------------------------------------------------------


@each_loss
@quick
@given(batch=ragged)
def test_token_weights_sum_to_one(name, batch):
    loss, hyperparameters = LOSSES[name]
    weights = loss(batch, **hyperparameters).weights
    np.testing.assert_allclose(weights.sum(), 1, rtol=1e-12)
    assert weights[~batch.mask].eq(0).all() and weights[batch.mask].gt(0).all()


@quick
@given(ragged, st.sampled_from([(), (0.8,), (0.5, 0.9)]))
def test_espo_gives_every_completion_and_every_group_of_it_the_same_weight(batch, quantiles):
    espo = ESPO.formula(quantiles=quantiles)
    weights, groups = espo.token_weights(batch), espo.groups(batch)
    rows = batch.mask.any(1)
    np.testing.assert_allclose(weights[rows].sum(1), 1 / int(rows.sum()), rtol=1e-12)
    for i in rows.nonzero().squeeze(1).tolist():
        own = batch.mask[i]
        shares = [float(weights[i][own & (groups[i] == g)].sum()) for g in groups[i][own].unique()]
        np.testing.assert_allclose(shares, shares[0], rtol=1e-12)


@each_loss
@quick
@given(batch=ragged)
def test_zero_advantage_means_zero_gradient(name, batch):
    loss, hyperparameters = LOSSES[name]
    hyperparameters = hyperparameters | {"kl_coef": 0.0}
    zero = replace(batch, advantages=torch.zeros_like(batch.advantages))
    out, (gradient, _) = loss_and_gradients(loss, zero, **hyperparameters)
    assert gradient.eq(0).all()
    assert out.metrics["gradient_token_share"] == 0 and out.metrics["clip_fraction_active"] == 0


@quick
@given(ragged, st.sampled_from(["k1", "k2", "k3"]))
def test_the_kl_term_is_the_weighted_mean_of_the_estimate(batch, estimator):
    plain = grpo_loss(batch)
    with_kl = grpo_loss(batch, kl_coef=0.25, kl_estimator=estimator)
    divergence = torch.where(batch.mask, kl_estimate(batch.logps - batch.ref_logps, estimator), 0.0)
    expected = plain.loss + 0.25 * (plain.weights * divergence).sum()
    np.testing.assert_allclose(with_kl.loss.detach(), expected.detach(), rtol=1e-12, atol=1e-12)


# -- inputs at the edge ----------------------------------------------------------------------------------------------


def test_on_completions_of_one_token_all_ratios_are_the_tokens():
    batch = random_batch(rows=6, width=1)
    token = grpo_loss(batch).ratio[batch.mask]
    for loss, hyperparameters in ((gspo_loss, {}), (espo_loss, {}), (espo_loss, {"quantiles": (0.5, 0.8)})):
        np.testing.assert_allclose(loss(batch, **hyperparameters).ratio[batch.mask], token, rtol=1e-12)


def test_with_zero_entropies_espo_has_a_clip_without_width():
    batch = random_batch(entropies=torch.zeros(6, 7, dtype=torch.float64), noise=0.3)
    out = espo_loss(batch)
    better, likelier = batch.advantages > 0, out.ratio > 1
    assert torch.equal(out.clipped, batch.mask & (better == likelier))
    on_policy = espo_loss(replace(batch, logps=batch.old_logps))
    assert not on_policy.clipped.any()


def test_a_batch_of_empty_rows_has_loss_zero():
    for loss, hyperparameters in LOSSES.values():
        batch = random_batch(mask=torch.zeros(6, 7))
        out, gradients = loss_and_gradients(loss, batch, **hyperparameters)
        assert float(out.loss.detach()) == 0 and all(g.eq(0).all() for g in gradients)


def test_an_empty_row_is_in_no_denominator():
    for loss, hyperparameters in LOSSES.values():
        batch = random_batch(3)
        kept = batch.mask.any(1)
        rows: dict[str, Any] = {n: v[kept] for n, v in vars(batch).items() if isinstance(v, torch.Tensor)}
        whole, part = loss(batch, **hyperparameters), loss(replace(batch, **rows), **hyperparameters)
        np.testing.assert_allclose(whole.loss.detach(), part.loss.detach(), rtol=1e-12)


@pytest.mark.parametrize("algorithm", [ESPO, GRPO, GSPO])
def test_a_single_completion_per_group_carries_nothing(algorithm):
    rollout = random_rollout(tiny_policy(), lengths=[3, 1, 7, 2], group_size=1)
    assert algorithm.formula().advantages(rollout).eq(0).all()
