"""A resumed run equals the uninterrupted one bit for bit, and a kill leaves a checkpoint to resume from."""

import json
import os
import signal
import subprocess
import sys
import time
import zipfile
from typing import cast

import pytest
import torch
from stable_baselines3.common.callbacks import BaseCallback, CheckpointCallback
from stable_baselines3.common.logger import KVWriter, Logger
from tiny import SMALL, not_none, rollout_fields, same_state, state, teaching_policy, tiny_policy

from espo_gym.algorithms import ESPO, GRPO, PolicyOptimizer
from espo_gym.policy import Policy, decoding
from espo_gym.policy.packed_step import PackedStep

ADDITION = "espo_gym/Addition-v0"
RUN = SMALL | {"max_completion_tokens": 40, "micro_batch_tokens": 60, "n_epochs": 2, "preset": "teaching"}


class Records(KVWriter):
    """Keeps what is logged, seconds left out."""

    def __init__(self):
        self.rows = []

    def write(self, key_values, key_excluded, step=0):
        # Diagnostics are warnings about one call of learn; what they remember begins anew with each call.
        left_out, counts = "time/", ("time/timesteps", "time/rollouts")
        kept = {k: v for k, v in key_values.items() if not k.startswith(left_out) or k in counts}
        self.rows.append((step, {k: repr(v) for k, v in kept.items()}))

    def close(self):
        pass


def recorded(algo):
    records = Records()
    algo.set_logger(Logger(None, [records]))
    return algo, records


def same_optimizer(a, b) -> bool:
    a, b = a.state_dict(), b.state_dict()
    assert a["state"].keys() == b["state"].keys()
    assert json.dumps(a["param_groups"]) == json.dumps(b["param_groups"])  # a tuple comes back as a list
    return all(torch.equal(a["state"][i][n], b["state"][i][n]) for i in a["state"] for n in a["state"][i])


@pytest.mark.parametrize("kl", [{}, {"kl_coef": 0.05}], ids=["", "kl"])
def test_four_rollouts_equal_two_saved_loaded_and_two_more(algorithm, kl, tmp_path):
    one, whole = recorded(algorithm(teaching_policy(), ADDITION, **RUN, **kl))
    one.learn(32)
    first, early = recorded(algorithm(teaching_policy(), ADDITION, **RUN, **kl))
    first.learn(16)
    first.save(tmp_path / "half")
    rest, late = recorded(algorithm.load(tmp_path / "half", device="cpu"))
    assert rest.num_timesteps == 16 and rest.n_rollouts == 2 and same_optimizer(rest.optimizer, first.optimizer)
    rest.learn(16)
    assert same_state(state(rest.policy), state(one.policy))
    assert not same_state(state(rest.policy), state(first.policy))
    assert same_optimizer(rest.optimizer, one.optimizer)
    assert early.rows + late.rows == whole.rows and len(whole.rows) == 4
    if kl:
        assert same_state(state(rest.reference), state(one.reference))
        assert "train/ref_kl_k3" in whole.rows[-1][1]


@pytest.mark.parametrize("agrees", [True, False])
def test_the_sampler_of_a_run_is_not_chosen_again(agrees, tmp_path, monkeypatch):
    """The check of the packed step is a comparison of floats: later weights of a run may come out on the other side."""
    monkeypatch.setattr(decoding, "_gap", lambda policy: (0.0, 1.0) if agrees else (1.0, 0.0))
    one = ESPO(Policy.from_pretrained("espo_gym/teaching", device="cpu"), ADDITION, **RUN)
    one.learn(8)
    one.save(tmp_path / "run")
    monkeypatch.setattr(decoding, "_gap", lambda policy: (1.0, 0.0) if agrees else (0.0, 1.0))
    rest = ESPO.load(tmp_path / "run", device="cpu")
    assert isinstance(rest.policy.make_step(), PackedStep) == isinstance(one.policy.make_step(), PackedStep) == agrees
    assert Policy.from_pretrained("espo_gym/teaching", device="cpu").decodes_packed != agrees


def test_a_checkpoint_cannot_choose_a_step_that_does_not_know_the_model():
    policy = tiny_policy("gpt2", fresh=True)
    policy.keep_shortcuts({"decodes_packed": True, "shares_prompts": False})
    assert not policy.decodes_packed and policy.checked_shortcuts["shares_prompts"] is False


def test_a_run_resumed_at_every_rollout_equals_the_uninterrupted_run(tmp_path):
    one = ESPO(teaching_policy(), ADDITION, **RUN)
    one.learn(32)
    ESPO(teaching_policy(), ADDITION, **RUN).save(tmp_path / "0")
    for i in range(4):
        ESPO.load(tmp_path / str(i), device="cpu").learn(8).save(tmp_path / str(i + 1))
    assert same_state(state(ESPO.load(tmp_path / "4", device="cpu").policy), state(one.policy))


