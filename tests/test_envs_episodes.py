"""Single and vector environments step by step: turns, groups, autoreset, a failing verifier, rendering, errors."""

import inspect
import pickle
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium.error import ResetNeeded, UnregisteredEnv
from gymnasium.wrappers.vector import RecordEpisodeStatistics

import espo_gym.envs.verifier
from espo_gym.envs import (
    Addition,
    MathVectorEnv,
    Problem,
    ProceduralTask,
    Retry,
    Task,
    TextEnv,
    UnicodeText,
    Verdict,
    make_task,
    register_task,
)
from espo_gym.envs.spaces import _SharedTexts


class Counting(Task):
    """Problem s is to answer with s; counts what is asked of it."""

    splits = ("train", "test")
    max_turns = 3

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.made: list[int] = []
        self.verified: list[list[str]] = []

    def problem(self, split, seed):
        self.made.append(seed)
        return Problem(f"{split} {seed}?", str(seed), str(seed))

    def verify(self, completions, problems):
        self.verified.append(list(completions))
        return [
            Verdict("correct" if c == p.answer else "incorrect", c) for c, p in zip(completions, problems, strict=True)
        ]

    def feedback(self, problem, completion, verdict, turn):
        return f"not {verdict.answer}; {self.max_turns - turn} left"


class Single(Counting):
    max_turns = 1


def task_of(env: gymnasium.Env[Any, Any]) -> Task:
    assert isinstance(env.unwrapped, TextEnv)
    return env.unwrapped.task


# --- one environment


def test_single_turn_episode():
    env = TextEnv(Single)
    assert env.reset(seed=4) == ("train 4?", {"problem": Problem("train 4?", "4", "4"), "split": "train", "seed": 4})
    observation, reward, terminated, truncated, info = env.step("4")
    assert (observation, reward, terminated, truncated) == ("", 1.0, True, False)
    assert info == {"verdict": Verdict("correct", "4"), "is_success": True, "has_verdict": True, "turn": 1}
    env.reset(seed=4)
    assert env.step("5")[1:] == (
        0.0,
        True,
        False,
        {"verdict": Verdict("incorrect", "5"), "is_success": False, "has_verdict": True, "turn": 1},
    )


def test_turns_go_on_until_the_answer_is_right_or_none_is_left():
    env = TextEnv(Counting)
    env.reset(seed=4)
    assert env.step("1")[:4] == ("not 1; 2 left", 0.0, False, False)
    assert env.step("4")[:4] == ("", 1.0, True, False)
    env.reset(seed=4)
    env.step("1")
    env.step("2")
    observation, reward, terminated, _, info = env.step("3")
    assert (observation, reward, terminated, info["turn"]) == ("", 0.0, True, 3)


def test_the_split_of_one_episode():
    env = TextEnv(Single, split="test")
    assert env.reset(seed=1)[0] == "test 1?"
    assert env.reset(seed=1, options={"split": "train"})[0] == "train 1?"
    assert env.reset(seed=1)[0] == "test 1?"


@pytest.mark.parametrize("turns", [1, 3])
def test_a_failing_verifier_is_not_a_wrong_answer(monkeypatch, turns):
    failure = Verdict("no_verdict", reason="timeout")
    monkeypatch.setattr(
        espo_gym.envs.verifier, "verify", lambda completions, references, **_: [failure] * len(completions)
    )
    kwargs = {"task": Retry(attempts=turns)} if turns > 1 else {"task": Addition}
    env = TextEnv(**kwargs)
    env.reset(seed=0)
    observation, reward, terminated, truncated, info = env.step("The answer is 7.")
    assert (observation, reward, terminated, truncated) == ("", 0.0, True, False)
    assert info["verdict"] is failure and not info["has_verdict"] and not info["is_success"]
    envs = MathVectorEnv(num_envs=3, **kwargs)
    envs.reset(seed=0)
    _, rewards, ended, _, infos = envs.step(["The answer is 7."] * 3)
    assert rewards.tolist() == [0.0] * 3 and ended.all() and not infos["has_verdict"].any()


