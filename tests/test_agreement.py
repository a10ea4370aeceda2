"""Which difference is rounding and which is a fault: right shortcuts are accepted, slightly wrong ones are refused."""

import warnings
from typing import Any

import numpy as np
import pytest
import torch
from test_decoding import FAMILIES, new_policy
from tiny import char_tokenizer, tiny_policy
from transformers import Gemma2Config, Gemma2ForCausalLM

from espo_gym.policy import Policy, decoding, scoring
from espo_gym.policy.packed_step import PackedStep


def scaled(family: str, depth: int, weights: float, head: float, **more: Any) -> Policy:
    """A random policy whose matrices and whose logits have grown, as they do in training."""
    policy = new_policy(family, num_hidden_layers=depth, **more)
    with torch.no_grad():
        for name, parameter in policy.model.named_parameters():
            if parameter.dim() > 1 and name.startswith("model.layers"):
                parameter.mul_(weights)
        policy.model.model.norm.weight.mul_(head)
    return policy


def accepted(policy: Policy) -> bool:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return policy.decodes_packed


@pytest.mark.parametrize(("depth", "weights", "head"), [(2, 2, 30), (7, 0.5, 1)])
@pytest.mark.parametrize("family", FAMILIES)
def test_a_right_step_is_accepted_whatever_the_depth_and_the_logits(family, depth, weights, head):
    policy = scaled(family, depth, weights, head)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert policy.head is not None and policy.shares_prompts and policy.decodes_packed


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_16_bits_round_more_and_more_is_allowed(dtype):
    assert accepted(Policy(new_policy("llama").model.to(getattr(torch, dtype)), char_tokenizer()))


# -- faults ------------------------------------------------------------------------------------------------------------


def norm(step):
    step.layers[1].up[:, 5] *= 1.003


def last_norm(step):
    step.norm[5] *= 1.001


def epsilon(step):
    step.floor = step.floor * 10


def bias(step):
    step.layers[1].qkv_bias *= 0.999


def output_bias(step):
    step.layers[0].out_bias[0] = 0


def head_of_the_queries(step):
    step.layers[1].qkv[: step.d] *= 1.003


def other_head(step):
    d = step.d
    step.layers[1].qkv[: 2 * d] = step.layers[1].qkv[: 2 * d].roll(d, 0)


def base_of_the_rotation(step):
    rotary, d = step.rotary, step.d
    powers = torch.arange(0, d, 2) / d

    def rotated(x, positions):
        angles = positions[..., None] * rotary.inv_freq * 1.01**-powers  # 10,100 in place of 10,000
        return tuple(f(torch.cat([angles, angles], -1)) for f in (torch.cos, torch.sin))

    step.rotary = rotated


def window(step):
    prefill = step._prefill

    def cut(ids, attention):
        states, prompts, hides, last = prefill(ids, attention)
        hides[:, 1] = -torch.inf  # what comes later no longer sees the oldest token
        return states, prompts, hides, last

    step._prefill = cut


def position(step):
    prefill = step._prefill
    step._prefill = lambda ids, attention: (*prefill(ids, attention)[:3], attention.sum(1))


def faulty(fault):
    """The packed step with ``fault`` planted in it."""

    class Faulty(PackedStep):
        def __init__(self, model, dtype):
            super().__init__(model, dtype)
            with torch.no_grad():
                fault(self)

    return Faulty


FAULTS = {
    "llama": [
        norm,
        last_norm,
        epsilon,
        bias,
        output_bias,
        head_of_the_queries,
        other_head,
        base_of_the_rotation,
        window,
        position,
    ],
    "qwen2": [norm, bias, head_of_the_queries, base_of_the_rotation, position],
    "qwen3": [norm, last_norm, epsilon, base_of_the_rotation, window, position],
    "mistral": [norm, last_norm, head_of_the_queries, window, position],
}


@pytest.mark.parametrize(("family", "fault"), [(family, fault) for family, list_ in FAULTS.items() for fault in list_])
def test_a_slightly_wrong_step_is_refused(family, fault, monkeypatch):
    monkeypatch.setattr(decoding, "PackedStep", faulty(fault))
    policy = scaled(family, 3, 1, 10)
    with pytest.warns(UserWarning, match=r"is off by .* nats \(limit"):
        assert not policy.decodes_packed