class Watched(BaseCallback):
    """What each rollout of a run was, and what the weights were after it; saves a checkpoint of each if asked to."""

    def __init__(self, folder=None):
        super().__init__()
        self.folder, self.seen = folder, []

    def _on_step(self):
        algo = cast(PolicyOptimizer, self.model)
        rollout = not_none(algo.rollout)
        self.seen.append((rollout.texts, rollout_fields(rollout), state(algo.policy)))
        if self.folder is not None:
            algo.save(self.folder / str(algo.n_rollouts))
        return True


def check_that_every_checkpoint_goes_on_as_the_run_did(algorithm, n, folder, **settings):
    """A run of the bundled policy as a user starts one, with ``n`` rollouts; from each of them the next one anew."""
    start = Policy.from_pretrained("espo_gym/teaching", device="cpu")
    algo, records = recorded(algorithm(start, ADDITION, preset="teaching", **settings))
    algo.save(folder / "0")
    whole = Watched(folder)
    algo.learn(n * algo.rollout_size, callback=whole)
    assert isinstance(algo.policy.make_step(), PackedStep)
    for i in range(n):
        again, rows = recorded(algorithm.load(folder / str(i), device="cpu"))
        rest = Watched()
        again.learn(algo.rollout_size, callback=rest)
        (texts, tensors, weights), (expected_texts, expected, expected_weights) = rest.seen[0], whole.seen[i]
        assert texts == expected_texts, i
        assert [name for name in expected if not torch.equal(tensors[name], expected[name])] == [], i
        assert rows.rows == records.rows[i : i + 1], i
        assert same_state(weights, expected_weights), i


def test_every_checkpoint_of_a_run_of_the_bundled_policy_resumes_exactly(tmp_path):
    check_that_every_checkpoint_goes_on_as_the_run_did(
        ESPO, 3, tmp_path, rollout_size=32, max_completion_tokens=48, learning_rate=1e-3
    )


@pytest.mark.slow
def test_every_checkpoint_of_20_rollouts_resumes_exactly(algorithm, tmp_path):
    check_that_every_checkpoint_goes_on_as_the_run_did(algorithm, 20, tmp_path, rollout_size=64)


@pytest.mark.parametrize("later", [False, True], ids=["from the start", "on the way"])
def test_what_is_frozen_stays_frozen(later, tmp_path):
    def made() -> PolicyOptimizer:
        algo = ESPO(teaching_policy(), ADDITION, **RUN)
        if later:
            algo.learn(8)
        algo.policy.model.get_input_embeddings().requires_grad_(False)
        return algo.learn(8)

    whole, saved = made(), made()
    weight = whole.policy.model.get_parameter("model.embed_tokens.weight")
    before = weight.detach().clone()
    back = ESPO.load(saved.save(tmp_path / "c"))
    frozen = [name for name, p in back.policy.named_parameters() if not p.requires_grad]
    assert frozen and frozen == [name for name, p in whole.policy.named_parameters() if not p.requires_grad]
    whole.learn(8), back.learn(8)
    assert torch.equal(weight, before)
    assert same_state(state(whole.policy), state(back.policy)) and same_optimizer(whole.optimizer, back.optimizer)


def test_a_checkpoint_of_the_callback_resumes_exactly(tmp_path):
    one = GRPO(teaching_policy(), ADDITION, **RUN)
    one.learn(32, callback=CheckpointCallback(save_freq=2, save_path=str(tmp_path), name_prefix="run"))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["run_16_steps.zip", "run_32_steps.zip"]
    rest = GRPO.load(tmp_path / "run_16_steps.zip", device="cpu").learn(16)
    assert same_state(state(rest.policy), state(one.policy)) and same_optimizer(rest.optimizer, one.optimizer)


def test_the_same_seed_is_the_same_run_and_another_seed_is_not(algorithm):
    def run(seed):
        algo, records = recorded(algorithm(teaching_policy(), ADDITION, seed=seed, **RUN))
        algo.learn(16)
        return state(algo.policy), records.rows

    (a, rows_a), (b, rows_b), (c, rows_c) = run(1), run(1), run(2)
    assert same_state(a, b) and rows_a == rows_b
    assert not same_state(a, c) and rows_a != rows_c


def test_evaluating_predicting_and_saving_in_between_change_nothing(tmp_path):
    plain = ESPO(teaching_policy(), ADDITION, **RUN)
    plain.learn(24)
    busy = ESPO(teaching_policy(), ADDITION, **RUN)
    for _ in range(3):
        busy.learn(8)
        busy.evaluate(k=2, n_problems=8)
        busy.predict(["1+1=", "2+2="])
        busy.save(tmp_path / "now")
    assert same_state(state(plain.policy), state(busy.policy))


