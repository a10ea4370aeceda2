"""The process math-verify runs in: killed, starved, crashed, locked down, forked around, and always replaced."""

import ast
import asyncio
import gc
import importlib.util
import multiprocessing
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import psutil
import pytest

import espo_gym.envs.verifier.worker as worker_module
from espo_gym.envs import verify
from espo_gym.envs.verifier import close
from espo_gym.envs.verifier.decide import screened
from espo_gym.envs.verifier.verify import clear_cache
from espo_gym.envs.verifier.worker import POOL

VERIFIER = Path(worker_module.__file__).parent
EASY = (r"\boxed{\int_0^1 2x\,dx}", "1")  # left to math-verify, and answered at once
WRONG = (r"\boxed{\int_0^1 3x\,dx}", "1")
HANGING = (r"\boxed{\sum_{n=1}^{\infty} \frac{\sin(n^{3})}{n^{2}+\ln n}}", r"\int_0^1 x dx")


def ask(*pairs, deadline=20.0, batch_deadline=60.0, memory_mb=1024):
    """The worker's own words, without the tiers before it."""
    results = POOL.ask(pairs, deadline=deadline, batch_deadline=batch_deadline, memory_mb=memory_mb)
    return [outcome for outcome, _ in results]


def statuses(*pairs, **options):
    options.setdefault("deadline", 20.0)
    return [v.status for v in verify([c for c, _ in pairs], [r for _, r in pairs], **options)]


@pytest.fixture(autouse=True)
def _nothing_remembered():
    clear_cache()


@pytest.fixture(autouse=True, scope="module")
def _no_worker_left():
    yield
    close()


def test_the_worker_decides_what_is_left():
    verdicts = verify([EASY[0], WRONG[0]], [EASY[1], WRONG[1]], deadline=20.0)
    assert [v.status for v in verdicts] == ["correct", "incorrect"]
    assert {v.tier for v in verdicts} == {"math-verify"}


def test_a_hang_costs_one_deadline_and_the_next_verdicts_are_right():
    ask(("1", "1"))
    starts, begin = POOL.starts, time.monotonic()
    verdicts = verify([HANGING[0], EASY[0], WRONG[0], EASY[0]], [HANGING[1], EASY[1], WRONG[1], EASY[1]], deadline=1.0)
    assert [v.status for v in verdicts] == ["incorrect", "correct", "incorrect", "correct"]
    assert "timeout" in (verdicts[0].detail or "")  # with the answer, not with the reference
    assert time.monotonic() - begin < 8.0
    assert POOL.starts == starts  # a fork was replaced, not the process


def test_a_batch_of_hangs_is_over_by_its_deadline():
    pairs = [(HANGING[0].replace("n^{2}", f"n^{{2}}+{k}"), HANGING[1]) for k in range(20)]
    begin = time.monotonic()
    assert statuses(*pairs, deadline=0.3, batch_deadline=0.9) == ["no_verdict"] * 20
    assert time.monotonic() - begin < 8.0
    assert statuses(EASY) == ["correct"]


def test_memory_is_limited():
    assert ask(("(a+b+c+d+e)^{60}", "(a+b+c+d+f)^{60}"), memory_mb=100) == ["memory"]
    assert ask((r"\int_0^1 2x dx", "1")) == ["equal"]


def test_a_worker_that_died_is_replaced():
    ask(("1", "1"))
    starts = POOL.starts
    assert POOL.pid is not None
    os.kill(POOL.pid, signal.SIGKILL)
    time.sleep(0.2)
    assert ask((r"\int_0^1 2x dx", "1")) == ["equal"]
    assert POOL.starts == starts + 1


def test_a_fork_that_dies_at_work_is_a_crash_and_is_replaced():
    ask(("1", "1"))
    fork = psutil.Process(POOL.pid).children()[0]
    killer = threading.Timer(0.5, fork.kill)
    killer.start()
    assert ask(
        (HANGING[0][7:-1], HANGING[1]),
        (r"\int_0^1 2x dx", "1"),
    ) == ["crash", "equal"]


