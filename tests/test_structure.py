"""Models that somebody has changed: their own forward pass, right numbers or a refusal, before and after a check."""

import copy
import warnings

import pytest
import torch
from test_decoding import new_policy, prompts_of
from test_scoring import assert_close, gradients, grouped_rollout, pair
from tiny import made_once
from torch import nn
from torch.nn.utils import parametrizations, parametrize
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask
from transformers.models.llama.modeling_llama import LlamaMLP

from espo_gym.policy import Policy, Sampling
from espo_gym.policy.packed_step import PackedStep
from espo_gym.policy.structure import supports


class LoraLinear(nn.Linear):
    """An adapter without PEFT: ``weight`` is only a part of what it computes."""

    def __init__(self, base: nn.Linear) -> None:
        super().__init__(base.in_features, base.out_features, bias=base.bias is not None)
        self.load_state_dict(base.state_dict())
        self.lora_A = nn.Parameter(torch.randn(2, base.in_features))
        self.lora_B = nn.Parameter(torch.randn(base.out_features, 2))

    def forward(self, x):
        return super().forward(x) + x @ self.lora_A.t() @ self.lora_B.t()


class GeluMLP(LlamaMLP):
    def forward(self, x):
        return self.down_proj(torch.nn.functional.gelu(self.gate_proj(x)) * self.up_proj(x))


class Louder(nn.Linear):
    def forward(self, x):
        return 1.3 * super().forward(x)


class Doubled(nn.Module):
    def forward(self, weight):
        return 2 * weight


def adapter(model):
    model.model.layers[1].self_attn.q_proj = LoraLinear(model.model.layers[1].self_attn.q_proj)


def parametrization(model):
    parametrize.register_parametrization(model.model.layers[0].mlp.up_proj, "weight", Doubled())


def weight_norm(model):
    layer = parametrizations.weight_norm(model.model.layers[0].self_attn.v_proj)
    layer.parametrizations.weight.original0.data *= 1.5


def old_weight_norm(model):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        nn.utils.weight_norm(model.model.layers[0].self_attn.v_proj).weight_g.data.mul_(1.5)


def hook(model):
    model.model.layers[0].mlp.register_forward_hook(lambda module, args, out: 10 * out)


def hook_with_kwargs(model):
    def louder(module, args, kwargs):
        return args, kwargs | {"hidden_states": 1.5 * kwargs["hidden_states"]}

    model.model.layers[0].self_attn.register_forward_pre_hook(louder, with_kwargs=True)


def hook_on_the_head(model):
    model.lm_head.register_forward_hook(lambda module, args, out: 1.5 * out)


def hook_on_the_model(model):
    def louder(module, args, out):
        out.logits = 1.5 * out.logits
        return out

    model.register_forward_hook(louder)


def other_activation(model):
    old = model.model.layers[1].mlp
    model.model.layers[1].mlp = GeluMLP(model.config).eval()
    model.model.layers[1].mlp.load_state_dict(old.state_dict())


def forward_of_its_own(model):
    layer = model.model.layers[0]
    own = layer.mlp.forward
    layer.mlp.forward = lambda x: 10 * own(x)


def forward_of_a_layer(model):
    layer = model.model.layers[0]
    own = layer.forward
    layer.forward = lambda *args, **kwargs: 1.5 * own(*args, **kwargs)


def other_head(model):
    head = Louder(model.lm_head.in_features, model.lm_head.out_features, bias=False)
    head.load_state_dict(model.lm_head.state_dict())
    model.lm_head = head


def epsilon_of_one_norm(model):
    model.model.layers[1].input_layernorm.variance_epsilon = 0.1


def scale_of_one_attention(model):
    model.model.layers[1].self_attn.scaling *= 1.5


def attention_of_its_own(model):
    def flat(module, q, k, v, mask, *, scaling, **kwargs):
        return sdpa_attention_forward(module, q, k, v, mask, scaling=scaling / 2, **kwargs)

    AttentionInterface.register("flat", flat)
    AttentionMaskInterface.register("flat", sdpa_mask)
    model.config._attn_implementation = "flat"


CHANGES = [
    adapter,
    parametrization,
    weight_norm,
    old_weight_norm,
    hook,
    hook_with_kwargs,
    hook_on_the_head,
    hook_on_the_model,
    other_activation,
    forward_of_its_own,
    forward_of_a_layer,
    other_head,
    epsilon_of_one_norm,
    scale_of_one_attention,
    attention_of_its_own,
]


def tiny() -> Policy:
    """Known to its shortcuts, since it is a copy of one that has been checked."""
    return made_once("to change", lambda: new_policy("llama", num_hidden_layers=2))


def gap(policy: Policy) -> float:
    """Between what the sampler says of its tokens and a forward pass of the model over them, in nats."""
    prompts = prompts_of(policy, [3, 9], 2)
    said = policy.generate(prompts, range(4), Sampling(max_completion_tokens=8))
    gaps = []
    for i, prompt in enumerate(prompts):
        n = int(said.mask[i].sum())
        row = said.tokens[i, :n].tolist()
        with torch.no_grad():
            logits = policy.model(torch.tensor([prompt + row]), use_cache=False).logits[0, len(prompt) - 1 : -1]
        logps = logits.log_softmax(-1)[torch.arange(n), row]
        gaps.append(float((said.logps[i, :n] - logps).abs().max()))
    return max(gaps)


