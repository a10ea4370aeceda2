"""A checkpoint that was damaged, or changed by a tool, is refused in one line that names it, and never made whole."""

import json
import os
import pickle
import stat
import struct
import tempfile
import warnings
import zipfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load, save
from tiny import SMALL, same_state, state, tiny_policy

from espo_gym.algorithms import PPO, PolicyOptimizer
from espo_gym.archive import unpack
from espo_gym.cli.main import main

Parts = dict[str, bytes]
MODEL, STATE, OPTIMIZER = "policy/model.safetensors", "state.json", "optimizer.safetensors"
POLICIES = ("policy", "policy/critic", "reference")


@pytest.fixture(scope="module")
def trained() -> PPO:
    """With everything that a checkpoint can hold: value head, critic, reference, moments."""
    return PPO(tiny_policy(), "espo_gym/Addition-v0", **SMALL, critic="separate", reference_kl=True).learn(8)


@pytest.fixture(scope="module")
def parts(trained, tmp_path_factory) -> Parts:
    with zipfile.ZipFile(trained.save(tmp_path_factory.mktemp("whole") / "x")) as zipped:
        return {name: zipped.read(name) for name in zipped.namelist()}


@pytest.fixture
def zipped(tmp_path) -> Callable[[Parts], Path]:
    def write(parts: Parts) -> Path:
        with zipfile.ZipFile(tmp_path / "changed.zip", "w") as file:
            for name, data in parts.items():
                file.writestr(name, data)
        return tmp_path / "changed.zip"

    return write


def refusal(path: Path) -> str:
    """The one line that says why ``path`` is not loaded."""
    with pytest.raises(ValueError) as caught:
        PolicyOptimizer.load(path, device="cpu")
    message = str(caught.value)
    assert str(path) in message and "\n" not in message and len(message) < 900
    return message


def equal(a: PolicyOptimizer, b: PolicyOptimizer) -> bool:
    a_moments, b_moments = (x.optimizer.state_dict()["state"] for x in (a, b))
    return (
        same_state(state(a.policy), state(b.policy))
        and all(getattr(a, name) == getattr(b, name) for name in (*a.hyperparameters(), "num_timesteps", "n_updates"))
        and all(torch.equal(a_moments[i][name], m) for i, named in b_moments.items() for name, m in named.items())
        and a.diagnostics.state() == b.diagnostics.state()
    )


def test_what_is_whole_is_loaded(trained, parts, zipped):
    assert equal(PolicyOptimizer.load(zipped(parts), device="cpu"), trained)


# -- tensors ---------------------------------------------------------------------------------------------------------


def changed(data: bytes, how: str) -> bytes:
    """The tensors in ``data``, the last of them changed."""
    tensors = load(data)
    name = max(tensors)
    if how == "missing":
        del tensors[name]
    elif how == "extra":
        tensors["extra"] = torch.zeros(2)
    elif how == "shape":
        tensors[name] = torch.zeros(*tensors[name].shape, 2)
    else:
        tensors[name].view(-1)[0] = float(how)
    return save(tensors, metadata={"format": "pt"})


@pytest.mark.parametrize("how", ["missing", "extra", "shape", "nan", "inf"])
@pytest.mark.parametrize("part", [*(f"{p}/model.safetensors" for p in POLICIES), "policy/value_head.safetensors"])
def test_a_policy_with_other_tensors_is_refused(part, how, parts, zipped):
    words = {"missing": "lack|Missing key", "extra": "hold|Unexpected key", "shape": "instead of|size mismatch"}
    with pytest.raises(ValueError, match=words.get(how, "holds NaN or an infinity")):
        raise ValueError(refusal(zipped(parts | {part: changed(parts[part], how)})))


