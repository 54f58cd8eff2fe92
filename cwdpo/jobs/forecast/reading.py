"""From the nodes of a plan to their tasks."""

from __future__ import annotations

import math
from collections.abc import Hashable
from dataclasses import replace
from typing import Any

from cwdpo.base.config import Config
from cwdpo.base.context import is_share
from cwdpo.data.demo_world import DemoWorld
from cwdpo.data.pairs import PairsSpec
from cwdpo.dynamics.influence.stage import InfluenceSpec
from cwdpo.dynamics.settings import ProbeSetSpec, ProbeSpec
from cwdpo.evaluate.generate import GenerateSpec
from cwdpo.evaluate.judging.stage import JudgeSpec
from cwdpo.evaluate.score import ScoreSpec
from cwdpo.graph import Node, Outside
from cwdpo.jobs.forecast.counts import Sizes
from cwdpo.jobs.forecast.dimensions import Dimensions, of_checkpoint, of_tiny
from cwdpo.jobs.forecast.flops import Rows, Trained
from cwdpo.jobs.forecast.samples import (
    CAPTION,
    PROMPT,
    answer_tokens,
    image_tokens,
    negatives_of,
    rejected_of,
    rows_of,
    views,
)
from cwdpo.jobs.forecast.tasks import Asking, Generating, Preparing, Scoring, Subject, Task, Training
from cwdpo.model.config import FullTuning, Lora, Policy
from cwdpo.model.decoding import Decoding
from cwdpo.negatives.answers import AnswersSpec
from cwdpo.negatives.critique import CritiqueSpec
from cwdpo.negatives.llm.stage import LlmSpec
from cwdpo.negatives.stage import NegativesSpec
from cwdpo.objectives.online import Online
from cwdpo.objectives.preference import Preference
from cwdpo.train.config import Stage1Spec, Stage2Spec, TrainingSpec
from cwdpo.train.pretrain import PretrainSpec
from cwdpo.train.reference import ReferenceSpec

CRITIQUE = 400
"""Tokens of the shipped instruction to a critic, with two answers."""
PROBED = 7
"""Responses of a probed sample."""
PROBE_BLOCK = 8
"""Samples that are probed together, unless a probe says otherwise."""


