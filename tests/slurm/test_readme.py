"""Every command of the README's section about Slurm, in its order, on a real one, with the micro grid for the demo."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import commands
from cluster import Cluster

README = (commands.REPO / "README.md").read_text(encoding="utf-8")
(SECTION,) = re.findall(r"## On a Slurm cluster\n.*?(?=\n## )", README, re.DOTALL)


def test_readme_commands_run(slurm: Cluster, finished: Path, tmp_path: Path) -> None:
    """On a home in which only the evaluation of one cell is left to do."""
    home = commands.copy_home(finished, tmp_path / "home")
    commands.forget(home, commands.node_of(home, "score", "cw_dpo/0"))
    lines = [line for line in commands.readme_commands(SECTION) if "--rehearse" not in line]
    assert len(lines) >= 8
    for line in lines:
        words = [{"demo": str(commands.MICRO)}.get(word, word) for word in shlex.split(line)[1:]]
        environment = {key: slurm.env[key] for key in ("SLURM_CONF", "PATH")}
        done = commands.cwdpo(*words, CWDPO_HOME=str(home), **environment)
        assert done.returncode == 0, f"{line}\n{done.stdout}\n{done.stderr}"
        assert done.stdout.strip(), line
    assert set(commands.states(home).values()) == {"done"}
    slurm.cancel_all()
