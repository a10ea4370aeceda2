"""Episodes of several turns: who wrote what, and that the scores are those of the whole conversation."""

from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from gymnasium.wrappers import TransformReward
from gymnasium.wrappers.vector import TransformReward as VectorTransformReward
from tiny import SMALL, byte_tokenizer, completions, not_none, tiny_model, tiny_policy

from espo_gym.algorithms import GRPO, PPO
from espo_gym.collect import collect
from espo_gym.environment import as_vector_env
from espo_gym.envs import MathVectorEnv, Problem, Task, TextEnv, UnicodeText, Verdict
from espo_gym.policy import Policy
from espo_gym.sampling import Sampling

FEEDBACK = "No. Again."


class TwoTurns(Task):
    """Right is what has an even number of characters."""

    max_turns = 2

    def problem(self, split, seed):
        return Problem(prompt="?" * (1 + seed % 3) + str(seed), answer="", key=str(seed))

    def verify(self, completions, problems):
        return [Verdict("incorrect" if len(c) % 2 else "correct", answer=c) for c in completions]

    def feedback(self, problem, completion, verdict, turn):
        return FEEDBACK


class OneTurn(TwoTurns):
    """As TwoTurns, but silence is wrong."""

    max_turns = 1

    def verify(self, completions, problems):
        return [Verdict("correct" if c and len(c) % 2 == 0 else "incorrect", answer=c) for c in completions]


class Strict(TwoTurns):
    """Nothing is right, so every episode takes all its turns."""

    max_turns = 3

    def verify(self, completions, problems):
        return [Verdict("incorrect", answer=c) for c in completions]


def chatty(*, chat=True, context=512, end_bias=3.5) -> Policy:
    """A byte-level policy that ends its turns often enough."""
    tokenizer = byte_tokenizer(chat=chat)
    policy = Policy(tiny_model("gpt2", tokenizer, context=context), tokenizer)
    with torch.no_grad():
        model: Any = policy.model
        model.transformer.ln_f.bias += end_bias * model.lm_head.weight[tokenizer.eos_token_id]
    return policy


def played(policy, task, n=24, seeds=None, **sampling):
    env = MathVectorEnv(task, num_envs=n)
    return collect(env, policy, seeds or range(n), range(n), Sampling(**({"max_completion_tokens": 12} | sampling)))


def turns(rollout, i) -> list[list[int]]:
    """The runs of the policy's own tokens in row i."""
    runs: list[list[int]] = []
    before = False
    for token, own in zip(rollout.completion_ids[i].tolist(), rollout.mask[i].tolist(), strict=True):
        if own and not before:
            runs.append([])
        if own:
            runs[-1].append(token)
        before = own
    return runs


@pytest.mark.parametrize("chat", [True, False])
def test_the_mask_holds_the_policys_own_tokens_and_no_others(chat):
    policy = chatty(chat=chat)
    rollout = played(policy, TwoTurns(), 60)
    eos = policy.tokenizer.eos_token_id
    middle = {True: "\n<|im_start|>user\nNo. Again.<|im_end|>\n<|im_start|>assistant\n", False: "\nNo. Again.\n"}[chat]
    n_turns = []
    for i in range(60):
        said = turns(rollout, i)
        n_turns.append(len(said))
        others = rollout.completion_ids[i][rollout.completion_mask[i] & ~rollout.mask[i]].tolist()
        assert policy.tokenizer.decode(others) == middle * (len(said) - 1)
        assert all(turn.count(eos) == 1 and turn[-1] == eos for turn in said[:-1])
        assert policy.decode([said[-1]])[0] == rollout.texts[i]
        first = policy.decode([said[0]])[0]
        assert (len(said) == 2) == (len(first) % 2 == 1 and said[0][-1] == eos)
    assert set(n_turns) == {1, 2}


