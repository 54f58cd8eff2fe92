"""What a pipeline is made of: stages of experiments as nodes, what they read, and what one experiment is in them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from cwdpo.base.config import Config
from cwdpo.base.context import Share, is_share
from cwdpo.base.identity import digest, identity_card
from cwdpo.base.runtime import Execution
from cwdpo.base.store import Artefact, Store
from cwdpo.data.demo_benchmarks.stage import DemoBenchmarkSpec
from cwdpo.dynamics.rows import ABOUT, IN_RUN
from cwdpo.dynamics.settings import StageName
from cwdpo.evaluate.generate import GenerateSpec
from cwdpo.evaluate.judging.stage import JudgeSpec
from cwdpo.evaluate.questions import QuestionsSpec
from cwdpo.evaluate.score import ScoreSpec
from cwdpo.negatives.answers import AnswersSpec
from cwdpo.train.config import Stage2Spec


@dataclass(frozen=True)
class Stage:
    """A kind of work.

    Attributes:
        version: raised by hand when the meaning of its files changes.
        spec: the slice of the configuration it reads.
        module: where its `run(context)` lives; imported only where it runs, because some of them import torch.
        ranks: True when it runs as the processes of a distributed job, False for one process without torch.
        implied: roles of inputs that are no part of the identity, because the others settle what they are.
        splits: True when it works in blocks, which several jobs may share.
        holds: True when the next stage of its job may go on with the model that it loaded.
    """

    name: str
    version: int
    spec: type[Config]
    module: str
    ranks: bool
    implied: frozenset[str] = frozenset()
    splits: bool = False
    holds: bool = False


@dataclass(frozen=True)
class Outside:
    """A data or model folder outside the store.

    Attributes:
        absent: it is not there (yet): path and digest stand in for it, and so does the id of all that reads it.
    """

    path: Path
    digest: str
    absent: bool = False


@dataclass(frozen=True, eq=False)
class Node:
    """One stage of one experiment: what it computes, from what.

    Attributes:
        inputs: role -> node of the store or folder outside it.
        execution: how to run it; not part of the identity.
        share: which blocks of the stage it computes, for another node that puts them together; None is all of them.
    """

    stage: Stage
    spec: Config
    inputs: Mapping[str, Node | Outside]
    execution: Execution = field(default_factory=Execution)
    share: Share | None = None

    @cached_property
    def card(self) -> dict[str, Any]:
        """What the identity is made of."""
        counting = {role: entry for role, entry in self.inputs.items() if self._counts(role)}
        parents = {role: entry.id for role, entry in counting.items() if isinstance(entry, Node)}
        digests = {role: entry.digest for role, entry in counting.items() if isinstance(entry, Outside)}
        card = identity_card(self.stage.name, self.stage.version, self.spec, parents, digests)
        return {**card, "share": [self.share.number, self.share.of]} if self.share else card

    def _counts(self, role: str) -> bool:
        return role not in self.stage.implied and not is_share(role)

    @cached_property
    def id(self) -> str:
        """Hex SHA-256."""
        return digest(self.card)

    @cached_property
    def provisional(self) -> bool:
        """True when its id stands in for one that is not known before some data or model is there."""
        return any(
            entry.provisional if isinstance(entry, Node) else entry.absent
            for role, entry in self.inputs.items()
            if self._counts(role)
        )

    @cached_property
    def parents(self) -> list[Node]:
        """Nodes this one reads."""
        return list({entry.id: entry for entry in self.inputs.values() if isinstance(entry, Node)}.values())

    @property
    def title(self) -> str:
        """What humans call it: `stage2`, `stage2 round 2/4` where it is in rounds, `generate coco share 1/4`."""
        kind = f" ({self.spec.part.label})" if isinstance(self.spec, AnswersSpec) else ""
        if isinstance(self.spec, DemoBenchmarkSpec | QuestionsSpec | GenerateSpec | JudgeSpec | ScoreSpec):
            kind = f" {self.spec.benchmark.name}"
        if self.share:
            return f"{self.stage.name}{kind} share {self.share.number + 1}/{self.share.of}"
        part = self.spec.round if isinstance(self.spec, Stage2Spec) else None
        return f"{self.stage.name} round {part.number + 1}/{part.of}" if part else f"{self.stage.name}{kind}"

    def artefact(self, store: Store) -> Artefact:
        """Its folder in a store."""
        return store.artefact(self.stage.name, self.id)


@dataclass(frozen=True)
class Probed:
    """A training that is probed.

    Attributes:
        stage: `stage1` or `stage2`.
        rows: the node that has the rows: a `probe` of its own, or the training itself where it was probed as it ran.
        influence: the node that measured what steps do, where that is asked for.
    """

    stage: StageName
    training: Node
    rows: Node
    influence: Node | None = None

    @property
    def nodes(self) -> list[Node]:
        """What is computed for it."""
        return [self.rows, *([self.influence] if self.influence else [])]

    def folder(self, store: Store) -> Path:
        """Where the rows lie once they are computed."""
        files = self.rows.artefact(store).files
        return files / IN_RUN if self.rows is self.training else files

    def unwatched(self, done: Mapping[str, Any] | None) -> bool:
        """Whether a finished training, by its `DONE`, has no rows because nobody had it probed when it was computed.

        What only watches a training is no part of its identity: a grid without a probe shares it with one that has one.
        """
        return done is not None and self.rows is self.training and f"{IN_RUN}/{ABOUT}" not in done["files"]


@dataclass(frozen=True)
class Wired:
    """One experiment as nodes.

    Attributes:
        scores: benchmark name -> its score node.
        policy: the node that trained the model under test, or None for the base model.
        probed: trainings that are probed, in order; a Stage 2 in rounds is several.
    """

    scores: Mapping[str, Node]
    policy: Node | None
    roots: tuple[Node, ...]
    probed: tuple[Probed, ...] = ()

    def nodes(self) -> list[Node]:
        """Every node, parents before children."""
        return self._nodes

    @cached_property
    def _nodes(self) -> list[Node]:
        return in_order(self.roots)


def in_order(roots: Iterable[Node]) -> list[Node]:
    """Distinct nodes reachable from `roots`, parents before children."""
    found: dict[str, Node] = {}

    def visit(node: Node) -> None:
        if node.id not in found:
            for parent in node.parents:
                visit(parent)
            found[node.id] = node

    for root in roots:
        visit(root)
    return list(found.values())
