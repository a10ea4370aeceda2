"""How fast, beside whom: the goals of docs/performance.md, measured. ``python -m benchmarks.speed``."""