def test_without_an_interpreter_there_is_no_verdict_and_no_exception(monkeypatch):
    close()
    with monkeypatch.context() as patched:
        patched.setattr(sys, "executable", "/nonexistent/python")
        with pytest.warns(RuntimeWarning, match="/nonexistent/python"):
            verdict = verify([r"\boxed{\int_0^1 4x\,dx}"], ["2"])[0]
        assert (verdict.status, verdict.reason) == ("no_verdict", "crash")
        assert verdict.detail is not None and "No such file or directory" in verdict.detail
    assert statuses((r"\boxed{\int_0^1 4x\,dx}", "2")) == ["correct"]


def test_a_worker_that_cannot_start_says_why_and_once(tmp_path, monkeypatch):
    """A user's own sympy.py, which Python finds first."""
    close()
    (tmp_path / "sympy.py").write_text("raise ImportError('a sympy of my own')")
    with monkeypatch.context() as patched:
        patched.syspath_prepend(tmp_path)
        with pytest.warns(RuntimeWarning) as told:
            verdicts = [verify([rf"\boxed{{\int_0^1 {n}x\,dx}}"], ["2"])[0] for n in (4, 5)]
    assert [(v.status, v.reason) for v in verdicts] == [("no_verdict", "crash")] * 2
    assert len(told) == 1 and all(v.detail and v.detail in str(told[0].message) for v in verdicts)
    assert "does not start: ImportError: a sympy of my own" in str(told[0].message)


def test_a_worker_that_ends_without_a_word_is_described(monkeypatch):
    close()
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.warns(RuntimeWarning, match="it ends without a word"):
        assert ask(("1", "1")) == ["crash"]


def test_a_worker_that_says_much_is_not_blocked(tmp_path, monkeypatch):
    """More than the pipe of its stderr holds."""
    close()
    (tmp_path / "latex2sympy2_extended").mkdir()
    (tmp_path / "latex2sympy2_extended" / "__init__.py").write_text(
        "import sys; sys.stderr.write('a warning\\n' * 30_000); raise ImportError('x' * 1000)"
    )
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.warns(RuntimeWarning, match="ImportError: x{200,400}[.]"):
        assert ask(("1", "1")) == ["crash"]


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="asks Linux")
def test_signals_that_the_caller_blocks_or_ignores_reach_the_worker():
    """Else a timeout takes two seconds more, until the fork ends itself, or the fork never does."""
    close()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1, signal.SIGALRM})
    handler = signal.signal(signal.SIGALRM, signal.SIG_IGN)
    try:
        ask(("1", "1"))
    finally:
        signal.signal(signal.SIGALRM, handler)
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    assert POOL.pid is not None
    for process in (psutil.Process(POOL.pid), *psutil.Process(POOL.pid).children()):
        status = Path(f"/proc/{process.pid}/status").read_text()
        blocked, ignored = (int(status.split(f"{name}:")[1].split()[0], 16) for name in ("SigBlk", "SigIgn"))
        assert blocked == 0 and not ignored >> (signal.SIGALRM - 1) & 1


def test_a_stopped_worker_is_replaced(monkeypatch):
    """As by a debugger or a job control that stops the whole group of processes."""
    monkeypatch.setattr(worker_module, "RESTART_SECONDS", 0.3)
    ask(("1", "1"))
    starts = POOL.starts
    assert POOL.pid is not None
    for process in (psutil.Process(POOL.pid), *psutil.Process(POOL.pid).children()):
        process.suspend()
    assert ask((r"\int_0^1 2x dx", "1"), deadline=0.3) == ["timeout"]
    assert ask((r"\int_0^1 2x dx", "1")) == ["equal"]
    assert POOL.starts == starts + 1


