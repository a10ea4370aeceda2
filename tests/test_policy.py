"""The policy: log-probs with gradient, prompts and their errors, files that plain transformers reads."""

import json
from typing import Any

import numpy as np
import pytest
import torch
from tiny import (
    byte_tokenizer,
    char_tokenizer,
    not_none,
    random_rollout,
    same_state,
    state,
    teaching_policy,
    tiny_model,
    tiny_policy,
)
from transformers import AutoModelForCausalLM, AutoTokenizer

from espo_gym.algorithms import GRPO
from espo_gym.collect import collect
from espo_gym.environment import as_vector_env
from espo_gym.policy import Policy
from espo_gym.sampling import Sampling

KINDS = ["llama", "gpt2", "qwen2"]
LENGTHS = [3, 1, 7, 2, 5, 5, 1, 4]
ADDITION = "espo_gym/Addition-v0"


def episodes(policy, n=12, **sampling):
    env = as_vector_env(ADDITION, n)
    return collect(env, policy, range(n), range(n), Sampling(max_completion_tokens=12, **sampling))


# -- log-probs -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("temperature", [1.0, 0.7, 1.6])
@pytest.mark.parametrize("kind", KINDS)
def test_log_probs_equal_those_captured_while_sampling(kind, temperature):
    policy = tiny_policy(kind)
    rollout = episodes(policy, temperature=temperature)
    with torch.no_grad():
        scores = policy.logps(rollout, temperature=temperature, entropies=True)
    assert (scores.logps - rollout.old_logps).abs().max() < 2e-5
    assert (scores.entropies - rollout.entropies).abs().max() < 2e-5
    means = ((scores.logps - rollout.old_logps) * rollout.mask).sum(1) / rollout.mask.sum(1)
    assert means.abs().max() < 1e-5
    other = policy.logps(rollout, temperature=temperature * 1.1).logps
    assert (other - rollout.old_logps).abs().max() > 1e-2  # the temperature is not ignored


@pytest.mark.parametrize("kind", KINDS)
def test_log_probs_equal_one_row_at_a_time_without_padding(kind):
    policy = tiny_policy(kind)
    rollout = random_rollout(policy, lengths=LENGTHS, prompts=[1, 9, 3, 4, 2, 7, 5, 1])
    with torch.no_grad():
        scores = policy.logps(rollout, temperature=1.3, entropies=True)
    entropies = not_none(scores.entropies)
    for i, length in enumerate(LENGTHS):
        prompt = rollout.prompt_ids[i][rollout.prompt_mask[i]]
        completion = rollout.completion_ids[i, :length]
        logits = policy.model(torch.cat([prompt, completion])[None]).logits[0, len(prompt) - 1 : -1].double() / 1.3
        probs = logits.softmax(-1).detach()
        expected = probs.gather(1, completion[:, None]).log().squeeze(1)
        np.testing.assert_allclose(scores.logps[i, :length].detach(), expected, atol=2e-5)
        np.testing.assert_allclose(entropies[i, :length], -(probs * probs.log()).sum(-1), atol=2e-5)
    assert scores.logps[~rollout.mask].eq(0).all() and entropies[~rollout.mask].eq(0).all()


def test_log_probs_and_entropies_carry_the_gradient():
    policy = tiny_policy()
    scores = policy.logps(random_rollout(policy, lengths=LENGTHS), entropies=True)
    for part in (scores.logps, not_none(scores.entropies)):
        policy.zero_grad()
        part.sum().backward(retain_graph=True)
        assert all(p.grad is not None and p.grad.isfinite().all() for p in policy.parameters())
        assert any(not_none(p.grad).abs().max() > 1e-3 for p in policy.parameters())


def test_without_value_head_there_are_no_values_and_with_one_they_start_at_zero():
    policy = tiny_policy()
    rollout = random_rollout(policy, lengths=LENGTHS)
    assert policy.logps(rollout).values is None
    policy.add_value_head()
    assert not_none(policy.logps(rollout).values).eq(0).all()


