"""The paper benchmark: verdicts, quantities, controls, calibration, worked sums, and one figure from end to end."""

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from tiny import SMALL, random_batch, random_rollout, rollout_fields, tiny_policy

from benchmarks.espo_paper import warm_start
from benchmarks.espo_paper.calibration import calibrate, closest
from benchmarks.espo_paper.claims import CLAIMS, FIGURES, Claim, entries_of, judge_claim
from benchmarks.espo_paper.controls import GSPOWithESPOWeights, RandomGroups
from benchmarks.espo_paper.plan import SCALES, entry, fixed, grid, smallest, to_match
from benchmarks.espo_paper.quantities import (
    ACCURACY,
    CLIPPED,
    ENTROPY,
    ahead,
    final,
    hump,
    over_training,
    rise_as_entropy_falls,
    rises_more,
)
from benchmarks.espo_paper.verdicts import Interval, interval, together, verdict
from benchmarks.paper import main
from espo_gym.algorithms import ESPO, GSPO, LossBatch
from espo_gym.algorithms.terms import group_sizes
from espo_gym.envs import make_task
from espo_gym.experiments.warm_start import make_model

MATCHED = ("gspo-matched", "fixed-clip-matched", "no-groups-matched", "random20-matched")
RANGES = {"espo": 0.5, "gspo": 0.03} | dict.fromkeys(MATCHED, 0.1)


# -- verdicts ----------------------------------------------------------------------------------------------------------


def test_the_interval_is_students():
    # Mean 2, standard deviation 1, three values; t(0.975, 2) = 4.302653, t(0.99583.., 2) for three parts = 7.648863.
    one, of_three = interval([1, 2, 3]), interval([1, 2, 3], parts=3)
    assert (one.mean, one.n) == (2, 3)
    assert one.high - 2 == pytest.approx(4.302653 / 3**0.5, rel=1e-6) and 2 - one.low == pytest.approx(one.high - 2)
    assert of_three.high - 2 == pytest.approx(7.648863 / 3**0.5, rel=1e-5)


def test_seeds_without_a_value_are_left_out_and_one_seed_bounds_nothing():
    assert interval([1, float("nan"), 3]) == interval([1, 3])
    assert interval([5.0]) == Interval(5.0, -np.inf, np.inf, 1)
    assert np.isnan(interval([float("nan")]).mean)


def test_equal_values_are_a_point_only_if_there_are_enough_of_them():
    # 0.5 ** 5 = 0.031 is above half of 5 %, 0.5 ** 6 = 0.016 below it, but not below that of two parts.
    five = interval([0.1] * 5)
    assert five == Interval(five.mean, -np.inf, np.inf, 5) and five.mean == pytest.approx(0.1)
    assert interval([0.1] * 6).low == pytest.approx(0.1) == interval([0.1] * 6).high
    assert interval([0.1] * 6, parts=2).high == np.inf
    assert interval([0.0] * 10) == Interval(0.0, 0.0, 0.0, 10)


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0.01, 0.05, "reproduced"),
        (0.001, 0.01, "reproduced"),
        (-0.05, -0.01, "not reproduced"),  # the other way round
        (-0.015, 0.015, "not reproduced"),  # nothing of the size that counts
        (-0.01, 0.03, "not resolved"),
        (0.0, 0.03, "not resolved"),
        (0.0, 0.0, "not reproduced"),
        (-np.inf, np.inf, "not resolved"),
    ],
)
def test_the_verdict_on_one_quantity(low, high, expected):
    assert verdict(Interval((low + high) / 2, low, high, 10), margin=0.02) == expected


def test_the_verdict_on_several_parts():
    yes, no, open_ = "reproduced", "not reproduced", "not resolved"
    assert together([yes, yes]) == yes
    assert together([yes, open_]) == open_ == together([open_, open_])
    assert together([yes, no]) == no == together([open_, no])


# -- quantities --------------------------------------------------------------------------------------------------------


def curves_of(**curves):
    """Curves of entries; each is metric -> (seeds, rollouts)."""
    return lambda metric: {name: np.array(of[metric], dtype=float) for name, of in curves.items()}


