"""Names that are mistaken: what an option or a policy is called elsewhere, and what is meant here."""

import socket
from pathlib import Path
from typing import Any, cast

import click
import gymnasium as gym
import pytest
from click.testing import CliRunner
from tiny import tiny_policy

from espo_gym import ESPO, Policy
from espo_gym.algorithms import ALGORITHMS, GRPO
from espo_gym.choices import ALIASES, meant
from espo_gym.cli.hyperparameters import built_in
from espo_gym.cli.main import main
from espo_gym.policy import BUNDLED
from espo_gym.policy.names import check_policy_name, hub_options

ENV = "espo_gym/Addition-v0"


def options(command: str) -> set[str]:
    context = click.Context(main.commands[command], info_name=command)
    flags = [flag for p in main.commands[command].get_params(context) for flag in p.opts]
    return {flag.lstrip("-").replace("-", "_") for flag in flags}


class TestOptions:
    def test_every_alias_is_another_name_of_something_that_exists(self):
        known = {name for names in built_in().values() for name in names} | options("train")
        assert known.issuperset(name for names in ALIASES.values() for name in names)
        assert not known & ALIASES.keys()

    @pytest.mark.parametrize(
        ("typed", "named"),
        [
            (["--lr", "1e-4"], "--learning-rate"),
            (["--lr=1e-4"], "--learning-rate"),
            (["--batch-size", "8"], "--rollout-size"),
            (["--num_generations", "8"], "--group-size"),
            (["--beta", "0"], "--kl-coef"),
            (["--epsilon", "0.2"], "--clip-low and --clip-high"),
            (["--gae-lambda", "1"], "--lam"),
            (["--ent-coef", "0"], "--entropy-coef"),
            (["--n-steps", "8"], "--rollout-size"),
            (["--total-timesteps", "8"], "--timesteps"),
            (["--model", "x"], "--policy"),
            (["--env-args", "digits=2"], "--env-arg"),
        ],
    )
    def test_the_command_line_names_its_own(self, typed, named):
        result = CliRunner().invoke(main, ["train", *typed])
        assert result.exit_code == 2
        flag = typed[0].partition("=")[0]
        assert result.output.endswith(f"Error: No such option '{flag}'. Here it is {named}.\n")

    def test_every_command_does_and_a_slip_of_the_pen_is_left_to_click(self):
        assert "Here it is --group-size." in CliRunner().invoke(main, ["compare", "--num-generations", "4"]).output
        assert "Here it is --env." in CliRunner().invoke(main, ["eval", "x", "--environment", "y"]).output
        output = CliRunner().invoke(main, ["train", "--learning-rte", "1"]).output
        assert "No such option '--learning-rte'." in output and "--learning-rate" in output

    @pytest.mark.parametrize(
        ("keyword", "named"),
        [
            ("lr", "Did you mean 'learning_rate'?"),
            ("learning_rte", "Did you mean 'learning_rate'?"),
            ("clip_range", "Did you mean 'clip_low' and 'clip_high'?"),
            ("num_generations", "Did you mean 'group_size'?"),
            ("zzzz", "It has activation_checkpointing, "),
        ],
    )
    def test_python_does(self, keyword, named):
        with pytest.raises(TypeError) as raised:
            ESPO("espo_gym/teaching", ENV, **cast(dict[str, Any], {keyword: 1}))
        assert str(raised.value).startswith(f"ESPO() got an unexpected keyword argument '{keyword}'. {named}")
        with pytest.raises(TypeError) as raised:
            ESPO.formula(**{keyword: 1})
        assert str(raised.value).startswith(f"ESPO has no hyperparameter '{keyword}'. {named}")

    def test_the_name_is_one_that_the_algorithm_has(self):
        with pytest.raises(TypeError, match=r"'gae_lambda'\. Did you mean 'lam'"):
            ALGORITHMS["ppo"].formula(gae_lambda=1)
        assert meant("gae_lambda", GRPO.hyperparameters()) != ["lam"]

    def test_a_subclass_may_take_keywords_of_its_own(self):
        class Mine(GRPO):
            def __init__(self, policy, env, *, lr=1e-3, **others):
                super().__init__(policy, env, learning_rate=lr, **others)

        Mine(tiny_policy(), ENV, lr=0.5)
        with pytest.raises(TypeError, match="gruop_size"):
            Mine(tiny_policy(), ENV, gruop_size=2)