def test_the_value_of_a_token_does_not_see_the_token_itself():
    policy = tiny_policy(value_head=False)
    policy.add_value_head()
    with torch.no_grad():
        not_none(policy.value_head).weight.copy_(torch.linspace(-1, 1, 16)[None])
    rollout = random_rollout(policy, lengths=LENGTHS)
    before = not_none(policy.logps(rollout).values)
    rollout.completion_ids[2, 4] = (rollout.completion_ids[2, 4] + 1) % 20 + 2
    after = not_none(policy.logps(rollout).values)
    assert torch.equal(before[2, :5], after[2, :5]) and not torch.equal(before[2, 5:], after[2, 5:])
    assert before[2, 0] != 0


@pytest.mark.parametrize("kind", KINDS)
def test_dropout_of_the_configuration_stays_off(kind):
    dropout: dict[str, Any] = {"gpt2": {"resid_pdrop": 0.5, "embd_pdrop": 0.5, "attn_pdrop": 0.5}}.get(
        kind, {"attention_dropout": 0.5}
    )
    policy, plain = tiny_policy(kind, **dropout), tiny_policy(kind)
    policy.train()
    rollout = random_rollout(plain, lengths=LENGTHS)
    assert torch.equal(policy.logps(rollout).logps, plain.logps(rollout).logps)


def test_a_frozen_copy_stays_as_it_is():
    policy = tiny_policy()
    frozen = policy.frozen_copy()
    before = state(frozen)
    with torch.no_grad():
        for p in policy.parameters():
            p.add_(1.0)
    assert same_state(state(frozen), before)
    assert not any(p.requires_grad for p in frozen.parameters()) and all(p.requires_grad for p in policy.parameters())


# -- prompts ---------------------------------------------------------------------------------------------------------


def test_a_plain_language_model_reads_the_observation_alone():
    policy = tiny_policy()
    ids = policy.encode_prompt("1+1=", system_prompt="Be brief.")
    assert policy.tokenizer.convert_ids_to_tokens(ids) == list("1+1=")


@pytest.mark.parametrize("system", [None, "", "Be brief."])
def test_a_chat_model_reads_its_template(system):
    policy = tiny_policy(tokenizer="byte", context=256)
    text = policy.tokenizer.decode(policy.encode_prompt("1+1=", system))
    opening = f"<|im_start|>system\n{system}<|im_end|>\n" if system else ""
    assert text == f"{opening}<|im_start|>user\n1+1=<|im_end|>\n<|im_start|>assistant\n"


def test_the_system_prompt_of_the_task_reaches_a_chat_model():
    policy = tiny_policy(tokenizer="byte", context=512)
    env = as_vector_env(ADDITION, 1)
    rollout = collect(env, policy, [0], [0], Sampling(max_completion_tokens=2))
    assert "\\boxed{}" in policy.tokenizer.decode(rollout.prompt_ids[0])


def test_a_character_without_a_token_is_a_clear_error():
    with pytest.raises(ValueError, match=r"cannot write 'what is 1\+1\?'.*vocabulary covers the environment"):
        tiny_policy().encode_prompt("what is 1+1?")


def test_a_prompt_longer_than_the_context_is_a_clear_error():
    policy = tiny_policy(context=8)
    assert len(policy.encode_prompt("1234567")) == 7
    with pytest.raises(ValueError, match=r"a prompt of 8 tokens leaves no room .* context of 8 tokens.*'12345678'"):
        policy.encode_prompt("12345678")


def test_an_empty_prompt_is_a_clear_error():
    with pytest.raises(ValueError, match="the prompt is empty"):
        tiny_policy().encode_prompt("")


def test_a_tokenizer_without_end_token_is_a_clear_error():
    tokenizer = byte_tokenizer(chat=False)
    model = tiny_model("gpt2", tokenizer)
    tokenizer.eos_token = None
    with pytest.raises(ValueError, match="no end-of-sequence token"):
        Policy(model, tokenizer)


# -- replies ---------------------------------------------------------------------------------------------------------

