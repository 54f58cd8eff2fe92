"""What the store has of the cells of a grid: every score, read once and checked, or why there is none."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from cwdpo.base.errors import StoreError
from cwdpo.evaluate.items import ITEMS
from cwdpo.experiment import Cell
from cwdpo.graph import Node, in_order
from cwdpo.jobs.plan import Plan, stands_on
from cwdpo.jobs.status import Overlay, failure_of
from cwdpo.report.content import Gap, GapKind
from cwdpo.report.score import SUMMARY, Score, card_fault, code_of, read_summary

FINISHED = ("done", "stale")

AT_WORK: tuple[GapKind, ...] = ("cancelled", "running", "starting", "queued", "damaged", "interrupted")
"""What tells most about a result that is not there, first; a failure tells more."""


@dataclass(frozen=True, slots=True)
class Lack:
    """Why there is no result; `reason` is a sentence without its full stop, or ""."""

    kind: GapKind
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Scores:
    """What there is of a benchmark in one case.

    Attributes:
        found: (seeds, score) of each distinct one: seeds that share a deterministic result count once.
    """

    found: tuple[tuple[tuple[int, ...], Score], ...]
    gaps: tuple[Gap, ...]


@dataclass(frozen=True, slots=True)
class _Kept:
    """What is remembered of a `DONE`."""

    attempt: str
    summary: str
    items: str
    code: str


class Results:
    """A grid at one moment: the store is looked at once, and each score read once, when it is asked for.

    Args:
        overlay: what a scheduler knows beyond the store.

    Attributes:
        states: node id -> how it stands.
        images: id of a finished node -> what it was computed in.
        weights: id of a finished node that trained a policy -> digest of its weights.
    """

    def __init__(self, plan: Plan, overlay: Overlay | None = None) -> None:
        self.plan = plan
        self.weights: dict[str, str] = {}
        self._kept: dict[str, _Kept] = {}
        self._policies = {wired.policy.id for wired in plan.wired.values() if wired.policy}
        survey = plan.survey(self._keep)
        self.states = overlay.states(survey.states) if overlay else survey.states
        self.images = survey.images
        self._reasons = overlay.reasons() if overlay else {}
        self._cells: dict[str, list[Cell]] = {}
        for cell in plan.grid.cells:
            self._cells.setdefault(cell.case, []).append(cell)
        self._scores: dict[tuple[str, str], Scores] = {}
        self._read: dict[str, Score | Lack] = {}
        self._behind: dict[str, tuple[str, bool]] = {}
        self._made: dict[Hashable, Any] = {}

    def _keep(self, node: Node, done: Mapping[str, Any]) -> None:
        """Remember what tables need of a finished node."""
        if node.stage.name == "score":
            digests = {name: str(entry["sha256"]) for name, entry in done["files"].items()}
            code = code_of(done["provenance"])
            self._kept[node.id] = _Kept(str(done["attempt"]), digests.get(SUMMARY, ""), digests.get(ITEMS, ""), code)
        elif node.id in self._policies:
            names = (name for name in done["files"] if name.endswith(".safetensors"))
            self.weights[node.id] = "".join(done["files"][name]["sha256"] for name in names)

    def once(self, key: Hashable, make: Callable[[], Any]) -> Any:
        """What `make` returned when `key` came first; for what several columns are read from."""
        if key not in self._made:
            self._made[key] = make()
        return self._made[key]

    # ---- cells

    def cells(self, case: str) -> list[Cell]:
        """Its seeds, in the order of the grid."""
        return self._cells[case]

    def fixed(self, case: str) -> bool:
        """Whether nothing was trained: another seed gives the same, where answers are not sampled."""
        return all(self.plan.wired[cell.name].policy is None for cell in self._cells[case])

    def stage1(self, case: str) -> str:
        """Objective of the Stage 1 that it stands on; "none" where it has none."""
        stage = self._cells[case][0].experiment.stage1
        return stage.objective.name if stage else "none"

    def starts(self, case: str) -> dict[int, str]:
        """Seed -> id of the Stage 1 that it stands on, of those that have one."""
        found: dict[int, str] = self.once(("starts", case), lambda: self._find_starts(case))
        return found

    def _find_starts(self, case: str) -> dict[int, str]:
        wired = ((cell.seed, self.plan.wired[cell.name]) for cell in self._cells[case] if cell.experiment.stage1)
        nodes = ((seed, node) for seed, one in wired for node in one.nodes() if node.stage.name == "stage1")
        return {seed: node.id for seed, node in nodes}

    # ---- scores

    def scores(self, case: str, benchmark: str) -> Scores:
        """Every distinct score of a case."""
        key = (case, benchmark)
        if key not in self._scores:
            self._scores[key] = self._collect(case, benchmark)
        return self._scores[key]

    def _collect(self, case: str, benchmark: str) -> Scores:
        nodes: dict[str, tuple[Node, list[int]]] = {}
        lacks: list[tuple[Lack, int]] = []
        for cell in self._cells[case]:
            node = self.plan.wired[cell.name].scores.get(benchmark)
            if node is None:
                lacks.append((Lack("not asked"), cell.seed))
            else:
                nodes.setdefault(node.id, (node, []))[1].append(cell.seed)
        found = []
        for node, seeds in nodes.values():
            read = self._score(node)
            if isinstance(read, Score):
                found.append((tuple(seeds), read))
            else:
                lacks += [(read, seed) for seed in seeds]
        return Scores(tuple(found), gaps_of(lacks))

    def _score(self, node: Node) -> Score | Lack:
        if node.id not in self._read:
            self._read[node.id] = self._look(node)
        return self._read[node.id]

    def _look(self, node: Node) -> Score | Lack:
        """The score, or why there is none."""
        lack = self.lack(node)
        if lack:
            return lack
        artefact, kept = node.artefact(self.plan.store), self._kept[node.id]
        folder = artefact.attempts / kept.attempt / "out"
        try:
            summary = read_summary(artefact, f"{folder}/{SUMMARY}", kept.summary)
        except StoreError as error:
            return Lack("damaged", str(error))
        stale, doubt = self.old(node), self.doubt(node) or card_fault(artefact)
        return Score(summary, artefact.folder.name, folder, kept.items, kept.code, stale, doubt, asking(node).id)

    # ---- how nodes stand

    def lack(self, node: Node) -> Lack | None:
        """Why a node has no result: what failed first on the way to it, else what is at work, else its own state."""
        if self.states[node.id] in FINISHED:
            return None
        waiting = [found for found in in_order([node]) if self.states[found.id] not in FINISHED]
        for found in waiting:
            if self.states[found.id] == "failed":
                return Lack("failed", f"{found.title}: {self._failure(found)}")
        for kind in AT_WORK:
            for found in (node, *waiting):
                if self.states[found.id] == kind:
                    return Lack(kind, self._damage(found) if kind == "damaged" else "")
        return Lack("blocked" if self.states[node.id] == "blocked" else "missing")

    def _failure(self, node: Node) -> str:
        """What a failed stage said, or the scheduler of it."""
        return self._reasons.get(node.id) or failure_of(node.artefact(self.plan.store)) or "no reason recorded"

    def _damage(self, node: Node) -> str:
        """What is wrong with the files of a finished node."""
        artefact = node.artefact(self.plan.store)
        try:
            gone = artefact.missing_files()
            artefact.made_by(artefact.done() or {})
        except StoreError as error:
            return str(error).replace(f"{artefact.folder.parent}/", "")
        name = f"{gone[0]} is missing or changed since it was written" if gone else "it was damaged a moment ago"
        return f"{artefact.folder.name}: {name}"

    def code(self, node: Node) -> str:
        """What computed a finished node."""
        done = node.artefact(self.plan.store).done()
        return code_of(done["provenance"]) if done else ""

    def doubt(self, node: Node) -> str:
        """What is wrong with what a finished node was computed from; "" where nothing is."""
        return self._ancestry(node)[0]

    def old(self, node: Node) -> bool:
        """Whether other code than this computed it or anything before it."""
        return self.states[node.id] == "stale" or self._ancestry(node)[1]

    def _ancestry(self, node: Node) -> tuple[str, bool]:
        """Of everything before a node: what is wrong with it, and whether any of it is stale."""
        if node.id not in self._behind:
            parents = [parent for _, parent in stands_on(node)]
            doubts = (self._trouble(parent) or self._ancestry(parent)[0] for parent in parents)
            stale = any(self.states[parent.id] == "stale" or self._ancestry(parent)[1] for parent in parents)
            self._behind[node.id] = (next(filter(None, doubts), ""), stale)
        return self._behind[node.id]

    def _trouble(self, node: Node) -> str:
        state = self.states[node.id]
        if state in FINISHED:
            return ""
        folder = node.artefact(self.plan.store).folder.name
        return self._damage(node) if state == "damaged" else f"{folder} is {state}, not done"


def asking(score: Node) -> Node:
    """The stage that made the questions, or the records of captions, of a score."""
    found = score.inputs["questions" if "questions" in score.inputs else "pairs"]
    assert isinstance(found, Node), "made by a stage"
    return found


def gaps_of(lacks: Iterable[tuple[Lack, int]]) -> tuple[Gap, ...]:
    """Of (reason, seed) of what is missing: those with the same reason together."""
    found: dict[Lack, list[int]] = {}
    for lack, seed in lacks:
        found.setdefault(lack, []).append(seed)
    return tuple(Gap(lack.kind, lack.reason, tuple(seeds)) for lack, seeds in found.items())
