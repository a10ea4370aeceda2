"""The token inspector: what it shows of a token is what autograd, a formula by hand and finite differences say."""

import copy
import math
from math import inf
from typing import Any

import numpy as np
import pytest
import torch
from tiny import SMALL, random_batch, random_rollout, same_state, state, teaching_policy, tiny_policy

from espo_gym import ESPO, GRPO, PPO
from espo_gym.algorithms import ALGORITHMS, LossBatch, LossOutput
from espo_gym.reports.inspector import as_json, inspect_batch
from espo_gym.reports.loss_view import view_loss

SEEDS = range(3)


def by_hand(batch: LossBatch, name: str) -> tuple[np.ndarray, np.ndarray]:
    """``(d loss / d logp, cut)`` of GRPO, GSPO or ESPO with the paper's hyperparameters, token by token."""
    gradient = np.zeros(batch.logps.shape)
    cut = np.zeros(batch.logps.shape, bool)
    completions = int(batch.mask.any(1).sum())
    entropies = batch.entropies
    assert entropies is not None
    for i, mask in enumerate(batch.mask.tolist()):
        own = [t for t, is_own in enumerate(mask) if is_own]
        log_ratio = {t: float((batch.logps.detach() - batch.old_logps)[i, t]) for t in own}
        entropy = {t: float(entropies[i, t]) for t in own}
        if name == "grpo":
            parts = [[t] for t in own]
        elif name == "gspo" or len(own) == 1:
            parts = [own] if own else []
        else:
            uncertain = sorted(own, key=lambda t: -entropy[t])[: max(1, round(0.2 * len(own)))]
            parts = [uncertain, [t for t in own if t not in uncertain]] if own else []
        for part in parts:
            ratio = math.exp(sum(log_ratio[t] for t in part) / len(part))
            width = 0.02 / math.log(50) * sum(entropy[t] for t in part) / len(part)
            low, high = {"grpo": (0.2, 0.2), "gspo": (3e-4, 4e-4), "espo": (width, width)}[name]
            weight = 1 / (completions * (len(parts) * len(part) if name == "espo" else len(own)))
            for t in part:
                advantage = float(batch.advantages[i, t])
                cut[i, t] = ratio > 1 + high if advantage > 0 else ratio < 1 - low
                gradient[i, t] = 0 if cut[i, t] else -weight * ratio * advantage
    return gradient, cut


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("name", ["grpo", "gspo", "espo"])
def test_gradient_weights_are_the_formula_by_hand(name, seed):
    batch = random_batch(seed, noise=0.2)
    view = view_loss(ALGORITHMS[name].formula(), batch)
    gradient, cut = by_hand(batch, name)
    np.testing.assert_allclose(view.gradient, gradient, atol=1e-14)
    assert (view.clipped.numpy() == cut).all()
    # ... which is what the page shows as weight, ratio and advantage
    np.testing.assert_allclose(view.gradient, -view.weights * view.ratio * view.advantages * ~view.clipped, atol=1e-14)
    np.testing.assert_allclose(view.unclipped_gradient, -view.weights * view.ratio * view.advantages, atol=1e-14)


def test_all_three_cut_some_tokens_and_not_the_same():
    cuts = {name: by_hand(random_batch(0, noise=0.2), name)[1] for name in ("grpo", "gspo", "espo")}
    assert all(cut.any() for cut in cuts.values())
    assert (cuts["grpo"] != cuts["gspo"]).any() and (cuts["gspo"] != cuts["espo"]).any()


@pytest.mark.parametrize("name", [n for n in ALGORITHMS if n != "cispo"])  # its ratio is a constant to autograd
def test_gradient_weights_are_finite_differences_of_the_loss(name):
    batch, objective, h = random_batch(1), ALGORITHMS[name].formula(), 1e-6
    view = view_loss(objective, batch)

    def loss(i: int, t: int, step: float) -> float:
        moved = copy.copy(batch)
        moved.logps = batch.logps.detach().clone()
        moved.logps[i, t] += step
        return float(objective.loss(moved).loss.detach())

    for i, t in batch.mask.nonzero().tolist():
        slope = (loss(i, t, h) - loss(i, t, -h)) / (2 * h)
        assert float(view.gradient[i, t]) == pytest.approx(slope, abs=1e-8), (i, t)
    assert (view.gradient[~batch.mask] == 0).all()


def test_cispo_weighs_by_the_capped_ratio():
    batch = random_batch(2)
    view = view_loss(ALGORITHMS["cispo"].formula(ratio_max=1.1), batch)
    ratio = (batch.logps - batch.old_logps).exp().detach().clamp(max=1.1)
    np.testing.assert_allclose(view.gradient, -view.weights * ratio * batch.advantages, atol=1e-14)
    assert float(view.high.max()) == 1.1 and float(view.low.min()) == 0