CONVERSATION = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "1+1="},
    {"role": "assistant", "content": "3"},
    {"role": "user", "content": "No. Again."},
]


@pytest.mark.parametrize("ended", [True, False])
def test_prompt_completion_and_reply_together_are_the_templates_own_rendering(ended):
    policy = tiny_policy(tokenizer="byte", context=512)
    said = policy.tokenizer("3")["input_ids"] + ([policy.tokenizer.eos_token_id] if ended else [])
    ids = policy.encode_prompt("1+1=", "Be brief.") + said + policy.encode_reply("No. Again.", ended=ended)
    whole = policy.tokenizer.apply_chat_template(CONVERSATION, tokenize=False, add_generation_prompt=True)
    assert ids == policy.tokenizer(whole, add_special_tokens=False)["input_ids"]


def test_a_turn_that_ended_with_another_end_token_than_the_tokenizers_is_not_ended_twice():
    """Base models keep <|endoftext|> as the tokenizer's end token, while their chat template ends turns otherwise."""
    tokenizer = byte_tokenizer()
    end_of_turn = tokenizer.convert_tokens_to_ids("<|im_end|>")
    tokenizer.eos_token = "<|pad|>"
    policy = Policy(tiny_model("llama", tokenizer, context=512), tokenizer)
    policy.model.generation_config.eos_token_id = [end_of_turn, tokenizer.eos_token_id]
    said = [*tokenizer("3")["input_ids"], end_of_turn]
    ids = policy.encode_prompt("1+1=", "Be brief.") + said + policy.encode_reply("No. Again.", ended=True)
    assert tokenizer.decode(ids) == tokenizer.apply_chat_template(
        CONVERSATION, tokenize=False, add_generation_prompt=True
    )


def test_without_a_template_a_reply_is_a_line_of_its_own():
    tokenizer = byte_tokenizer(chat=False)
    policy = Policy(tiny_model("llama", tokenizer), tokenizer)
    assert tokenizer.decode(policy.encode_reply("No.", ended=True)) == "\nNo.\n"


# -- files -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_plain_transformers_loads_what_was_saved_and_says_the_same(kind, tmp_path):
    policy = tiny_policy(kind)
    with torch.no_grad():
        for p in policy.parameters():
            p.add_(0.01)
    policy.save_pretrained(tmp_path)
    model, tokenizer = AutoModelForCausalLM.from_pretrained(tmp_path), AutoTokenizer.from_pretrained(tmp_path)
    ids = tokenizer("12+34=", return_tensors="pt").input_ids
    assert torch.equal(model.eval()(ids).logits, policy.model(ids).logits)
    assert (
        tokenizer.decode(ids[0]) == "12+34=" and policy.tokenizer.get_vocab().items() <= tokenizer.get_vocab().items()
    )


def test_a_value_head_is_saved_and_loaded(tmp_path):
    policy = tiny_policy()
    policy.add_value_head()
    with torch.no_grad():
        not_none(policy.value_head).weight.copy_(torch.arange(16.0)[None])
        not_none(policy.value_head).bias.fill_(0.5)
    policy.save_pretrained(tmp_path)
    assert same_state(state(Policy.from_pretrained(tmp_path, device="cpu")), state(policy))
    AutoModelForCausalLM.from_pretrained(tmp_path)


def test_weights_that_were_loaded_are_aligned_in_memory_as_all_others_are(tmp_path):
    """The last bit of a matrix product depends on it, and with it whether a resumed run is the same run."""
    policy = tiny_policy()
    policy.save_pretrained(tmp_path)
    assert {p.data_ptr() % 64 for p in Policy.from_pretrained(tmp_path, device="cpu").parameters()} == {0}


def test_a_chat_template_survives_saving(tmp_path):
    policy = tiny_policy(tokenizer="byte", context=256)
    policy.save_pretrained(tmp_path)
    again = Policy.from_pretrained(tmp_path, device="cpu")
    assert again.encode_prompt("1", "x") == policy.encode_prompt("1", "x")