@pytest.mark.parametrize("when", ["before the checks", "after the checks"])
@pytest.mark.parametrize("change", CHANGES, ids=lambda f: f.__name__)
def test_what_is_changed_is_sampled_and_scored_as_it_is(change, when):
    policy = tiny()
    assert isinstance(policy.make_step(), PackedStep)
    if when == "before the checks":
        policy = Policy(policy.model, policy.tokenizer)
    prompts = prompts_of(policy, [9], 1)
    before = policy.generate(prompts, [0], Sampling(max_completion_tokens=1)) if when.startswith("after") else None
    torch.manual_seed(0)
    change(policy.model)
    assert gap(policy) <= 1e-4
    assert supports(policy.model) == isinstance(policy.make_step(), PackedStep) == (change is scale_of_one_attention)
    after = policy.generate(prompts, [0], Sampling(max_completion_tokens=1))
    assert before is None or abs(float(after.entropies[0, 0] - before.entropies[0, 0])) > 1e-3
    rollout = grouped_rollout(policy)
    scores = gradients(policy, rollout)[0]
    policy.shortcuts = False
    assert_close(scores, gradients(policy, rollout)[0])


def test_a_hook_that_is_gone_costs_nothing_more():
    policy = tiny()
    handle = policy.model.model.layers[0].register_forward_hook(lambda module, args, out: None)
    assert not isinstance(policy.make_step(), PackedStep)
    handle.remove()
    assert isinstance(policy.make_step(), PackedStep)


def test_activation_checkpointing_leaves_a_forward_of_its_own_where_it_is():
    policy, _ = pair()
    forward_of_a_layer(policy.model)
    own = policy.model.model.layers[0].forward
    gradients(policy, grouped_rollout(policy), checkpointing=True)
    assert policy.model.model.layers[0].forward is own
    assert "forward" not in policy.model.model.layers[1].__dict__


def test_dropout_that_is_added_later_is_off():
    policy = tiny()
    prompts = prompts_of(policy, [9], 4)
    before = policy.generate(prompts, range(4), Sampling(max_completion_tokens=5))
    layer = policy.model.model.layers[0]
    layer.mlp = nn.Sequential(layer.mlp, nn.Dropout(0.5))
    after = policy.generate(prompts, range(4), Sampling(max_completion_tokens=5))
    assert torch.equal(before.tokens, after.tokens) and (before.logps - after.logps).abs().max() < 1e-5
    policy.model.train()
    rollout = grouped_rollout(policy)
    assert torch.equal(policy.logps(rollout).logps, policy.logps(rollout).logps)
    assert not any(module.training for module in policy.modules())


# -- what is refused ---------------------------------------------------------------------------------------------------


def peft_like(model):
    layer = LoraLinear(model.model.layers[1].self_attn.q_proj)
    layer.__class__ = type("Linear", (LoraLinear,), {"__module__": "peft.tuners.lora.layer"})
    model.model.layers[1].self_attn.q_proj = layer


def integers(model):
    mlp = model.model.layers[0].mlp
    layer = type("Linear8bitLt", (nn.Linear,), {})(1, 1, bias=False)
    layer.weight = nn.Parameter(mlp.up_proj.weight.to(torch.int8), requires_grad=False)
    mlp.up_proj = layer


def configured(model):
    model.config.quantization_config = {"quant_method": "gguf"}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (peft_like, r"layers\.1\.self_attn\.q_proj is a peft\.tuners\.lora\.layer\.Linear: .*merge_and_unload"),
        (integers, r"LlamaForCausalLM is quantized \(model\.layers\.0\.mlp\.up_proj\.weight is int8\)"),
        (configured, "is quantized .its configuration has a quantization_config.: .*in float32"),
    ],
)
def test_adapters_of_peft_and_quantized_weights_are_refused(change, message):
    policy = tiny()
    change(policy.model)
    with pytest.raises(ValueError, match=message):
        Policy(policy.model, policy.tokenizer)


@pytest.mark.parametrize("change", [peft_like, integers])
def test_what_comes_later_is_refused_at_the_next_use_and_each_one_after_it(change):
    policy = tiny()
    rollout = grouped_rollout(policy)
    change(policy.model)
    for _ in range(2):
        with pytest.raises(ValueError, match="cannot be trained"):
            policy.generate([[3, 4]], [0], Sampling(max_completion_tokens=2))
        with pytest.raises(ValueError, match="cannot be trained"):
            policy.logps(rollout)


def test_peft_itself():
    peft = pytest.importorskip("peft")
    config = peft.LoraConfig(r=2, target_modules=["q_proj"], init_lora_weights=False)
    policy = tiny()
    plain = copy.deepcopy(policy.model)
    policy.model.add_adapter(config)
    rollout = grouped_rollout(tiny())
    for use in (policy.make_step, lambda: policy.logps(rollout), policy.frozen_copy):
        with pytest.raises(ValueError, match="peft"):
            use()
    wrapped = peft.get_peft_model(plain, config)
    with pytest.raises(ValueError, match="the model is a peft"):
        Policy(wrapped, policy.tokenizer)
    merged = Policy(wrapped.merge_and_unload(), policy.tokenizer)
    assert isinstance(merged.make_step(), PackedStep) and gap(merged) <= 1e-4
