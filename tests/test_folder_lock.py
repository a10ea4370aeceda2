"""One process at a time in a folder: who holds it is said, and a lock ends with its process, however that ends."""

import errno
import os
import shutil
import signal
import subprocess
from pathlib import Path

import pytest
from test_files import in_process, kill
from tiny import not_none

from espo_gym.experiments import folder_lock
from espo_gym.experiments.folder_lock import LOCK, FolderLock

pytestmark = pytest.mark.skipif(os.name == "nt", reason="no locks")
HOLD = """
import os, sys, time
from pathlib import Path
from espo_gym.experiments.folder_lock import FolderLock
with FolderLock(Path(sys.argv[1])):
    if len(sys.argv) > 2 and os.fork() == 0:
        time.sleep(600)
    print("locked", flush=True)
    sys.stdin.read()
"""


@pytest.fixture(autouse=True)
def no_patience(monkeypatch):
    monkeypatch.setattr(folder_lock, "PATIENCE", 0.0)


def holding(folder: Path, *arguments: object) -> subprocess.Popen:
    process = in_process(HOLD, folder, *arguments)
    assert not_none(process.stdout).readline() == "locked\n"
    return process


def test_nothing_is_left_behind(tmp_path):
    with FolderLock(tmp_path / "new"):
        pass
    assert not (tmp_path / "new").exists(), "nothing was put there"
    with FolderLock(tmp_path / "new"):
        (tmp_path / "new" / "a").touch()
    assert os.listdir(tmp_path / "new") == ["a"]


def test_an_empty_folder_that_was_there_stays(tmp_path):
    with FolderLock(tmp_path):
        assert os.listdir(tmp_path) == [LOCK]
    assert os.listdir(tmp_path) == [] and tmp_path.is_dir()


def test_the_second_is_refused_and_told_who_holds_it(tmp_path):
    process = holding(tmp_path)
    try:
        with pytest.raises(RuntimeError, match=rf"process {process.pid} on .* \(since 2.*\) is working in"):
            FolderLock(tmp_path).__enter__()
    finally:
        kill(process)


def test_a_lock_of_a_killed_process_is_none(tmp_path):
    kill(holding(tmp_path))
    assert (tmp_path / LOCK).is_file()
    with FolderLock(tmp_path):
        pass
    assert not (tmp_path / LOCK).exists()


def test_a_child_of_a_killed_process_does_not_keep_its_lock(tmp_path, monkeypatch):
    """A vector environment's workers, forked, may outlive a killed parent."""
    monkeypatch.setattr(folder_lock, "PATIENCE", 60.0)  # the child may not have run at all yet
    import psutil

    process = holding(tmp_path, "fork")
    children = psutil.Process(process.pid).children()
    try:
        kill(process)
        assert children and all(child.is_running() for child in children)
        with FolderLock(tmp_path):
            pass
    finally:
        for child in children:
            child.kill()


def test_it_waits_for_a_moment(tmp_path, monkeypatch):
    monkeypatch.setattr(folder_lock, "PATIENCE", 60.0)
    process = holding(tmp_path)
    os.kill(process.pid, signal.SIGKILL)  # not waited for
    with FolderLock(tmp_path):
        pass
    kill(process)


def test_a_folder_that_went_away_is_noticed_and_another_one_in_its_place_is_left_alone(tmp_path):
    with FolderLock(tmp_path / "a") as lock:
        assert lock.held()
        (tmp_path / "a").rename(tmp_path / "b")
        assert not lock.held()
        with FolderLock(tmp_path / "a"):
            assert not lock.held()
            (tmp_path / "a" / "x").touch()
    assert (tmp_path / "a" / "x").is_file()
    shutil.rmtree(tmp_path / "b")


def test_a_file_in_its_place(tmp_path):
    (tmp_path / "a").touch()
    with pytest.raises(NotADirectoryError, match="a is not a folder"):
        FolderLock(tmp_path / "a").__enter__()


def test_a_file_system_without_locks_is_said_to_be_one(tmp_path, monkeypatch):
    def failing(*arguments, **options):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(folder_lock, "lock", failing)
    with pytest.warns(UserWarning, match="no locks on the file system of .*No locks available"), FolderLock(tmp_path):
        pass


def test_a_torn_lock_file_names_nobody(tmp_path):
    process = holding(tmp_path)
    (tmp_path / LOCK).write_text('{"pid": ')
    try:
        with pytest.raises(RuntimeError, match="another process is working in"):
            FolderLock(tmp_path).__enter__()
    finally:
        kill(process)
