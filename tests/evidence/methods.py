"""What every method does to held-out data of the demo world: `make evidence` writes results/methods.md.

The grid `methods` is computed first (what is done already is kept). Then each policy scores, for every image of the
test split, its caption and a minimal perturbation of it, and is compared with the policy that the method's last stage
started from. Nothing is asserted: the table says what came out, good or bad.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from statistics import mean, stdev
from typing import Any

REPO = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(REPO), str(REPO / "tests" / "perf")]

import torch  # noqa: E402
from measure import made_by, table  # noqa: E402

from cwdpo.base import files  # noqa: E402
from cwdpo.base.store import Store  # noqa: E402
from cwdpo.cli.app import open_plan  # noqa: E402
from cwdpo.data.encoding import Collator  # noqa: E402
from cwdpo.data.records import Record, open_records  # noqa: E402
from cwdpo.data.samples import Sample  # noqa: E402
from cwdpo.experiment import Cell  # noqa: E402
from cwdpo.graph import Node  # noqa: E402
from cwdpo.jobs.plan import Plan  # noqa: E402
from cwdpo.model.config import Policy  # noqa: E402
from cwdpo.model.load import load_lora, load_model, load_policy_processor  # noqa: E402
from cwdpo.model.scoring import Scorer, Way  # noqa: E402
from cwdpo.negatives.rule import Perturb  # noqa: E402

GRID = "methods"
RESULT = Path(__file__).parent / "results" / "methods.md"
COLUMNS = ("method", "delta_w", "delta_l", "accuracy before", "after", "CIDEr before", "after", "seconds of training")


@dataclass(frozen=True)
class Judged:
    """Held-out pairs under one policy. Shapes (P,)."""

    chosen: torch.Tensor
    rejected: torch.Tensor

    @property
    def accuracy(self) -> float:
        """Share of pairs whose chosen response is the likelier one, token for token."""
        return float((self.chosen > self.rejected).double().mean())


class Study:
    """The finished grid."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.scores = {self._policy_id(cell): plan.wired[cell.name].scores["captions"] for cell in plan.grid.cells}
        self.judged = cache(self._judged)

    def row(self, case: str) -> list[str]:
        """One line of the table: means over seeds, with their standard deviation."""
        cells = [cell for cell in self.plan.grid.cells if cell.case == case]
        columns = zip(*(self._numbers(cell) for cell in cells), strict=True)
        return [case, *(_text(values, places) for values, places in zip(columns, (2, 2, 3, 3, 1, 1, 0), strict=True))]

    def _numbers(self, cell: Cell) -> tuple[float, ...]:
        trained = self.plan.wired[cell.name].policy
        assert trained is not None, "the base is the baseline"
        start = self._start(trained)
        after, before = self.judged(trained), self.judged(start)
        delta = [float((one - other).mean()) for one, other in
                 ((after.chosen, before.chosen), (after.rejected, before.rejected))]  # fmt: skip
        cider = [100 * self._cider(node) for node in (start, trained)]
        return (*delta, before.accuracy, after.accuracy, *cider, self._seconds(trained))

    def _start(self, trained: Node) -> Node | None:
        """What the last stage began with: an SFT phase is part of Stage 2."""
        before = trained.inputs.get("adapter")
        while isinstance(before, Node) and before.stage.name == "sft_phase":
            before = before.inputs.get("adapter")
        return before if isinstance(before, Node) else None

    def _policy_id(self, cell: Cell) -> str | None:
        policy = self.plan.wired[cell.name].policy
        return policy.id if policy else None

    def _cider(self, policy: Node | None) -> float:
        score = self.scores[policy.id if policy else None].artefact(self.plan.store)
        return float(files.read_json(score.files / "scores.json")["metrics"]["cider"])

    def _seconds(self, trained: Node) -> float:
        done = trained.artefact(self.plan.store).done()
        assert done is not None, "the grid is finished"
        return float(done["provenance"]["seconds"])

    def _judged(self, policy: Node | None) -> Judged:
        generate = self.scores[policy.id if policy else None].inputs["generate"]
        assert isinstance(generate, Node)
        folders = {role: _folder(entry, self.plan.store) for role, entry in generate.inputs.items()}
        print(f"judging by {folders.get('adapter', folders['model']).parent.name}", flush=True)
        return judge(folders)


def _folder(entry: Any, store: Store) -> Path:
    return entry.artefact(store).files if isinstance(entry, Node) else entry.path


def judge(folders: dict[str, Path]) -> Judged:
    """Log-probabilities of held-out captions and their perturbations under the policy of some folders."""
    settings = Policy(dtype="float32")
    model: Any = load_model(settings, folders["model"])
    model = load_lora(model, folders["adapter"], trainable=False) if "adapter" in folders else model
    collator = Collator(load_policy_processor(settings, folders["model"]), folders["images"], 256)
    scorer = Scorer(model, collator.pad, torch.device("cpu"), Way(shared=True, chunked=True))
    values = []
    with torch.no_grad():
        for batch in _batches(list(held_out(folders["pairs"])), 25):
            groups = [collator.group(sample, [sample.chosen, *sample.rejected]) for sample in batch]
            values.append(scorer.logps(groups)[0].view(-1, 2))
    chosen, rejected = torch.cat(values).double().T
    return Judged(chosen, rejected)


def held_out(pairs: Path) -> Iterator[Sample]:
    """Test captions with one perturbation each, drawn with another seed than training's."""
    records: Sequence[Record] = [record for record in open_records(pairs / "records.jsonl") if record.split == "test"]
    source = Perturb(source="perturb", kinds=("colour", "object", "size", "count", "relation"), seed=1)
    for record, offer in zip(records, source.offers(records, {}), strict=True):
        texts = tuple(item.text for item in offer.rejected if item.text not in record.references)
        if texts:
            yield Sample(record.id, record.image_id, record.image, record.prompt, record.chosen, texts)


def _batches(samples: list[Sample], size: int) -> Iterator[list[Sample]]:
    return (samples[start : start + size] for start in range(0, len(samples), size))


def _text(values: Sequence[float], places: int) -> str:
    """Mean and sample standard deviation over seeds; the mean alone where all are one result."""
    shown = f"{mean(values):.{places}f}"
    return shown if len(set(values)) == 1 else f"{shown} ± {stdev(values):.{places}f}"


def main() -> None:
    """Compute the grid, judge every policy, write the table."""
    command = [sys.executable, "-m", "cwdpo", "submit", "--grid", GRID, "--cluster", "local"]
    subprocess.run(command, cwd=REPO, check=True)
    study = Study(open_plan(GRID, None, None))
    rows = [study.row(case) for case in study.plan.grid.cases if case != "base"]
    notes = (
        f"Test split of the demo world, {len(study.judged(None).chosen)} pairs, seeds"
        f" {', '.join(map(str, sorted({cell.seed for cell in study.plan.grid.cells})))}: mean ± standard deviation;"
        f" grid `{GRID}`. delta_w and delta_l: change of the log-probability of a caption and of a minimal perturbation"
        " of it, nats, from the policy that the last stage started from (Stage 1's result for methods with a Stage 2,"
        " else the base model). Accuracy: share of pairs in which the caption is the likelier. All methods of a stage"
        " have one learning rate, and nothing was tuned for any: this shows that each trains and what it moves, not"
        " which is best."
    )
    text = f"# Every method on the demo world\n\n{table(COLUMNS, rows)}\n\n{notes}\n\n{made_by(__file__)}\n"
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(text)
    print(text)


if __name__ == "__main__":
    main()
