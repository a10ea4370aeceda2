"""The sampler against a recomputation without cache, transformers' own generate, and exact probabilities."""

import itertools
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import chisquare
from tiny import byte_tokenizer, global_random_state, tiny_model, tiny_policy
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from espo_gym.policy import Policy, Sampling, lm_head, sampler
from espo_gym.policy.lm_head import inverse_cdf
from espo_gym.policy.sampler import _restrict

KINDS = ["llama", "gpt2", "qwen2"]
PROMPTS = ["1+1=", "358+467=", "9", "12*(3+4)-5=", "1+1=", "0-0="]


def encoded(policy, texts=PROMPTS):
    return [policy.encode_prompt(text) for text in texts]


def scratch(policy, prompt, completion, temperature=1.0):
    """Log-probs and entropies of one completion: one forward pass over one sequence, no cache, no padding."""
    with torch.no_grad():
        logits = policy.model(torch.tensor([prompt + completion]), use_cache=False).logits[0].double() / temperature
    probs = logits[len(prompt) - 1 : -1].softmax(-1)
    chosen = probs[torch.arange(len(completion)), completion]
    return chosen.log().numpy(), -(probs * probs.log()).sum(-1).numpy()


def rows_of(said):
    lengths = said.mask.sum(1).tolist()
    return [row[:n] for row, n in zip(said.tokens.tolist(), lengths, strict=True)]


# -- what is captured ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("temperature", [1.0, 0.7, 1.8])
@pytest.mark.parametrize("kind", KINDS)
def test_captured_log_probs_and_entropies_equal_a_recomputation_from_scratch(kind, temperature):
    policy = tiny_policy(kind)
    prompts = encoded(policy) * 4
    said = policy.generate(prompts, range(len(prompts)), Sampling(temperature, max_completion_tokens=20))
    assert len(set(map(len, rows_of(said)))) > 3  # rows have ended at different steps
    for i, (prompt, row) in enumerate(zip(prompts, rows_of(said), strict=True)):
        logps, entropies = scratch(policy, prompt, row, temperature)
        np.testing.assert_allclose(said.logps[i, : len(row)], logps, atol=2e-5)
        np.testing.assert_allclose(said.entropies[i, : len(row)], entropies, atol=2e-5)
        assert abs(said.logps[i, : len(row)].mean() - logps.mean()) < 1e-5
    assert said.logps[~said.mask].eq(0).all() and said.entropies[~said.mask].eq(0).all()


@pytest.mark.parametrize("kind", KINDS)
def test_log_probs_are_of_the_whole_vocabulary_under_top_k_and_top_p_and_greedy(kind):
    policy = tiny_policy(kind)
    prompts = encoded(policy)
    for sampling in (Sampling(top_k=3, max_completion_tokens=8), Sampling(0.5, 0.6, max_completion_tokens=8)):
        said = policy.generate(prompts, range(6), sampling)
        for i, (prompt, row) in enumerate(zip(prompts, rows_of(said), strict=True)):
            np.testing.assert_allclose(
                said.logps[i, : len(row)], scratch(policy, prompt, row, sampling.temperature)[0], atol=2e-5
            )
    said = policy.generate(prompts, range(6), Sampling(0.0, max_completion_tokens=8))
    for i, (prompt, row) in enumerate(zip(prompts, rows_of(said), strict=True)):
        np.testing.assert_allclose(said.logps[i, : len(row)], scratch(policy, prompt, row)[0], atol=2e-5)


# -- rows do not know each other -------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_a_completion_depends_on_its_prompt_and_seed_alone(kind):
    policy = tiny_policy(kind)
    prompts, seeds, sampling = encoded(policy) * 3, list(range(100, 118)), Sampling(max_completion_tokens=20)
    together = rows_of(policy.generate(prompts, seeds, sampling))
    alone = [rows_of(policy.generate([p], [s], sampling))[0] for p, s in zip(prompts, seeds, strict=True)]
    order = np.random.default_rng(0).permutation(18)
    shuffled = rows_of(policy.generate([prompts[i] for i in order], [seeds[i] for i in order], sampling))
    assert together == alone
    assert shuffled == [together[i] for i in order]
    assert len({tuple(row) for row in together[::6]}) > 1  # the same prompt with other seeds says something else


