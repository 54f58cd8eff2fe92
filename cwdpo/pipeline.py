"""The data path, from data set to score, in one file.

    pairs -> negatives -> stage1 -> negatives -> [sft_phase] -> reference -> stage2 -> generate -> score
      ^                     ^           ^                                                ^
    world (demo)         pretrain    answers, critique, llm         base, stage1 and stage2 are all generated from
                            |                                 |
                            +------------> probe <------------+      (of a probe_set, from pairs and the base model)

Benchmarks of captions ask about pairs; all others about `questions`, read from the files that a user prepared, or from
those that a demo_benchmark made of a generated world in the same format: world -> demo_benchmark -> questions.

Sources of negatives name the parts that they need first: answers of the policy that is trained next, its critique of
them, what an LLM endpoint writes. Those who ask for the same share it.

With `refresh: {rounds: K}` there are K of each: stage2[k] -> negatives[k+1] -> reference[k+1] -> stage2[k+1], always
with the reference that Stage 2 started from.

grpo and ppo sample their own responses: stage2 needs no negatives then and no reference, but for CIDEr-D as a reward
frequencies (of n-grams, from pairs).

With `probe`, the adapters that a training has kept are read on a fixed probe set when it is over; where something acts
on what is seen, or no adapter is kept, the training itself reads it on its way.

Each stage is `(slice of the config, input artefacts, output folder) -> files`; stages meet only through files. `Wiring`
below turns an experiment into nodes (of `cwdpo.graph`); equal nodes of different experiments are one artefact, computed
once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from cwdpo.base.config import Config
from cwdpo.base.context import SHARE, Share
from cwdpo.base.errors import ConfigError
from cwdpo.base.made import Made
from cwdpo.base.runtime import Execution
from cwdpo.data.demo_benchmarks import format_of
from cwdpo.data.demo_benchmarks.format import Format
from cwdpo.data.demo_benchmarks.stage import DemoBenchmarkSpec
from cwdpo.data.demo_world import DemoWorld
from cwdpo.data.frequencies import FrequenciesSpec
from cwdpo.data.pairs import PairsSpec
from cwdpo.data.preferences import supplies_of
from cwdpo.data.sources import DataSource, Demo, Preferences, data_root
from cwdpo.dynamics.influence.losses import unsupported
from cwdpo.dynamics.influence.stage import InfluenceSpec
from cwdpo.dynamics.settings import BETA, Probe, ProbeSetSpec, ProbeSpec, StageName
from cwdpo.evaluate.benchmarks import AnyBenchmark
from cwdpo.evaluate.benchmarks.benchmark import Questions
from cwdpo.evaluate.benchmarks.captions import KarpathyCaptions, PreparedCaptions
from cwdpo.evaluate.generate import GenerateSpec
from cwdpo.evaluate.judging.judged import Judged
from cwdpo.evaluate.judging.stage import JudgeSpec
from cwdpo.evaluate.questions import QuestionsSpec
from cwdpo.evaluate.score import ScoreSpec
from cwdpo.experiment import Experiment, described, probed_in_run
from cwdpo.graph import Node, Outside, Probed, Stage, Wired
from cwdpo.model.config import Checkpoint, Lora, ModelSource, policy_of
from cwdpo.negatives.answers import AnswersSpec
from cwdpo.negatives.critique import CritiqueSpec
from cwdpo.negatives.llm.stage import LlmSpec
from cwdpo.negatives.source import Part
from cwdpo.negatives.stage import NegativesSpec
from cwdpo.objectives.preference import Preference
from cwdpo.supplies import Absent, Supplies
from cwdpo.train.config import Round, Stage1Spec, Stage2Spec
from cwdpo.train.pretrain import PretrainSpec
from cwdpo.train.reference import ReferenceSpec
from cwdpo.train.settings import Refresh, SftPhase, Stage1, Stage2, lacking
from cwdpo.train.steering import Steering

STAGES = {
    stage.name: stage
    for stage in (
        Stage("world", 1, DemoWorld, "cwdpo.data.world", ranks=False),
        Stage("pairs", 1, PairsSpec, "cwdpo.data.pairs", ranks=False),
        Stage("pretrain", 1, PretrainSpec, "cwdpo.train.pretrain", ranks=True),
        Stage("answers", 1, AnswersSpec, "cwdpo.negatives.answers", ranks=True, splits=True),
        Stage("critique", 1, CritiqueSpec, "cwdpo.negatives.critique", ranks=True, splits=True),
        Stage("llm", 1, LlmSpec, "cwdpo.negatives.llm.stage", ranks=False, implied=frozenset({"images"})),
        Stage("negatives", 1, NegativesSpec, "cwdpo.negatives.stage", ranks=False, implied=frozenset({"images"})),
        Stage("stage1", 1, Stage1Spec, "cwdpo.train.stage1", ranks=True, implied=frozenset({"watched"})),
        Stage("sft_phase", 1, Stage1Spec, "cwdpo.train.stage1", ranks=True),
        Stage("reference", 1, ReferenceSpec, "cwdpo.train.reference", ranks=True, splits=True),
        Stage("probe_set", 1, ProbeSetSpec, "cwdpo.dynamics.probe_set", ranks=True, splits=True),
        Stage("frequencies", 1, FrequenciesSpec, "cwdpo.data.frequencies", ranks=False),
        Stage("stage2", 1, Stage2Spec, "cwdpo.train.stage2", ranks=True, implied=frozenset({"watched"})),
        Stage("probe", 1, ProbeSpec, "cwdpo.dynamics.probe", ranks=True, splits=True),
        Stage("influence", 1, InfluenceSpec, "cwdpo.dynamics.influence.stage", ranks=True),
        Stage("demo_benchmark", 1, DemoBenchmarkSpec, "cwdpo.data.demo_benchmarks.stage", ranks=False),
        Stage("questions", 1, QuestionsSpec, "cwdpo.evaluate.questions", ranks=False),
        Stage("generate", 1, GenerateSpec, "cwdpo.evaluate.generate", ranks=True, splits=True, holds=True),
        Stage("judge", 1, JudgeSpec, "cwdpo.evaluate.judging.stage", ranks=False),
        Stage("score", 2, ScoreSpec, "cwdpo.evaluate.score", ranks=False),
    )
}


POLICY = ("model", "adapter", "pairs", "images")
"""Inputs of a stage that asks the policy."""


class Wiring:
    """Builds the nodes of experiments, each distinct one once; digests of outside folders are kept in `cache`.

    The cells of a grid differ in little: what equal settings made before is looked up, not made, read or hashed again.

    Args:
        is_done: whether a node has been computed: then it needs nobody to share its work.
        prepared: folder of the receipts of prepared benchmarks; None is the one beside `cache`.
        absent: told what of the data, models and benchmarks is not there, each once; None raises its error instead.
    """

    def __init__(
        self,
        cache: Path,
        is_done: Callable[[Node], bool] = lambda node: False,
        prepared: Path | None = None,
        absent: Callable[[Absent], object] | None = None,
    ) -> None:
        self._supplies, self._is_done, self._made = Supplies(cache, prepared, absent), is_done, Made()

    def _node(self, stage: str, spec: Config, inputs: Mapping[str, Node | Outside], execution: Execution) -> Node:
        """The node of a slice and its inputs: one object wherever both are the same, with the first `execution`."""

        def make() -> Node:
            node = Node(STAGES[stage], spec, inputs, execution)
            return self._made.once(node.id, lambda: self._shared(node))

        return self._made.once((stage, spec, *inputs.items()), make)

    def _shared(self, node: Node) -> Node:
        """The node, with those that share its work before it where it is to be split."""
        count = node.execution.split
        if count == 1 or not node.stage.splits or self._is_done(node):
            return node
        shares = {f"{SHARE}{number}": replace(node, share=Share(number, count)) for number in range(count)}
        return replace(node, inputs={**node.inputs, **shares})

    def wire(self, experiment: Experiment) -> Wired:
        """The nodes of one experiment, in the order of the data path."""
        model, source, execution = experiment.model, experiment.data, experiment.execution
        inputs: dict[str, Any] = {"model": self._made.same("model", (model,), lambda: self._model(model, execution))}
        if source:
            found = self._made.same("pairs", (source,), lambda: self._pairs(source, "train", execution))
            inputs["images"], inputs["pairs"] = found
        trained: Node | None = None
        probed: list[Probed] = []
        if experiment.stage1:
            trained = self._stage1(experiment, inputs)
            probed += self._probed(experiment, "stage1", trained, inputs)
        if experiment.stage2:
            trained = self._stage2(experiment, inputs, trained)
            probed += self._probed(experiment, "stage2", trained, inputs)
        scores: dict[str, Node] = {
            benchmark.name: self._benchmark(experiment, benchmark, _with_policy(inputs, experiment, trained))
            for benchmark in experiment.benchmarks
        }
        roots = [*scores.values(), *([trained] if trained else []), *(node for one in probed for node in one.nodes)]
        return Wired(scores, trained, tuple(roots), tuple(probed))

    def _probe_set(self, experiment: Experiment, probe: Probe, inputs: Mapping[str, Any]) -> Node:
        """Samples of every probe of this data and base model."""
        base = {role: inputs[role] for role in ("pairs", "images")}
        base["model"] = self._model(experiment.model, experiment.execution)
        spec = ProbeSetSpec(policy=policy_of(experiment.model), set=probe.of_set)
        return self._node("probe_set", spec, base, experiment.execution)

    def _observed(
        self, experiment: Experiment, stage: Stage1 | Stage2, inputs: Mapping[str, Any]
    ) -> tuple[Steering | None, dict[str, Node], Execution]:
        """How a stage is probed while it runs: what it acts on, the input that takes, and how it is run."""
        probe, execution = experiment.probe, experiment.execution
        if probe is None or not probed_in_run(experiment, stage):
            return None, {}, execution
        own = self._probe_set(experiment, probe, inputs)
        told = execution.model_copy(update={"probe_every": probe.every, "alarms": probe.alarms})
        if not stage.steered:
            return None, {"watched": own}, told
        curriculum = stage.curriculum if isinstance(stage, Stage2) else None
        steering = Steering(every=probe.every, early_stop=stage.early_stop, curriculum=curriculum)
        return steering, {"probe_set": own}, told

    def _probed(
        self, experiment: Experiment, name: StageName, trained: Node, inputs: Mapping[str, Any]
    ) -> Iterator[Probed]:
        """The trainings of a stage with their probes: one, or one a round."""
        probe, stage = experiment.probe, getattr(experiment, name)
        if probe is None:
            return
        probe_set = self._probe_set(experiment, probe, inputs)
        for run in _rounds(trained):
            # What a training went on from is an input of its own.
            start = {role: run.inputs[role] for role in ("model", "adapter", "images") if role in run.inputs}
            own = {**start, "run": run, "probe_set": probe_set}
            rows = run if probed_in_run(experiment, stage) else self._rows(experiment, probe, name, own)
            yield Probed(name, run, rows, self._influence(experiment, probe, stage, own))

    def _rows(self, experiment: Experiment, probe: Probe, name: StageName, inputs: Mapping[str, Any]) -> Node:
        """A finished training, read at the adapters that it kept."""
        beta = getattr(getattr(experiment, name).objective, "beta", BETA)
        spec = ProbeSpec(policy=policy_of(experiment.model), stage=name, every=probe.every, beta=beta)
        return self._node("probe", spec, inputs, experiment.execution)

    def _influence(
        self, experiment: Experiment, probe: Probe, stage: Stage1 | Stage2, inputs: Mapping[str, Any]
    ) -> Node | None:
        """What steps do, where the objective has a loss of single samples."""
        if probe.influence is None or unsupported(stage.objective):
            return None
        spec = InfluenceSpec.model_validate(
            {
                "policy": policy_of(experiment.model), "tuning": experiment.tuning, "objective": stage.objective,
                "every": probe.every, "seed": experiment.seed, **probe.influence.model_dump(),
            }
        )  # fmt: skip
        return self._node("influence", spec, inputs, experiment.execution)

    def _pairs(self, data: DataSource, purpose: str, execution: Execution) -> tuple[Node | Outside, Node]:
        """The data folder, and the records read from it."""

        def make() -> tuple[Node | Outside, Node]:
            source = self._data(data, execution)
            spec = PairsSpec.model_validate({"data": data, "purpose": purpose})
            return source, self._node("pairs", spec, {"data": source}, execution)

        return self._made.once(("pairs", data, purpose), make)

    def _data(self, data: DataSource, execution: Execution) -> Node | Outside:
        if isinstance(data, Demo):
            return self._node("world", data.world, {}, execution)
        return self._supplies.data(data)

    def _model(self, model: ModelSource, execution: Execution) -> Node | Outside:
        """The base model's folder."""
        return self._made.once(("model", model), lambda: self._read_model(model, execution))

    def _read_model(self, model: ModelSource, execution: Execution) -> Node | Outside:
        if isinstance(model, Checkpoint):
            return self._supplies.model(model)
        source = Demo(source="demo_world", world=model.world)
        data, pairs = self._pairs(source, "train", execution)
        spec = PretrainSpec(architecture=model.architecture, pretraining=model.pretraining, policy=policy_of(model))
        return self._node("pretrain", spec, {"pairs": pairs, "images": data}, execution)

    def _negatives(
        self, experiment: Experiment, stage: Stage1 | Stage2, portion: str, inputs: Mapping[str, Any]
    ) -> dict[str, Node]:
        """The input that rejected responses are, for a stage that uses them.

        Args:
            inputs: with the policy that sources may ask: `model` and, if any, `adapter`.
        """
        if stage.negatives is None or not stage.uses_rejected:
            return {}
        if not inputs["pairs"].provisional:
            self._check_supplies(experiment.trained_on, stage)
        content = {"negatives": stage.negatives, "portion": portion, "requires": stage.requires}
        spec = self._made.slice(f"negatives {portion}", (stage,), lambda: NegativesSpec.model_validate(content))
        own = {role: inputs[role] for role in ("pairs", "images")}
        own |= self._parts(experiment, stage.negatives.parts(), portion, inputs)
        return {"negatives": self._node("negatives", spec, own, experiment.execution)}

    def _parts(
        self, experiment: Experiment, parts: Mapping[str, Part], portion: str, inputs: Mapping[str, Any]
    ) -> dict[str, Node]:
        """The nodes of what a source needs first, by role."""
        return {role: self._part(experiment, part, portion, inputs) for role, part in parts.items()}

    def _part(self, experiment: Experiment, part: Part, portion: str, inputs: Mapping[str, Any]) -> Node:
        roles = POLICY if part.asks_policy else ("pairs", *(["images"] if part.needs_images else []))
        own = {role: inputs[role] for role in roles if role in inputs}
        own |= self._parts(experiment, part.parts(), portion, inputs)
        asked = {"policy": policy_of(experiment.model)} if part.asks_policy else {}
        spec = STAGES[part.stage].spec.model_validate({**asked, "portion": portion, "part": part})
        return self._node(part.stage, spec, own, experiment.execution)

    def _check_supplies(self, data: DataSource, stage: Stage1 | Stage2) -> None:
        """Raise `ConfigError` where no rejected response of the data comes with what training needs."""
        if stage.requires and isinstance(data, Preferences):
            path = data_root(data) / data.annotations
            fault = lacking(stage, self._made.once(("supplies", path), lambda: supplies_of(path)))
            if fault:
                raise ConfigError(f"{path}: {fault}")

    def _stage1(self, experiment: Experiment, inputs: Mapping[str, Any]) -> Node:
        stage = experiment.stage1
        assert stage is not None, "only called with a Stage 1"
        steering, probe_set, execution = self._observed(experiment, stage, inputs)
        own = {**inputs, **self._negatives(experiment, stage, "stage1", inputs), **probe_set}
        spec = Stage1Spec(objective=stage.objective, steering=steering, **_training(experiment, stage.optimization))
        return self._node("stage1", spec, own, execution)

    def _stage2(self, experiment: Experiment, inputs: Mapping[str, Any], before: Node | None) -> Node:
        stage = experiment.stage2
        assert stage is not None, "only called with a Stage 2"
        own = _with_policy(inputs, experiment, before)
        own |= self._negatives(experiment, stage, "stage2", own)
        if stage.sft_phase:
            own = _with_policy(own, experiment, self._sft_phase(experiment, stage.sft_phase, own))
        for name in stage.sampling.reward.stages if stage.sampling else ():
            own[name] = self._node(name, STAGES[name].spec(), {"pairs": inputs["pairs"]}, experiment.execution)
        if stage.refresh:
            return self._rounds(experiment, stage, stage.refresh, own)
        return self._preference(experiment, stage, own)

    def _rounds(self, experiment: Experiment, stage: Stage2, refresh: Refresh, start: Mapping[str, Any]) -> Node:
        """The last round. Each starts from the trainer of the one before it and from negatives of its policy.

        Args:
            start: with the policy that Stage 2 starts from (the reference of every round) and the first negatives.
        """
        first, *others = refresh.parts
        trained = self._preference(experiment, stage, start, first)
        for part in others:
            asked = _with_policy(start, experiment, trained)
            own = {**start, **self._negatives(experiment, stage, "stage2", asked)}
            trained = self._preference(experiment, stage, own, part, previous=trained)
        return trained

    def _preference(
        self, experiment: Experiment, stage: Stage2, inputs: Mapping[str, Any], part: Round | None = None, **more: Node
    ) -> Node:
        """Training of Stage 2, or of a round of it, with the reference that its objective needs."""
        own = {**inputs, **more}
        if isinstance(stage.objective, Preference):
            own["reference"] = self._reference(experiment, stage.objective, inputs)
        steering, probe_set, execution = self._observed(experiment, stage, inputs)
        settings = {"steering": steering, **_training(experiment, stage.optimization)}
        spec = Stage2Spec(objective=stage.objective, rollouts=stage.sampling, round=part, **settings)
        return self._node("stage2", spec, {**own, **probe_set}, execution)

    def _sft_phase(self, experiment: Experiment, phase: SftPhase, inputs: Mapping[str, Any]) -> Node:
        """Supervised training on the pairs of Stage 2."""
        settings = _training(experiment, phase.optimization)
        spec = Stage1Spec(objective=phase.objective, portion="stage2", **settings)
        return self._node("sft_phase", spec, dict(inputs), experiment.execution)

    def _reference(self, experiment: Experiment, objective: Preference, inputs: Mapping[str, Any]) -> Node:
        """Log-probabilities under the policy that Stage 2 starts from."""

        def make() -> ReferenceSpec:
            policy = policy_of(experiment.model)
            return ReferenceSpec(policy=policy, terms=objective.terms, masked_share=objective.masked_share)

        spec = self._made.slice("reference", (experiment.model, objective), make)
        return self._node("reference", spec, dict(inputs), experiment.execution)

    def _benchmark(self, experiment: Experiment, benchmark: AnyBenchmark, inputs: Mapping[str, Any]) -> Node:
        """Generation, a judge where one is needed and there, then scoring."""
        execution = experiment.execution
        parts = (experiment.data, benchmark)
        asked: dict[str, Node | Outside] = self._made.same("asked", parts, lambda: self._asked(experiment, benchmark))
        own: dict[str, Node | Outside] = {"model": inputs["model"], **asked}
        own |= {"adapter": inputs["adapter"]} if "adapter" in inputs else {}
        generated = self._node("generate", self._asking(experiment, benchmark), own, execution)
        read: dict[str, Node | Outside] = {"generate": generated}
        read |= {role: asked[role] for role in ("pairs", "questions") if role in asked}
        if isinstance(benchmark, Judged) and experiment.judge:
            judging = JudgeSpec.model_validate({"benchmark": benchmark.for_judging(), "endpoint": experiment.judge})
            read["judge"] = self._node("judge", judging, dict(read), execution)
        spec = self._made.slice("score", (benchmark,), lambda: ScoreSpec(benchmark=benchmark.for_generating()))
        return self._node("score", spec, dict(read), execution)

    def _asking(self, experiment: Experiment, benchmark: AnyBenchmark) -> Any:
        """The slice that generation reads; only what samples has a seed."""
        seed = experiment.seed if benchmark.decoding.strategy == "sample" else 0

        def make() -> GenerateSpec:
            return GenerateSpec(policy=policy_of(experiment.model), benchmark=benchmark.for_generating(), seed=seed)

        return self._made.slice(f"generate {seed}", (experiment.model, benchmark), make)

    def _asked(self, experiment: Experiment, benchmark: AnyBenchmark) -> dict[str, Node | Outside]:
        """What a benchmark asks about: its images, and its questions or the records of captions."""
        if isinstance(benchmark, Questions):
            return self._questions(benchmark, experiment.execution)
        data = self._captioned(experiment, benchmark).for_evaluation()
        if isinstance(data, Demo) and (made := benchmark.as_made(data)):
            files = self._made_of(data.world, format_of(dict(benchmark)), experiment.execution)
            spec = PairsSpec.model_validate({"data": made, "purpose": "evaluate"})
            return {"pairs": self._node("pairs", spec, {"data": files}, experiment.execution), "images": files}
        images, pairs = self._pairs(data, "evaluate", experiment.execution)
        return {"pairs": pairs, "images": images}

    def _made_of(self, world: DemoWorld, kind: Format, execution: Execution) -> Node:
        """The files of a benchmark about the scenes of a generated world."""
        spec = DemoBenchmarkSpec.model_validate({"benchmark": kind})
        return self._node("demo_benchmark", spec, {"data": self._node("world", world, {}, execution)}, execution)

    def _files(self, benchmark: Questions, execution: Execution) -> Node | Outside:
        """The files that questions are read from: a stage's, or those that were prepared."""
        reading = benchmark.for_reading()
        if benchmark.data:
            return self._made_of(benchmark.data.world, format_of(dict(reading)), execution)
        found: Outside = self._made.once(("prepared", reading), lambda: self._supplies.questions(reading))
        return found

    def _questions(self, benchmark: Questions, execution: Execution) -> dict[str, Node | Outside]:
        files = self._files(benchmark, execution)
        known = files.digest if isinstance(files, Outside) else None
        spec = QuestionsSpec.model_validate({"benchmark": benchmark.for_reading(), "digest": known})
        questions = self._node("questions", spec, {"data": files}, execution)
        return {"questions": questions, "images": questions if benchmark.embedded else files}

    def _captioned(self, experiment: Experiment, benchmark: KarpathyCaptions) -> DataSource:
        """The data set of a captioning benchmark: its own, else the experiment's, else the one that was prepared."""
        if data := described(benchmark, experiment.data):
            return data
        assert isinstance(benchmark, PreparedCaptions), "others take any data of the experiment"
        key = ("prepared", benchmark.name, benchmark.split)
        prepared: DataSource = self._made.once(key, lambda: self._supplies.captions(benchmark))
        return prepared


def _with_policy(inputs: Mapping[str, Any], experiment: Experiment, trained: Node | None) -> dict[str, Any]:
    """Inputs for a stage that reads the policy: an adapter beside the base model, or a model in its place."""
    if trained is None:
        return dict(inputs)
    role = "adapter" if isinstance(experiment.tuning, Lora) else "model"
    return {**inputs, role: trained}


def _rounds(trained: Node) -> list[Node]:
    """All rounds of a training, the first one first; itself where it is trained in one go."""
    previous = trained.inputs.get("previous")
    return [*(_rounds(previous) if isinstance(previous, Node) else []), trained]


def _training(experiment: Experiment, optimization: Any) -> dict[str, Any]:
    """What both training stages take from the experiment."""
    return {
        "policy": policy_of(experiment.model),
        "tuning": experiment.tuning,
        "optimization": optimization,
        "one_per_image": experiment.trained_on.one_per_image,
        "seed": experiment.seed,
    }