def test_unicode_passes_through(monkeypatch):
    task = type("Echo", (Single,), {"problem": lambda self, split, seed: Problem("π ≤ 4 \U0001f600\ud800", "π", "π")})
    env = gymnasium.wrappers.PassiveEnvChecker(TextEnv(task))
    assert env.reset(seed=0)[0] == "π ≤ 4 \U0001f600\ud800"
    assert env.step("∑ \u202e\x00 π")[1] == 0.0


def test_render():
    env = TextEnv(Counting, render_mode="ansi")
    with pytest.raises(ResetNeeded):
        env.render()
    env.reset(seed=4)
    assert env.render() == "prompt:     train 4?"
    env.step("1")
    env.step("4")
    assert (env.render() or "").splitlines() == [
        "prompt:     train 4?",
        "completion: 1",
        "verdict:    incorrect, answer '1'",
        "feedback:   not 1; 2 left",
        "completion: 4",
        "verdict:    correct, answer '4'",
    ]
    envs = MathVectorEnv(Counting, 2, render_mode="ansi")
    envs.reset(seed=4)
    assert envs.render() == ("prompt:     train 4?", "prompt:     train 5?")


# --- many environments


def test_a_group_is_one_problem_made_once_and_verified_in_one_call():
    task = Counting()
    envs = MathVectorEnv(task, 8)
    observations, infos = envs.reset(seed=[7] * 4 + [9] * 4)
    assert observations == ("train 7?",) * 4 + ("train 9?",) * 4
    assert task.made == [7, 9]
    assert infos["seed"].tolist() == [7] * 4 + [9] * 4 and infos["_seed"].all()
    envs.step(["7"] * 8)
    assert task.verified == [["7"] * 8]


def test_an_integer_seed_counts_up_and_any_sequence_will_do():
    envs = MathVectorEnv(Counting, 3)
    assert envs.reset(seed=5)[1]["seed"].tolist() == [5, 6, 7]
    assert envs.reset(seed=np.array([2, 1, 2]))[1]["seed"].tolist() == [2, 1, 2]
    envs.reset(seed=5)
    first = envs.reset()[1]["seed"].tolist()
    envs.reset(seed=np.int64(5))
    assert envs.reset()[1]["seed"].tolist() == first


def test_disabled_autoreset_lets_the_others_go_on():
    task = Counting()
    envs = MathVectorEnv(task, 3)
    envs.reset(seed=[1, 2, 3])
    observations, rewards, terminated, *_ = envs.step(["1", "x", "y"])
    assert observations == ("", "not x; 2 left", "not y; 2 left")
    assert rewards.tolist() == [1.0, 0.0, 0.0] and terminated.tolist() == [True, False, False]
    _, rewards, terminated, _, infos = envs.step(["ignored", "2", "z"])
    assert task.verified[-1] == ["2", "z"]
    assert rewards.tolist() == [0.0, 1.0, 0.0] and terminated.tolist() == [False, True, False]
    assert infos["_verdict"].tolist() == [False, True, True] and infos["verdict"][0] is None
    assert infos["turn"].tolist() == [0, 2, 2]
    envs.step(["", "", "z"])
    with pytest.raises(ResetNeeded, match="every sub-environment has finished"):
        envs.step(["", "", ""])


def test_gymnasiums_statistics_count_every_episode_once():
    envs = RecordEpisodeStatistics(MathVectorEnv(Counting(), 3))
    envs.reset(seed=1)
    for actions in (["1", "x", "y"], ["", "2", "z"], ["", "", "z"]):
        envs.step(actions)
    assert list(envs.return_queue) == [1.0, 1.0, 0.0] and list(envs.length_queue) == [1, 2, 3]


