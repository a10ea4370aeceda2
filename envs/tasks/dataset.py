"""JSONL-v0, GSM8K-v0, MATH500-v0 and AIME-v0: problems from files and from the Hugging Face Hub."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from os import PathLike
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ..checks import check_choice, check_template
from ..task import BOXED, Problem, Task, split_of, stable_hash
from .dataset_rows import Row, field, load_hub, read_jsonl, reference

if TYPE_CHECKING:
    from ..verifier import Conventions

HASH_SPLITS = ("train", "validation", "test")


class Dataset(Task):
    r"""Problems with reference answers from a file of JSON lines or a Hugging Face data set.

    ## Description

    A single file is split by a stable hash of the question, 80% train, 10% validation, 10% test, so that a question
    that occurs twice is in one split only. A mapping from splits to files, or a data set with its own splits, is used
    as is. Within a split the seeds 0 .. n-1 visit each of its n problems once in random order, n .. 2n-1 once more in
    another order, and so on.

    ## Observation

    The question.

    ## Action

    A text with the answer in ``\boxed{}``, after ``####``, after "answer is", or at its end.

    ## Reward

    1 if the answer is equivalent to the reference, else 0. The reference is a number (27.0 means 27) or a text, of
    which only the part after the last ``####`` counts if it has one, as in GSM8K.

    ## Arguments

    Either ``path`` or ``dataset`` is required.

    | Argument | Type | Default | Meaning |
    |---|---|---|---|
    | `path` | `str`, path, or mapping from splits to those | `None` | a file of JSON lines, or one per split |
    | `dataset` | `str` | `None` | id on the Hugging Face Hub or local folder, instead of `path` |
    | `name` | `str` | `None` | the configuration of `dataset` |
    | `question` | `str` | `"question"` | the field with the question |
    | `answer` | `str` | `"answer"` | the field with the reference answer |
    | `template` | `str` | `"{question}"` | the prompt with the field `{question}` |
    | `conventions` | `str`, `Conventions` | `"strict"` | what the verifier accepts besides an equal answer |
    | `form` | `str`, function | `None` | the form in which a right answer must be written, such as `"factored"` |
    | `system_prompt` | `str` | `None` | for chat models; `None` asks for an answer in `\boxed{}`, `""` is none |
    | `verifier` | `str` | `"standard"` | `"audit"` re-checks a share of the verdicts with an independent method |
    | `audit_share` | `float` | `0.1` | that share, above 0 and at most 1 |

    ## Example

    ```python
    >>> import json, pathlib
    >>> import espo_gym, gymnasium
    >>> row = {"question": "What is 2+3?", "answer": "5"}
    >>> _ = pathlib.Path("problems.jsonl").write_text(json.dumps(row))
    >>> env = gymnasium.make("espo_gym/JSONL-v0", path={"test": "problems.jsonl"})
    >>> env.reset(seed=0)[0]
    'What is 2+3?'
    >>> env.step("The answer is 5.")[1]
    1.0

    ```

    ## Version history

    - v0: first version.
    """

    name = "jsonl"
    system_prompt = BOXED
    hub: str | None = None
    """Default data set, used without ``path`` and ``dataset``."""
    hub_name: str | None = None
    """Its configuration."""
    question_field = "question"
    answer_field = "answer"
    for_test_only = False
    """Put a single file into the split "test" as a whole: for benchmarks with few problems."""

    def __init__(
        self,
        *,
        path: str | PathLike[str] | Mapping[str, str | PathLike[str]] | None = None,
        dataset: str | None = None,
        name: str | None = None,
        question: str | None = None,
        answer: str | None = None,
        template: str = "{question}",
        conventions: str | Conventions | None = None,
        form: str | Callable[[str, str], bool] | None = None,
        **kwargs: Any,
    ) -> None:
        """Reads all problems.

        Raises FileNotFoundError if a file is missing, ImportError without the package ``datasets``, OSError if a data
        set cannot be loaded, and ValueError for a malformed row, a data set without problems, a bad template, unknown
        conventions, an unknown form, or unless exactly one of ``path`` and ``dataset`` is given.
        """
        super().__init__(**kwargs)
        if conventions is not None:
            from ..verifier.conventions import conventions_of

            self.conventions = conventions_of(conventions)
        if form is not None:
            from ..verifier.forms import form_of

            self.form = form_of(form)[1]
        self.template = check_template("template", template, ("question",))
        self.question_field = question or self.question_field
        self.answer_field = answer or self.answer_field
        if path is not None and dataset is not None:
            raise ValueError(f"give path or dataset, not both: {path!r}, {dataset!r}")
        if path is None and dataset is None:
            dataset, name = self.hub, name or self.hub_name
        if path is None and dataset is None:
            raise ValueError(
                'give path="problems.jsonl", a mapping from splits to files, or dataset="..." from the Hub'
            )
        self.source = str(path if dataset is None else dataset)
        given: Mapping[str, Iterable[Row]]
        if dataset is not None:
            given = load_hub(dataset, name)
        elif isinstance(path, Mapping):
            given = {split: read_jsonl(file) for split, file in path.items()}
        else:
            given = {"train": read_jsonl(path)}  # type: ignore[arg-type]
        self._problems = self._assign({split: [self._problem(row) for row in rows] for split, rows in given.items()})
        self.splits = tuple(self._problems)
        self._order: dict[str, tuple[int, npt.NDArray[np.int64]]] = {}  # split -> (last epoch, its permutation)

    def problem(self, split: str, seed: int) -> Problem:
        """Raises ValueError for an unknown or an empty split."""
        problems = self._problems[check_choice("split", split, self.splits)]
        if not problems:
            raise ValueError(f"the split {split!r} of {self.source} is empty: {self._counts()}")
        epoch, position = divmod(seed, len(problems))
        if self._order.get(split, (-1,))[0] != epoch:
            rng = self.generator(stable_hash(split), epoch)
            self._order[split] = (epoch, rng.permutation(len(problems)))
        return problems[int(self._order[split][1][position])]

    def size(self, split: str) -> int | None:
        return len(self._problems[check_choice("split", split, self.splits)])

    def _problem(self, row: Row) -> Problem:
        where, fields = row
        question = field(fields, self.question_field, where)
        if not isinstance(question, str) or not question.strip():
            raise ValueError(f"{where}: the question must be a non-empty string, not {question!r}")
        answer = reference(field(fields, self.answer_field, where), where)
        return Problem(self.template.format(question=question), answer, " ".join(question.casefold().split()))

    def _assign(self, given: dict[str, list[Problem]]) -> dict[str, list[Problem]]:
        if not any(given.values()):
            raise ValueError(f"{self.source} has no problems; each needs a line such as {self._example()}")
        if list(given) != ["train"]:
            return given
        if self.for_test_only:
            return {"test": given["train"]}
        splits: dict[str, list[Problem]] = {split: [] for split in HASH_SPLITS}
        for problem in given["train"]:
            splits[split_of(self.name, problem.key)].append(problem)
        return splits

    def _example(self) -> str:
        return f'{{"{self.question_field}": "What is 2+3?", "{self.answer_field}": "5"}}'

    def _counts(self) -> str:
        return ", ".join(f"{split} has {len(problems)}" for split, problems in self._problems.items())


class GSM8K(Dataset):
    r"""Grade-school word problems (Cobbe et al. 2021, arXiv:2110.14168).

    ## Description

    ``JSONL-v0`` with defaults for ``openai/gsm8k``: 7473 problems in train, 1319 in test. The answer is an integer
    after ``####``.

    ## Observation, Action, Reward

    As in ``JSONL-v0``.

    ## Arguments

    Without ``path`` and ``dataset`` the problems come from the Hub.

    | Argument | Type | Default | Meaning |
    |---|---|---|---|
    | `path` | `str`, path, or mapping from splits to those | `None` | a file of JSON lines, or one per split |
    | `dataset` | `str` | `"openai/gsm8k"` | id on the Hugging Face Hub or local folder, instead of `path` |
    | `name` | `str` | `"main"` | the configuration of `dataset` |
    | `question` | `str` | `"question"` | the field with the question |
    | `answer` | `str` | `"answer"` | the field with the reference answer |
    | `template` | `str` | `"{question}"` | the prompt with the field `{question}` |
    | `conventions` | `str`, `Conventions` | `"strict"` | what the verifier accepts besides an equal answer |
    | `form` | `str`, function | `None` | the form in which a right answer must be written, such as `"factored"` |
    | `system_prompt` | `str` | `None` | for chat models; `None` asks for an answer in `\boxed{}`, `""` is none |
    | `verifier` | `str` | `"standard"` | `"audit"` re-checks a share of the verdicts with an independent method |
    | `audit_share` | `float` | `0.1` | that share, above 0 and at most 1 |

    ## Example

    ```python
    >>> import json, pathlib
    >>> import espo_gym, gymnasium
    >>> row = {"question": "Ann has 2 apples and buys 3. How many?", "answer": "2+3=5\\n#### 5"}
    >>> _ = pathlib.Path("test.jsonl").write_text(json.dumps(row))
    >>> env = gymnasium.make("espo_gym/GSM8K-v0", path={"test": "test.jsonl"})
    >>> env.reset(seed=0)[0]
    'Ann has 2 apples and buys 3. How many?'
    >>> env.step("She has 5 apples. #### 5")[1]
    1.0

    ```

    ## Version history

    - v0: first version.
    """

    name = "gsm8k"
    hub, hub_name = "openai/gsm8k", "main"


class MATH500(Dataset):
    r"""500 problems of the MATH test set (Hendrycks et al. 2021; selected by Lightman et al. 2023).

    ## Description

    ``JSONL-v0`` with defaults for ``HuggingFaceH4/MATH-500``. All problems are in the split "test". Answers are
    numbers, expressions, intervals, tuples, matrices or words.

    ## Observation, Action, Reward

    As in ``JSONL-v0``.

    ## Arguments

    Without ``path`` and ``dataset`` the problems come from the Hub.

    | Argument | Type | Default | Meaning |
    |---|---|---|---|
    | `path` | `str`, path, or mapping from splits to those | `None` | a file of JSON lines, or one per split |
    | `dataset` | `str` | `"HuggingFaceH4/MATH-500"` | id on the Hugging Face Hub or local folder, instead of `path` |
    | `name` | `str` | `None` | the configuration of `dataset` |
    | `question` | `str` | `"problem"` | the field with the question |
    | `answer` | `str` | `"answer"` | the field with the reference answer |
    | `template` | `str` | `"{question}"` | the prompt with the field `{question}` |
    | `conventions` | `str`, `Conventions` | `"strict"` | what the verifier accepts besides an equal answer |
    | `form` | `str`, function | `None` | the form in which a right answer must be written, such as `"factored"` |
    | `system_prompt` | `str` | `None` | for chat models; `None` asks for an answer in `\boxed{}`, `""` is none |
    | `verifier` | `str` | `"standard"` | `"audit"` re-checks a share of the verdicts with an independent method |
    | `audit_share` | `float` | `0.1` | that share, above 0 and at most 1 |

    ## Example

    ```python
    >>> import json, pathlib
    >>> import espo_gym, gymnasium
    >>> row = {"problem": r"Simplify $\frac{6}{8}$.", "answer": r"\frac{3}{4}"}
    >>> _ = pathlib.Path("math.jsonl").write_text(json.dumps(row))
    >>> env = gymnasium.make("espo_gym/MATH500-v0", path="math.jsonl")
    >>> env.reset(seed=0)[0]
    'Simplify $\\frac{6}{8}$.'
    >>> env.step(r"It is $\boxed{\dfrac34}$.")[1]
    1.0

    ```

    ## Version history

    - v0: first version.
    """

    name = "math500"
    hub = "HuggingFaceH4/MATH-500"
    question_field = "problem"
    for_test_only = True


class AIME(Dataset):
    r"""Problems of the American Invitational Mathematics Examination; answers are integers from 0 to 999.

    ## Description

    ``JSONL-v0`` with defaults for ``HuggingFaceH4/aime_2024``, 30 problems, all in the split "test". For other years
    and the AMC pass ``path`` or ``dataset``.

    ## Observation, Action, Reward

    As in ``JSONL-v0``.

    ## Arguments

    Without ``path`` and ``dataset`` the problems come from the Hub.

    | Argument | Type | Default | Meaning |
    |---|---|---|---|
    | `path` | `str`, path, or mapping from splits to those | `None` | a file of JSON lines, or one per split |
    | `dataset` | `str` | `"HuggingFaceH4/aime_2024"` | id on the Hugging Face Hub or local folder, instead of `path` |
    | `name` | `str` | `None` | the configuration of `dataset` |
    | `question` | `str` | `"problem"` | the field with the question |
    | `answer` | `str` | `"answer"` | the field with the reference answer |
    | `template` | `str` | `"{question}"` | the prompt with the field `{question}` |
    | `conventions` | `str`, `Conventions` | `"strict"` | what the verifier accepts besides an equal answer |
    | `form` | `str`, function | `None` | the form in which a right answer must be written, such as `"factored"` |
    | `system_prompt` | `str` | `None` | for chat models; `None` asks for an answer in `\boxed{}`, `""` is none |
    | `verifier` | `str` | `"standard"` | `"audit"` re-checks a share of the verdicts with an independent method |
    | `audit_share` | `float` | `0.1` | that share, above 0 and at most 1 |

    ## Example

    ```python
    >>> import json, pathlib
    >>> import espo_gym, gymnasium
    >>> row = {"problem": "Find the remainder when 2^10 is divided by 1000.", "answer": 24}
    >>> _ = pathlib.Path("aime.jsonl").write_text(json.dumps(row))
    >>> env = gymnasium.make("espo_gym/AIME-v0", path="aime.jsonl")
    >>> env.reset(seed=0)[0]
    'Find the remainder when 2^10 is divided by 1000.'
    >>> env.step(r"\boxed{024}")[1]
    1.0

    ```

    ## Version history

    - v0: first version.
    """

    name = "aime"
    hub = "HuggingFaceH4/aime_2024"
    question_field = "problem"
    for_test_only = True
