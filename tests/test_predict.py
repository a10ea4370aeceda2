"""predict plays an episode as training does: what is cut off is silence, and every turn follows from all before it."""

import hashlib
import re
from dataclasses import dataclass, field
from typing import Any

import gymnasium
import numpy as np
import pytest
from stable_baselines3.common.evaluation import evaluate_policy
from tiny import SMALL, byte_tokenizer, completions, teaching_policy, tiny_model

from espo_gym.algorithms import GRPO
from espo_gym.envs import MathVectorEnv
from espo_gym.policy import Policy
from espo_gym.policy.sampler import Completions
from espo_gym.text_vec_env import TextVecEnv

RETRY: dict[str, Any] = {"id": "espo_gym/Retry-v0", "env": "espo_gym/Addition-v0", "attempts": 3}
N = 64


@dataclass
class Scripted:
    """Says what a hash of its whole context decides: the right sum, a wrong one, nothing that ends, or no end token.

    So two ways of playing agree only if they give it the same ids, to the last one.
    """

    policy: Policy
    seen: list[tuple[int, ...]] = field(default_factory=list)

    def __call__(self, prompts, seeds, sampling) -> Completions:
        return completions(self.policy, [self.turn(tuple(ids)) for ids in prompts])

    def turn(self, context: tuple[int, ...]) -> tuple[list[int], bool]:
        self.seen.append(context)
        [text] = self.policy.decode([list(context)])
        a, b = (re.findall(r"(\d+)\+(\d+)=", text) or [("0", "0")])[-1]
        kind = hashlib.sha256(repr(context).encode()).digest()[0] % 5
        if kind == 4:
            return self.policy._encode("9 9 9", add_special_tokens=False), True
        answer = str(int(a) + int(b) + (kind != 0))
        ids = self.policy._encode(answer, add_special_tokens=False)
        return ids + [self.policy.tokenizer.eos_token_id] * (kind != 3), False


def scripted(*, chat=True, context=512) -> tuple[Any, Scripted]:
    tokenizer = byte_tokenizer(chat=chat)
    policy: Any = Policy(tiny_model("gpt2", tokenizer, context=context), tokenizer)
    policy.generate = script = Scripted(policy)
    return GRPO(policy, MathVectorEnv(make().unwrapped.task, num_envs=8), **small()), script


def small(**kwargs: Any) -> dict[str, Any]:
    return {name: value for name, value in SMALL.items() if name != "rollout_size"} | kwargs


def make(**kwargs: Any) -> Any:
    return gymnasium.make(**(RETRY | {"split": "test"} | kwargs))


def sb3_successes(algo: Any, env: TextVecEnv) -> list[bool]:
    """Whether Stable-Baselines3's evaluation finds the first episode of each row solved, row by row."""
    successes: dict[int, bool] = {}

    def note(local: dict[str, Any], _: Any) -> None:
        if local["done"]:
            successes[local["i"]] = bool(local["info"]["is_success"])

    env.seed(0)  # row i asks problem i
    evaluate_policy(algo, env, env.num_envs, deterministic=True, callback=note, warn=False)
    return [successes[i] for i in range(env.num_envs)]


@pytest.mark.parametrize(("chat", "context"), [(True, 512), (True, 180), (False, 512), (False, 50)])
def test_sb3s_evaluation_of_several_turns_plays_the_same_episodes_as_ours(chat, context):
    algo, script = scripted(chat=chat, context=context)
    ours = algo.evaluate("test", k=0, n_problems=N, details=True)
    contexts, script.seen = script.seen, []
    successes = sb3_successes(algo, TextVecEnv([make] * N))
    assert successes == [p.greedy_verdict.correct for p in ours.problems] and 5 < sum(successes) < N - 5
    assert len({p.greedy_verdict.reason for p in ours.problems} & {"truncated"}) == 1
    # evaluate_policy goes on with rows that have finished, so it asks for more than ours.
    assert len(contexts) > 1.5 * N and set(contexts) <= set(script.seen)


@pytest.mark.parametrize("limit", [21, 22, 24, 40])
def test_sb3s_evaluation_agrees_with_ours_at_the_limit_of_tokens(limit):
    algo = GRPO(teaching_policy(), "espo_gym/Addition-v0", **(SMALL | {"max_completion_tokens": limit}))
    ours = algo.evaluate("test", k=0, n_problems=N, details=True)
    env = TextVecEnv([lambda: gymnasium.make("espo_gym/Addition-v0", split="test")] * N)
    assert sb3_successes(algo, env) == [p.greedy_verdict.correct for p in ours.problems]
    cut = [p.greedy_verdict.reason == "truncated" for p in ours.problems]
    texts, state = algo.predict([p.prompt for p in ours.problems], deterministic=True)
    assert texts.tolist() == ["" if c else p.greedy for c, p in zip(cut, ours.problems, strict=True)]
    assert [not ids for ids in state] == cut and (any(cut) or limit == 40)


def test_predict_goes_on_from_its_state():
    algo, script = scripted(chat=False)
    first, state = algo.predict("18+64=", deterministic=True)
    second, after = algo.predict("No.", state=state, deterministic=True)
    one, two = script.seen
    policy = algo.policy
    assert isinstance(first, str) and isinstance(second, str) and list(one) == policy.encode_prompt("18+64=")
    assert list(two) == state[0] + policy.encode_reply("No.", ended=state[0][-1] in policy.eos_token_ids)
    assert state[0][: len(one)] == list(one) and after[0][: len(two)] == list(two)
    again, same = algo.predict("No.", state=state, deterministic=True)  # the state was not written to
    assert again == second and same == after
    assert algo.predict("18+64=", state=state, episode_start=np.array([True]), deterministic=True)[1] == state


def test_rows_begin_anew_where_episode_start_says_so_and_stay_silent_where_they_were_cut_off():
    algo, script = scripted(chat=False)
    questions = [f"{a}+5=" for a in range(40)]
    texts, state = algo.predict(questions)
    silent = [i for i, ids in enumerate(state) if not ids]
    assert silent and [i for i, text in enumerate(texts) if not text] == silent
    script.seen.clear()
    starts = np.arange(40) % 2 == 0
    texts, state = algo.predict(["1+1="] * 40, state, starts)
    asked = [i for i in range(40) if starts[i] or i not in silent]
    alone = [len(ids) == len(algo.policy.encode_prompt("1+1=")) for ids in script.seen]
    assert alone == [bool(starts[i]) for i in asked]
    assert all(texts[i] == "" and state[i] == [] for i in silent if not starts[i])


def test_a_conversation_that_fills_the_context_falls_silent():
    algo, _ = scripted(chat=False, context=90)
    state, turns = None, 0
    while state is None or any(state):
        _, state = algo.predict([f"{i}+1=" for i in range(6)] if state is None else ["Try again."] * 6, state)
        turns += 1
        assert turns < 10 and all(len(ids) <= 90 for ids in state)
    assert algo.predict(["and again"] * 6, state)[0].tolist() == [""] * 6


def test_a_state_of_other_rows_is_refused():
    algo, _ = scripted()
    _, state = algo.predict(["1+1=", "2+2="])
    with pytest.raises(ValueError, match="the state is of 2 episodes, but there are 3 observations"):
        algo.predict(["1+1="] * 3, state)
