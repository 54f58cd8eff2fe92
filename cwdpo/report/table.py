"""From finished scores to the numbers of a table. Every value keeps where it comes from."""

from __future__ import annotations

from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cwdpo.base import files
from cwdpo.base.errors import ConfigError, StoreError
from cwdpo.base.store import Artefact
from cwdpo.jobs.containers.image import named
from cwdpo.jobs.plan import Plan, Shown, different_images
from cwdpo.jobs.status import Overlay
from cwdpo.pipeline import Node, in_order
from cwdpo.statistics.bootstrap import Interval, paired_bootstraps
from cwdpo.statistics.summary import mean_std

COMPARED = "cider"
"""The metric whose per-item values are compared with the baseline's."""

OPTIONAL = ("spice",)
"""Metrics that need something to be fetched first: no column where no score has them."""

NAMES = {
    "bleu_1": "BLEU-1", "bleu_2": "BLEU-2", "bleu_3": "BLEU-3", "bleu_4": "BLEU-4",
    "meteor": "METEOR", "rouge_l": "ROUGE-L", "cider": "CIDEr", "spice": "SPICE",
}  # fmt: skip


@dataclass(frozen=True)
class Value:
    """One cell of a table.

    Attributes:
        mean: over seeds, times 100; None when there is nothing to show.
        std: sample standard deviation over seeds, times 100; None for one value.
        n: number of distinct results the mean is over.
        missing: why values are missing, such as "failed: out of memory" or "not available: Java not found".
        artefacts: folders of the scores behind the mean.
    """

    mean: float | None
    std: float | None
    n: int
    missing: tuple[str, ...]
    artefacts: tuple[str, ...]


@dataclass(frozen=True)
class Row:
    """One method.

    Attributes:
        values: metric -> value.
        difference: paired difference of per-item CIDEr (times 100) to the baseline, or None.
        marks: notes on the whole row, such as identical adapters.
        origins: score folder and commit behind each result.
    """

    case: str
    values: dict[str, Value]
    difference: Interval | None
    marks: tuple[str, ...]
    origins: tuple[str, ...]


@dataclass(frozen=True)
class Table:
    """One benchmark of one grid; `options` names the grid on a command line."""

    grid: str
    options: str
    benchmark: str
    metrics: tuple[str, ...]
    baseline: str
    rows: tuple[Row, ...]
    items: int
    partial: bool
    notes: tuple[str, ...]


@dataclass(frozen=True)
class _Score:
    """A finished score node as read from the store.

    Attributes:
        items: file of the values per item, which are read where they are compared.
    """

    summary: dict[str, Any]
    items: Path
    folder: str
    commit: str


@dataclass(frozen=True)
class _Case:
    """What the store has of one case.

    Attributes:
        found: a score, or why there is none, of each distinct result.
        difference: paired bootstrap over items of per-item CIDEr averaged over seeds; needs every seed.
    """

    found: list[_Score | str]
    difference: Interval | None


@dataclass(frozen=True)
class _Grid:
    """A grid at one moment.

    Attributes:
        reasons: node id -> why it failed, as a scheduler knows it.
        images: id of a finished node -> what it was computed in.
    """

    plan: Plan
    states: Mapping[str, Shown]
    reasons: Mapping[str, str]
    images: Mapping[str, str]


def tables(plan: Plan, overlay: Overlay | None = None) -> list[Table]:
    """One table per benchmark of the grid.

    Args:
        overlay: what a scheduler knows beyond the store.

    Raises:
        ConfigError: the grid has no benchmarks.
    """
    survey = plan.survey()
    states, reasons = survey.states, {}
    if overlay:
        states, reasons = overlay.states(states), overlay.reasons()
    grid = _Grid(plan, states, reasons, survey.images)
    names = dict.fromkeys(name for wired in plan.wired.values() for name in wired.scores)
    if not names:
        raise ConfigError(f"grid '{plan.grid.name}' has no benchmarks: there is nothing to report")
    twins = _identical(plan, states)
    return [_table(grid, name, twins) for name in names]


