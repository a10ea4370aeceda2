"""The sampler of vLLM's engine: with a stand-in for vLLM everywhere, and with vLLM itself where it and a GPU are."""

import copy
import gc
import inspect
import json
import os
import pickle
import random
import sys
from pathlib import Path

import gymnasium
import numpy as np
import pytest
import torch
import vllm_stand_in
from click.testing import CliRunner
from tiny import SMALL, global_random_state, same_state, state, tiny_policy

from espo_gym.algorithms import ALGORITHMS, ESPO, GRPO
from espo_gym.cli.main import main
from espo_gym.collect import collect
from espo_gym.environment import as_vector_env
from espo_gym.envs import UnicodeText
from espo_gym.experiments.config import RunConfig
from espo_gym.policy import Policy
from espo_gym.sampling import Sampling

ADDITION = "espo_gym/Addition-v0"
ENV = "VLLM_ENABLE_V1_MULTIPROCESSING"
PROMPTS = [[5, 3, 4], [5, 3, 4], [2], [7, 7, 2, 3, 1]]


def install(monkeypatch, modules):
    for name, module in modules.items():
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.setenv(ENV, "0")  # so that monkeypatch puts back what was there before
    monkeypatch.delenv(ENV)


@pytest.fixture(autouse=True)
def engine(request, monkeypatch):
    """The stand-in in the place of vLLM."""
    if "real" not in request.keywords:
        install(monkeypatch, vllm_stand_in.modules())


def vllm_policy(kind: str = "llama", **kwargs) -> Policy:
    policy = tiny_policy(kind, **kwargs)
    policy.sampler = "vllm"
    return policy


class Even(gymnasium.Env):
    """The reward is 1 for an even number of characters, so that even random weights have something to learn."""

    observation_space, action_space = UnicodeText(100), UnicodeText(1000)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return f"{self.np_random.integers(10, 99)}=", {}

    def step(self, action):
        return "", float(len(action) % 2 == 0), True, False, {}


def small(algorithm, **changes):
    return algorithm(vllm_policy(), Even(), **(SMALL | changes))


def logged(algo) -> dict[str, float]:
    return dict(algo.logger.name_to_value)


# -- completions -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("kind", "temperature"), [("llama", 1.0), ("gpt2", 0.7), ("qwen2", 1.6)])
def test_captured_log_probs_equal_the_policys_own(kind, temperature):
    policy = vllm_policy(kind)
    rollout = collect(
        as_vector_env(ADDITION, 12), policy, range(12), range(12), Sampling(temperature, max_completion_tokens=9)
    )
    with torch.no_grad():
        scores = policy.logps(rollout, temperature=temperature)
    assert (scores.logps - rollout.old_logps).abs().max() < 2e-5
    assert rollout.entropies[rollout.mask].isnan().all() and not rollout.entropies[~rollout.mask].any()


def test_completions_are_well_formed():
    policy = vllm_policy()
    said = policy.generate(PROMPTS, [1, 2, 3, 4], Sampling(max_completion_tokens=30))
    assert said.tokens.shape == said.mask.shape == said.logps.shape == said.entropies.shape
    assert said.tokens.dtype == torch.long and said.mask.dtype == torch.bool and said.logps.dtype == torch.float32
    for ids, mask, logps, text, cut in zip(
        said.tokens, said.mask, said.logps, said.texts, said.truncated.tolist(), strict=True
    ):
        n = int(mask.sum())
        assert mask[:n].all() and (logps[:n] < 0).all() and not logps[n:].any()
        assert (ids[n:] == policy.pad_token_id).all()
        assert policy.decode([ids[:n].tolist()]) == [text]
        ends = torch.isin(ids[:n], policy.eos_token_ids)
        assert not ends[:-1].any() and bool(ends[-1]) != cut