def test_several_end_tokens_survive_saving(tmp_path):
    policy = tiny_policy()
    policy.model.generation_config.eos_token_id = [1, 5]
    policy.save_pretrained(tmp_path)
    assert Policy.from_pretrained(tmp_path, device="cpu").eos_token_ids.tolist() == [1, 5]


def test_an_unknown_name_is_an_error(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(OSError, match="nowhere"):
        Policy.from_pretrained(tmp_path / "nowhere")


def test_the_bundled_policy_solves_some_problems_and_knows_when_to_stop():
    rollout = episodes(teaching_policy(), 64)
    assert rollout.truncated.float().mean() == 1  # 12 tokens are not enough
    env = as_vector_env(ADDITION, 64)
    rollout = collect(env, teaching_policy(), range(64), range(64), Sampling(max_completion_tokens=48))
    assert rollout.truncated.float().mean() < 0.05
    assert 0.15 < rollout.rewards.mean() < 0.6  # pass@1 was measured at about a third


def test_the_alphabet_of_the_tests_is_that_of_the_bundled_policy():
    assert teaching_policy().tokenizer.get_vocab() == char_tokenizer().get_vocab()


# -- bfloat16 --------------------------------------------------------------------------------------------------------


def test_a_bfloat16_policy_samples_and_scores_in_float32():
    policy = tiny_policy(dtype=torch.bfloat16)
    rollout = episodes(policy)
    scores = policy.logps(rollout, entropies=True)
    assert scores.logps.dtype == not_none(scores.entropies).dtype == rollout.old_logps.dtype == torch.float32
    gap = (scores.logps - rollout.old_logps).abs()
    assert gap.max() < 0.2  # the same up to bfloat16


def test_autocast_computes_in_bf16_on_float32_weights_and_says_so(tmp_path):
    plain, policy = tiny_policy(), tiny_policy()
    policy.autocast = torch.bfloat16
    assert (policy.dtype, policy.compute_dtype, plain.compute_dtype) == (torch.float32, torch.bfloat16, torch.float32)
    rollout = random_rollout(plain, lengths=LENGTHS)
    exact, rough = plain.logps(rollout).logps, policy.logps(rollout).logps
    assert rough.dtype == torch.float32
    gap = (exact - rough).abs().max().item()
    assert 1e-4 < gap < 0.2
    rough.sum().backward()
    assert all(p.grad is None or p.grad.dtype == torch.float32 for p in policy.parameters())

    algorithm = GRPO(policy, "espo_gym/Addition-v0", rollout_size=8, group_size=4, max_completion_tokens=8)
    rollout = algorithm.collect_rollout()
    assert rollout.sampler_logps is not None, "below float32 the old log-probs are recomputed"
    algorithm.learn(8).save(tmp_path / "half")
    loaded = GRPO.load(tmp_path / "half", device="cpu").policy
    assert (loaded.autocast, loaded.dtype) == (torch.bfloat16, torch.float32)
    assert policy.frozen_copy().autocast == torch.bfloat16


@pytest.mark.parametrize("part", ["config.json", "tokenizer_config.json"])
def test_code_beside_the_weights_is_neither_run_nor_asked_about(part, tmp_path, monkeypatch):
    """transformers' default is a question on standard input."""
    folder, ran = tmp_path / "model", tmp_path / "ran"
    teaching_policy().save_pretrained(folder)
    (folder / "own.py").write_text(f"open({str(ran)!r}, 'w').close()\nOwn = None\n")
    settings = json.loads((folder / part).read_text())
    maps = {
        "config.json": {"AutoConfig": "own.Own", "AutoModelForCausalLM": "own.Own"},
        "tokenizer_config.json": {"AutoTokenizer": ["own.Own", None]},
    }
    settings |= {"auto_map": maps[part], "model_type": "own", "tokenizer_class": "OwnTokenizer"}
    (folder / part).write_text(json.dumps(settings))
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("it asks"))
    with pytest.raises(ValueError, match="brings code of its own: if you trust it, add --trust-remote-code"):
        Policy.from_pretrained(folder)
    assert not ran.exists()