@pytest.mark.parametrize("make", [TextEnv, lambda task: MathVectorEnv(task, 2)], ids=["single", "vector"])
def test_a_split_that_is_set_is_checked(make):
    env = make(Counting())
    with pytest.raises(ValueError, match="unknown split 'nonsense'"):
        env.split = "nonsense"
    assert env.split == "train"
    env.split = "test"
    env.reset(seed=0) if isinstance(env, TextEnv) else env.reset(seed=[0, 0])
    assert env.split == "test"


def test_reset_mask_begins_anew_only_there():
    envs = MathVectorEnv(Counting, 3)
    envs.reset(seed=[1, 2, 3])
    envs.step(["1", "x", "3"])
    options = {"reset_mask": np.array([True, False, False]), "split": "test"}
    observations, infos = envs.reset(seed=[8, 8, 8], options=options)
    assert observations == ("test 8?", "not x; 2 left", "")
    assert infos["_seed"].tolist() == [True, False, False] and set(options) == {"reset_mask", "split"}
    assert envs.step(["8", "2", ""])[1].tolist() == [1.0, 1.0, 0.0]


def test_same_step_autoreset_keeps_groups_together():
    task = Single()
    envs = MathVectorEnv(task, 4, autoreset_mode="SameStep")
    envs.reset(seed=[1, 1, 2, 2])
    observations, rewards, terminated, _, infos = envs.step(["1", "x", "2", "2"])
    assert rewards.tolist() == [1.0, 0.0, 1.0, 1.0] and terminated.all()
    assert infos["final_obs"].tolist() == [""] * 4 and infos["_final_info"].all()
    assert infos["final_info"]["is_success"].tolist() == [True, False, True, True]
    assert infos["final_info"]["_verdict"].all() and "verdict" not in infos
    assert observations[0] == observations[1] != observations[2] == observations[3]
    assert infos["problem"][0].prompt == observations[0] and len(task.made) == 4
    assert envs.metadata["autoreset_mode"] is gymnasium.vector.AutoresetMode.SAME_STEP


# --- errors: one sentence each


def test_steps_out_of_order():
    env, envs = TextEnv(Single), MathVectorEnv(Single, 2)
    pairs: list[tuple[Any, Any]] = [(env, "1"), (envs, ["1", "1"])]
    for one, action in pairs:
        with pytest.raises(ResetNeeded, match=r"call reset\(\)"):
            one.step(action)
        one.reset(seed=1)
        one.step(action)
        with pytest.raises(ResetNeeded, match=r"call reset\(\) before step\(\)"):
            one.step(action)
    envs = MathVectorEnv(Single, 2)
    envs.reset(options={"reset_mask": np.array([True, False])})
    with pytest.raises(ResetNeeded, match="sub-environment 1 has no episode yet"):
        envs.step(["1", "1"])


@pytest.mark.parametrize(
    ("actions", "error"),
    [("ab", TypeError), (["a", 1], TypeError), (["a", None], TypeError), (["a"], ValueError), (["a"] * 3, ValueError)],
)
def test_actions_that_are_no_completions(actions, error):
    envs = MathVectorEnv(Single, 2)
    envs.reset(seed=0)
    with pytest.raises(error, match="completions"):
        envs.step(actions)
    array: Any = np.array(["0", "0"], dtype=object)
    assert envs.step(array)[1].tolist() == [1.0, 0.0]
    env = TextEnv(Single)
    env.reset(seed=0)
    with pytest.raises(TypeError, match="must be the completion, a str, not int"):
        env.step(5)  # type: ignore[arg-type]