def test_greedy_completions_are_those_of_the_own_sampler():
    policy, own = vllm_policy(), tiny_policy()
    theirs, ours = (p.generate(PROMPTS, [0] * 4, Sampling(0.0, max_completion_tokens=12)) for p in (policy, own))
    assert theirs.texts == ours.texts and torch.equal(theirs.tokens, ours.tokens)
    assert torch.equal(theirs.mask, ours.mask) and torch.equal(theirs.truncated, ours.truncated)
    torch.testing.assert_close(theirs.logps, ours.logps, atol=2e-5, rtol=0)  # at temperature 1


def test_log_probs_are_those_among_the_tokens_that_are_left():
    policy = vllm_policy()
    only = policy.generate(PROMPTS, [1, 2, 3, 4], Sampling(top_k=1, max_completion_tokens=8))
    assert not only.logps.any()
    greedy = policy.generate(PROMPTS, [1, 2, 3, 4], Sampling(0.0, max_completion_tokens=8))
    assert torch.equal(only.tokens, greedy.tokens)
    three = policy.generate(PROMPTS, [1, 2, 3, 4], Sampling(0.8, top_k=3, max_completion_tokens=8))
    for prompt, ids, mask, logps in zip(PROMPTS, three.tokens, three.mask, three.logps, strict=True):
        for t in range(int(mask.sum())):
            with torch.no_grad():
                logits = policy.model(torch.tensor([prompt + ids[:t].tolist()])).logits[0, -1] / 0.8
            best = logits.topk(3)
            (place,) = (best.indices == ids[t]).nonzero()
            torch.testing.assert_close(logps[t], best.values.log_softmax(-1)[place[0]], atol=2e-5, rtol=0)


def test_equal_seeds_equal_completions():
    policy = vllm_policy()
    prompts = [[5, 3, 4]] * 6
    seeds = [2**64 - 1, 2**64 - 1, 2**63 + 5, 7, 7, 123456789012345678]
    said = policy.generate(prompts, seeds, Sampling(max_completion_tokens=20))
    assert said.texts[0] == said.texts[1] and said.texts[3] == said.texts[4]
    assert len(set(said.texts)) == 4
    alone = policy.generate(prompts[:1], seeds[-1:], Sampling(max_completion_tokens=20))
    assert alone.texts == said.texts[-1:]


def test_limits_and_context():
    policy = vllm_policy(context=16)
    said = policy.generate([[3] * 12, [3] * 4], [1, 2], Sampling(max_completion_tokens=5, stop=("never this",)))
    for row, most in ((0, 4), (1, 5)):
        assert said.truncated[row] == (not torch.isin(said.tokens[row][said.mask[row]], policy.eos_token_ids).any())
        assert said.mask[row].sum() <= most
    own = tiny_policy(context=16).generate([[3] * 12, [3] * 4], [1, 2], Sampling(0.0, max_completion_tokens=5))
    greedy = policy.generate([[3] * 12, [3] * 4], [1, 2], Sampling(0.0, max_completion_tokens=5))
    assert torch.equal(own.tokens, greedy.tokens) and torch.equal(own.truncated, greedy.truncated)


def test_every_end_token_ends_a_completion():
    policy = vllm_policy()
    first = policy.generate(PROMPTS[:1], [0], Sampling(0.0, max_completion_tokens=9))
    end = int(first.tokens[0, 2])
    policy.model.generation_config.eos_token_id = [policy.tokenizer.eos_token_id, end]
    said = policy.generate(PROMPTS[:1], [0], Sampling(0.0, max_completion_tokens=9))  # the engine runs already
    where = first.tokens[0].tolist().index(end)
    assert said.tokens[0].tolist() == first.tokens[0, : where + 1].tolist() and not said.truncated[0]


