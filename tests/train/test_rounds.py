"""Stage 2 in rounds is one training: what goes on from round to round, and what may differ between them."""

from __future__ import annotations

import json
import math
import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import commands
import harness
import pytest
import torch
import unsteady_worker
from harness import PERTURB, Micro
from safetensors.torch import load_file

from cwdpo.base import files
from cwdpo.base.config import validate
from cwdpo.base.errors import ConfigError, TrainingError
from cwdpo.base.store import Artefact, Store
from cwdpo.data.samples import DataOrder, Sample
from cwdpo.experiment import load_grid
from cwdpo.graph import Node
from cwdpo.jobs.events import curve, events, last_progress
from cwdpo.jobs.plan import Plan
from cwdpo.jobs.rehearsal import rehearsal
from cwdpo.pipeline import STAGES
from cwdpo.train.config import Optimization, Round, Stage2Spec
from cwdpo.train.rounds import Course, RoundOrder
from cwdpo.train.settings import Refresh, Stage2

ROUNDS = commands.GRIDS / "rounds.yaml"

# ---------------------------------------------------------------------------------------------------------------------
# Order of the samples


def samples(*numbers: int) -> list[Sample]:
    """Two captions to an image."""
    return [Sample(f"{n}", f"image {n // 2}", "", "", "") for n in numbers]


def spec(one_per_image: bool = False, batch_size: int = 4, **more: Any) -> Stage2Spec:
    content = {
        "policy": harness.POLICY,
        "objective": {"name": "dpo"},
        "seed": 1,
        "one_per_image": one_per_image,
        **more,
    }
    return Stage2Spec.model_validate({**content, "optimization": {"batch_size": batch_size}})


def names(batches: Sequence[Sequence[Sample]]) -> list[list[str]]:
    return [[sample.id for sample in batch] for batch in batches]


def test_rounds_share_the_steps_out() -> None:
    assert [Round(number=number, of=3).end(8) for number in range(3)] == [2, 5, 8]
    assert [Round(number=number, of=3).is_last for number in range(3)] == [False, False, True]


@pytest.mark.parametrize("one_per_image", [False, True])
@pytest.mark.parametrize("end", [1, 2, 3, 4, 7])
def test_with_the_same_samples_the_order_is_that_of_one_training(end: int, one_per_image: bool) -> None:
    """10 samples in batches of 4 are 3 steps a pass; rounds that end within a pass, with it, and beyond it."""
    mine, made = samples(*range(10)), spec(one_per_image)
    whole = DataOrder(mine, 4, 1, one_per_image)
    first = RoundOrder(mine, made, Course())
    second = RoundOrder(mine, made, first.course(end, 12))
    third = RoundOrder(mine, made, second.course(8, 12))
    steps = [first.batch(step) for step in range(end)]
    steps += [second.batch(step) for step in range(end, 8)] + [third.batch(step) for step in range(8, 12)]
    assert names(steps) == names([whole.batch(step) for step in range(12)])


