"""Tier 2: splits an answer into tokens; the tables of known commands; and a cursor over the tokens."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import lru_cache
from typing import Any, TypeVar

from .clock import mentions_clock, read_clock

Node = tuple[Any, ...]
"""A tree, see ``parse.py``: its kind, then its parts. Plain tuples are cheap to build and to compare."""
T = TypeVar("T")

MAX_LENGTH = 4000
"""Longest answer that is parsed, in characters."""
MAX_TOKENS = 1500
MAX_DEPTH = 40
"""Deepest nesting of brackets, groups and arguments."""
MAX_NUMBER_DIGITS = 400


class Unreadable(Exception):
    """The text is not in the grammar."""


class TooLarge(Exception):
    """The text, its nesting or a value in it exceeds the bounds."""


def _set(names: str) -> frozenset[str]:
    return frozenset(names.split())


FUNCTIONS = _set(
    "sin cos tan cot sec csc arcsin arccos arctan arccot sinh cosh tanh ln log lg exp sqrt asin acos atan "
    "max min gcd lcm"
)
WORD_COMMANDS = {"infinity": "infty", "inf": "infty", "oo": "infty", **{f: f for f in (*FUNCTIONS, "pi", "infty")}}
GREEK = _set(
    "alpha beta gamma delta epsilon varepsilon zeta eta theta vartheta iota kappa lambda mu nu xi rho varrho sigma tau "
    "upsilon phi varphi chi psi omega Gamma Delta Theta Lambda Xi Pi Sigma Upsilon Phi Psi Omega ell hbar odot oplus "
    "star prime aleph nabla partial imath jmath bullet dagger"
)
RELATIONS = {
    **{"=": "=", "<": "<", ">": ">", "<=": "<=", ">=": ">=", "!=": "!=", "<>": "!="},
    **{"\\lt": "<", "\\gt": ">", "\\le": "<=", "\\leq": "<=", "\\leqslant": "<=", "\\leqq": "<="},
    **{"\\ge": ">=", "\\geq": ">=", "\\geqslant": ">=", "\\geqq": ">=", "\\ne": "!=", "\\neq": "!="},
    **{"\\in": "in", "\\approx": "~", "\\simeq": "~", "\\doteq": "~"},
}
SET_OPERATIONS = {"\\cup": "cup", "\\bigcup": "cup", "\\cap": "cap", "\\setminus": "diff", "\\backslash": "diff"}
FONTS = _set(
    "text textbf textit textrm textnormal mbox mathrm mathbf mathit mathsf boldsymbol bm operatorname mathcal mathfrak "
    "mathscr"
)
ACCENTS = _set("bar overline hat widehat vec tilde widetilde dot ddot overrightarrow underline")
CLOSING = {"(": ")]", "[": ")]", "\\{": ("\\}",), "{": "}", "\\langle": ("\\rangle",)}
FUNCTION_LETTERS = _set("f g h F G H \\Phi \\phi \\varphi \\psi \\Psi \\delta \\zeta")
"""Letters that are functions if a parenthesis follows; ``x(x+1)`` is a product."""
ENVIRONMENTS = _set("matrix pmatrix bmatrix Bmatrix vmatrix Vmatrix smallmatrix array cases aligned")
STOPS = _set(
    "\\} \\rangle \\rfloor \\rceil \\mid \\vert \\end \\\\ \\pm \\mp \\cdot \\times \\div \\ast \\wedge \\vee \\land "
    "\\lor \\not \\right \\to \\mod \\pmod \\bmod \\equiv \\Rightarrow \\rightarrow \\subset \\subseteq \\notin "
    "\\ldots \\dots \\cdots"
)
"""Commands that end a product of juxtaposed factors."""

_TOKEN = re.compile(
    r"(?P<space>\s+)|(?P<number>(?:[0-9]+(?:\.[0-9]+)?|\.[0-9]+)(?:[eE][-+]?[0-9]{1,4}(?![A-Za-z0-9.]))?|[0-9]+\.(?=\s|$))|"
    r"(?P<command>\\[A-Za-z]+|\\.)|(?P<word>[A-Za-z]+'*)|(?P<op><=|>=|!=|<>|\*\*)|(?P<char>.)",
    re.DOTALL,
)
_THOUSANDS = re.compile(r"[0-9]{1,3}(?:,[0-9]{3})+(?:\.[0-9]+)?(?![0-9,])")


_STARTS = sorted(
    (*(FUNCTIONS - {"max", "min", "gcd", "lcm"}), *GREEK, "pi", "infty", "cdot", "times"), key=len, reverse=True
)
_COMMANDS = _set(
    "cosec coth sech csch arcsec arccsc arsinh arcosh artanh cdots lnot lgroup null pitchfork nulldelimiterspace"
)
"""Commands that begin with the name of another and have one or two letters more."""


@lru_cache(maxsize=1024)
def _run_together(command: str) -> str | None:
    r"""The command in ``\cosx`` or ``\lambdakT``, which data sets write without spaces; None for any other."""
    name = command[1:]
    if name in FUNCTIONS or name in GREEK or name in _COMMANDS:
        return None
    start = next((start for start in _STARTS if name.startswith(start)), None)
    return "\\" + start if start and 0 < len(name) - len(start) <= 2 else None


def tokenize(text: str, thousands: bool) -> list[str]:
    """The tokens of ``text``; a run of spaces is one token " ".

    With ``thousands``, ``1,234`` outside brackets is one number. Raises ``Unreadable`` for characters outside ASCII and
    ``TooLarge`` beyond the bounds.
    """
    if len(text) > MAX_LENGTH:
        raise TooLarge
    tokens: list[str] = []
    at = depth = 0
    clocks = mentions_clock(text)
    while at < len(text):
        if clocks and text[at].isdigit() and (at == 0 or text[at - 1] not in "0123456789.:"):
            time = read_clock(text, at)
            if time is not None:
                tokens.append(text[at : time[2]])
                at = time[2]
                continue
        if thousands and depth == 0 and text[at].isdigit() and (at == 0 or text[at - 1] not in "0123456789.,"):
            grouped = _THOUSANDS.match(text, at)
            if grouped and not grouped.group().startswith("0"):
                tokens.append(grouped.group().replace(",", ""))
                at = grouped.end()
                continue
        match = _TOKEN.match(text, at)
        assert match is not None
        at = match.end()
        kind, token = match.lastgroup, match.group()
        if kind == "space":
            if tokens and tokens[-1] != " ":
                tokens.append(" ")
            continue
        if kind == "char":
            depth += (token in "([{") - (token in ")]}")
            if not token.isascii() and token != "°":
                raise Unreadable
        elif token in ("\\{", "\\}"):
            depth += 1 if token == "\\{" else -1
        if kind == "number" and len(token) > MAX_NUMBER_DIGITS:
            raise TooLarge
        if kind == "command" and len(token) > 3:
            command = _run_together(token)
            if command:
                tokens.append(command)
                at = match.start() + len(command)
                continue
        tokens.append("^" if token == "**" else token)
        if len(tokens) > MAX_TOKENS:
            raise TooLarge
    return tokens


class Cursor:
    """A position in the tokens of a text, with the state of what encloses it.

    The methods named after parts of the grammar (here and in subclasses) read that part from the current position and
    return its tree; they raise ``Unreadable`` if it is not there and ``TooLarge`` beyond the bounds.
    """

    def __init__(self, text: str, thousands: bool) -> None:
        raw = tokenize(text, thousands)
        # spaces matter only inside \text{} and before a unit: keep them separately
        self.tokens = [token for token in raw if token != " "]
        self.spaced = [i > 0 and raw[i - 1] == " " for i, token in enumerate(raw) if token != " "]
        self.at = 0
        self.depth = 0
        self.bars = 0
        self.in_set = 0
        self.running: list[str] = []  # the variables of the enclosing sums

    # ---- tokens

    def peek(self, ahead: int = 0) -> str:
        """The current token, or one ``ahead`` of it, without moving; "" after the end."""
        at = self.at + ahead
        return self.tokens[at] if at < len(self.tokens) else ""

    def take(self) -> str:
        """The current token; moves past it. At the end it is "", and the position stays there."""
        token = self.peek()
        self.at += bool(token)
        return token

    def accept(self, *tokens: str) -> bool:
        """Move past the current token if it is one of ``tokens``; returns whether it was."""
        if self.at < len(self.tokens) and self.tokens[self.at] in tokens:
            self.at += 1
            return True
        return False

    def expect(self, token: str) -> None:
        """Move past ``token``. Raises ``Unreadable`` if it is not the current token."""
        if not self.accept(token):
            raise Unreadable

    def nested(self, read: Callable[[], T]) -> T:
        """What ``read`` returns, one level deeper. Raises ``TooLarge`` if that is too deep."""
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise TooLarge
        result = read()
        self.depth -= 1
        return result

    def text_argument(self) -> str:
        """The content of ``\\text{...}`` with its spaces; the current token is the command."""
        self.at += 1
        self.expect("{")
        text, depth = "", 1
        while True:
            if self.at >= len(self.tokens):
                raise Unreadable
            token = self.tokens[self.at]
            depth += (token == "{") - (token == "}")
            text += " " if self.spaced[self.at] else ""
            self.at += 1
            if depth == 0:
                return text
            text += token


def is_font(token: str) -> bool:
    r"""Whether a token is a font command such as ``\text``."""
    return token[:1] == "\\" and token[1:] in FONTS


def letter(name: str, primes: str) -> Node:
    """The tree of a letter with primes: a variable, or the constant e or i."""
    if not primes and name in ("e", "i"):
        return ("const", name)
    return ("sym", name + primes)


def renamed(node: Node, suffix: str) -> Node:
    """The variable ``node`` with ``suffix`` added to its name. Raises ``Unreadable`` if it is not a variable."""
    if node[0] != "sym":
        raise Unreadable
    return ("sym", node[1] + suffix)


def in_base(node: Node, base: str) -> Node:
    """A number written in another base, as ``71_8``. Raises ``Unreadable`` unless both are integers."""
    value = node[1]
    if value.denominator != 1 or not base.isdigit() or len(base) > 2:
        raise Unreadable
    return ("base", value.numerator, int(base))


def product(left: Node, right: Node) -> Node:
    """The product of two trees, flattened. Raises ``Unreadable`` if one of them is text or the first has a unit."""
    if left[0] in ("text", "unit") or right[0] == "text":
        raise Unreadable
    return ("mul", (*left[1], right)) if left[0] == "mul" else ("mul", (left, right))
