"""Stable-Baselines3's callbacks run unchanged through learn(), and see what they expect to see."""

from typing import Any

import gymnasium
import numpy as np
import pytest
from stable_baselines3.common.callbacks import (
    BaseCallback,
    CallbackList,
    CheckpointCallback,
    EvalCallback,
    EveryNTimesteps,
    LogEveryNTimesteps,
    ProgressBarCallback,
    StopTrainingOnMaxEpisodes,
    StopTrainingOnNoModelImprovement,
    StopTrainingOnRewardThreshold,
)
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.logger import configure
from tiny import SMALL, teaching_policy, tiny_policy

from espo_gym.algorithms import GRPO
from espo_gym.text_vec_env import TextVecEnv

ADDITION = "espo_gym/Addition-v0"


def make(**kwargs):
    return GRPO(tiny_policy(), ADDITION, **(SMALL | kwargs))


class Recorder(BaseCallback):
    def __init__(self, stop_after=None):
        super().__init__()
        self.events, self.stop_after = [], stop_after

    def _init_callback(self):
        self.events.append("init")

    def _on_training_start(self):
        self.events.append(("start", self.locals["total_timesteps"], self.num_timesteps))

    def _on_rollout_start(self):
        self.events.append("rollout start")

    def _on_step(self):
        self.events.append(("step", self.num_timesteps, vars(self.model)["n_updates"], len(self.locals["dones"])))
        return self.n_calls != self.stop_after

    def _on_rollout_end(self):
        self.events.append("rollout end")

    def _on_training_end(self):
        self.events.append("end")


def test_a_callback_is_called_in_stable_baselines3s_order():
    callback = Recorder()
    algo = make()
    algo.learn(16, callback=callback)
    rounds = [e for e in callback.events if e not in ("init", "end") and e[0] != "start"]
    assert callback.events[:2] == ["init", ("start", 16, 0)] and callback.events[-1] == "end"
    assert [e if isinstance(e, str) else e[:2] for e in rounds] == [
        *("rollout start", "rollout end", ("step", 8)),
        *("rollout start", "rollout end", ("step", 16)),
    ]
    assert all(e[3] == 8 for e in rounds if e[0] == "step")
    assert callback.training_env is algo.get_env() and callback.logger is algo.logger


def test_a_callback_that_returns_false_ends_training():
    callback, algo = Recorder(stop_after=2), make()
    algo.learn(800, callback=callback)
    assert algo.num_timesteps == 16 and callback.events[-1] == "end"


def test_a_callback_sees_the_timesteps_of_the_whole_run():
    callback, algo = Recorder(), make()
    algo.learn(16)
    algo.learn(16, callback=callback)
    assert ("start", 32, 16) in callback.events
    assert [e[1] for e in callback.events if e[0] == "step"] == [24, 32]


@pytest.mark.parametrize("wrap", [list, tuple, CallbackList])
def test_several_callbacks_are_all_called(wrap):
    one, other, algo = Recorder(), Recorder(), make()
    algo.learn(16, callback=wrap([one, other]))
    assert one.events == other.events and len(one.events) == 9


def test_a_function_is_a_callback():
    seen = []

    def callback(local_variables, global_variables):
        seen.append(local_variables["self"].num_timesteps)
        return len(seen) < 2

    algo = make().learn(800, callback=callback)
    assert seen == [8, 16] and algo.num_timesteps == 16


def test_checkpoint_callback_saves_what_can_be_loaded(tmp_path):
    make().learn(32, callback=CheckpointCallback(save_freq=2, save_path=str(tmp_path), name_prefix="x"))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["x_16_steps.zip", "x_32_steps.zip"]
    assert GRPO.load(tmp_path / "x_16_steps.zip", device="cpu").num_timesteps == 16


def test_every_n_timesteps_calls_its_callback_that_often():
    inner = Recorder()
    make().learn(48, callback=EveryNTimesteps(n_steps=16, callback=inner))
    assert [e[1] for e in inner.events if e[0] == "step"] == [16, 32, 48]


