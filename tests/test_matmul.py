"""The quicker matrix products against float64, against PyTorch's own gradients, and in how few shapes they come."""

import numpy as np
import pytest
import torch
from test_scoring import KINDS, gradients, grouped_rollout, pair
from tiny import tiny_policy
from torch import nn

from espo_gym.policy import decoding, matmul
from espo_gym.policy.matmul import MAX_SUM, TILE_ROWS, fast_linear_layers, linear, product

pytestmark = pytest.mark.skipif(
    not hasattr(torch.ops.mkldnn, "_linear_pointwise") or not torch.backends.mkldnn.is_available(),
    reason="this build of PyTorch has no oneDNN",
)


@pytest.fixture
def shapes(monkeypatch):
    """oneDNN for everything, whatever the processor is; the shapes that it is asked for."""
    seen, onednn = [], matmul._onednn

    def recorded(x, weight, bias=None):
        seen.append((*x.shape, len(weight)))
        return onednn(x, weight, bias)

    monkeypatch.setattr(matmul, "prefers_onednn", lambda: True)
    monkeypatch.setattr(matmul, "MIN_FLOPS", 0)
    monkeypatch.setattr(matmul, "_onednn", recorded)
    return seen


def tensors(*shapes, seed=0):
    rng = np.random.default_rng(seed)
    return [torch.tensor(rng.normal(0, 1, shape), dtype=torch.float32) for shape in shapes]


ROWS = (1, 33, 64, 65, 130, 512, 513, 700, 1100)


@pytest.mark.parametrize("with_bias", [True, False])
@pytest.mark.parametrize("rows", ROWS)
def test_values_and_gradients_are_those_of_float64(shapes, rows, with_bias):
    for n, k in ((24, 40), (40, 24)):
        inputs = tensors((rows, k), (n, k), *[(n,)] * with_bias)
        (up,) = tensors((rows, n), seed=1)
        exact = [x.double().requires_grad_() for x in inputs]
        expected = nn.functional.linear(*exact)
        slopes = torch.autograd.grad((expected * up.double()).sum(), exact)
        ours = [x.requires_grad_() for x in inputs]
        got = linear(*ours)
        with torch.no_grad():
            assert torch.equal(linear(*ours), got)
        got_slopes = torch.autograd.grad((got * up).sum(), ours)
        for one, other in zip((got, *got_slopes), (expected, *slopes), strict=True):
            assert one.dtype == torch.float32 and one.shape == other.shape
            assert (one.double() - other).norm() < 1e-6 * other.norm()