@pytest.mark.parametrize("name", ["step", "exp_avg", "exp_avg_sq"])
@pytest.mark.parametrize("how", ["missing", "shape", "nan", "inf", "-1", "dtype"])
def test_moments_that_are_not_those_of_the_parameters_are_refused(name, how, parts, zipped):
    tensors = load(parts[OPTIMIZER])
    key = f"3.{name}"
    if how == "missing":
        del tensors[key]
    elif how in ("shape", "dtype"):
        tensors[key] = tensors[key][None] if how == "shape" else tensors[key].double()
    elif (name, how) == ("exp_avg", "-1"):
        return  # a mean of gradients may be negative
    else:
        tensors[key].view(-1)[0] = float(how)
    message = refusal(zipped(parts | {OPTIMIZER: save(tensors)}))
    assert "model.layers" in message and name in message


def test_moments_of_other_parameters_or_of_another_number_of_steps_are_refused(parts, zipped):
    tensors = load(parts[OPTIMIZER])
    fewer = {key: value for key, value in tensors.items() if not key.startswith("3.")}
    assert "lacks the moments of parameter model.model.layers" in refusal(zipped(parts | {OPTIMIZER: save(fewer)}))
    assert "lacks the moments" in refusal(zipped(parts | {OPTIMIZER: save({})}))
    more = tensors | {f"999.{name}": tensors[f"3.{name}"].clone() for name in ("step", "exp_avg", "exp_avg_sq")}
    assert "number 999, which there is not" in refusal(zipped(parts | {OPTIMIZER: save(more)}))
    assert "'x.step', which is no moment" in refusal(zipped(parts | {OPTIMIZER: save({"x.step": torch.zeros(())})}))
    values = json.loads(parts[STATE])
    for n_updates, words in (
        (0, "after 0 updates there must be those of 0 parameters"),
        (1, "took 2 steps, the run 1"),
    ):
        values["counters"]["n_updates"] = n_updates
        assert words in refusal(zipped(parts | {STATE: json.dumps(values).encode()}))


@pytest.mark.parametrize("left_out", ["policy/value_head", "policy/critic/", "reference/"])
def test_a_network_that_is_trained_or_measured_from_is_not_made_anew(left_out, parts, zipped):
    kept = {name: data for name, data in parts.items() if not name.startswith(left_out)}
    assert "lacks" in refusal(zipped(kept))


def test_a_divergence_may_be_measured_from_now_on(tmp_path):
    path = PPO(tiny_policy(), "espo_gym/Addition-v0", **SMALL).learn(8).save(tmp_path / "x")
    assert PPO.load(path, device="cpu", reference_kl=True).reference is not None


def test_a_head_may_forbid_tokens_by_a_bias_of_minus_infinity(tmp_path):
    policy = tiny_policy()
    head: Any = policy.model.get_output_embeddings()
    head.bias = torch.nn.Parameter(torch.zeros(policy.vocab_size))
    head.bias.data[3] = -torch.inf
    from espo_gym.policy.loading import check_finite

    check_finite(policy.model, forbidding=[head.bias])
    with pytest.raises(ValueError, match="bias holds NaN or an infinity"):
        check_finite(policy.model)


# -- state.json ------------------------------------------------------------------------------------------------------


