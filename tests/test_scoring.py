"""Log-probs and gradients of the learner against the plain padded computation (``Policy(shortcuts=False)``)."""

import copy
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
import torch
from tiny import SMALL, not_none, random_rollout, teaching_policy, tiny_policy

from espo_gym.algorithms import ALGORITHMS, GRPO
from espo_gym.policy import Policy

KINDS = ["llama", "gpt2", "qwen2"]
LENGTHS = [3, 1, 17, 2, 5, 5, 1, 4, 30, 6]


def pair(kind="llama", *, dtype=torch.float64, critic=None, **config):
    """The same policy twice: with every shortcut, and with none."""
    policy = tiny_policy(kind, dtype=dtype, **config)
    if critic:
        policy.add_value_head(separate=critic == "separate")
        with torch.no_grad():
            not_none(policy.value_head).weight.normal_(generator=torch.Generator().manual_seed(1))
    plain = copy.deepcopy(policy)
    plain.shortcuts, plain.sampler = False, "hf"
    return policy.to(dtype), plain.to(dtype)


def grouped_rollout(policy, *, group_size=5, seed=0, holes=True):
    """Completions that share prompts in groups, in any order, with tokens of the environment between the policy's."""
    rollout = random_rollout(policy, lengths=LENGTHS, prompts=[4, 1, 7, 7, 2, 9, 3, 3, 5, 6], seed=seed)
    first = torch.arange(len(LENGTHS)) // group_size * group_size
    rollout = replace(rollout, prompt_ids=rollout.prompt_ids[first], prompt_mask=rollout.prompt_mask[first])
    if holes:
        rng = np.random.default_rng(seed)
        rollout.mask = rollout.mask & torch.tensor(rng.random(rollout.mask.shape) < 0.8)
    return rollout.rows(torch.tensor(np.random.default_rng(seed + 1).permutation(len(LENGTHS))))


def gradients(policy, rollout, *, tokens=None, entropies=False, temperature=1.0, checkpointing=False):
    """Scores in the order of the rows, and the gradient of a random sum of them."""
    rng = np.random.default_rng(5)
    up = [torch.tensor(rng.normal(0, 1, rollout.mask.shape)) for _ in range(3)]
    for parameter in policy.parameters():
        parameter.grad = torch.zeros_like(parameter)
    scores = torch.zeros(3, *rollout.mask.shape, dtype=torch.float64)
    pieces = policy.micro_batches(
        rollout, tokens=tokens, entropies=entropies, temperature=temperature, checkpointing=checkpointing
    )
    count = 0
    for rows, piece in pieces:
        parts = [piece.logps, piece.entropies, piece.values]
        total = sum((x * up[i][rows]).sum() for i, x in enumerate(parts) if x is not None)
        total.backward()
        for i, x in enumerate(parts):
            scores[i, rows] = 0 if x is None else x.detach().double()
        count += 1
    return scores, torch.cat([p.grad.flatten().double() for p in policy.parameters()]), count


def assert_close(ours, plain):
    """To a millionth of the whole: the norms of Llama and Qwen compute in float32 whatever the model's dtype is."""
    assert plain.norm() > 0 and (ours - plain).norm() < 1e-6 * plain.norm()


@pytest.mark.parametrize("tokens", [1, 25, 64, None])
@pytest.mark.parametrize("kind", KINDS)
def test_scores_and_gradient_are_those_of_one_padded_batch_with_all_logits(kind, tokens):
    policy, plain = pair(kind)
    assert policy.shares_prompts and policy.head is not None and plain.head is None
    for seed in range(2):
        rollout = grouped_rollout(policy, seed=seed)
        scores, slope, count = gradients(policy, rollout, tokens=tokens, entropies=True, temperature=0.7)
        expected, plain_slope, _ = gradients(plain, rollout, entropies=True, temperature=0.7)
        assert_close(scores, expected)
        assert_close(slope, plain_slope)
        if kind == "gpt2":
            torch.testing.assert_close(scores, expected, rtol=0, atol=1e-10)
            torch.testing.assert_close(slope, plain_slope, rtol=1e-8, atol=1e-10)
        assert (count == len(rollout)) == (tokens == 1)


@pytest.mark.parametrize("kind", KINDS)
def test_in_float32_the_gradient_is_right_to_a_millionth(kind):
    policy, plain = pair(kind, dtype=torch.float32)
    rollout = grouped_rollout(policy)
    assert_close(*(gradients(p, rollout)[1] for p in (policy, plain)))


@pytest.mark.parametrize("critic", ["shared", "separate"])
def test_values_and_their_gradient(critic):
    policy, plain = pair(critic=critic)
    rollout = grouped_rollout(policy)
    scores, slope, _ = gradients(policy, rollout, tokens=40)
    expected, plain_slope, _ = gradients(plain, rollout)
    assert scores[2].abs().max() > 0.1
    assert_close(scores, expected)
    assert_close(slope, plain_slope)


