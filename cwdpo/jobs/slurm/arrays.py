"""From elements to the fewest job arrays that let every element start the moment its own parents end.

An array has one dependency for all its elements. Two kinds say what we need: `aftercorr:A` (element i waits for
element i of A) and `afterok:A_i` (all elements wait for one element). So the elements that wait for elements of one
array form a table, a row per parent, and each array covers either a row (all children of one parent) or a column (at
most one child of each parent). With rows for the parents of more than t children and columns for the rest,
`#{parents with more than t} + t` arrays are needed; the smallest over t is the smallest possible (Konig's theorem for
a table whose cells in a row are interchangeable).
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from cwdpo.jobs.clusters import Kind
from cwdpo.jobs.slurm.elements import Element, Place


@dataclass(frozen=True)
class Array:
    """Elements that are submitted by one sbatch.

    Attributes:
        elements: index -> element.
        after: places whose success every element waits for (`afterok:ARRAY_INDEX`).
        beside: names of arrays whose element of the same index an element waits for (`aftercorr:ARRAY`).
    """

    name: str
    kind: Kind
    elements: Mapping[int, Element]
    after: tuple[Place, ...] = ()
    beside: tuple[str, ...] = ()

    def dependency(self, job_ids: Mapping[str, str]) -> str | None:
        """The argument of `--dependency`; `job_ids` maps array names to Slurm's job ids."""
        alone = len(self.elements) == 1  # an array of one element has no counterpart for aftercorr to find
        (first,) = list(self.elements)[:1]
        terms = [f"afterok:{job_ids[name]}_{first}" if alone else f"aftercorr:{job_ids[name]}" for name in self.beside]
        terms += [f"afterok:{job_ids[name]}_{index}" for name, index in self.after]
        return ",".join(terms) or None

    def parents(self, index: int) -> list[Place]:
        """Places that element `index` waits for."""
        return [*((name, index) for name in self.beside), *self.after]


def pack(elements: Sequence[Element], name: Callable[[Kind], str], max_array: int) -> list[Array]:
    """Arrays for all elements, parents before children.

    Args:
        elements: parents before children.
        name: gives a new unique array name.
        max_array: no index reaches it.
    """
    packing = _Packing(name, max_array)
    for _, wave in sorted(_waves(elements).items()):
        packing.add(wave)
    return packing.arrays


def _waves(elements: Sequence[Element]) -> dict[tuple[int, str], list[Element]]:
    """(depth, kind) -> elements; depth 0 waits for nothing of this submission."""
    depth: dict[int, int] = {}
    waves: dict[tuple[int, str], list[Element]] = defaultdict(list)
    for element in elements:
        before = [depth[id(parent)] for parent in element.parents if isinstance(parent, Element)]
        depth[id(element)] = 1 + max(before, default=-1)
        waves[depth[id(element)], element.kind].append(element)
    return waves


@dataclass
class _Packing:
    """Arrays so far, and where each element went."""

    name: Callable[[Kind], str]
    max_array: int
    arrays: list[Array] = field(default_factory=list)
    places: dict[int, Place] = field(default_factory=dict)

    def add(self, wave: Sequence[Element]) -> None:
        """Pack elements of one depth and kind."""
        by_parents: dict[Any, list[Element]] = defaultdict(list)
        for element in wave:
            by_parents[self._shape(element)].append(element)
        for shape, group in by_parents.items():
            pivots = [array for array, count in shape if count == 1]
            self._add_table(group, max(pivots, key=lambda array: self._spread(group, array), default=None))

    def _shape(self, element: Element) -> tuple[tuple[str, int], ...]:
        """How many parents an element has in which arrays."""
        return tuple(sorted(Counter(array for array, _ in self._parents(element)).items()))

    def _spread(self, group: Iterable[Element], array: str) -> int:
        return len({index for element in group for name, index in self._parents(element) if name == array})

    def _parents(self, element: Element) -> list[Place]:
        found = [self.places[id(parent)] if isinstance(parent, Element) else parent for parent in element.parents]
        return sorted(found)

    def _add_table(self, group: Sequence[Element], pivot: str | None) -> None:
        """Pack elements that have parents in the same arrays; they differ by their parent in `pivot` most."""
        tables: dict[Any, dict[int, list[Element]]] = defaultdict(lambda: defaultdict(list))
        for element in group:
            parents = self._parents(element)
            row = next((index for name, index in parents if name == pivot), -1)
            rest = tuple(place for place in parents if place[0] != pivot)
            tables[rest][row].append(element)
        for rest, rows in tables.items():
            self._cover(rows, pivot, rest)

    def _cover(self, rows: Mapping[int, list[Element]], pivot: str | None, rest: tuple[Place, ...]) -> None:
        """Arrays for one table: the rows that are longer than the best t, then t columns.

        The most common stage fills the first column, so that what follows it finds its parents in one array.
        """
        common = Counter(element.stage for members in rows.values() for element in members)
        rows = {row: sorted(members, key=lambda element: -common[element.stage]) for row, members in rows.items()}
        best = 0 if pivot is None or len(rows) == 1 else columns(sorted(len(row) for row in rows.values()))
        for row, members in rows.items():
            if len(members) > best:
                own = () if pivot is None else ((pivot, row),)
                self._add_numbered(members, (*own, *rest))
        for number in range(best):
            column = {row: members[number] for row, members in rows.items() if number < len(members) <= best}
            assert pivot is not None, "without a pivot there are only rows"
            self._append(column, rest, (pivot,))

    def _add_numbered(self, members: Sequence[Element], after: tuple[Place, ...]) -> None:
        for start in range(0, len(members), self.max_array):
            self._append(dict(enumerate(members[start : start + self.max_array])), after, ())

    def _append(self, members: Mapping[int, Element], after: tuple[Place, ...], beside: tuple[str, ...]) -> None:
        kind = next(iter(members.values())).kind
        array = Array(self.name(kind), kind, dict(sorted(members.items())), after, beside)
        self.arrays.append(array)
        self.places |= {id(element): (array.name, index) for index, element in members.items()}


def columns(counts: Sequence[int]) -> int:
    """The number of columns t that makes `#{counts > t} + t` smallest; the larger one where two are equal."""
    return min(sorted({0, *counts}, reverse=True), key=lambda t: sum(count > t for count in counts) + t)


def limited(arrays: Sequence[Array], room: int | None) -> list[Array]:
    """The arrays that fit into `room` more queue entries, the last one cut; the rest is for a later wave.

    Args:
        arrays: parents before children.
        room: elements that may still be submitted; None is no limit.
    """
    if room is None:
        return list(arrays)
    kept: dict[str, Array] = {}
    missing: set[Place] = set()
    for array in arrays:
        ready = [index for index in array.elements if not missing & set(array.parents(index))]
        taken = set(ready[: max(0, room)])
        room -= len(taken)
        missing |= {(array.name, index) for index in array.elements if index not in taken}
        if taken:
            members = {index: element for index, element in array.elements.items() if index in taken}
            kept[array.name] = Array(array.name, array.kind, members, array.after, array.beside)
    return list(kept.values())
