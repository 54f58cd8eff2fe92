"""What must be known about the results behind a table, a sentence each without its full stop."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from cwdpo.evaluate.question import Metric
from cwdpo.graph import in_order
from cwdpo.jobs.plan import different_images
from cwdpo.report.content import Column
from cwdpo.report.layout import LaidRow, Layout
from cwdpo.report.results import Results
from cwdpo.report.score import Score
from cwdpo.report.trainings import StepCost, machines

HARNESS = (
    "prompt", "benchmark", "judge", "java", "pycocoevalcap", "tokenizer", "decoding", "dtype", "image_size", "versions",
)  # fmt: skip
"""What makes numbers incomparable where it differs between rows."""


# ---- on tables


def notes(results: Results, layout: Layout, left_out: Sequence[Column]) -> list[str]:
    """On the table as a whole.

    Args:
        left_out: columns that no row has a value of.
    """
    found: list[str] = list(layout.remarks)
    for benchmark in layout.benchmarks:
        scores = _scores(results, layout, benchmark)
        about = [*_harness(results, layout, benchmark), *_said(scores), *_counted(scores)]
        about += _left_out([one.metric for one in left_out if one.benchmark == benchmark], scores)
        found += about if len(layout.benchmarks) == 1 else [f"{benchmark}: {note}" for note in about]
    timed = any(isinstance(one.source, StepCost) for one in layout.columns)
    return found + _images(results, layout) + list(filter(None, [machines(results, layout) if timed else ""]))


def _scores(results: Results, layout: Layout, benchmark: str) -> list[Score]:
    """Each once, although rows may share it."""
    rows = (row.key for row in layout.rows if row.asked)
    found = (score for case in rows for _, score in results.scores(case, benchmark).found)
    return list({score.folder: score for score in found}.values())


def _harness(results: Results, layout: Layout, benchmark: str) -> list[str]:
    """More than one harness is said, and whose results are alike."""
    alike: dict[tuple[tuple[str, ...], ...], list[str]] = {}
    for key in sorted(HARNESS):
        labels: dict[str, dict[str, None]] = {}
        for row in layout.rows:
            for _, score in results.scores(row.key, benchmark).found if row.asked else ():
                labels.setdefault(str(score.summary["harness"].get(key)), {})[row.label] = None
        if len(labels) > 1:
            alike.setdefault(tuple(map(tuple, labels.values())), []).append(key)
    return [
        f"the rows were not all scored with the same harness ({', '.join(keys)}):"
        f" {' unlike '.join(', '.join(rows) for rows in groups)}"
        for groups, keys in alike.items()
    ]


def _said(scores: Sequence[Score]) -> list[str]:
    """What scoring noted, each once."""
    return list(dict.fromkeys(str(note) for score in scores for note in score.summary["notes"]))


def _counted(scores: Sequence[Score]) -> list[str]:
    """What was counted beside the values, over all results."""
    totals: Counter[str] = Counter()
    for score in scores:
        totals.update(score.summary["counts"])
    answers = sum(score.summary["items"] for score in scores)
    return [f"{name}: {count:,} of {answers:,} in all rows" for name, count in totals.items()]


def _left_out(metrics: Sequence[Metric], scores: Sequence[Score]) -> list[str]:
    """Why metrics have no column; those with the same reason together."""
    titles: dict[str, list[str]] = {}
    for metric in metrics:
        for reason in dict.fromkeys(score.unavailable(metric.key) for score in scores):
            titles.setdefault(reason, []).append(metric.title)
    return [f"{', '.join(names)} is not available: {reason}" for reason, names in sorted(titles.items())]


def _images(results: Results, layout: Layout) -> list[str]:
    """What was computed in which image, where the stages behind a table do not share one."""
    wired = (results.plan.wired[cell.name] for row in layout.rows if row.asked for cell in results.cells(row.key))
    nodes = in_order(node for one in wired for node in one.scores.values())
    found = different_images(results.images[node.id] for node in nodes if node.id in results.images)
    return [f"the stages behind these numbers were computed in different images: {found}"] if found else []


# ---- on rows


def mismatch(results: Results, row: LaidRow) -> str:
    """Where a row that the grid has stands on another Stage 1 than the table file says; else nothing."""
    real = results.stage1(row.key)
    if row.stands_on in ("", real):
        return ""
    return f"in this grid it stands on Stage 1 of {real}, not of {row.stands_on} as the table file has it"


def twins(results: Results, layout: Layout) -> dict[str, str]:
    """Row -> note, where a trained policy has the same bytes as another row's for some seed."""
    first: dict[tuple[int, str], tuple[LaidRow, str]] = {}
    found: dict[str, dict[str, list[int]]] = {}
    for row in layout.rows:
        for cell in results.cells(row.key) if row.asked else ():
            policy = results.plan.wired[cell.name].policy
            weights = results.weights.get(policy.id) if policy else None
            if policy is None or not weights:
                continue
            other, identity = first.setdefault((cell.seed, weights), (row, policy.id))
            if other is not row:
                same = (
                    "it is the same training as"
                    if identity == policy.id
                    else "the trained weights are identical to those of"
                )
                found.setdefault(row.key, {}).setdefault(f"{same} {other.label}", []).append(cell.seed)
    return {
        row: "; ".join(_with_seeds(results, row, note, seeds) for note, seeds in notes_.items())
        for row, notes_ in found.items()
    }


def _with_seeds(results: Results, row: str, note: str, seeds: Sequence[int]) -> str:
    """Which seeds, where it is not all."""
    if len(seeds) == len(results.cells(row)):
        return note
    return f"{note} (seed{'s' if len(seeds) > 1 else ''} {', '.join(map(str, seeds))})"