@pytest.mark.parametrize("make", [TextEnv, MathVectorEnv])
@pytest.mark.parametrize(
    ("kwargs", "error", "message"),
    [
        ({"split": "tests"}, ValueError, "unknown split 'tests'. Did you mean 'test'. Known: train, validation, test"),
        ({"digits": 0}, ValueError, "digits must be an integer from 1 to 18, not 0"),
        ({"digits": 2.5}, TypeError, "digits must be an integer from 1 to 18, not 2.5"),
        ({"digts": 3}, TypeError, "Addition has no argument 'digts'. Did you mean 'digits'. It takes digits, templ"),
        ({"render_mode": "human"}, ValueError, "unknown render_mode 'human'. Known: ansi"),
        ({"template": "{a} plus {c}"}, ValueError, r"has the unknown field \{c\}. Known: \{a\}, \{b\}"),
        ({"template": "{a} plus"}, ValueError, r"lacks the field \{b\}; it needs \{a\}, \{b\}"),
        ({"template": "{a}+{b} \\boxed{}"}, ValueError, r"unknown field \{\}. .* Write a literal brace twice"),
        ({"template": "{a}+{b"}, ValueError, "is malformed"),
        ({"template": "{a.real}+{b}"}, ValueError, r"unknown field \{a.real\}"),
        ({"template": 3}, TypeError, "template must be a string"),
    ],
)
def test_arguments_that_make_no_sense(make, kwargs, error, message):
    with pytest.raises(error, match=message):
        make(Addition, **kwargs)


@pytest.mark.parametrize(
    ("kwargs", "error", "message"),
    [
        ({"num_envs": 0}, ValueError, "num_envs must be an integer from 1"),
        ({"autoreset_mode": "NextStep"}, ValueError, "'NextStep' would ignore every second completion"),
        ({"autoreset_mode": "never"}, ValueError, "unknown autoreset_mode 'never'. Known: Disabled, SameStep"),
    ],
)
def test_vector_arguments_that_make_no_sense(kwargs, error, message):
    with pytest.raises(error, match=message):
        MathVectorEnv(Single, **kwargs)


@pytest.mark.parametrize(
    ("kwargs", "error", "message"),
    [
        ({"seed": -1}, ValueError, "seed must be an integer from 0 to"),
        ({"seed": 2**63}, ValueError, "seed must be an integer from 0 to"),
        ({"seed": 1.0}, TypeError, "seed must be an integer"),
        ({"options": {"split": "dev"}}, ValueError, "unknown split 'dev'. Known: train, test"),
        ({"options": {"spilt": "test"}}, ValueError, "unknown reset option 'spilt'. Did you mean 'split'"),
    ],
)
def test_resets_that_make_no_sense(kwargs, error, message):
    for env in (TextEnv(Single), MathVectorEnv(Single, 2)):
        with pytest.raises(error, match=message):
            env.reset(**kwargs)


def test_vector_resets_that_make_no_sense():
    envs = MathVectorEnv(Single, 2)
    with pytest.raises(ValueError, match="3 seeds were given for 2 sub-environments"):
        envs.reset(seed=[1, 2, 3])
    for mask in ([True, False], np.array([1, 0]), np.array([True])):
        with pytest.raises(ValueError, match="reset_mask must be a numpy array of 2 bool"):
            envs.reset(options={"reset_mask": mask})
    with pytest.raises(ValueError, match="reset_mask must be true somewhere"):
        envs.reset(options={"reset_mask": np.array([False, False])})


@pytest.mark.parametrize(
    ("task", "error", "message"),
    [
        ("espo_gym/Adition-v0", UnregisteredEnv, "no environment is registered as .* mean 'espo_gym/Addition-v0'"),
        ("CartPole-v1", TypeError, "'CartPole-v1' is not a text task"),
        (
            "espo_gym.envs.tasks.addition:Additon",
            ImportError,
            "addition has no attribute 'Additon'. Did you mean 'Addition'?",
        ),
        ("no_such_module:Mine", ImportError, "no task 'no_such_module:Mine': No module .* set PYTHONPATH"),
        (
            "no_such_module:my/Env-v0",
            ImportError,
            "no environment 'no_such_module:my/Env-v0': No module .* set PYTHONPATH",
        ),
        ("json:loads", TypeError, "expected a Task, a Task subclass, .* got <function loads"),
        (int, TypeError, "expected a Task, a Task subclass, 'module:Class' or a registered id, got <class 'int'>"),
        (5, TypeError, "registered id, got 5"),
    ],
)
def test_tasks_that_are_none(task, error, message):
    for make in (TextEnv, lambda task: Retry(env=task)):
        with pytest.raises(error, match=message):
            make(task)


