"""What the run of a cell, and of a case, shall hold, and the digest that tells whether a run holds it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from cwdpo.base.identity import digest
from cwdpo.experiment import Cell
from cwdpo.jobs.plan import Plan
from cwdpo.report.tracking.curves import Measured, Scores, of_probes, of_trainings, read_scores
from cwdpo.report.tracking.names import flat, valid_name, valid_value
from cwdpo.report.tracking.records import Records, summary, tags
from cwdpo.statistics.summary import mean_std

LAYOUT = 1
"""Raised when runs are to hold something else, so that all are written anew."""

TRAINED = ("data", "model", "tuning", "stage1", "stage2")
"""Sections that make a case another one of the same name: with other benchmarks it is still the same."""

NOTE = (
    "Means over seeds {seeds}, with the sample standard deviation and the number of values; seeds that share a result"
    " (greedy answers of one model) count once."
)


@dataclass(frozen=True)
class Content:
    """Everything in a run; `began` and `ended` in milliseconds since 1970, 0 where that is not known."""

    params: Mapping[str, str]
    metrics: Sequence[Measured]
    tags: Mapping[str, str]
    began: int
    ended: int


@dataclass(frozen=True)
class Wanted:
    """A run that shall be there.

    Attributes:
        key: which one; a run of the same key takes its place when its digest is another.
        read: gets the content from the store; asked only where it is to be written.
    """

    key: str
    name: str
    digest: str
    read: Callable[[], Content]


def case_key(cell: Cell) -> str:
    """The same for all seeds of a case, another one when what is trained changes."""
    canonical = cell.experiment.canonical()
    return digest([cell.case, {name: canonical.get(name) for name in TRAINED}])[:32]


def cell_key(cell: Cell) -> str:
    """Below the key of its case."""
    return f"{case_key(cell)}/{cell.seed}"


def params_of(cell: Cell) -> dict[str, str]:
    """Every setting but for where it runs."""
    found = flat(cell.experiment.model_dump(mode="json", exclude={"execution"}))
    return {valid_name(key): valid_value(value) for key, value in found}


def about(plan: Plan, cell: Cell) -> dict[str, str]:
    """Tags that say which cell it is."""
    return {"cwdpo.grid": plan.grid.name, "cwdpo.case": cell.case, "cwdpo.seed": str(cell.seed)}


@dataclass(frozen=True)
class Cells:
    """Makes runs of the cells of a plan."""

    plan: Plan
    records: Records
    _params: dict[str, dict[str, str]] = field(default_factory=dict)

    def wanted(self, cell: Cell) -> Wanted:
        """The run of a finished cell.

        Raises:
            StoreError: it is not finished any more.
        """
        made = [(node.id, self.records.stamp(node)) for node in self.plan.wired[cell.name].nodes()]
        found = digest([LAYOUT, cell.name, self._params_of(cell), made])
        return Wanted(cell_key(cell), cell.name, found, lambda: self._content(cell))

    def case(self, cells: Sequence[Cell], finished: Mapping[str, Wanted]) -> Wanted:
        """The run of a case: what its seeds share, and means over those that are finished.

        Args:
            cells: of all its seeds.
            finished: name of a finished cell -> its run.
        """
        params = self._shared(cells)
        made = [[cell.seed, finished[cell.name].digest if cell.name in finished else ""] for cell in cells]
        done = [cell for cell in cells if cell.name in finished]
        found = digest([LAYOUT, cells[0].case, params, made])
        return Wanted(case_key(cells[0]), cells[0].case, found, lambda: self._case_content(cells, done, params))

    def scores(self, cell: Cell) -> dict[str, Scores]:
        """By benchmark.

        Raises:
            StoreError: a file is missing or changed.
        """
        nodes = self.plan.wired[cell.name].scores
        return {name: read_scores(self.plan.store, name, node) for name, node in nodes.items()}

    def _params_of(self, cell: Cell) -> dict[str, str]:
        if cell.name not in self._params:
            self._params[cell.name] = params_of(cell)
        return self._params[cell.name]

    def _shared(self, cells: Sequence[Cell]) -> dict[str, str]:
        """Settings that are the same for all seeds."""
        first, *others = [self._params_of(cell) for cell in cells]
        alike = {key: value for key, value in first.items() if all(other.get(key) == value for other in others)}
        return {key: value for key, value in alike.items() if key != "seed"}

    def _content(self, cell: Cell) -> Content:
        wired, found = self.plan.wired[cell.name], self.scores(cell)
        records = [self.records.of(node) for node in wired.nodes()]
        ended = max(one.ended for one in records)
        metrics = [*of_trainings(self.plan, wired), *of_probes(self.plan, cell.name, ended)]
        for name, scores in found.items():
            when = self.records.of(wired.scores[name]).ended
            metrics += [Measured(key, value, 0, when) for key, value in scores.values.items()]
        said = {**about(self.plan, cell), **_partial(found), **tags(self.plan.store, records)}
        return Content(self._params_of(cell), metrics, said, self._began(cell), ended)

    def _began(self, cell: Cell) -> int:
        """When the training of its policy did, or the first stage of the base model."""
        wired = self.plan.wired[cell.name]
        return min(self.records.of(node).began for node in ([wired.policy] if wired.policy else wired.nodes()))

    def _case_content(self, cells: Sequence[Cell], done: Sequence[Cell], params: Mapping[str, str]) -> Content:
        records = {node.id: self.records.of(node) for cell in done for node in self.plan.wired[cell.name].nodes()}
        ended = max((one.ended for one in records.values()), default=0)
        began = min((self._began(cell) for cell in done), default=0)
        found = self._distinct(done)
        metrics = [one for key, values in _by_name(found).items() for one in _summarised(key, values, ended)]
        partial = _partial({name: scores for (name, _), scores in found.items()})
        said = {**self._case_tags(cells, done), **partial, **summary(records.values())}
        return Content(params, metrics, said, began, ended)

    def _case_tags(self, cells: Sequence[Cell], done: Sequence[Cell]) -> dict[str, str]:
        missing = [cell for cell in cells if cell not in done]
        seeds = {"cwdpo.seeds": _seeds(done), "cwdpo.seeds_missing": _seeds(missing)}
        note = {"mlflow.note.content": NOTE.format(seeds=_seeds(done))}
        return {"cwdpo.grid": self.plan.grid.name, "cwdpo.case": cells[0].case, **seeds, **note}

    def _distinct(self, cells: Sequence[Cell]) -> dict[tuple[str, str], Scores]:
        """(benchmark, node) -> scores: seeds that share a result count once, as in tables."""
        nodes = {(name, node.id): node for cell in cells for name, node in self.plan.wired[cell.name].scores.items()}
        return {(name, node.id): read_scores(self.plan.store, name, node) for (name, _), node in nodes.items()}


def _by_name(found: Mapping[tuple[str, str], Scores]) -> dict[str, list[float]]:
    values: dict[str, list[float]] = {}
    for scores in found.values():
        for key, value in scores.values.items():
            values.setdefault(key, []).append(value)
    return values


def _partial(found: Mapping[str, Scores]) -> dict[str, str]:
    """Benchmarks of which only some items were scored; no tag where there are none."""
    names = ", ".join(name for name, scores in found.items() if scores.partial)
    return {"cwdpo.partial": names} if names else {}


def _seeds(cells: Sequence[Cell]) -> str:
    return ", ".join(str(cell.seed) for cell in cells) or "none"


def _summarised(key: str, values: Sequence[float], when: int) -> list[Measured]:
    """`KEY/mean`, `KEY/std` and `KEY/n`; the standard deviation of one value is unknown, and left out."""
    found = {name: value for name, value in mean_std(values)._asdict().items() if value is not None}
    return [Measured(valid_name(f"{key}/{name}"), float(value), 0, when) for name, value in found.items()]