def test_other_samples_come_once_in_the_pass_that_was_begun() -> None:
    """Round 0 knows 0 to 9 and takes four of them; round 1 knows the even ones, and two that round 0 had not."""
    first = RoundOrder(samples(*range(10)), spec(), Course())
    taken = {sample.id for sample in first.batch(0)}
    course = first.course(1, 6)
    assert (course.total, course.step, course.epoch, set(course.taken)) == (6, 1, 0, taken)
    known = samples(0, 2, 4, 6, 8, 10, 11)
    second = RoundOrder(known, spec(), course)
    rest = {sample.id for sample in known} - taken
    steps = -(-len(rest) // 4)
    assert sorted(sample.id for step in range(1, 1 + steps) for sample in second.batch(step)) == sorted(rest)
    whole = [sample.id for step in range(1 + steps, 3 + steps) for sample in second.batch(step)]
    assert sorted(whole) == sorted(sample.id for sample in known)
    assert second.course(1 + steps, 6) == Course(6, 1 + steps, 1, [])


def test_what_all_rounds_of_a_pass_took_is_remembered() -> None:
    known = samples(*range(12))
    first = RoundOrder(known, spec(), Course())
    second = RoundOrder(known[:-1], spec(), first.course(1, 9))
    third = RoundOrder(known, spec(), second.course(2, 9))
    taken = [sample.id for step, order in enumerate((first, second)) for sample in order.batch(step)]
    assert sorted(second.course(2, 9).taken) == sorted(taken)
    assert sorted([*taken, *(sample.id for sample in third.batch(2))]) == sorted(sample.id for sample in known)


def test_a_round_that_knows_nothing_new_begins_the_next_pass() -> None:
    first = RoundOrder(samples(*range(8)), spec(), Course())
    known = first.batch(0)
    second = RoundOrder(known, spec(), first.course(1, 6))
    assert sorted(sample.id for sample in second.batch(1)) == sorted(sample.id for sample in known)
    assert second.course(2, 6).epoch == 2


def test_an_image_comes_once_in_the_pass_that_was_begun() -> None:
    first = RoundOrder(samples(*range(10)), spec(one_per_image=True, batch_size=2), Course())
    second = RoundOrder(samples(*range(9)), spec(one_per_image=True, batch_size=2), first.course(1, 6))
    images = [sample.image_id for order, steps in ((first, [0]), (second, [1, 2])) for s in steps
              for sample in order.batch(s)]  # fmt: skip
    assert sorted(images) == [f"image {number}" for number in range(5)]


# ---------------------------------------------------------------------------------------------------------------------
# Trainings

STEPS = 6  # 11 samples are 4 a pass
OPTIMIZATION = {"batch_size": 3, "epochs": 20, "max_steps": STEPS, "learning_rate": 2e-3, "weight_decay": 0.01}
LORA = {"name": "lora", "rank": 4, "alpha": 8}
FULL = {"name": "full"}

KINDS: dict[str, dict[str, Any]] = {
    "dropout": {"tuning": {**LORA, "dropout": 0.2}},
    "bf16, ZeRO 1": {"dtype": "bfloat16", "zero_stage": 1},
    "beside the start": {"objective": {"name": "nsft", "kl": 0.5}},
    "full": {"tuning": FULL},
}


@dataclass
class Trainings:
    """Trainings in one go and in rounds over the very same negatives, in one home."""

    home: Path
    micro: Micro
    inputs: dict[str, Any]
    nodes: dict[str, Node] = field(default_factory=dict)

    def node(
        self, label: str, tuning: Any = None, dtype: str = "float32", objective: Any = None, part: Round | None = None,
        previous: Node | None = None, optimization: Any = None, negatives: Path | None = None, **execution: Any,
    ) -> Node:  # fmt: skip
        """A training, or a round of one."""
        content = {
            "policy": {"dtype": dtype}, "tuning": tuning or LORA, "objective": objective or {"name": "dpo"}, "seed": 3,
            "optimization": optimization or OPTIMIZATION, "round": part,
        }  # fmt: skip
        inputs = self.inputs if (tuning or LORA)["name"] == "lora" else self._without_adapter
        inputs = {**inputs, "previous": previous} if previous else inputs
        inputs = {**inputs, "negatives": negatives} if negatives else inputs
        settings = {"micro_batch": 4, "zero_stage": 2, "checkpoint_every": 10, **execution}
        self.nodes[label] = harness.node("stage2", content, inputs, label, **settings)
        return self.nodes[label]

    @property
    def _without_adapter(self) -> dict[str, Any]:
        return {role: entry for role, entry in self.inputs.items() if role != "adapter"}

    def rounds(self, label: str, of: int = 2, **kind: Any) -> list[Node]:
        """All rounds of a training, called `label 0`, ..."""
        found: list[Node] = []
        for number in range(of):
            part = Round(number=number, of=of)
            found.append(self.node(f"{label} {number}", part=part, previous=found[-1] if found else None, **kind))
        return found

    def entry(self, label: str) -> Artefact:
        return self.nodes[label].artefact(Store(self.home))

    def weights(self, label: str) -> Path:
        found = self.entry(label).files
        return next(
            found / name for name in ("adapter_model.safetensors", "model.safetensors") if (found / name).exists()
        )

    def losses(self, *labels: str) -> list[tuple[int, float, float]]:
        points = [point for label in labels for point in curve(self.entry(label))]
        return [(point["step"], point["loss"], point["learning_rate"]) for point in points]

    def events(self, label: str, attempt: int, kind: str) -> list[dict[str, Any]]:
        path = self.entry(label).attempts / str(attempt) / "events.jsonl"
        return [row for row in events(path) if row["event"] == kind]


@pytest.fixture(scope="module")
def begun(micro: Micro, tmp_path_factory: pytest.TempPathFactory) -> Trainings:
    """What all trainings read: a first adapter, negatives with dialogues, and the reference under that adapter."""
    home = tmp_path_factory.mktemp("rounds")
    adapter = harness.node(
        "stage1",
        {"policy": harness.POLICY, "tuning": LORA, "objective": {"name": "sft"}, "optimization": OPTIMIZATION},
        micro.inputs(),
        micro_batch=8,
    )
    source = {"source": "corrective", "of": PERTURB, "turns": 1}
    negatives = harness.node("negatives", {"negatives": source, "portion": "stage2"}, {"pairs": micro.pairs})
    inputs = {**micro.inputs(), "adapter": adapter, "negatives": negatives}
    reference = harness.node("reference", {"policy": harness.POLICY}, inputs)
    harness.compute(home, [adapter, negatives, reference])
    return Trainings(home, micro, {**inputs, "reference": reference})


@pytest.fixture(scope="module")
def trained(begun: Trainings) -> Trainings:
    """Every kind in one go and in two rounds; one in three."""
    nodes = [begun.node(label, **kind) for label, kind in KINDS.items()]
    nodes += [node for label, kind in KINDS.items() for node in begun.rounds(label, **kind)]
    nodes += begun.rounds("dropout, three", of=3, **KINDS["dropout"])
    harness.compute(begun.home, nodes)
    return begun


@pytest.fixture(scope="module")
def stopped(trained: Trainings) -> Trainings:
    """Second rounds stopped after two of their three steps, and run again; one has lost its only checkpoint."""
    labels = ("stopped", "damaged", "full, stopped")
    for label in labels:
        kind = KINDS["full" if "full" in label else "dropout"]
        part, before = Round(number=1, of=2), trained.nodes["full 0" if "full" in label else "dropout 0"]
        trained.node(label, part=part, previous=before, **kind)
    nodes = [trained.nodes[label] for label in labels]
    assert harness.finish(unsteady_worker.start(trained.home, nodes, 2)) == 0, harness.output(trained.home, nodes)
    (trained.entry("damaged").partial / "checkpoints" / "step-000005" / "weights.safetensors").unlink()
    harness.compute(trained.home, nodes)
    return trained


@pytest.fixture(scope="module")
def moved(trained: Trainings) -> Trainings:
    """Both rounds on two ranks, a second round on one after a first on two; full training the other way round."""
    first, second = trained.rounds("two ranks", zero_stage=1)
    last = Round(number=1, of=2)
    alone = trained.node("two to one", part=last, previous=first, micro_batch=8)
    refused = trained.node("full, one to two", tuning=FULL, part=last, previous=trained.nodes["full 0"])
    assert harness.finish(harness.start(trained.home, [first, second, refused], ranks=2)) == TrainingError.exit_code
    harness.compute(trained.home, [alone, trained.node("plain")])
    return trained


@pytest.mark.parametrize("label", sorted(KINDS))
def test_two_rounds_over_the_same_negatives_are_one_training_byte_by_byte(trained: Trainings, label: str) -> None:
    assert trained.losses(f"{label} 0", f"{label} 1") == trained.losses(label)
    assert trained.weights(f"{label} 1").read_bytes() == trained.weights(label).read_bytes()


def test_three_rounds_end_within_passes_over_the_data_and_are_one_training(trained: Trainings) -> None:
    labels = [f"dropout, three {number}" for number in range(3)]
    assert [len(curve(trained.entry(label))) for label in labels] == [2, 2, 2]
    assert trained.losses(*labels) == trained.losses("dropout")
    assert trained.weights(labels[-1]).read_bytes() == trained.weights("dropout").read_bytes()


def test_rounds_do_learn(trained: Trainings) -> None:
    contents = {trained.weights(label).read_bytes() for kind in KINDS for label in (f"{kind} 0", f"{kind} 1")}
    assert len(contents) == 2 * len(KINDS)


def test_a_round_hands_over_its_trainer_and_the_last_one_nothing(trained: Trainings) -> None:
    """12 bytes for each trained parameter: master weight and two moments in float32."""
    first, last = trained.entry("dropout 0").files, trained.entry("dropout 1").files
    policy = ["adapter_config.json", "adapter_model.safetensors", "snapshots"]
    assert sorted(path.name for path in last.iterdir()) == policy
    assert sorted(path.name for path in first.iterdir()) == [*policy, "trainer"]
    state = files.read_json(first / "trainer" / "state.json")
    assert (state["step"], state["samples"], state["course"]["total"]) == (3, 9, STEPS)
    assert len(state["course"]["taken"]) == 9 == len(set(state["course"]["taken"]))
    weights, moments = (load_file(first / "trainer" / f"{name}.safetensors") for name in ("weights", "moments"))
    trained_parameters = sum(value.numel() for value in load_file(first / policy[1]).values())
    assert sum(value.nbytes for found in (weights, moments) for value in found.values()) == 12 * trained_parameters + 4


def test_a_round_says_how_far_it_is_and_where_it_started(trained: Trainings) -> None:
    assert last_progress(trained.entry("dropout 0")) == (3, 3)
    assert last_progress(trained.entry("dropout 1")) == (6, 6)
    assert trained.events("dropout 0", 1, "resumed") == []
    (row,) = trained.events("dropout 1", 1, "resumed")
    assert (row["step"], row["checkpoint"]) == (3, "trainer")


@pytest.mark.parametrize(("label", "start"), [("stopped", 5), ("damaged", 3), ("full, stopped", 5)])
def test_a_second_round_stopped_goes_on_to_the_same_result(stopped: Trainings, label: str, start: int) -> None:
    """From its own checkpoint; from what the first round handed over where that is damaged."""
    kind = "full" if "full" in label else "dropout"
    assert [row["step"] for row in stopped.events(label, 1, "step")] == [4, 5]
    (row,) = stopped.events(label, 2, "resumed")
    assert (row["step"], row["checkpoint"]) == (start, "step-000005" if start == 5 else "trainer")
    assert stopped.weights(label).read_bytes() == stopped.weights(f"{kind} 1").read_bytes()


@pytest.mark.parametrize("label", ["two ranks 1", "two to one"])
def test_rounds_may_run_on_other_numbers_of_ranks(moved: Trainings, label: str) -> None:
    found, expected = load_file(moved.weights(label)), load_file(moved.weights("plain"))
    assert found.keys() == expected.keys()
    for name in expected:
        torch.testing.assert_close(found[name], expected[name], atol=2e-4, rtol=2e-4, msg=name)


def test_a_round_of_full_training_is_refused_on_another_number_of_ranks(moved: Trainings) -> None:
    result = moved.entry("full, one to two").result(1)
    assert result is not None
    assert result["message"].endswith("started with 1 ranks and cannot resume with 2; give the job 1 ranks")


def test_a_round_with_fewer_samples_has_its_share_of_the_same_steps(begun: Trainings) -> None:
    """The second round is left with every fourth sample, one batch: by itself it would be a training of one step."""
    made = begun.inputs["negatives"].artefact(Store(begun.home)).files / "negatives.jsonl"
    few = begun.home / "few"
    few.mkdir()
    files.write_jsonl(few / "negatives.jsonl", list(files.read_jsonl(made))[::4])
    optimization = {**OPTIMIZATION, "epochs": 1, "max_steps": None}
    first, _ = begun.rounds("fewer", optimization=optimization)
    second = begun.node(
        "fewer 1", optimization=optimization, part=Round(number=1, of=2), previous=first, negatives=few
    )  # fmt: skip
    harness.compute(begun.home, [first, second])
    total = math.ceil(len(list(files.read_jsonl(made))) / 3)
    points = [curve(begun.entry(f"fewer {number}")) for number in (0, 1)]
    assert [point["step"] for part in points for point in part] == list(range(1, total + 1))
    assert len(points[0]) == total // 2
    made_of = Optimization.model_validate(optimization)
    expected = [made_of.learning_rate_at(step, total) for step in range(total)]
    assert [point["learning_rate"] for part in points for point in part] == pytest.approx(expected)


def test_fewer_steps_than_rounds_are_refused(begun: Trainings) -> None:
    nodes = begun.rounds("too many", of=STEPS + 1)[:1]
    assert harness.finish(harness.start(begun.home, nodes)) == ConfigError.exit_code
    result = begun.entry("too many 0").result(1)
    assert result is not None
    assert "stage2.refresh.rounds: 7 rounds need as many optimizer steps" in result["message"]


# ---------------------------------------------------------------------------------------------------------------------
# What may be asked for, and what it is made of

SAMPLED = {"source": "sample"}
NO_SHARE = {"source": "mixed", "of": {"a": {"share": 0, "negatives": SAMPLED}, "b": {"negatives": PERTURB}}}
PAIRED = {"objective": {"name": "dpo"}, "negatives": SAMPLED, "refresh": {"rounds": 2}}


def stage2(**changes: Any) -> Stage2:
    return validate(Stage2, {**PAIRED, **changes}, "grid.yaml")


@pytest.mark.parametrize(
    "negatives",
    [
        SAMPLED,
        {"source": "own_answer"},
        {"source": "corrective", "of": SAMPLED},
        {"source": "mixed", "of": {"one": {"share": 0.1, "negatives": SAMPLED}, "other": {"negatives": PERTURB}}},
    ],
)
def test_rounds_need_negatives_that_the_policy_has_a_say_in(negatives: dict[str, Any]) -> None:
    assert [part.number for part in stage2(negatives=negatives).refresh.parts] == [0, 1]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"negatives": PERTURB}, "negatives 'perturb', as set here, are the same whatever the policy has learnt"),
        ({"negatives": {"source": "corrective", "of": PERTURB}}, "negatives 'corrective', as set here, are the same"),
        ({"negatives": NO_SHARE}, "negatives 'mixed', as set here, are the same whatever the policy has learnt"),
        ({"objective": {"name": "continual_sft"}, "negatives": None}, "'continual_sft' uses no negatives"),
        ({"objective": {"name": "continual_sft"}}, "objective 'continual_sft' uses no negatives: leave out refresh"),
        ({"objective": {"name": "grpo"}, "negatives": None}, "would not use refresh: leave it out"),
        ({"refresh": {"rounds": 1}}, "refresh.rounds: Input should be greater than or equal to 2; found 1"),
        ({"optimization": {"max_steps": 1}}, "2 rounds need as many steps; optimization.max_steps is 1"),
    ],
)
def test_what_rounds_cannot_be_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)):
        stage2(**changes)


