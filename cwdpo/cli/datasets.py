"""What `data check` prints and `data show` writes."""

from __future__ import annotations

import re
import tempfile
from array import array
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import typer

from cwdpo.base import files
from cwdpo.base.context import StageContext
from cwdpo.base.errors import ConfigError, DataError, StoreError, name_valid
from cwdpo.base.lines import JsonLines, Rows
from cwdpo.base.runtime import Execution, Rank
from cwdpo.base.store import Store
from cwdpo.cli.app import Source, print_json
from cwdpo.cli.ready import readiness
from cwdpo.data.pairs import PairsSpec, used
from cwdpo.data.records import Record, write_records
from cwdpo.data.sources import DataSource, Demo, Files, data_root
from cwdpo.experiment import Cell, Grid, evaluated_on
from cwdpo.graph import Node, Outside
from cwdpo.jobs.plan import Plan
from cwdpo.negatives import stage as negatives_stage
from cwdpo.negatives.overview import edited, overview, perturbs_in
from cwdpo.negatives.page import write_page
from cwdpo.negatives.rule import Perturb
from cwdpo.negatives.source import REASONS
from cwdpo.negatives.stage import NegativesSpec
from cwdpo.negatives.summary import Statistics
from cwdpo.pipeline import STAGES

Portion = Literal["stage1", "stage2"]

DROPPED = {**REASONS, "lacking": "a response was without what training needs"}
"""Counts of a negatives stage's summary, in words."""

# ---- check


@dataclass
class Use:
    """What a data set is for.

    Attributes:
        purposes: training, evaluation, or both.
        edits: stage and source by rule -> the cases that have it.
    """

    purposes: dict[Literal["train", "evaluate"], None] = field(default_factory=dict)
    edits: dict[tuple[Portion, Perturb], dict[str, None]] = field(default_factory=dict)


def uses_of(grid: Grid) -> dict[DataSource, Use]:
    """Every data set of a grid; raises `ConfigError` where one is evaluated that has nothing to evaluate on."""
    found: dict[DataSource, Use] = {}
    for cell in grid.cells:
        experiment = cell.experiment
        if experiment.data:
            use = found.setdefault(experiment.data, Use())
            use.purposes["train"] = None
            for portion, source in _edits(cell):
                use.edits.setdefault((portion, source), {})[cell.case] = None
        for data in evaluated_on(experiment):
            data.for_evaluation()
            found.setdefault(data, Use()).purposes["evaluate"] = None
    return found


def _edits(cell: Cell) -> Iterator[tuple[Portion, Perturb]]:
    stages: dict[Portion, Any] = {"stage1": cell.experiment.stage1, "stage2": cell.experiment.stage2}
    for portion, stage in stages.items():
        if stage and stage.negatives and stage.uses_rejected:
            yield from ((portion, source) for source in perturbs_in(stage.negatives))


def check_data(source: Source, as_json: bool) -> None:
    """Print what the data sets of a grid hold.

    Raises:
        DataError: after all are printed, where training would refuse one.
    """
    grid = source.load()
    reports = [_report(data, use, source.store) for data, use in uses_of(grid).items()]
    prepared = readiness(grid, source.store)
    if as_json:
        print_json({"data": reports, "benchmarks": prepared})
    else:
        ready = [f"benchmark {name}: {fault or 'ready'}" for name, fault in prepared.items()]
        parts = ["\n".join(lines) for lines in [*map(_lines, reports), ready] if lines]
        typer.echo("\n\n".join(parts) or "this grid reads no data that could be checked")
    faults = [*(fault for report in reports for fault in report["faults"]), *filter(None, prepared.values())]
    if faults:
        raise DataError("\n".join(faults))


def _report(data: DataSource, use: Use, store: Store) -> dict[str, Any]:
    """What one data set holds; `faults` are what training would stop at."""
    report: dict[str, Any] = {"data": _name(data), "for": list(use.purposes), "faults": []}
    folder = _folder(data, store)
    if folder is None:
        return {**report, "note": "made by the grid itself, and not made yet"}
    left_out = Counter[str]()
    try:
        records = data.read(folder, left_out)
    except DataError as error:
        return {**report, "faults": [str(error)]}
    report |= {**overview(records, folder), "left_out": dict(left_out)}
    report["perturb"] = [_edited(records, *key, list(cases)) for key, cases in use.edits.items()]
    report["faults"] = list(_faults(records, report, use, folder))
    return report