def places(values: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The keys that lead to each value in nested objects, and to the first of each array."""
    for key, value in values.items() if isinstance(values, dict) else list(enumerate(values))[:1]:
        yield (*path, key)
        if isinstance(value, dict | list):
            yield from places(value, (*path, key))


def replaced(data: bytes, path: tuple[Any, ...], change: Callable[[Any, Any], Any]) -> bytes:
    values = inner = json.loads(data)
    for key in path[:-1]:
        inner = inner[key]
    change(inner, path[-1])
    return json.dumps(values).encode()


def put(inner: Any, key: Any, value: Any) -> None:
    inner[key] = value


def test_a_state_that_lacks_any_field_is_refused(parts, zipped):
    wanted = [p for p in places(json.loads(parts[STATE])) if isinstance(p[-1], str)]
    assert len(wanted) > 60
    for path in wanted:
        if path[:2] in (("shortcuts", "checked"), ("env", "kwargs")) and len(path) == 3:
            continue  # any number of them is a state
        refusal(zipped(parts | {STATE: replaced(parts[STATE], path, lambda inner, key: inner.pop(key))}))


def test_a_state_with_a_value_of_another_type_is_refused(parts, zipped):
    for i, path in enumerate(places(json.loads(parts[STATE]))):
        wrong: Any = ([[]], {"a": {}}, [None], {})[i % 4]
        data = replaced(parts[STATE], path, partial(put, value=wrong))
        if path not in (("shortcuts", "checked"), ("env", "kwargs")) or wrong != {}:
            refusal(zipped(parts | {STATE: data}))


@pytest.mark.parametrize(
    ("path", "value", "words"),
    [
        (("counters", "n_updates"), float("nan"), "n_updates of counters of state.json must be int, not nan"),
        (("counters", "n_updates"), -1, "n_updates must be at least 0, not -1"),
        (("counters", "n_rollouts"), 1.5, "must be int, not 1.5"),
        (("counters", "n_predictions"), True, "must be int, not True"),
        (("counters", "luck"), 1, "'luck', which this version does not know"),
        (("hyperparameters", "luck"), 1, "luck, which is no hyperparameter of PPO"),
        (("hyperparameters", "gamma"), 2.0, "gamma must be in"),
        (("hyperparameters", "clip_low"), float("nan"), "clip_low must be float, not nan"),
        (("hyperparameters", "reference_kl"), "no", "reference_kl must be bool, not 'no'"),
        (("luck",), 1, "'luck', which this version does not know"),
        (("format",), 99, "format 99, this version reads"),
        (("dtype",), "load", "dtype must be one of"),
        (("autocast",), "int8", "autocast must be one of"),
        (("sampler",), "luck", "sampler must be one of"),
        (("shortcuts", "checked", "luck"), True, "luck=True is no outcome"),
        (("env", "id"), "CartPole-v1", "language model reads and writes text"),
        (("env", "kwargs", "luck"), 1, "luck"),
        (("diagnostics", "streaks", "ratio_one"), -1, "must be at least 0"),
        (("diagnostics", "warned"), ["luck"], "'luck', which this version does not know"),
    ],
)
def test_a_value_that_no_run_has_is_refused_by_name(path, value, words, parts, zipped):
    data = replaced(parts[STATE], path, partial(put, value=value))
    assert words in refusal(zipped(parts | {STATE: data}))


def test_a_hyperparameter_that_is_missing_is_no_default_but_may_be_given(parts, zipped, trained):
    path = zipped(
        parts | {STATE: replaced(parts[STATE], ("hyperparameters", "gamma"), lambda inner, key: inner.pop(key))}
    )
    assert "lacks the hyperparameter gamma of PPO" in refusal(path)
    assert equal(PPO.load(path, device="cpu", gamma=trained.gamma), trained)


# -- files -----------------------------------------------------------------------------------------------------------


def test_a_part_that_is_missing_cut_or_something_else_is_refused(trained, parts, zipped, capfd):
    """Where the library that reads a part takes what was put there, the content has to be the same."""
    optional = ("generation_config.json", "tokenizer_config.json")
    for name, data in parts.items():
        if name.startswith(("reference/", "policy/critic/")):
            continue  # read by the same code
        broken = {
            "cut": data[: len(data) // 2],
            "empty": b"",
            "null": b"null",
            "list": b"[]",
            "bits": b"\xff\xfe" + data,
        }
        for how, other in broken.items():
            path = zipped(parts | {name: other})
            try:
                assert equal(PolicyOptimizer.load(path, device="cpu"), trained), (name, how)
                assert name.endswith(optional), (name, how)
            except ValueError as error:
                assert str(path) in str(error) and "\n" not in str(error), (name, how)
        if not name.endswith(optional):
            refusal(zipped({other: data for other, data in parts.items() if other != name}))


@pytest.mark.parametrize("part", [MODEL, OPTIMIZER, "policy/value_head.safetensors"])
@pytest.mark.parametrize("header", [0, 2**31, 2**60, 2**64 - 1])
def test_a_header_of_any_size_is_refused(part, header, parts, zipped):
    refusal(zipped(parts | {part: struct.pack("<Q", header) + parts[part][8:]}))


def test_a_pickle_is_not_even_read(parts, zipped, tmp_path):
    class Evil:
        def __reduce__(self) -> tuple[Any, ...]:
            return os.mkdir, (str(tmp_path / "ran"),)

    without = {name: data for name, data in parts.items() if name != MODEL}
    assert "model.safetensors" in refusal(zipped(without | {"policy/pytorch_model.bin": pickle.dumps(Evil())}))
    assert not (tmp_path / "ran").exists()


@pytest.fixture
def nothing_unpacked(tmp_path, monkeypatch) -> Iterator[None]:
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    extracted = []
    monkeypatch.setattr(zipfile.ZipFile, "_extract_member", lambda *args: extracted.append(args))
    yield
    assert not extracted and not list(folder.iterdir())


@pytest.mark.usefixtures("nothing_unpacked")
class TestNothingIsUnpacked:
    def test_of_what_is_compressed(self, parts, tmp_path):
        path = tmp_path / "bomb.zip"
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
            for name, data in parts.items():
                file.writestr(name, data)
            file.writestr("policy/zeros.safetensors", bytes(2**24))
        assert path.stat().st_size < 2**20 and "is compressed" in refusal(path)

    @pytest.mark.parametrize(
        "name",
        ["../evil", "policy/../../evil", "/evil", "policy//evil", "evil", "policy/.evil", "policy/a/b/c/d", "policy/"],
    )
    def test_of_what_has_another_name(self, name, parts, zipped):
        assert "no part of a checkpoint" in refusal(zipped(parts | {name: b""}))

    def test_of_a_link(self, parts, tmp_path):
        link = zipfile.ZipInfo("policy/link")
        link.external_attr = (stat.S_IFLNK | 0o777) << 16
        with zipfile.ZipFile(tmp_path / "x.zip", "w") as file:
            for name, data in parts.items():
                file.writestr(name, data)
            file.writestr(link, "/etc/passwd")
        assert "'policy/link', which is no part" in refusal(tmp_path / "x.zip")

    def test_of_two_parts_of_one_name(self, parts, tmp_path):
        with zipfile.ZipFile(tmp_path / "x.zip", "w") as file, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            for name, data in [*parts.items(), (STATE, parts[STATE])]:
                file.writestr(name, data)
        assert "'state.json' more than once" in refusal(tmp_path / "x.zip")

    @pytest.mark.parametrize("size", [2**31 - 1, 2**32 - 2])
    def test_of_parts_that_declare_more_than_the_file_has(self, size, parts, zipped):
        path = zipped(parts)
        data = bytearray(path.read_bytes())
        entry = data.rfind(b"PK\x01\x02")  # of the last part: its two sizes
        data[entry + 20 : entry + 28] = struct.pack("<II", size, size)
        path.write_bytes(data)
        assert "bytes unpacked, the file has" in refusal(path)


def test_a_field_that_stands_in_the_state_twice_is_refused(parts, zipped):
    twice = parts[STATE].replace(b'"n_updates":', b'"n_updates": 7, "n_updates":')
    assert twice != parts[STATE] and "has a field twice" in refusal(zipped(parts | {STATE: twice}))


def test_a_place_before_the_start_of_the_file_is_refused(parts, zipped):
    path = zipped(parts)
    data = bytearray(path.read_bytes())
    end = data.rfind(b"PK\x05\x06")
    data[end + 16 : end + 20] = struct.pack("<I", 2**32 - 2)
    path.write_bytes(data)
    refusal(path)


def test_a_full_disk_is_not_the_files_fault(parts, zipped, tmp_path, monkeypatch):
    def full(*args: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(zipfile.ZipFile, "_extract_member", full)
    with pytest.raises(OSError, match="No space left"):
        unpack(zipped(parts), tmp_path)


def test_the_command_line_says_it_in_one_line(parts, zipped):
    from click.testing import CliRunner

    for data in (b"[]", b"{}", b"[" * 100_000):
        result = CliRunner().invoke(main, ["eval", str(zipped(parts | {STATE: data}))])
        assert result.exit_code == 1 and isinstance(result.exception, SystemExit)
        assert result.output.startswith("Error: ") and result.output.count("\n") == 1