def chain(cell: str, *overrides: str) -> list[Node]:
    """The trainings of Stage 2 of a cell, first round first."""
    plan = commands.plan_of(Path("nowhere"), *overrides, grid=ROUNDS)
    policy = plan.wired[cell].policy
    found = []
    while isinstance(policy, Node) and policy.stage.name == "stage2":
        found.append(policy)
        policy = policy.inputs.get("previous")
    return found[::-1]


def asked(training: Node) -> Node:
    """What a source in a training's negatives asks."""
    negatives = training.inputs["negatives"]
    (answers,) = (entry for entry in negatives.inputs.values() if getattr(entry, "stage", None) == STAGES["answers"])
    return answers


@pytest.mark.parametrize("cell", ["sampled/0", "mixed/0"])
def test_a_round_asks_the_policy_of_the_one_before_and_keeps_the_reference_weights(cell: str) -> None:
    first, second, third = chain(cell, "stage2.refresh.rounds=3")
    start = first.inputs.get("adapter")
    assert (start is None) == (cell == "mixed/0")
    assert [asked(one).inputs.get("adapter") for one in (first, second, third)] == [start, first, second]
    for one in (first, second, third):
        reference = one.inputs["reference"]
        assert (reference.inputs.get("adapter"), reference.inputs["model"]) == (start, first.inputs["model"])
        assert one.inputs.get("adapter") is start
        assert reference.inputs["negatives"] is one.inputs["negatives"]
    assert len({one.inputs["reference"].id for one in (first, second, third)}) == 3
    assert [one.title for one in (first, second, third)] == [f"stage2 round {number}/3" for number in (1, 2, 3)]