def _name(data: DataSource) -> str:
    if isinstance(data, Files):
        return f"{data.source} {', '.join(str(data.root / name) for name in data.annotation_files)}"
    return data.source


def _folder(data: DataSource, store: Store) -> Path | None:
    """Where a data set lies; None where a stage has to make it first."""
    if isinstance(data, Demo):
        artefact = Node(STAGES["world"], data.world, {}).artefact(store)
        return artefact.files if artefact.done() else None
    return data_root(data)


def _edited(records: Sequence[Record], portion: Portion, source: Perturb, cases: list[str]) -> dict[str, Any]:
    return {"stage": portion, "cases": cases, "settings": source.canonical(), **edited(records, portion, source)}


def _faults(records: list[Record], report: Mapping[str, Any], use: Use, folder: Path) -> Iterator[str]:
    for purpose in use.purposes:
        try:
            used(records, purpose, str(folder))
        except DataError as error:
            yield str(error)
    gone = report["missing"]
    if gone["count"]:
        first = ", ".join(gone["first"])
        yield f"{folder}: {gone['count']} of {report['images']} images are missing, the first: {first}"


def _lines(report: Mapping[str, Any]) -> Iterator[str]:
    """A report as text."""
    yield f"{report['data']} (to {' and '.join(report['for'])})"
    if "note" in report:
        yield f"  {report['note']}"
    if "records" in report:
        for name, text in _facts(report):
            yield f"  {name:<15} {text}"
    yield from (f"  error: {fault}" for fault in report["faults"])


