"""The decoding steps: the packed one against the model's own, and both against a recomputation from scratch."""

import copy
import warnings
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import kstest
from tiny import char_tokenizer, made_once, tiny_policy
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from espo_gym.policy import Policy, Sampling, packed_step
from espo_gym.policy.cuda_graphs import GraphStep
from espo_gym.policy.packed_step import PackedStep
from espo_gym.policy.sampler import GOLDEN, Uniforms, _close_ranks, splitmix

SIZES: dict[str, Any] = {
    "hidden_size": 24,
    "intermediate_size": 40,
    "num_hidden_layers": 3,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    "initializer_range": 0.2,
    "bos_token_id": None,
}
FAMILIES: dict[str, tuple[Any, Any, dict[str, Any]]] = {
    "llama": (LlamaForCausalLM, LlamaConfig, {"attention_bias": True, "mlp_bias": True}),
    "llama, scaled positions": (
        LlamaForCausalLM,
        LlamaConfig,
        {
            "rope_parameters": {
                "rope_type": "llama3",
                "rope_theta": 1e4,
                "factor": 4.0,
                "low_freq_factor": 1.0,
                "high_freq_factor": 4.0,
                "original_max_position_embeddings": 32,
            }
        },
    ),
    "qwen2": (Qwen2ForCausalLM, Qwen2Config, {"tie_word_embeddings": True}),
    "qwen3": (Qwen3ForCausalLM, Qwen3Config, {"head_dim": 8}),
    "mistral": (MistralForCausalLM, MistralConfig, {"sliding_window": None, "head_dim": 6}),
}


def make_policy(family, **more) -> Policy:
    return made_once((family, repr(more)), lambda: new_policy(family, **more))