class Tasks:
    """The task of every node, each made once."""

    def __init__(self, sizes: Sizes) -> None:
        self.sizes = sizes
        self._of: dict[str, Task] = {}
        self._known: dict[Hashable, Task] = {}
        self._equal: dict[Task, Task] = {}
        self._models: dict[int, tuple[str, Dimensions | None]] = {}
        self._kept: list[object] = []  # what is looked up by its address must stay

    def of(self, node: Node) -> Task:
        """What a node has to do: one object for all that have to do the same."""
        found = self._of.get(node.id)
        if found is None:
            key = self._key(node)
            found = self._known.get(key)
            if found is None:
                read = self._read(node)
                found = self._known[key] = self._equal.setdefault(read, read)
                self._kept.append(node)
            self._of[node.id] = found
        return found

    def _key(self, node: Node) -> Hashable:
        """All that a task depends on, most by its address: seeds of one cell have the very same sections."""
        settings, inputs = vars(node.spec), node.inputs
        policy, asked = settings.get("policy"), inputs.get("adapter")
        return (
            node.stage.name, *[id(value) for name, value in settings.items() if name not in _SEEN_THROUGH],
            policy and (policy.dtype, policy.min_pixels, policy.max_pixels), id(inputs.get("model")),
            id(inputs.get("pairs")), id(inputs.get("questions")), id(negatives_of(node)),
            id(getattr(asked.spec, "tuning", None)) if isinstance(asked, Node) else 0,
            id(self._run(node)), id(node.execution), node.share is not None, _joined(node),
        )  # fmt: skip

    def _run(self, node: Node) -> Task | None:
        run = node.inputs.get("run")
        return self.of(run) if isinstance(run, Node) else None

    def _read(self, node: Node) -> Task:
        if _joined(node):
            return Preparing(node.stage.name, "puts shares together", "", 0)
        for kind, read in _READERS.items():
            if isinstance(node.spec, kind):
                found: Task = read(self, node, node.spec)
                return found
        return Preparing(node.stage.name, "", _data_of(node), self._records(node))

    def _records(self, node: Node) -> float:
        """Items of a stage on CPUs."""
        spec, pairs = node.spec, node.inputs.get("pairs")
        if isinstance(spec, DemoWorld):
            return spec.train + spec.val + spec.test
        if isinstance(spec, PairsSpec):
            return sum(self.sizes.of_pairs(node).images.values())
        if isinstance(spec, NegativesSpec) and isinstance(pairs, Node):
            return self.sizes.of_pairs(pairs).records[spec.portion]
        if isinstance(pairs, Node):
            return sum(self.sizes.of_pairs(pairs).records.values())
        return self.sizes.of_questions(node) if node.stage.name == "questions" else 1

    def subject(self, node: Node, rank: int | None = None) -> Subject:
        """The policy that a node trains or asks."""
        base = node
        while isinstance(base, Node) and base.stage.name != "pretrain":
            base = base.inputs["model"]  # type: ignore[assignment]
        key, model = self._model(base)
        policy: Policy = vars(node.spec)["policy"]
        adapter = node.inputs.get("adapter") if rank is None else None
        if isinstance(adapter, Node):
            tuning = adapter.spec.tuning  # type: ignore[attr-defined]
            rank = tuning.rank if isinstance(tuning, Lora) else 0
        image, longest = image_tokens(model, policy, node)
        return Subject(key, model, policy.dtype, rank or 0, image, longest)

    def _model(self, base: Node | Outside) -> tuple[str, Dimensions | None]:
        """What tells a base model apart, and its sizes."""
        if id(base) not in self._models:
            self._kept.append(base)
            if isinstance(base, Node):
                assert isinstance(base.spec, PretrainSpec), "a model that is no folder is made by pretraining"
                self._models[id(base)] = (base.id, of_tiny(base.spec.architecture))
            else:
                self._models[id(base)] = (base.digest, of_checkpoint(base))
        return self._models[id(base)]

    def _pretraining(self, node: Node, spec: PretrainSpec) -> Task:
        settings = spec.pretraining
        rows = (Rows(0, PROMPT, 1, CAPTION),)
        subject, data = self.subject(node, 0), _data_of(node)
        items = sum(self.sizes.of_pairs(_pairs(node)).images.values())
        return Training(
            "pretrain", "sft", data, items, subject, rows, (), Trained(0, vision=True), settings.batch_size,
            settings.steps, 0, node.execution,
        )  # fmt: skip

    def _training(self, node: Node, spec: Stage1Spec | Stage2Spec) -> Task:
        portion = spec.portion if isinstance(spec, Stage1Spec) else spec.stage
        items = self.sizes.of_pairs(_pairs(node)).samples(portion, spec.one_per_image)
        tuning, execution = spec.tuning, node.execution
        rank = tuning.rank if isinstance(tuning, Lora) else 0
        subject = self.subject(node, rank)
        vision = isinstance(tuning, FullTuning) and tuning.train_vision
        trained = Trained(rank, vision, execution.gradient_checkpointing)
        rows, still = rows_of(node)
        steps = _steps(spec, items)
        every = execution.snapshot_every if rank else 0
        return Training(
            node.stage.name, spec.objective.name, _data_of(node), items, subject, rows, still, trained,
            spec.optimization.batch_size, steps, max(0, (steps - 1) // every) if every else 0, execution,
            self._sampled(node, subject), bool(still) and not isinstance(spec.objective, Preference),
            _hands_over(spec), getattr(spec.objective, "inner_epochs", 1),
        )  # fmt: skip

    def _sampled(self, node: Node, subject: Subject) -> Generating | None:
        """Answers that a step learns from, where it samples them."""
        spec = node.spec
        if not (isinstance(spec, Stage2Spec) and spec.rollouts and isinstance(spec.objective, Online)):
            return None
        decoding, execution = spec.rollouts.decoding, node.execution
        # The policy answers as it is trained: `inference` is for stages of their own.
        parted = {"inference": "zero3" if execution.zero_stage == 3 else "replicate", "replica_size": 1}
        prompts = spec.rollouts.prompts or spec.optimization.batch_size
        return Generating(
            "stage2", "rollouts", "", prompts, subject, decoding.block, spec.objective.samples,
            decoding.max_new_tokens, PROMPT, execution.model_copy(update=parted),
        )  # fmt: skip

    def _generation(self, node: Node, spec: GenerateSpec) -> Task:
        items = self.sizes.items(node) / _parts(node)
        return self._decoding(node, spec.benchmark.name, items, spec.benchmark.decoding)

    def _decoding(self, node: Node, method: str, items: float, decoding: Decoding, scored: bool = False) -> Generating:
        return Generating(
            node.stage.name, method, _data_of(node), items, self.subject(node), decoding.block, draws_of(decoding),
            decoding.max_new_tokens, PROMPT, node.execution, scored,
        )  # fmt: skip

    def _answers(self, node: Node, spec: AnswersSpec) -> Task:
        items, decoding = self.sizes.of_pairs(_pairs(node)).images[spec.portion] / _parts(node), spec.part.decoding
        return self._decoding(node, answered(decoding.strategy, draws_of(decoding)), items, decoding, scored=True)

    def _probe_set(self, node: Node, spec: ProbeSetSpec) -> Task:
        decoding = Decoding(max_new_tokens=spec.set.max_new_tokens, block=spec.set.block)
        return self._decoding(node, "", spec.set.samples / _parts(node), decoding)

    def _scoring(self, node: Node, method: str, items: float, rows: tuple[Rows, ...], block: int) -> Scoring:
        return Scoring(
            node.stage.name, method, _data_of(node), items / _parts(node), self.subject(node), rows, block,
            node.execution,
        )  # fmt: skip

    def _critique(self, node: Node, spec: CritiqueSpec) -> Task:
        items = self.sizes.of_pairs(_pairs(node)).records[spec.portion]
        rows = (Rows(0, CRITIQUE, 2, 2, node.execution.shared_prefix),)
        return self._scoring(node, "", items, rows, spec.part.block)

    def _reference(self, node: Node, spec: ReferenceSpec) -> Task:
        items = self.sizes.of_pairs(_pairs(node)).records["stage2"]
        rows = views(spec.terms, rejected_of(negatives_of(node)), answer_tokens(node), node.execution.shared_prefix)
        return self._scoring(node, "", items, rows, spec.block)

    def _probe(self, node: Node, spec: ProbeSpec) -> Task:
        rows = (Rows(0, PROMPT, PROBED, CAPTION, node.execution.shared_prefix),)
        return self._scoring(node, "", self._probed(node) * self._points(node, spec.every), rows, PROBE_BLOCK)

    def _points(self, node: Node, every: int) -> int:
        """States of a run that are looked at: its start, its end, and every so many steps between them."""
        run = self._run(node)
        assert isinstance(run, Training), "what is looked at is a training"
        return 2 + max(0, (run.steps - 1) // every)

    def _probed(self, node: Node) -> int:
        found = node.inputs["probe_set"]
        assert isinstance(found, Node), "a probe set is made by a stage"
        assert isinstance(found.spec, ProbeSetSpec), "of its own kind"
        return found.spec.set.samples

    def _influence(self, node: Node, spec: InfluenceSpec) -> Task:
        """At every point a gradient and a step of each update, and what it changes of every response observed."""
        rows = (Rows(0, PROMPT, 2, CAPTION, node.execution.shared_prefix),)
        items = self._points(node, spec.every) * spec.updates * (1 + spec.observations)
        subject = replace(self.subject(node), dtype=spec.dtype)
        return Scoring(
            node.stage.name, spec.objective.name, "", items, subject, rows, 1, node.execution, backward=True,
            alone=True,
        )  # fmt: skip

    def _asking(self, node: Node, spec: LlmSpec) -> Task:
        endpoint = spec.part.endpoint
        items = self.sizes.of_pairs(_pairs(node)).records[spec.portion]
        return Asking("llm", endpoint.model, _data_of(node), items, endpoint.concurrency)

    def _judging(self, node: Node, spec: JudgeSpec) -> Task:
        return Asking("judge", spec.endpoint.model, _data_of(node), self.sizes.items(node), spec.endpoint.concurrency)

    def _scores(self, node: Node, spec: ScoreSpec) -> Task:
        method = "captions" if "pairs" in node.inputs else "questions"
        return Preparing("score", method, _data_of(node), self.sizes.items(node))


_SEEN_THROUGH = ("seed", "policy")
"""Settings whose address does not count: one has no say, the other is made anew for every node."""

_READERS: dict[type[Config], Any] = {
    PretrainSpec: Tasks._pretraining,
    TrainingSpec: Tasks._training,
    GenerateSpec: Tasks._generation,
    AnswersSpec: Tasks._answers,
    ProbeSetSpec: Tasks._probe_set,
    CritiqueSpec: Tasks._critique,
    ReferenceSpec: Tasks._reference,
    ProbeSpec: Tasks._probe,
    InfluenceSpec: Tasks._influence,
    LlmSpec: Tasks._asking,
    JudgeSpec: Tasks._judging,
    ScoreSpec: Tasks._scores,
}
"""Settings of a stage -> how its task is read; all others are work on CPUs."""


def draws_of(decoding: Decoding) -> int:
    """Answers to an item that are decoded at the same time."""
    return max(decoding.candidates, decoding.beams if decoding.strategy == "beam" else 1)


def answered(strategy: str, draws: int) -> str:
    """What answers of a policy are compared by."""
    return f"{strategy} x {draws}"


def _joined(node: Node) -> bool:
    """Whether other jobs have done the work already, and it is only put together."""
    return any(map(is_share, node.inputs))


def _parts(node: Node) -> int:
    """Jobs that share the work."""
    return node.share.of if node.share else 1


def _pairs(node: Node) -> Node:
    found = node.inputs["pairs"]
    assert isinstance(found, Node), "records are made by a stage"
    return found


def _data_of(node: Node) -> str:
    """Id of the records or questions that a node is about."""
    found = [node.inputs.get(role) for role in ("questions", "pairs")]
    return next((entry.id for entry in found if isinstance(entry, Node)), "")


def _hands_over(spec: TrainingSpec) -> bool:
    """Whether another round goes on from it."""
    part = spec.round if isinstance(spec, Stage2Spec) else None
    return part is not None and part.number + 1 < part.of


def _steps(spec: TrainingSpec, items: float) -> int:
    """Optimizer steps of a training, or of its round."""
    each = math.ceil(items / spec.optimization.batch_size)
    if isinstance(spec, Stage2Spec) and isinstance(spec.objective, Online):
        each *= spec.objective.inner_epochs
    total = spec.optimization.total_steps(max(1, each))
    part = spec.round if isinstance(spec, Stage2Spec) else None
    return part.end(total) - part.number * total // part.of if part else total