def _table(grid: _Grid, benchmark: str, twins: dict[str, str]) -> Table:
    plan = grid.plan
    nodes = _nodes(plan, benchmark)
    cases = _cases(grid, nodes)
    entries = (entry for cell in plan.grid.cells for entry in cell.experiment.benchmarks)
    read = [score for case in cases.values() for score in case.found if isinstance(score, _Score)]
    wanted = next(entry.headline for entry in entries if entry.name == benchmark)
    headline = _columns(wanted, read)
    rows = tuple(_row(name, case, headline, twins) for name, case in cases.items())
    items = max((score.summary["items"] for score in read), default=0)
    partial = any(score.summary["partial"] for score in read)
    left_out = [metric for metric in wanted if metric not in headline]
    images = _image_notes(grid, [node for found in nodes.values() for node in found])
    notes = (*_notes(read), *_left_out(left_out, read), *images)
    return Table(plan.grid.name, plan.grid.options, benchmark, headline, next(iter(cases)), rows, items, partial, notes)


def _cases(grid: _Grid, nodes: Mapping[str, Sequence[Node]]) -> dict[str, _Case]:
    """Every case compared with the first; of the values per item, one mean over seeds is held."""
    found: dict[str, list[_Score | str]] = {}
    values: dict[str, array[float]] = {}
    baseline: dict[str, float] | None = None
    for name, scores in nodes.items():
        found[name] = [_read(grid, node) for node in scores]
        if len(found) == 1:
            baseline = _item_means(found[name])
        elif baseline and (means := _item_means(found[name])) and means.keys() == baseline.keys():
            values[name] = _in_order(means)
    intervals = paired_bootstraps(values.values(), _in_order(baseline or {}))
    differences = dict(zip(values, intervals, strict=True))
    return {name: _Case(scores, differences.get(name)) for name, scores in found.items()}


def _row(name: str, case: _Case, headline: Sequence[str], twins: Mapping[str, str]) -> Row:
    """One method."""
    return Row(
        name,
        {metric: _value(case.found, metric) for metric in headline},
        case.difference,
        (twins[name],) if name in twins else (),
        tuple(f"{score.folder} ({score.commit})" for score in case.found if isinstance(score, _Score)),
    )


def _columns(headline: Sequence[str], scores: Sequence[_Score]) -> tuple[str, ...]:
    """The metrics to show."""
    found = {metric for score in scores for metric, value in score.summary["metrics"].items() if value is not None}
    return tuple(metric for metric in headline if metric not in OPTIONAL or metric in found)


def _left_out(metrics: Sequence[str], scores: Sequence[_Score]) -> list[str]:
    """Why metrics have no column."""
    reasons = {f"{NAMES[metric]} is not available: {_reason(score, metric)}" for metric in metrics for score in scores}
    return sorted(reasons)


def _nodes(plan: Plan, benchmark: str) -> dict[str, list[Node]]:
    """Case -> its distinct score nodes: seeds that share a deterministic result count once."""
    found: dict[str, dict[str, Node]] = {}
    for cell in plan.grid.cells:
        node = plan.wired[cell.name].scores.get(benchmark)
        if node:
            found.setdefault(cell.case, {})[node.id] = node
    return {case: list(nodes.values()) for case, nodes in found.items()}


def _read(grid: _Grid, node: Node) -> _Score | str:
    """The score, or why there is none."""
    if grid.states[node.id] not in ("done", "stale"):
        return _why(grid, node)
    artefact = node.artefact(grid.plan.store)
    try:
        folder = artefact.verified_files()
        summary = files.read_json(folder / "scores.json")
        return _Score(summary, folder / "items.jsonl", artefact.folder.name, _commit(artefact))
    except StoreError:
        return "damaged"


def _commit(artefact: Artefact) -> str:
    """Commit of the code that computed an artefact, and the image it ran in."""
    done = artefact.done()
    assert done is not None, "only finished scores are read"
    found = done["provenance"]
    image = f", image {named(found)}" if found.get("image") else ""
    if not found["commit"]:
        return f"cwdpo {found['version']}{image}"
    return f"commit {str(found['commit'])[:12]}{' with changes' if found['dirty'] else ''}{image}"


def _why(grid: _Grid, node: Node) -> str:
    """Why a score is not there: what failed first on the way to it, else what is at work, else its own state."""
    on_the_way = [found for found in in_order([node]) if grid.states[found.id] not in ("done", "stale")]
    for found in on_the_way:
        if grid.states[found.id] == "failed":
            return f"failed: {_reason_of(grid, found)}"
    for state in ("cancelled", "running", "starting", "queued"):
        if any(grid.states[found.id] == state for found in on_the_way):
            return state
    return grid.states[node.id]


