r"""Is the final answer of a completion equal to the reference? Usable alone: ``from espo_gym.envs import verify``.

``verify`` finds the final answer and compares it with the reference in three tiers. The first that can tell decides.

=======================================  ==============================================================================
finding the answer                       ``extract`` (boxes, tags, "the answer is"), ``tidy`` (one spelling)
tier 1: numbers and words                ``quantity`` (exact rationals), ``units``, ``words`` (choices, prose)
tier 2: formulas                         ``tokens``, ``commands``, ``atoms``, ``arithmetic``, ``parse`` (LaTeX to trees,
                                         which ``parse`` describes), ``clock`` (times), ``tree`` (questions about
                                         trees), ``evaluate`` (40 digits), ``agree`` (at several points), ``compare``,
                                         ``relations``, ``sets`` (whole answers)
tier 3: everything else                  ``worker`` (math-verify in a process that can be killed), ``_child`` (that
                                         process)
putting it together                      ``decide`` (tiers 1 and 2 for one pair), ``verify`` (batches, cache, tier 3)
a second opinion                         ``audit`` (re-checks verdicts), ``second_opinion`` (its independent method)
=======================================  ==============================================================================

No answer is ever evaluated as code, and a failure is a verdict of its own kind (``no_verdict``), never "incorrect".
"""

from ..verdict import Verdict
from .audit import Audit, Disagreement, audit
from .extract import extract_answer
from .verify import close, verify

__all__ = ["Audit", "Disagreement", "Verdict", "audit", "close", "extract_answer", "verify"]
