"""The parts of ``python -m benchmarks.paper``: the ESPO paper's claims, what they are tested with, and the verdicts."""