@pytest.mark.slow
def test_every_right_one_of_300_steps_is_accepted_and_every_wrong_one_refused(monkeypatch):
    rng = np.random.default_rng(0)
    largest, families = 0.0, list(FAMILIES)
    for i in range(300):
        family = families[i % len(families)]
        depth, weights, head = int(rng.integers(2, 13)), 2.0 ** rng.uniform(-1.5, 1), 10 ** rng.uniform(-1, 2.5)
        policy = scaled(family, depth, weights, head)
        assert policy.head is not None and policy.shares_prompts and accepted(policy), (family, depth, weights, head)
        largest = max(largest, float(policy.model_logits(*policy.probe()).detach().abs().max()))
        faults = FAULTS[family.partition(",")[0]] if "," not in family else FAULTS["mistral"]
        with monkeypatch.context() as patched:
            patched.setattr(decoding, "PackedStep", faulty(faults[int(rng.integers(len(faults)))]))
            assert not accepted(Policy(policy.model, policy.tokenizer)), (family, depth, weights, head)
    assert largest > 900


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
@pytest.mark.parametrize("fault", [lambda x: x * 1.001, lambda x: x.roll(1, 2), lambda x: x[:, :, 1:]])
def test_prompts_are_not_shared_where_their_keys_come_out_wrong(kind, fault, monkeypatch):
    update = scoring._Prefix.update

    def wrong(self, keys, values, *args, **kwargs):
        self.keys, self.values = self.keys, fault(self.values)
        return update(self, keys, values, *args, **kwargs)

    assert tiny_policy(kind, fresh=True).shares_prompts
    monkeypatch.setattr(scoring._Prefix, "update", wrong)
    assert not tiny_policy(kind, fresh=True).shares_prompts


def test_a_fault_that_16_bits_would_hide_is_found_in_the_weights_own_dtype(monkeypatch):
    monkeypatch.setattr(decoding, "PackedStep", faulty(norm))
    policy = new_policy("llama")
    policy.autocast = torch.bfloat16
    assert not accepted(policy)


def test_tokens_that_are_forbidden_do_not_count_as_a_difference():
    policy = new_policy("llama")
    bias = torch.zeros(policy.vocab_size)
    bias[5:9] = -torch.inf
    policy.model.lm_head.bias = torch.nn.Parameter(bias)
    assert policy.shares_prompts and accepted(policy)


# -- the head ----------------------------------------------------------------------------------------------------------


def gemma(cap: float | None) -> Policy:
    tokenizer = char_tokenizer()
    sizes: dict[str, Any] = {
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
    }
    ids = {"eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id, "bos_token_id": None}
    config = Gemma2Config(
        vocab_size=len(tokenizer),
        num_key_value_heads=2,
        head_dim=8,
        final_logit_softcapping=cap,
        max_position_embeddings=64,
        **sizes | ids,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Policy(Gemma2ForCausalLM(config), tokenizer)


def test_a_soft_cap_is_seen_however_small_the_logits_are():
    policy = gemma(30.0)
    assert policy.model_logits(*policy.probe()).abs().max() < 1  # where the cap changes 1e-5
    assert policy.head is None and gemma(None).head is not None


@pytest.mark.parametrize("what", ["input", "output"])
def test_what_is_done_before_or_after_the_head_is_seen(what):
    policy = new_policy("llama")
    model: Any = policy.model

    class Scaled(type(model)):  # type: ignore[misc]
        def forward(self, *args, **kwargs):
            if what == "input":
                norm = self.model(*args, **{k: v for k, v in kwargs.items() if k != "logits_to_keep"})
                norm.logits = self.lm_head(norm.last_hidden_state / 1.00001)
                return norm
            out = super().forward(*args, **kwargs)
            out.logits = out.logits * 1.00001
            return out

    model.__class__ = Scaled
    assert policy.head is None and not policy.shares_prompts and not accepted(policy)
