"""Where an answer stands: every form that is read, and texts that mention the reference but answer otherwise."""

# ruff: noqa: RUF001 (markers and punctuation as models write them)

import random

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from espo_gym.envs import verify
from espo_gym.envs.verifier.extract import extract, extract_answer
from espo_gym.envs.verifier.worker import POOL

same_every_time = settings(max_examples=300, deadline=None, derandomize=True, database=None)


@pytest.fixture(autouse=True)
def _no_worker(monkeypatch):
    monkeypatch.setattr(POOL, "ask", lambda pairs, **_: [("timeout", 0.0)] * len(pairs))


FOUND: dict[str, list[tuple[str, str | None]]] = {
    "a sentence after the marker": [
        ("**Answer:** There are 7 such cars.", "7"),
        ("Answer: It is $7$.", "7"),
        ("**Final Answer:**\nThere are **48** points within 5 units.", "48"),
        ("Answer: It would be $1,350.", "1,350"),
        ("The answer is 6 because 3 + 3 is 6.", "6"),
        ("The correct choice is therefore D", "D"),
        ("The answer is C since 5 is odd.", "C"),
        ("Answer: Yes, it is 9", "9"),
    ],
    "a marker inside a tag": [
        ("<answer> Thus, the answer is 14. </answer>", "14"),
        ("<answer>The final answer is $\\frac{2}{3}$</answer>", "\\frac{2}{3}"),
        ("<answer>n = 6 is the solution</answer>", "n = 6"),
        ("<answer>It is 14 inches long.</answer>", "It is 14 inches long"),  # a sentence is not followed
    ],
    "tags that lost a part": [
        ("Answer: 8</answer>", "8"),
        ("</think> answer> 31 </answer>", "31"),
        ("We get\nanswer> 31 </answer> as 30 + 1", "31"),
        ("so $n$ = 3. \nAnswer: 3</answer> I am sure, 9 times", "3"),
        ("<answer>31", "31"),
    ],
    "JSON": [
        ('{"reasoning": "3 or -3, so 3", "answer": "-3, 3"}', "-3, 3"),
        ('```json\n{"reasoning": "so **9**",\n "answer": "54"}\n```', "54"),
        ('{"answer": 42, "n": 7}', "42"),
        ('{"answer": ["A", "C"]}', "A, C"),
        (r'{"answer": "\\frac{1}{2}"}', r"\frac{1}{2}"),
        (r'{"answer": "\frac{1}{2}"}', r"\frac{1}{2}"),  # not valid JSON, but clear
        (r'{"answer": "\nu"}', r"\nu"),
        (r'{"answer": "\\boxed{5}"}', "5"),
        ('{"answer": "The answer is 5."}', "5"),
        ('{"answer": "5"} Hope this helps 100 times!', "5"),
        ('{"answer": "-3, 3', "-3, 3"),  # cut off
        ('{"answer": null, "guess": 5}', None),
        ('{"answer": "", "guess": 5}', None),
        ('{"reasoning": "first, it is 5', None),
        ('{"result": 5}', None),
        (r'\boxed{4}, so {"answer": "5", "step": "\\boxed{6}"}', "5"),
        (r'{"answer": "5"} No: \boxed{6}', "6"),
        (r'{"reasoning": "\"answer\": \"7\" is wrong", "answer": "5"}', "5"),
    ],
    "an answer line after a box": [
        ("\\boxed{5} was a step.\n\nFinal answer: 7", "7"),
        (r"\boxed{x < y}" + "\n**Answer: D**", "D"),
        ("\\boxed{5}\n\n**Final Answer**\n\n7\n", "7"),
        ("Put it in \\boxed{}.\nAnswer: 12", "12"),
        ("Mark your answer with \\boxed\nAnswer: 12", "12"),
        ("Write \\boxed and then the value.\nAnswer: 12", "12"),
        ("Write it with \\boxed\nThe answer is 12.", "12"),
        ("Use \\boxed and units. So it is 12.", "12"),
        ("\\boxed{5}\nAnswer: see above", "5"),
        ("\\boxed{5}\nThe answer is in the box above.", "5"),
        ("\\boxed{5}\nAnswer: \\boxed{6}", "6"),
        ("\\boxed{}", None),
        (r"\boxed7", "7"),
        (r"\boxed\frac12", r"\frac12"),
    ],
    "Chinese": [
        (r"最终答案是：$\frac{2}{5}$。", r"\frac{2}{5}"),
        ("答案为：15", "15"),
        ("故选：C", "C"),
        ("因此选 B", "B"),
        ("选项为 A", "A"),
        ("答案选 $D$。", "D"),
        ("因此，最终答案是 15。", "15"),
        ("答案是15，因为有3组。", "15"),
        ("所以共有 15 种方法。", "15"),
        ("所以这个数等于 15。", "15"),
        ("从5个中选3个，共有10种。", "10"),
    ],
    "money in a formula": [
        ("So the price is\n\\[ \\$2.50 \\]", r"\$2.50"),
        (r"It costs $\$75$.", r"\$75"),
        (r"It costs \(\$75\).", r"\$75"),
        (r"It costs $$ \$75 $$", r"\$75"),
        ("He pays $5 and $66.", "66"),
    ],
    "markup": [
        (r"$\text{Answer: } -\frac{\pi}{5}.$", r"-\frac{\pi}{5}"),
        ("Answer: `6`", "6"),
        ("The final answer is:\n```\n6\n```", "6"),
        ("The final answer is:\n```python\n6\n```\nin 3 steps", "6"),
        (r'\boxed{"even"}', "even"),
        ('Answer: "even"', "even"),
        ("12 + 9 = **21**", "21"),
        ("So we find\n\nx = **4**.", "4"),
        ("The answer is **5** or **6**.", "5 or 6"),
        ('<answer> <script type="math/tex"> \\frac{1}{5} </script> </answer>', r"\frac{1}{5}"),
        ("#### **55**", "55"),
        ("####: 55", "55"),
    ],
    "calculations": [
        ("8+5=13,7+6+1=14,1+2=3,343", "343"),
        ("8+5=13,7+6+1=14,144", "144"),
        ("700+650=1,350", "1,350"),
        ("12 + 9 = 21", "21"),
        ("In total, 12 + 9 = 21 cars", "21"),
        ("7*10=<<7*10=70>>70", "70"),
        ("He has 9 - 3 = <<9-3=6>>6 cars after 2 days.", "6"),
        ("so x = 5 + 3 = 8", "8"),
        ("1, 2, 3", "1, 2, 3"),
        ("x = 1, y = 2", "x = 1, y = 2"),
    ],
    "the subject of the closing sentence": [
        ("The largest n is 34.", "34"),
        ("There are **81** points within 5 units.", "81"),
        ("We think.\n6 cars left in the first 20 minutes.", "6"),
        ("We think.\n9 people bet on horse #12.", "9"),
        ("The area is 5 when the side is 3.", "5"),
        ("It is worth $900 after 5 years.", "900"),
        ("There are 12 choices for $n$.", "12"),
        ("The total is 12. Does this also hold for 5?", "12"),
        ("So $x = 7$.\n\nLet me know if you want 2 other ways.", "x = 7"),
        ("The function is **even**, as $f(2) = f(-2)$.", "even"),
    ],
    "choices": [
        ("Therefore, the correct statement is (B).", "(B)"),
        ("So the ratio is (D) 3 over 5.", "(D)"),
        ("Option (B) is the right one.", "(B)"),
        ("Option (B) looks plausible, but it fails. D", "(D)"),
        ("Hence, option C is correct, since 4 is even.", "(C)"),
    ],
    "formulas without delimiters are read whole": [
        ("We get\nx = \\frac{3}{4}", r"\frac{3}{4}"),
        ("We get\nz = -1 + i", "-1 + i"),
        ("We get\n2 \\pi / \\omega", r"2 \pi / \omega"),
        ("We get\n(-\\infty, 1) \\cup (3, 8)", r"(-\infty, 1) \cup (3, 8)"),
        ("We get x > 3.", "x > 3"),
        ("It ends at 4:30 \\text{ p.m.}", r"4:30 \text{ p.m.}"),
    ],
    "all candidates or none": [
        ("It is approximately 3.14 or 22/7.", "3.14 or 22/7"),
        ("It is either 5 or 6.", "5 or 6"),
        ("x is 3, but it could be 4", "3 or 4"),
        ("The answer is 3, but it could be 4.", "3 or 4"),
        ("The roots are 3, 4, and 5.", "3, 4, and 5"),
        ("The roots are $3$ and $4$.", "$3$ and $4$"),
        ("The answer is 5, not 6.", "5"),
        ("It is not 5 but 6.", "6"),
    ],
    "no statement of an answer": [
        (r"So the expression $2\ln a-3\ln b$ can be written as a single logarithm.", None),
        ("We need to simplify $2x+3x$.", None),
        ("We start.\nLet $x = 8$.", None),
        ("What is 5 + 3?", None),
        ("The result 5 is wrong.", None),
        ("Answer: No, 5 is not a solution.", None),
    ],
}