def test_a_finished_task_takes_no_more_arguments():
    with pytest.raises(TypeError, match="digits: keyword arguments go with a task's class"):
        make_task(Addition(), digits=3)


def test_a_verifier_that_skips_completions_is_named():
    task = type("Lazy", (Single,), {"verify": lambda self, completions, problems: []})
    pairs: list[tuple[Any, Any]] = [(TextEnv(task), "1"), (MathVectorEnv(task, 2), ["1", "1"])]
    for env, action in pairs:
        env.reset(seed=1)
        with pytest.raises(ValueError, match=r"'Lazy'.verify gave 0 verdicts on [12] completions"):
            env.step(action)


@pytest.mark.parametrize(
    ("returned", "message"),
    [
        ([True, False], "not a list with True"),
        ([1.0, 0.0], "not a list with 1.0"),
        (None, "not None"),
        ("correct", "not 'correct'"),
        (np.ones(2), "not array"),
        ([Verdict("correct"), None], "not a list with None"),
    ],
)
def test_a_verifier_that_returns_no_verdicts_is_told_what_they_are(returned, message):
    task = type("Odd", (Single,), {"verify": lambda self, completions, problems: returned})
    pairs: list[tuple[Any, Any]] = [(TextEnv(task), "1"), (MathVectorEnv(task, 2), ["1", "1"])]
    for env, action in pairs:
        env.reset(seed=1)
        with pytest.raises(TypeError, match=rf"'Odd'.verify must return a list with a Verdict for each .*, {message}"):
            env.step(action)


# --- Retry


def test_retry_wraps_any_single_turn_id():
    env = gymnasium.make("espo_gym/Retry-v0", env="espo_gym:espo_gym/Countdown-v0", attempts=2, n_numbers=2)
    prompt, info = env.reset(seed=3)
    assert prompt == make_task("espo_gym/Countdown-v0", n_numbers=2).problem("train", 3).prompt
    assert env.step("1+1+1")[:3] == ("That is not correct. Try again.", 0.0, False)
    assert env.step(info["problem"].answer)[:3] == ("", 1.0, True)
    assert task_of(env).system_prompt == make_task("espo_gym/Countdown-v0").system_prompt


def test_retry_feedback_and_its_errors():
    task = Retry(env="espo_gym/Addition-v0", attempts=4, feedback="{answer} is wrong, {left} left. {prompt}")
    env = TextEnv(task)
    prompt, _ = env.reset(seed=0)
    assert env.step("7")[0] == f"7 is wrong, 3 left. {prompt}"
    with pytest.raises(ValueError, match=r"unknown field \{wrong\}"):
        Retry(feedback="{wrong}")
    with pytest.raises(ValueError, match="attempts must be an integer from 1 to 100, not 0"):
        Retry(attempts=0)
    with pytest.raises(TypeError, match="Addition has no argument 'digts'"):
        Retry(digts=3)
    with pytest.raises(ValueError, match="Retry needs a task of one turn"):
        Retry(env=Counting)


def test_retry_has_every_field_of_the_task_that_it_wraps():
    """A field that is added to Task is not forgotten here."""
    other = Single()
    fields = inspect.get_annotations(Task).keys() - {"max_turns", "open_arguments"}
    assert {"name", "splits", "system_prompt", "auditable", "verifier", "audit_share"} <= fields
    for field in fields:
        setattr(other, field, f"the other task's {field}")
    task = Retry(env=other)
    assert {field: getattr(task, field) for field in fields} == {field: getattr(other, field) for field in fields}
    assert task.max_turns == 3 and task.open_arguments and task.__class__.open_arguments


def test_retry_asks_the_task_that_it_wraps(monkeypatch):
    """Every method of Task but the feedback, which is Retry's own."""
    task = Retry()
    for method in [name for name, value in vars(Task).items() if inspect.isfunction(value) and name[0] != "_"]:
        if method != "feedback":
            arguments = [object() for _ in inspect.signature(getattr(task.task, method)).parameters]
            monkeypatch.setattr(task.task, method, lambda *given, expected=method: (expected, given))
            assert getattr(task, method)(*arguments) == (method, tuple(arguments))


