"""What every source of negatives does to held-out data of the demo world: writes results/negatives.md.

The grid `negatives-study` is computed first, seed 0 of it unless others are named (`negatives.py 0 1 2`); what is done
already is kept. Policies are judged as in `methods.py`, on the same held-out pairs. Nothing is asserted.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from methods import COLUMNS, REPO, Study, made_by, table

from cwdpo.base import files
from cwdpo.cli.app import open_plan
from cwdpo.experiment import Cell
from cwdpo.graph import Node

GRID = "negatives-study"
RESULT = Path(__file__).parent / "results" / "negatives.md"


class Sources(Study):
    """The finished grid, with what its sources made."""

    def row(self, case: str) -> list[str]:
        """As of a method, and how many records of Stage 2 the first seed found a loser for, how far from the winner."""
        name, *numbers = super().row(case)
        return [name, *self._made(next(cell for cell in self.plan.grid.cells if cell.case == case)), *numbers]

    def _made(self, cell: Cell) -> tuple[str, str]:
        trained = self.plan.wired[cell.name].policy
        negatives = trained.inputs.get("negatives") if trained and cell.experiment.stage2 else None
        if not isinstance(negatives, Node):
            return "", ""
        found = files.read_json(negatives.artefact(self.plan.store).files / "summary.json")
        distance = found["statistics"]["edit_distance"]["mean"]
        return f"{found['records'] - found['without']} of {found['records']}", f"{distance:.1f}"


def main(seeds: list[str]) -> None:
    """Compute the grid, judge every policy, write the table."""
    chosen = f"seeds=[{','.join(seeds)}]"
    command = [sys.executable, "-m", "cwdpo", "submit", "--grid", GRID, "--set", chosen, "--cluster", "local"]
    subprocess.run(command, cwd=REPO, check=True)
    study = Sources(open_plan(GRID, [chosen], None))
    rows = [study.row(case) for case in study.plan.grid.cases if case != "base"]
    columns = ("case", "records with a loser", "words apart", *COLUMNS[1:])
    told = f"seed{'s' * (len(seeds) > 1)} {', '.join(seeds)}"
    notes = (
        f"Test split of the demo world, {len(study.judged(None).chosen)} pairs, {told}; grid"
        f" `{GRID}`, columns as in [methods.md](methods.md). Words apart: mean edit distance of a loser and its winner."
        " `mixed` has that share of samples of the policy, the rest are captions of other images. The tiny model knows"
        " captions of one kind, so that its answers are nearly right or the same: this shows that every source feeds"
        " Stage 2 and what it moves there, not which is best."
    )
    text = (
        f"# Every source of negatives on the demo world\n\n{table(columns, rows)}\n\n{notes}\n\n{made_by(__file__)}\n"
    )
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(text)
    print(text)


if __name__ == "__main__":
    main(sys.argv[1:] or ["0"])
