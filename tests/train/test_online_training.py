"""On-policy training in real processes: both methods in every engine, one rank and two; stopped, killed, gone on.

The generator of the micro world is pretrained with a feed-forward layer of more than 100,000 numbers; smaller ones
ZeRO-3 does not partition at all. A training is an epoch of 11 prompts in two phases, of 8 and of 3: four steps and two,
with two inner epochs.
"""

from __future__ import annotations

import signal
from dataclasses import dataclass, field
from itertools import combinations, product
from pathlib import Path
from typing import Any

import harness
import pytest
import torch
import unsteady_worker
from harness import Micro
from safetensors import safe_open
from safetensors.torch import load_file

from cwdpo.base.files import read_jsonl
from cwdpo.base.store import Artefact, Store
from cwdpo.data.records import read_records
from cwdpo.graph import Node
from cwdpo.jobs.events import curve, events

pytestmark = pytest.mark.campaign  # dozens of trainings

LORA, FULL = {"name": "lora", "rank": 4, "alpha": 8}, {"name": "full"}
GRPO = {"name": "grpo", "samples": 3, "inner_epochs": 2}
PPO = {"name": "ppo", "samples": 2, "inner_epochs": 2}
STEPS = 6

KINDS: dict[str, dict[str, Any]] = {
    "grpo": {"objective": GRPO},
    "grpo, recomputed": {"objective": GRPO, "gradient_checkpointing": True},
    "grpo, full": {"objective": GRPO, "tuning": FULL, "rate": 2e-4},
    "ppo": {"objective": PPO},
    "ppo, one sample": {"objective": {**PPO, "samples": 1}},
    "ppo, full": {"objective": PPO, "tuning": FULL, "rate": 2e-4},
}
"""What is computed, each with one rank and with two."""

ENGINE = ("zero_stage", "shared_prefix", "micro_batch")
ENGINES: dict[str, tuple[tuple[int, bool, int], tuple[int, bool, int]]] = {
    "grpo": ((2, True, 2), (0, False, 1)),
    "grpo, recomputed": ((3, False, 1), (1, True, 2)),
    "grpo, full": ((1, False, 1), (2, False, 1)),
    "ppo": ((2, False, 2), (1, True, 1)),
    "ppo, one sample": ((3, True, 2), (3, True, 1)),
    "ppo, full": ((0, True, 2), (3, True, 1)),
}
"""How, with one rank and with two: every two settings are in some run."""


def kind(label: str, ranks: int) -> dict[str, Any]:
    """A kind as it is run with so many ranks."""
    return {**KINDS[label], **dict(zip(ENGINE, ENGINES[label][ranks - 1], strict=True))}


ONCE: dict[str, dict[str, Any]] = {
    "one inner epoch": {"objective": {**GRPO, "inner_epochs": 1}, "prompts": None},
    "no kl, exact": {"objective": {**GRPO, "kl": 0.0}, "reward": "exact_answer"},
}

STOPS: dict[str, dict[str, Any]] = {
    "sampling at first": {"objective": GRPO, "prompts": 11, "block": 1},
    "between inner steps": {"objective": GRPO},
    "sampling again": {"objective": GRPO, "prompts": 4, "block": 1},
}
"""Where they are when `Stop.requested` says yes, the 8th time: it is asked after each block, when all of a phase are
done, and after each step."""
STOP = 8

TWICE = "stopped, two ranks, ZeRO 3"
SAME = {"between inner steps": "grpo", "killed": "grpo", TWICE: "ppo, one sample, two ranks"}
"""Disturbed runs that compute what an undisturbed one of another name does."""


