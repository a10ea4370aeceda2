"""Verification beside generation: the same results, errors and order as one after the other."""

import threading
import time
from typing import Any

import pytest
import torch
from gymnasium.vector import VectorWrapper
from tiny import rollout_fields, teaching_policy

from espo_gym import collect as module
from espo_gym.collect import collect
from espo_gym.envs import Addition, MathVectorEnv, Verdict, any_thread, verify
from espo_gym.envs.verifier.verify import clear_cache, close
from espo_gym.sampling import Sampling

SAMPLING = Sampling(max_completion_tokens=40)
POLICY = teaching_policy()


class Watched(Addition):
    """Remembers what it was asked, when it ran and where."""

    def __init__(self, wait=0.0, **kwargs):
        super().__init__(**kwargs)
        self.wait, self.asked, self.threads = wait, [], set()

    @any_thread
    def verify(self, completions, problems):
        time.sleep(self.wait)
        self.asked.append(list(completions))
        self.threads.add(threading.current_thread())
        verdicts = super().verify(completions, problems)
        failed = Verdict("no_verdict", reason="timeout")  # on a third of the problems
        return [failed if p.data["a"] % 3 == 0 else v for v, p in zip(verdicts, problems, strict=True)]


def play(task, n=44, rows=8, policy=POLICY, wrap=lambda env: env):
    seeds = [i // 4 for i in range(n)]
    env = wrap(MathVectorEnv(task, num_envs=rows))
    return collect(env, policy, seeds, range(n), SAMPLING, options={"split": "test"})


def serial(monkeypatch, *args, **kwargs):
    with monkeypatch.context() as patch:
        patch.setattr(module, "_overlaps", lambda env: False)
        return play(*args, **kwargs)


def assert_same(a, b):
    ours, theirs = rollout_fields(a), rollout_fields(b)
    assert ours.keys() == theirs.keys() and all(torch.equal(ours[k], theirs[k]) for k in ours)
    assert (a.prompts, a.texts, a.verdicts) == (b.prompts, b.texts, b.verdicts)


@pytest.mark.parametrize("wait", [0.0, 0.02])
def test_nothing_changes(monkeypatch, wait):
    beside, after = Watched(wait), Watched()
    assert_same(play(beside), serial(monkeypatch, after))
    assert beside.asked == after.asked and len(after.asked) == 6  # 44 episodes in rows of 8
    assert threading.main_thread() not in beside.threads and after.threads == {threading.main_thread()}
    assert len(beside.threads) == 1


def test_an_audit_looks_at_the_same_places(monkeypatch):
    audited = [
        play(Addition(verifier="audit", audit_share=0.5)),
        serial(monkeypatch, Addition(verifier="audit", audit_share=0.5)),
    ]
    assert_same(*audited)
    assert [v.audit for v in audited[0].verdicts] == [v.audit for v in audited[1].verdicts]
    assert any(v.audit for v in audited[0].verdicts)


def test_it_does_overlap(monkeypatch):
    """A part is generated while the one before it is being verified: the verifier waits until it has seen that."""
    generating = threading.Event()

    class Waiting(Addition):
        last_prompt = ""

        @any_thread
        def verify(self, completions, problems):
            last = len(completions) and problems[0].prompt == self.last_prompt
            assert last or generating.wait(30)
            generating.clear()
            return super().verify(completions, problems)

    policy, calls = teaching_policy(), []
    plain = policy.generate

    def generate(*args):
        calls.append(len(args[0]))
        if len(calls) > 1:
            generating.set()
        return plain(*args)

    monkeypatch.setattr(policy, "generate", generate)
    task = Waiting()
    task.last_prompt = task.problem("test", 4).prompt
    play(task, n=20, rows=4, policy=policy)
    assert calls == [4] * 5


class Failing(Watched):
    @any_thread
    def verify(self, completions, problems):
        if len(self.asked) == 2:
            raise ZeroDivisionError("third part")
        return super().verify(completions, problems)


def test_an_error_of_the_verifier_comes_through():
    with pytest.raises(ZeroDivisionError, match="third part"):
        play(Failing(0.01))
    assert not [t for t in threading.enumerate() if t.name.startswith("verify")]


def test_an_error_of_the_verifier_comes_before_one_of_the_next_generation(monkeypatch):
    policy, calls = teaching_policy(), []
    plain = policy.generate

    def generate(*args):
        calls.append(1)
        if len(calls) == 4:
            raise MemoryError("fourth part")
        return plain(*args)

    monkeypatch.setattr(policy, "generate", generate)
    with pytest.raises(ZeroDivisionError, match="third part"):
        play(Failing(0.01), policy=policy)
    calls.clear()
    with pytest.raises(MemoryError, match="fourth part"):
        play(Watched(), policy=policy)


class Unmarked(Watched):
    def verify(self, completions, problems):
        return super().verify(completions, problems)


class Another(MathVectorEnv):
    pass


@pytest.mark.parametrize(
    ("task", "make"),
    [
        (Unmarked, lambda env: env),
        (Watched, VectorWrapper),
        (Watched, lambda env: Another(env.task, env.num_envs)),
        (Watched, lambda env: MathVectorEnv(env.task, env.num_envs, autoreset_mode="SameStep")),
    ],
    ids=["verifier that is not marked", "wrapper", "subclass", "autoreset"],
)
def test_what_might_change_runs_in_the_main_thread(monkeypatch, task, make):
    task = task()
    rollout = play(task, wrap=make)
    assert task.threads == {threading.main_thread()}
    assert_same(rollout, serial(monkeypatch, Watched()))


def test_more_than_one_turn_runs_in_the_main_thread(monkeypatch):
    task: Any = Watched()
    task.max_turns, task.feedback = 2, lambda *_: "0"
    with monkeypatch.context() as patch:
        patch.setattr(POLICY, "encode_reply", lambda observation, ended: [3])
        play(task)
    assert task.threads == {threading.main_thread()}


def test_one_part_needs_no_thread():
    task = Watched()
    play(task, n=8)
    assert task.threads == {threading.main_thread()}


class Integral(Addition):
    @any_thread
    def verify(self, completions, problems):
        return verify([r"\boxed{\int_0^1 2x\,dx}"] * len(completions), ["1"] * len(completions))


def test_the_worker_process_answers_a_thread(monkeypatch):
    """Tier 3 is started and reused from the verifying thread, and is there for the main one afterwards."""
    close()
    clear_cache()
    beside = play(Integral(), n=8, rows=4).verdicts
    clear_cache()
    assert beside == serial(monkeypatch, Integral(), n=8, rows=4).verdicts
    assert {v.tier for v in beside} == {"math-verify"}
