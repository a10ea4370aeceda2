r"""Is the final answer of a completion equal to the reference? Usable alone: ``from espo_gym.envs import verify``.

``verify`` finds the final answer and compares it with the reference in three tiers. The first that can tell decides.

=======================================  ==============================================================================
finding the answer                       ``extract`` (boxes, tags, "the answer is"), ``sentence`` (what a sentence
                                         states), ``values`` (where values stand), ``markup`` (bold, quotes, JSON),
                                         ``tidy`` (one spelling)
tier 1: numbers and words                ``quantity`` (exact rationals), ``units``, ``words`` (choices, prose)
tier 2: formulas                         ``tokens``, ``commands``, ``atoms``, ``arithmetic``, ``parse`` (LaTeX to trees,
                                         which ``parse`` describes), ``clock`` (times), ``tree`` (questions about them),
                                         ``rewrite``, ``exact`` (numbers with their errors), ``functions`` and
                                         ``integers`` (of such numbers), ``evaluate``, ``agree`` (at several points),
                                         ``compare``,
                                         ``relations``, ``sets`` (whole answers)
tier 3: everything else                  ``worker`` (math-verify in a process that can be killed), ``_child`` (that
                                         process)
putting it together                      ``decide`` (tiers 1 and 2 for one pair), ``verify`` (batches, cache, tier 3)
what users choose                        ``conventions`` (what else is accepted), ``rounding`` (numbers that differ
                                         little), ``forms`` (how an answer must be written), ``polynomial``
what users read                          ``explain`` (a verdict in words)
a second opinion                         ``audit`` (re-checks verdicts), ``second_opinion`` (its independent method)
=======================================  ==============================================================================

What makes an acceptance sound: strings are accepted if they are the same up to spacing, plain numbers if they are the
same rational (``quantity``), words and choices if they are the same; formulas by the rules in ``agree``, on numbers
that ``exact`` compares; lists, sets and matrices member by member, and the ends of intervals as numbers; equations side
by side, by a constant ratio, or by a solution that is linear, each certain at several points; an equation and a bare
value if the equation says that something is that value (``relations``). What math-verify accepts is as sound as
math-verify is.

No answer is ever evaluated as code, and a failure is a verdict of its own kind (``no_verdict``), never "incorrect".
"""

from ..verdict import Verdict
from .audit import Audit, Disagreement, audit
from .conventions import Conventions
from .extract import extract_answer
from .forms import in_form
from .verify import close, verify

__all__ = ["Audit", "Conventions", "Disagreement", "Verdict", "audit", "close", "extract_answer", "in_form", "verify"]