def test_accuracy_over_training_and_at_the_end():
    nan = float("nan")
    curves = curves_of(a={ACCURACY: [[0, 0, 1, 1, 1, 1, 1], [1, 1, nan, nan, nan, nan, nan]]})
    np.testing.assert_allclose(over_training(curves, "a", ACCURACY), [5 / 7, 2 / 7])  # a failed run earns nothing
    np.testing.assert_allclose(final(curves, "a"), [1, 0])


def test_the_clip_fraction_is_without_the_warm_up():
    curves = curves_of(a={CLIPPED: [[9, 9, 0.1, 0.3], [9, 9, 0.2, np.nan]]})
    np.testing.assert_allclose(over_training(curves, "a", CLIPPED), [0.2, 0.2])


def test_rising_as_entropy_falls():
    warm_up = [5, 5]
    down, up = [*warm_up, 4, 3, 2, 1], [*warm_up, 1, 10, 11, 99]
    curves = curves_of(
        rises={ENTROPY: [down, down], CLIPPED: [up, down]},
        flat={ENTROPY: [down], CLIPPED: [[0] * 6]},
        # Both drift down, but from one rollout to the next they move against each other.
        drift={ENTROPY: [[*warm_up, 10, 9.9, 7.9, 7.8, 5.8]], CLIPPED: [[*warm_up, 10, 8, 7.9, 5.9, 5.8]]},
    )
    np.testing.assert_allclose(rise_as_entropy_falls(curves, "rises"), [1, -1])
    assert np.isnan(rise_as_entropy_falls(curves, "flat")).all()
    np.testing.assert_allclose(rises_more("rises", "drift").quantity(curves), [2, 0], atol=1e-12)
    np.testing.assert_allclose(rise_as_entropy_falls(curves, "drift"), [-1])
    assert rise_as_entropy_falls(curves, "drift", steps=True)[0] > 0.8


def test_a_claim_is_judged_by_its_paired_differences():
    a, b = np.array([[0.5], [0.1], [0.9]]), np.array([[0.4], [0.01], [0.79]])  # seeds differ more than entries
    curves = curves_of(a={ACCURACY: a}, b={ACCURACY: b})
    claim = Claim("fig3", "a is ahead", (ahead("a", "b"),))
    assert judge_claim(claim, curves).verdict == "reproduced"
    assert judge_claim(Claim("fig3", "b is", (ahead("b", "a"),)), curves).verdict == "not reproduced"
    both = judge_claim(Claim("fig3", "both", (ahead("a", "b"), ahead("a", "b", factor=2))), curves)
    assert [v for _, _, v in both.parts] == ["reproduced", "not resolved"] and both.verdict == "not resolved"
    np.testing.assert_allclose(both.parts[1][1].mean, np.mean(a - 2 * b))


def test_the_hump_is_inner_less_outer():
    curves = curves_of(**{name: {ACCURACY: [[x], [x + 1]]} for name, x in zip("abcd", (1, 5, 3, 2), strict=True)})
    np.testing.assert_allclose(hump(("b", "c"), ("a", "d")).quantity(curves), [2.5, 2.5])


# -- the plan ----------------------------------------------------------------------------------------------------------


def test_every_figure_has_claims_and_every_entry_can_be_made():
    assert {claim.figure for claim in CLAIMS} == set(FIGURES)
    assert all(any(not c.control for c in CLAIMS if c.figure == figure) for figure in FIGURES)
    for name in entries_of(FIGURES):
        contestant = entry(name, RANGES)
        assert contestant.name == name and contestant.hyperparameters.keys() <= set(ESPO.hyperparameters()) | {
            "clip_low"
        }
    entries = [(e.algo, repr(e.hyperparameters)) for e in (entry(n, RANGES | {"gspo-matched": 0.2}) for n in
            entries_of(FIGURES) if not n.endswith("-matched"))]  # fmt: skip
    assert len(set(entries)) == len(entries), "two names for one thing"


