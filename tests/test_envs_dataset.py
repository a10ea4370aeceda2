"""Problems from files and from the Hugging Face hub (here: from local folders)."""

import bz2
import gzip
import json
import lzma
import os
import subprocess
import sys
from pathlib import Path

import gymnasium
import pytest

from espo_gym.envs import AIME, GSM8K, MATH500, Dataset, TextEnv
from espo_gym.envs.tasks.dataset_rows import read_jsonl, reference

DATA = Path(__file__).parent / "data"
PROBLEMS = DATA / "problems.jsonl"
GSM = {split: DATA / f"gsm8k_{split}.jsonl" for split in ("train", "test")}


def rows(path):
    return [json.loads(line) for line in Path(path).read_text(encoding="utf-8").splitlines()]


def write(path, lines):
    path.write_text("\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines), encoding="utf-8")
    return path


def everything(task, split, epoch=0):
    n = task.size(split)
    return [task.problem(split, seed) for seed in range(epoch * n, (epoch + 1) * n)]


def test_a_single_file_is_split_by_its_questions():
    task = Dataset(path=PROBLEMS)
    assert task.splits == ("train", "validation", "test")
    assert sum(task.size(split) or 0 for split in task.splits) == len(rows(PROBLEMS)) == 20
    prompts = [problem.prompt for split in task.splits for problem in everything(task, split)]
    assert sorted(prompts) == sorted(row["question"] for row in rows(PROBLEMS))


def test_every_epoch_visits_every_problem_once_in_another_order():
    task = Dataset(path=PROBLEMS)
    epochs = [everything(task, "train", epoch) for epoch in (0, 1, 10**12)]
    orders = [[problem.prompt for problem in epoch] for epoch in epochs]
    assert len({tuple(sorted(order)) for order in orders}) == 1 and len(set(orders[0])) == len(orders[0])
    assert len({tuple(order) for order in orders}) == 3
    assert task.problem("train", 0) == Dataset(path=PROBLEMS).problem("train", 0) == epochs[0][0]


def test_unseeded_resets_draw_from_the_split():
    env = TextEnv(Dataset, path=PROBLEMS, split="test")
    size = env.task.size("test")
    env.reset(seed=5)
    assert all(0 <= env.reset()[1]["seed"] < size for _ in range(20))


def test_answers_are_read_as_they_are_meant():
    task = Dataset(path=PROBLEMS)
    answers = {problem.prompt: problem.answer for split in task.splits for problem in everything(task, split)}
    assert answers["How many sides has a hexagon?"] == "6"
    assert answers["How many minutes are there in 2.5 hours?"] == "150"
    assert answers["What is half of 9?"] == "4.5"
    assert answers["What is 1/2 + 1/3?"] == "5/6"
    assert "Wie viele Ecken hat ein Würfel?" in answers


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("It is 3 * 4.\n#### 1,234,567", "1234567"),
        ("#### 5\nno: #### -6 ", "-6"),
        (27.0, "27"),
        (-0.5, "-0.5"),
        (10**30, str(10**30)),
        ("  \\frac{1}{2} ", "\\frac{1}{2}"),
        ("(1,2)", "(1,2)"),
        ("023", "023"),
    ],
)
def test_reference(value, expected):
    assert reference(value, "here") == expected


@pytest.mark.parametrize("value", [None, "", "  ", "#### ", True, [1], {"a": 1}, float("nan"), float("inf")])
def test_reference_that_is_none(value):
    with pytest.raises(ValueError, match="here: the answer must be a number or a non-empty string, not"):
        reference(value, "here")


def test_gsm8k_takes_what_follows_the_mark():
    task = GSM8K(path=GSM)
    assert task.splits == ("train", "test")
    assert {problem.answer for problem in everything(task, "train")} == {"31", "2000", "15", "-7", "61"}
    assert {problem.answer for problem in everything(task, "test")} == {"210", "15", "25000"}


@pytest.mark.parametrize(("task", "file"), [(MATH500, "math.jsonl"), (AIME, "aime.jsonl")])
def test_benchmarks_are_all_test(task, file):
    env = TextEnv(task, path=DATA / file)
    assert env.task.splits == ("test",) and env.split == "test" and env.task.size("test") == 4
    assert env.reset(seed=0)[0] in {row["problem"] for row in rows(DATA / file)}
    assert "boxed" in (env.task.system_prompt or "")