def test_a_shorter_limit_cuts_the_same_completion():
    policy = tiny_policy()
    long = rows_of(policy.generate(encoded(policy), range(6), Sampling(max_completion_tokens=20)))
    short = rows_of(policy.generate(encoded(policy), range(6), Sampling(max_completion_tokens=5)))
    assert short == [row[:5] for row in long]


def test_equal_seeds_and_prompts_give_equal_completions():
    policy = tiny_policy()
    said = rows_of(policy.generate(encoded(policy, ["1+1="]) * 3, [7, 8, 7], Sampling(max_completion_tokens=20)))
    assert said[0] == said[2] != said[1]


@pytest.mark.parametrize("kind", KINDS)
def test_greedy_equals_transformers_own_generate(kind):
    for seed in range(3):
        policy = tiny_policy(kind, seed=seed)
        said = policy.generate(encoded(policy), [0] * 6, Sampling(0.0, max_completion_tokens=15))
        for prompt, row in zip(encoded(policy), rows_of(said), strict=True):
            model: Any = policy.model
            theirs = model.generate(torch.tensor([prompt]), do_sample=False, max_new_tokens=15)
            assert row == theirs[0, len(prompt) :].tolist()


def test_greedy_does_not_depend_on_the_seed():
    policy = tiny_policy()
    one, other = (policy.generate(encoded(policy), [s] * 6, Sampling(0.0, max_completion_tokens=9)) for s in (0, 1))
    assert torch.equal(one.tokens, other.tokens)


# -- the distribution ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "sampling", [Sampling(), Sampling(0.6), Sampling(1.5, top_k=4), Sampling(top_p=0.7)], ids=["1", "0.6", "k", "p"]
)
def test_completions_of_two_tokens_come_with_their_exact_probabilities(sampling):
    """Chi-square with an error rate of 1e-4 a case; the seeds are fixed, so the outcome is as well."""
    policy = tiny_policy(seed=3)
    [prompt], eos, n = encoded(policy, ["1+1="]), policy.tokenizer.eos_token_id, 6000

    def next_probs(ids):
        with torch.no_grad():
            logits = policy.model(torch.tensor([ids])).logits[0, -1].double()
        probs = (logits / sampling.temperature).softmax(-1)
        return brute_force(probs.numpy(), sampling.top_k, sampling.top_p)

    expected = {}
    for a, p in enumerate(next_probs(prompt)):
        for b, q in enumerate(next_probs([*prompt, a])) if a != eos else [(None, 1.0)]:
            expected[(a,) if b is None else (a, b)] = p * q
    two = Sampling(sampling.temperature, sampling.top_p, sampling.top_k, max_completion_tokens=2)
    said = rows_of(policy.generate([prompt] * n, range(n), two))
    counts = dict.fromkeys(expected, 0)
    for row in said:
        counts[tuple(row)] += 1
    assert all(expected[row] > 0 for row, count in counts.items() if count)
    common = [row for row in expected if expected[row] * n >= 5]
    observed = [*(counts[row] for row in common), n - sum(counts[row] for row in common)]
    theory = [*(expected[row] * n for row in common), n - n * sum(expected[row] for row in common)]
    if theory[-1] < 5:
        observed, theory = observed[:-1], theory[:-1]
        theory = np.array(theory) * sum(observed) / sum(theory)
    assert len(observed) > 8
    assert chisquare(observed, theory).pvalue > 1e-4


def brute_force(probs, top_k, top_p):
    """Top-k, renormalize, then the smallest set of the likeliest tokens that holds top_p, renormalize."""
    order = sorted(range(len(probs)), key=lambda v: (-probs[v], v))
    order = order[: top_k or len(order)]
    total, kept, held = sum(probs[v] for v in order), [], 0.0
    for v in order:
        kept.append(v)
        held += probs[v] / total
        if held >= top_p:
            break
    total = sum(probs[v] for v in kept)
    return np.array([probs[v] / total if v in kept else 0.0 for v in range(len(probs))])


