"""Whether preference tuning squeezes, how much of it cooling removes, what early stopping saves: results/squeezing.md.

The grid `squeezing-study` is computed first (what is done already is kept); its configuration was committed before it
was run. Everything is read from the rows of its probes and from its scores. Nothing is asserted: "absent" is a result.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from statistics import mean, stdev
from typing import Any

REPO = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(REPO), str(REPO / "tests" / "perf")]

import pandas as pd  # noqa: E402
from measure import made_by, table  # noqa: E402

from cwdpo.base import files  # noqa: E402
from cwdpo.cli.app import open_plan  # noqa: E402
from cwdpo.dynamics.alarms import Evidence, examine  # noqa: E402
from cwdpo.dynamics.curves import curve  # noqa: E402
from cwdpo.dynamics.points import points_of  # noqa: E402
from cwdpo.dynamics.rows import GRADES  # noqa: E402
from cwdpo.jobs.plan import Plan  # noqa: E402
from cwdpo.jobs.probed import Recorded, recorded  # noqa: E402

GRID = "squeezing-study"
RESULT = Path(__file__).parent / "results" / "squeezing.md"
STUDIED = ("easy__dpo", "easy__cw_dpo", "hard__dpo", "hard__cw_dpo")
MEASURES = {
    "mean_logp_chosen": 3, "mean_logp_hard": 2, "mean_logp_easy": 2, "entropy": 3, "top1": 3, "tv": 3, "js": 4,
    "ece": 4, "vulnerable": 3,
}  # fmt: skip
"""Columns of the curve, with the digits that are shown."""

OWN_GRADIENT = {"dpo": "loser_gradient_dpo_variance", "cw_dpo": "loser_gradient_cw_dpo_variance"}


class Study:
    """The finished grid."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.seeds = sorted({cell.seed for cell in plan.grid.cells})
        self.recorded = cache(self._recorded)

    def _recorded(self, case: str, seed: int) -> Recorded:
        found = recorded(self.plan, f"{case}/{seed}")
        return found["stage2" if "stage2" in found else "stage1"]

    def curve(self, case: str, seed: int) -> pd.DataFrame:
        """A row per probed step of the case's last stage."""
        found = self.recorded(case, seed)
        assert found.probes is not None, found.missing
        return curve(found.probes)

    def cider(self, case: str, seed: int) -> float:
        """Times 100."""
        score = self.plan.wired[f"{case}/{seed}"].scores["captions"].artefact(self.plan.store)
        return 100 * float(files.read_json(score.files / "scores.json")["metrics"]["cider"])

    def alarmed(self, case: str, seed: int) -> bool:
        """Whether the alarm `squeezing` goes off at the end of the training."""
        found = self.recorded(case, seed)
        assert found.probes is not None
        return bool(examine(Evidence("stage2", found.objective, points_of(found.probes)), ["squeezing"]))

    def steps(self, case: str, seed: int) -> int:
        """Optimizer steps that were done."""
        return int(self.recorded(case, seed).training[-1]["step"])


def measures(study: Study) -> str:
    """Where Stage 2 starts, and where it ends."""
    rows = []
    for case in ("start", *STUDIED):
        curves = [study.curve(STUDIED[0] if case == "start" else case, seed) for seed in study.seeds]
        lines = [found.iloc[0 if case == "start" else -1] for found in curves]
        shown = [_text([line[name] for line in lines], digits) for name, digits in MEASURES.items()]
        own = OWN_GRADIENT.get(case.partition("__")[2], "")
        spread = _text([1e4 * line[own] for line in lines], 2) if own else ""
        ciders = [study.cider("sft_c" if case == "start" else case, seed) for seed in study.seeds]
        alarms = "" if case == "start" else f"{sum(study.alarmed(case, seed) for seed in study.seeds)} of {len(curves)}"
        rows.append([case, *shown, spread, _text(ciders, 1), alarms])
    return table(("case", *MEASURES, "loser gradient variance x 1e4", "CIDEr", "squeezing alarms"), rows)


def verdict(study: Study) -> str:
    """Whether true answers and wrong ones lose to what was likeliest anyway, and what cooling changes, in sentences."""
    alarms = sum(study.alarmed(case, seed) for case in STUDIED for seed in study.seeds)
    lines = [
        f"Squeezing as the alarm has it (true and wrong answers fall while top-1 mass rises): {alarms} of"
        f" {len(STUDIED) * len(study.seeds)} trainings{'; absent here' if not alarms else ''}."
    ]
    for kind in ("easy", "hard"):
        fell, cooled = (mean(_changes(study, f"{kind}__{name}", "mean_logp_chosen")) for name in ("dpo", "cw_dpo"))
        top = [mean(_changes(study, f"{kind}__{name}", "top1")) for name in ("dpo", "cw_dpo")]
        lines.append(
            f"With {kind} negatives mean_logp of true answers changes by {fell:+.3f} under `dpo`, by {cooled:+.3f}"
            f" under `cw_dpo`, top-1 mass by {top[0]:+.3f} and {top[1]:+.3f}."
        )
    return " ".join(lines)