def test_questions_that_occur_twice_do_not_leak(tmp_path):
    questions = [f"What is {i} + {i}?" for i in range(200)]
    twins = [f"  what  IS {i} +\t{i}?" for i in range(200)]
    file = write(tmp_path / "twice.jsonl", [{"question": q, "answer": 1} for q in questions + twins])
    task = Dataset(path=file)
    keys = [{problem.key for problem in everything(task, split)} for split in task.splits]
    assert sum(map(len, keys)) == len(set.union(*keys)) == 200
    assert [task.size(split) for split in task.splits] == [2 * len(found) for found in keys]


def test_own_fields_template_and_system_prompt(tmp_path):
    file = write(tmp_path / "own.jsonl", [{"q": "1+1", "a": 2, "note": "x"}, "", {"q": "1+2", "a": 3}])
    task = Dataset(path={"all": file}, question="q", answer="a", template="Q: {question}\nA:", system_prompt="")
    assert task.splits == ("all",) and task.size("all") == 2 and task.system_prompt is None
    assert {p.prompt for p in everything(task, "all")} == {"Q: 1+1\nA:", "Q: 1+2\nA:"}


def test_byte_order_mark_and_windows_line_ends(tmp_path):
    file = tmp_path / "windows.jsonl"
    file.write_bytes(b'\xef\xbb\xbf{"question": "1+1?", "answer": 2}\r\n{"question": "1+2?", "answer": 3}\r\n')
    assert [row["answer"] for _, row in read_jsonl(file)] == [2, 3]


GOOD = {"question": "1+1?", "answer": "2"}


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"question": "1+1?"', "expected a JSON object on each line: Expecting"),
        ("[1, 2]", r"expected a JSON object on each line, got '\[1, 2\]'"),
        ("[" * 100_000, "expected a JSON object on each line: "),
        ({"question": "1+1?", "Answer": "2"}, r"no field 'answer' \(available: 'question', 'Answer'\)"),
        ({"text": "1+1?", "answer": "2"}, r"no field 'question' \(available: 'text', 'answer'\)"),
        ({}, r"no field 'question' \(available: none\)"),
        ({"question": " ", "answer": "2"}, "the question must be a non-empty string, not ' '"),
        ({"question": 5, "answer": "2"}, "the question must be a non-empty string, not 5"),
        ({"question": "1+1?", "answer": None}, "the answer must be a number or a non-empty string, not None"),
        ('{"question": "1?", "answer": 1, "answer": 2}', "expected a JSON .*: the key 'answer' occurs twice"),
        ('{"question": "1+1?", "answer": NaN}', "the answer must be a number or a non-empty string, not nan"),
        ('{"question": "1+1?", "answer": ' + "9" * 5000 + "}", "expected a JSON object on each line: "),
    ],
)
def test_a_malformed_line_is_named(tmp_path, line, message):
    file = write(tmp_path / "bad.jsonl", [GOOD, "", line, GOOD])
    with pytest.raises(ValueError, match=rf"bad\.jsonl, line 3: {message}"):
        Dataset(path=file)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (gzip.compress(b'{"question": "1?", "answer": "1"}'), "is compressed by gzip, and .*: unpack it first"),
        (bz2.compress(b"{}"), "is compressed by bzip2, and .*: unpack it first"),
        (lzma.compress(b"{}"), "is compressed by xz, and .*: unpack it first"),
        (b"\x28\xb5\x2f\xfd\x04\x00", "is compressed by zstd, and .*: unpack it first"),
        (b"PK\x03\x04\x14\x00", "is a zip archive, and .*: unpack it first"),
        (b"PAR1\x15\x04", 'is a Parquet file, and .* dataset="FOLDER" instead of path'),
    ],
    ids=["gzip", "bzip2", "xz", "zstd", "zip", "parquet"],
)
def test_a_file_of_another_format_is_named(tmp_path, content, message):
    file = tmp_path / "data.jsonl"
    file.write_bytes(content)
    with pytest.raises(ValueError, match=rf"data\.jsonl {message}"):
        Dataset(path=file)


def test_what_is_no_utf8_is_named(tmp_path):
    file = tmp_path / "latin.jsonl"
    file.write_bytes(b'{"question": "1?", "answer": "2"}\n{"question": "W\xfcrfel?", "answer": "2"}\n')
    with pytest.raises(ValueError, match=r"latin\.jsonl, line 2: expected a JSON object on each line: 'utf-8'"):
        Dataset(path=file)


