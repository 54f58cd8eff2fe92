"""Where the values of a case come from: a page with all its seeds, their stages, and what these were made by."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cwdpo.experiment import Cell
from cwdpo.jobs.plan import Plan
from cwdpo.report.content import Column, Entry, Row, Table
from cwdpo.report.provenance import Origins, Step, Try, at
from cwdpo.report.render.words import is_mixed
from cwdpo.report.site.limits import LIMITS
from cwdpo.report.site.pages import duration, number, slug
from cwdpo.report.site.tables import Mark, anchor_of, interval, marks, troubles_said

VARYING = ("host", "Slurm jobs", "image", "code")
"""What has a column where stages differ in it."""


@dataclass(frozen=True)
class SeedValue:
    """The value of one seed.

    Attributes:
        text: "" where there is none; then `note` says why.
        folders: of the store, that have it.
        shared: whether other seeds have the very same result.
    """

    text: str
    folders: tuple[str, ...] = ()
    note: str = ""
    shared: bool = False
    stale: bool = False


@dataclass(frozen=True)
class ValueRow:
    """One column of a table, seed by seed."""

    anchor: str
    title: str
    mean: str
    interval: str
    marks: tuple[Mark, ...]
    seeds: tuple[SeedValue, ...]


@dataclass(frozen=True)
class Values:
    """One table, as far as it is about the case."""

    title: str
    href: str
    rows: tuple[ValueRow, ...]
    reasons: tuple[str, ...]


@dataclass(frozen=True)
class ShownStep:
    """One stage of some seeds of the case.

    Attributes:
        seeds: that need it; "all" where all of them do.
        said: by what and where it was computed; see `VARYING`.
        failures: of attempts that did not end well.
    """

    step: Step
    seeds: str
    started: str
    wall: str
    gpu: str
    said: Mapping[str, str]
    failures: tuple[tuple[Try, str], ...]


@dataclass(frozen=True)
class ShownCase:
    """The page of one case.

    Attributes:
        facts: what holds for all of it, a line each.
        varying: what is not the same in all stages, of `VARYING`.
        settings: everything that was set, without the seed.
    """

    case: str
    path: str
    cells: tuple[Cell, ...]
    values: tuple[Values, ...]
    steps: tuple[ShownStep, ...]
    facts: Mapping[str, str]
    varying: tuple[str, ...]
    settings: Mapping[str, Any]

    @property
    def seeds(self) -> tuple[int, ...]:
        """In the order of the grid."""
        return tuple(cell.seed for cell in self.cells)


def case_pages(plan: Plan) -> dict[str, str]:
    """Case -> its page, for as many cases as there are pages."""
    return {case: f"cases/{slug(case, place)}.html" for place, case in enumerate(plan.grid.cases[: LIMITS.cases])}


def shown_cases(plan: Plan, origins: Origins, tables: Sequence[tuple[Table, str]]) -> Iterator[ShownCase]:
    """Every case that has a page.

    Args:
        tables: each with where it stands, from the top of the folder.
    """
    cells: dict[str, list[Cell]] = {}
    for cell in plan.grid.cells:
        cells.setdefault(cell.case, []).append(cell)
    rows = [(table, href, {row.key: row for row in table.rows}) for table, href in tables]
    for case, path in case_pages(plan).items():
        seeds = [cell.seed for cell in cells[case]]
        values = [_values(table, href, found[case], seeds) for table, href, found in rows if case in found]
        yield _case(case, path, cells[case], values, origins)


def _case(case: str, path: str, cells: Sequence[Cell], values: Sequence[Values], origins: Origins) -> ShownCase:
    steps: dict[str, tuple[Step, list[int]]] = {}
    for cell in cells:
        for step in origins.of(cell.name).steps:
            steps.setdefault(step.id, (step, []))[1].append(cell.seed)
    shown = tuple(_shown_step(step, seeds, len(cells)) for step, seeds in steps.values())
    facts = dict(_facts([one.step for one in shown]))
    varying = tuple(name for name in VARYING if len({one.said[name] for one in shown if one.step.tries}) > 1)
    settings = cells[0].experiment.model_dump(mode="json", exclude={"seed"})
    return ShownCase(case, path, tuple(cells), tuple(values), shown, facts, varying, settings)


# ---- values


def _values(table: Table, href: str, row: Row, seeds: Sequence[int]) -> Values:
    mixed = is_mixed(table)
    rows = tuple(
        _value_row(table, column, row.entries.get(column.key, Entry()), seeds, mixed) for column in table.columns
    )
    troubles = dict.fromkeys(said for entry in row.entries.values() for said in troubles_said(entry))
    return Values(table.title, href, rows, (*row.marks, *troubles))


def _value_row(table: Table, column: Column, entry: Entry, seeds: Sequence[int], mixed: bool) -> ValueRow:
    digits = column.metric.digits
    spread = f" ± {number(entry.std, digits)}" if entry.std is not None else ""
    return ValueRow(
        anchor=anchor_of(table, column),
        title=column.name,
        mean=f"{number(entry.mean, digits)}{spread}",
        interval=interval(entry, digits),
        marks=tuple(marks(entry, mixed)),
        seeds=tuple(_seed_value(entry, seed, digits) for seed in seeds),
    )


def _seed_value(entry: Entry, seed: int, digits: int) -> SeedValue:
    for result in entry.results:
        if seed in result.seeds:
            text, folders = number(result.value, digits), tuple(result.origin.split(" + "))
            return SeedValue(text, folders, shared=len(result.seeds) > 1, stale=result.stale)
    gaps = [gap.kind for gap in entry.gaps if seed in gap.seeds]
    return SeedValue("", note=", ".join(gaps) or "no value")


# ---- stages


def _shown_step(step: Step, seeds: Sequence[int], of: int) -> ShownStep:
    return ShownStep(
        step=step,
        seeds="all" if len(seeds) == of else ", ".join(map(str, seeds)),
        started=at(step.tries[0].started) if step.tries else "",
        wall=duration(step.seconds),
        gpu=duration(step.gpu_seconds) if step.gpu_seconds else "none" if step.gpu_seconds == 0 else "",
        said=dict(zip(VARYING, (step.host, ", ".join(step.slurm), step.image, step.commit), strict=True)),
        failures=tuple((one, _outcome(one)) for one in step.tries if one.outcome != "done" or one.reason),
    )


def _outcome(one: Try) -> str:
    lasted = f" after {duration(one.seconds)}" if one.seconds is not None else ""
    return f"{one.outcome}{lasted}{f': {one.reason}' if one.reason else ''}"


def _facts(steps: Sequence[Step]) -> Iterator[tuple[str, str]]:
    """What holds for all stages of a case together."""
    done = [step for step in steps if step.made]
    jobs = list(dict.fromkeys(job for step in steps for job in step.slurm))
    gpu = sum(step.gpu_seconds or 0.0 for step in done)
    yield "stages", f"{len(done)} of {len(steps)} done"
    yield "attempts", str(sum(len(step.tries) for step in steps))
    yield "computing time", duration(sum(step.seconds or 0.0 for step in steps))
    yield "GPU time", f"{gpu / 3600:.2f} GPU-hours" if gpu else "no GPU was used"
    yield "code", _distinct(step.commit for step in done)
    yield "image", _distinct(step.image for step in done)
    yield "hosts", _distinct(step.host for step in steps)
    yield "Slurm jobs", ", ".join(jobs) or "none"
    yield "negatives", _distinct(f"{step.about} ({step.folder})" for step in steps if step.stage == "negatives")
    yield "reference", _distinct(f"{step.about} ({step.folder})" for step in steps if step.stage == "reference")


def _distinct(found: Iterable[str]) -> str:
    return "; ".join(dict.fromkeys(filter(None, found))) or "none"