class TestPolicies:
    @pytest.fixture(autouse=True)
    def _no_network(self, monkeypatch):
        """Whatever asks for an address fails the test."""

        def asked(*_: object) -> None:
            raise AssertionError("a name was looked up in the network")

        monkeypatch.setattr(socket, "getaddrinfo", asked)
        monkeypatch.setattr(socket.socket, "connect", asked)

    @pytest.mark.parametrize(
        ("name", "message"),
        [
            ("./nothere", "there is no folder './nothere'"),
            ("/no/where", "there is no folder '/no/where'"),
            ("~/nothere", "there is no folder '~/nothere'"),
            (Path("nothere"), "there is no folder 'nothere'"),
            ("runs/espo/policy", "there is no folder 'runs/espo/policy'"),
            ("two words", "there is no folder 'two words'"),
            (ENV, f"'{ENV}' is an environment, not a policy: the policy comes first"),
            ("CartPole-v1", "'CartPole-v1' is an environment"),
            ("MlpPolicy", "'MlpPolicy' is a policy of Stable-Baselines3"),
            ("espo_gym/teachings", "no policy 'espo_gym/teachings' is bundled. Did you mean 'espo_gym/teaching'?"),
        ],
    )
    def test_a_name_of_something_else_is_answered_without_a_network(self, name, message):
        with pytest.raises(OSError) as raised:
            Policy.from_pretrained(name)
        assert str(raised.value).startswith(message)
        with pytest.raises(OSError):
            ESPO(name, ENV)
        if isinstance(name, str):
            result = CliRunner().invoke(main, ["train", "--policy", name, "--out", "nowhere"])
            assert result.exit_code == 1 and f"Error: {message}" in result.output

    def test_things_that_are_no_names(self):
        env, policy = gym.make(ENV), tiny_policy()
        with pytest.raises(TypeError, match=r"not a .*: the policy comes first, then the environment"):
            ESPO(cast(Any, env), cast(Any, policy))
        with pytest.raises(TypeError, match="the policy comes first"):
            ESPO(cast(Any, gym.make_vec(ENV, num_envs=2)), "espo_gym/teaching")
        with pytest.raises(TypeError, match=r"not a LlamaForCausalLM: of a model, make Policy\(model, tokenizer\)"):
            ESPO(cast(Any, policy.model), ENV)

    def test_folders_that_hold_no_policy(self, tmp_path):
        (tmp_path / "run" / "policy").mkdir(parents=True)
        (tmp_path / "run" / "config.json").write_text("{}")
        (tmp_path / "run" / "policy" / "config.json").write_text("{}")
        (tmp_path / "checkpoint.zip").write_text("")
        for name, message in (
            (tmp_path / "run", r"did you mean '.*policy'\?"),
            (tmp_path, "no model with a config.json"),
            (tmp_path / "checkpoint.zip", "is a file"),
        ):
            with pytest.raises(OSError, match=message):
                Policy.from_pretrained(str(name))

    @pytest.mark.parametrize("name", ["gpt2", "Qwen/Qwen2.5-0.5B-Instruct", "a-b/c_d.e", *BUNDLED])
    def test_names_of_the_hub_pass(self, name):
        check_policy_name(name, BUNDLED)

    def test_a_hub_that_cannot_be_reached_is_not_asked_again_and_again(self, monkeypatch):
        def offline(*_: object) -> None:
            raise socket.gaierror("Temporary failure in name resolution")

        for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setattr(socket, "getaddrinfo", offline)
        assert hub_options("owner/model") == {"local_files_only": True}
        with pytest.raises(OSError, match="could not load a policy from 'owner/model'"):
            Policy.from_pretrained("owner/model")  # any attempt to connect fails the test

    def test_a_hub_that_may_be_reached_is_asked_as_ever(self, monkeypatch, tmp_path):
        monkeypatch.setattr(socket, "getaddrinfo", lambda *_: [])
        assert hub_options("owner/model") == hub_options(tmp_path) == {}
        monkeypatch.setenv("https_proxy", "http://proxy:3128")
        assert hub_options("owner/model") == {}
