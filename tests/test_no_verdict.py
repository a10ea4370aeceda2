"""A failure of the verifier is never a wrong answer: for every algorithm, end to end."""

import logging
from dataclasses import replace
from typing import Any

import pytest
import torch
from tiny import not_none, random_rollout, tiny_policy

from espo_gym.algorithms import ALGORITHMS
from espo_gym.envs import Addition, MathVectorEnv, Verdict
from espo_gym.metrics import rollout_metrics

LENGTHS = [3, 1, 7, 2, 5, 5, 1, 4, 6, 2, 3, 8]
FAILED = [1, 4, 10, 11]  # a third of the rows


@pytest.mark.parametrize("name", ALGORITHMS)
def test_the_gradient_is_that_of_the_rows_with_a_verdict(name):
    cls = ALGORITHMS[name]
    rollout = random_rollout(tiny_policy(dtype=torch.float64), lengths=LENGTHS, no_verdict=FAILED)
    rollout.values = torch.linspace(0, 1, rollout.mask.numel()).view(rollout.mask.shape)
    kept = torch.tensor([i for i in range(len(LENGTHS)) if i not in FAILED])

    def after(rows) -> list[torch.Tensor]:
        policy = tiny_policy(dtype=torch.float64)
        part = rollout.rows(rows)
        short: dict[str, Any] = {"max_completion_tokens": 8}  # Dr. GRPO divides by it
        algorithm = cls(policy, "espo_gym/Addition-v0", group_size=4, rollout_size=12, n_minibatches=1, **short)
        part = algorithm.annotate(part)
        algorithm.step(part, algorithm.advantages(part), torch.arange(len(part)))
        return [not_none(p.grad) for p in policy.parameters()]

    whole, rest = after(torch.arange(len(LENGTHS))), after(kept)
    assert max(float(g.abs().max()) for g in rest) > 1e-4
    for a, b in zip(whole, rest, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-7 * float(b.abs().max()) + 1e-12)


class Unlucky(Addition):
    """Fails on every problem whose first operand is odd."""

    def verify(self, completions, problems):
        verdicts = super().verify(completions, problems)
        return [
            Verdict("no_verdict", reason="timeout") if p.data["a"] % 2 else v
            for v, p in zip(verdicts, problems, strict=True)
        ]


@pytest.mark.parametrize("name", ALGORITHMS)
def test_a_group_that_failed_carries_nothing(name):
    env = MathVectorEnv(Unlucky(), num_envs=64)
    algorithm = ALGORITHMS[name]("espo_gym/teaching", env, max_no_verdict=1.0, n_minibatches=1)
    rollout = algorithm.collect_rollout()
    failed = ~rollout.has_verdict
    assert 0 < int(failed.sum()) < 64 or algorithm.dynamic_sampling
    rollout = algorithm.annotate(rollout)
    advantages = algorithm.advantages(rollout)
    assert advantages[failed].eq(0).all()
    assert algorithm.token_weights(algorithm.loss_batch(rollout, advantages))[failed].eq(0).all()
    metrics = rollout_metrics(rollout)
    judged = [v for v in rollout.verdicts if v.has_verdict]
    assert metrics["accuracy"] == pytest.approx(sum(v.correct for v in judged) / len(judged))
    assert metrics.get("no_verdict_timeout", 0.0) == pytest.approx(float(failed.float().mean()))


def test_training_stops_where_too_much_of_a_rollout_failed():
    class Broken(Addition):
        def verify(self, completions, problems):
            return [Verdict("no_verdict", reason="crash")] * len(completions)

    algorithm = ALGORITHMS["espo"]("espo_gym/teaching", MathVectorEnv(Broken(), num_envs=16))
    with pytest.raises(RuntimeError, match=r"failed on 100% of a rollout \(\{'crash': 16\}\)"):
        algorithm.learn(16)


def test_the_error_says_what_the_verdicts_know():
    class Broken(Addition):
        def verify(self, completions, problems):
            return [Verdict("no_verdict", reason="crash", detail=f"no room on disk {i % 2}") for i in range(16)]

    algorithm = ALGORITHMS["espo"]("espo_gym/teaching", MathVectorEnv(Broken(), num_envs=16))
    with pytest.raises(
        RuntimeError, match=r"verifier\. It reports: no room on disk 0\. It reports: no room on disk 1$"
    ):
        algorithm.learn(16)


def test_evaluation_leaves_failures_out():
    env = MathVectorEnv(Unlucky(), num_envs=64)
    result = ALGORITHMS["espo"]("espo_gym/teaching", env).evaluate(n_problems=40, k=2, details=True)
    judged = [p.greedy_verdict.correct for p in result.problems if p.greedy_verdict.has_verdict]
    assert 0 < len(judged) < 40 and result.no_verdict == 3 * (40 - len(judged))
    assert float(result["greedy"]) == pytest.approx(sum(judged) / len(judged))


# -- the audit -------------------------------------------------------------------------------------------------------


class Wrong(Addition):
    """Calls every third answer correct, whatever it is."""

    def verify(self, completions, problems):
        verdicts = super().verify(completions, problems)
        return [replace(v, status="correct") if i % 3 == 0 else v for i, v in enumerate(verdicts)]


def test_an_audit_finds_a_verifier_that_is_wrong_and_says_so(caplog):
    env = MathVectorEnv(Wrong(verifier="audit", audit_share=1.0), num_envs=64)
    algorithm = ALGORITHMS["espo"]("espo_gym/teaching", env)
    with caplog.at_level(logging.WARNING, logger="espo_gym.audit"):
        rollout = algorithm.collect_rollout()
    wrong = [v for v, text in zip(rollout.verdicts, rollout.texts, strict=True) if v.audit not in (None, v.status)]
    metrics = rollout_metrics(rollout)
    assert len(wrong) > 5 and all(v.status == "correct" and v.audit == "incorrect" for v in wrong)
    assert metrics["audited"] == 1 and metrics["audit_disagreement"] == pytest.approx(len(wrong) / 64)
    assert len(caplog.records) == len(wrong) and "verdict correct, audit incorrect" in caplog.text


def test_an_audit_of_a_sound_verifier_agrees_on_the_share_that_it_looks_at():
    env = MathVectorEnv(Addition(verifier="audit", audit_share=0.25), num_envs=64)
    metrics = rollout_metrics(ALGORITHMS["espo"]("espo_gym/teaching", env).collect_rollout())
    assert metrics["audit_disagreement"] == 0 and 0.1 < metrics["audited"] < 0.4


def test_an_audit_that_means_nothing_is_an_error():
    with pytest.raises(ValueError, match="cannot be used with 'countdown'"):
        MathVectorEnv("espo_gym.envs.tasks.countdown:Countdown", num_envs=1, verifier="audit")
    with pytest.raises(ValueError, match="unknown verifier 'careful'"):
        Addition(verifier="careful")