@pytest.mark.parametrize("kind", FOUND)
def test_where_the_answer_is_found(kind: str) -> None:
    for text, answer in FOUND[kind]:
        assert extract_answer(text) == answer, text


MENTIONED = r"""
We compute the sum of $3$ and $8$. | Either 7 or 8. | It's 7 or maybe 8. | The answer is 7, or 8.
The answer is 7 and 8. | The answer might be 7, but could also be 8. | The answer is between 7 and 8.
The answers are x = 7 and y = 8. | \boxed{7 or 8} | Possible values are $7$, $8$. | x = 7 or x = 8 | So x = \pm 8
So we have 8 < x | It is\n3 + \sqrt{8} | It is\n\frac{3}{8} | It is\n3^8 | It is\nlog_2 8 | It is\n2x + 8
It is\n(3, 8) | It is\n3 / 8 | It is\n3 : 8 | It is\n-8 | It is\n8i | It is\n8! | It is\nminus 8 | It is\nsin 8
It is\nsqrt(8) | It is\n\sqrt 8 | It is\nn mod 8 | It is\n8 i | It is\n3 to 8 | It is\n3 hours and 8 minutes
It is\n5 feet 8 inches | It is\n3 8/9 | It is\nhalf of 8 | It is\nat least 8 | It is\nless than 8 | It is\n3:08
It is\n8 dollars and 50 cents | It is\n3 * 10^8 | It is\nx_8 | It is\n8 or 9 | The probability is 1 in 8. | Not 8.
I don't think it is 8. | It can't be 8. | It is not true that the answer is 8. | 8 is too large.
The answer isn't 8. | The answer is 7 (not 8). | The answer is 7 rather than 8. | Answer: 7 (8 is a common mistake)
Answer: 7. A wrong answer is 8. | Answer: there are 7 of the 8. | Step 8 | Let x be it. Step 8:
So there are 3 ways to choose 8 people. | If there were 8 of them, | Suppose x = 8 | Assume n = 8.
Let's check x = 8 | When x = 8, | Is x = 8 | Question 8: what is 3 + 5 | Compute 3 + 5 in a box.
<answer>7</answer> so not 8 | <answer>7 or 8</answer> | <answer>It is 7, not 8.</answer>
{"answer": "7", "check": 8} | {"answer": ["7", "8"]} | {"reasoning": "it is 8", "answer": | #### 7 or 8
答案是 7 或 8 | 答案不是 8 | 所以 x 不等于 8。 | x = 7 或 8 | **7** or **8** | `7` or `8` | **Step 8**
I will take 8 if 9 fails. Or 7?
""".strip().replace("\n", " | ")


