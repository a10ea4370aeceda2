"""A bounded part of the faults, and faults of the library that are planted to see whether they are found."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from . import crash, damage, jobs, shim
from .server import Server

if reason := shim.missing():
    pytest.skip(reason, allow_module_level=True)

KILL, TORN, LIE = (next(fault for fault in shim.FAULTS if fault.kind == kind) for kind in ("kill", "torn", "lie"))


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with Server() as running:
        yield running


@pytest.fixture(scope="module")
def tiny(server: Server, tmp_path_factory: pytest.TempPathFactory) -> crash.Bench:
    """A run of two rollouts."""
    return crash.Bench(server, crash.train_job(jobs.TINY), tmp_path_factory.mktemp("faults"))


def calls_of(code: str, folder: Path) -> list[str]:
    """What the shim sees of a process that does ``code`` in ``folder``, as ``name file``."""
    control = shim.control_file(folder.with_name("control"), shim.NONE, [folder])
    environment = shim.environment() | {"FAULTS_CONTROL": str(control)}
    subprocess.run([sys.executable, "-c", code], env=environment, cwd=folder, check=True)
    assert shim.count(control) == len(shim.calls(control))
    return [f"{call.name} {Path(call.path).relative_to(folder)}" for call in shim.calls(control)]


def test_the_shim_sees_what_changes_a_folder_and_nothing_else(tmp_path):
    folder = tmp_path / "watched"
    folder.mkdir()
    code = "import os, shutil; os.mkdir('a'); open('a/b', 'w').write('x'); os.replace('a/b', 'c'); open('c').read();"
    code += "open(os.getcwd() + '-no', 'w').write('x'); os.truncate('c', 0); os.symlink('c', 'd'); os.link('c', 'e');"
    code += "fd = os.open('c', os.O_RDWR); os.pwrite(fd, b'1', 0); os.fsync(fd); os.unlink('d'); shutil.rmtree('a')"
    seen = ["mkdir a", "open a/b", "write a/b", "rename c", "truncate c", "symlink d", "link e", "pwrite c", "fsync c"]
    assert calls_of(code, folder) == [*seen, "unlink d", "rmdir a"]


def test_processes_count_together(tmp_path):
    folder = tmp_path / "watched"
    folder.mkdir()
    code = "import os, sys, subprocess; os.mkdir('a'); os.fork() or os._exit(os.mkdir('b') or 0); os.wait();"
    code += "subprocess.run([sys.executable, '-c', 'import os; os.mkdir(\"c\")'])"
    assert calls_of(code, folder) == ["mkdir a", "mkdir b", "mkdir c"]


@pytest.mark.parametrize(
    ("fault", "expected"),
    [
        (shim.Fault("kill", at=2), {"a"}),
        (shim.Fault("torn", at=3), {"a", "b"}),
        (shim.Fault("fail", 28, at=1), {"b", "c"}),
        (shim.Fault("fail on", 5, at=2), {"a"}),
        (shim.Fault("full", 28, at=4), {"b"}),
        (shim.Fault("lie", 5, at=1), {"a", "b", "c"}),
    ],
    ids=lambda value: None if isinstance(value, set) else str(value),
)
def test_each_fault_does_what_it_says(fault, expected, tmp_path):
    folder = tmp_path / "watched"
    folder.mkdir()
    code = "import os\ndef t(f, *a):\n    try: return f(*a)\n    except OSError: pass\n"
    code += "t(os.mkdir, 'a')\nfd = t(os.open, 'b', os.O_CREAT | os.O_WRONLY)\nif fd: t(os.write, fd, b'12345678')\n"
    code += "t(os.mkdir, 'c')\n" + ("t(os.rmdir, 'a')\n" if fault.kind == "full" else "")
    control = shim.control_file(tmp_path / "control", fault, [folder])
    environment = shim.environment() | {"FAULTS_CONTROL": str(control)}
    subprocess.run([sys.executable, "-c", code], env=environment, cwd=folder, start_new_session=True)
    assert {path.name for path in folder.iterdir()} == expected
    if fault.kind == "torn":
        assert (folder / "b").read_bytes() == b"1234"


def test_a_run_is_killed_at_some_of_its_calls_and_resumed(tiny):
    calls = list(crash.spread(tiny.whole[1]))
    assert len(calls) > 50, "the shim has seen the run"
    outcomes = [tiny.attempt(KILL, call) for call in calls[3:40:12]]
    assert {outcome.result for outcome in outcomes} == {"survived"}, "\n".join(map(str, outcomes))


@pytest.mark.parametrize("plant", ["write_json_in_place", "archive_in_place", "forget_the_moments"])
def test_faults_of_the_library_are_found(plant, tiny, tmp_path):
    spoiled = crash.Bench(tiny.server, tiny.job, tmp_path, plant=plant)
    fault, name, ending, which = {
        "write_json_in_place": (TORN, "write", "evaluation.json", -1),
        "archive_in_place": (KILL, "sendfile", "checkpoint.zip", -2),  # the last one finds that there is no more
        "forget_the_moments": (KILL, "rename", "checkpoint.zip", -1),
    }[plant]
    at = [call for call in spoiled.whole[1] if call.name == name and call.path.endswith(ending)]
    outcome = spoiled.attempt(fault, at[which])
    assert outcome.result == "lost", str(outcome)


@pytest.mark.slow
@pytest.mark.parametrize("job", crash.JOBS, ids=lambda job: job.name)
def test_every_job_survives_every_fault(job, server, tmp_path):
    """At a call of some kinds each; ``python -m tests.faults`` goes on to all of them."""
    bench = crash.Bench(server, job, tmp_path)
    calls = list(crash.spread(bench.whole[1]))
    outcomes = [
        bench.attempt(fault, call)
        for number, fault in enumerate(shim.FAULTS)
        for call in calls[number : 84 : len(shim.FAULTS)]
    ]
    bad = [str(outcome) for outcome in outcomes if outcome.result != "survived"]
    assert not bad, "\n".join(bad)


@pytest.mark.slow
@pytest.mark.parametrize("subject", damage.SUBJECTS, ids=lambda subject: subject.name)
def test_no_damaged_file_is_taken_for_another(subject, server, tmp_path):
    verdicts = list(damage.Bench(server, subject, tmp_path).verdicts(flips=4))
    bad = [v for v in verdicts if v.result in ("unnamed", "traceback") or (v.result == "other" and v.detectable)]
    assert not bad, "\n".join(map(str, bad))
