"""Evaluation: benchmarks, generation, scoring."""
