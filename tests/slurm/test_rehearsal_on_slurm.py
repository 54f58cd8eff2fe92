"""A rehearsal on a real Slurm."""

from __future__ import annotations

import json
from pathlib import Path

import commands
import pytest
from cluster import Cluster
from ruamel.yaml import YAML
from slurm_grid import Run


@pytest.mark.campaign
def test_a_rehearsal_is_left_alone_then_joined(slurm: Cluster, tmp_path: Path) -> None:
    """Submitted and left; a second one is refused, waited for with --watch, and prune knows what is under way."""
    content = YAML(typ="safe").load(commands.MICRO)
    content["cases"] = {"sft": content["cases"]["sft"]}
    YAML().dump(content, tmp_path / "one.yaml")
    run = Run(slurm, tmp_path / "home", tmp_path / "one.yaml", tasks=1)
    assert "look closer: cwdpo status --grid " in run.ok("submit", "--rehearse")
    assert run.submit("--rehearse").returncode == 76
    assert prunable(run) == []
    shown = run.ok("submit", "--rehearse", "--watch")
    assert "one-rehearsal: 9 of 9 stages worked" in shown
    assert sorted(path.name for path in run.home.iterdir()) == ["rehearsal"], "nothing beside it was touched"
    run.wait()
    assert prunable(run) == ["rehearsal"]


def prunable(run: Run) -> list[str]:
    """Classes of what can go."""
    environment = {key: run.cluster.env[key] for key in ("SLURM_CONF", "PATH")}
    shown = commands.succeed(commands.cwdpo("prune", "--home", run.home, "--json", **environment))
    return list(json.loads(shown)["classes"])
