"""The tiled head against the plain formula in float64, finite differences, and itself in other shapes."""

import numpy as np
import pytest
import torch
from tiny import not_none

from espo_gym.policy import lm_head as head
from espo_gym.policy.lm_head import head_scores, inverse_cdf, next_tokens


@pytest.fixture(params=[(40, 700), (256, 2048), (2048, 16_384)], ids=["small tiles", "tiles of a CPU", "of a GPU"])
def tiles(request, monkeypatch):
    rows, columns = request.param
    monkeypatch.setattr(head, "ROWS", rows)
    monkeypatch.setattr(head, "COLUMNS", columns)


def problem(m=37, h=12, v=53, *, seed=0, dtype=torch.float64, scale=1.0):
    rng = np.random.default_rng(seed)

    def tensor(*shape):
        return torch.tensor(rng.normal(0, scale, shape), dtype=dtype)

    return tensor(m, h), tensor(v, h), tensor(v), torch.tensor(rng.integers(0, v, m))


def plain(hidden, weight, bias, targets, temperature):
    """Formula and float64: log softmax, chosen entry, -sum p log p."""
    logits = hidden.double() @ weight.double().t() + (0 if bias is None else bias.double())
    logprobs = (logits / temperature).log_softmax(-1)
    return logprobs[torch.arange(len(targets)), targets], -(logprobs.exp() * logprobs).sum(-1)


@pytest.mark.parametrize("temperature", [1.0, 0.6])
@pytest.mark.parametrize("with_bias", [True, False])
def test_scores_and_gradients_equal_the_plain_formula(tiles, with_bias, temperature):
    hidden, weight, bias, targets = problem(m=301, v=5000)
    bias = bias if with_bias else None
    rng = np.random.default_rng(1)
    up, up_entropy = (torch.tensor(rng.normal(0, 1, 301)) for _ in range(2))
    up[::3] = up_entropy[::3] = 0  # tokens that a clip has cut
    inputs = [x.requires_grad_() for x in (hidden, weight, bias) if x is not None]
    expected = plain(hidden, weight, bias, targets, temperature)
    slopes = torch.autograd.grad((expected[0] * up + expected[1] * up_entropy).sum(), inputs)
    got = head_scores(hidden, weight, bias, targets, temperature=temperature, entropies=True)
    torch.testing.assert_close(got, expected, rtol=0, atol=1e-10)
    ours = torch.autograd.grad((got[0] * up + not_none(got[1]) * up_entropy).sum(), inputs)
    torch.testing.assert_close(ours, slopes, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("entropies", [True, False])
def test_gradients_equal_finite_differences(monkeypatch, entropies):
    monkeypatch.setattr(head, "ROWS", 4)
    monkeypatch.setattr(head, "COLUMNS", 5)
    hidden, weight, bias, targets = problem(m=6, h=3, v=13)

    def scores(hidden, weight, bias):
        logps, entropy = head_scores(hidden, weight, bias, targets, temperature=0.8, entropies=entropies)
        return (logps, entropy) if entropies else logps

    assert torch.autograd.gradcheck(scores, [x.requires_grad_() for x in (hidden, weight, bias)])


def test_float32_is_as_exact_as_float32_can_be():
    hidden, weight, bias, targets = problem(m=500, h=64, v=6000, dtype=torch.float32, scale=0.3)
    logps, entropy = head_scores(hidden, weight, bias, targets, entropies=True)
    expected = plain(hidden, weight, bias, targets, 1.0)
    assert (logps - expected[0]).abs().max() < 1e-5 and (entropy - expected[1]).abs().max() < 1e-5


def test_a_row_does_not_depend_on_how_many_others_there_are():
    hidden, weight, bias, targets = problem(m=700, h=32, v=3000, dtype=torch.float32)
    whole = head_scores(hidden, weight, bias, targets, entropies=True)
    for rows in (slice(0, 1), slice(100, 103), slice(3, 300), slice(250, 700)):
        part = head_scores(hidden[rows], weight, bias, targets[rows], entropies=True)
        assert torch.equal(part[0], whole[0][rows]) and torch.equal(not_none(part[1]), not_none(whole[1])[rows])


def test_no_tensor_as_large_as_the_logits_is_kept():
    hidden, weight, bias, targets = problem(m=600, h=8, v=9000, dtype=torch.float32)
    kept = []

    def keep(x: torch.Tensor) -> torch.Tensor:
        kept.append(x.numel())
        return x

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda x: x):
        head_scores(hidden.requires_grad_(), weight.requires_grad_(), bias, targets, entropies=True)
    assert max(kept) == weight.numel() < 600 * 9000 / 10


