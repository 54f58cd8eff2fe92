"""Which cells of a grid are compared on a benchmark, and what the store has of them, verified, item by item."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cwdpo.base import files
from cwdpo.base.errors import ConfigError, StoreError, name_valid
from cwdpo.evaluate.benchmarks.benchmark import was_asked
from cwdpo.evaluate.generate import GENERATIONS
from cwdpo.evaluate.items import read_items
from cwdpo.evaluate.judging.pairs import answer_of, asked_of
from cwdpo.evaluate.pairwise import Asked, Pair
from cwdpo.evaluate.question import Metric
from cwdpo.experiment import Cell
from cwdpo.graph import Node
from cwdpo.jobs.plan import Plan
from cwdpo.report.judges import judge_of
from cwdpo.report.notes import HARNESS
from cwdpo.report.render.words import on_cell
from cwdpo.report.results import asking

UNPAIRED = "answers to items that the other one was not asked"

Run = tuple[Cell, Cell]
"""A cell of A and the one of B that it is compared with."""


@dataclass(frozen=True)
class Seeds:
    """Seeds of A, and those of B.

    Attributes:
        compared: one with the other, in their order.
        alone: of cells that have no partner.
    """

    compared: tuple[list[int], list[int]]
    alone: tuple[list[int], list[int]]


@dataclass(frozen=True, eq=False)
class Result:
    """What one cell has of a benchmark.

    Attributes:
        texts: item -> answer, in the order of the benchmark.
        values: item -> value of what the benchmark compares.
        summary: content of scores.json.
        folder: name of the score in the store.
        old: the cell and its stages that were computed by other code than this, "" where none was.
    """

    texts: Mapping[str, str]
    values: Mapping[str, float | None]
    summary: Mapping[str, Any]
    folder: str
    old: str


@dataclass(frozen=True)
class Matched:
    """Two cells or cases, item by item.

    Attributes:
        cells: those that were paired, with the folders of their scores.
        metric: what values are of.
        metric_judge: model that judged the values, "" where none did.
        left_out: what has no partner, counted.
        counts: what was counted when the answers were scored.
        why: reasons of the benchmark for values that are missing.
    """

    pairs: list[Pair]
    cells: list[dict[str, str]]
    metric: Metric
    metric_judge: str
    partial: bool
    left_out: Mapping[str, int]
    counts: Mapping[str, int]
    notes: tuple[str, ...]
    why: tuple[str, ...]


# ---- which cells


def runs_of(plan: Plan, names: tuple[str, str], benchmark: str) -> list[Run]:
    """The cells to compare; seeds that share both results count once.

    Raises:
        ConfigError: there are no such cells, or they have no such benchmark; or both are one result.
    """
    first, second = (_cells(plan, name) for name in names)
    for cell in (*first, *second):
        if benchmark not in _asked(plan, cell):
            raise ConfigError(f"--benchmark: {cell.name} has no benchmark {name_valid(benchmark, _asked(plan, cell))}")
    distinct: dict[tuple[str, str], Run] = {}
    for run in _pairs(first, second):
        one, other = _scores(plan, run, benchmark)
        distinct.setdefault((one.id, other.id), run)
    if all(one == other for one, other in distinct):
        raise ConfigError(f"{names[0]} and {names[1]} are one and the same result on {benchmark}: name two")
    return list(distinct.values())


def only_benchmark(plan: Plan, names: tuple[str, str]) -> str:
    """The benchmark that both have, where there is no choice.

    Raises:
        ConfigError: there are no such cells, or they have several benchmarks in common, or none.
    """
    cells = [cell for name in names for cell in _cells(plan, name)]
    common = [name for name in plan.wired[cells[0].name].scores if all(name in _asked(plan, one) for one in cells)]
    if len(common) == 1:
        return common[0]
    if common:
        raise ConfigError(f"--benchmark: {names[0]} and {names[1]} have several; say which: {', '.join(common)}")
    raise ConfigError(f"{names[0]} and {names[1]} have no benchmark in common")


def _asked(plan: Plan, cell: Cell) -> Mapping[str, Node]:
    """Benchmark -> its score."""
    return plan.wired[cell.name].scores


def seeds_of(plan: Plan, names: tuple[str, str]) -> Seeds:
    """Which seeds are compared, also where several share a result, and which are not."""
    first, second = (_cells(plan, name) for name in names)
    runs = _pairs(first, second)
    ones, others = [one for one, _ in runs], [other for _, other in runs]
    return Seeds(
        (_seeds(ones), _seeds(others)),
        (_seeds(cell for cell in first if cell not in ones), _seeds(cell for cell in second if cell not in others)),
    )


def _seeds(cells: Iterable[Cell]) -> list[int]:
    return [cell.seed for cell in cells]


def _cells(plan: Plan, name: str) -> list[Cell]:
    """The cell of this name, or all cells of the case."""
    found = [cell for cell in plan.grid.cells if name in (cell.name, cell.case)]
    if not found:
        raise ConfigError(f"unknown cell or case {name_valid(name, [*plan.grid.cases, *plan.wired])}")
    return found


def _pairs(first: Sequence[Cell], second: Sequence[Cell]) -> list[Run]:
    """Two single cells, whatever their seeds; else those that have the same seed."""
    if len(first) == len(second) == 1:
        return [(first[0], second[0])]
    found = [(one, other) for one in first for other in second if one.seed == other.seed]
    if not found:
        seeds = (", ".join(map(str, _seeds(cells))) for cells in (first, second))
        raise ConfigError("they have no seed in common: found {} and {}".format(*seeds))
    return found


def _scores(plan: Plan, run: Run, benchmark: str) -> tuple[Node, Node]:
    first, second = (_asked(plan, cell)[benchmark] for cell in run)
    return first, second


# ---- what the store has of them


def match(plan: Plan, runs: Sequence[Run], benchmark: str) -> Matched:
    """The answers of two cells or cases, item by item.

    Raises:
        ConfigError: they were asked about other data.
        StoreError: answers or scores are missing or damaged.
    """
    about = next(one for one in runs[0][0].experiment.benchmarks if one.name == benchmark)
    found = _results(plan, runs, benchmark, about.compared.key)
    results = list(dict.fromkeys(result for both in found for result in both))
    asked = asked_of(about, questions_of(plan, runs[0], benchmark))
    return Matched(
        pairs=[pair for run, both in zip(runs, found, strict=True) for pair in _matched(run[0].seed, asked, *both)],
        cells=[_origin(run, both) for run, both in zip(runs, found, strict=True)],
        metric=about.compared,
        metric_judge=", ".join(sorted({judge_of(result.summary) for result in results} - {""})),
        partial=any(result.summary["partial"] for result in results),
        left_out={UNPAIRED: sum(len(first.texts.keys() ^ second.texts.keys()) for first, second in found)},
        counts=_counted(results),
        notes=tuple(_notes(results)),
        why=tuple(dict.fromkeys(str(why) for result in results for why in result.summary["unavailable"].values())),
    )


def _matched(seed: int, asked: Mapping[str, Asked], a: Result, b: Result) -> Iterator[Pair]:
    """Items that both have answered, in the order of A."""
    for name, text in a.texts.items():
        if name in b.texts:
            values = (a.values.get(name), b.values.get(name))
            yield Pair(name, seed, asked[name], (text, b.texts[name]), values)


def _origin(run: Run, both: tuple[Result, Result]) -> dict[str, str]:
    return {"a": run[0].name, "b": run[1].name, "score_a": both[0].folder, "score_b": both[1].folder}


def _counted(results: Sequence[Result]) -> dict[str, int]:
    counts = Counter[str]()
    for result in results:
        counts.update(result.summary["counts"])
    return dict(counts)


def _notes(results: Sequence[Result]) -> Iterator[str]:
    """What scoring said, each once, and sentences where the results were not made in one way."""
    yield from dict.fromkeys(str(note) for result in results for note in result.summary["notes"])
    if old := [result.old for result in results if result.old]:
        yield f"computed by other code than this: {', '.join(old)}"
    settings = [result.summary["harness"] for result in results]
    differing = [key for key in HARNESS if len({str(one.get(key)) for one in settings}) > 1]
    if differing:
        yield f"the answers were not made and scored in the same way ({', '.join(differing)})"


def _results(plan: Plan, runs: Sequence[Run], benchmark: str, key: str) -> list[tuple[Result, Result]]:
    """What the store has of each run; what seeds share is read once."""
    read: dict[str, Result] = {}
    for run in runs:
        nodes = _scores(plan, run, benchmark)
        if len({asking(node).id for node in nodes}) > 1:
            raise ConfigError(f"{run[0].name} and {run[1].name} were asked about different data on {benchmark}")
        for cell, node in zip(run, nodes, strict=True):
            if node.id not in read:
                read[node.id] = result_of(plan, cell, node, key)
    pairs = (_scores(plan, run, benchmark) for run in runs)
    return [(read[first.id], read[second.id]) for first, second in pairs]


def result_of(plan: Plan, cell: Cell, node: Node, key: str) -> Result:
    """What the store has of the score of a cell, every byte of it verified.

    Args:
        key: what values per item are of.

    Raises:
        StoreError: answers or scores are missing, damaged, or do not belong together.
    """
    generate = _parent(node, "generate")
    generated, scored = _files(plan, cell, generate), _files(plan, cell, node)
    _check_scored(plan, cell, node)
    summary = files.read_json(scored / "scores.json")
    rows = filter(was_asked, files.read_jsonl(generated / GENERATIONS))
    texts = {row["id"]: answer_of(row) for row in rows}
    values = {name: _number(item.get(key)) for name, item in read_items(scored, [key]).items()}
    old = [one.stage.name for one in (generate, node) if plan.changed(one)]
    folder = node.artefact(plan.store).folder.name
    return Result(texts, values, summary, folder, f"{cell.name} ({', '.join(old)})" if old else "")


def _files(plan: Plan, cell: Cell, node: Node) -> Path:
    """Folder of a finished stage, every byte of it verified."""
    artefact = node.artefact(plan.store)
    try:
        if artefact.done() is not None:
            return artefact.verified_files()
    except StoreError as error:
        raise StoreError(f"{cell.name}: {error}; run: cwdpo submit {plan.grid.options}") from error
    answered = node.stage.name == "score" and all(one.artefact(plan.store).done() for one in node.parents)
    options, state = plan.grid.options, artefact.state()
    command = on_cell("cwdpo score", cell.name, options) if answered else f"cwdpo submit {options}"
    raise StoreError(f"{cell.name}: its {node.title} is {state}, not done; run: {command}")


def _check_scored(plan: Plan, cell: Cell, node: Node) -> None:
    """Raise `StoreError` where answers are others than those that were scored."""
    artefact = node.artefact(plan.store)
    done = artefact.done()
    assert done is not None, "only finished scores are read"
    parents = artefact.made_by(done)["parents"]
    if anew := [role for role, found in plan.lineages(node).items() if parents.get(role) != found]:
        command = on_cell("cwdpo score", cell.name, f"--force {plan.grid.options}")
        raise StoreError(f"{cell.name}: {', '.join(anew)} was computed anew since it was scored; run: {command}")


def _parent(node: Node, role: str) -> Node:
    found = node.inputs[role]
    assert isinstance(found, Node), "made by a stage"
    return found


def questions_of(plan: Plan, run: Run, benchmark: str) -> dict[str, Path]:
    """Folder of the questions or records, by role; raises `StoreError` where it is missing or damaged."""
    node = asking(_scores(plan, run, benchmark)[0])
    return {node.stage.name: _files(plan, run[0], node)}


def images_of(plan: Plan, run: Run, benchmark: str) -> Path:
    """Folder of the images that the benchmark is about."""
    found = _parent(_scores(plan, run, benchmark)[0], "generate").inputs["images"]
    return _files(plan, run[0], found) if isinstance(found, Node) else found.path


def _number(value: Any) -> float | None:
    """None for what is no number either: nothing can be said of it."""
    return float(value) if value is not None and math.isfinite(value) else None
