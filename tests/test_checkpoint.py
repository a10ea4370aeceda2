"""The file itself: its parts, its name, and what is said of a file that is none."""

import json
import zipfile

import gymnasium
import pytest
import torch
from tiny import SMALL, same_state, state, tiny_policy
from transformers import AutoModelForCausalLM

from espo_gym.algorithms import ALGORITHMS, ESPO, GRPO, PPO
from espo_gym.envs import Addition, MathVectorEnv

ADDITION = "espo_gym/Addition-v0"


def made(algorithm=GRPO, env=ADDITION, **kwargs):
    return algorithm(tiny_policy(), env, **(SMALL | kwargs))


def test_the_parts_are_plain_files(tmp_path):
    path = made(PPO, reference_kl=True).learn(8).save(tmp_path / "run")
    with zipfile.ZipFile(path) as zipped:
        names = set(zipped.namelist())
        zipped.extractall(tmp_path / "parts")
    assert {"state.json", "optimizer.safetensors", "policy/model.safetensors", "policy/value_head.safetensors"} <= names
    assert "reference/model.safetensors" in names
    assert not any(name.endswith((".pkl", ".pt", ".bin", ".pth")) for name in names)
    AutoModelForCausalLM.from_pretrained(tmp_path / "parts" / "policy")
    saved = json.loads((tmp_path / "parts" / "state.json").read_text())
    assert saved["algorithm"] == "ppo" and saved["hyperparameters"]["gamma"] == 1.0 and saved["format"] == 2


@pytest.mark.parametrize(("given", "written"), [("a", "a.zip"), ("a.zip", "a.zip"), ("a_1.5", "a_1.5.zip")])
def test_the_suffix_is_added_where_there_is_none(given, written, tmp_path):
    assert made().save(tmp_path / "deep" / given) == tmp_path / "deep" / written
    assert GRPO.load(tmp_path / "deep" / given, device="cpu").num_timesteps == 0


def test_a_missing_file_is_an_error_that_names_it(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no checkpoint at .*none\.zip"):
        GRPO.load(tmp_path / "none")


@pytest.mark.parametrize("content", [b"", b"not a zip", b"PK\x03\x04 half of one"])
def test_a_file_that_is_no_checkpoint_is_an_error_that_names_it(content, tmp_path):
    (tmp_path / "x.zip").write_bytes(content)
    with pytest.raises(ValueError, match=r"x\.zip is not a checkpoint of espo_gym"):
        GRPO.load(tmp_path / "x.zip")


def test_half_a_checkpoint_is_an_error(tmp_path):
    path = made().save(tmp_path / "x")
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(ValueError, match="is not a checkpoint of espo_gym"):
        GRPO.load(path)


def test_another_zip_is_an_error(tmp_path):
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as zipped:
        zipped.writestr("data", "1")
    with pytest.raises(ValueError, match="is not a checkpoint of espo_gym"):
        GRPO.load(tmp_path / "x.zip")


@pytest.mark.parametrize("missing", ["optimizer.safetensors", "policy/model.safetensors"])
def test_a_checkpoint_with_a_part_missing_is_an_error_that_names_it(missing, tmp_path):
    path = made().save(tmp_path / "x")
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(tmp_path / "y.zip", "w") as new:
        for name in old.namelist():
            if name != missing:
                new.writestr(name, old.read(name))
    with pytest.raises((OSError, ValueError), match="safetensors"):
        GRPO.load(tmp_path / "y.zip")


def test_a_newer_format_is_an_error(tmp_path):
    path = made().save(tmp_path / "x")
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(tmp_path / "y.zip", "w") as new:
        for name in old.namelist():
            data = old.read(name)
            new.writestr(name, data.replace(b'"format": 2', b'"format": 99') if name == "state.json" else data)
    with pytest.raises(ValueError, match="has format 99, this version reads 2"):
        GRPO.load(tmp_path / "y.zip")


def test_another_algorithms_checkpoint_is_an_error_that_names_it(tmp_path):
    path = made(ESPO).save(tmp_path / "x")
    with pytest.raises(ValueError, match=r"a checkpoint of ESPO; read it with ESPO\.load"):
        GRPO.load(path)


@pytest.mark.parametrize("name", ALGORITHMS)
def test_nothing_but_the_file_is_left_behind(name, tmp_path):
    algo = made(ALGORITHMS[name])
    for _ in range(3):
        algo.save(tmp_path / "x")
    assert [p.name for p in tmp_path.iterdir()] == ["x.zip"]


def test_the_environment_comes_back_with_its_arguments(tmp_path):
    for env in (gymnasium.make(ADDITION, digits=2), gymnasium.make_vec(ADDITION, num_envs=8, digits=2)):
        loaded = GRPO.load(GRPO(tiny_policy(), env, **(SMALL | {"rollout_size": 8})).save(tmp_path / "x"), device="cpu")
        assert loaded.get_env().num_envs == 8
        assert len(loaded.get_env().reset(seed=0)[0][0]) == len("12+34=")
        loaded.learn(8)


def test_an_environment_without_an_id_must_be_given_again(tmp_path):
    env = MathVectorEnv(Addition(digits=2), num_envs=8)
    path = made(env=env, rollout_size=8).save(tmp_path / "x")
    with pytest.raises(ValueError, match=r"no id: give load\(\.\.\., env=\.\.\.\)"):
        GRPO.load(path, device="cpu")
    assert GRPO.load(path, env, device="cpu").get_env() is env


def test_the_policys_dtype_comes_back(tmp_path):
    algo = GRPO(tiny_policy(dtype=torch.bfloat16), ADDITION, **SMALL).learn(8)
    loaded = GRPO.load(algo.save(tmp_path / "x"), device="cpu")
    assert loaded.policy.dtype == torch.bfloat16 and same_state(state(loaded.policy), state(algo.policy))