def test_full_training_asks_the_model_and_starts_from_the_same_one() -> None:
    first, second = chain("sampled/0", "tuning={name: full}")
    assert (asked(second).inputs["model"], second.inputs["model"]) == (first, first.inputs["model"])


def test_rounds_are_another_training_than_one() -> None:
    (whole,) = chain("mixed/0", "stage2.refresh=null")
    first, _ = chain("mixed/0")
    assert first.inputs["negatives"].id == whole.inputs["negatives"].id
    assert first.inputs["reference"].id == whole.inputs["reference"].id
    assert first.id != whole.id


def test_an_override_gives_rounds_to_no_case_without() -> None:
    with pytest.raises(ConfigError, match=r"--set stage2.refresh.rounds: no case of .* has a section stage2.refresh"):
        load_grid(str(commands.MICRO), {"stage2.refresh.rounds": 2})


def test_a_rehearsal_has_two_rounds_of_a_step_each() -> None:
    grid = rehearsal(load_grid(str(ROUNDS), {"stage2.refresh.rounds": 4}))
    for cell in grid.cells:
        assert cell.experiment.stage2 is not None
        assert cell.experiment.stage2.refresh == Refresh(rounds=2)
        assert cell.experiment.stage2.optimization.max_steps == 2


# ---------------------------------------------------------------------------------------------------------------------
# A grid


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("grid") / "home"
    printed = commands.succeed(commands.submit(folder, grid=ROUNDS))
    assert "start  stage2 round 2/2 dpo seed 0" in printed
    return folder


