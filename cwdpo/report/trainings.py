"""Columns of trainings: what the last probe of Stage 2 saw, what a step cost, how soon the probe margin was reached."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, median

from cwdpo.base import files
from cwdpo.base.errors import StoreError
from cwdpo.experiment import Cell
from cwdpo.graph import Node
from cwdpo.graph import Probed as ProbedTraining
from cwdpo.jobs.events import curve
from cwdpo.jobs.probed import UNWATCHED
from cwdpo.report.content import Gap, Result
from cwdpo.report.layout import Found, LaidRow, Layout
from cwdpo.report.results import Lack, Results, gaps_of

UNREADABLE = (OSError, StoreError, ArithmeticError, AttributeError, LookupError, TypeError, ValueError)
"""What reading files ends with that are no longer what was written."""

NOT_REACHED = "not reached"

SHORTER = {"top1_prob": "top1"}
"""Quantities that curves of probes have under another name."""


@dataclass(frozen=True)
class Measure:
    """A value.

    Attributes:
        beside: nodes that it depends on, too: of other rounds, or of another row that it was compared with.
    """

    value: float
    beside: tuple[Node, ...] = ()


Measured = Measure | Lack
"""A value, or why there is none."""

Group = tuple[Node, list[Cell]]
"""A node whose result several seeds may share, and their cells."""


@dataclass(frozen=True)
class Probed:
    """A quantity of the last probe of Stage 2."""

    quantity: str

    def found(self, results: Results, row: LaidRow, layout: Layout) -> Found:
        """See `Source`."""
        return _of_probes(results, row, lambda cell: _at_the_end(results, cell, self.quantity))


@dataclass(frozen=True)
class StepsToMargin:
    """Steps of Stage 2 until the probe margin is as good as the best one of the baseline with the same seed."""

    def found(self, results: Results, row: LaidRow, layout: Layout) -> Found:
        """See `Source`."""
        baseline = layout.row(layout.baseline)
        goals = {cell.seed: cell for cell in results.cells(baseline.key)} if baseline.asked else {}
        return _all_or_none(_of_probes(results, row, lambda cell: _steps(results, cell, goals.get(cell.seed))))


def _all_or_none(found: Found) -> Found:
    """No values where a seed did not get there: a mean over the others would favour who fails often."""
    late = any(NOT_REACHED in gap.reason for gap in found.gaps)
    if not late or not found.results:
        return found
    steps = ", ".join(f"{result.value:g}" for result in found.results)
    seeds = tuple(seed for result in found.results for seed in result.seeds)
    return Found(
        gaps=(*found.gaps, Gap("not available", f"reached after {steps} steps, but not with every seed", seeds))
    )


@dataclass(frozen=True)
class StepCost:
    """Median seconds of a step of the last training, over the mean of those of another row."""

    def found(self, results: Results, row: LaidRow, layout: Layout) -> Found:
        """See `Source`."""
        reference = layout.row(row.cost_of or layout.baseline)
        others = _trainings(results, reference.key)[0] if reference.asked else {}
        own, lacks = _trainings(results, row.key)
        found = _collected(
            results, own, lambda node, _: _cost(results, node, [other for other, _ in others.values()], reference.label)
        )
        return Found(found.results, (*gaps_of(lacks), *found.gaps))


def _collected(
    results: Results, groups: Mapping[str, Group], measure: Callable[[Node, Sequence[Cell]], Measured]
) -> Found:
    """A value of each node; files that cannot be read are a gap."""
    found, lacks = [], []
    for node, cells in groups.values():
        seeds = tuple(cell.seed for cell in cells)
        try:
            value = results.lack(node) or measure(node, cells)
        except UNREADABLE as error:
            folder = node.artefact(results.plan.store).folder.name
            value = Lack("damaged", f"{folder} cannot be read: {error or type(error).__name__}")
        if isinstance(value, Lack):
            lacks += [(value, seed) for seed in seeds]
        else:
            found.append(_result(results, node, seeds, value))
    return Found(tuple(found), gaps_of(lacks))


def _result(results: Results, node: Node, seeds: tuple[int, ...], measure: Measure) -> Result:
    """A value of a node; it is as stale and as doubtful as all else that it depends on."""
    read = dict.fromkeys((node, *measure.beside))
    doubt = next(filter(None, map(results.doubt, read)), "")
    folder = node.artefact(results.plan.store).folder.name
    return Result(seeds, measure.value, folder, any(map(results.old, read)), results.code(node), doubt)


# ---- probes


def _of_probes(results: Results, row: LaidRow, measure: Callable[[Cell], Measured]) -> Found:
    """A value of every distinct probed Stage 2 of a row."""
    groups: dict[str, Group] = {}
    lacks: list[tuple[Lack, int]] = []
    for cell in results.cells(row.key):
        own = _probed(results, cell)
        if own:
            groups.setdefault(own[-1].rows.id, (own[-1].rows, []))[1].append(cell)
        else:
            why = "the experiment has no probe" if cell.experiment.stage2 else "it has no Stage 2"
            lacks.append((Lack("not available", why), cell.seed))
    found = _collected(results, groups, lambda _, cells: measure(cells[0]))
    return Found(found.results, (*gaps_of(lacks), *found.gaps))


def _probed(results: Results, cell: Cell) -> list[ProbedTraining]:
    """Stage 2 with its probes: once, or once a round."""
    return [one for one in results.plan.wired[cell.name].probed if one.stage == "stage2"]


@dataclass(frozen=True)
class Seen:
    """What columns need of the probes of one Stage 2.

    Attributes:
        end: quantity -> value at the last probe.
        margins: probed step after the start -> mean margin over samples and grades.
    """

    end: Mapping[str, float]
    margins: Mapping[int, float]


def _at_the_end(results: Results, cell: Cell, quantity: str) -> Measured:
    probed = _probed(results, cell)
    if lack := _lacking(results, probed) or _unwatched(results, probed):
        return lack
    return Measure(float(_seen(results, cell).end[SHORTER.get(quantity, quantity)]), _rows_of(probed))


def _lacking(results: Results, probed: Sequence[ProbedTraining]) -> Lack | None:
    """Why the rows of some round are not there."""
    return next(filter(None, (results.lack(one.rows) for one in probed)), None)


def _rows_of(probed: Sequence[ProbedTraining]) -> tuple[Node, ...]:
    return tuple(one.rows for one in probed)


def _unwatched(results: Results, probed: Sequence[ProbedTraining]) -> Lack | None:
    """That a training was not probed when it was computed, where that is so."""
    found = (one.rows.title for one in probed if one.unwatched(one.rows.artefact(results.plan.store).done()))
    return next((Lack("not available", f"{title} {UNWATCHED}") for title in found), None)


def _steps(results: Results, cell: Cell, goal: Cell | None) -> Measured:
    theirs = _probed(results, goal) if goal else []
    if goal is None or not theirs:
        return Lack("not available", "the baseline has no probes with this seed")
    if lack := _lacking(results, theirs):
        return Lack("not available", f"the probes of the baseline are {lack.kind}")
    own = _probed(results, cell)
    if lack := _lacking(results, own) or _unwatched(results, own):
        return lack
    if lack := _unwatched(results, theirs):
        return Lack(lack.kind, f"of the baseline, {lack.reason}")
    margins = _seen(results, cell).margins
    try:
        best = max(_seen(results, goal).margins.values())
    except UNREADABLE as error:
        return Lack("not available", f"the probes of the baseline cannot be read: {error or type(error).__name__}")
    reached = [step for step, margin in margins.items() if margin >= best]
    if not reached:
        return Lack("not available", f"{NOT_REACHED} in {max(margins)} steps")
    return Measure(float(min(reached)), (*_rows_of(own), *_rows_of(theirs)))


def _seen(results: Results, cell: Cell) -> Seen:
    """The probes of all rounds of Stage 2, read once.

    Raises:
        StoreError: a file is not what was written.
    """
    seen: Seen = results.once(("probes", _probed(results, cell)[-1].rows.id), lambda: _read(results, cell))
    return seen


def _read(results: Results, cell: Cell) -> Seen:
    from cwdpo.dynamics.curves import pairs
    from cwdpo.dynamics.points import points_of
    from cwdpo.dynamics.rows import Probes, read_probes

    probed = _probed(results, cell)
    for one in probed:
        _verify(results, one)
    probes = read_probes([one.folder(results.plan.store) for one in probed])
    last = max(probes.about["steps"])
    (end,) = points_of(Probes(probes.about, *(rows[rows.step == last] for rows in (probes.responses, probes.tokens))))
    margins = pairs(probes).groupby("step").margin.mean()
    return Seen(end, {int(step): float(margin) for step, margin in margins.items() if int(step) > 0})


def _verify(results: Results, probed: ProbedTraining) -> None:
    """Raise `StoreError` for a file of rows that is not what was written."""
    from cwdpo.dynamics.rows import ABOUT, RESPONSES, TOKENS

    artefact, folder = probed.rows.artefact(results.plan.store), probed.folder(results.plan.store)
    written = (artefact.done() or {})["files"]
    for path in (folder / name for name in (ABOUT, RESPONSES, TOKENS)):
        if files.sha256_file(path) != written[path.relative_to(artefact.files).as_posix()]["sha256"]:
            raise StoreError(f"{path.name} is missing or changed since it was written")


# ---- steps


def _trainings(results: Results, case: str) -> tuple[dict[str, Group], list[tuple[Lack, int]]]:
    """The distinct trainings of the model under test, and the seeds that have none."""
    found: dict[str, Group] = {}
    lacks: list[tuple[Lack, int]] = []
    for cell in results.cells(case):
        node = results.plan.wired[cell.name].policy
        if node:
            found.setdefault(node.id, (node, []))[1].append(cell)
        else:
            lacks.append((Lack("not available", "nothing is trained"), cell.seed))
    return found, lacks


def _cost(results: Results, node: Node, others: Sequence[Node], label: str) -> Measured:
    """Seconds of a step over those of the same stage of another row."""
    own = _seconds(results, node)
    try:
        alike = tuple(one for one in others if one.stage is node.stage and not results.lack(one))
        theirs = [_seconds(results, one) for one in alike]
    except UNREADABLE as error:
        return Lack("not available", f"the steps of {label} cannot be read: {error or type(error).__name__}")
    if not theirs:
        return Lack("not available", f"there is no finished {node.stage.name} of {label} to compare with")
    return Measure(own / fmean(theirs), alike)


def _seconds(results: Results, node: Node) -> float:
    """Median over the steps of a training."""
    steps = [float(point["seconds"]) for point in curve(node.artefact(results.plan.store)) if "seconds" in point]
    if not steps:
        raise StoreError("its events have no steps with their seconds")
    return median(steps)


def machines(results: Results, layout: Layout) -> str:
    """Where steps were timed, if not all on machines alike; else nothing."""
    found: dict[str, None] = {}
    for row in layout.rows:
        for node, _ in (_trainings(results, row.key)[0] if row.asked else {}).values():
            done = node.artefact(results.plan.store).done() if not results.lack(node) else None
            if done:
                made = done["provenance"]
                batch = (made.get("execution") or {}).get("micro_batch")
                found[f"{made.get('host')} with {made.get('ranks')} rank(s) and micro_batch {batch}"] = None
    return f"steps were not all timed on machines alike: {'; '.join(found)}" if len(found) > 1 else ""