@dataclass
class Runs:
    """Homes of undisturbed and of disturbed runs, and nodes by name."""

    micro: Micro
    frequencies: Path
    calm: Path
    hit: Path
    nodes: dict[str, Node] = field(default_factory=dict)

    def node(
        self, label: str, objective: Any, tuning: Any = LORA, prompts: int | None = 8, reward: str = "cider_d",
        rate: float = 2e-3, block: int = 2, **execution: Any,
    ) -> Node:  # fmt: skip
        spec = {
            "policy": {"dtype": "float32"}, "tuning": tuning, "seed": 3, "objective": objective,
            "optimization": {"batch_size": 4, "epochs": 9, "max_steps": STEPS, "learning_rate": rate},
            "rollouts": {
                "prompts": prompts, "reward": {"name": reward},
                "decoding": {"strategy": "sample", "max_new_tokens": 10, "block": block},
            },
        }  # fmt: skip
        inputs = self.micro.inputs(frequencies=self.frequencies)
        settings = {"micro_batch": 2, "zero_stage": 2, "checkpoint_every": 100, "snapshot_every": 4, **execution}
        self.nodes[label] = harness.node("stage2", spec, inputs, label, **settings)
        return self.nodes[label]

    def entry(self, label: str, hit: bool = False) -> Artefact:
        return self.nodes[label].artefact(Store(self.hit if hit else self.calm))

    def weights(self, label: str, hit: bool = False) -> Path:
        folder = self.entry(label, hit).files
        return folder / ("model.safetensors" if "full" in label else "adapter_model.safetensors")

    def curve(self, label: str, hit: bool = False) -> list[dict[str, Any]]:
        return curve(self.entry(label, hit))

    def events(self, label: str, attempt: int, kind: str, hit: bool = True) -> list[dict[str, Any]]:
        path = self.entry(label, hit).attempts / str(attempt) / "events.jsonl"
        return [row for row in events(path) if row["event"] == kind]

    def blocks(self, label: str, phase: int, hit: bool = True) -> list[Path]:
        return sorted((self.entry(label, hit).partial / "rollouts" / f"phase-{phase:06d}" / "blocks").glob("[0-9]*"))


@pytest.fixture(scope="module")
def base(micro: Micro, tmp_path_factory: pytest.TempPathFactory) -> Runs:
    folder = tmp_path_factory.mktemp("online")
    pretrain = {
        "architecture": {"intermediate_size": 1024}, "pretraining": {"steps": 12, "batch_size": 16},
        "policy": {"dtype": "float32"},
    }  # fmt: skip
    nodes = [
        harness.node("pretrain", pretrain, {"pairs": micro.pairs, "images": micro.images}),
        harness.node("frequencies", {}, {"pairs": micro.pairs}),
    ]
    model, frequencies = harness.compute(folder / "calm", nodes)
    return Runs(Micro(**{**vars(micro), "model": model}), frequencies, folder / "calm", folder / "hit")


@pytest.fixture(scope="module")
def calm(base: Runs) -> Runs:
    """Undisturbed runs, of one rank and of two."""
    others = {label: settings for label, settings in {**ONCE, **STOPS}.items() if label not in SAME}
    one = [base.node(label, **kind(label, 1)) for label in KINDS]
    harness.compute(base.calm, [*one, *(base.node(label, **settings) for label, settings in others.items())])
    two = [base.node(f"{label}, two ranks", **kind(label, 2)) for label in KINDS]
    harness.compute(base.calm, two, ranks=2)
    return base


@pytest.fixture(scope="module")
def stopped(calm: Runs) -> Runs:
    """Stopped: two ranks in lock-step after two rounds of blocks, four steps and one more round. One is killed."""
    nodes = [calm.node(label, **settings) for label, settings in STOPS.items()]
    assert harness.finish(unsteady_worker.start(calm.hit, nodes, STOP)) == 0
    two = calm.node(TWICE, **kind("ppo, one sample", 2))
    assert harness.finish(unsteady_worker.start(calm.hit, [two], STOP, ranks=2)) == 0
    node = calm.node("killed", **kind("grpo", 1))
    job = harness.start(calm.hit, [node])
    assert harness.finish(job, until=lambda: bool(calm.blocks("killed", 1))) is None, harness.output(calm.hit, [node])
    job.end(grace=0)
    assert job.processes[0].returncode == -signal.SIGKILL
    return calm


@pytest.fixture(scope="module")
def kept(stopped: Runs) -> dict[str, list[list[bytes]]]:
    """Blocks that lie on disk after the stop: phase by phase, their bytes."""
    labels = (*STOPS, "killed", TWICE)
    return {
        label: [[path.read_bytes() for path in stopped.blocks(label, phase)] for phase in range(2)] for label in labels
    }


@pytest.fixture(scope="module")
def resumed(stopped: Runs, kept: dict[str, list[list[bytes]]]) -> Runs:
    harness.compute(stopped.hit, [stopped.nodes[label] for label in (*STOPS, "killed")])
    harness.compute(stopped.hit, [stopped.nodes[TWICE]], ranks=2)
    return stopped


def assert_close(found: Path, expected: Path, tolerance: float) -> None:
    mine, theirs = load_file(found), load_file(expected)
    assert mine.keys() == theirs.keys()
    for name in theirs:
        torch.testing.assert_close(mine[name], theirs[name], atol=tolerance, rtol=tolerance, msg=name)