def test_stop_training_on_max_episodes_counts_completions():
    algo = make().learn(800, callback=StopTrainingOnMaxEpisodes(max_episodes=2))  # per row of the vector environment
    assert algo.num_timesteps == 16


def test_progress_bar_shows_every_completion(capsys):
    algo = make()
    callback = ProgressBarCallback()
    algo.learn(16, callback=callback)
    assert callback.pbar.n == callback.pbar.total == 16
    algo.learn(16, progress_bar=True)
    assert algo.num_timesteps == 32


def test_log_every_n_timesteps_writes_the_metrics(tmp_path):
    algo = make()
    algo.set_logger(configure(str(tmp_path), ["json"]))
    algo.learn(32, callback=LogEveryNTimesteps(n_steps=16), log_interval=1000)
    assert len((tmp_path / "progress.json").read_text().splitlines()) == 2


# -- EvalCallback ----------------------------------------------------------------------------------------------------


def text_envs(n=4, **kwargs):
    env = TextVecEnv([lambda: gymnasium.make(ADDITION, split="validation", **kwargs)] * n)
    env.seed(0)
    return env


def test_text_vec_env_passes_texts_both_ways():
    env = text_envs()
    questions = env.reset()
    assert questions.shape == (4,) and questions.dtype == object
    answers = [str(sum(map(int, q.removesuffix("=").split("+")))) for q in questions]
    answers[1] = "0"
    following, rewards, dones, infos = env.step(answers)
    assert rewards.tolist() == [1, 0, 1, 1] and dones.all()
    assert [info["is_success"] for info in infos] == [True, False, True, True]
    assert all(q.endswith("=") for q in following) and list(following) != list(questions)
    assert list(questions) != [""] * 4  # a later step does not write into what was handed out


def test_text_vec_env_refuses_one_environment_twice():
    env = gymnasium.make(ADDITION)
    with pytest.raises(ValueError, match="same instance"):
        TextVecEnv([lambda: env] * 2)


def test_evaluate_policy_plays_text_environments():
    algo: Any = GRPO(teaching_policy(), ADDITION, **(SMALL | {"max_completion_tokens": 40}))
    rewards: Any
    rewards, lengths = evaluate_policy(algo, text_envs(16), 32, return_episode_rewards=True, warn=False)
    assert len(rewards) == 32 and set(rewards) == {0.0, 1.0} and lengths == [1] * 32


@pytest.mark.filterwarnings("ignore::UserWarning:stable_baselines3")
def test_eval_callback_stops_at_the_reward_threshold_and_keeps_the_best_model(tmp_path):
    algo = GRPO(teaching_policy(), ADDITION, **(SMALL | {"max_completion_tokens": 40, "learning_rate": 1e-5}))
    callback = EvalCallback(
        text_envs(16),
        callback_on_new_best=StopTrainingOnRewardThreshold(reward_threshold=0.01),
        n_eval_episodes=32,
        eval_freq=1,
        log_path=str(tmp_path),
        best_model_save_path=str(tmp_path / "best"),
        verbose=0,
        warn=False,
    )
    algo.learn(800, callback=callback)
    assert algo.num_timesteps == 8  # the bundled policy solves more than one in a hundred
    saved = np.load(tmp_path / "evaluations.npz")
    assert saved["results"].shape == (1, 32) and saved["successes"].shape == (1, 32)
    assert saved["results"].mean() == callback.best_mean_reward > 0.01
    assert GRPO.load(tmp_path / "best" / "best_model", device="cpu").num_timesteps == 8


@pytest.mark.filterwarnings("ignore::UserWarning:stable_baselines3")
def test_eval_callback_stops_without_improvement():
    algo = make(learning_rate=1e-9)
    callback = EvalCallback(
        text_envs(),
        callback_after_eval=StopTrainingOnNoModelImprovement(max_no_improvement_evals=1, min_evals=1),
        n_eval_episodes=4,
        eval_freq=2,
        verbose=0,
        warn=False,
    )
    algo.learn(800, callback=callback)
    assert (algo.num_timesteps == 6 * 8 and "eval/mean_reward" in algo.logger.name_to_value) or algo.num_timesteps == 48
