r"""Tier 2: parses numbers, letters and brackets. See ``parse.py`` for the trees."""

from __future__ import annotations

from fractions import Fraction

from .clock import read_clock
from .commands import Commands
from .tokens import CLOSING, FUNCTIONS, WORD_COMMANDS, Node, Unreadable, letter, product


class Atoms(Commands):
    """The smallest parts of a formula: numbers, names, bracketed expressions, absolute values, commands."""

    def atom(self) -> Node:
        """A number, a word, a bracketed expression, an absolute value or a command."""
        token = self.take()
        if not token:
            raise Unreadable
        if token[0].isdigit() or (token[0] == "." and len(token) > 1):
            time = None if token.isdigit() else read_clock(token, 0)
            if time is not None:
                return ("ratio", tuple(("num", part) for part in time[0]), time[1])
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
        """A run of letters: a named function or constant, one variable, or a product of variables."""
        name = word.rstrip("'")
        if name in WORD_COMMANDS:
            return self.command(WORD_COMMANDS[name])
        if len(name) == 1:
            return letter(name, word[1:])
        for length in (6, 5, 4, 3, 2):  # sinx, lnx
            if name[:length] in FUNCTIONS and name[:length] not in ("max", "min") and len(name) == length + 1:
                self.at -= 1
                self.tokens[self.at : self.at + 1] = ["\\" + name[:length], name[length:]]
                self.spaced[self.at : self.at + 1] = [False, False]
                return self.command(self.take()[1:])
        if len(name) > 12:
            raise Unreadable
        letters = list(name)
        node: Node = ("mul", tuple(letter(each, "") for each in letters[:-1]))
        # only the last letter takes what follows: ab^2 is a times b squared
        self.at -= 1
        self.tokens[self.at] = letters[-1] + word[len(name) :]
        return product(node, self.factor())

    def bracket(self, opening: str) -> Node:
        """A group, tuple, interval, set or set-builder expression; the position is after ``opening``."""
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
        if not closing or closing not in CLOSING[opening]:
            raise Unreadable
        members = node[1] if node[0] == "list" else (node,)
        if opening == "[" and closing == "]" and _rows(members):
            return ("matrix", tuple(row[2] for row in members))
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


def _rows(members: tuple[Node, ...]) -> bool:
    """Whether the members of a bracket are the rows of a matrix, as in ``[[1, 2], [3, 4]]``."""
    return all(
        row[0] == "tuple" and row[1] == "[" and row[3] == "]" and len(row[2]) == len(members[0][2]) for row in members
    )
