"""What the stages of a plan have to do, in the numbers that their cost follows from: equal work is one task."""

from __future__ import annotations

from dataclasses import dataclass

from cwdpo.base.runtime import Execution
from cwdpo.jobs.forecast.dimensions import Dimensions
from cwdpo.jobs.forecast.flops import Rows, Trained
from cwdpo.jobs.forecast.ranges import Range


@dataclass(frozen=True)
class Subject:
    """A policy that is trained or asked.

    Attributes:
        key: tells the base model apart from others: an id of the store, or a digest.
        model: its sizes; None where nobody knows them.
        rank: of its adapter; 0 is none.
        image: tokens of an image.
        longest: image tokens of the largest image that is to be expected.
    """

    key: str
    model: Dimensions | None
    dtype: str
    rank: int
    image: Range
    longest: float


@dataclass(frozen=True)
class Task:
    """Work of one stage.

    Attributes:
        stage: its name.
        method: what of its settings past stages are compared by: an objective, a benchmark.
        data: id of the records or questions it is about; "" where it is about none.
        items: samples, questions, records, images: what its progress is counted in.
    """

    stage: str
    method: str
    data: str
    items: float


@dataclass(frozen=True)
class Training(Task):
    """Optimizer steps. Its items are samples of one epoch.

    Attributes:
        rows: of a sample, with gradient; image tokens are left to the subject.
        still: of a sample, without.
        batch: samples of a step.
        steps: of this stage.
        snapshots: adapters that it keeps beside its result.
        sampled: answers that are made at a time, of objectives that sample them.
        frozen_copy: it holds the policy it started from.
        hands_over: it keeps its optimizer for the round that goes on from it.
        inner_epochs: how often steps go over what was sampled.
    """

    subject: Subject
    rows: tuple[Rows, ...]
    still: tuple[Rows, ...]
    trained: Trained
    batch: int
    steps: int
    snapshots: int
    execution: Execution
    sampled: Generating | None = None
    frozen_copy: bool = False
    hands_over: bool = False
    inner_epochs: int = 1

    @property
    def phases(self) -> float:
        """How often answers are sampled."""
        steps = self.sampled.items * self.inner_epochs / self.batch if self.sampled else 0
        return self.steps / max(1.0, steps) if self.sampled else 0


@dataclass(frozen=True)
class Generating(Task):
    """Answers, token by token.

    Attributes:
        block: items decoded together.
        draws: answers to an item that are decoded at the same time.
        new: most tokens of an answer.
        text: tokens of the prompt beside the image.
        scored: the answers are scored under the policy afterwards.
    """

    subject: Subject
    block: int
    draws: int
    new: int
    text: float
    execution: Execution
    scored: bool = False


@dataclass(frozen=True)
class Scoring(Task):
    """Log-probabilities of given responses.

    Attributes:
        rows: of an item.
        backward: gradients are taken, too.
        alone: one process does it, however many ranks the job has.
    """

    subject: Subject
    rows: tuple[Rows, ...]
    block: int
    execution: Execution
    backward: bool = False
    alone: bool = False


@dataclass(frozen=True)
class Asking(Task):
    """Calls of an endpoint; its items are calls.

    Attributes:
        together: calls under way at a time.
    """

    together: int


@dataclass(frozen=True)
class Preparing(Task):
    """Work of one process on CPUs."""
