"""Slurm: from a plan to job arrays, what became of them, and what to do about it."""