@pytest.mark.parametrize("name", [n for n in ALGORITHMS if n not in ("cispo", "sapo")])  # they cut no gradient
def test_the_bounds_are_where_the_gradient_ends(name):
    """A token at a ratio just inside of its bounds has a gradient, just outside (on the side that counts) none."""
    objective = ALGORITHMS[name].formula()
    one = torch.ones(1, 1, dtype=torch.float64)

    def cut(ratio: float, advantage: float) -> bool:
        batch = LossBatch(
            logps=-one + math.log(ratio), old_logps=-one, mask=one.bool(), advantages=advantage * one[0], vocab_size=50,
            entropies=one, values=one, old_values=one, returns=one,
        )  # fmt: skip
        view = view_loss(objective, batch)
        assert bool(view.clipped) == (float(view.gradient) == 0)
        return bool(view.clipped)

    view = view_loss(objective, random_batch(0, rows=4, entropies=torch.ones(4, 7, dtype=torch.float64)))
    low, high = float(view.low[view.mask].min()), float(view.high[view.mask].max())
    assert (cut(low + 1e-6, -1), cut(low - 1e-6, -1)) == (False, True)
    assert (cut(high - 1e-6, 1), cut(high + 1e-6, 1)) == (False, True)


def test_summary_by_hand():
    batch = LossBatch(
        logps=torch.log(torch.tensor([[1.5, 1.0, 1.0], [0.5, 1.0, 1.0]])),
        old_logps=torch.zeros(2, 3),
        mask=torch.tensor([[True, True, True], [True, True, False]]),
        advantages=torch.tensor([1.0, 0.0]),
    )
    summary = view_loss(GRPO.formula(), batch).summary()
    assert summary == pytest.approx(
        {"active": 3 / 5, "cut": 1 / 3, "lost": 1.5 / 3.5, "ratio_min": 0.5, "ratio_max": 1.5, "width": 0.2}
    )


class TestBatch:
    def test_every_algorithm_and_the_algorithm_stays_as_it_was(self):
        algorithm = ESPO(teaching_policy(), "espo_gym/Addition-v0", rollout_size=32, alpha=0.3)
        before, moments = state(algorithm.policy), copy.deepcopy(algorithm.optimizer.state_dict())
        inspection = inspect_batch(algorithm)
        assert list(inspection.views) == list(ALGORITHMS), "its own first"
        assert inspection.steps == 7 and inspection.total_steps == 8 and len(inspection.rollout) == 4
        assert same_state(before, state(algorithm.policy)) and algorithm.n_updates == 0
        assert algorithm.optimizer.state_dict()["state"] == moments["state"] == {}
        assert algorithm.rollout_size == 32 and not algorithm.logger.name_to_value
        ratios = inspection.views["grpo"].ratio[inspection.rollout.mask]
        assert (ratios != 1).any(), "the copy has moved"
        expected = (inspection.logps - inspection.rollout.old_logps).exp()[inspection.rollout.mask]
        torch.testing.assert_close(ratios, expected)
        # espo's clip is the run's, not the preset's
        entropy = inspection.rollout.entropies.max() / math.log(inspection.vocab_size)
        assert float(inspection.views["espo"].high.max()) <= 1 + 0.3 * float(entropy) + 1e-6

    @pytest.mark.parametrize("name", ALGORITHMS)
    def test_a_run_of_any_algorithm(self, name):
        small: dict[str, Any] = {"rollout_size": 32, "n_minibatches": 2, "micro_batch_tokens": 60, "entropy_coef": 0.01}
        inspection = inspect_batch(ALGORITHMS[name](teaching_policy(), "espo_gym/Addition-v0", **small))
        assert next(iter(inspection.views)) == name and len(inspection.views) == len(ALGORITHMS)
        for view in inspection.views.values():
            assert math.isfinite(view.loss) and view.gradient.isfinite().all() and view.gradient.any()

    def test_the_batch_is_that_of_training(self, monkeypatch):
        """The loss of its own algorithm is what training has at this step."""
        small: dict[str, Any] = {"rollout_size": 32, "n_minibatches": 3}
        inspection = inspect_batch(ESPO(teaching_policy(), "espo_gym/Addition-v0", **small))
        twin = ESPO(teaching_policy(), "espo_gym/Addition-v0", **small)
        losses, step = [], twin.step

        def recording(*args: Any) -> list[LossOutput]:
            losses.append(step(*args))
            return losses[-1]

        monkeypatch.setattr(twin, "step", recording)
        twin.learn(32)
        assert inspection.views["espo"].loss == pytest.approx(sum(float(out.loss) for out in losses[2]), abs=1e-7)

    def test_no_step_no_ratio_and_no_cut(self):
        inspection = inspect_batch(GRPO(teaching_policy(), "espo_gym/Addition-v0", rollout_size=16), steps=0)
        for name, view in inspection.views.items():
            assert view.ratio[view.mask].sub(1).abs().max() < 1e-4 and not view.clipped.any(), name
            assert view.summary()["lost"] == 0, name

    def test_one_step_in_all_is_looked_at_after_it(self):
        algorithm = GRPO(teaching_policy(), "espo_gym/Addition-v0", rollout_size=16, n_minibatches=1, warmup_steps=0)
        inspection = inspect_batch(algorithm)
        assert inspection.steps == 1 and len(inspection.rollout) == 16
        with pytest.raises(ValueError, match="has 1 optimizer steps: steps must be from 0 to 1, not 2"):
            inspect_batch(algorithm, steps=2)

    def test_ppo_with_and_without_its_value_head(self):
        without = inspect_batch(ESPO(teaching_policy(), "espo_gym/Addition-v0", rollout_size=16), steps=0)
        trained = inspect_batch(PPO(teaching_policy(), "espo_gym/Addition-v0", rollout_size=16, seed=0), steps=0)
        # A fresh value head says the mean reward, and so does what stands in for it.
        a, b = (inspection.views["ppo"] for inspection in (without, trained))
        torch.testing.assert_close(a.advantages, b.advantages)
        assert next(iter(trained.views)) == "ppo"

    def test_a_given_rollout_and_tokens_without_a_verdict(self):
        policy = tiny_policy()
        rollout = random_rollout(policy, lengths=[3, 5, 2, 4, 4, 1, 6, 3], no_verdict=[1], group_size=4)
        small: dict[str, Any] = dict(SMALL)
        algorithm = GRPO(policy, "espo_gym/Addition-v0", **small)
        inspection = inspect_batch(algorithm, rollout, steps=2)
        page = as_json(inspection, "here")
        assert len(page["rows"]) == 4
        for row in page["rows"]:
            if row["verdict"] == "no_verdict":
                assert row["own"] is False
        lengths = [len(row["tokens"]) for row in page["rows"]]
        assert lengths == [len(t) for t in inspection.tokens]

    def test_fewer_completions(self):
        algorithm = GRPO(teaching_policy(), "espo_gym/Addition-v0", rollout_size=64, n_minibatches=2)
        assert len(inspect_batch(algorithm, completions=20).rollout) == 8, "two groups of 8, in two minibatches"
        with pytest.raises(ValueError, match="4 completions are too few for groups of 8"):
            inspect_batch(algorithm, completions=4)