def test_alphas_are_in_the_papers_proportions():
    names = ("alpha-x0.5", "espo", "alpha-x2.5", "alpha-x5")
    alphas = [entry(name, RANGES | {"espo": 0.02}).hyperparameters["alpha"] for name in names]
    assert alphas == [0.01, 0.02, 0.05, 0.1]
    assert fixed(3e-4) == {"clip_low": 3e-4, "clip_high": 4e-4}


def test_what_is_to_be_matched():
    assert to_match(["espo", "gspo-espo-weights"]) == ["gspo-matched"]
    both = ["fixed-clip-matched", "gspo-matched"]
    assert to_match([*both, "gspo-espo-weights"]) == both
    widths = grid("gspo-matched", RANGES, 8)
    assert len(widths) == 8 and np.allclose(np.diff(np.log2(widths)), 1, atol=1e-3) and 0.03 in widths


# -- calibration -------------------------------------------------------------------------------------------------------


def test_the_width_with_the_closest_clip_fraction():
    fractions = {0.01: 0.5, 0.02: 0.3, 0.04: 0.12, 0.08: 0.01}
    assert closest(fractions, 0.1) == 0.04
    assert closest(fractions, 0.0) == 0.08
    assert closest(fractions, 0.45) == 0.01
    assert closest({0.2: 0.75, 0.1: 0.25}, 0.5) == 0.1  # equally close: the narrower
    assert closest({0.1: float("nan"), 0.2: 0.9}, 0.1) == 0.2
    with pytest.raises(ValueError, match=r"no clip fraction.*0\.1"):
        closest({0.1: float("nan")}, 0.1)


def test_calibration_on_a_made_up_law():
    """Clip fraction 0.003 / width for GSPO, 0.05 / alpha for ESPO: which widths hit 0.1 is known."""
    asked = []

    def run(entries):
        asked.extend(entries)
        fractions = {
            e.name: 0.05 / e.hyperparameters["alpha"] if "alpha" in e.hyperparameters
            else 0.003 / e.hyperparameters["clip_low"] for e in entries
        }  # fmt: skip
        return curves_of(**{name: {CLIPPED: [[1, 1, f, f]]} for name, f in fractions.items()})

    small, gpu = SCALES["small"], SCALES["gpu"]
    calibration = calibrate(small, ["gspo-matched"], run)
    assert calibration.targets == {"gspo-matched": pytest.approx(0.1)}  # ESPO's at alpha 0.5
    assert calibration.ranges == {"espo": 0.5, "gspo": 0.03, "gspo-matched": 0.03}
    assert calibration.configurations == 8 and len({e.name for e in asked}) == 9
    # Steps of four around 0.5 and 0.03 hit 0.1 exactly only at the center.
    assert calibrate(replace(gpu, grid=8), [], run).ranges == {"espo": 0.5, "gspo": 0.03}
    assert json.loads(json.dumps(calibration.as_json()))["tried"]["gspo-matched"]["0.03"] == pytest.approx(0.1)


# -- controls ----------------------------------------------------------------------------------------------------------


def test_random_groups_have_the_sizes_of_entropy_groups_and_do_not_know_the_entropies():
    batch = random_batch(rows=40, width=30)
    for quantiles in ((0.9,), (0.8,), (0.6,)):
        espo, control = (cls.formula(quantiles=quantiles) for cls in (ESPO, RandomGroups))
        sizes = [group_sizes(a.groups(batch), batch.mask) for a in (espo, control)]
        groups = [a.groups(batch) for a in (espo, control)]
        for row in range(len(batch.mask)):
            counts = [g[row][batch.mask[row]].bincount(minlength=2).tolist() for g in groups]
            assert counts[0] == counts[1]
        assert torch.equal(sizes[0][1], sizes[1][1])
        assert batch.entropies is not None
        reversed_ = LossBatch(**vars(batch) | {"entropies": -batch.entropies})
        assert torch.equal(control.groups(reversed_)[batch.mask], groups[1][batch.mask])
        assert not torch.equal(espo.groups(reversed_)[batch.mask], groups[0][batch.mask])
        # Weights do not differ but in which token has them.
        weights = [a.token_weights(batch).sort(1).values for a in (espo, control)]
        torch.testing.assert_close(*weights, rtol=1e-12, atol=0)


