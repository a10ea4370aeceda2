r"""Tier 2, first half: LaTeX arithmetic into a small tree, in bounded time and depth, without sympy and without eval.

A node is a tuple whose first member names its kind:

======================  ==================================================================================
``num`` value           a Fraction
``sym`` name            a variable; ``const`` name: ``e``, ``i``, ``pi``, ``inf``
``add`` ``mul`` nodes   sum and product; ``div`` a b, ``pow`` a b, ``neg`` a, ``root`` n a
``fn`` name node        a known function; ``app`` name nodes: an unknown one, e.g. ``f(x)`` or ``F_{n-k}``
``pm`` a b, ``mp`` a b  a plus or minus b
``sum`` kind v a b t    sum or product over ``v`` from ``a`` to ``b``
``tuple`` [ nodes )     brackets and members; ``set`` nodes, ``builder`` v conditions, ``list`` nodes separators
``cup cap diff`` a b    of sets; ``R``, ``empty``
``rel`` sides ops names a chain of relations; ``names``: which sides are mere names (``x``, ``f(x)``)
``matrix`` rows, ``text`` words, ``base`` digits base, ``ratio`` a b, ``unit`` node unit, ``deg`` node
======================  ==================================================================================

What is not understood raises ``Unreadable``, what is beyond the bounds ``TooLarge``. Nothing is guessed.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from fractions import Fraction
from functools import lru_cache
from typing import Any

from .normal import SHORT_UNITS, read_unit

Node = tuple[Any, ...]

MAX_LENGTH = 4000
"""Characters of an answer that is parsed."""
MAX_TOKENS = 1500
MAX_DEPTH = 40
MAX_NUMBER_DIGITS = 400


class Unreadable(Exception):
    """The text is not in the grammar."""


class TooLarge(Exception):
    """The text, its nesting or a value in it is beyond the bounds."""


_TOKEN = re.compile(
    r"(?P<space>\s+)|(?P<number>(?:[0-9]+(?:\.[0-9]+)?|\.[0-9]+)(?:[eE][-+]?[0-9]{1,4}(?![A-Za-z0-9.]))?|[0-9]+\.(?=\s|$))|"
    r"(?P<command>\\[A-Za-z]+|\\.)|(?P<word>[A-Za-z]+'*)|(?P<op><=|>=|!=|<>|\*\*)|(?P<char>.)",
    re.DOTALL,
)
_THOUSANDS = re.compile(r"[0-9]{1,3}(?:,[0-9]{3})+(?:\.[0-9]+)?(?![0-9,])")
_FUNCTIONS = frozenset(
    "sin cos tan cot sec csc arcsin arccos arctan arccot sinh cosh tanh ln log lg exp sqrt asin acos atan max min gcd lcm".split()
)
_WORD_COMMANDS = {
    "pi": "pi",
    "infty": "infty",
    "infinity": "infty",
    "inf": "infty",
    "oo": "infty",
    **{f: f for f in _FUNCTIONS},
}
_GREEK = frozenset(
    "alpha beta gamma delta epsilon varepsilon zeta eta theta vartheta iota kappa lambda mu nu xi rho varrho sigma tau "
    "upsilon phi varphi chi psi omega Gamma Delta Theta Lambda Xi Pi Sigma Upsilon Phi Psi Omega ell hbar odot oplus star "
    "prime aleph nabla partial imath jmath bullet dagger".split()
)
_RELATIONS = {
    **{"=": "=", "<": "<", ">": ">", "<=": "<=", ">=": ">=", "!=": "!=", "<>": "!="},
    **{"\\lt": "<", "\\gt": ">", "\\le": "<=", "\\leq": "<=", "\\leqslant": "<=", "\\leqq": "<="},
    **{"\\ge": ">=", "\\geq": ">=", "\\geqslant": ">=", "\\geqq": ">=", "\\ne": "!=", "\\neq": "!="},
    **{"\\in": "in", "\\approx": "~", "\\simeq": "~", "\\doteq": "~"},
}
_SET_OPERATIONS = {"\\cup": "cup", "\\bigcup": "cup", "\\cap": "cap", "\\setminus": "diff", "\\backslash": "diff"}
_FONTS = frozenset(
    "text textbf textit textrm textnormal mbox mathrm mathbf mathit mathsf boldsymbol bm operatorname mathcal mathfrak mathscr".split()
)
_ACCENTS = frozenset("bar overline hat widehat vec tilde widetilde dot ddot overrightarrow underline".split())
_CLOSING = {"(": ")]", "[": ")]", "\\{": ("\\}",), "{": "}", "\\langle": ("\\rangle",)}
_FUNCTION_LETTERS = frozenset(
    ("f", "g", "h", "F", "G", "H", "\\Phi", "\\phi", "\\varphi", "\\psi", "\\Psi", "\\delta", "\\zeta")
)
_ENVIRONMENTS = frozenset("matrix pmatrix bmatrix Bmatrix vmatrix Vmatrix smallmatrix array cases aligned".split())
_SEPARATOR_TEXT = re.compile(r"[\s,]*(and|or)[\s,]*", re.IGNORECASE)
_WORD_TEXT = re.compile(r"[A-Za-z][A-Za-z .,'\-]*")


@lru_cache(maxsize=8192)
def _parse_cached(tidied: str, thousands: bool) -> tuple[Node | None, str]:
    try:
        return _Parser(tidied, thousands).answer(), ""
    except Unreadable:
        return None, "unreadable"
    except (TooLarge, RecursionError):
        return None, "too large"


def parse(tidied: str, thousands: bool = True) -> Node:
    """The tree of an answer that ``tidy`` returned. ``thousands``: is ``1,234`` at the top level a number or a list?"""
    node, problem = _parse_cached(tidied, thousands)
    if node is None:
        raise TooLarge if problem == "too large" else Unreadable
    return node


def _tokens(text: str, thousands: bool) -> list[str]:
    if len(text) > MAX_LENGTH:
        raise TooLarge
    tokens: list[str] = []
    at = depth = 0
    while at < len(text):
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
        tokens.append("^" if token == "**" else token)
        if len(tokens) > MAX_TOKENS:
            raise TooLarge
    return tokens


class _Parser:
    def __init__(self, text: str, thousands: bool) -> None:
        raw = _tokens(text, thousands)
        # spaces matter inside \text{} and before a unit only: keep them aside
        self.tokens = [token for token in raw if token != " "]
        self.spaced = [i > 0 and raw[i - 1] == " " for i, token in enumerate(raw) if token != " "]
        self.at = 0
        self.depth = 0
        self.bars = 0
        self.in_set = 0
        self.running: list[str] = []  # the variables of the sums around this place

    # ---- tokens

    def peek(self, ahead: int = 0) -> str:
        at = self.at + ahead
        return self.tokens[at] if at < len(self.tokens) else ""

    def take(self) -> str:
        token = self.peek()
        self.at += 1
        return token

    def accept(self, *tokens: str) -> bool:
        if self.at < len(self.tokens) and self.tokens[self.at] in tokens:
            self.at += 1
            return True
        return False

    def expect(self, token: str) -> None:
        if not self.accept(token):
            raise Unreadable

    def nested(self, read: Callable[[], Any]) -> Any:
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise TooLarge
        result = read()
        self.depth -= 1
        return result

    # ---- answers, lists, relations

    def answer(self) -> Node:
        if not self.tokens:
            raise Unreadable
        node = self.items()
        if self.at < len(self.tokens):
            raise Unreadable
        return node

    def items(self) -> Node:
        """Members separated by commas, semicolons, "and", "or"; one member stands for itself."""
        members, separators = [self.relation()], []
        while True:
            found = self.separator()
            if found is None:
                break
            if self.at >= len(self.tokens) and found == ",":
                break
            separators.append(found)
            members.append(self.relation())
        if len(members) == 1:
            return members[0]
        if ";" in separators and "," in separators:
            return self._groups(members, separators)
        return ("list", tuple(members), tuple("," if s == ";" else s for s in separators))

    @staticmethod
    def _groups(members: list[Node], separators: list[str]) -> Node:
        """``p=5, q=2; p=7, q=2``: groups of values."""
        groups: list[list[Node]] = [[members[0]]]
        for member, separator in zip(members[1:], separators, strict=True):
            if separator == ";":
                groups.append([])
            groups[-1].append(member)
        nodes = [g[0] if len(g) == 1 else ("list", tuple(g), (",",) * (len(g) - 1)) for g in groups]
        return ("list", tuple(nodes), (";",) * (len(nodes) - 1))

    def separator(self) -> str | None:
        found = None
        while self.at < len(self.tokens):
            if self.accept(","):
                found = found or ","
            elif self.accept(";"):
                found = found or ";"
            elif self.peek() in ("and", "or", "\\wedge", "\\vee", "\\land", "\\lor"):
                found = "and" if self.take() in ("and", "\\wedge", "\\land") else "or"
            else:
                word = self._text_separator()
                if word is None:
                    return found
                found = word if found in (None, ",") else found
        return found

    def _text_separator(self) -> str | None:
        if not _is_font(self.peek()) or self.peek(1) != "{":
            return None
        start = self.at
        text = self.text_argument()
        match = _SEPARATOR_TEXT.fullmatch(text)
        if match:
            return match[1].lower()
        self.at = start
        return None

    def relation(self) -> Node:
        sides, operators, names = [], [], []
        while True:
            start = self.at
            sides.append(self.nested(self.set_expression))
            names.append(self._is_name(start, self.at, sides[-1]))
            token = self.peek()
            if token == "\\not" and self.peek(1) == "=":
                self.at += 1
                operators.append("!=")
            elif token in _RELATIONS:
                operators.append(_RELATIONS[token])
            else:
                break
            self.at += 1
        if not operators:
            return sides[0]
        if "~" in operators:  # 16/3 = 5.33..: what stands before the approximation, if that is a value
            cut = operators.index("~")
            if cut == 0 and names[0]:
                operators[0] = "="
                return ("rel", tuple(sides[:2]), ("=",), tuple(names[:2]))
            sides, operators, names = sides[: cut + 1], operators[:cut], names[: cut + 1]
            if not operators:
                return sides[0]
        return ("rel", tuple(sides), tuple(operators), tuple(names))

    def _is_name(self, start: int, end: int, node: Node) -> bool:
        """Is the side a mere name, as in ``x``, ``x_1``, ``f(x)``, ``f^{-1}(x)``, ``(x, y)``?"""
        if node[0] == "sym" or node[0] == "app":
            return True
        if node[0] == "tuple":
            return all(member[0] == "sym" for member in node[2])
        if node[0] == "text":
            return True
        first = self.tokens[start] if start < end else ""
        if not (first.isalpha() and len(first) == 1 or first[1:] in _GREEK) or self.tokens[end - 1] != ")":
            return (
                node[0] == "mul"
                and all(factor[0] == "sym" for factor in node[1])
                and "".join(factor[1] for factor in node[1]).isupper()
            )
        at = start + 1
        while at < end and self.tokens[at] != "(":  # a subscript or an exponent
            if self.tokens[at] not in "^_{}-'\\prime" and not self.tokens[at].isalnum():
                return False
            at += 1
        depth = 0
        for at in range(at, end):
            depth += (self.tokens[at] == "(") - (self.tokens[at] == ")")
            if depth == 0:
                return at == end - 1
        return False

    def set_expression(self) -> Node:
        node = self.sum()
        while True:
            token = self.peek()
            if token in _SET_OPERATIONS:
                self.at += 1
                node = (_SET_OPERATIONS[token], node, self.sum())
            elif token == "U" and node[0] in ("tuple", "cup", "set") and self.peek(1) in ("(", "[", "\\{"):
                self.at += 1
                node = ("cup", node, self.sum())
            else:
                return node

    # ---- arithmetic

    def sum(self) -> Node:
        node = self.signed_term()
        while True:
            token = self.peek()
            if token == "+":
                self.at += 1
                right = self.signed_term()
                node = ("add", (*node[1], right)) if node[0] == "add" else ("add", (node, right))
            elif token == "-":
                self.at += 1
                right = ("neg", self.signed_term())
                node = ("add", (*node[1], right)) if node[0] == "add" else ("add", (node, right))
            elif token in ("\\pm", "\\mp"):
                self.at += 1
                node = (token[1:], node, self.signed_term())
            else:
                return node

    def signed_term(self) -> Node:
        negative = False
        for _ in range(8):
            if self.accept("-"):
                negative = not negative
            elif self.accept("\\pm"):
                node: Node = ("pm", ("num", Fraction(0)), self.term())
                return ("neg", node) if negative else node
            elif self.accept("\\mp"):
                return ("mp", ("num", Fraction(0)), self.term())
            elif not self.accept("+"):
                break
        else:
            raise TooLarge
        node = self.term()
        return ("neg", node) if negative else node

    def term(self) -> Node:
        start = self.at
        node = self.factor()
        if node[0] == "text":
            return node
        numeric = node[0] == "num"
        while True:
            token = self.peek()
            if token in ("\\cdot", "\\times", "*", "\\ast"):
                self.at += 1
                node = _product(node, self.signed_factor())
            elif token in ("/", "\\div"):
                self.at += 1
                node = ("div", node, self.signed_factor())
            elif token == ":" and not self.in_set:
                self.at += 1
                node = ("ratio", node, self.signed_factor())
            elif token in ("%", "°"):
                self.at += 1
                node = ("deg", node) if token == "°" else ("unit", node, "%")
            elif self.starts_factor(token):
                if numeric and self.at == start + 1 and token == "\\frac":
                    mixed = self.mixed(node)
                    if mixed is not None:
                        node = mixed
                        continue
                unit = self.unit() if _constant(node) else None
                if unit is not None:
                    return ("deg", node) if unit == "°" else ("unit", node, unit)
                if token[0].isdigit() or token[0] == ".":
                    if self.tokens[self.at - 1][0].isdigit():
                        raise Unreadable  # 1 2
                node = _product(node, self.factor())
            else:
                return node

    def signed_factor(self) -> Node:
        if self.accept("-"):
            return ("neg", self.signed_factor_once())
        self.accept("+")
        return self.factor()

    def signed_factor_once(self) -> Node:
        if self.peek() in "+-":
            raise Unreadable
        return self.factor()

    def starts_factor(self, token: str) -> bool:
        if not token:
            return False
        if token == "|":
            return self.bars == 0 and not self.in_set
        if token[0] == "\\":
            return token not in _RELATIONS and token not in _SET_OPERATIONS and token not in _STOPS and not self._and()
        return token[0].isalnum() and token not in ("and", "or") or token in "([{." or token[0] == "."

    def _and(self) -> bool:
        start = self.at
        found = self._text_separator() is not None
        self.at = start
        return found

    def mixed(self, whole: Node) -> Node | None:
        """``2\\frac{1}{3}`` is two and a third; ``2\\frac{x}{3}`` a product."""
        start = self.at
        fraction = self.factor()
        if fraction[0] == "div" and fraction[1][0] == fraction[2][0] == "num" and whole[1].denominator == 1:
            top, bottom = fraction[1][1], fraction[2][1]
            if top.denominator == bottom.denominator == 1 and 0 < top < bottom and self.peek() not in ("^", "!"):
                return ("num", whole[1] + top / bottom)
        self.at = start
        return None

    def unit(self) -> str | None:
        """The unit at this place, if the rest of the item is one."""
        start = self.at
        text, at = "", self.at
        while at < len(self.tokens) and self.tokens[at] not in (
            ",",
            ";",
            "=",
            ")",
            "]",
            "\\}",
            "and",
            "or",
            "&",
            "\\\\",
        ):
            if at - start > 40:
                return None
            text += (" " if self.spaced[at] else "") + self.tokens[at]
            at += 1
        word = self.peek()
        if not (_is_font(word) or (word.isalpha() and len(word) > 1 and (word in SHORT_UNITS or self.spaced[start]))):
            return None
        if text.count("{") != text.count("}"):
            return None
        unit = read_unit(text if self.spaced[start] or word[0] == "\\" else " " + text)
        if unit is None:
            return None
        self.at = at
        return unit

    def factor(self) -> Node:
        node = self.nested(self.atom)
        while True:
            token = self.peek()
            if token == "^":
                self.at += 1
                if self.accept("\\prime", "'", "*", "\\ast"):
                    node = _renamed(node, "'")
                    continue
                node = ("pow", node, self.nested(self.exponent))
            elif token == "!":
                self.at += 1
                if self.peek() == "!":
                    raise Unreadable
                node = ("fn", "fact", node)
            elif token == "_" and node[0] in ("sym", "num", "app"):
                self.at += 1
                node = self.subscript(node)
            elif token == "°":
                self.at += 1
                node = ("deg", node)
            elif token == "(" and node[0] == "sym" and (node[1].endswith("'") or node[1] in _FUNCTION_LETTERS):
                node = ("app", node[1], self.arguments())
            elif token == "(" and node[0] == "pow" and node[1][0] == "sym" and node[1][1] in _FUNCTION_LETTERS:
                if node[2] != ("neg", ("num", Fraction(1))):
                    return node
                node = ("app", node[1][1] + "^-1", self.arguments())
            else:
                return node

    def arguments(self) -> tuple[Node, ...]:
        self.expect("(")
        node = self.nested(self.items)
        self.expect(")")
        return node[1] if node[0] == "list" else (node,)

    def one_letter(self) -> None:
        """Without braces an index is one letter: in ``x^ab`` only the ``a`` is raised."""
        word = self.peek()
        if len(word) > 1 and word.isalpha() and word not in _WORD_COMMANDS:
            self.tokens[self.at : self.at + 1] = [word[0], word[1:]]
            self.spaced[self.at : self.at + 1] = [False, False]

    def exponent(self) -> Node:
        self.one_letter()
        if self.accept("-"):
            return ("neg", self.exponent_atom())
        return self.exponent_atom()

    def exponent_atom(self) -> Node:
        node = self.nested(self.atom)
        if self.peek() == "^":
            self.at += 1
            node = ("pow", node, self.nested(self.exponent))
        return node

    def subscript(self, node: Node) -> Node:
        if self.peek() == "{":
            start = self.at
            depth, end = 0, self.at
            for end in range(start, len(self.tokens)):
                depth += (self.tokens[end] == "{") - (self.tokens[end] == "}")
                if depth == 0:
                    break
            inner = self.tokens[start + 1 : end]
            if node[0] == "num":
                self.at = end + 1
                return _in_base(node, "".join(t for t in inner if t not in ("\\text", "\\mathrm", "{", "}")))
            if len(inner) > 1 and any(t in "+-" for t in inner) and any(t.isalpha() for t in inner):
                self.at += 1
                index = self.nested(self.sum)
                self.expect("}")
                return ("app", node[1] + "_", (index,))
            if len(inner) == 1 and inner[0] in self.running:
                self.at = end + 1
                return ("app", node[1] + "_", (_letter(inner[0], ""),))
            self.at = end + 1
            return ("sym", node[1] + "_" + "".join(t for t in inner if t not in ("\\text", "\\mathrm", "{", "}")))
        if node[0] == "num":
            return _in_base(node, self.take())
        self.one_letter()
        index = self.take()
        if index in self.running:
            return ("app", node[1] + "_", (_letter(index, ""),))
        return ("sym", node[1] + "_" + index)

    # ---- atoms

    def atom(self) -> Node:
        token = self.take()
        if not token:
            raise Unreadable
        if token[0].isdigit() or (token[0] == "." and len(token) > 1):
            return ("num", Fraction(token))
        if token[0].isalpha():
            return self.word(token)
        if token in ("(", "[", "{", "\\{", "\\langle"):
            return self.bracket(token)
        if token == "|":
            self.bars += 1
            inside = self.nested(self.sum)
            self.expect("|")
            self.bars -= 1
            return ("fn", "abs", inside)
        if token[0] == "\\":
            return self.command(token[1:])
        raise Unreadable

    def word(self, word: str) -> Node:
        name = word.rstrip("'")
        if name in _WORD_COMMANDS:
            return self.command(_WORD_COMMANDS[name])
        if len(name) == 1:
            return _letter(name, word[1:])
        for length in (6, 5, 4, 3, 2):  # sinx, lnx
            if name[:length] in _FUNCTIONS and name[:length] not in ("max", "min") and len(name) == length + 1:
                self.at -= 1
                self.tokens[self.at : self.at + 1] = ["\\" + name[:length], name[length:]]
                self.spaced[self.at : self.at + 1] = [False, False]
                return self.command(self.take()[1:])
        if len(name) > 12:
            raise Unreadable
        letters = list(name)
        node: Node = ("mul", tuple(_letter(letter, "") for letter in letters[:-1]))
        # only the last letter takes what follows: ab^2 is a times b squared
        self.at -= 1
        self.tokens[self.at] = letters[-1] + word[len(name) :]
        return _product(node, self.factor())

    def bracket(self, opening: str) -> Node:
        bars, self.bars = self.bars, 0
        self.in_set += opening == "\\{"
        try:
            if opening == "\\{" and self.accept("\\}"):
                return ("empty",)
            node = self.nested(self.items)
            if opening == "\\{" and self.accept("\\mid", "|", ":", "\\vert"):
                condition = self.nested(self.items)
                self.expect("\\}")
                return ("builder", node, condition)
        finally:
            self.bars = bars
            self.in_set -= opening == "\\{"
        closing = self.take()
        if not closing or closing not in _CLOSING[opening]:
            raise Unreadable
        members = node[1] if node[0] == "list" else (node,)
        if opening == "\\{":
            return ("set", members)
        if opening == "{":
            return ("set", members) if node[0] == "list" else node
        if len(members) == 1 and opening != "\\langle":
            if opening == "[" and closing == "]" and node[0] in ("tuple", "list"):
                return ("tuple", "[", members, "]")
            if (opening, closing) not in (("(", ")"), ("[", "]")):
                raise Unreadable
            return node
        if opening == "\\langle":
            return ("tuple", "(", members, ")")
        return ("tuple", opening, members, closing)

    def text_argument(self) -> str:
        """What stands in ``\\text{...}``, with its spaces."""
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

    def braced(self, digits: int = 1) -> Node:
        """An argument of a command: a group, or without braces one character (``digits`` = 0: one token)."""
        token = self.peek()
        if token == "{":
            self.at += 1
            node = self.nested(self.items)
            self.expect("}")
            return node
        if token[:1].isdigit() and len(token) > 1 and digits:
            if not token.isdigit() or len(token) > 2:
                raise Unreadable
            self.tokens[self.at] = token[1:]
            self.spaced[self.at] = False
            return ("num", Fraction(token[0]))
        if token[:1].isalpha() and len(token) > 1:
            raise Unreadable
        return self.nested(self.atom)

    def command(self, name: str) -> Node:
        if name in _CONSTANTS:
            return _CONSTANTS[name]
        if name in _GREEK:
            return ("sym", "\\" + name)
        if name == "frac":
            top = self.braced()
            return ("div", top, self.braced())
        if name == "sqrt":
            return self.radical()
        if name in _FUNCTIONS or name in ("Gamma", "operatorname"):
            return self.function(name)
        if name in ("binom", "dbinom", "tbinom"):
            top = self.braced()
            return ("fn", "binom", top, self.braced())
        if name in ("lfloor", "lceil"):
            inside = self.nested(self.sum)
            self.expect("\\r" + name[1:])
            return ("fn", name[1:], inside)
        if name in ("sum", "prod"):
            return self.series(name)
        if name in _ACCENTS:
            start = self.at
            self.braced()
            return ("sym", name + "(" + "".join(t for t in self.tokens[start : self.at] if t not in "{}") + ")")
        if name == "mathbb":
            letter = self.text_like()
            return ("R",) if letter == "R" else ("sym", "mathbb(" + letter + ")")
        if name in _FONTS:
            return self.font()
        if name == "begin":
            return self.environment()
        raise Unreadable

    def text_like(self) -> str:
        if self.peek() != "{":
            return self.take()
        self.at -= 1
        return self.text_argument().strip()

    def font(self) -> Node:
        self.at -= 1
        if self.peek(1) != "{":
            self.at += 1
            return self.nested(self.atom)
        text = self.text_argument().replace("~", " ").strip()
        if re.fullmatch(r"[0-9]+(\.[0-9]+)?", text):
            return ("num", Fraction(text))
        if len(text) == 1 and text.isalpha():
            return _letter(text, "")
        if len(text) <= 2 and text.isalpha():
            return ("mul", tuple(_letter(letter, "") for letter in text))
        if _WORD_TEXT.fullmatch(text):
            return ("text", " ".join(re.sub(r"[.,]", " ", text.lower()).split()))
        raise Unreadable

    def radical(self) -> Node:
        degree: Node = ("num", Fraction(2))
        if self.accept("["):
            degree = self.nested(self.sum)
            self.expect("]")
        if self.peek()[:1].isdigit():
            return ("root", degree, self.nested(self.atom))
        return ("root", degree, self.braced())

    def function(self, name: str) -> Node:
        if name == "operatorname":
            self.at -= 1
            name = self.text_argument().strip()
            name = {"asin": "arcsin", "acos": "arccos", "atan": "arctan"}.get(name, name)
            if name not in _FUNCTIONS:
                raise Unreadable
        name = {"asin": "arcsin", "acos": "arccos", "atan": "arctan", "lg": "log10"}.get(name, name)
        if name == "sqrt":
            return self.radical()
        base = power = None
        for _ in range(2):
            if power is None and self.accept("^"):
                power = self.nested(self.exponent)
            elif base is None and self.accept("_"):
                base = self.braced(digits=0)
        if name in ("max", "min", "gcd", "lcm"):
            raise Unreadable
        if name == "exp" and self.peek() == "{":
            argument = self.braced()
        else:
            argument = self.nested(self.argument)
        if base is not None:
            if name != "log":
                raise Unreadable
            node: Node = ("div", ("fn", "ln", argument), ("fn", "ln", base))
        else:
            node = ("fn", name, argument)
        if power is None:
            return node
        if power == ("neg", ("num", Fraction(1))):
            inverse = {"sin": "arcsin", "cos": "arccos", "tan": "arctan"}.get(name)
            if inverse is None:
                raise Unreadable
            return ("fn", inverse, argument)
        return ("pow", node, power)

    def argument(self) -> Node:
        """What a function without parentheses is applied to: ``\\sin 2 \\pi t``."""
        if self.peek() in ("(", "[", "|", "{"):
            return self.nested(self.atom)
        if self.accept("-"):
            return ("neg", self.argument())
        if self.peek()[1:] in _FUNCTIONS:
            return self.factor()
        node = self.factor()
        while True:
            token = self.peek()
            plain = (
                token.isalpha()
                and len(token) == 1
                and token != "e"
                or token in ("\\pi", "\\sqrt")
                or token[1:] in _GREEK
            )
            if not plain or not self.starts_factor(token) or token == "":
                return node
            node = _product(node, self.factor())

    def series(self, name: str) -> Node:
        self.expect("_")
        self.expect("{")
        variable = self.nested(self.atom)
        if variable[0] not in ("sym", "const"):
            raise Unreadable
        self.expect("=")
        start = self.nested(self.sum)
        self.expect("}")
        self.expect("^")
        end = self.nested(self.exponent)
        self.running.append(variable[1])
        node = ("sum", name, variable[1], start, end, self.nested(self.term))
        self.running.pop()
        return node

    def environment(self) -> Node:
        self.at -= 1
        name = self.text_argument()
        if name not in _ENVIRONMENTS:
            raise Unreadable
        if name == "array":
            self.at -= 1
            self.text_argument()
        rows: list[tuple[Node, ...]] = []
        row: list[Node] = []
        while True:
            if self.peek() == "\\end":
                self.text_argument()
                break
            row.append(self.nested(self.relation))
            self.accept(",")
            if self.accept("&"):
                continue
            if self.accept("\\\\"):
                rows.append(tuple(row))
                row = []
            elif self.peek() != "\\end":
                raise Unreadable
        if row:
            rows.append(tuple(row))
        if not rows:
            raise Unreadable
        if name in ("cases", "aligned"):
            if all(len(r) == 1 for r in rows):
                return ("list", tuple(r[0] for r in rows), ("and",) * (len(rows) - 1)) if len(rows) > 1 else rows[0][0]
            return ("cases", tuple(rows))
        if name in ("vmatrix", "Vmatrix"):
            return ("det", tuple(rows))
        return ("matrix", tuple(rows))


_CONSTANTS: dict[str, Node] = {
    "pi": ("const", "pi"),
    "infty": ("const", "inf"),
    "emptyset": ("empty",),
    "varnothing": ("empty",),
    "R": ("R",),
}
_STOPS = frozenset(
    "\\} \\rangle \\rfloor \\rceil \\mid \\vert \\end \\\\ \\pm \\mp \\cdot \\times \\div \\ast \\wedge \\vee \\land \\lor \\not "
    "\\right \\to \\mod \\pmod \\bmod \\equiv \\Rightarrow \\rightarrow \\subset \\subseteq \\notin \\ldots \\dots \\cdots".split()
)


def _is_font(token: str) -> bool:
    return token[:1] == "\\" and token[1:] in _FONTS


def _letter(name: str, primes: str) -> Node:
    if not primes and name in ("e", "i"):
        return ("const", name)
    return ("sym", name + primes)


def _renamed(node: Node, suffix: str) -> Node:
    if node[0] != "sym":
        raise Unreadable
    return ("sym", node[1] + suffix)


def _in_base(node: Node, base: str) -> Node:
    value = node[1]
    if value.denominator != 1 or not base.isdigit() or not 2 <= int(base[:4]) <= 36:
        raise Unreadable
    return ("base", str(value.numerator), int(base))


def _product(left: Node, right: Node) -> Node:
    if left[0] in ("text", "unit") or right[0] == "text":
        raise Unreadable
    return ("mul", (*left[1], right)) if left[0] == "mul" else ("mul", (left, right))


def _constant(node: Node) -> bool:
    """Is the tree free of variables? Only what is can be followed by a unit."""
    if node[0] in ("sym", "app", "text", "tuple", "set", "list", "rel", "matrix"):
        return False
    return all(
        _constant(child) for child in node[1:] if isinstance(child, tuple) and child and isinstance(child[0], str)
    ) and all(
        _constant(child)
        for group in node[1:]
        if isinstance(group, tuple) and group and isinstance(group[0], tuple)
        for child in group
    )
