"""Speed and memory beside peers and physical limits, as ratios of one run.

``python -m tests.benchmarks`` measures everything and writes `docs/benchmarks.md`.
"""