def rows(plan: Plan, entry: Node, name: str) -> dict[str, dict[str, Any]]:
    return {row["id"]: row for row in files.read_jsonl(entry.artefact(plan.store).files / name)}


@pytest.mark.parametrize("cell", ["sampled/0", "mixed/0"])
def test_a_later_round_learns_from_new_answers_against_the_old_reference(home: Path, cell: str) -> None:
    plan = commands.plan_of(home, grid=ROUNDS)
    first, second = chain(cell)
    answers = [rows(plan, asked(one), "answers.jsonl") for one in (first, second)]
    assert answers[0].keys() == answers[1].keys()
    assert answers[0] != answers[1]
    references = [rows(plan, one.inputs["reference"], "reference.jsonl") for one in (first, second)]
    texts = [rows(plan, one.inputs["negatives"], "negatives.jsonl") for one in (first, second)]
    both = references[0].keys() & references[1].keys()
    assert both
    for name in both:
        assert references[1][name]["chosen"] == pytest.approx(references[0][name]["chosen"], abs=1e-4)
        if texts[0][name]["rejected"] == texts[1][name]["rejected"]:
            assert references[1][name] == references[0][name]
    points = [curve(one.artefact(plan.store)) for one in (first, second)]
    assert [[point["step"] for point in part] for part in points] == [[1, 2], [3, 4]]
    # the first step of a training finds the policy at its reference; that of a later round does not
    assert points[0][0]["delta_chosen"] == pytest.approx(0, abs=1e-4)
    assert abs(points[1][0]["delta_chosen"]) > 1e-3