def new_policy(family, **more) -> Policy:
    cls, config, extra = FAMILIES[family]
    tokenizer = char_tokenizer()
    ends = {"eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = cls(config(vocab_size=len(tokenizer), **SIZES | ends | extra | more))
        with torch.no_grad():
            for parameter in model.parameters():  # biases and norms begin at 0 and 1
                if parameter.dim() == 1:
                    parameter += 0.2 * torch.randn(parameter.shape)
            # rare enough an end that completions are long, and of many lengths
            model.lm_head.weight[tokenizer.eos_token_id] *= 0.5
    return Policy(model, tokenizer)


def scratch(policy, prompt, row):
    """Log-probs and entropies of one completion: one forward pass over one sequence, no cache, no padding, float64."""
    with torch.no_grad(), torch.autocast("cpu", enabled=False):
        logits = policy.model(torch.tensor([prompt + row]), use_cache=False).logits[0].double()
    logprobs = logits[len(prompt) - 1 : -1].log_softmax(-1)
    return logprobs[torch.arange(len(row)), row], -(logprobs.exp() * logprobs).sum(-1)


def prompts_of(policy, lengths, copies):
    rng = np.random.default_rng(0)
    return [p for n in lengths for p in [rng.integers(2, policy.vocab_size, n).tolist()] for _ in range(copies)]


@pytest.mark.parametrize("sampler", ["packed", "hf"])
@pytest.mark.parametrize("lengths", [[3, 9, 1], [60, 52, 49]], ids=["short prompts", "long prompts"])
@pytest.mark.parametrize("family", FAMILIES)
def test_what_is_captured_equals_a_recomputation_from_scratch(family, lengths, sampler):
    policy = make_policy(family)
    policy.sampler = sampler
    assert (lengths[0] >= packed_step.SHARED_PROMPT) == (lengths[0] == 60)
    prompts = prompts_of(policy, lengths, 4)
    said = policy.generate(prompts, range(12), Sampling(max_completion_tokens=70))
    widths = said.mask.sum(1).tolist()
    assert len(set(widths)) > 4 and max(widths) > 3 * packed_step.GROWTH  # rows leave, buffers grow
    for i, (prompt, n) in enumerate(zip(prompts, widths, strict=True)):
        logps, entropies = scratch(policy, prompt, said.tokens[i, :n].tolist())
        assert (said.logps[i, :n] - logps).abs().max() <= 2e-5
        assert abs(float((said.logps[i, :n] - logps).mean())) <= 1e-5
        assert (said.entropies[i, :n] - entropies).abs().max() <= 2e-5


@pytest.mark.parametrize("family", FAMILIES)
def test_the_fastest_step_is_taken_where_it_passes_its_check(family):
    policy = make_policy(family)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert policy.decodes_packed and isinstance(policy.make_step(), PackedStep)
    plain = copy.deepcopy(policy)
    plain.shortcuts, plain.sampler = False, "hf"
    prompts = prompts_of(policy, [3, 50, 9], 4)
    said, expected = (p.generate(prompts, range(12), Sampling(max_completion_tokens=40)) for p in (policy, plain))
    assert torch.equal(said.tokens, expected.tokens) and torch.equal(said.truncated, expected.truncated)


@pytest.mark.parametrize("sampler", ["packed", "hf"])
def test_a_completion_does_not_depend_on_who_shares_its_batch(sampler):
    policy = make_policy("qwen2")
    policy.sampler = sampler
    prompts = prompts_of(policy, [60, 3, 52], 5)
    together = policy.generate(prompts, range(15), Sampling(max_completion_tokens=30))
    for i in (0, 4, 7, 14):
        alone = policy.generate([prompts[i]], [i], Sampling(max_completion_tokens=30))
        n = int(alone.mask.sum())
        assert alone.tokens[0, :n].tolist() == together.tokens[i, : int(together.mask[i].sum())].tolist()


@pytest.mark.parametrize("change", ["data", "optimizer"])
def test_weights_are_packed_anew_each_time(change):
    policy = make_policy("llama")
    prompts = prompts_of(policy, [5], 4)
    before = policy.generate(prompts, range(4), Sampling(max_completion_tokens=20))
    if change == "data":
        for parameter in policy.parameters():
            parameter.data *= 1.1
    else:
        torch.stack([p.square().sum() for p in policy.parameters()]).sum().backward()
        torch.optim.AdamW(policy.parameters(), lr=0.05, fused=True).step()
    after = policy.generate(prompts, range(4), Sampling(max_completion_tokens=20))
    assert not torch.equal(before.logps, after.logps)
    n = int(after.mask[0].sum())
    logps, _ = scratch(policy, prompts[0], after.tokens[0, :n].tolist())
    assert (after.logps[0, :n] - logps).abs().max() <= 2e-5


# -- where the packed step does not apply ---------------------------------------------------------------------------


def test_a_packed_step_that_differs_is_not_used_and_says_so(monkeypatch):
    monkeypatch.setattr(packed_step, "silu", torch.nn.functional.gelu)
    policy = new_policy("qwen3")
    with pytest.warns(UserWarning, match=r"own forward pass: .* is off by .* nats \(limit"):
        assert not policy.decodes_packed
    assert not isinstance(policy.make_step(), PackedStep)


def test_a_packed_step_that_fails_is_not_used_and_says_so(monkeypatch):
    monkeypatch.setattr(PackedStep, "_pack", lambda *_: dict[str, int]()["a weight by another name"])
    with pytest.warns(UserWarning, match="own forward pass: .* KeyError"):
        assert not new_policy("qwen3").decodes_packed


@pytest.mark.parametrize(
    ("family", "more"),
    [
        ("mistral", {"sliding_window": 8}),
        ("llama", {"hidden_act": "gelu"}),
        ("llama", {"rope_parameters": {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 2.0}}),
    ],
)
def test_variants_that_it_does_not_know_are_left_to_the_model_in_silence(family, more):
    policy = new_policy(family, **more)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert not policy.decodes_packed and not tiny_policy("gpt2", fresh=True).decodes_packed
    prompts = prompts_of(policy, [3, 20], 3)
    said = policy.generate(prompts, range(6), Sampling(max_completion_tokens=20))
    for i, prompt in enumerate(prompts):
        n = int(said.mask[i].sum())
        logps, _ = scratch(policy, prompt, said.tokens[i, :n].tolist())
        assert (said.logps[i, :n] - logps).abs().max() <= 2e-5


def test_autocast_samples_in_16_bits_and_scores_in_32():
    policy = make_policy("qwen2")
    policy.autocast = torch.bfloat16
    assert policy.decodes_packed
    prompts = prompts_of(policy, [5, 50], 3)
    said = policy.generate(prompts, range(6), Sampling(max_completion_tokens=12))
    assert said.logps.dtype == torch.float32
    n = int(said.mask[0].sum())
    logps, _ = scratch(policy, prompts[0], said.tokens[0, :n].tolist())
    assert 1e-6 < (said.logps[0, :n] - logps).abs().max() < 0.3


def test_a_sampler_that_is_not_for_this_model_is_refused():
    policy = tiny_policy("gpt2")
    policy.sampler = "packed"
    with pytest.raises(ValueError, match="not this GPT2LMHeadModel: use 'auto' or 'hf'"):
        policy.generate([[3, 4]], [0], Sampling(max_completion_tokens=2))
    policy = tiny_policy()
    with pytest.raises(ValueError, match="sampler must be one of auto, packed, hf, vllm, not 'fast'"):
        Policy(policy.model, policy.tokenizer, sampler="fast")


# -- the schedule ------------------------------------------------------------------------------------------------------


def test_rows_that_can_stay_do_and_the_last_ones_fill_the_gaps():
    rng = np.random.default_rng(0)
    for n in range(1, 12):
        for _ in range(20):
            ended = (rng.random(n) < 0.4).tolist()
            order = _close_ranks(ended)
            assert sorted(order) == [row for row in range(n) if not ended[row]]
            for place, row in enumerate(order):
                assert place == row or ended[place]


def test_the_streams_are_splitmix64():
    """The first five outputs for the seed 1234567, as the generator's other implementations give them."""
    known = [6457827717110365317, 3203168211198807973, 9817491932198370423, 4593380528125082431, 16408922859458223821]
    states = 1234567 + GOLDEN * torch.arange(1, 6)
    assert [word % 2**64 for word in splitmix(states).tolist()] == known


def test_the_streams_of_neighbouring_seeds_are_uniform_and_know_nothing_of_each_other():
    cpu, rows, steps = torch.device("cpu"), torch.arange(2000)[:, None], torch.arange(130)
    numbers = Uniforms(range(2000), cpu).at(rows, steps).numpy()  # (seeds, steps)
    assert numbers.min() >= 0 and numbers.max() < 1
    assert kstest(numbers.ravel(), "uniform").pvalue > 1e-4
    assert all(kstest(numbers[:, t], "uniform").pvalue > 1e-6 for t in (0, 63, 64, 129))
    across = np.corrcoef(numbers[:-1].ravel(), numbers[1:].ravel())[0, 1]
    along = np.corrcoef(numbers[:, :-1].ravel(), numbers[:, 1:].ravel())[0, 1]
    assert abs(across) < 0.01 and abs(along) < 0.01
    assert Uniforms([17], cpu).at(torch.zeros(130, dtype=torch.long), steps).tolist() == numbers[17].tolist()
    made_ahead = Uniforms(range(5), cpu)
    age = torch.zeros(5, dtype=torch.long)
    for step in range(40):  # rows that begin late, as those do that wait for a place
        rows = torch.tensor([row for row in range(5) if row * 9 <= step])
        assert torch.equal(made_ahead.next(rows, age), made_ahead.at(rows, age[rows]))
        age[rows] += 1
    ends = Uniforms([-1, 1, 2**64 - 1, 2**64 + 1], cpu).at(torch.arange(4), torch.zeros(4, dtype=torch.long)).tolist()
    assert ends[0] == ends[2] != ends[1] == ends[3]


# -- the step of a GPU, its operations one by one ----------------------------------------------------------------------


@pytest.mark.parametrize("slots", [1, 3, 5, 100])
@pytest.mark.parametrize("family", FAMILIES)
def test_rows_that_are_refilled_say_what_they_say_all_at_once(monkeypatch, family, slots):
    policy = make_policy(family)
    prompts = prompts_of(policy, [3, 9, 1, 60], 3)
    order = np.random.default_rng(1).permutation(12)
    prompts = [prompts[i] for i in order]
    said = policy.generate(prompts, range(12), Sampling(max_completion_tokens=40))

    class Few(GraphStep):
        def slots(self, n, columns):
            return min(n, slots)

    monkeypatch.setattr(Policy, "make_step", lambda policy: Few(policy.model, policy.compute_dtype))
    few = policy.generate(prompts, range(12), Sampling(max_completion_tokens=40))
    assert torch.equal(few.tokens, said.tokens) and torch.equal(few.truncated, said.truncated)
    assert (few.logps - said.logps).abs().max() < 2e-5 and (few.entropies - said.entropies).abs().max() < 2e-5


def test_what_a_graph_has_seen_stays_where_it_is(monkeypatch):
    """A CUDA graph reads and writes addresses; those of memory that has been freed belong to somebody else."""
    policy, seen = make_policy("qwen3"), []
    prompts = prompts_of(policy, [3, 2, 50, 60], 1)  # the long ones come last

    class Watched(GraphStep):
        def slots(self, n, columns):
            return 2

        def _step(self, rows):
            super()._step(rows)
            seen.append([x.data_ptr() for x in (*self.cache, *vars(self).values()) if isinstance(x, torch.Tensor)])

    monkeypatch.setattr(Policy, "make_step", lambda policy: Watched(policy.model, policy.compute_dtype))
    policy.generate(prompts, range(4), Sampling(max_completion_tokens=3))
    assert len(seen) > 3 and all(addresses == seen[0] for addresses in seen)


def test_refilled_rows_stop_at_their_own_stop_strings(monkeypatch):
    policy = make_policy("llama")
    prompts, how = prompts_of(policy, [3, 9, 5], 4), Sampling(max_completion_tokens=30, stop=("7", "1="))
    said = policy.generate(prompts, range(12), how)
    monkeypatch.setattr(GraphStep, "slots", lambda self, n, columns: 2)
    monkeypatch.setattr(Policy, "make_step", lambda policy: GraphStep(policy.model, policy.compute_dtype))
    few = policy.generate(prompts, range(12), how)
    assert few.texts == said.texts and any(text.endswith("7") for text in few.texts)


def test_no_more_rows_at_a_time_than_there_are_slots():
    step = GraphStep(make_policy("llama").model, torch.float32)
    assert step.slots(10_000, 100) == 256 and step.slots(7, 100) == 7


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("family", FAMILIES)
def test_on_a_gpu_the_graphs_say_what_the_model_says(family):
    policy = make_policy(family).to("cuda")
    prompts = prompts_of(policy, [3, 9, 1, 60], 3)
    graphs = policy.generate(prompts, range(12), Sampling(max_completion_tokens=40))
    assert isinstance(policy.make_step(), GraphStep)
    policy.sampler = "hf"
    plain = policy.generate(prompts, range(12), Sampling(max_completion_tokens=40))
    assert torch.equal(graphs.tokens, plain.tokens) and (graphs.logps - plain.logps).abs().max() < 1e-4