def _facts(report: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for part, counts in report["parts"].items():
        yield part, f"{counts['records']:,} records of {counts['images']:,} images"
    yield from (("left out", f"{count:,} {reason}") for reason, count in report["left_out"].items())
    gone = report["missing"]["count"]
    yield "image files", f"{gone:,} of {report['images']:,} missing" if gone else f"all {report['images']:,} there"
    if report["records"]:
        chosen = report["chosen"]
        yield "chosen", f"{chosen['mean']:.1f} words, {chosen['min']} to {chosen['max']} (longest: {chosen['longest']})"
    yield "prompts", f"{report['prompts']:,} different"
    if report["rejected"]:
        yield "rejected", _rejected(report["rejected"])
    yield "repeated", f"{report['repeated']:,} records have the image, prompt and chosen response of another"
    for parts, count in report["in_several_parts"].items():
        yield "warning", f"{count:,} images are in {parts}"
    for found in report["perturb"]:
        yield "perturb", _share(found)


def _rejected(statistics: Mapping[str, Any]) -> str:
    apart = statistics["edit_distance"]["mean"]
    return f"{statistics['pairs']:,} in the data, {apart:.1f} words from the chosen one"


def _share(found: Mapping[str, Any]) -> str:
    share = "nothing to edit" if found["share"] is None else f"{found['share']:.1%} of {found['looked_at']:,} captions"
    settings = {key: value for key, value in found["settings"].items() if key in ("of", "kinds")}
    limits = [f"{key} {', '.join([value] if isinstance(value, str) else value)}" for key, value in settings.items()]
    where = f"{found['stage']} of {', '.join(found['cases'])}"
    return f"{share} can be edited ({'; '.join([where, *limits])})"


# ---- show


def write_pairs(plan: Plan, case: str | None, stage: Portion | None, count: int, out: Path | None) -> Path:
    """Write the page of a case's pairs.

    Raises:
        ConfigError: no such case, or it has no pairs there.
        StoreError: the pairs need something that is not computed yet.
    """
    case, node = pairs_of(plan, case, stage)
    portion = _portion(node)
    name = re.sub(r"[^\w.=-]+", "_", f"pairs-{case}-{portion}")
    target = out or plan.store.home / "grids" / plan.grid.name / f"{name}.html"
    artefact = node.artefact(plan.store)
    about = {"grid": plan.grid.name, "case": case, "stage": portion, "source": node.spec.canonical()["negatives"]}
    about |= {"computed": artefact.folder.name if artefact.done() else "for this page, from the data"}
    with folder_of(plan, case, node) as folder:
        _write(target, folder, _images(plan, node), f"Pairs of {case}, {portion}", about, count)
    return target


@contextmanager
def folder_of(plan: Plan, case: str, node: Node) -> Iterator[Path]:
    """The files of a stage that makes pairs: the computed ones, else made for as long as they are looked at.

    Raises:
        StoreError: they need something that is not computed yet.
    """
    artefact = node.artefact(plan.store)
    with tempfile.TemporaryDirectory() as temporary:
        yield artefact.files if artefact.done() else _made_now(plan, case, node, Path(temporary))


def pairs_of(plan: Plan, case: str | None, stage: Portion | None) -> tuple[str, Node]:
    """A case and the stage that makes its pairs: the last one that is done, else the first."""
    if case is not None and case not in plan.grid.cases:
        raise ConfigError(f"--case: unknown case {name_valid(case, plan.grid.cases)}")
    found = {name: nodes for name in plan.grid.cases if (nodes := _makers(plan, name, stage))}
    if not found or (case is not None and case not in found):
        where = f"case '{case}'" if case else f"grid {plan.grid.name}"
        valid = ", ".join(name for name in plan.grid.cases if _makers(plan, name, None)) or "none"
        raise ConfigError(f"{where} has no pairs{f' in {stage}' if stage else ''}; cases with pairs: {valid}")
    case = case or next(iter(found))
    done = [node for node in found[case] if node.artefact(plan.store).done()]
    return case, done[-1] if done else found[case][0]


def _makers(plan: Plan, case: str, stage: Portion | None) -> list[Node]:
    """Stages that make pairs of a case, of its first seed: those of one stage of training, Stage 2 where both do."""
    cell = next(cell for cell in plan.grid.cells if cell.case == case)
    nodes = [node for node in plan.wired[cell.name].nodes() if node.stage.name == "negatives"]
    wanted = stage or ("stage2" if any(_portion(node) == "stage2" for node in nodes) else "stage1")
    return [node for node in nodes if _portion(node) == wanted]


def _portion(node: Node) -> Portion:
    assert isinstance(node.spec, NegativesSpec)
    return node.spec.portion


def _made_now(plan: Plan, case: str, node: Node, folder: Path) -> Path:
    """Pairs that need nothing computed, made in a folder by the stage's own code."""
    parts = sorted(role for role in node.inputs if role not in ("pairs", "images"))
    records = None if parts else _records(plan, node.inputs["pairs"], folder / "pairs")
    if records is None:
        needs = f"they need {', '.join(parts)}" if parts else "their data is made by a stage"
        raise StoreError(
            f"the pairs of case '{case}' are not there yet ({node.artefact(plan.store).state()}), and {needs};"
            f" run: cwdpo submit {plan.grid.options}"
        )
    nothing = lambda *_, **__: None  # noqa: E731
    out = folder / "negatives"
    inputs = {"pairs": records}
    negatives_stage.run(StageContext(node.spec, inputs, out, out, out, Rank(), Execution(), nothing, nothing))
    return out


def _records(plan: Plan, pairs: Node | Outside, folder: Path) -> Path | None:
    """A folder with records.jsonl: the computed one, else written anew from the data; None where that is not there."""
    assert isinstance(pairs, Node), "records are made by a stage"
    assert isinstance(pairs.spec, PairsSpec)
    artefact = pairs.artefact(plan.store)
    if artefact.done():
        return artefact.files
    data = _path(plan, pairs.inputs["data"])
    if data is None:
        return None
    write_records(folder / "records.jsonl", pairs.spec.data.read(data))
    return folder


def _path(plan: Plan, entry: Node | Outside) -> Path | None:
    """Folder of an input, or None where it is not computed."""
    if isinstance(entry, Outside):
        return entry.path
    artefact = entry.artefact(plan.store)
    return artefact.files if artefact.done() else None


def _images(plan: Plan, node: Node) -> Path | None:
    return _path(plan, node.inputs["images"])


def _write(target: Path, folder: Path, images: Path | None, title: str, about: Mapping[str, Any], count: int) -> None:
    lines, starts, statistics = JsonLines(folder / "negatives.jsonl"), array("q"), Statistics()
    for start, row in lines.scan():
        starts.append(start)
        statistics.add(row)
    summary = files.read_json(folder / "summary.json")
    dropped = {f"left out: {said}": summary[key] for key, said in DROPPED.items() if summary.get(key)}
    write_page(target, Rows(lines, starts, dict[str, Any]), images, title, statistics, {**about, **dropped}, count)