def test_forbidden_tokens_have_probability_zero(tiles):
    hidden, weight, bias, targets = problem(m=9, v=70)
    bias[20:60] = -torch.inf  # with small tiles, whole tiles of them
    targets = targets % 20
    logps, entropy = head_scores(hidden.requires_grad_(), weight.requires_grad_(), bias, targets, entropies=True)
    allowed = torch.cat([torch.arange(20), torch.arange(60, 70)])
    expected = plain(hidden, weight[allowed], bias[allowed], targets, 1.0)
    torch.testing.assert_close((logps, entropy), expected, rtol=0, atol=1e-10)
    slopes = torch.autograd.grad(expected[0].sum() + expected[1].sum(), (hidden, weight))
    ours = torch.autograd.grad(logps.sum() + not_none(entropy).sum(), (hidden, weight))
    torch.testing.assert_close(ours, slopes, rtol=1e-9, atol=1e-10)
    draws = torch.linspace(0, 1 - 1e-9, 9, dtype=torch.float64)
    tokens, _, entropies = next_tokens(hidden.detach(), weight.detach(), bias, draws, 1.0)
    assert set(tokens.tolist()) <= set(allowed.tolist())
    torch.testing.assert_close(entropies, expected[1].detach(), rtol=0, atol=1e-10)


def test_16_bits_are_summed_in_32():
    hidden, weight, bias, targets = problem(m=40, h=16, v=3000, dtype=torch.bfloat16)
    logps, entropy = head_scores(hidden, weight, bias, targets, entropies=True)
    assert logps.dtype == not_none(entropy).dtype == torch.float32
    logits = (hidden @ weight.t()).float() + bias.float()
    expected = logits.log_softmax(-1)[torch.arange(40), targets]
    torch.testing.assert_close(logps, expected, rtol=0, atol=1e-4)


# -- drawing -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("temperature", [1.0, 1.7])
def test_tokens_are_those_of_the_inverse_cumulative_distribution(tiles, temperature):
    hidden, weight, bias, _ = problem(m=400, v=5000, scale=0.5)
    draws = torch.tensor(np.random.default_rng(2).random(400))
    tokens, logps, entropies = next_tokens(hidden, weight, bias, draws, temperature)
    logprobs = ((hidden @ weight.t() + bias) / temperature).log_softmax(-1)
    cdf = logprobs.exp().cumsum(-1)
    rows = torch.arange(400)
    assert (draws < cdf[rows, tokens] + 1e-12).all()
    assert (draws >= cdf[rows, tokens] - logprobs.exp()[rows, tokens] - 1e-12).all()
    torch.testing.assert_close(logps, logprobs[rows, tokens], rtol=0, atol=1e-10)
    torch.testing.assert_close(entropies, -(logprobs.exp() * logprobs).sum(-1), rtol=0, atol=1e-10)


def test_greedy_takes_the_most_likely_token_of_all_tiles(tiles):
    hidden, weight, bias, _ = problem(m=50, v=5000)
    assert torch.equal(next_tokens(hidden, weight, bias, None, 1.0)[0], (hidden @ weight.t() + bias).argmax(-1))


def test_rows_are_taken_in_parts_where_their_logits_would_be_too_many(monkeypatch):
    hidden, weight, bias, _ = problem(m=50, v=300)
    draws = torch.tensor(np.random.default_rng(0).random(50))
    whole = next_tokens(hidden, weight, bias, draws, 1.0)
    monkeypatch.setattr(head, "LOGITS_BYTES", 4 * 300 * 7)
    for part, all_at_once in zip(next_tokens(hidden, weight, bias, draws, 1.0), whole, strict=True):
        torch.testing.assert_close(part, all_at_once)


def test_the_point_may_be_anywhere_in_the_distribution():
    mass = torch.tensor([[0.0, 2.0, 0.0, 1.0, 0.0]])
    for point, entry in ((0.0, 1), (1.999, 1), (2.0, 3), (2.999, 3), (3.0, 3), (5.0, 3)):
        assert inverse_cdf(mass, torch.tensor([point], dtype=torch.float64)).tolist() == [entry]
