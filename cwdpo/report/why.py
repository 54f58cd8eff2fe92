"""Where one value of a table comes from: how it was made, seed by seed the files behind it, and every stage before."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from cwdpo.base.errors import ConfigError, StoreError, name_valid
from cwdpo.evaluate.items import ITEMS, read_items
from cwdpo.experiment import Cell
from cwdpo.experiment.overrides import leaves
from cwdpo.graph import Node, in_order
from cwdpo.jobs.plan import Plan
from cwdpo.jobs.slurm.view import OnSlurm, causes
from cwdpo.report.address import Place
from cwdpo.report.content import Entry, Gap, Result
from cwdpo.report.provenance import Origins, Step, folder_of
from cwdpo.report.render.json import as_json as tables_as_json
from cwdpo.report.render.words import Speaker, entry_of, on_cell
from cwdpo.report.score import SUMMARY

SECTIONS = ("model", "tuning", "data", "stage1", "stage2", "probe", "judge")
"""Of an experiment, as they make a value."""

GENERATIONS = "generations.jsonl"


@dataclass(frozen=True)
class ScoreFiles:
    """What a score was read from.

    Attributes:
        title: such as `score coco`.
        folder: of the store.
        items: values per item, "" where there are none; paths are below the home.
        rows: how many, or why they cannot be counted.
        generations: the answers, "" where they are not finished.
    """

    title: str
    folder: str
    summary: str
    items: str
    rows: int | str
    generations: str


@dataclass(frozen=True)
class OfSeed:
    """One seed of a value.

    Attributes:
        result: None where there is none; `gap` and `causes` say why then.
        causes: the chain of stages that are not done, one line each, indented.
        scores: what the result was read from.
        negatives, reference: folder of the store -> what it is, of every stage that uses them.
        policy: what was asked: folder of the training, or the base model.
        probes: folder of the store -> training that it is of, and how it stands.
        stages: folders of all stages on the way, parents first.
    """

    seed: int
    cell: str
    result: Result | None
    gap: Gap | None
    causes: tuple[str, ...]
    scores: tuple[ScoreFiles, ...]
    policy: str
    negatives: Mapping[str, str]
    reference: Mapping[str, str]
    probes: Mapping[str, str]
    stages: tuple[str, ...]


@dataclass(frozen=True)
class Traced:
    """A value and all that is known of where it comes from.

    Attributes:
        value: as the table prints it.
        seeds: in the order of the grid; only the one that was asked for, where one was.
        steps: every stage on the way, each once, parents first.
        differs: setting -> its value, where some other row of the table has another one.
        settings: section -> its settings.
        home: folder that paths are below.
    """

    place: Place
    value: str
    seeds: tuple[OfSeed, ...]
    steps: tuple[Step, ...]
    differs: Mapping[str, Any]
    settings: Mapping[str, Any]
    home: Path

    @property
    def entry(self) -> Entry:
        """As the table has it."""
        return entry_of(self.place.row, self.place.column)

    @property
    def seconds(self) -> float:
        """Wall time of all attempts at all stages, one after the other."""
        return sum(step.seconds or 0.0 for step in self.steps)

    @property
    def gpu_seconds(self) -> float:
        """The same times the GPUs of each stage, as far as they are known."""
        return sum(step.gpu_seconds or 0.0 for step in self.steps)

    @property
    def commands(self) -> dict[str, str]:
        """What shows more, and what computes it again."""
        options = self.place.table.options
        cell = next((one.cell for one in self.seeds if one.gap), self.seeds[0].cell if self.seeds else "")
        shown = {"log": on_cell("cwdpo logs", cell, options), "state": on_cell("cwdpo why", cell, options)}
        return {**(shown if cell else {}), "compute": f"cwdpo submit {options}"}

    def as_json(self) -> dict[str, Any]:
        """Everything, for a program."""
        one = replace(self.place.table, rows=(self.place.row,), columns=(self.place.column,))
        table = tables_as_json([one])[0]
        row, column = table["rows"][0], table["columns"][0]
        return {
            "table": table["name"], "grid": table["grid"], "options": table["options"], "home": str(self.home),
            "row": row["key"], "column": column, "value": self.value, "entry": row["entries"][column["key"]],
            "stands_on": row["stands_on"], "marks": row["marks"],
            "differs": dict(self.differs), "settings": dict(self.settings),
            "seeds": [asdict(one) for one in self.seeds],
            "stages": [_step_json(step) for step in self.steps],
            "seconds": self.seconds, "gpu_hours": self.gpu_seconds / 3600, "commands": self.commands,
        }  # fmt: skip


def _step_json(step: Step) -> dict[str, Any]:
    hours = None if step.gpu_seconds is None else step.gpu_seconds / 3600
    told = {"commit": step.commit, "host": step.host, "seconds": step.seconds, "gpu_hours": hours}
    return {**asdict(step), **told, "slurm": list(step.slurm)}


class Tracer:
    """Traces one value.

    Args:
        overlay: what Slurm knows beyond the store.
    """

    def __init__(self, plan: Plan, place: Place, overlay: OnSlurm | None) -> None:
        cells = [cell for cell in plan.grid.cells if cell.case == place.row.key]
        if place.seed is not None:
            cells = [cell for cell in cells if cell.seed == place.seed] or _no_seed(place, cells)
        self._place, self._cells, self._overlay, self._whole = place, cells, overlay, plan
        self._plan = replace(plan, wired={cell.name: plan.wired[cell.name] for cell in cells})

    @cached_property
    def _origins(self) -> Origins:
        stored = self._plan.states()
        return Origins(self._plan, self._overlay.states(stored) if self._overlay else stored)

    def traced(self) -> Traced:
        """All of it."""
        place = self._place
        said = Speaker(place.table, paper=False).says(entry_of(place.row, place.column), place.column)
        steps = {step.id: step for cell in self._cells for step in self._steps(cell)}
        return Traced(
            place,
            " ".join(said.parts),
            tuple(map(self._of_seed, self._cells)),
            tuple(steps.values()),
            _differences(self._whole, place) if self._cells else {},
            _sections(self._cells[0]) if self._cells else {},
            self._plan.store.home,
        )

    def _result(self, cell: Cell) -> Result | None:
        results = entry_of(self._place.row, self._place.column).results
        return next((result for result in results if cell.seed in result.seeds), None)

    def _ends(self, cell: Cell) -> list[Node]:
        """The stages whose results the value is made of; where there is none, those that it would be made of."""
        wired, result, benchmark = self._plan.wired[cell.name], self._result(cell), self._place.column.benchmark
        folders = result.origin.split(" + ") if result else []
        found = [node for node in wired.nodes() if folder_of(node) in folders]
        asked = [wired.scores[benchmark]] if benchmark in wired.scores else list(wired.roots)
        return found or asked

    def _steps(self, cell: Cell) -> list[Step]:
        wanted = {node.id for node in in_order(self._ends(cell))}
        return [step for step in self._origins.of(cell.name).steps if step.id in wanted]

    def _of_seed(self, cell: Cell) -> OfSeed:
        steps, wired, result = self._steps(cell), self._plan.wired[cell.name], self._result(cell)
        gaps = entry_of(self._place.row, self._place.column).gaps
        book = self._overlay.book if self._overlay else None
        return OfSeed(
            seed=cell.seed,
            cell=cell.name,
            result=result,
            gap=None if result else next((gap for gap in gaps if cell.seed in gap.seeds), None),
            causes=() if result else tuple(causes(self._plan, cell.name, book, self._ends(cell))),
            scores=tuple(self._scores(cell, steps)),
            policy=folder_of(wired.policy) if wired.policy else "the base model",
            negatives={step.folder: step.about for step in steps if step.stage == "negatives"},
            reference={step.folder: step.about for step in steps if step.stage == "reference"},
            probes=self._probes(cell),
            stages=tuple(step.folder for step in steps),
        )

    def _scores(self, cell: Cell, steps: Sequence[Step]) -> Iterator[ScoreFiles]:
        by_folder = {step.folder: step for step in steps}
        for node in self._ends(cell):
            step = by_folder[folder_of(node)]
            if step.stage == "score" and step.out:
                answers = by_folder[step.inputs["generate"]].out
                items = f"{step.out}/{ITEMS}" if ITEMS in step.files else ""
                generations = f"{answers}/{GENERATIONS}" if answers else ""
                rows = _count(self._plan.store.home / step.out) if items else 0
                yield ScoreFiles(step.title, step.folder, f"{step.out}/{SUMMARY}", items, rows, generations)

    def _probes(self, cell: Cell) -> dict[str, str]:
        found, states = {}, {step.id: step.state for step in self._origins.of(cell.name).steps}
        for one in self._plan.wired[cell.name].probed:
            where = "while it ran" if one.rows is one.training else "by the adapters that it kept"
            found[folder_of(one.rows)] = f"{one.training.title}, {where}: {states[one.rows.id]}"
        return found


def _count(folder: Path) -> int | str:
    try:
        return len(read_items(folder, columns=()))
    except StoreError as error:
        return str(error)


def _no_seed(place: Place, cells: Sequence[Cell]) -> list[Cell]:
    valid = [cell.seed for cell in cells]
    raise ConfigError(f"--why: row '{place.row.key}' has no seed {name_valid(place.seed, valid)}")


# ---- settings


def _sections(cell: Cell) -> dict[str, Any]:
    """Settings as they count, of the sections that the experiment has."""
    content = cell.experiment.canonical()
    return {name: content[name] for name in SECTIONS if content.get(name) is not None}


def _differences(plan: Plan, place: Place) -> dict[str, Any]:
    """Dotted key -> value, where another row of the table has another value for it; None for a section not there.

    What comes with the choice of an objective, such as its own hyper-parameters, is told by the name of that.
    """
    rows = {row.key for row in place.table.rows}
    first = {cell.case: _sections(cell) for cell in reversed(plan.grid.cells) if cell.case in rows}
    own, others = first.pop(place.row.key), list(first.values())
    lacking = {name: None for name in SECTIONS if name not in own and any(name in other for other in others)}
    flat = [dict(_flat(other)) for other in others]
    return lacking | {key: value for key, value in _flat(own) if any(other.get(key, value) != value for other in flat)}


def _flat(sections: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    return (leaf for name, content in sections.items() for leaf in leaves(content, name))
