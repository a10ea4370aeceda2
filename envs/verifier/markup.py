r"""Takes an answer out of the markup around it: ``4`` out of `` **`4`**. ``"""

# ruff: noqa: RUF001 (quotes and operators as models write them)

from __future__ import annotations

import re

MAX_WRAPPERS = 12
"""Maximum number of layers of markup around an answer that are removed."""
MAX_CALCULATION = 2_000
"""Longest calculation whose result is read, in characters."""

_HTML = re.compile(r"</?(?:script|span|div|p|b|i|strong|em|code|br)\b[^<>]{0,80}>")
FENCE = re.compile(r"```\w*[ \t]*\n(.*?)(?:```|\Z)", re.DOTALL)
BOLD = re.compile(r"(?<![\w)\]}*])\*\*(?=[^\s*])([^*\n]{1,400})(?<=\S)\*\*(?![\w(*])|\\textbf\{([^{}\n]{1,400})\}")
CALCULATOR = re.compile(r"<<[^<>\n]{0,200}>>")  # GSM8K: 7*10=<<7*10=70>>70
_QUOTES = (("__", "__"), ("_", "_"), ("`", "`"), ('"', '"'), ("“", "”"), ("``", "''"))
_QUOTING = tuple(opening[0] for opening, _ in _QUOTES)
_DELIMITERS = (("$$", "$$"), ("\\[", "\\]"), ("\\(", "\\)"), ("$", "$"))
DOLLAR = re.compile(r"(?<!\\)\$")
_INNER_DELIMITER = re.compile(r"(?<!\\)\\[()\[\]]")


def unwrapped(text: str) -> str:
    """An answer without the markup around it: bold, quotes, code, HTML and the delimiters of formulas."""
    if "<" in text:
        text = _HTML.sub(" ", text)
    for _ in range(MAX_WRAPPERS):
        before = text
        if "**" in text:
            text = BOLD.sub(lambda bold: bold.group(1) or bold.group(2), text)
        text = text.strip().strip("*").strip()
        if text.startswith("```"):
            fence = FENCE.match(text)
            text = fence.group(1).strip() if fence else text.strip("`")
        text = _undelimited(unquoted(text)).rstrip(".。").strip()
        if text == before:
            break
    if text.startswith("\\begin{align"):
        lines = [line for line in text.split("\\\\") if line.strip() and not line.strip().startswith("\\end")]
        text = lines[-1].rpartition("=")[2].replace("&", " ") if lines else ""
        text = text.partition("\\end{align")[0].strip().rstrip(".")
    return text


def unquoted(text: str) -> str:
    """``text`` without quotes or backticks around all of it."""
    for opening, closing in _QUOTES if text[:1] in _QUOTING else ():
        inside = text[len(opening) : -len(closing)]
        if text.startswith(opening) and text.endswith(closing) and inside and opening not in inside:
            return inside.strip()
    return text.strip("`") if text.count("`") == 1 else text


def _undelimited(text: str) -> str:
    for opening, closing in _DELIMITERS if text[:1] in ("$", "\\") else ():
        if not text.startswith(opening) or len(text) <= len(opening):
            continue
        rest = text[len(opening) :]
        at = rest.rfind(closing)
        while at > 0 and rest[at - 1] == "\\":  # \$ is money, \\] a row
            at = rest.rfind(closing, 0, at)
        if at < 0:
            return rest.strip()
        inside, after = rest[:at], rest[at + len(closing) :]
        if opening[0] == "$":
            whole = not after.strip(" .,;:*") and not DOLLAR.search(inside)
            return inside.strip() if whole else text
        if opening not in inside:
            return inside.strip() if not DOLLAR.search(inside) else text
        return _INNER_DELIMITER.sub("$", text)  # several formulas: "\(x\) or \(y\)"
    if text.endswith("$") and len(DOLLAR.findall(text)) == 1:
        return text[:-1].strip()  # the other one stands before the marker
    return text


_STEP = re.compile(r"[-+*/^×÷·().0-9\s$]*[0-9][-+*/^×÷·().0-9\s$]*=(?:[^=]*=)*\s*([^=]*[0-9][^=]*)")


def result(text: str) -> str:
    """The result of a calculation: ``131`` of ``64 + 67 = 131``, ``18`` of the scratch pad ``9+1=10,10+8=18,18``."""
    if "=" not in text or len(text) > MAX_CALCULATION:
        return text
    separator = ", " if ", " in text else ","
    if text.count("=") == 1 and separator == "," and re.search(r"=\s*\$?\d{1,3}(?:,\d{3})+(?:\.\d+)?\s*$", text):
        separator = ";"  # 700+600=1,300
    *steps, last = re.split(r"[;\n]\s*|" + separator, text)
    if not all(_STEP.fullmatch(step) for step in steps):
        return text
    match = _STEP.fullmatch(last)
    if match:
        return match.group(1).strip()
    return last.strip() if steps and "=" not in last else text


# ---- JSON

_FIELD = re.compile(
    r"\"(?:final[_ ]?)?answer\"\s*:\s*(?:\"((?:\\.|[^\"\\])*)(?:\"|$)|(\[[^\[\]{}]*\]|[^\s\"{}\[\],][^\"{}\n,]*))",
    re.IGNORECASE | re.DOTALL,
)
_REST_OF_OBJECT = re.compile(r"(?:\"(?:\\.|[^\"\\])*(?:\"|$)|[^\"}])*", re.DOTALL)


def json_answer(text: str) -> tuple[str, int] | None:
    """The value of the last ``"answer"`` in JSON, whole or cut off, and where the rest of its object ends.

    Single backslashes are taken for LaTeX, because models that write JSON forget to double them.
    """
    last = None
    for match in _FIELD.finditer(text):
        if text[max(0, match.start() - 200) : match.start()].rstrip()[-1:] in ("{", ","):
            last = match
    if last is None:
        return None
    written, plain = last.groups()
    if written is not None:
        value = written.replace("\\\\", "\\") if "\\\\" in written else re.sub(r"\\n(?![A-Za-z])", "\n", written)
        value = value.replace('\\"', '"')
    else:
        value = "" if plain.strip() == "null" else plain.strip("[] \t\r").replace('"', "")
    rest = _REST_OF_OBJECT.match(text, last.end())
    return value.strip(), rest.end() if rest else last.end()