@pytest.mark.parametrize(
    ("top_k", "top_p"), [*itertools.product([0, 1, 2, 5, 40, 100], [1.0, 0.999, 0.9, 0.5, 0.1, 1e-6])]
)
def test_top_k_and_top_p_equal_brute_force(top_k, top_p):
    rng = np.random.default_rng(0)
    probs = np.concatenate([rng.dirichlet(np.full(40, a), 10) for a in (0.1, 1.0, 10.0)])
    kept = _restrict(torch.tensor(probs), Sampling(1.0, top_p, top_k))
    ours = (kept / kept.sum(-1, keepdim=True)).numpy()
    np.testing.assert_allclose(ours, [brute_force(row, top_k, top_p) for row in probs], atol=1e-12)


def test_a_token_of_probability_zero_is_never_drawn():
    probs = torch.tensor([[0.0, 0.5, 0.0, 0.5, 0.0]])
    draws = torch.tensor([0.0, 0.25, 0.5, 1 - 2**-53], dtype=torch.float64)
    assert inverse_cdf(probs.expand(4, -1), draws).tolist() == [1, 1, 3, 3]


def test_top_p_takes_no_token_more_than_it_needs():
    assert _restrict(torch.tensor([[0.25, 0.5, 0.25]]), Sampling(top_p=0.5)).tolist() == [[0, 0.5, 0]]
    assert _restrict(torch.tensor([[0.25, 0.25, 0.5]]), Sampling(top_p=0.75)).tolist() == [[0.25, 0, 0.5]]


def test_top_k_of_one_is_greedy():
    policy = tiny_policy()
    one = policy.generate(encoded(policy), range(6), Sampling(top_k=1, max_completion_tokens=9))
    greedy = policy.generate(encoded(policy), range(6), Sampling(0.0, max_completion_tokens=9))
    assert torch.equal(one.tokens, greedy.tokens)


# -- how a completion ends -------------------------------------------------------------------------------------------


def scripted(script, tokenizer, **config) -> Policy:
    """A policy that says the tokens of ``script`` whatever it is asked: token i of it is certain at position i."""
    policy = Policy(tiny_model("llama", tokenizer, **config), tokenizer)
    model: Any = policy.model
    vocab = policy.vocab_size

    def forward(input_ids, attention_mask=None, position_ids=None, past_key_values=None, **kwargs):
        out = type(model).forward(model, input_ids, attention_mask, position_ids, past_key_values, **kwargs)
        step = int(attention_mask.sum(1)[0]) - model.start
        out.logits = (
            torch.nn.functional.one_hot(torch.tensor(script[min(step, len(script) - 1)]), vocab)
            .float()
            .expand_as(out.logits)
            * 1e3
        )
        return out

    model.start, model.forward = 0, forward
    return policy


def says(script, tokenizer, sampling):
    policy = scripted(script, tokenizer)
    prompt = policy.encode_prompt("1")
    vars(policy.model)["start"] = len(prompt)
    said = policy.generate([prompt], [0], sampling)
    return said.texts[0], int(said.mask.sum()), bool(said.truncated[0])


