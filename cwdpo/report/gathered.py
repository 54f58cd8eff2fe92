"""From a plan to what figures are drawn from: curves, probes, influence and scores of one stage of every case."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cwdpo.base import files
from cwdpo.base.errors import CwdpoError
from cwdpo.data.records import open_records
from cwdpo.dynamics.points import finite, step_of
from cwdpo.graph import Node, Probed, Wired
from cwdpo.jobs.plan import Plan
from cwdpo.jobs.probed import Recorded, recorded
from cwdpo.report.figures.candidates import candidate_scores
from cwdpo.report.figures.runs import Run, Runs, Scores

if TYPE_CHECKING:
    import pandas as pd


def gather(plan: Plan, stage: str, cases: Sequence[str]) -> Runs:
    """One stage of some cases; cases that share a training are one, under the name of the one that ends with it."""
    found: dict[str, dict[int, Run]] = {case: {} for case in cases}
    seen: set[str] = set()
    for cell in sorted(plan.grid.cells, key=lambda cell: not _ends_with(plan.wired[cell.name], stage)):
        probed = [one for one in plan.wired[cell.name].probed if one.stage == stage]
        if cell.case not in found or not probed or probed[-1].training.id in seen:
            continue
        seen.add(probed[-1].training.id)
        found[cell.case][cell.seed] = _run(plan, cell.name, stage, probed)
    return Runs(stage, {case: runs for case, runs in found.items() if runs})


def _ends_with(wired: Wired, stage: str) -> bool:
    """Whether a stage is the last training of a cell, so that its scores are that stage's."""
    return wired.policy is not None and wired.policy.stage.name == stage


def _run(plan: Plan, cell: str, stage: str, probed: Sequence[Probed]) -> Run:
    one: Recorded = recorded(plan, cell)[stage]
    wired = plan.wired[cell]
    scored = wired.scores if _ends_with(wired, stage) else {}
    score = next((node for node in scored.values() if "pairs" in node.inputs), None)
    end = int(one.training[-1]["step"]) if one.training else 0
    return Run(
        loss={step_of(point): point["loss"] for point in one.training if finite(point, "loss")} or "no training curve",
        probes=one.probes or one.missing,
        influence=_influence(plan, probed),
        scores=_scores(plan, score),
        top=_top(plan, score, end),
    )


_UNSCORED = "another stage follows, whose policy is the one that is scored, or no benchmark is of captions"


def _influence(plan: Plan, probed: Sequence[Probed]) -> pd.DataFrame | str:
    import pandas as pd

    from cwdpo.dynamics.influence.rows import read_influence

    nodes = [one.influence for one in probed]
    if None in nodes:
        return "influence was not asked for (probe.influence), or the objective has no loss of single samples"
    tables = []
    for node in nodes:
        assert node is not None
        artefact = node.artefact(plan.store)
        if artefact.done() is None:
            return f"influence is {artefact.state()}"
        tables.append(read_influence(artefact.files))
    return pd.concat(tables, ignore_index=True)


def _scores(plan: Plan, score: Node | None) -> Scores | str:
    """Of the first benchmark of captions."""
    if score is None:
        return _UNSCORED
    artefact = score.artefact(plan.store)
    if artefact.done() is None:
        return f"score is {artefact.state()}"
    summary: dict[str, Any] = files.read_json(artefact.files / "scores.json")
    return Scores.of(summary)


def _top(plan: Plan, score: Node | None, step: int) -> dict[int, Scores] | str:
    """Of the likeliest answers of the policy at the end; those of other steps were not generated."""
    if score is None:
        return _UNSCORED
    generated, pairs = score.inputs["generate"], score.inputs["pairs"]
    assert isinstance(generated, Node), "scores read what was generated"
    assert isinstance(pairs, Node), "and the records"
    if generated.artefact(plan.store).done() is None:
        return f"generate is {generated.artefact(plan.store).state()}"
    path = generated.artefact(plan.store).files / "generations.jsonl"
    if "candidates" not in next(iter(files.read_jsonl(path)), {}):
        return "one answer was generated per item (benchmark decoding: {strategy: beam, beams: 5, candidates: 5})"
    try:
        found = candidate_scores(path, _references(pairs.artefact(plan.store).files))
    except CwdpoError as error:
        return str(error)
    return found if isinstance(found, str) else {step: found}


def _references(folder: Path) -> dict[str, Sequence[str]]:
    return {record.image_id: record.references for record in open_records(folder / "records.jsonl")}