@pytest.mark.parametrize("terms", [300, 512, 2048, 3001])
def test_long_sums_are_as_exact_as_those_of_mkl(shapes, terms):
    """Of 2,048 terms in one go, oneDNN's is off by more than twice as much."""
    x, weight, bias = tensors((48, terms), (64, terms), (64,))
    exact = nn.functional.linear(x.double(), weight.double(), bias.double())
    ours, theirs = product(x, weight, bias), nn.functional.linear(x, weight, bias)
    assert (ours - exact).norm() < 1.5 * (theirs - exact).norm()
    turned = product(x.t().contiguous().t(), weight.t().contiguous().t(), bias)  # as they come in a backward pass
    torch.testing.assert_close(turned, ours, rtol=0, atol=1e-6 * float(exact.norm()) / len(exact))
    assert {k for _, k, _ in shapes} <= set(range(MAX_SUM // 2, MAX_SUM + 1)) and len(set(shapes)) <= 2


def test_a_wide_model_has_a_gradient_as_exact_as_the_plain_one(shapes):
    sizes = {"hidden_size": 512, "intermediate_size": 2048, "initializer_range": 0.02}
    policy, plain = pair("qwen2", dtype=torch.float32, **sizes)
    rollout = grouped_rollout(policy)
    exact = gradients(pair("qwen2", dtype=torch.float64, **sizes)[1], rollout)[1]
    theirs, ours = gradients(plain, rollout)[1], gradients(policy, rollout)[1]
    assert shapes and (ours - exact).norm() < 1.25 * (theirs - exact).norm()
    assert (ours - theirs).norm() < 1e-6 * exact.norm()


def test_no_matrix_with_gaps_reaches_onednn(monkeypatch):
    """It would multiply such a one by a loop that takes a thousand times as long."""
    monkeypatch.setattr(matmul, "prefers_onednn", lambda: True)
    monkeypatch.setattr(matmul, "MIN_FLOPS", 0)
    seen = []

    def recorded(x, weight, *rest):
        seen.append(weight)
        return torch.nn.functional.linear(x, weight)

    monkeypatch.setattr(torch.ops.mkldnn, "_linear_pointwise", recorded)
    x, weight = tensors((64, 3 * 8), (12, 2 * 8))
    x, weight = x[:, 8:16].requires_grad_(), weight[:, :8].requires_grad_()  # slices of wider matrices
    out = linear(x, weight)
    torch.testing.assert_close(out, nn.functional.linear(x, weight))
    out.sum().backward()  # a gradient without strides
    assert len(seen) == 3 and all(w.is_contiguous() or w.t().is_contiguous() for w in seen)


def test_only_the_gradients_that_are_wanted_are_computed(shapes):
    x, weight = tensors((100, 8), (12, 8))
    linear(x, weight.requires_grad_()).sum().backward()
    assert len(shapes) == 2
    shapes.clear()
    linear(x.requires_grad_(), weight.detach()).sum().backward()
    assert len(shapes) == 2


def test_batches_of_any_size_come_in_few_shapes(shapes):
    """oneDNN keeps more than half a megabyte of each shape that it has met."""
    (weight,) = tensors((24, 40))
    weight.requires_grad_()
    for rows in range(1, 1500, 7):
        linear(torch.ones(rows, 40, requires_grad=True), weight).sum().backward()
    assert len(TILE_ROWS) < len(set(shapes)) <= 3 * len(TILE_ROWS)


def test_small_products_and_other_dtypes_are_left_to_pytorch(monkeypatch):
    monkeypatch.setattr(matmul, "prefers_onednn", lambda: True)
    monkeypatch.setattr(matmul, "_onednn", lambda *_: pytest.fail("not worth a call"))
    x, weight = tensors((63, 32), (32, 32))
    assert torch.equal(linear(x, weight), nn.functional.linear(x, weight))
    x, weight = (torch.ones(512, 512, dtype=torch.bfloat16) for _ in range(2))
    assert torch.equal(linear(x, weight), nn.functional.linear(x, weight))
    with torch.autocast("cpu"):
        assert linear(x.float(), weight.float()).dtype == torch.bfloat16


def test_where_mkl_is_as_fast_nothing_changes(monkeypatch):
    monkeypatch.setattr(matmul, "prefers_onednn", lambda: False)
    x, weight, bias = tensors((1000, 100), (200, 100), (200,))
    assert torch.equal(product(x, weight, bias), nn.functional.linear(x, weight, bias))
    assert torch.equal(linear(x, weight, bias), nn.functional.linear(x, weight, bias))
    layer = nn.Linear(100, 200)
    with fast_linear_layers([layer]):
        assert "forward" not in layer.__dict__


def test_linear_layers_are_quick_only_within(shapes):
    class Other(nn.Linear):
        """Somebody's own layer, which may do more than its name says."""

    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(8, 12), nn.Sequential(Other(12, 8), nn.Linear(8, 4)))
    (x,) = tensors((90, 8))
    expected = model(x)
    with pytest.raises(RuntimeError, match="inside"), fast_linear_layers([model]):
        with fast_linear_layers([model[1]]):  # as a checkpointed layer does
            torch.testing.assert_close(model(x), expected)
        assert "forward" in model.get_submodule("1.1").__dict__  # what has begun outside ends outside
        torch.testing.assert_close(model(x), expected)
        raise RuntimeError("inside")
    assert len(shapes) == 4
    assert not any("forward" in module.__dict__ for module in model.modules())


def test_the_packed_step_is_checked_with_the_products_that_will_run(shapes, monkeypatch):
    """Two libraries round differently; what is checked is whether two ways through the layer are the same."""
    policy, seen = tiny_policy("llama", fresh=True), []

    def gap(policy):
        seen.append("forward" in policy.model.model.layers[0].mlp.up_proj.__dict__)
        return 0.0, 1.0

    monkeypatch.setattr(decoding, "_gap", gap)
    assert policy.decodes_packed and seen == [True]


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_the_learner_takes_the_same_step(shapes, kind, checkpointing):
    exact = gradients(pair(kind, dtype=torch.float64)[1], grouped_rollout(pair(kind)[0]))[1]
    policy, plain = pair(kind, dtype=torch.float32)
    assert policy.shares_prompts
    rollout = grouped_rollout(policy)
    shapes.clear()
    theirs = (gradients(plain, rollout)[1] - exact).norm()
    assert not shapes  # the reference is PyTorch's own
    ours = (gradients(policy, rollout, checkpointing=checkpointing)[1] - exact).norm()
    assert shapes and 0 < ours < 2 * theirs < 1e-5 * exact.norm()