def word_tokenizer(words):
    """Tokens of several characters, so that a stop string can begin and end inside one."""
    vocab = {w: i for i, w in enumerate(["<eos>", "1", *words])}
    tokenizer = Tokenizer(models.WordLevel(vocab, unk_token="1"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<eos>")


@pytest.mark.parametrize(
    ("stop", "words", "expected"),
    [
        (("STOP",), ["ab", "STOP", "cd", "ef"], ("abSTOP", 2, False)),
        (("STOP",), ["abST", "OPcd", "ef", "gh"], ("abSTOPcd", 2, False)),  # inside of two tokens
        (("STOP",), ["S", "T", "O", "Px"], ("STOPx", 4, False)),  # over four
        (("zz", "b"), ["a", "ab", "zz", "c"], ("aab", 2, False)),  # the first to come
        (("STOP",), ["ST", "O", "x", "P"], ("STOxP", 4, True)),  # not in one piece
        (("STOP",), ["a", "b", "c", "STOP"], ("abcSTOP", 4, False)),  # with the last token that is allowed
    ],
)
def test_stop_strings_end_a_completion_and_stay_in_it(stop, words, expected):
    tokenizer = word_tokenizer(sorted(set(words)))
    script = [tokenizer.convert_tokens_to_ids(w) for w in words]
    assert says(script, tokenizer, Sampling(max_completion_tokens=4, stop=stop)) == expected


@pytest.mark.parametrize("stop", ["é", "→x", "🙂", "日本"])
def test_stop_strings_of_several_bytes_are_seen_when_their_last_byte_comes(stop):
    tokenizer = byte_tokenizer(chat=False)
    before, after = "aé→日🙂", "zzz"
    text = before.replace(stop, "") + stop + after
    script = tokenizer(text)["input_ids"]
    expected = len((before.replace(stop, "") + stop).encode())
    got = says(script, tokenizer, Sampling(max_completion_tokens=len(script), stop=(stop,)))
    assert got == (before.replace(stop, "") + stop, expected, False)


def test_a_completion_that_comes_to_its_end_token_is_not_truncated_and_one_cut_off_is():
    policy = tiny_policy()
    prompts = encoded(policy) * 10
    said = policy.generate(prompts, range(60), Sampling(max_completion_tokens=6))
    eos = policy.tokenizer.eos_token_id
    for row, truncated in zip(rows_of(said), said.truncated.tolist(), strict=True):
        assert eos not in row[:-1]
        assert truncated == (row[-1] != eos)
        assert truncated <= (len(row) == 6)
    assert said.truncated.any() and not said.truncated.all()
    assert any(row[-1] == eos and len(row) == 6 for row in rows_of(said))


def test_the_context_of_the_model_cuts_completions_off():
    policy = tiny_policy(context=12)
    said = policy.generate(encoded(policy, ["1+1=", "12*(3+4)="]) * 10, range(20), Sampling())
    lengths = said.mask.sum(1)
    assert lengths[0::2].max() == 8 and lengths[1::2].max() == 3
    assert torch.equal(said.truncated, (lengths == torch.tensor([8, 3] * 10)) & ~ended(policy, said))


def ended(policy, said):
    return torch.tensor([row[-1] in policy.eos_token_ids.tolist() for row in rows_of(said)])


def test_the_end_token_is_in_the_mask_also_where_it_is_the_padding():
    tokenizer = byte_tokenizer(chat=False, pad=False)
    policy = Policy(tiny_model("gpt2", tokenizer), tokenizer)
    with torch.no_grad():
        model: Any = policy.model
        model.transformer.ln_f.bias += 3 * model.lm_head.weight[tokenizer.eos_token_id]
    assert policy.pad_token_id == tokenizer.eos_token_id
    said = policy.generate([policy.encode_prompt("1+1=")] * 30, range(30), Sampling(max_completion_tokens=20))
    rows = rows_of(said)
    assert any(row[-1] == tokenizer.eos_token_id and len(row) < said.tokens.shape[1] for row in rows)
    for row in rows:
        assert row.count(tokenizer.eos_token_id) == (row[-1] == tokenizer.eos_token_id)
    for i, row in enumerate(rows):
        np.testing.assert_allclose(
            said.logps[i, : len(row)], scratch(policy, policy.encode_prompt("1+1="), row)[0], atol=2e-5
        )


def test_any_of_several_end_tokens_ends_a_completion():
    policy = tiny_policy()
    policy.model.generation_config.eos_token_id = [1, 5, 9]
    said = policy.generate(encoded(policy) * 20, range(120), Sampling(max_completion_tokens=30))
    ends = {row[-1] for row, cut in zip(rows_of(said), said.truncated.tolist(), strict=True) if not cut}
    assert ends == {1, 5, 9}
    assert all(not set(row[:-1]) & {1, 5, 9} for row in rows_of(said))


def test_texts_leave_special_tokens_out():
    policy = tiny_policy()
    said = policy.generate(encoded(policy) * 5, range(30), Sampling(max_completion_tokens=9))
    for row, text in zip(rows_of(said), said.texts, strict=True):
        symbols = policy.tokenizer.convert_ids_to_tokens(row)
        assert text == "".join(s for s in symbols if s not in "_$")


# -- state and errors ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_dropout_of_the_configuration_stays_off(kind):
    dropout: dict[str, Any] = {"gpt2": {"resid_pdrop": 0.5, "embd_pdrop": 0.5, "attn_pdrop": 0.5}}.get(
        kind, {"attention_dropout": 0.5}
    )
    with_dropout, without = tiny_policy(kind, **dropout), tiny_policy(kind)
    with_dropout.train()
    prompts = encoded(without)
    a, b = (p.generate(prompts, range(6), Sampling(max_completion_tokens=9)) for p in (with_dropout, without))
    assert torch.equal(a.tokens, b.tokens) and torch.equal(a.logps, b.logps)


def test_generating_touches_no_global_random_state():
    policy = tiny_policy()
    untouched = global_random_state()
    policy.generate(encoded(policy), range(6), Sampling(max_completion_tokens=9))
    assert untouched()


def test_seeds_may_be_any_unsigned_64_bit_integer():
    policy = tiny_policy()
    said = policy.generate(encoded(policy, ["1"]) * 2, [0, 2**64 - 1], Sampling(max_completion_tokens=9))
    assert len(said.texts) == 2


def test_a_seed_missing_is_an_error():
    policy = tiny_policy()
    with pytest.raises(ValueError, match="6 prompts but 5 seeds"):
        policy.generate(encoded(policy), range(5), Sampling())


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("temperature", -1.0),
        ("top_p", 0.0),
        ("top_p", 1.5),
        ("top_k", -1),
        ("max_completion_tokens", 0),
        ("stop", "x"),
        ("stop", ("",)),
    ],
)
def test_a_setting_out_of_range_is_an_error_that_names_it(field, value):
    with pytest.raises(ValueError, match=field):
        Sampling(**{field: value})