def test_files_that_do_not_do(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"there is no file '.*nowhere\.jsonl'"):
        Dataset(path=tmp_path / "nowhere.jsonl")
    with pytest.raises(FileNotFoundError, match="there is no file"):
        gymnasium.make("espo_gym/GSM8K-v0", path={"train": str(GSM["train"]), "test": str(tmp_path)})
    with pytest.raises(ValueError, match=r"empty\.jsonl has no problems; each needs a line such as .*\"question\": "):
        Dataset(path=write(tmp_path / "empty.jsonl", [""]))
    with pytest.raises(ValueError, match="give path or dataset, not both"):
        GSM8K(path=PROBLEMS, dataset="openai/gsm8k")
    with pytest.raises(ValueError, match=r'give path="problems\.jsonl", a mapping'):
        gymnasium.make("espo_gym/JSONL-v0")
    with pytest.raises(ValueError, match=r"lacks the field \{question\}"):
        Dataset(path=PROBLEMS, template="Solve it.")
    with pytest.raises(TypeError, match="GSM8K has no argument 'file'"):
        gymnasium.make("espo_gym/GSM8K-v0", file="x")


def test_an_empty_split_is_named(tmp_path):
    task = Dataset(path=write(tmp_path / "one.jsonl", [GOOD]))
    [full] = [split for split in task.splits if task.size(split)]
    for split in set(task.splits) - {full}:
        with pytest.raises(ValueError, match=f"the split '{split}' of .*one.jsonl is empty: .*{full} has 1"):
            task.problem(split, 0)
        with pytest.raises(ValueError, match=f"the split '{split}' of 'jsonl' is empty: .*{full} has 1"):
            TextEnv(task, split=split)
        with pytest.raises(ValueError, match=f"the split '{split}' of 'jsonl' is empty"):
            TextEnv(task, split=full).reset(options={"split": split})
    with pytest.raises(ValueError, match="unknown split 'dev'"):
        task.problem("dev", 0)


def test_without_the_datasets_package_the_message_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(
        ImportError, match=r"'openai/gsm8k' needs the package datasets: pip install 'espo-gym\[datasets\]'"
    ):
        GSM8K()


HUB = """
import itertools, shutil, struct, sys
from pathlib import Path
import datasets
from espo_gym.envs import AIME, GSM8K, Dataset

folder, data = Path(sys.argv[1]), Path(sys.argv[2])
task = GSM8K(dataset=str(folder / "files"))
print(task.splits, task.size("train"), task.size("test"), sorted({task.problem("test", s).answer for s in range(3)}))

saved = datasets.load_dataset(str(folder / "files"))
saved.save_to_disk(str(folder / "saved"))
print(GSM8K(dataset=str(folder / "saved")).problem("test", 1) == task.problem("test", 1))

saved["train"].save_to_disk(str(folder / "single"))
print(GSM8K(dataset=str(folder / "single")).splits, AIME(dataset=str(folder / "single"), question="question").splits)

for arguments in ({"dataset": str(folder / "files"), "question": "prompt"}, {"dataset": str(folder / "nowhere")}):
    try:
        Dataset(**arguments)
    except (OSError, ValueError) as error:
        print(type(error).__name__, error)

shutil.copytree(folder / "single", folder / "empty")
(folder / "empty" / "state.json").write_text("{}")
[arrow] = (folder / "single").glob("*.arrow")
ends = itertools.accumulate(len(row["question"].encode()) for row in saved["train"])
offsets = struct.pack("<3i", 0, *itertools.islice(ends, 2))
assert arrow.read_bytes().count(offsets) == 1
arrow.write_bytes(arrow.read_bytes().replace(offsets, struct.pack("<3i", 0, 2**31 - 1, 2**30)))
for name in ("empty", "single"):
    try:
        GSM8K(dataset=str(folder / name))
    except OSError as error:
        print("refused:", " ".join(str(error).split()))
"""


def test_hugging_face_folders(tmp_path):
    pytest.importorskip("datasets")
    (tmp_path / "files").mkdir()
    for split, file in GSM.items():
        (tmp_path / "files" / f"{split}.jsonl").write_bytes(file.read_bytes())
    result = subprocess.run(
        [sys.executable, "-c", HUB, str(tmp_path), str(DATA)],
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[1],
        env={**os.environ, "HF_HOME": str(tmp_path / "home"), "HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"},
    )
    lines = result.stdout.splitlines()
    assert lines[0] == "('train', 'test') 5 3 ['15', '210', '25000']", result.stderr
    assert lines[1] == "True"
    assert lines[2] == "('train', 'validation', 'test') ('test',)"
    assert "files, split 'train', row 0: no field 'prompt' (available: 'question', 'answer')" in lines[3]
    assert "nowhere' could not be loaded: " in lines[4] and "Without a network give path=..." in result.stdout
    empty, damaged = (line for line in lines if line.startswith("refused:"))
    assert "empty' could not be loaded: KeyError: " in empty
    assert "single' could not be loaded: " in damaged and "offset" in damaged  # without a check the process dies
    assert result.returncode == 0
