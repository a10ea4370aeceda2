"""Policies from folders: every weight from the file, no code but by the user's word, files that others may read."""

import json
import os
import pickle
import re
import stat
import sys
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner
from safetensors.torch import load_file, save_file
from tiny import SMALL, same_state, state, teaching_policy, tiny_policy

from espo_gym.algorithms import GRPO
from espo_gym.cli.main import main
from espo_gym.experiments.compare import compare
from espo_gym.experiments.config import RunConfig
from espo_gym.policy import Policy

WEIGHTS = "model.safetensors"


def write(tensors: dict[str, torch.Tensor], folder: Path) -> None:
    save_file(tensors, folder / WEIGHTS, {"format": "pt"})


# -- folders whose weights are not those of the model ----------------------------------------------------------------


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("kind", ["llama", "gpt2", "qwen2"])
def test_no_weight_is_made_up(kind, tied, tmp_path):
    policy = tiny_policy(kind, tie_word_embeddings=tied)
    policy.save_pretrained(tmp_path)
    whole = load_file(tmp_path / WEIGHTS)
    assert whole.keys() == {name for name, _ in policy.model.named_parameters()}
    assert same_state(state(Policy.from_pretrained(tmp_path, device="cpu", strict=True)), state(policy))

    for name in list(whole)[::4]:
        write({key: value for key, value in whole.items() if key != name}, tmp_path)
        with pytest.raises(ValueError, match=f"lack .*{re.escape(name)} of .*not complete"):
            Policy.from_pretrained(tmp_path, device="cpu")
    write(whole | {name: torch.zeros(3, 3)}, tmp_path)
    with pytest.raises(ValueError, match=re.escape(name) + r" \(3, 3\) instead of"):
        Policy.from_pretrained(tmp_path, device="cpu")