# -- weights that are not finite -------------------------------------------------------------------------------------


@pytest.mark.parametrize("tiled", [False, True])
@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize("value", [torch.nan, torch.inf, 1e38])
def test_logits_that_are_not_finite_are_an_error_and_no_token(value, temperature, tiled, monkeypatch):
    """Without the check a greedy token would be the first NaN, silently, and a drawn one an index out of bounds."""
    if tiled:
        monkeypatch.setattr(sampler, "TILED_VOCABULARY", 4)
        monkeypatch.setattr(lm_head, "COLUMNS", 8)
    policy = tiny_policy(tie_word_embeddings=False)
    head: Any = policy.model.get_output_embeddings()
    with torch.no_grad():
        head.weight[5] = value
    with pytest.raises(FloatingPointError, match="logits of the policy are not finite"):
        policy.generate([[1, 2], [3]], [0, 1], Sampling(temperature=temperature, max_completion_tokens=5))


def test_logits_that_are_not_finite_later_end_a_long_completion_soon(monkeypatch):
    policy = tiny_policy()
    calls: list[None] = []
    choose = sampler._choose

    def fails(*args):
        calls.append(None)
        choice, logp, entropy = choose(*args)
        return torch.full_like(choice, 2), logp, entropy if len(calls) < 3 else entropy * torch.nan

    monkeypatch.setattr(sampler, "_choose", fails)
    with pytest.raises(FloatingPointError, match="not finite"):
        policy.generate([[1]], [0], Sampling(max_completion_tokens=60))
    assert len(calls) == sampler.AHEAD