def test_a_stop_string_ends_a_completion_and_stays():
    policy = vllm_policy()
    plain = policy.generate(PROMPTS[:1], [3], Sampling(max_completion_tokens=20))
    stop = plain.texts[0][3:5]
    assert len(stop) == 2
    said = policy.generate(PROMPTS[:1], [3], Sampling(max_completion_tokens=20, stop=("never this", stop)))
    text = plain.texts[0]
    assert said.texts[0] == text[: text.index(stop) + 2] and not said.truncated[0]
    n = int(said.mask.sum())
    assert torch.equal(said.tokens[0], plain.tokens[0, :n]) and torch.equal(said.logps[0], plain.logps[0, :n])
    last = policy.generate(PROMPTS[:1], [3], Sampling(max_completion_tokens=n, stop=(stop,)))
    assert not last.truncated[0]  # stopped by the very token that the limit allows


def test_the_engine_follows_the_policy():
    """Weights and prefix cache: the first token's log-prob is the one that a stale cache would keep."""
    policy, sampling = vllm_policy(), Sampling(max_completion_tokens=5)
    made = vllm_stand_in.LLM.made
    before = policy.generate(PROMPTS, [1, 2, 3, 4], sampling)
    with torch.no_grad():
        for p in policy.parameters():
            p.add_(0.05 * torch.randn(p.shape, generator=torch.Generator().manual_seed(1)))
    after = policy.generate(PROMPTS, [1, 2, 3, 4], sampling)
    fresh = Policy(policy.model, policy.tokenizer, sampler="vllm").generate(PROMPTS, [1, 2, 3, 4], sampling)
    assert torch.equal(after.tokens, fresh.tokens) and torch.equal(after.logps, fresh.logps)
    assert (after.logps[:, 0] != before.logps[:, 0]).all()
    assert vllm_stand_in.LLM.made == made + 2  # one engine a policy


def test_the_engine_computes_in_the_dtype_of_the_computation():
    policy = vllm_policy()
    policy.autocast = torch.bfloat16
    policy.generate(PROMPTS, [1, 2, 3, 4], Sampling(max_completion_tokens=2))
    assert policy.vllm._llm.dtype == "bfloat16" and policy.dtype == torch.float32
    assert policy.vllm._llm.worker.model.dtype == torch.bfloat16


# -- learning --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["espo", "grpo", "ppo"])
@pytest.mark.parametrize("correction", [None, "token"])
def test_old_log_probs_and_entropies_are_recomputed(name, correction):
    algo = small(ALGORITHMS[name], sampler_correction=correction)
    rollout = algo.collect_rollout()
    scores = algo.policy.logps(rollout, entropies=True)
    torch.testing.assert_close(rollout.entropies, scores.entropies)
    torch.testing.assert_close(rollout.old_logps, scores.logps)
    assert rollout.sampler_logps is not None
    torch.testing.assert_close(rollout.sampler_logps, rollout.old_logps, atol=2e-5, rtol=0)
    before = state(algo.policy)
    algo.learn(16, log_interval=1_000)
    metrics = logged(algo)
    assert 0 <= metrics["train/logp_gap_token"] < 2e-5 and metrics["rollout/entropy"] > 0
    assert metrics["time/score"] > 0 and not same_state(before, state(algo.policy))


def test_the_rollouts_follow_the_optimizer():
    algo = small(GRPO)
    for _ in range(3):  # the gap is that between engine and weights as they are now; stale ones would open it
        before = state(algo.policy)
        algo.learn(8, log_interval=1_000)
        assert logged(algo)["train/logp_gap_token"] < 2e-5 and not same_state(before, state(algo.policy))


def test_the_entropy_is_that_of_the_kept_completions_with_dynamic_sampling():
    algo = small(ALGORITHMS["dapo"], dynamic_sampling=True, max_resamples=1)
    rollout = algo.collect_rollout()
    metrics = logged(algo)
    assert metrics["rollout/entropy"] == pytest.approx(float(rollout.entropies[rollout.mask].mean()))


def test_sampled_old_log_probs_are_refused():
    with pytest.raises(ValueError, match=r"old_logps='sampled' cannot be used with sampler='vllm'.*'auto'"):
        small(ESPO, old_logps="sampled")