def test_a_tied_head_that_lies_beside_its_embeddings_is_no_stranger(tmp_path):
    """As older versions of transformers wrote it."""
    policy = tiny_policy()
    policy.save_pretrained(tmp_path)
    whole = load_file(tmp_path / WEIGHTS)
    write(whole | {"lm_head.weight": whole["model.embed_tokens.weight"].clone()}, tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        again = Policy.from_pretrained(tmp_path, device="cpu", strict=True)
    assert same_state(state(again), state(policy))


def test_weights_that_the_model_does_not_have_are_left_out_with_one_warning(tmp_path, capfd):
    policy = tiny_policy()
    policy.save_pretrained(tmp_path)
    write(load_file(tmp_path / WEIGHTS) | {"vision.weight": torch.zeros(2)}, tmp_path)
    with pytest.warns(
        UserWarning, match=r"hold vision\.weight, which LlamaForCausalLM does not have: they were left out"
    ):
        again = Policy.from_pretrained(tmp_path, device="cpu")
    assert same_state(state(again), state(policy)) and "LOAD REPORT" not in capfd.readouterr().err
    with pytest.raises(ValueError, match=r"vision\.weight"):
        Policy.from_pretrained(tmp_path, device="cpu", strict=True)


@pytest.mark.parametrize("part", ["config.json", WEIGHTS, "tokenizer.json"])
@pytest.mark.parametrize("content", [b"", b"[]", b'{"model_type": "llama"', b"\xff" * 16])
def test_a_damaged_folder_is_an_error_of_one_line_that_names_it(part, content, tmp_path):
    tiny_policy().save_pretrained(tmp_path)
    (tmp_path / part).write_bytes(content)
    with pytest.raises(ValueError, match=re.escape(str(tmp_path))) as caught:
        Policy.from_pretrained(tmp_path, device="cpu")
    assert "\n" not in str(caught.value)


def test_a_pickle_of_weights_runs_nothing(tmp_path):
    class Evil:
        def __reduce__(self) -> tuple[Any, ...]:
            return os.mkdir, (str(tmp_path / "ran"),)

    tiny_policy().save_pretrained(tmp_path)
    (tmp_path / WEIGHTS).unlink()
    (tmp_path / "pytorch_model.bin").write_bytes(pickle.dumps(Evil()))
    with pytest.raises(ValueError, match=re.escape(str(tmp_path))):
        Policy.from_pretrained(tmp_path, device="cpu")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("umask", [0o022, 0o077, 0o002])
def test_all_files_of_a_policy_may_be_read_by_those_whom_the_umask_lets(umask, tmp_path):
    policy = tiny_policy()
    policy.add_value_head(separate=True)
    before = os.umask(umask)
    try:
        policy.save_pretrained(tmp_path / "policy")
    finally:
        os.umask(before)
    files = [path for path in (tmp_path / "policy").rglob("*") if path.is_file()]
    assert {"value_head.safetensors", WEIGHTS} <= {path.name for path in files}
    assert {stat.S_IMODE(path.stat().st_mode) for path in files} == {0o666 & ~umask}


# -- code that a model brings ----------------------------------------------------------------------------------------

CODE = """
from pathlib import Path
from transformers import LlamaConfig, LlamaForCausalLM

Path({ran!r}).touch()

class OwnConfig(LlamaConfig):
    model_type = "own"

class Own(LlamaForCausalLM):
    config_class = OwnConfig
"""
SMALLEST = ["--rollout-size", "8", "--preset", "teaching", "--max-completion-tokens", "4"]
SMALLEST += ["--eval-problems", "2", "--eval-k", "0", "--timesteps"]


@pytest.fixture
def brings_code(tmp_path, monkeypatch) -> Path:
    """The folder of a policy with code beside its weights, and standard input that says yes to everything."""
    monkeypatch.setenv("HF_MODULES_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("it asks"))
    folder = tmp_path / "model"
    teaching_policy().save_pretrained(folder)
    (folder / "own.py").write_text(CODE.format(ran=str(tmp_path / "ran")))
    config = json.loads((folder / "config.json").read_text())
    config |= {"auto_map": {"AutoConfig": "own.OwnConfig", "AutoModelForCausalLM": "own.Own"}, "model_type": "own"}
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def ran(folder: Path) -> bool:
    """Whether the code in ``folder`` ran since the last time this was asked; the next time it is not yet imported."""
    for name in [name for name in sys.modules if name.startswith("transformers_modules.")]:
        del sys.modules[name]
    mark = folder.parent / "ran"
    there = mark.exists()
    mark.unlink(missing_ok=True)
    return there


@pytest.mark.usefixtures("no_picture")
def test_code_runs_by_the_flag_alone_in_every_command_that_loads_a_policy(brings_code, tmp_path):
    run, flag = tmp_path / "run", "--trust-remote-code"
    commands: list[list[Any]] = [
        ["train", "--policy", brings_code, *SMALLEST, 8, "--out", run, "--no-progress"],
        ["train", "--resume", "--timesteps", 16, "--out", run, "--no-progress"],
        ["eval", run, "--problems", 2, "--k", 0],
        ["eval", brings_code, "--env", "espo_gym/Addition-v0", "--problems", 2, "--k", 0],
        ["inspect", run, "--completions", 8, "--out", tmp_path / "inspect.html"],
        ["train", "--config", run / "config.json", "--out", tmp_path / "again", "--no-progress"],
        ["compare", "--algos", "grpo", "--seeds", 1, "--policy", brings_code, *SMALLEST, 8, "--jobs", 1],
    ]
    commands[-1] += ["--out", tmp_path / "compared"]
    for command in commands:
        words = [str(word) for word in command]
        refused = CliRunner().invoke(main, words, input="y\ny\ny\n")
        assert refused.exit_code == 1 and not ran(brings_code), words
        assert "brings code of its own: if you trust it, add --trust-remote-code" in refused.output
        allowed = CliRunner().invoke(main, [*words, flag])
        assert allowed.exit_code == 0 and ran(brings_code), allowed.output
    assert flag[2:].replace("-", "_") not in (run / "config.json").read_text()


def test_no_file_turns_the_flag_on(brings_code, tmp_path):
    config = tmp_path / "config.json"
    config.write_text(json.dumps({"policy": str(brings_code), "trust_remote_code": True}))
    with pytest.raises(ValueError, match="no such field: trust_remote_code"):
        RunConfig.read(config)
    with pytest.raises(ValueError, match="brings code of its own"):
        compare(["grpo"], policy=brings_code, seeds=1, timesteps=8, jobs=1, out=tmp_path / "out", log=lambda _: None)
    assert not ran(brings_code)


def test_memory_that_runs_out_is_one_message(monkeypatch):
    def fail(*args: Any, **kwargs: Any) -> None:
        raise MemoryError

    monkeypatch.setattr(Policy, "from_pretrained", fail)
    result = CliRunner().invoke(main, ["eval", "espo_gym/teaching", "--env", "espo_gym/Addition-v0"])
    assert result.exit_code == 1 and result.output.startswith("Error: out of memory")


def test_a_checkpoint_of_weights_of_any_umask_is_loaded(tmp_path):
    before = os.umask(0o077)
    try:
        path = GRPO(tiny_policy(), "espo_gym/Addition-v0", **SMALL).save(tmp_path / "x")
    finally:
        os.umask(before)
    assert GRPO.load(path, device="cpu").num_timesteps == 0