# --- tasks of one's own


class Doubling(ProceduralTask):
    template = "Twice {n} is"

    def __init__(self, *, limit=1000, **kwargs):
        super().__init__(**kwargs)
        self.limit = limit

    def sample(self, rng):
        n = int(rng.integers(self.limit))
        return Problem(self.template.format(n=n), str(2 * n), str(n))


def test_a_task_of_ones_own_becomes_an_environment():
    register_task("tests/Doubling-v0", Doubling, limit=100)
    try:
        env = gymnasium.make("tests/Doubling-v0", split="test", template="2*{n}=", system_prompt="Be brief.")
        task = task_of(env)
        assert isinstance(task, Doubling) and task.name == "Doubling" and task.system_prompt == "Be brief."
        assert task.limit == 100
        prompt, info = env.reset(seed=1)
        assert prompt == f"2*{info['problem'].key}="
        assert env.step(info["problem"].answer)[1] == 1.0
        assert gymnasium.make_vec("tests/Doubling-v0", num_envs=2).reset(seed=1)[0][0].startswith("Twice ")
    finally:
        del gymnasium.registry["tests/Doubling-v0"]


def test_splits_share_out_every_problem():
    task = Doubling(limit=200)
    keys = [{task.problem(split, seed).key for seed in range(3000)} for split in task.splits]
    assert sum(map(len, keys)) == 200 and set.union(*keys) == set(map(str, range(200)))
    assert [len(found) > 5 for found in keys] == [True] * 3 and len(keys[0]) > 140


def test_a_family_too_small_for_its_splits_says_so():
    with pytest.raises(ValueError, match="none of 10000 problems of 'Doubling' belongs to the split 'validation'"):
        for split in ("train", "validation", "test"):
            Doubling(limit=1).problem(split, 0)


# --- the space


def test_unicode_text_space():
    space = UnicodeText(50, seed=3)
    assert "π\n\x00\U0001f600\ud800" in space and "" in space and "a" * 50 in space
    assert "a" * 51 not in space and 5 not in space and None not in space
    samples = [space.sample() for _ in range(50)]
    assert all(sample in space and sample.isprintable() for sample in samples)
    assert len(set(samples)) > 40 and samples == [
        space.sample() for space in [UnicodeText(50, seed=3)] for _ in samples
    ]
    assert space == UnicodeText(50) != UnicodeText(51) and space != gymnasium.spaces.Text(50)
    assert repr(space) == "UnicodeText(50)" and pickle.loads(pickle.dumps(space)) == space
    batch = gymnasium.vector.utils.batch_space(space, 3)
    assert ("a", "π", "") in batch and batch == gymnasium.spaces.Tuple([space] * 3)
    assert UnicodeText(1).sample() in UnicodeText(1)
    with pytest.raises(TypeError, match="unhashable"):  # equal spaces must not have different hashes
        hash(space)


def test_shared_memory_keeps_any_text():
    from gymnasium.vector.utils import create_shared_memory, read_from_shared_memory, shared_memory

    write_to_shared_memory: Any = shared_memory.write_to_shared_memory  # its annotations know arrays only
    space = UnicodeText(20)
    memory = create_shared_memory(space, n=3)
    view = read_from_shared_memory(space, memory, n=3)
    texts = ("π\x00\U0001f600\ud800", "", "x" * 20)
    for i, text in enumerate(("longer than the next", *texts[1:])):
        write_to_shared_memory(space, i, text, memory)
    write_to_shared_memory(space, 0, texts[0], memory)
    assert isinstance(view, _SharedTexts) and tuple(view) == texts and view[1:] == texts[1:] and len(view) == 3
    with pytest.raises(ValueError, match="21 characters does not fit into"):
        write_to_shared_memory(space, 0, "x" * 21, memory)