@pytest.mark.parametrize("text", [text.strip().replace("\\n", "\n") for text in MENTIONED.split(" | ")])
def test_a_number_that_is_mentioned_is_not_the_answer(text: str) -> None:
    verdict = verify([text], ["8"])[0]
    assert verdict.status in ("incorrect", "no_answer"), verdict


def test_a_sentence_in_a_tag_is_read_on_request() -> None:
    for text, answer in {
        "<answer>The perimeter is 42 inches.</answer>": "42",
        r"<answer>The area is $12\pi$ square units.</answer>": r"12\pi",
        '{"answer": "There are 42 in all."}': "42",
        "<answer>There are 5 or 6.</answer>": "5 or 6",
        "<answer>No, 5 is not one.</answer>": "No, 5 is not one",
        "<answer>42</answer>": "42",
    }.items():
        assert extract(text, sentence=True).answer == answer, text
    assert extract("<answer>There are 42 in all.</answer>").answer == "There are 42 in all"


# ---- properties

ANSWERS = st.one_of(
    st.integers(-999, 999).map(str),
    st.integers(1000, 99999).map(lambda n: f"{n:,}"),
    st.decimals(0, 99, places=2).map(str),
    st.sampled_from(
        [r"\frac{3}{7}", r"2\sqrt{5}", r"(3, 4)", r"[2, 5)", r"x^2 + 3x - 1", r"\{1, 2, 3\}", r"-\frac{\pi}{6}"]
    ),
    st.sampled_from(
        [r"x = 7", "1, 2, 3", r"\pm 4", r"3 + 2i", r"x > 5", r"\begin{pmatrix} 1 \\ 2 \end{pmatrix}", "12\\%"]
    ),
)
FORMS = [
    *(r"\boxed{%s}", r"$\boxed{%s}$.", r"\fbox{%s}", r"\[ \boxed{%s} \]", r"**\boxed{%s}**", r"\boxed{%s"),
    *("<answer>%s</answer>", "<answer>\n%s\n</answer>", r"<answer>\boxed{%s}</answer>", "<answer>$%s$</answer>"),
    *(
        "<answer> The answer is $%s$. </answer>",
        "Answer: %s</answer>",
        "#### %s",
        "####: %s",
        "#### **%s**",
        "#### $%s$",
    ),
    *("The answer is $%s$.", "The answer is %s.", "**Answer:** $%s$", "**Answer: $%s$**", "The final answer is: $%s$."),
    *("Answer: `%s`", "The final answer is:\n```\n%s\n```", "The final answer is\n\\[ %s \\]", "Answer: $$ %s $$"),
    *("最终答案是：$%s$。", "答案为：%s", "因此，最终答案是 $%s$。", "$\\text{Answer: } %s$", "Answer: \\(%s\\)"),
    *("So we find $%s$.", "Hence the value equals $%s$.", "So it is\n\\[ %s \\]", "So it is **$%s$**.", "\\[\n%s\n\\]"),
    *("\\boxed{0}\nFinal answer: $%s$", "\\boxed{0}\n\n**Final Answer**\n\n$%s$"),
]
REASONING = [
    *(
        "First, there are 17 of them.",
        "We know that $a = 19$ and $b = 23$.",
        "So the answer might be 29?",
        "Step 3: check 31.",
    ),
    *(
        "Let $x = 37$.",
        "Then 6 + 7 = 13.",
        "He pays $41 and $43.",
        "By (A), 47 is prime.",
        "\\[ 53 + 1 = 54 \\]",
        "是 59 个。",
    ),
]