def test_random_groups_hold_a_fair_share_of_the_uncertain_tokens():
    entropies = torch.rand(200, 50, generator=torch.Generator().manual_seed(0))
    groups = RandomGroups.formula().part(entropies, torch.ones_like(entropies, dtype=torch.bool))
    high = ESPO.formula().part(entropies, torch.ones_like(entropies, dtype=torch.bool)) == 1
    overlap = (groups[high] == 1).double().mean()  # expected 0.2, over 2000 tokens
    assert 0.16 < overlap < 0.24


def test_random_groups_are_a_function_of_seed_and_rollout():
    rollout = random_rollout(tiny_policy(), lengths=[9, 5, 7, 8, 6, 9, 4, 9])

    def groups(seed, n):
        control = RandomGroups.formula(seed=seed)
        control.n_rollouts = n
        return control.annotate(rollout).token_groups

    assert torch.equal(groups(0, 3), groups(0, 3))
    assert not torch.equal(groups(0, 3), groups(0, 4)) and not torch.equal(groups(0, 3), groups(1, 3))


def test_with_fixed_clip_and_one_group_random_groups_are_gspo():
    batch = random_batch()
    control = RandomGroups.formula(quantiles=(), clip_low=0.03, clip_high=0.04)
    a, b = control.loss(batch), GSPO.formula(clip_low=0.03, clip_high=0.04).loss(batch)
    torch.testing.assert_close(a.loss, b.loss, rtol=1e-12, atol=1e-12)


def test_the_same_weight_control_weighs_like_espo_and_clips_like_gspo():
    batch = random_batch()
    control, espo, gspo = GSPOWithESPOWeights.formula(), ESPO.formula(), GSPO.formula()
    assert torch.equal(control.token_weights(batch), espo.token_weights(batch))
    assert not torch.equal(control.token_weights(batch), gspo.token_weights(batch))
    assert torch.equal(control.ratios(batch), gspo.ratios(batch))
    assert control.clip_range(batch) == gspo.clip_range(batch)
    # On policy the ratios are 1: ESPO and the control then are one loss, with one gradient.
    losses = []
    for formula in (control, espo):
        logps = batch.old_logps.clone().requires_grad_()
        out = formula.loss(LossBatch(**vars(batch) | {"logps": logps}))
        out.loss.backward()
        losses.append((out.loss.detach(), logps.grad))
    torch.testing.assert_close(losses[0], losses[1], rtol=1e-12, atol=1e-15)


def test_the_same_weight_control_has_gspos_advantages_and_espos_groups():
    kwargs: dict[str, Any] = {"lengths": [9, 5, 7, 8, 6, 9, 4, 9], "no_verdict": [2]}
    rollout = random_rollout(tiny_policy(), **kwargs)
    formulas = [cls.formula() for cls in (GSPOWithESPOWeights, ESPO, GSPO)]
    control, espo, gspo = (formula.advantages(rollout) for formula in formulas)
    assert torch.equal(control, gspo) and torch.equal(control, espo)
    mine, groups = (formula.annotate(rollout).token_groups for formula in formulas[:2])
    assert mine is not None and groups is not None
    assert torch.equal(mine, groups) and len(groups.unique()) == 2


@pytest.mark.parametrize("cls", [RandomGroups, GSPOWithESPOWeights])
def test_the_controls_train_and_micro_batches_make_no_difference(cls, policy):
    def trained(micro):
        algorithm = cls(tiny_policy(), "espo_gym/Addition-v0", micro_batch_tokens=micro, seed=1, **SMALL)
        rollout = random_rollout(algorithm.policy, lengths=[6, 3, 5, 4, 6, 2, 6, 1])
        algorithm.train(rollout)
        return rollout_fields(algorithm.annotate(rollout)), algorithm.policy.state_dict()

    (_, whole), (fields, parts) = trained(None), trained(12)
    assert "token_groups" in fields
    for name, value in whole.items():
        torch.testing.assert_close(parts[name], value, rtol=1e-4, atol=1e-5)