def test_a_new_algorithm_is_in_it_without_another_line(monkeypatch):
    class Bare(GRPO):
        """Half of GRPO."""

        def clip_range(self, batch):
            raise NotImplementedError

        def surrogate(self, batch):
            ratio = self.ratios(batch)
            return 0.5 * ratio * batch.advantages, ratio.detach(), torch.zeros_like(batch.mask)

    monkeypatch.setitem(ALGORITHMS, "bare", Bare)
    algorithm = GRPO(teaching_policy(), "espo_gym/Addition-v0", rollout_size=16)
    inspection = inspect_batch(algorithm)
    bare, grpo = inspection.views["bare"], inspection.views["grpo"]
    torch.testing.assert_close(bare.gradient, grpo.unclipped_gradient / 2)
    assert (bare.high == inf).all()
    (shown,) = [a for a in as_json(inspection, "here")["algorithms"] if a["name"] == "bare"]
    assert shown["about"] == "Half of GRPO." and shown["rows"][0]["high"] is None


def test_what_the_page_is_told_is_what_was_computed():
    inspection = inspect_batch(ESPO(teaching_policy(), "espo_gym/Addition-v0", rollout_size=64), steps=4)
    page = as_json(inspection, "here", show=100)
    assert len(page["rows"]) == len(inspection.rollout) == 8
    for algorithm in page["algorithms"]:
        view = inspection.views[algorithm["name"]]
        for i, (row, values) in enumerate(zip(page["rows"], algorithm["rows"], strict=True)):
            for key in ("gradient", "ratio", "weights", "advantages"):
                n = len(row["tokens"])
                np.testing.assert_allclose(
                    np.broadcast_to(values[key], n), getattr(view, key)[i, :n], rtol=1e-4, atol=1e-12
                )
            assert np.broadcast_to(values["cut"], n).tolist() == view.clipped[i, :n].tolist()
    shown = as_json(inspection, "here", show=3)["rows"]
    active = [
        row for row, credit in zip(page["rows"], page["algorithms"][0]["rows"], strict=True) if credit["advantages"]
    ]
    assert len(shown) == 3 and all(row in active for row in shown[: len(active)])
    texts = ["".join(t for t in row["tokens"] if not t.startswith("$")) for row in page["rows"]]
    assert texts == inspection.rollout.texts