def names(path: Path) -> set[str]:
    """Of the tensors of a file."""
    with safe_open(path, "pt") as weights:
        return set(weights.keys())


def column(points: list[dict[str, Any]], name: str) -> list[float]:
    return [point[name] for point in points]


# ---------------------------------------------------------------------------------------------------------------------
# Undisturbed


def test_every_two_settings_are_in_some_run() -> None:
    factors = {
        "objective": ("grpo", "ppo"), "tuning": ("lora", "full"), "zero_stage": (0, 1, 2, 3),
        "shared_prefix": (True, False), "micro_batch": (1, 2), "ranks": (1, 2),
    }  # fmt: skip
    rows = [{"tuning": LORA, **kind(label, ranks), "ranks": ranks} for label in KINDS for ranks in (1, 2)]
    named = [{key: row[key]["name"] if key in ("objective", "tuning") else row[key] for key in factors} for row in rows]
    for one, other in combinations(factors, 2):
        assert {(row[one], row[other]) for row in named} == set(product(factors[one], factors[other])), (one, other)


@pytest.mark.parametrize("label", sorted(KINDS))
def test_it_trains_over_two_phases(calm: Runs, label: str) -> None:
    points = calm.curve(label)
    assert column(points, "step") == list(range(1, STEPS + 1))
    rewards = column(points, "reward")
    assert rewards[0] == rewards[3]
    assert rewards[4] == rewards[5]
    assert rewards[0] != rewards[4], "each phase has responses of its own"
    assert [row["phase"] for row in calm.events(label, 1, "rollouts", hit=False)] == [0, 1]
    ratios = column(points, "ratio")
    assert ratios[0] == pytest.approx(1.0, abs=1e-5)
    assert max(abs(ratio - 1) for ratio in ratios) > 1e-4, "inner steps leave the policy that sampled"
    assert column(points, "kl")[0] == pytest.approx(0.0, abs=1e-6)
    assert max(column(points, "kl")) > 1e-5
    assert all(0.0 <= value <= 1.0 for name in ("clip_fraction", "truncated") for value in column(points, name))
    assert all(1 <= value <= 10 for value in column(points, "length"))
    assert all(value > 0 for value in [*column(points, "grad_norm"), *column(points, "entropy")])
    assert ("value_loss" in points[0]) is ("explained_variance" in points[0]) is label.startswith("ppo")
    assert ("zero_std_groups" in points[0]) is label.startswith("grpo")


@pytest.mark.parametrize("label", sorted(KINDS))
def test_two_ranks_in_another_engine_sample_and_learn_what_one_does(calm: Runs, label: str) -> None:
    one, two = calm.curve(label), calm.curve(f"{label}, two ranks")
    for name in ("reward", "length", "truncated"):
        assert column(two, name) == pytest.approx(column(one, name), abs=1e-9), name
    assert column(two, "loss") == pytest.approx(column(one, "loss"), abs=2e-3)
    assert_close(calm.weights(f"{label}, two ranks"), calm.weights(label), 2e-3)


def test_what_is_written_is_the_policy_and_nothing_else(calm: Runs) -> None:
    """No value head, and no second adapter, neither in the result nor in what is kept for probes."""
    for label in KINDS:
        written = {path.relative_to(calm.entry(label).files) for path in calm.entry(label).files.rglob("*.safetensors")}
        found = {path: names(calm.entry(label).files / path) for path in written}
        assert not any("value_head" in name or ".start." in name for name in set().union(*found.values())), label
        if "full" in label:
            assert found == {Path("model.safetensors"): names(calm.micro.model / "model.safetensors")}, label
        else:
            adapter = Path("adapter_model.safetensors")
            assert written == {adapter, "snapshots/step-000004" / adapter}, label
            assert len(set(map(frozenset, found.values()))) == 1, label


def test_how_it_is_run_does_not_matter(calm: Runs) -> None:
    assert_close(calm.weights("grpo, recomputed"), calm.weights("grpo"), 2e-3)


def test_settings_matter(calm: Runs) -> None:
    labels = [label for label in (*KINDS, *ONCE) if label != "grpo, recomputed"]
    assert len({calm.weights(label).read_bytes() for label in labels}) == len(labels)