def test_a_resumed_run_samples_the_same_way(tmp_path):
    algo = small(GRPO)
    algo.learn(8)
    algo.save(tmp_path / "run")
    same = GRPO.load(tmp_path / "run", Even(), device="cpu")
    assert same.policy.sampler == "vllm"
    assert same_state(state(algo.learn(8).policy), state(same.learn(8).policy))


def test_the_command_line(tmp_path):
    args = ["train", "--timesteps", "8", "--eval-problems", "4", "--eval-k", "1", "--no-progress", "--sampler", "vllm"]
    args += ["--rollout-size", "8", "--n-minibatches", "2", "--max-completion-tokens", "12"]
    made = vllm_stand_in.LLM.made
    result = CliRunner().invoke(main, [*args, "--out", str(tmp_path / "run")])
    assert result.exit_code == 0, result.output
    assert vllm_stand_in.LLM.made == made + 1
    assert json.loads((tmp_path / "run" / "config.json").read_text())["sampler"] == "vllm"
    for option, more in ((["--sampler", "auto"], 0), ([], 1)):  # else the checkpoint's own
        made = vllm_stand_in.LLM.made
        options = [str(tmp_path / "run"), "--problems", "2", "--k", "0", *option]
        assert CliRunner().invoke(main, ["eval", *options]).exit_code == 0
        assert vllm_stand_in.LLM.made == made + more
    with pytest.raises(ValueError, match="sampler must be one of auto, packed, hf, vllm, not 'fast'"):
        RunConfig(sampler="fast").validate()


# -- what goes wrong -------------------------------------------------------------------------------------------------


def generate(policy=None, **sampling):
    return (policy or vllm_policy()).generate(PROMPTS, [1, 2, 3, 4], Sampling(max_completion_tokens=2, **sampling))


def test_a_missing_vllm_says_how_to_install_it(monkeypatch):
    install(monkeypatch, {"vllm": None})
    with pytest.raises(ImportError, match=r"pip install 'espo-gym\[vllm\]'"):
        generate()


@pytest.mark.parametrize(("computes_on", "message"), [("cuda", "computes on cuda"), ("", "has found no GPU")])
def test_a_policy_on_a_cpu_is_told_that_a_gpu_is_needed(monkeypatch, computes_on, message):
    install(monkeypatch, vllm_stand_in.modules(computes_on))
    with pytest.raises(RuntimeError, match=f"the policy is on cpu, and this vLLM {message}"):
        generate()


def test_an_engine_in_another_process_is_refused(monkeypatch):
    monkeypatch.setenv(ENV, "1")
    with pytest.raises(RuntimeError, match=f"{ENV} is '1'"):
        generate()
    assert os.environ[ENV] == "1"


def test_a_temperature_that_vllm_would_change_is_refused():
    with pytest.raises(ValueError, match=r"at least 0\.01, not at 0\.001"):
        generate(temperature=0.001)


def test_a_completion_that_was_given_up_is_an_error(monkeypatch):
    honest = vllm_stand_in.LLM._complete

    def abort(self, *args):
        said = honest(self, *args)
        said.finish_reason = "abort"
        return said

    monkeypatch.setattr(vllm_stand_in.LLM, "_complete", abort)
    with pytest.raises(RuntimeError, match=r"aborted a completion \(finish_reason='abort'\)"):
        generate()


def test_options_reach_the_engine_and_a_wrong_one_leaves_no_folder(monkeypatch, tmp_path):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    policy = vllm_policy()
    policy.vllm.options["speed"] = 11
    with pytest.raises(TypeError, match="speed"):
        generate(policy)
    assert list(tmp_path.iterdir()) == []
    policy.vllm.options = {"gpu_memory_utilization": 0.5, "enforce_eager": True}
    generate(policy)
    assert policy.vllm._llm.gpu_memory_utilization == 0.5 and policy.vllm._llm.enforce_eager