@pytest.mark.parametrize("reference", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_activation_checkpointing_changes_nothing_but_what_is_kept(kind, reference):
    policy = pair(kind)[reference]
    rollout = grouped_rollout(policy)
    kept = {}
    for checkpointing in (False, True):
        size = 0

        def pack(x):
            nonlocal size
            size += x.numel()
            return x

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
            scores, slope, _ = gradients(policy, rollout, tokens=1000, checkpointing=checkpointing)
        kept[checkpointing] = scores, slope, size
    torch.testing.assert_close(kept[True][:2], kept[False][:2], rtol=1e-12, atol=1e-12)
    # What the layers keep while they are computed again goes through the hooks of the backward pass, not through these.
    assert kept[True][2] < 0.7 * kept[False][2]


def test_prompts_of_one_token_have_nothing_to_share():
    policy, plain = pair()
    rollout = random_rollout(policy, lengths=[3, 5, 1], prompts=[1, 1, 1])
    scores, slope, _ = gradients(policy, rollout)
    expected, plain_slope, _ = gradients(plain, rollout)
    assert_close(scores, expected)
    assert_close(slope, plain_slope)


def test_a_prompt_that_begins_with_the_token_of_padding_is_another_prompt():
    policy, plain = pair()
    rollout = random_rollout(policy, lengths=[3, 5, 4, 2], prompts=[3, 3, 3, 3])
    rollout.prompt_ids[:] = rollout.prompt_ids[0]
    rollout.prompt_ids[:, 0] = policy.pad_token_id
    rollout.prompt_mask[2:, 0] = False
    torch.testing.assert_close(policy.logps(rollout).logps, plain.logps(rollout).logps, rtol=0, atol=1e-10)
    assert (
        policy.logps(rollout).logps[:, 0] != policy.logps(rollout.rows(torch.tensor([2, 3, 0, 1]))).logps[:, 0]
    ).all()


def test_logps_gives_all_rows_in_order_with_one_graph():
    policy, plain = pair(critic="shared")
    rollout = grouped_rollout(policy)
    slopes = []
    for p in (policy, plain):
        scores = p.logps(rollout, entropies=True)
        total = (scores.logps * torch.arange(len(rollout))[:, None]).sum()
        slope = torch.autograd.grad(total + scores.entropies.sum() + scores.values.sum(), list(p.parameters()))
        slopes.append(torch.cat([g.flatten() for g in slope]))
    assert_close(*slopes)


def test_pieces_hold_no_more_tokens_than_asked_for():
    policy, plain = pair()
    rollout = grouped_rollout(policy)
    for p in (policy, plain):
        seen = []
        for rows, _ in p.micro_batches(rollout, tokens=20):
            width = int(rollout.completion_mask[rows].sum(1).max())
            assert len(rows) == 1 or len(rows) * width <= 20
            seen += rows.tolist()
        assert sorted(seen) == list(range(len(rollout)))


# -- models that do not work like that ---------------------------------------------------------------------------------


def bent(model):
    """The forward pass of ``model`` with its logits bent afterwards, as Gemma 2's are: no linear head."""

    def forward(*args, **kwargs):
        out = type(model).forward(model, *args, **kwargs)
        out.logits = 2 * torch.tanh(out.logits / 2)
        return out

    return forward


def test_a_model_that_bends_its_logits_is_run_as_it_is():
    policy, plain = pair(fresh=True)
    for p in (policy, plain):
        p.model.forward = bent(p.model)
    assert policy.head is None and not policy.shares_prompts and not policy.decodes_packed
    rollout = grouped_rollout(policy)
    scores, slope, _ = gradients(policy, rollout, tokens=30)
    expected, plain_slope, _ = gradients(plain, rollout)
    assert_close(scores, expected)
    assert_close(slope, plain_slope)


def test_a_sliding_window_keeps_its_own_cache():
    from transformers import MistralConfig, MistralForCausalLM

    tokenizer = tiny_policy().tokenizer
    sizes: dict[str, Any] = {
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
    }
    config = MistralConfig(
        vocab_size=len(tokenizer), num_key_value_heads=2, sliding_window=5, max_position_embeddings=64, **sizes
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = MistralForCausalLM(config).double()
    policy, plain = Policy(model, tokenizer), Policy(copy.deepcopy(model), tokenizer, shortcuts=False)
    assert not policy.shares_prompts and not policy.decodes_packed
    rollout = grouped_rollout(policy)
    torch.testing.assert_close(policy.logps(rollout).logps, plain.logps(rollout).logps, rtol=0, atol=1e-10)


# -- whole steps -------------------------------------------------------------------------------------------------------


def stepped(policy, algorithm, rollout, **hyperparameters):
    """Weights, metrics and gradient after one optimizer step on ``rollout``."""
    settings = SMALL | {"n_minibatches": 1, "max_grad_norm": 1e9, "warmup_steps": 0} | hyperparameters
    algo = algorithm(policy, "espo_gym/Addition-v0", **settings)
    if algo.needs_values and rollout.values is None:
        rollout.values = torch.zeros_like(rollout.old_logps)
    algo.train(copy.copy(rollout))
    slope = torch.cat([p.grad.flatten().double() for p in policy.parameters()])
    return slope, dict(algo.logger.name_to_value), algo


def mixed_rollout(policy):
    """Two groups: one with rewards to learn from, one without; and a row without a verdict in each."""
    rollout = random_rollout(policy, lengths=[3, 1, 7, 2, 5, 5, 1, 4], no_verdict=[1, 6])
    rollout.rewards = torch.tensor([1.0, 0, 0, 1, 1, 1, 1, 1])
    return rollout


@pytest.mark.parametrize("name", list(ALGORITHMS))
def test_rows_without_a_gradient_are_skipped_and_nothing_changes(name):
    policy, plain = pair()
    rollout = mixed_rollout(policy)
    scored = []
    pieces = policy.micro_batches

    def counted(rollout, **kwargs):
        scored.append(len(rollout))
        return pieces(rollout, **kwargs)

    object.__setattr__(policy, "micro_batches", counted)
    slope, metrics, _ = stepped(policy, ALGORITHMS[name], rollout)
    expected, plain_metrics, _ = stepped(plain, ALGORITHMS[name], rollout)
    assert_close(slope, expected)
    assert scored[-1] == (3 if name != "ppo" else 6)  # of 8
    for key, value in plain_metrics.items():
        if key.startswith("train/"):
            assert metrics[key] == pytest.approx(value, rel=1e-6, abs=1e-9), key


@pytest.mark.parametrize("extra", [{"entropy_coef": 0.1}, {"kl_coef": 0.1}, {"reference_kl": True}])
def test_rows_of_advantage_0_are_not_skipped_where_something_else_moves_them(extra):
    policy, plain = pair()
    rollout = mixed_rollout(policy)
    rollout.ref_logps = rollout.old_logps + 0.1 * rollout.mask
    slope, metrics, _ = stepped(policy, GRPO, rollout, **extra)
    expected, plain_metrics, _ = stepped(plain, GRPO, rollout, **extra)
    assert_close(slope, expected)
    for key in plain_metrics.keys() & {"train/ref_kl_k3", "train/loss"}:
        assert metrics[key] == pytest.approx(plain_metrics[key], rel=1e-6, abs=1e-9), key


@dataclass(kw_only=True, eq=False)
class Chatty(GRPO):
    """Rewards likely tokens, whatever their advantage."""

    def surrogate(self, batch):
        surrogate, ratio, clipped = super().surrogate(batch)
        return surrogate + 0.1 * batch.logps, ratio, clipped


def test_an_algorithm_of_ones_own_with_a_term_of_its_own_is_not_skipped_either():
    policy, plain = pair()
    rollout = mixed_rollout(policy)
    assert_close(stepped(policy, Chatty, rollout)[0], stepped(plain, Chatty, rollout)[0])


def test_a_minibatch_without_any_gradient_still_moves_by_momentum():
    """AdamW goes on by its momentum on a gradient of 0, as it does in the plain computation."""
    weights = []
    for policy in pair(dtype=torch.float32):
        rollout = mixed_rollout(policy)
        _, _, algo = stepped(policy, GRPO, rollout)
        before = copy.deepcopy(policy.state_dict())
        flat = replace(rollout, rewards=torch.ones(8))
        algo.train(flat)
        after = policy.state_dict()
        assert any(not torch.equal(before[k], after[k]) for k in after)
        weights.append(torch.cat([v.flatten() for v in after.values()]))
    assert (weights[0] - weights[1]).abs().max() < 1e-5


def test_what_is_frozen_stays_as_it_is():
    policy = tiny_policy()
    model: Any = policy.model
    frozen = model.get_input_embeddings().weight.requires_grad_(False)
    before = frozen.clone()
    algo = GRPO(policy, "espo_gym/Addition-v0", **SMALL | {"n_minibatches": 1}, weight_decay=0.5)
    algo.train(mixed_rollout(policy))
    assert torch.equal(frozen, before) and frozen.grad is None and frozen not in algo.optimizer.state


@pytest.mark.parametrize("name", ["espo", "ppo"])
def test_a_run_with_every_shortcut_is_the_plain_run(name):
    """Sampled completions are equal token by token, and so are the rewards; weights to rounding."""
    outcomes = []
    for reference in (False, True):
        policy = teaching_policy()
        policy.shortcuts, policy.sampler = not reference, "hf" if reference else "auto"
        settings: dict[str, Any] = {"rollout_size": 32, "max_completion_tokens": 40, "preset": "teaching", "seed": 1}
        algo = ALGORITHMS[name](policy, "espo_gym/Addition-v0", **settings)
        texts = []
        for _ in range(2):
            rollout = algo.collect_rollout()
            algo.train(rollout)
            algo.num_timesteps += len(rollout)
            algo.n_rollouts += 1
            texts.append(rollout.texts)
        outcomes.append((texts, torch.cat([p.detach().flatten() for p in policy.parameters()])))
    assert outcomes[0][0] == outcomes[1][0]
    assert (outcomes[0][1] - outcomes[1][1]).abs().max() < 2e-4  # 16 steps of 1e-4 at most, by Adam's sign of rounding
    assert (outcomes[0][1] - outcomes[1][1]).norm() < 1e-3 * outcomes[1][1].norm()