def _unspaced(answer: str | None) -> str:
    return "".join((answer or "").replace("x=", "").split())


@same_every_time
@given(ANSWERS, st.sampled_from(FORMS), st.lists(st.sampled_from(REASONING), max_size=4))
def test_every_form_gives_exactly_the_answer_whatever_was_reasoned_before(answer, form, reasoning):
    written = form % answer
    assert _unspaced(extract_answer(written)) == _unspaced(answer), written
    assert extract_answer("\n".join([*reasoning, written])) == extract_answer(written)


JSON_FORMS = ['{"reasoning": "%s", "answer": "%s"}', '```json\n{"thought": "%s",\n "answer": "%s"}\n```']


@same_every_time
@given(st.integers(0, 999), st.integers(0, 999), st.sampled_from(JSON_FORMS))
def test_the_field_is_the_answer_of_json(reasoned, answer, form):
    assert extract_answer(form % (f"first {reasoned}, so {reasoned}", answer)) == str(answer)


MENTIONS = [
    *("There are %s of them.", "$x = %s$.", "So it is %s.", "**%s**", "We get $%s$ here.", "\\[ %s \\]", "Is it %s?"),
    *("The answer is not %s.", "(%s)", "%s", "Step %s:", "= %s", "If it were %s, it would fail.", "`%s`", "得 %s。"),
]
FINALS = [form for form in FORMS if not form.startswith("\\boxed{0}")]
TWO_ANSWERS = [
    *(
        "%s or %s",
        "It is %s or %s.",
        "It is either %s or %s.",
        "It is %s, but it could be %s.",
        "The answer is %s and %s.",
    ),
    *(
        "The answer is %s or %s",
        "$%s$ or $%s$",
        "The values are %s, %s",
        "\\boxed{%s}, \\boxed{%s}",
        "<answer>%s, %s</answer>",
    ),
    *(
        "{'%s': %s}",
        "It is %s^{%s}",
        "%s + %si",
        "x = %s - \\sqrt{%s}",
        "(%s, %s)",
        "%s < x < %s",
        "%s/%s",
        "It is %s hours %s minutes.",
    ),
]


@same_every_time
@given(st.integers(100, 499), st.integers(500, 999), st.sampled_from(FINALS), st.data())
@example(101, 500, "The answer is %s.", None)
def test_a_text_that_answers_otherwise_is_never_accepted(reference, other, form, data):
    mentions = data.draw(st.lists(st.sampled_from(MENTIONS), min_size=1, max_size=4)) if data else MENTIONS
    text = "\n".join([*(mention % reference for mention in mentions), form % other])
    assert verify([text], [str(reference)])[0].status == "incorrect", text
    assert verify([text], [str(other)])[0].status == "correct", text


@pytest.mark.parametrize("form", TWO_ANSWERS)
def test_of_two_answers_neither_is_accepted(form: str) -> None:
    rng = random.Random(0)
    for prefix in ("", "So we see:\n", "Let me think. "):
        for _ in range(5):
            one, other = rng.sample(range(10, 999), 2)
            verdicts = verify([prefix + form % (one, other)] * 2, [str(one), str(other)])
            assert not any(verdict.correct for verdict in verdicts), (prefix + form % (one, other), verdicts)
            assert all(verdict.has_verdict for verdict in verdicts)


@pytest.mark.parametrize(
    "piece", ["$", "\\[", "(", "1,", "is 1 or ", " answer>", '{"answer": "', "\nanswer", "Answer: ", "(B) "]
)
def test_long_texts_of_one_piece_are_read(piece: str) -> None:
    text = piece * (200_000 // len(piece))
    for whole in (text, "Answer: " + text, f"<answer>{text}</answer>", "\\boxed{1}" + text, text + "</answer>"):
        assert extract(whole).rule
