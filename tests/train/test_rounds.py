"""Stage 2 in rounds is one training: what goes on from round to round, and what may differ between them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import harness
import pytest
import torch
import unsteady_worker
from harness import Micro
from safetensors.torch import load_file

from cwdpo.base.errors import ConfigError, TrainingError
from cwdpo.base.files import read_json
from cwdpo.base.store import Artefact, Store
from cwdpo.data.samples import DataOrder, Sample
from cwdpo.jobs.events import curve, events, last_progress
from cwdpo.pipeline import Node
from cwdpo.train.config import Round, Stage2Spec
from cwdpo.train.rounds import Course, RoundOrder

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

STEPS = 6
OPTIMIZATION = {"batch_size": 8, "epochs": 20, "max_steps": STEPS, "learning_rate": 2e-3, "weight_decay": 0.01}
LORA = {"name": "lora", "rank": 4, "alpha": 8}
FULL = {"name": "full"}

KINDS: dict[str, dict[str, Any]] = {
    "dropout": {"tuning": {**LORA, "dropout": 0.2}},
    "bf16, ZeRO 1": {"dtype": "bfloat16", "zero_stage": 1},
    "bf16, ZeRO 2": {"dtype": "bfloat16", "zero_stage": 2},
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
        previous: Node | None = None, **execution: Any,
    ) -> Node:  # fmt: skip
        """A training, or a round of one."""
        content = {
            "policy": {"dtype": dtype}, "tuning": tuning or LORA, "objective": objective or {"name": "dpo"}, "seed": 3,
            "optimization": OPTIMIZATION, "round": part,
        }  # fmt: skip
        inputs = self.inputs if (tuning or LORA)["name"] == "lora" else self._without_adapter
        inputs = {**inputs, "previous": previous} if previous else inputs
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
    source = {"source": "corrective", "of": harness.PERTURB, "turns": 1}
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
    policy = ["adapter_config.json", "adapter_model.safetensors"]
    assert sorted(path.name for path in last.iterdir()) == policy
    assert sorted(path.name for path in first.iterdir()) == [*policy, "trainer"]
    state = read_json(first / "trainer" / "state.json")
    assert (state["step"], state["samples"], state["course"]["total"]) == (3, 24, STEPS)
    assert len(state["course"]["taken"]) == 24 == len(set(state["course"]["taken"]))
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


def test_fewer_steps_than_rounds_are_refused(begun: Trainings) -> None:
    nodes = begun.rounds("too many", of=STEPS + 1)[:1]
    assert harness.finish(harness.start(begun.home, nodes)) == ConfigError.exit_code
    result = begun.entry("too many 0").result(1)
    assert result is not None
    assert "stage2.refresh.rounds: 7 rounds need as many optimizer steps" in result["message"]