# -- the warm start ----------------------------------------------------------------------------------------------------


def test_a_careful_worked_sum_is_right_and_is_read_as_such():
    rng = np.random.default_rng(0)
    task = make_task("espo_gym/ChainArithmetic-v0", terms=10, digits=3, operators="+")
    problems = [task.problem("train", seed) for seed in range(30)]
    texts = []
    for problem in problems:
        numbers = [int(n) for n in problem.prompt.rstrip("=").split("+")]
        assert sum(numbers) == int(problem.answer)
        texts.append(warm_start.worked_sum(numbers, rng, drop_carry=0.0, leap=0.0))
    assert all(v.correct for v in task.verify(texts, problems))
    assert 200 < np.mean([len(t) for t in texts]) < 440 and max(map(len, texts)) < 448
    assert warm_start.worked_sum([358, 467, 5], rng, drop_carry=0, leap=0) == (
        "8+7=15,5+6+1=12,3+4+1=8,825,5+5=10,2+0+1=3,8+0=8,830"
    )


def test_careless_worked_sums_are_mostly_wrong_and_leaps_now_and_then():
    rng, task = np.random.default_rng(0), make_task("espo_gym/ChainArithmetic-v0", terms=10, digits=3, operators="+")

    def right(**style):
        problems = [task.problem("train", seed) for seed in range(60)]
        numbers = [[int(n) for n in p.prompt.rstrip("=").split("+")] for p in problems]
        return np.mean(
            [v.correct for v in task.verify([warm_start.worked_sum(n, rng, **style) for n in numbers], problems)]
        )

    assert right(drop_carry=0.5, leap=0.0) < 0.1
    assert right(drop_carry=0.0, leap=1.0) < 0.2  # 0.6 ** 9 = 0.01
    assert warm_start.worked_sum([12, 34], np.random.default_rng(3), drop_carry=0, leap=1).startswith("12+34=")


def test_the_warm_start_is_made_once_from_its_seed(tmp_path):
    plan = smallest(SCALES["gpu"]).warm_start
    assert plan is not None
    plan = replace(plan, steps=2)
    messages: list[str] = []
    folder = warm_start.ensure_policy(plan, tmp_path / "a", messages.append)
    again = warm_start.ensure_policy(plan, tmp_path / "b", messages.append)
    assert (folder / "model.safetensors").read_bytes() == (again / "model.safetensors").read_bytes()
    before = len(messages)
    warm_start.ensure_policy(plan, tmp_path / "a", messages.append)
    assert len(messages) == before and {p.name for p in tmp_path.iterdir()} == {"a", "b"}


def test_the_sizes_are_what_they_are_called():
    with torch.device("meta"):
        for name, size in warm_start.SIZES.items():
            n = make_model(0, context=512, **size).num_parameters()
            assert abs(n / 1e6 - float(name[:-1])) < 0.6


# -- from end to end ---------------------------------------------------------------------------------------------------


def test_a_figure_from_end_to_end_and_again_without_running_it(tmp_path):
    arguments = ["fig5", "--smallest", "--regime", "calm", "--jobs", "1", "--out", str(tmp_path / "out")]
    arguments += ["--page", str(tmp_path / "docs" / "results.md")]
    done = CliRunner().invoke(main, arguments, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    text = (tmp_path / "docs" / "results.md").read_text()
    claims = [c for c in CLAIMS if c.figure == "fig5"]
    assert all(c.text in text for c in claims) and "smallest version" in text
    assert (tmp_path / "docs" / "images" / "paper-fig5-calm.png").stat().st_size > 1000
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert len(results["regimes"]["calm"]["entries"]["espo"]["accuracy"]) == 2
    assert len(results["regimes"]["calm"]["claims"]) == len(claims)
    logs = {p: p.stat().st_mtime_ns for p in (tmp_path / "out").rglob("progress.json")}
    assert len(logs) == 6
    again = CliRunner().invoke(main, arguments, catch_exceptions=False)
    assert again.exit_code == 0 and {p: p.stat().st_mtime_ns for p in logs} == logs
    assert (tmp_path / "docs" / "results.md").read_text() == text