def test_one_step_a_phase_has_ratios_of_1(calm: Runs) -> None:
    points = calm.curve("one inner epoch")  # a phase is one batch
    assert column(points, "ratio") == pytest.approx([1.0] * STEPS, abs=1e-6)
    assert column(points, "clip_fraction") == [0.0] * STEPS
    assert max(column(points, "kl")) > 1e-5
    assert [row["phase"] for row in calm.events("one inner epoch", 1, "rollouts", hit=False)] == list(range(STEPS))


def test_without_kl_the_start_is_not_asked(calm: Runs) -> None:
    assert "kl" not in calm.curve("no kl, exact")[0]


def test_the_reward_is_the_one_that_was_chosen(calm: Runs) -> None:
    rewards = column(calm.curve("no kl, exact"), "reward")
    assert all(24 * reward == pytest.approx(round(24 * reward)) for reward in rewards[:4]), "so many of 24 answers"
    assert max(column(calm.curve("grpo"), "reward")) > 0.01


# ---------------------------------------------------------------------------------------------------------------------
# Stopped, killed, gone on


def test_a_stop_keeps_finished_blocks_and_writes_a_checkpoint_unless_nothing_was_trained(
    stopped: Runs, kept: dict[str, list[list[bytes]]]
) -> None:
    written = {label: [row["step"] for row in stopped.events(label, 1, "checkpoint")] for label in STOPS}
    assert written == {"sampling at first": [], "between inner steps": [3], "sampling again": [2]}
    counts = {label: [len(blocks) for blocks in phases] for label, phases in kept.items()}
    assert counts["sampling at first"] == [8, 0]
    assert counts["between inner steps"] == [4, 0]
    assert counts["sampling again"] == [4, 1]
    assert counts[TWICE] == [4, 2]
    for label in (*STOPS, TWICE):
        assert stopped.entry(label, hit=True).done() is None
    (log,) = stopped.entry("sampling again", hit=True).attempts.glob("1/stderr")
    assert "stopped by a signal while sampling after step 2; finished blocks are kept" in log.read_text()


def test_rows_hold_what_was_sampled(stopped: Runs, kept: dict[str, list[list[bytes]]]) -> None:
    rows = [row for path in stopped.blocks("between inner steps", 0) for row in read_jsonl(path)]
    records = {record.id: record for record in read_records(stopped.micro.pairs / "records.jsonl")}
    assert len({row["id"] for row in rows}) == 8
    assert all(records[row["id"]].portion == "stage2" for row in rows)
    samples = [sample for row in rows for sample in row["samples"]]
    assert len(samples) == 24
    for sample in samples:
        length = len(sample["tokens"])
        assert length == len(sample["logps"]) == len(sample["reference"]) <= 10
        assert length == 10 or not sample["truncated"]
        assert all(value <= 0 for value in sample["logps"])
        # Float32 numbers survive JSON, and the policy is the one at the start in its first phase.
        assert torch.tensor(sample["logps"]).tolist() == sample["logps"]
        assert sample["reference"] == pytest.approx(sample["logps"], abs=1e-5)
    assert any(sample["text"] for sample in samples)
    assert len({tuple(sample["tokens"]) for sample in samples}) > 12, "every draw has a chance of its own"


@pytest.mark.parametrize("label", [*STOPS, "killed"])
def test_what_went_on_is_the_undisturbed_run_byte_by_byte(resumed: Runs, label: str) -> None:
    assert resumed.weights(label, hit=True).read_bytes() == resumed.weights(SAME.get(label, label)).read_bytes()
    for name in ("loss", "reward", "ratio"):
        assert column(resumed.curve(label, hit=True), name) == column(resumed.curve(SAME.get(label, label)), name)
    assert not resumed.entry(label, hit=True).partial.exists()


def test_stored_responses_are_not_sampled_again(resumed: Runs, kept: dict[str, list[list[bytes]]]) -> None:
    sampled = {label: [row["phase"] for row in resumed.events(label, 2, "rollouts")] for label in (*STOPS, "killed")}
    assert sampled["sampling at first"] == [0]
    assert sampled["between inner steps"] == [1]
    assert sampled["sampling again"] == [1, 2]
    # Killed without a checkpoint: it goes back to the first step, and learns from what lies there.
    assert sampled["killed"] == ([] if len(kept["killed"][1]) == 2 else [1])
    assert resumed.events("killed", 2, "resumed") == []


def test_two_ranks_in_lockstep_stop_together_and_go_on(resumed: Runs) -> None:
    assert [row["step"] for row in resumed.events(TWICE, 2, "resumed")] == [4]
    assert resumed.weights(TWICE, hit=True).read_bytes() == resumed.weights(SAME[TWICE]).read_bytes()