def test_what_looks_at_a_grid_copes_with_rounds(home: Path, tmp_path: Path) -> None:
    status = json.loads(commands.succeed(commands.cwdpo("status", "-g", ROUNDS, "--home", home, "--json")))
    assert {stage: text for cell in status["cells"] for stage, text in cell["stages"].items()}["stage2"] == "done"
    logs = commands.cwdpo("logs", "sampled/0", "-g", ROUNDS, "--home", home, "--stage", "stage2")
    last = chain("sampled/0")[-1].artefact(Store(home))
    assert last.folder.name in commands.succeed(logs)
    (table,) = commands.report(home, grid=ROUNDS)
    assert len(table["rows"]) == 2
    to = tmp_path / "exported"
    commands.succeed(commands.cwdpo("export", "mixed/0", "-g", ROUNDS, "--home", home, "--to", to))
    weights = chain("mixed/0")[-1].artefact(Store(home)).files / "adapter_model.safetensors"
    assert (to / "adapter_model.safetensors").read_bytes() == weights.read_bytes()
    assert not (to / "trainer").exists()


def test_a_second_round_that_lacks_its_negatives_says_so(home: Path, tmp_path: Path) -> None:
    copy = commands.copy_home(home, tmp_path / "home")
    first, second = chain("sampled/0")
    for entry in (second.inputs["negatives"], second, second.inputs["reference"]):
        shutil.rmtree(entry.artefact(Store(copy)).folder)
    why = commands.cwdpo("why", "sampled/0", "-g", ROUNDS, "--home", copy)
    assert f"stage2 round 2/2 {second.id[:16]}: waits for negatives {second.inputs['negatives'].id[:8]}" in why.stdout
    status = json.loads(commands.succeed(commands.cwdpo("status", "-g", ROUNDS, "--home", copy, "--json")))
    shown = {cell["case"]: cell["stages"]["stage2"] for cell in status["cells"]}
    assert shown == {"sampled": "missing", "mixed": "done"}
    logs = commands.succeed(commands.cwdpo("logs", "sampled/0", "-g", ROUNDS, "--home", copy, "--stage", "stage2"))
    assert first.artefact(Store(copy)).folder.name in logs
    commands.succeed(commands.submit(copy, grid=ROUNDS))
    found, expected = (second.artefact(Store(place)).files / "adapter_model.safetensors" for place in (copy, home))
    assert found.read_bytes() == expected.read_bytes()
