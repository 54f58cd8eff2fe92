"""An objective is one file and one registration: two new ones, in a copy of this package, planned and trained."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from commands import REPO, cwdpo, succeed
from harness import WORLD, Micro

from cwdpo.base.files import write_json
from cwdpo.jobs.events import events

BARE = REPO / "tests" / "cli" / "bare"
HEAVY = "torch,transformers,deepspeed,peft"

IPO = '''
"""Identity preference optimisation: the margin is drawn to 1/(2 beta), not beyond."""

from __future__ import annotations

from typing import Literal

from cwdpo.objectives.preference import PairLosses, Pairs, Preference


class Ipo(Preference):
    """`(delta_w - delta_l - 1/(2 beta))^2`."""

    name: Literal["ipo"] = "ipo"
    beta: float = 0.1
    """Strength of the pull towards the reference."""

    def pair_losses(self, pairs: Pairs) -> PairLosses:
        """Loss of each pair. Shape (P,)."""
        gap = pairs.delta_chosen - pairs.delta_rejected - 1 / (2 * self.beta)
        return PairLosses(gap**2, {"gap": gap.detach()})
'''
CONTRAST = '''
"""Likelihood of the truth against that of negatives."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from cwdpo.objectives.supervised import Beside, Responses, State, Supervised

if TYPE_CHECKING:
    from torch import Tensor


class SftContrast(Supervised):
    """`E[nll(y+)] - weight * E[nll(y-)]`."""

    name: Literal["sft_contrast"] = "sft_contrast"
    weight: float = 0.5
    """Of negatives."""

    beside: ClassVar[Beside | None] = "rejected"

    def share(self, chosen: Responses, beside: Responses, state: State) -> Tensor:
        """Share of the loss. Scalar, nats."""
        return chosen.nll_share(self.per_token) - self.weight * beside.nll_share(self.per_token)
'''


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the package with two new objectives: a file each, and their names in `objectives/__init__.py`."""
    tree = tmp_path_factory.mktemp("tree")
    for folder in ("cwdpo", "configs"):
        shutil.copytree(REPO / folder, tree / folder, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(REPO / "pyproject.toml", tree)
    objectives = tree / "cwdpo" / "objectives"
    (objectives / "ipo.py").write_text(IPO.lstrip())
    (objectives / "sft_contrast.py").write_text(CONTRAST.lstrip())
    text = (objectives / "__init__.py").read_text()
    for module, name, union in (("ipo", "Ipo", "Preference"), ("sft_contrast", "SftContrast", "Supervised")):
        text = registered(text, f"from cwdpo.objectives.{module} import {name}", name, union)
    (objectives / "__init__.py").write_text(text)
    return tree


def registered(text: str, line: str, name: str, union: str) -> str:
    """`objectives/__init__.py` with one more import, and one more member of a union."""
    text, imported = re.subn(r"^(from cwdpo\.objectives\.dpo .*)$", rf"\1\n{line}", text, flags=re.MULTILINE)
    text, joined = re.subn(rf"({union}Objective = Annotated\[\s*)", rf"\1{name} | ", text)
    assert (imported, joined) == (1, 1)
    return text


@pytest.fixture(scope="module")
def grid(micro: Micro, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two steps of each; JSON is YAML."""
    optimization = {"batch_size": 4, "max_steps": 2, "learning_rate": 1e-2}
    more = {"negatives": {"source": "perturb"}, "optimization": optimization}
    base = {
        "data": {"source": "demo_world", "world": WORLD},
        "model": {"source": "checkpoint", "path": str(micro.model), "dtype": "float32"},
        "tuning": {"name": "lora", "rank": 4, "alpha": 8},
        "execution": {"micro_batch": 4},
    }
    cases = {
        "ipo": {"stage2": {"objective": {"name": "ipo", "beta": 0.25}, **more}},
        "contrast": {"stage1": {"objective": {"name": "sft_contrast"}, **more}},
    }
    path = tmp_path_factory.mktemp("grid") / "new.yaml"
    write_json(path, {"base": base, "cases": cases})
    return path


@pytest.fixture(scope="module")
def curves(tree: Path, grid: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[dict[str, Any]]]:
    """What two steps of each logged, by stage."""
    home = tmp_path_factory.mktemp("home")
    succeed(cwdpo("submit", "-g", grid, "--home", home, "-c", "local", cwd=tree, PYTHONPATH=str(tree)))
    found = {}
    for stage in ("stage1", "stage2"):
        (path,) = home.glob(f"store/{stage}-*/attempts/1/events.jsonl")
        found[stage] = [row for row in events(path) if row["event"] == "step"]
    return found


def test_this_package_knows_neither(grid: Path, tmp_path: Path) -> None:
    refused = cwdpo("plan", "-g", grid, "--home", tmp_path)
    assert refused.returncode == 2
    assert "ipo" in refused.stderr
    assert "cw_dpo" in refused.stderr, "what is valid"


def test_a_grid_that_names_them_is_planned_without_torch(tree: Path, grid: Path, tmp_path: Path) -> None:
    path = f"{BARE}{os.pathsep}{tree}"
    shown = succeed(
        cwdpo("plan", "-g", grid, "--home", tmp_path, cwd=tree, PYTHONPATH=path, CWDPO_TEST_FORBIDDEN=HEAVY)
    )
    assert "2 cells" in shown


def test_the_preference_objective_trains(curves: dict[str, list[dict[str, Any]]]) -> None:
    """At first policy and reference are the same: (0 - 0 - 2)^2."""
    first, second = curves["stage2"]
    assert first["loss"] == pytest.approx(4, abs=1e-4)
    assert first["gap"] == pytest.approx(-2, abs=1e-4)
    assert second["loss"] != pytest.approx(4, abs=1e-2)
    assert first["gradient_chosen"] > 0, "what every preference objective tells is there, too"


def test_the_supervised_objective_trains(curves: dict[str, list[dict[str, Any]]]) -> None:
    for point in curves["stage1"]:
        assert point["loss"] == pytest.approx(point["nll_chosen"] - 0.5 * point["nll_rejected"], abs=1e-5)
    first, second = curves["stage1"]
    assert second["loss"] != pytest.approx(first["loss"], abs=1e-2)
