"""cwdpo: preference tuning of vision-language models on Slurm clusters, from a YAML grid to the paper's tables.

Start at `pipeline.py`, which wires the whole data path.
"""
