"""The process in which math-verify runs, a separate interpreter started by path; it never imports this package.

It limits its memory and the files that it may write, imports math-verify and forks. One fork answers questions; if it
hangs and is killed, the next one takes its place in milliseconds, without another import. The process itself never sees
a question. (It may fork: it has one thread and nothing but sympy in it.)

The fork reads frames (4 bytes of length, then JSON) from stdin and writes one to stdout for each. Before it reads the
first one it installs an audit hook that ends the process at the first event that arithmetic does not need: starting a
process, opening a socket, opening a file for writing, loading a library, compiling or executing code that does not come
from an installed module. Audit hooks cannot be removed.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import select
import signal
import sys
from types import CodeType
from typing import Any

VIOLATION = 86
"""Exit status of a process ended by the audit hook."""

_DENIED_EVENTS = """
os.system os.exec os.fork os.forkpty os.posix_spawn os.spawn os.startfile subprocess.Popen pty.spawn
os.remove os.rename os.rmdir os.mkdir os.link os.symlink os.truncate os.chmod os.chown os.chdir os.utime os.mkfifo
shutil.rmtree shutil.copyfile shutil.move shutil.chown
os.kill os.killpg os.putenv os.unsetenv code.__new__ pickle.find_class webbrowser.open sys.setprofile sys.settrace
builtins.input signal.pthread_kill cpython.run_command cpython.run_file cpython.run_stdin cpython.run_startup
"""
_DENIED_FAMILIES = ("socket.", "ctypes.", "http.", "urllib.", "ftplib.", "smtplib.", "telnetlib.", "winreg.", "mmap.")
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND


def lock_down(roots: tuple[str, ...]) -> None:
    """From here on this process can only compute and reply. ``roots``: the folders of installed modules."""
    denied, families, stop, violation = frozenset(_DENIED_EVENTS.split()), _DENIED_FAMILIES, os._exit, VIOLATION

    def installed(filename: object) -> bool:
        if isinstance(filename, bytes):
            filename = filename.decode("utf-8", "replace")
        return isinstance(filename, str) and (
            filename.startswith("<frozen ") or (".." not in filename and filename.startswith(roots))
        )

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open":
            path, mode, flags = (*arguments, None, None, None)[:3]
            writes = (isinstance(flags, int) and flags & _WRITING) or (isinstance(mode, str) and mode.strip("rbtU"))
            if not writes and installed(path):
                return
        elif event == "compile":
            if installed(arguments[1]):
                return
        elif event == "exec":
            code = arguments[0]
            if isinstance(code, CodeType) and code.co_name == "<module>" and installed(code.co_filename):
                return
        elif event not in denied and not event.startswith(families):
            return
        stop(violation)

    sys.addaudithook(hook)


def limit(memory_mb: int) -> None:
    """Limit the address space, core dumps and file sizes of this process and its forks."""
    import resource

    for what, amount in (("RLIMIT_CORE", 0), ("RLIMIT_FSIZE", 0), ("RLIMIT_AS", memory_mb << 20)):
        with contextlib.suppress(AttributeError, ValueError, OSError):  # macOS refuses some, a container may refuse all
            resource.setrlimit(getattr(resource, what), (amount, amount))


def load() -> Any:
    """The comparison of math-verify, with every part run once so that nothing is imported after ``lock_down``."""
    import logging

    logging.disable(logging.CRITICAL)
    import sympy
    from latex2sympy2_extended.latex2sympy2 import NormalizationConfig
    from math_verify import LatexExtractionConfig, grader, parse, parser, verify

    # Both catch every Exception and continue to "different". Running out of memory or stack must not look like that.
    kinds = [kind for kind in Exception.__subclasses__() if not issubclass(kind, (MemoryError, RuntimeError))]
    grader.Exception = parser.Exception = (*kinds, NotImplementedError)

    plain = NormalizationConfig(
        basic_latex=True, units=True, malformed_operators=True, nits=True, boxed="all", equations=False
    )
    configs = [LatexExtractionConfig(boxed_match_priority=0, normalization_config=plain)]

    def read(answer: str) -> list[Any]:
        # Only LaTeX is extracted: math-verify's other extractors pass strings to parse_expr, which evaluates them.
        try:
            found = parse("$" + answer + "$", configs, parsing_timeout=None)
        except Exception as error:
            if type(error) is Exception:  # how the LaTeX parser reports a syntax error
                return []
            raise
        return [tree for tree in found if not isinstance(tree, str)]

    def compare(answer: str, reference: str) -> str:
        gold = read(reference)
        if not gold:
            return "unreadable_reference"
        given = read(answer)
        if not given:
            return "unreadable_answer"
        equal = verify(gold, given, float_rounding=12, numeric_precision=30, strict=True, timeout_seconds=None)
        return "equal" if equal else "different"

    def number(text: str, *_: object, **__: object) -> Any:
        if re.fullmatch(r"[0-9]{1,400}(?:\.[0-9]{0,400})?|\.[0-9]{1,400}", text.strip()):
            return sympy.Rational(text.strip())
        raise ValueError("not a number")

    # sympify evaluates strings as Python, and the LaTeX parser passes it every number.
    sympy.parsing.sympy_parser.parse_expr = number
    # Polynomials generate and execute source code for their monomial arithmetic.
    sympy.polys.monomials.MonomialOps._build = lambda _self, _code, name: _MONOMIALS[name]
    for a, b in _WARM_UP:
        compare(a, b)
    return compare


def _monomial_div(a: tuple[int, ...], b: tuple[int, ...]) -> tuple[int, ...] | None:
    quotient = tuple(x - y for x, y in zip(a, b, strict=True))
    return quotient if all(power >= 0 for power in quotient) else None


_MONOMIALS = {
    "monomial_mul": lambda a, b: tuple(x + y for x, y in zip(a, b, strict=True)),
    "monomial_pow": lambda a, k: tuple(x * k for x in a),
    "monomial_mulpow": lambda a, b, k: tuple(x + y * k for x, y in zip(a, b, strict=True)),
    "monomial_ldiv": lambda a, b: tuple(x - y for x, y in zip(a, b, strict=True)),
    "monomial_div": _monomial_div,
    "monomial_lcm": lambda a, b: tuple(map(max, a, b)),
    "monomial_gcd": lambda a, b: tuple(map(min, a, b)),
}
_WARM_UP = (
    (r"\int_0^1 x^2 dx", r"\frac{1}{3}"),
    (r"\int \sin(x) dx", r"-\cos(x)"),
    (r"\lim_{x \to 0} \frac{\sin x}{x}", "1"),
    (r"\sum_{k=1}^{\infty} \frac{1}{k^2}", r"\frac{\pi^2}{6}"),
    (r"\frac{d}{dx} x^3", "3x^2"),
    (r"x^2-5x+6=0", r"(x-2)(x-3)=0"),
    (r"(-\infty,1)\cup(2,\infty)", r"x<1 \text{ or } x>2"),
    (r"1 < x < 2", "(1,2)"),
    (r"\{1,2,3\}", r"\{3,2,1\}"),
    (r"\begin{pmatrix}1&2\\3&4\end{pmatrix}", r"\begin{bmatrix}1&2\\3&5\end{bmatrix}"),
    (r"\log_2 8 + \sqrt[3]{x} + |x| + \binom{5}{2} + 5!", "x"),
    (r"\sin^2 x+\cos^2 x", "1"),
    (r"x=3, y=4", r"(3,4)"),
    (r"\prod_{k=1}^{3} k", "6"),
)


def receive() -> Any:
    """The next frame from stdin, None at its end."""
    head = _read(4)
    return json.loads(_read(int.from_bytes(head, "big"))) if len(head) == 4 else None


def _read(count: int) -> bytes:
    data = b""
    while len(data) < count:  # unbuffered: what is not read here is left for the next fork
        chunk = os.read(0, count - len(data))
        if not chunk:
            return b""
        data += chunk
    return data


def send(message: str) -> None:
    """Write a frame."""
    data = json.dumps(message).encode()
    os.write(REPLIES, len(data).to_bytes(4, "big") + data)  # short enough to be written completely or not at all


def answer_questions(compare: Any) -> None:
    """Answer questions until stdin ends.

    A timer enforces the ``deadline`` as well, should the parent and the process that watches it be gone.
    """
    nowhere = os.open(os.devnull, os.O_WRONLY)  # the parent reads stderr only until the worker is ready
    os.dup2(nowhere, 1)
    os.dup2(nowhere, 2)
    folders = [os.path.join(folder, "") for entry in sys.path for folder in (entry, os.path.realpath(entry))]
    lock_down(tuple(folders))
    send("ready")
    while (question := receive()) is not None:
        signal.setitimer(signal.ITIMER_REAL, question["deadline"] + 2.0)
        try:
            result = compare(question["answer"], question["reference"])
        except MemoryError:
            result = "memory"
        except RecursionError:
            result = "unreadable_answer"
        except Exception:
            result = "crash"
        signal.setitimer(signal.ITIMER_REAL, 0)
        send(result)


def main() -> None:
    """Read the setup, import math-verify, and keep one fork answering until stdin ends."""
    # What the calling process blocks or ignores is inherited: the signals that end a question must arrive.
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    setup = receive()
    if setup is None:
        return
    sys.path[:] = [entry for entry in setup["path"] if os.path.isabs(entry)]
    limit(setup["memory_mb"])
    compare = load()
    serving = 0

    def stop_fork(*_: object) -> None:
        if serving:  # not waited for yet, so the id cannot belong to another process
            os.kill(serving, signal.SIGKILL)

    signal.signal(signal.SIGUSR1, stop_fork)
    while True:
        watched, held = os.pipe()
        serving = os.fork()
        if serving == 0:
            signal.signal(signal.SIGUSR1, signal.SIG_DFL)
            os.close(watched)
            answer_questions(compare)
            os._exit(0)
        os.close(held)  # now the fork alone holds it, until its end
        hangup = select.poll()
        hangup.register(watched, select.POLLHUP)
        hangup.register(0, select.POLLHUP)
        if watched not in dict(hangup.poll()):  # the parent has gone, and the fork may be busy with its question
            os.kill(serving, signal.SIGKILL)
            return
        os.close(watched)
        _, status = os.waitpid(serving, 0)
        serving = 0
        if status == 0:  # stdin has ended
            return
        reason = "memory" if os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGSEGV else "crash"
        send("ended " + reason)


if __name__ == "__main__":
    # Output of a library must not get between two frames: frames go to a copy of stdout, print() to stderr.
    REPLIES = os.dup(1)
    os.dup2(2, 1)
    main()