@pytest.mark.parametrize("chat", [True, False])
@pytest.mark.parametrize("task", [TwoTurns, Strict])
def test_log_probs_of_every_turn_equal_a_recomputation_of_the_whole_conversation(task, chat):
    policy = chatty(chat=chat)
    rollout = played(policy, task(), temperature=0.8)
    assert max(len(turns(rollout, i)) for i in range(24)) == task.max_turns
    with torch.no_grad():
        scores = policy.logps(rollout, temperature=0.8, entropies=True)
    assert (scores.logps - rollout.old_logps).abs().max() < 2e-5
    assert (scores.entropies - rollout.entropies).abs().max() < 5e-5
    for i in range(24):
        prompt = rollout.prompt_ids[i][rollout.prompt_mask[i]]
        completion = rollout.completion_ids[i][rollout.completion_mask[i]]
        with torch.no_grad():
            logits = policy.model(torch.cat([prompt, completion])[None]).logits[0, len(prompt) - 1 : -1].double() / 0.8
        exact = logits.log_softmax(-1).gather(1, completion[:, None]).squeeze(1)
        own = rollout.mask[i][: len(completion)]
        np.testing.assert_allclose(rollout.old_logps[i][: len(completion)][own], exact[own], atol=2e-5)
    assert rollout.old_logps[~rollout.mask].eq(0).all() and rollout.entropies[~rollout.mask].eq(0).all()


def test_a_conversation_is_the_templates_own_rendering():
    policy = chatty()
    vocab, eos = policy.tokenizer.get_vocab(), policy.tokenizer.eos_token
    unreadable = torch.tensor([i for t, i in vocab.items() if t != eos and not (len(t) == 1 and "!" <= t <= "~")])
    # bytes at random are no text that could be rendered
    policy.model.get_output_embeddings().register_forward_hook(
        lambda module, args, out: out.index_fill(-1, unreadable, -1e9)
    )
    rollout = played(policy, Strict(), 80)
    seen = 0
    for i in (~rollout.truncated).nonzero().squeeze(1).tolist():
        messages = [{"role": "user", "content": rollout.prompts[i]}]
        for text in policy.decode(turns(rollout, i)):
            messages += [{"role": "assistant", "content": text}, {"role": "user", "content": FEEDBACK}]
        whole = policy.tokenizer.apply_chat_template(messages[:-1], tokenize=False)
        ids = [*rollout.prompt_ids[i][rollout.prompt_mask[i]], *rollout.completion_ids[i][rollout.completion_mask[i]]]
        assert f"{policy.tokenizer.decode(ids)}\n" == whole and len(messages) == 7
        seen += 1
    assert seen >= 3


def test_an_episode_does_not_depend_on_the_number_of_rows():
    policy = chatty()
    whole = played(policy, TwoTurns(), 24)
    env = MathVectorEnv(TwoTurns(), num_envs=5)
    parts = collect(env, policy, range(24), range(24), Sampling(max_completion_tokens=12))
    assert torch.equal(whole.completion_ids, parts.completion_ids) and torch.equal(whole.mask, parts.mask)
    assert torch.equal(whole.rewards, parts.rewards) and whole.texts == parts.texts


def test_a_turn_that_was_cut_off_ends_the_episode_with_nothing():
    rollout = played(chatty(end_bias=2.5), TwoTurns(), 60, max_completion_tokens=4)
    assert rollout.truncated.any() and not rollout.truncated.all()
    for i in rollout.truncated.nonzero().squeeze(1).tolist():
        assert rollout.rewards[i] == 0 and rollout.has_verdict[i]
        assert (rollout.verdicts[i].status, rollout.verdicts[i].reason) == ("no_answer", "truncated")
        assert len(turns(rollout, i)[-1]) == 4


class Asking(gymnasium.Env):
    """From elsewhere, of two turns: a short answer is wrong and pays -0.25, a longer one is right."""

    observation_space, action_space = UnicodeText(100), UnicodeText(1000)

    def __init__(self, silence: Any = -0.25, **info: Any) -> None:
        self.silence, self.info = silence, info

    def reset(self, *, seed=None, options=None):
        self.turn = 0
        return f"{seed}", {}

    def step(self, action):
        self.turn += 1
        right = len(action) > 1
        reward = 1.0 if right else -0.25 if action else self.silence
        return "more", reward, right or self.turn == 2, False, {} if action else self.info


def rewards_of_fragments(env: Asking, **kwargs: Any) -> list[float]:
    """The rewards of an episode that was cut off in its first turn, and of one in its second."""
    policy: Any = chatty()
    wrong = [*policy._encode("x"), policy.tokenizer.eos_token_id]
    said = iter([[(wrong[:1], True), (wrong, False)], [(wrong[:1], True)]])
    policy.generate = lambda *_: completions(policy, next(said))
    rollout = collect(as_vector_env(env, 2), policy, range(2), range(2), Sampling(), **kwargs)
    assert rollout.verdicts == [Verdict("no_answer", reason="truncated")] * 2
    assert rollout.truncated.all() and rollout.has_verdict.all()
    return rollout.rewards.tolist()


