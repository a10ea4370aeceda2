"""Files that survive a kill: written whole or not at all, synced, and temporary folders that nobody leaves for good."""

import errno
import json
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from safetensors import SafetensorError
from tiny import not_none

from espo_gym import files
from espo_gym.files import partial_file, scratch, sync, write_json, write_text
from espo_gym.policy.language_model import writing

ROOT = Path(__file__).parents[1]


def in_process(code: str, *arguments: object) -> subprocess.Popen:
    """Run ``code`` in a process of its own; its standard input and output are pipes."""
    return subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def kill(process: subprocess.Popen) -> None:
    process.send_signal(signal.SIGKILL)
    process.wait()
    for pipe in (process.stdin, process.stdout):
        not_none(pipe).close()


class TestWriting:
    def test_an_error_leaves_the_old_file_and_nothing_else(self, tmp_path):
        path = tmp_path / "a.json"
        write_json(path, "old")
        with pytest.raises(ZeroDivisionError), partial_file(path) as part:
            part.write_text("ne")
            raise ZeroDivisionError
        assert json.loads(path.read_text()) == "old" and os.listdir(tmp_path) == ["a.json"]

    @pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="needs /proc")
    def test_contents_are_on_the_disk_before_the_name_and_then_the_name(self, tmp_path, monkeypatch):
        """In the order of SQLite: a power cut must not leave an empty file under the final name."""
        happened = []

        def note(name, call):
            def noted(*arguments):
                happened.append((name, str(arguments[-1] if name == "replace" else arguments[0])))
                return call(*arguments)

            return noted

        monkeypatch.setattr(os, "replace", note("replace", os.replace))
        monkeypatch.setattr(files, "sync", note("sync", sync))
        synced = []
        monkeypatch.setattr(os, "fsync", lambda descriptor: synced.append(os.readlink(f"/proc/self/fd/{descriptor}")))
        write_text(tmp_path / "a.txt", "x")
        part, path = str(tmp_path / ".a.txt.part"), str(tmp_path / "a.txt")
        assert happened == [("sync", part), ("replace", path), ("sync", str(tmp_path))]
        assert synced == [part, str(tmp_path)]

    @pytest.mark.parametrize("error", [SafetensorError("No space left"), Exception("No space left")])
    def test_an_error_of_the_disk_in_another_library_is_one(self, error):
        with pytest.raises(OSError, match=r"here could not be written: No space left"), writing("here"):
            raise error
        with pytest.raises(KeyError), writing("here"):  # an error of the program
            raise KeyError

    def test_an_error_of_the_disk_is_raised(self, tmp_path, monkeypatch):
        write_text(tmp_path / "a.txt", "old")

        def failing(descriptor):
            raise OSError(errno.EIO, os.strerror(errno.EIO))

        monkeypatch.setattr(os, "fsync", failing)
        with pytest.raises(OSError, match="Input/output"):
            write_text(tmp_path / "a.txt", "new")
        assert (tmp_path / "a.txt").read_text() == "old" and os.listdir(tmp_path) == ["a.txt"]

    def test_a_file_system_that_cannot_sync_folders(self, tmp_path, monkeypatch):
        def failing(descriptor):
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))

        monkeypatch.setattr(os, "fsync", failing)
        sync(tmp_path)
        (tmp_path / "a").touch()
        with pytest.raises(OSError, match="Invalid"):
            sync(tmp_path / "a")


@pytest.mark.skipif(os.name == "nt", reason="no locks")
class TestScratch:
    HOLD = "import sys; from pathlib import Path; from espo_gym.files import scratch\n" + (
        "with scratch(Path(sys.argv[1]), 'x-') as folder:\n"
        "    (folder / 'a').touch(); print(folder, flush=True); sys.stdin.read()"
    )

    def test_it_is_removed_even_after_an_error(self, tmp_path):
        with pytest.raises(ZeroDivisionError), scratch(tmp_path, "x-") as folder:
            (folder / "a").touch()
            raise ZeroDivisionError
        assert not os.listdir(tmp_path)

    def test_what_a_killed_process_left_is_removed_and_what_a_living_one_uses_is_not(self, tmp_path):
        processes = [in_process(self.HOLD, tmp_path) for _ in range(2)]
        try:
            killed, living = (Path(not_none(process.stdout).readline().strip()) for process in processes)
            kill(processes[0])
            assert killed.is_dir() and killed != living
            (tmp_path / "other").mkdir()
            with scratch(tmp_path, "x-") as folder:
                assert set(tmp_path.iterdir()) == {folder, living, tmp_path / "other"}
                assert (living / "a").is_file()
        finally:
            for process in processes:
                kill(process)

    def test_many_at_a_time_do_not_take_each_others(self, tmp_path):
        """One that has been made and not yet locked may be taken for one that was left behind: then another is made."""

        def use(number: int) -> bool:
            with scratch(tmp_path, "x-") as folder:
                (folder / "a").write_text(str(number))
                time.sleep(0.001)
                return (folder / "a").read_text() == str(number)

        with ThreadPoolExecutor(8) as threads:  # a lock belongs to an open file, so threads are as good as processes
            assert all(threads.map(use, range(100)))
        assert not os.listdir(tmp_path)

    def test_a_link_is_neither_followed_nor_removed(self, tmp_path):
        (tmp_path / "precious").mkdir()
        (tmp_path / "precious" / "a").touch()
        (tmp_path / "x-link").symlink_to(tmp_path / "precious")
        with scratch(tmp_path, "x-"):
            pass
        assert (tmp_path / "precious" / "a").is_file() and (tmp_path / "x-link").is_symlink()

    def test_another_users_folder_is_left_alone(self, tmp_path, monkeypatch):
        (tmp_path / "x-theirs").mkdir()
        monkeypatch.setattr(os, "getuid", lambda: os.stat(tmp_path).st_uid + 1)
        with pytest.raises(PermissionError), files._reserved(tmp_path / "x-theirs", wait=False):
            pass
        assert (tmp_path / "x-theirs").is_dir()