def test_predictions_go_on_where_they_stopped(tmp_path):
    one = ESPO(tiny_policy(), ADDITION, **SMALL)
    said = [one.predict("1+1=")[0] for _ in range(6)]
    again = ESPO(tiny_policy(), ADDITION, **SMALL)
    assert [again.predict("1+1=")[0] for _ in range(3)] == said[:3]
    again.save(tmp_path / "x")
    loaded = ESPO.load(tmp_path / "x", device="cpu")
    assert [loaded.predict("1+1=")[0] for _ in range(3)] == said[3:] and len(set(said)) > 1


def test_hyperparameters_come_back_and_can_be_overridden(tmp_path):
    algo = ESPO(tiny_policy(), ADDITION, **SMALL, quantiles=(0.5, 0.8), stop=("x",), alpha=0.07)
    algo.save(tmp_path / "x")
    same = ESPO.load(tmp_path / "x", device="cpu")
    assert {n: getattr(same, n) for n in ESPO.hyperparameters()} == {
        n: getattr(algo, n) for n in ESPO.hyperparameters()
    }
    other = ESPO.load(tmp_path / "x", device="cpu", alpha=0.5, n_epochs=3)
    assert (other.alpha, other.n_epochs, other.quantiles) == (0.5, 3, (0.5, 0.8))


# -- killed processes ------------------------------------------------------------------------------------------------

SAVING = """
import sys
sys.path.insert(0, {tests!r})
from test_resume import small_run
algo = small_run()
while True:
    algo.learn(8)
    algo.save({path!r})
    print(algo.num_timesteps, flush=True)
"""


def small_run() -> GRPO:
    changes = {"n_epochs": 1, "micro_batch_tokens": None, "learning_rate": 1e-3}
    return GRPO(teaching_policy(), ADDITION, **(RUN | changes))


@pytest.mark.slow  # tests/faults kills at chosen moments
def test_a_process_killed_while_saving_leaves_the_old_checkpoint_or_the_new_one(tmp_path):
    path = tmp_path / "run" / "last.zip"
    code = SAVING.format(tests=os.path.dirname(__file__), path=str(path))
    root = os.path.dirname(os.path.dirname(__file__))
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": root}
    uninterrupted = small_run()
    start = state(uninterrupted.policy)
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, env=environment)
    assert process.stdout is not None
    try:
        saved = int(process.stdout.readline())
        for i in range(6):  # let it run on a little differently each time; the instant itself is chance
            os.kill(process.pid, signal.SIGSTOP)  # frozen at any instant, the file under its name is whole
            assert saved <= timesteps_in(path)
            os.kill(process.pid, signal.SIGCONT)
            saved = int(process.stdout.readline())
            time.sleep(0.003 * i)
    finally:
        process.kill()
        process.wait()
    loaded = GRPO.load(path, device="cpu")
    assert loaded.num_timesteps >= saved
    while uninterrupted.num_timesteps < loaded.num_timesteps:
        uninterrupted.learn(8)
    assert same_state(state(loaded.policy), state(uninterrupted.policy))
    assert not same_state(state(loaded.policy), start)
    loaded.save(path)  # leftovers of the killed process do no harm
    assert GRPO.load(path, device="cpu").num_timesteps == loaded.num_timesteps


def timesteps_in(path) -> int:
    with zipfile.ZipFile(path) as zipped:
        assert zipped.testzip() is None
        return json.loads(zipped.read("state.json"))["counters"]["num_timesteps"]


@pytest.mark.parametrize("victim", ["safetensors", "json", "zip", "replace"])
def test_an_error_at_any_part_of_saving_leaves_the_old_checkpoint(victim, tmp_path, monkeypatch):
    from espo_gym import checkpoint

    algo = GRPO(tiny_policy(), ADDITION, **SMALL)
    algo.save(tmp_path / "x")
    before = (tmp_path / "x.zip").read_bytes()
    algo.learn(8)

    def fail(*args, **kwargs):
        raise OSError("no space left on device")

    target = {
        "safetensors": (checkpoint, "save_file"),
        "json": (json, "dumps"),
        "zip": (zipfile.ZipFile, "write"),
        "replace": (os, "replace"),
    }[victim]
    with monkeypatch.context() as patched:
        patched.setattr(*target, fail)
        with pytest.raises(OSError, match="no space"):
            algo.save(tmp_path / "x")
    assert (tmp_path / "x.zip").read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["x.zip"]  # and nothing else