def _changes(study: Study, case: str, column: str) -> list[float]:
    """From the start of Stage 2 to its end, seed by seed."""
    curves = (study.curve(case, seed)[column] for seed in study.seeds)
    return [float(values.iloc[-1] - values.iloc[0]) for values in curves]


def decays(study: Study) -> str:
    """How the cooling weight of graded negatives decays; recorded in all cases alike, whether or not it is used."""
    rows = []
    for case in STUDIED:
        curves = [study.curve(case, seed) for seed in study.seeds]
        shown = [
            f"{_text([found[f'w_c_{grade}'].iloc[0] for found in curves], 3)} to"
            f" {_text([found[f'w_c_{grade}'].iloc[-1] for found in curves], 3)}"
            for grade in GRADES
        ]
        rows.append([case, *shown, _orders(curves)])
    return table(("case", *(f"w_c of {grade} negatives" for grade in GRADES), "order of halving, seeds"), rows)


def _orders(curves: Sequence[pd.DataFrame]) -> str:
    """`easy, medium, hard x 3`: in which order the weights fall below half of where they started, by seeds."""
    found: dict[str, int] = {}
    for one in curves:
        steps = {grade: _halved(one[f"w_c_{grade}"]) for grade in GRADES}
        halved = sorted((step, grade) for grade, step in steps.items() if step is not None)
        words = ", ".join(f"{grade} (step {step})" for step, grade in halved) or "none halves"
        found[words] = found.get(words, 0) + 1
    return "; ".join(f"{words} x {count}" for words, count in found.items())


def _halved(weights: pd.Series) -> int | None:
    below = weights[weights < weights.iloc[0] / 2]
    return int(below.index[0]) if len(below) else None


def stopping(study: Study) -> str:
    """Steps and scores with and without early stopping."""
    rows = []
    for case in ("hard__dpo", "hard__cw_dpo", "easy__dpo"):
        stopped = f"{case}__stopped"
        steps = [[study.steps(name, seed) for seed in study.seeds] for name in (case, stopped)]
        ciders = [[study.cider(name, seed) for seed in study.seeds] for name in (case, stopped)]
        differences = [after - before for before, after in zip(*ciders, strict=True)]
        rows.append([case, *(_text(values, 0) for values in steps), *(_text(values, 1) for values in ciders),
                     _text(differences, 1)])  # fmt: skip
    return table(("case", "steps", "steps, stopped", "CIDEr", "CIDEr, stopped", "difference, seed by seed"), rows)


def _text(values: Sequence[float], places: int) -> str:
    """Mean and sample standard deviation over seeds; the mean alone where all are one result."""
    shown = f"{mean(values):.{places}f}"
    return shown if len(set(values)) == 1 else f"{shown} ± {stdev(values):.{places}f}"


def costs(study: Study) -> str:
    """What probing took beside training, in one sentence."""
    probing, training = 0.0, 0.0
    for case in STUDIED:
        for seed in study.seeds:
            found = study.recorded(case, seed)
            assert found.probes is not None
            probing += float(found.probes.about["seconds"])
            training += sum(_seconds(point) for point in found.training)
    return f"Probing took {probing:.0f} s, the steps of the same trainings {training:.0f} s."


def _seconds(point: Mapping[str, Any]) -> float:
    return float(point["seconds"])


def document(study: Study) -> str:
    """Markdown."""
    start = study.recorded(STUDIED[0], study.seeds[0]).probes
    assert start is not None
    about = (
        f"Grid `{GRID}`, which was committed before it was run (754421b, then `squeezing-demo`;"
        " `easy__dpo__stopped` was added when a replay had shown that the rule would halve it), seeds"
        f" {', '.join(map(str, study.seeds))}, mean ± standard deviation; {start.about['samples']} samples of the val"
        " split. Log-probabilities in nats per token; TV, JS (nats) and"
        " the change of everything is against the start of Stage 2; `vulnerable` is the share of probe pairs with a"
        " preference probability in [0.8, 0.99] (Remark 1); the variance is that of the norm of the loser's gradient"
        " in the logits over probe pairs, with the weight that the method itself gives it."
    )
    return "\n\n".join(
        [
            "# Squeezing on the demo world", verdict(study), about, "## Where Stage 2 starts and ends", measures(study),
            "## Cooling weights of graded negatives", decays(study), "## Early stopping", stopping(study),
            costs(study), made_by(__file__),
        ]
    ) + "\n"  # fmt: skip


def main() -> None:
    """Compute the grid, read its probes, write the tables."""
    command = [sys.executable, "-m", "cwdpo", "submit", "--grid", GRID, "--cluster", "local"]
    subprocess.run(command, cwd=REPO, check=True)
    text = document(Study(open_plan(GRID, None, None)))
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(text)
    print(text)


if __name__ == "__main__":
    main()
