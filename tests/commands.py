"""The real command line in subprocesses, on the micro grid, and what it left in a home."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cwdpo.base.config import parse_overrides
from cwdpo.base.store import Store
from cwdpo.experiment import load_grid
from cwdpo.graph import Node
from cwdpo.jobs.plan import Plan, make_plan

REPO = Path(__file__).resolve().parents[1]
GRIDS = Path(__file__).resolve().parent / "grids"
MICRO = GRIDS / "micro.yaml"
LIMIT_SECONDS = 1800


def readme_commands(text: str) -> list[str]:
    """Command lines in the bash blocks of a text, without comments."""
    return [
        line.split("  #")[0].strip()
        for block in re.findall(r"```bash\n(.*?)```", text, re.DOTALL)
        for line in block.splitlines()
        if line.strip() and not line.strip().startswith("#")
    ]


def environment(**more: str) -> dict[str, str]:
    """This process's environment with the checkout on PYTHONPATH and without the user's settings."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("CWDPO_", "MLFLOW_"))}
    return {**kept, "PYTHONPATH": str(REPO), "PYTHONWARNINGS": "default", **more}


def command(*arguments: object) -> list[str]:
    """A command line of cwdpo."""
    return [sys.executable, "-m", "cwdpo", *map(str, arguments)]


def cwdpo(*arguments: object, cwd: Path = REPO, **more: str) -> subprocess.CompletedProcess[str]:
    """Run a command to its end; `more` are environment variables."""
    return python("-m", "cwdpo", *arguments, cwd=cwd, **more)


def python(*arguments: object, cwd: Path = REPO, **more: str) -> subprocess.CompletedProcess[str]:
    """Run Python to its end."""
    line = [sys.executable, *map(str, arguments)]
    return subprocess.run(
        line, env=environment(**more), cwd=cwd, capture_output=True, text=True, timeout=LIMIT_SECONDS, check=False
    )


def submit(home: Path, *arguments: object, grid: Path = MICRO, **more: str) -> subprocess.CompletedProcess[str]:
    """`cwdpo submit` on the local cluster."""
    return cwdpo("submit", "-g", grid, "--home", home, "-c", "local", *arguments, **more)


def succeed(done: subprocess.CompletedProcess[str]) -> str:
    """What a command printed, after checking that it ended well."""
    assert done.returncode == 0, f"status {done.returncode}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    return done.stdout


def plan_of(home: Path, *overrides: str, grid: Path = MICRO) -> Plan:
    """The plan of a grid in a home."""
    return make_plan(load_grid(str(grid), parse_overrides(list(overrides))), Store(home))


def report(home: Path, *arguments: object, grid: Path = MICRO) -> Any:
    """The tables of a grid as `report --json` prints them."""
    return json.loads(succeed(cwdpo("report", "-g", grid, "--home", home, "--json", *arguments)))


def states(home: Path, grid: Path = MICRO) -> dict[str, str]:
    """Stage folder -> state, as `plan --json` prints them."""
    found = json.loads(succeed(cwdpo("plan", "-g", grid, "--home", home, "--json")))
    return {f"{node['stage']}-{node['id'][:16]}": node["state"] for node in found["nodes"]}


def manifests(home: Path) -> dict[str, Mapping[str, Any]]:
    """Stage folder -> names, sizes and digests of its files, after comparing every byte with them."""
    found = {}
    for node in plan_of(home).nodes:
        artefact = node.artefact(Store(home))
        artefact.verified_files()
        done = artefact.done()
        assert done is not None
        found[artefact.folder.name] = done["files"]
    return found


def copy_home(source: Path, target: Path) -> Path:
    """An independent copy of a home."""
    shutil.copytree(source, target)
    return target


def folder(home: Path, node: Node) -> Path:
    """Folder of a node's artefact."""
    return node.artefact(Store(home)).folder


def node_of(home: Path, stage: str, cell: str) -> Node:
    """The node of a stage in a cell such as `dpo/0`, the last one where there are several."""
    return [node for node in plan_of(home).wired[cell].nodes() if node.stage.name == stage][-1]


def forget(home: Path, *nodes: Node) -> None:
    """Remove artefacts from a home as if they had never been computed."""
    for node in nodes:
        shutil.rmtree(folder(home, node))
