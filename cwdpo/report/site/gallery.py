"""A gallery of a benchmark: images with the answers of all methods side by side, where they differ most first."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from cwdpo.base import files
from cwdpo.base.errors import CwdpoError, DataError, StoreError
from cwdpo.data.images import open_image
from cwdpo.evaluate.benchmarks import AnyBenchmark
from cwdpo.evaluate.judging.pairs import asked_of
from cwdpo.evaluate.pairwise import MARGIN, Asked
from cwdpo.experiment import Cell
from cwdpo.graph import Node
from cwdpo.jobs.plan import Plan
from cwdpo.report.matched import Result, questions_of, result_of
from cwdpo.report.site.limits import LIMITS
from cwdpo.report.site.pages import number

PIXELS = 320
"""Longer side of an image, at most."""
QUALITY = 80
"""Of the JPEG files."""


@dataclass(frozen=True)
class Answer:
    """What one method answered.

    Attributes:
        value: of the item, as the table would print it; "" where it has none.
        sort: the same as a number, "" where there is none.
        standing: `best` or `worst` of the item, where values differ.
    """

    method: str
    text: str
    value: str
    sort: str
    standing: str


@dataclass(frozen=True)
class Picture:
    """One image of an item; `note` says why `href`, from the top of the folder, is empty."""

    href: str
    note: str
    width: int = 0
    height: int = 0


@dataclass(frozen=True)
class Item:
    """One item with all answers."""

    id: str
    asked: Asked
    pictures: tuple[Picture, ...]
    answers: tuple[Answer, ...]


@dataclass(frozen=True)
class Gallery:
    """One benchmark.

    Attributes:
        path: of its page.
        metric: what values per item are of.
        items: where methods differ most first.
        of: how many items were answered by all methods shown.
        methods: that are shown, each with the cell whose answers these are.
        missing: cells that are passed over, the first of each method, and why; not more than are told one by one.
        more_missing: how many more there are.
        left_out: methods beyond the limit.
        fault: why there is nothing to show; else nothing.
    """

    benchmark: str
    path: str
    metric: str
    higher: bool
    items: tuple[Item, ...]
    of: int
    methods: Mapping[str, str]
    missing: tuple[str, ...]
    more_missing: int
    left_out: int
    fault: str = ""


@dataclass(frozen=True)
class _Shown:
    """A method with its answers."""

    method: str
    cell: Cell
    found: Result


@dataclass(frozen=True)
class _Answers:
    """What there is to show.

    Attributes:
        passed: the first cells of methods whose answers are missing, or are those of another seed.
        left_out: methods that nobody looked at, as there are enough without them.
    """

    shown: Sequence[_Shown]
    passed: Sequence[Cell]
    left_out: int


def gallery(plan: Plan, benchmark: str, path: str, folder: Path) -> Gallery:
    """The gallery of a benchmark; thumbnails of its images are written to `folder`.

    Args:
        path: of the page, from the top of the folder.
    """
    methods = _methods(plan, benchmark)
    about = next(one for one in methods[0][0].experiment.benchmarks if one.name == benchmark)
    answers = _answers(plan, methods, about)
    shown = answers.shown

    def made(items: Sequence[Item] = (), of: int = 0, fault: str = "") -> Gallery:
        return Gallery(
            benchmark=benchmark,
            path=path,
            metric=about.compared.title,
            higher=about.compared.higher,
            items=tuple(items),
            of=of,
            methods={one.method: one.cell.name for one in shown},
            missing=tuple(_reasons(plan, answers.passed[: LIMITS.told], about)),
            more_missing=max(0, len(answers.passed) - LIMITS.told),
            left_out=answers.left_out,
            fault=fault,
        )

    if not shown:
        return made(fault="no method has answers yet")
    run = (shown[0].cell, shown[0].cell)
    try:
        asked = asked_of(about, questions_of(plan, run, benchmark))
    except CwdpoError as error:
        return made(fault=str(error))
    common = [name for name in shown[0].found.texts if name in asked and all(name in one.found.texts for one in shown)]
    thumbnails = _Thumbnails(_image_folder(plan, shown[0].cell, benchmark), folder, benchmark)
    items = [_item(name, asked[name], shown, about, thumbnails) for name in _most_different(common, shown)]
    return made(items, len(common))


def _methods(plan: Plan, benchmark: str) -> list[list[Cell]]:
    """The seeds of every case that is asked; those that share their answers count once."""
    found: dict[str, dict[str, Cell]] = {}
    for cell in plan.grid.cells:
        if benchmark in plan.wired[cell.name].scores:
            found.setdefault(cell.case, {}).setdefault(plan.wired[cell.name].scores[benchmark].id, cell)
    return [list(cells.values()) for cells in found.values()]


def _answers(plan: Plan, methods: Sequence[Sequence[Cell]], about: AnyBenchmark) -> _Answers:
    """The first methods that have answers, as many as are shown."""
    shown: list[_Shown] = []
    passed: list[Cell] = []
    looked_at = 0
    for cells in methods:
        if len(shown) == LIMITS.methods:
            break
        looked_at += 1
        found = _first_answers(plan, cells, about)
        shown += [found] if found else []
        passed += [] if found and found.cell is cells[0] else [cells[0]]
    return _Answers(shown, passed, len(methods) - looked_at)


def _first_answers(plan: Plan, cells: Sequence[Cell], about: AnyBenchmark) -> _Shown | None:
    """The answers of the first seed that has any."""
    for cell in cells:
        # Reading answers means to hash them: not those of a big grid that are not scored.
        if _scored(plan, cell, about) and isinstance(found := _result(plan, cell, about), Result):
            return _Shown(cell.case, cell, found)
    return None


def _scored(plan: Plan, cell: Cell, about: AnyBenchmark) -> bool:
    try:
        return plan.wired[cell.name].scores[about.name].artefact(plan.store).done() is not None
    except StoreError:
        return False


def _result(plan: Plan, cell: Cell, about: AnyBenchmark) -> Result | str:
    """The answers of a cell, or why there are none."""
    try:
        return result_of(plan, cell, plan.wired[cell.name].scores[about.name], about.compared.key)
    except StoreError as error:
        return str(error)
    except (KeyError, TypeError, ValueError) as error:
        return f"{cell.name}: its answers are damaged: {error!r}"


def _reasons(plan: Plan, cells: Sequence[Cell], about: AnyBenchmark) -> Iterator[str]:
    """Why cells were passed over; one that has been finished since then has no reason any more."""
    for cell in cells:
        if isinstance(reason := _result(plan, cell, about), str):
            yield reason


def _most_different(names: Sequence[str], shown: Sequence[_Shown]) -> list[str]:
    """Items by how far values are apart, then by how many answers there are, then as the benchmark has them."""

    def apart(name: str) -> tuple[float, int]:
        values = [value for one in shown if (value := one.found.values.get(name)) is not None]
        texts = {" ".join(one.found.texts[name].split()) for one in shown}
        return (min(values) - max(values) if values else 0.0, -len(texts))

    return sorted(names, key=apart)[: LIMITS.items]


def _image_folder(plan: Plan, cell: Cell, benchmark: str) -> Path:
    """Folder of the images, unverified: each that cannot be read is told."""
    generate = plan.wired[cell.name].scores[benchmark].inputs["generate"]
    assert isinstance(generate, Node), "scores read what was generated"
    found = generate.inputs["images"]
    if not isinstance(found, Node):
        return found.path
    artefact = found.artefact(plan.store)
    try:
        return artefact.files
    except StoreError:
        return artefact.folder


def _item(name: str, asked: Asked, shown: Sequence[_Shown], about: AnyBenchmark, thumbnails: _Thumbnails) -> Item:
    pictures = tuple(thumbnails.of(image) for image in asked.images[: LIMITS.images])
    return Item(name, asked, pictures, tuple(_shown_answers(name, shown, about)))


def _shown_answers(name: str, shown: Sequence[_Shown], about: AnyBenchmark) -> Iterator[Answer]:
    metric = about.compared
    values = [one.found.values.get(name) for one in shown]
    known = [value for value in values if value is not None]
    differ = len(known) > 1 and max(known) - min(known) > MARGIN
    best, worst = (max, min) if metric.higher else (min, max)
    for one, value in zip(shown, values, strict=True):
        standing = ""
        if differ and value is not None:
            standing = "best" if value == best(known) else "worst" if value == worst(known) else ""
        said = "" if value is None else number(metric.scale * value, metric.digits)
        yield Answer(one.method, one.found.texts[name], said, "" if value is None else repr(value), standing)


class _Thumbnails:
    """Small copies of images, each made once."""

    def __init__(self, images: Path, folder: Path, benchmark: str) -> None:
        self._images, self._folder, self._benchmark = images, folder, benchmark
        self._made: dict[str, Picture] = {}

    def of(self, image: str) -> Picture:
        """The copy of an image, or a note on why there is none."""
        if image not in self._made:
            self._made[image] = self._copy(image, len(self._made))
        return self._made[image]

    def _copy(self, image: str, place: int) -> Picture:
        try:
            small = open_image(self._images, image)
        except DataError as error:
            return Picture("", str(error))
        small.thumbnail((PIXELS, PIXELS))
        content = io.BytesIO()
        small.save(content, "JPEG", quality=QUALITY)
        href = f"images/{self._benchmark}/{place}.jpg"
        files.write_bytes(self._folder / href, content.getvalue())
        return Picture(href, "", *small.size)