def test_threads():
    results: dict[int, list[str]] = {}

    def run(k: int) -> None:
        right, wrong = rf"\boxed{{\int_0^1 {2 * k}x\,dx}}", rf"\boxed{{\int_0^1 {2 * k + 1}x\,dx}}"
        results[k] = statuses((right, str(k)), (wrong, str(k)), (rf"\boxed{{{k}}}", str(k)))

    threads = [threading.Thread(target=run, args=(k,)) for k in range(1, 7)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert list(results.values()) == [["correct", "incorrect", "correct"]] * 6


def _in_child(pairs):
    return statuses(*pairs), POOL.pid


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_children(method):
    assert statuses(EASY, WRONG) == ["correct", "incorrect"]
    parents = POOL.pid
    pairs = [(rf"\boxed{{\int_0^1 {2 * k}x\,dx}}", str(k)) for k in (30, 31)]
    with multiprocessing.get_context(method).Pool(1) as pool:
        child_statuses, childs = pool.apply(_in_child, (pairs,))
    assert child_statuses == ["correct"] * 2
    assert childs not in (None, parents)
    assert POOL.pid == parents and psutil.pid_exists(parents)
    assert ask((r"\int_0^1 2x dx", "1")) == ["equal"]


def test_event_loop():
    async def run():
        here = statuses((r"\boxed{\int_0^1 80x\,dx}", "40"))
        there = await asyncio.gather(
            *(asyncio.to_thread(statuses, (rf"\boxed{{\int_0^1 {2 * k}x\,dx}}", str(k))) for k in range(41, 44))
        )
        return [here, *there]

    assert asyncio.run(run()) == [["correct"]] * 4


def test_nothing_is_left_behind():
    close()
    ask(("1", "1"))
    me = psutil.Process()
    descriptors = me.num_fds()
    for _ in range(8):
        assert ask((HANGING[0][7:-1], HANGING[1]), deadline=0.05) == ["timeout"]
    gc.collect()
    assert me.num_fds() == descriptors
    worker = psutil.Process(POOL.pid)
    assert len(worker.children()) == 1 and not [c for c in worker.children() if c.status() == psutil.STATUS_ZOMBIE]
    close()
    assert not worker.is_running()
    assert me.num_fds() == descriptors - 2
    assert not [c for c in me.children(recursive=True) if "_child.py" in " ".join(c.cmdline())]


def _gone(pid: int, seconds: float = 15.0) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
            return True
        time.sleep(0.05)
    return False


def _script(body: str) -> subprocess.Popen[str]:
    code = f"HANGING = {HANGING!r}\n" + textwrap.dedent(
        """
        import os, threading, time
        from espo_gym.envs import verify
        from espo_gym.envs.verifier.worker import POOL
        def tell():
            while not (POOL._worker and POOL._worker.ready):
                time.sleep(0.02)
            time.sleep(0.5)
            print(POOL.pid, flush=True)
        threading.Thread(target=tell, daemon=True).start()
        """
    )
    return subprocess.Popen(
        [sys.executable, "-c", code + textwrap.dedent(body)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def test_ctrl_c_ends_the_question_and_the_worker():
    process = _script("verify([HANGING[0]], [HANGING[1]], deadline=300, batch_deadline=300)")
    assert process.stdout is not None
    worker = int(process.stdout.readline())
    forks = psutil.Process(worker).children()
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=20)
    assert "KeyboardInterrupt" in errors
    assert _gone(worker) and all(_gone(fork.pid) for fork in forks)


@pytest.mark.parametrize("deadline", [1, 300])
def test_a_worker_without_its_parent_ends(deadline):
    process = _script(f"verify([HANGING[0]], [HANGING[1]], deadline={deadline}, batch_deadline=300); time.sleep(60)")
    assert process.stdout is not None
    worker = int(process.stdout.readline())
    forks = psutil.Process(worker).children()
    process.kill()
    process.communicate(timeout=20)
    assert _gone(worker) and all(_gone(fork.pid) for fork in forks)


# ---- nothing that is asked can run


PAYLOADS = {
    "eval": "eval('1+1')",
    "exec": "exec('x = 1')",
    "compile": "compile('1', '<string>', 'eval')",
    "system": "os.system('touch {marker}')",
    "popen": "subprocess.Popen(['touch', {marker!r}])",
    "execv": "os.execv('/bin/touch', ['touch', {marker!r}])",
    "fork": "os.fork()",
    "spawn": "os.posix_spawn('/bin/touch', ['touch', {marker!r}], {{}})",
    "write": "open({marker!r}, 'w')",
    "append": "open({marker!r}, 'a')",
    "os.open": "os.open({marker!r}, os.O_CREAT | os.O_WRONLY)",
    "read": "open('/etc/passwd')",
    "remove": "os.remove({marker!r})",
    "socket": "socket.socket()",
    "library": "ctypes.CDLL(None)",
    "kill": "os.kill(os.getppid(), 0)",
    "code": "(lambda: 0).__code__.replace(co_name='f')",
    "pickle": "pickle.loads(b'cos\\nsystem\\n.')",
}


def _locked_down(statement: str) -> subprocess.CompletedProcess[str]:
    code = f"""
        import ctypes, importlib.util, os, pickle, socket, subprocess, sys
        spec = importlib.util.spec_from_file_location("child", {str(VERIFIER / "_child.py")!r})
        child = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(child)
        child.lock_down(tuple(os.path.join(p, "") for p in sys.path if p))
        {statement}
        os.write(1, b"done")
    """
    return subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True)


@pytest.mark.parametrize("name", PAYLOADS)
def test_the_audit_hook_ends_the_process(name, tmp_path):
    marker = str(tmp_path / "marker")
    result = _locked_down(PAYLOADS[name].format(marker=marker))
    assert (result.returncode, result.stdout) == (86, ""), result.stderr
    assert not os.path.exists(marker)


def test_a_locked_down_process_can_compute_and_import():
    assert _locked_down("import colorsys; assert sum(range(10)) == 45").stdout == "done"


def test_the_verifier_evaluates_no_strings():
    """No file of it names eval, exec, compile, pickle or sympify; the worker's file imports nothing of this package."""
    forbidden = {"eval", "exec", "compile", "__import__", "sympify", "parse_expr", "loads_pickle"}
    for path in VERIFIER.glob("*.py"):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        names = {n.id for n in ast.walk(tree) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Load)}
        modules = {n.names[0].name for n in ast.walk(tree) if isinstance(n, ast.Import)}
        modules |= {n.module or "" for n in ast.walk(tree) if isinstance(n, ast.ImportFrom)}
        assert not names & forbidden, path.name
        assert not modules & {"pickle", "marshal", "multiprocessing", "torch"}, path.name
        if path.name == "_child.py":
            standard = "__future__ contextlib json logging os re resource select signal sys types typing"
            assert modules <= set(standard.split()) | {"sympy", "latex2sympy2_extended.latex2sympy2", "math_verify"}