FAILED = {"verdict": Verdict("no_verdict", reason="crash")}


@pytest.mark.parametrize(
    ("env", "fixed", "first", "second"),
    [
        (Asking(), None, -0.25, -0.5),
        (Asking(), -2.0, -2.0, -2.25),
        (Asking(), 0.0, 0.0, -0.25),
        (Asking(0.0), None, 0.0, -0.25),
        (Asking(**FAILED), None, -0.25, -0.5),
        (Asking(1.0), None, 0.0, -0.25),  # silence is right, says the reward
        (Asking(1.0, is_success=False), None, 1.0, 0.75),  # it is not, says the environment
        (Asking(-0.5, is_success=True), None, -0.5, -0.75),
        (Asking(float("nan")), -1.0, -1.0, -1.25),  # what is not read may be anything
    ],
    ids=["default", "set", "set to 0", "free", "no verdict", "right", "paid though wrong", "right though paid", "nan"],
)
def test_a_completion_that_was_cut_off_earns_what_silence_does(env, fixed, first, second):
    assert rewards_of_fragments(env, truncated_reward=fixed) == [first, second]


def test_a_reward_of_silence_that_is_no_number_is_an_error():
    with pytest.raises(ValueError, match="the reward nan for"):
        rewards_of_fragments(Asking(None))


@pytest.mark.parametrize("vector", [True, False])
def test_a_transformed_reward_reaches_what_was_cut_off(vector):
    """The environment pays 1 and -1, so never coming to an end is no better than a wrong answer."""
    env: Any
    if vector:
        env = VectorTransformReward(MathVectorEnv(OneTurn(), num_envs=60), lambda r: 2 * r - 1)
    else:
        env = as_vector_env(TransformReward(TextEnv(OneTurn()), lambda r: 2 * float(r) - 1), 60)
    rollout = collect(env, chatty(end_bias=2.5), range(60), range(60), Sampling(max_completion_tokens=6))
    paid: dict[Any, set[float]] = {(v.status, v.reason == "truncated"): set() for v in rollout.verdicts}
    for verdict, reward in zip(rollout.verdicts, rollout.rewards.tolist(), strict=True):
        paid[verdict.status, verdict.reason == "truncated"].add(reward)
    assert paid == {("correct", False): {1.0}, ("incorrect", False): {-1.0}, ("no_answer", True): {-1.0}}


def test_a_reply_that_does_not_fit_into_the_context_cuts_the_episode_off():
    policy = chatty(context=60)
    rollout = played(policy, Strict(), 40, max_completion_tokens=100)
    width = rollout.prompt_mask.sum(1) + rollout.completion_mask.sum(1)
    assert width.max() <= 60 and rollout.truncated.any()


def test_the_reward_of_an_episode_is_the_sum_over_its_turns():
    class Paying(gymnasium.Env):
        observation_space, action_space = UnicodeText(100), UnicodeText(1000)

        def reset(self, *, seed=None, options=None):
            self.turn = 0
            return f"{seed}", {}

        def step(self, action):
            self.turn += 1
            return "more", 0.25 * self.turn, self.turn == 3, False, {}

    policy = chatty(end_bias=4.0)
    rollout = collect(as_vector_env(Paying(), 16), policy, range(16), range(16), Sampling(max_completion_tokens=60))
    finished = ~rollout.truncated
    assert finished.sum() > 8 and (rollout.rewards[finished] == 1.5).all()
    assert all(len(turns(rollout, i)) == 3 for i in finished.nonzero().squeeze(1).tolist())


@pytest.mark.parametrize("mode", ["Disabled", "SameStep"])
def test_every_autoreset_mode_of_our_environment_plays_the_same_episodes(mode):
    policy = chatty()
    env = MathVectorEnv(TwoTurns(), num_envs=12, autoreset_mode=mode)
    rollout = collect(env, policy, range(12), range(12), Sampling(max_completion_tokens=12))
    plain = played(policy, TwoTurns(), 12)
    assert torch.equal(rollout.completion_ids, plain.completion_ids) and torch.equal(rollout.rewards, plain.rewards)