# -- the life of an engine -------------------------------------------------------------------------------------------


def test_copies_have_no_engine_but_its_options():
    policy = vllm_policy()
    policy.vllm.options["gpu_memory_utilization"] = 0.6
    said = generate(policy)
    for other in (copy.deepcopy(policy), pickle.loads(pickle.dumps(policy))):
        assert other.vllm._llm is None and other.vllm.options == policy.vllm.options
        assert generate(other).texts == said.texts
        assert other.vllm._llm is not policy.vllm._llm
    assert policy.frozen_copy().sampler == "auto"


def test_the_folder_goes_with_the_engine(monkeypatch, tmp_path):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    policy = vllm_policy()
    said = generate(policy)
    (folder,) = tmp_path.iterdir()
    assert Path(policy.vllm._llm.model) == folder and folder.stat().st_mode & 0o077 == 0
    policy.vllm.close()
    assert list(tmp_path.iterdir()) == []
    policy.vllm.close()  # nothing more to do
    assert generate(policy).texts == said.texts
    assert len(list(tmp_path.iterdir())) == 1
    del policy
    gc.collect()
    assert list(tmp_path.iterdir()) == []


def test_global_random_state_is_left_alone():
    policy = vllm_policy()
    for draw in (random.random, np.random.random, lambda: torch.rand(())):
        draw()  # away from where an engine before has put them
    untouched = global_random_state()
    generate(policy)
    assert untouched()


def test_nothing_else_imports_vllm():
    sources = [p for top in ("espo_gym", "algorithms") for p in Path(__file__).parents[1].joinpath(top).rglob("*.py")]
    found = {p.name for p in sources if "import vllm" in (text := p.read_text()) or "from vllm" in text}
    assert found == {"vllm.py"}


# -- vLLM itself -----------------------------------------------------------------------------------------------------


@pytest.mark.real
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_vllm_itself(monkeypatch):
    """Everything above that matters, with the true engine: one, since starting it takes most of a minute."""
    vllm = pytest.importorskip("vllm")
    install(monkeypatch, {})
    for ours, theirs in ((vllm_stand_in.SamplingParams, vllm.SamplingParams), (vllm_stand_in.LLM, vllm.LLM)):
        takes = inspect.signature(theirs).parameters
        open_ended = any(p.kind is p.VAR_KEYWORD for p in takes.values())
        assert open_ended or inspect.signature(ours).parameters.keys() <= takes.keys()
    policy = Policy.from_pretrained("espo_gym/teaching", sampler="vllm")
    policy.vllm.options |= {"gpu_memory_utilization": 0.2, "enforce_eager": True}
    algo = GRPO(policy, ADDITION, rollout_size=32, n_minibatches=2, max_completion_tokens=48, learning_rate=1e-3)
    for _ in range(3):
        algo.learn(32, log_interval=1_000)
        metrics = logged(algo)
        assert metrics["train/logp_gap_token"] < 1e-2 and metrics["rollout/entropy"] > 0
    prompts = [policy.encode_prompt(text) for text in ("12+34=", "358+467=", "9+9=")]
    own = copy.deepcopy(policy)
    own.sampler = "auto"
    greedy = Sampling(0.0, max_completion_tokens=32)
    served, sampled = (p.generate(prompts, [0] * 3, greedy) for p in (policy, own))
    assert served.texts == sampled.texts
    torch.testing.assert_close(served.logps, sampled.logps, atol=1e-2, rtol=0)
    stopped = policy.generate(prompts, [1, 2, 2**64 - 1], Sampling(max_completion_tokens=32, stop=("=",)))
    again = policy.generate(prompts, [1, 2, 2**64 - 1], Sampling(max_completion_tokens=32, stop=("=",)))
    assert stopped.texts == again.texts
    assert all("=" not in text[:-1] for text in stopped.texts)