def test_numbers_are_all_that_sympify_reads_in_the_worker():
    """The LaTeX parser hands sympify every number it reads, and sympify evaluates strings: not here."""
    spec = importlib.util.spec_from_file_location("child", VERIFIER / "_child.py")
    assert spec is not None
    code = f"""
        import importlib.util
        spec = importlib.util.spec_from_file_location("child", {spec.origin!r})
        child = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(child)
        child.load()
        import sympy
        assert sympy.sympify("0.25") == sympy.Rational(1, 4)
        for text in ("x", "1+1", "__import__('os')", "().__class__"):
            try:
                sympy.sympify(text)
            except Exception:
                continue
            raise SystemExit(text)
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(code)], check=True)


def test_the_screen():
    for plain in (r"\int_0^1 x^2 dx", r"\lim_{x \to 0} \frac{\sin x}{x}", r"\{1, 2\}", "x'"):
        assert screened(plain), plain
    for suspicious in (
        "__import__('os')", 'f("x")', "`ls`", "a@b", "x#", "\uff49", "lambda: 0", r"\137\137", "9^9^9", "3!!!!",
        r"10^{99999}",
        "(" * 30 + ")" * 30, "1" * 30, "x" * 700, "2^{3^{4^{5}}}", "eval(1)",
    ):  # fmt: skip
        assert not screened(suspicious), suspicious