@pytest.mark.parametrize("algorithm", [GRPO, PPO])
def test_the_environments_tokens_get_no_gradient(algorithm):
    policy = chatty()
    env = MathVectorEnv(TwoTurns(), num_envs=8)
    settings = {k: v for k, v in SMALL.items() if k != "rollout_size"} | {"n_minibatches": 1}
    algo = algorithm(policy, env, **settings)
    rollout = algo.collect_rollout()
    rollout = algo.annotate(rollout)
    advantages = algo.advantages(rollout)
    scores = policy.logps(rollout)
    leaf = scores.logps.detach().requires_grad_()
    scores.logps = leaf
    algo.loss(algo.loss_batch(rollout, advantages, scores)).loss.backward()
    assert not_none(leaf.grad)[~rollout.mask].eq(0).all() and (rollout.completion_mask & ~rollout.mask).any()


# -- one turn --------------------------------------------------------------------------------------------------------


def test_groups_are_the_rows_with_equal_seeds():
    rollout = played(tiny_policy("gpt2"), Numbers(), 6, seeds=[9, 9, 9, 2, 2, 2])
    assert rollout.groups[:3].eq(rollout.groups[0]).all() and rollout.groups[3:].eq(rollout.groups[3]).all()
    assert rollout.groups[0] != rollout.groups[3] and rollout.prompts == ["9="] * 3 + ["2="] * 3


class Numbers(Task):
    def problem(self, split, seed):
        return Problem(prompt=f"{seed}=", answer=str(seed), key=str(seed))


def test_a_verifier_is_not_asked_about_a_fragment():
    asked = []

    class Curious(TwoTurns):
        def verify(self, completions, problems):
            asked.extend(completions)
            return super().verify(completions, problems)

    rollout = played(chatty(end_bias=1.5), Curious(), 40, max_completion_tokens=4)
    fragments = [t for t, cut in zip(rollout.texts, rollout.truncated.tolist(), strict=True) if cut and t]
    whole = [t for t, cut in zip(rollout.texts, rollout.truncated.tolist(), strict=True) if not cut]
    assert fragments and not (set(fragments) - set(whole)) & set(asked)


class Countdown(gymnasium.Env):
    """From elsewhere, of one to three turns: as many as the seed says."""

    observation_space, action_space = UnicodeText(100), UnicodeText(1000)

    def reset(self, *, seed=None, options=None):
        self.left = 1 + (seed or 0) % 3
        return f"{self.left}", {}

    def step(self, action):
        self.left -= 1
        return "on", float(len(action) % 2), self.left <= 0, False, {}


@pytest.mark.parametrize("ours", [True, False], ids=["ours", "from elsewhere"])
@pytest.mark.parametrize("mode", list(AutoresetMode))
def test_rows_that_end_at_different_turns_do_not_disturb_each_other(mode, ours):
    make = (lambda: TextEnv(TwoTurns())) if ours else Countdown
    policy, sampling = chatty(end_bias=4.0), Sampling(max_completion_tokens=40)
    env = SyncVectorEnv([make] * 12, autoreset_mode=mode)
    together = collect(env, policy, range(12), range(12), sampling)
    alone = [
        collect(SyncVectorEnv([make], autoreset_mode=AutoresetMode.SAME_STEP), policy, [i], [i], sampling)
        for i in range(12)
    ]
    assert len({len(turns(together, i)) for i in range(12)}) > 1
    for i, one in enumerate(alone):
        assert turns(together, i) == turns(one, 0)
        assert together.rewards[i] == one.rewards[0] and together.verdicts[i] == one.verdicts[0]


def test_every_turn_draws_with_a_seed_of_its_own(monkeypatch):
    policy, used = chatty(end_bias=4.0), []
    plain = policy.generate

    def generate(prompts, seeds, sampling):
        used.append(list(seeds))
        return plain(prompts, seeds, sampling)

    monkeypatch.setattr(policy, "generate", generate)
    played(policy, Strict(), 8, max_completion_tokens=60)
    drawn = [seed for seeds in used for seed in seeds]
    assert len(used) == 3 and len(drawn) == len(set(drawn)) > 8
