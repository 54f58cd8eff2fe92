"""Every YAML that is shipped parses as what it is; every README link and command exists."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from commands import copy_home, forget, node_of, readme_commands
from formats import pope

from cwdpo.base.config import read_yaml, validate
from cwdpo.experiment import load_grid
from cwdpo.jobs.clusters import load_cluster
from cwdpo.model.config import Checkpoint, Tiny

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
COMMANDS = readme_commands(README)
(SLURM_SECTION,) = re.findall(r"## On a Slurm cluster\n.*?(?=\n## )", README, re.DOTALL)
"""Its commands run in tests/slurm/test_readme.py, on a real Slurm."""


def shipped(folder: str) -> list[Path]:
    found = sorted((ROOT / folder).glob("*.yaml"))
    assert found, folder
    return found


@pytest.mark.parametrize("path", shipped("configs/grids") + shipped("tests/grids"), ids=lambda path: path.stem)
def test_grid_parses(path: Path) -> None:
    grid = load_grid(str(path))
    assert grid.cells
    assert grid.description


@pytest.mark.parametrize("path", shipped("configs/methods"), ids=lambda path: path.stem)
def test_method_parses_and_is_in_the_grid_of_all_methods(path: Path) -> None:
    grid = load_grid("methods")
    assert path.stem in {*grid.cases, *SAME_TRAINING}
    content = read_yaml(path)
    assert path.read_text().startswith("# "), "it says first which row of which table it is"
    for stage in ("stage1", "stage2"):
        objective = (content.get(stage) or {}).get("objective")
        if objective:  # what is printed or chosen is written down, not left to a default that may move
            cell = next(cell for cell in grid.cells if cell.case == SAME_TRAINING.get(path.stem, path.stem))
            assert set(objective) >= set(getattr(cell.experiment, stage).objective.canonical()) - {"reduction"}


SAME_TRAINING = {"wo_cw_dpo": "sft_c"}
"""Methods that are another one under the name of the table."""


@pytest.mark.parametrize("path", shipped("configs/clusters"), ids=lambda path: path.stem)
def test_cluster_parses(path: Path) -> None:
    assert load_cluster(str(path)).kind == ("local" if path.stem == "local" else "slurm")


@pytest.mark.parametrize("path", shipped("configs/models"), ids=lambda path: path.stem)
def test_model_parses(path: Path) -> None:
    content = read_yaml(path)
    assert validate({"checkpoint": Checkpoint, "tiny": Tiny}[content["source"]], content, str(path))


def test_no_two_test_files_have_one_name() -> None:
    """pytest refuses the second one, but only where both folders are collected, at the end of a whole run."""
    found = Counter(path.name for path in (ROOT / "tests").rglob("test_*.py"))
    assert [name for name, count in found.items() if count > 1] == []


def test_no_yaml_is_left_out() -> None:
    tracked = subprocess.run(
        ["git", "ls-files", "*.yaml", "*.yml"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    covered = {
        "configs/grids",
        "configs/clusters",
        "configs/models",
        "configs/assets",
        "configs/methods",
        "configs/paper",
        "configs/tables",
        "configs/sizes",
        "tests/grids",
    }
    others = {name for name in tracked.stdout.split() if str(Path(name).parent) not in covered}
    parsed = {
        "negatives/lexicon.yaml", "negatives/codebook.yaml", "negatives/llm/vision_errors.yaml",
        "evaluate/benchmarks/textvqa.yaml", "evaluate/benchmarks/objects/coco.yaml", "jobs/forecast/models.yaml",
    }  # fmt: skip
    assert others == {f"cwdpo/{name}" for name in parsed}, "a new YAML file needs a test that parses it"


@pytest.mark.parametrize("link", sorted(set(re.findall(r"\]\(([^)#]+)\)", README))))
def test_readme_link_exists(link: str) -> None:
    assert link.startswith("https://") or (ROOT / link).exists(), link


def test_readme_has_the_two_commands() -> None:
    assert {"make demo", "make test"} <= set(COMMANDS)


@pytest.mark.parametrize("command", [line for line in COMMANDS if line.startswith("make ")])
def test_make_target_exists(command: str) -> None:
    done = subprocess.run([*shlex.split(command), "--dry-run"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def umask() -> int:
    found = os.umask(0)
    os.umask(found)
    return found


def test_readme_commands_run(finished: Path, tmp_path: Path) -> None:
    """Every cwdpo command of the README, in its order, with the demo grid swapped for the micro one.

    On a home in which one cell is still to be evaluated; the rest was computed by the same `submit`.
    """
    home = copy_home(finished, tmp_path / "runs")
    forget(home, *[node_of(home, stage, "cw_dpo/0") for stage in ("generate", "score")])
    environment = {**os.environ, "CWDPO_HOME": str(home), "PYTHONPATH": str(ROOT)}
    here = readme_commands(README.replace(SLURM_SECTION, ""))
    commands = [line for line in here if line.startswith(".venv/bin/cwdpo ")]
    pope.write(tmp_path / "pope")
    written = {name: str(tmp_path / name) for name in ("exported", "demo.tex", "demo.csv")}
    there = {**written, "/data/pope": str(tmp_path / "pope")}
    places = {"demo": "tests/grids/micro.yaml", **there}
    assert len(commands) >= 6
    for command in commands:
        words = shlex.split(command)[1:]
        swapped = [places.get(word, word) for word in words]
        done = subprocess.run(
            [sys.executable, "-m", "cwdpo", *swapped],
            cwd=ROOT,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
        assert done.stdout.strip(), command
    weights = tmp_path / "exported" / "model.safetensors"
    assert weights.stat().st_mode & 0o777 == 0o666 & ~umask(), "a colleague must be able to read it"


def test_readme_grids_are_valid(tmp_path: Path) -> None:
    grids = []
    for block in re.findall(r"```yaml\n(.*?)```", README, re.DOTALL):
        path = tmp_path / "my-grid.yaml"
        path.write_text(block)
        grids.append([cell.name for cell in load_grid(str(path)).cells])
    assert [names[:2] for names in grids] == [["base/0", "base/1"], ["default/0"], ["dpo/0", "opa_dpo/0"]]