def _reason_of(grid: _Grid, node: Node) -> str:
    """What a failed stage said, or the scheduler of it."""
    artefact = node.artefact(grid.plan.store)
    result = artefact.result(artefact.newest())
    return grid.reasons.get(node.id) or (result["message"] if result else "no reason recorded")


def _value(found: Sequence[_Score | str], metric: str) -> Value:
    scores = [score for score in found if isinstance(score, _Score)]
    have = [score for score in scores if score.summary["metrics"].get(metric) is not None]
    reasons = [score for score in found if isinstance(score, str)]
    reasons += [f"not available: {_reason(score, metric)}" for score in scores if score not in have]
    folders = tuple(score.folder for score in have)
    if not have:
        return Value(None, None, 0, tuple(dict.fromkeys(reasons)), folders)
    summary = mean_std([100 * score.summary["metrics"][metric] for score in have])
    return Value(summary.mean, summary.std, summary.n, tuple(dict.fromkeys(reasons)), folders)


def _reason(score: _Score, metric: str) -> str:
    reason = str(score.summary["unavailable"].get(metric, "no value"))
    return reason.removeprefix("not available: ")


def _in_order(means: Mapping[str, float]) -> array[float]:
    """Values in the order of the sorted ids."""
    return array("d", (means[name] for name in sorted(means)))


def _item_means(found: Sequence[_Score | str]) -> dict[str, float] | None:
    """Item -> mean over seeds of 100 x CIDEr, or None while something is missing."""
    scores = [score for score in found if isinstance(score, _Score)]
    if len(scores) < len(found):
        return None
    sums: dict[str, float] = {}
    for score in scores:
        values = _compared(score)
        if not values or values.keys() != (sums or values).keys():
            return None
        sums = {name: sums.get(name, 0.0) + value for name, value in values.items()}
    return {name: 100 * value / len(scores) for name, value in sums.items()}


def _compared(score: _Score) -> dict[str, float] | None:
    """Item -> CIDEr, or None where an item is without."""
    values: dict[str, Any] = {row["id"]: row.get(COMPARED) for row in files.read_jsonl(score.items)}
    return None if None in values.values() else values


def _identical(plan: Plan, states: Mapping[str, Shown]) -> dict[str, str]:
    """Case -> note, where a trained policy has the same bytes as another case's for some seed."""
    first: dict[tuple[int, str], str] = {}
    notes: dict[str, str] = {}
    for cell in plan.grid.cells:
        policy = plan.wired[cell.name].policy
        if policy is None or states[policy.id] not in ("done", "stale"):
            continue
        weights = _weights_digest(plan, policy)
        other = first.setdefault((cell.seed, weights), cell.case)
        if other != cell.case:
            notes[cell.case] = f"the trained weights are identical to those of {other}"
    return notes


def _weights_digest(plan: Plan, node: Node) -> str:
    done = node.artefact(plan.store).done()
    assert done is not None, "only finished nodes are compared"
    return "".join(entry["sha256"] for name, entry in done["files"].items() if name.endswith(".safetensors"))


def _image_notes(grid: _Grid, scores: Sequence[Node]) -> list[str]:
    """What was computed in which image, where the stages behind a table do not share one."""
    found = different_images(grid.images[node.id] for node in in_order(scores) if node.id in grid.images)
    return [f"the stages behind these numbers were computed in different images: {found}"] if found else []


def _notes(scores: Sequence[_Score]) -> tuple[str, ...]:
    """What the reader must know about how the numbers were made; more than one harness is said."""
    keys = ("prompt", "java", "pycocoevalcap", "dtype")
    harnesses = {tuple(str(score.summary["harness"].get(key)) for key in keys) for score in scores}
    notes = []
    if len(harnesses) > 1:
        notes.append("the rows were not all scored with the same harness (prompt, Java, pycocoevalcap, precision)")
    truncated = sum(score.summary["truncated"] for score in scores)
    if truncated:
        notes.append(f"{truncated} answers reached max_new_tokens and were cut")
    return tuple(notes)
