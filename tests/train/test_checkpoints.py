"""Training stopped, killed, damaged or moved goes on to the same result; what cannot go on says why."""

from __future__ import annotations

import math
import random
import signal
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import harness
import pytest
import torch
import unsteady_worker
from campaign import IN_FULL
from harness import Micro
from safetensors.torch import load_file, save_file

from cwdpo.base.errors import Interrupted, TrainingError
from cwdpo.base.files import read_json, write_json
from cwdpo.base.store import Artefact, Store
from cwdpo.data.records import read_records
from cwdpo.graph import Node
from cwdpo.jobs.events import curve, events
from cwdpo.model.config import Policy
from cwdpo.model.load import load_lora, load_model
from cwdpo.model.tiny import TinyQwen, build_tiny_qwen

STEPS, EVERY, STOP = 8, 3, 5  # stopped at 5, so that the checkpoints are those of steps 3 and 5
OPTIMIZATION = {"batch_size": 8, "epochs": 20, "max_steps": STEPS, "learning_rate": 2e-3, "weight_decay": 0.01}
LONG = {**OPTIMIZATION, "max_steps": 40}
LORA = {"name": "lora", "rank": 4, "alpha": 8}
FULL = {"name": "full"}
SFT_C = {"name": "sft_c", "weight": 0.5, "floor": 100.0}
EXPLODING = {"learning_rate": 1e30, "schedule": "constant", "warmup": 0.0}

RESUMED: dict[str, dict[str, Any]] = {
    "lora": {},
    "lora, no ZeRO": {"zero_stage": 0},
    "lora, ZeRO 3": {"zero_stage": 3},
    "lora with dropout": {"tuning": {**LORA, "dropout": 0.2}},
    "bf16, ZeRO 1": {"dtype": "bfloat16", "zero_stage": 1},
    "bf16, ZeRO 2": {"dtype": "bfloat16", "zero_stage": 2},
    "bf16, ZeRO 3": {"dtype": "bfloat16", "zero_stage": 3},
    "full": {"tuning": FULL},
    "full, ZeRO 3": {"tuning": FULL, "zero_stage": 3},
    "full, bf16": {"tuning": FULL, "dtype": "bfloat16"},
}
if not IN_FULL:
    for label in ("lora, no ZeRO", "bf16, ZeRO 1", "bf16, ZeRO 3", "full, bf16"):
        del RESUMED[label]
VARIANTS: dict[str, dict[str, Any]] = {
    "one micro-batch": {"micro_batch": 8},
    "four micro-batches": {"micro_batch": 2},
    "lora, checkpointing": {"gradient_checkpointing": True},
    "checkpointing, ZeRO 3": {"gradient_checkpointing": True, "zero_stage": 3},
    "long": {"optimization": LONG},
    "previous, on": {"micro_batch": 8, "objective": {**SFT_C, "constraint_estimate": "previous_step"}},
    "current, on": {"micro_batch": 8, "objective": {**SFT_C, "constraint_estimate": "current_batch"}},
    "previous, off": {"micro_batch": 8, "objective": {**SFT_C, "floor": 0.5}},
    "current, off": {"micro_batch": 8, "objective": {**SFT_C, "floor": 0.5, "constraint_estimate": "current_batch"}},
}
DAMAGES: dict[str, Callable[[Path], None]] = {
    "truncated": lambda folder: _rewrite(folder / "weights.safetensors", lambda content: content[: len(content) // 2]),
    "flipped": lambda folder: _rewrite(folder / "moments.safetensors", lambda content: content[:-1] + b"\x7f"),
    "stateless": lambda folder: (folder / "state.json").unlink(),
    "state changed": lambda folder: write_json(
        folder / "state.json", {**read_json(folder / "state.json"), "step": 4, "samples": 32}
    ),
}


def _rewrite(path: Path, change: Callable[[bytes], bytes]) -> None:
    content = path.read_bytes()
    path.write_bytes(change(content))
    assert path.read_bytes() != content


@dataclass
class Runs:
    """Homes of undisturbed and of disturbed runs, and nodes by name; a node's label is its name."""

    micro: Micro
    calm: Path
    hit: Path
    nodes: dict[str, Node] = field(default_factory=dict)
    status: int | None = None
    """How the job ended that resumed full training with another number of ranks."""

    def node(
        self, label: str, tuning: Any = None, dtype: str = "float32", objective: Any = None, optimization: Any = None,
        model: Path | None = None, **execution: Any,
    ) -> Node:  # fmt: skip
        spec = {
            "policy": {"dtype": dtype}, "tuning": tuning or LORA, "objective": objective or SFT_C, "seed": 3,
            "optimization": optimization or OPTIMIZATION,
        }  # fmt: skip
        inputs = self.micro.inputs(negatives=self.micro.negatives1) | ({"model": model} if model else {})
        settings = {"micro_batch": 4, "zero_stage": 2, "checkpoint_every": EVERY, **execution}
        self.nodes[label] = harness.node("stage1", spec, inputs, label, **settings)
        return self.nodes[label]

    def entry(self, label: str, hit: bool = True) -> Artefact:
        return self.nodes[label].artefact(Store(self.hit if hit else self.calm))

    def result(self, label: str, hit: bool = True) -> Path:
        """The file of weights."""
        folder = self.entry(label, hit).files
        return folder / ("model.safetensors" if "full" in label else "adapter_model.safetensors")

    def events(self, label: str, attempt: int, kind: str) -> list[dict[str, Any]]:
        path = self.entry(label).attempts / str(attempt) / "events.jsonl"
        return [row for row in events(path) if row["event"] == kind]

    def checkpoints(self, label: str) -> list[Path]:
        return sorted((self.entry(label).partial / "checkpoints").glob("step-*"))


@pytest.fixture(scope="module")
def base(micro: Micro, tmp_path_factory: pytest.TempPathFactory) -> Runs:
    """A model with parameters of more than 100,000 numbers; smaller ones ZeRO-3 does not partition at all."""
    folder = tmp_path_factory.mktemp("checkpoints")
    texts = [record.chosen for record in read_records(micro.pairs / "records.jsonl")]
    build_tiny_qwen(TinyQwen(intermediate_size=1024), texts, folder / "model", seed=0)
    return Runs(Micro(**{**vars(micro), "model": folder / "model"}), folder / "calm", folder / "hit")


@pytest.fixture(scope="module")
def calm(base: Runs) -> Runs:
    """Undisturbed runs, in one job."""
    harness.compute(base.calm, [base.node(label, **kind) for label, kind in {**RESUMED, **VARIANTS}.items()])
    return base


@pytest.fixture(scope="module")
def stopped(calm: Runs) -> Runs:
    """Every kind of training stopped at step 5; some damaged then; some that fail. One job of one rank, one of two."""
    runs = calm
    poisoned = _poisoned(runs.micro.model, runs.hit / "poisoned")
    one = [runs.nodes[label] for label in RESUMED]
    one += [runs.node(label) for label in (*DAMAGES, "all damaged", "one to two")]
    one += [
        runs.node("full, one to two", tuning=FULL),
        runs.node("exploding", optimization={**OPTIMIZATION, **EXPLODING}, checkpoint_every=1),
        runs.node("poisoned", model=poisoned),
        runs.node("bf16, no ZeRO", dtype="bfloat16", zero_stage=0),
        runs.node("current, accumulated", objective={**SFT_C, "constraint_estimate": "current_batch"}),
    ]
    two = [
        runs.node("two to one", zero_stage=3, micro_batch=1),
        runs.node("full, two ranks", tuning=FULL),
        runs.node("full, two ranks, ZeRO 3", tuning=FULL, zero_stage=3),
    ]
    for nodes, ranks in ((one, 1), (two, 2)):
        status = harness.finish(unsteady_worker.start(runs.hit, nodes, STOP, ranks))
        assert status == 0, harness.output(runs.hit, nodes)
    for label in (*RESUMED, *DAMAGES, "two to one", "full, two ranks"):
        steps = [path.name for path in runs.checkpoints(label)]
        assert steps == ["step-000003", "step-000005"], f"{label}\n{harness.output(runs.hit, [runs.nodes[label]])}"
    for label, damage in DAMAGES.items():
        damage(runs.checkpoints(label)[-1])
    for path in runs.checkpoints("all damaged"):
        DAMAGES["stateless"](path)
    return runs


@pytest.fixture(scope="module")
def killed(calm: Runs) -> Runs:
    """Real signals, one job each: SIGTERM, and SIGKILL at a random step after the first checkpoint."""
    for label in ("terminated", "killed"):
        node = calm.node(label, optimization=LONG)
        wait = random.randrange(EVERY + 1, 15)
        job = harness.start(calm.hit, [node])
        status = harness.finish(job, until=lambda label=label, wait=wait: len(calm.events(label, 1, "step")) >= wait)
        assert status is None, harness.output(calm.hit, [node])
        if label == "terminated":
            job.ask()
            assert harness.finish(job) == Interrupted.exit_code
        else:
            job.end(grace=0)
            assert job.processes[0].returncode == -signal.SIGKILL
    return calm


@pytest.fixture(scope="module")
def resumed(stopped: Runs, killed: Runs) -> Runs:
    """Everything above run again, at one rank and at two."""
    runs = stopped
    before = {label: [path.name for path in runs.checkpoints(label)] for label in ("terminated", "killed")}
    runs.node("two to one", zero_stage=0, micro_batch=8)
    labels = [*RESUMED, *DAMAGES, "all damaged", "terminated", "killed", "two to one"]
    harness.compute(runs.hit, [runs.nodes[label] for label in labels])
    runs.node("one to two", zero_stage=3, micro_batch=1)
    two = [runs.nodes[label] for label in ("one to two", "full, two ranks", "full, two ranks, ZeRO 3")]
    calm_two = [
        runs.node("full, two ranks, calm", tuning=FULL),
        runs.node("full, two ranks, ZeRO 3, calm", tuning=FULL, zero_stage=3),
    ]
    last = runs.nodes["full, one to two"]
    runs.status = harness.finish(harness.start(runs.hit, [*two, *calm_two, last], ranks=2))
    assert all(node.artefact(Store(runs.hit)).done() for node in two), harness.output(runs.hit, two)
    assert all(before.values())
    return runs


def _poisoned(model: Path, folder: Path) -> Path:
    """A copy of a model with one weight that is not a number."""
    folder.mkdir(parents=True)
    for path in model.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    weights = load_file(folder / "model.safetensors")
    weights[next(name for name in weights if "layers.0.mlp.up_proj" in name)][0, 0] = math.nan
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def assert_close(found: Path, expected: Path, tolerance: float) -> None:
    mine, theirs = load_file(found), load_file(expected)
    assert mine.keys() == theirs.keys()
    for name in theirs:
        torch.testing.assert_close(mine[name], theirs[name], atol=tolerance, rtol=tolerance, msg=name)


def losses(artefact: Artefact) -> list[float]:
    return [point["loss"] for point in curve(artefact)]


# ---------------------------------------------------------------------------------------------------------------------
# Resuming where it was


@pytest.mark.parametrize("label", sorted(RESUMED))
def test_a_resumed_run_is_the_undisturbed_one_byte_by_byte(resumed: Runs, label: str) -> None:
    assert resumed.result(label).read_bytes() == resumed.result(label, hit=False).read_bytes()
    assert [row["step"] for row in resumed.events(label, 1, "step")] == [1, 2, 3, 4, 5]
    assert [row["step"] for row in resumed.events(label, 2, "resumed")] == [5]
    assert [row["step"] for row in resumed.events(label, 2, "step")] == [6, 7, 8]
    assert losses(resumed.entry(label)) == losses(resumed.entry(label, hit=False))
    assert not resumed.entry(label).partial.exists()


def test_the_runs_compared_are_not_all_the_same(calm: Runs) -> None:
    contents = {calm.result(label, hit=False).read_bytes() for label in ("lora", "lora with dropout", "bf16, ZeRO 2")}
    assert len(contents) == 3
    values = load_file(calm.result("lora", hit=False))
    assert max(float(value.abs().max()) for name, value in values.items() if "lora_B" in name) > 1e-3


def test_sigterm_leaves_a_checkpoint_of_the_step_it_came_in(killed: Runs, resumed: Runs) -> None:
    stepped = [row["step"] for row in resumed.events("terminated", 1, "step")]
    written = [row["step"] for row in resumed.events("terminated", 1, "checkpoint")]
    assert written[-1] == stepped[-1]
    assert [row["step"] for row in resumed.events("terminated", 2, "resumed")] == [stepped[-1]]
    assert resumed.events("terminated", 2, "step")[0]["step"] == stepped[-1] + 1
    assert resumed.result("terminated").read_bytes() == resumed.result("long", hit=False).read_bytes()


def test_after_sigkill_it_goes_on_from_the_last_checkpoint(killed: Runs, resumed: Runs) -> None:
    (row,) = resumed.events("killed", 2, "resumed")
    written = [row["step"] for row in resumed.events("killed", 1, "checkpoint")]
    assert row["step"] in (written[-1], written[-1] + EVERY)  # killed between a rename and the line about it
    assert row["step"] % EVERY == 0
    assert resumed.result("killed").read_bytes() == resumed.result("long", hit=False).read_bytes()


@pytest.mark.parametrize("label", ["one to two", "two to one"])
def test_a_checkpoint_loads_at_another_world_size_zero_stage_and_micro_batch(resumed: Runs, label: str) -> None:
    assert [row["step"] for row in resumed.events(label, 2, "resumed")] == [STOP]
    assert_close(resumed.result(label), resumed.result("lora", hit=False), 2e-4)
    assert losses(resumed.entry(label)) == pytest.approx(losses(resumed.entry("lora", hit=False)), abs=2e-4)


# ---------------------------------------------------------------------------------------------------------------------
# Damage


@pytest.mark.parametrize("label", sorted(DAMAGES))
def test_a_damaged_checkpoint_is_reported_and_the_one_before_is_used(resumed: Runs, label: str) -> None:
    (row,) = resumed.events(label, 2, "checkpoint_damaged")
    assert row["checkpoint"] == "step-000005"
    assert row["fault"]
    stderr = (resumed.entry(label).attempts / "2" / "stderr").read_text()
    assert "step-000005 is damaged" in stderr
    assert [row["step"] for row in resumed.events(label, 2, "resumed")] == [3]
    assert resumed.result(label).read_bytes() == resumed.result("lora", hit=False).read_bytes()


def test_with_every_checkpoint_damaged_it_starts_over(resumed: Runs) -> None:
    damaged = [row["checkpoint"] for row in resumed.events("all damaged", 2, "checkpoint_damaged")]
    assert damaged == ["step-000005", "step-000003"]
    assert resumed.events("all damaged", 2, "resumed") == []
    assert resumed.result("all damaged").read_bytes() == resumed.result("lora", hit=False).read_bytes()


# ---------------------------------------------------------------------------------------------------------------------
# Full training


@pytest.mark.parametrize("label", ["full, two ranks", "full, two ranks, ZeRO 3"])
def test_full_training_of_two_ranks_resumes_identically(resumed: Runs, label: str) -> None:
    assert [row["step"] for row in resumed.events(label, 2, "resumed")] == [STOP]
    assert resumed.result(label).read_bytes() == resumed.result(f"{label}, calm").read_bytes()
    assert_close(resumed.result(label), resumed.result("full", hit=False), 2e-3)


def test_full_training_is_refused_at_another_world_size(resumed: Runs) -> None:
    label = "full, one to two"
    assert resumed.status == TrainingError.exit_code
    result = resumed.entry(label).result(2)
    assert result is not None
    assert result["kind"] == "TrainingError"
    assert "full training was started with 1 ranks and cannot resume with 2; give the job 1 ranks" in result["message"]
    assert [path.name for path in resumed.checkpoints(label)] == ["step-000003", "step-000005"], "nothing is lost"


def test_full_training_writes_a_model_folder(calm: Runs) -> None:
    folder = calm.entry("full", hit=False).files
    trained, base = load_file(folder / "model.safetensors"), load_file(calm.micro.model / "model.safetensors")
    assert trained.keys() == base.keys() == load_file(calm.result("full, ZeRO 3", hit=False)).keys()
    changed = {name for name in base if not torch.equal(base[name], trained[name])}
    assert changed
    assert not any("visual" in name for name in changed)
    assert load_model(Policy(dtype="float32"), folder) is not None


# ---------------------------------------------------------------------------------------------------------------------
# The same result otherwise


@pytest.mark.parametrize("label", ["lora, checkpointing", "checkpointing, ZeRO 3"])
def test_gradient_checkpointing_changes_nothing(calm: Runs, label: str) -> None:
    other = "lora, ZeRO 3" if "ZeRO 3" in label else "lora"
    assert_close(calm.result(label, hit=False), calm.result(other, hit=False), 1e-5)


def test_accumulation_changes_nothing(calm: Runs) -> None:
    one, four = calm.entry("one micro-batch", hit=False), calm.entry("four micro-batches", hit=False)
    assert losses(four) == pytest.approx(losses(one), abs=2e-5)
    assert_close(calm.result("four micro-batches", hit=False), calm.result("one micro-batch", hit=False), 2e-4)


@pytest.mark.parametrize("zero", [1, 2, 3] if IN_FULL else [2])
def test_bf16_follows_float32(calm: Runs, zero: int) -> None:
    found, expected = losses(calm.entry(f"bf16, ZeRO {zero}", hit=False)), losses(calm.entry("lora", hit=False))
    assert found == pytest.approx(expected, rel=0.02)
    assert all(math.isfinite(loss) for loss in found)
    values = load_file(calm.result(f"bf16, ZeRO {zero}", hit=False))
    assert {value.dtype for value in values.values()} == {torch.bfloat16}


def test_the_adapter_folder_loads_with_peft_itself(calm: Runs) -> None:
    from peft import PeftModel

    folder = calm.entry("lora", hit=False).files
    policy = Policy(dtype="float32")
    model = PeftModel.from_pretrained(load_model(policy, calm.micro.model), folder)
    saved = load_file(folder / "adapter_model.safetensors")
    loaded = {name.replace(".default", ""): value for name, value in model.named_parameters() if "lora_" in name}
    assert loaded.keys() == saved.keys()
    assert all(torch.equal(loaded[name], saved[name]) for name in saved)
    again = load_lora(load_model(policy, calm.micro.model), folder, trainable=True)
    assert sum(parameter.requires_grad for parameter in again.parameters()) == len(saved)
    assert sorted(path.name for path in folder.iterdir()) == [
        "adapter_config.json", "adapter_model.safetensors", "snapshots",
    ]  # fmt: skip


# ---------------------------------------------------------------------------------------------------------------------
# The penalty's switch


def test_current_batch_equals_previous_step_where_the_switch_agrees(calm: Runs) -> None:
    """Negatives are never as unlikely as 100 nats a token, so the penalty is on in every step either way."""
    assert calm.result("current, on", hit=False).read_bytes() == calm.result("previous, on", hit=False).read_bytes()
    assert {point["penalty_active"] for point in curve(calm.entry("current, on", hit=False))} == {1.0}


def test_current_batch_differs_where_the_switch_does_not_agree(calm: Runs) -> None:
    """Negatives start far above 0.5 nats: off in this batch, but on in a first step that knows of none before."""
    previous, current = (calm.entry(f"{name}, off", hit=False) for name in ("previous", "current"))
    assert calm.result("current, off", hit=False).read_bytes() != calm.result("previous, off", hit=False).read_bytes()
    assert curve(current)[0]["nll_chosen"] == curve(previous)[0]["nll_chosen"]
    assert curve(current)[0]["grad_norm"] != curve(previous)[0]["grad_norm"]
    assert {point["penalty_active"] for point in curve(current)} == {0.0}


def failure(runs: Runs, label: str) -> dict[str, Any]:
    result = runs.entry(label).result(1)
    assert result is not None, harness.output(runs.hit, [runs.nodes[label]])
    return result


def test_current_batch_is_refused_with_accumulation(stopped: Runs) -> None:
    result = failure(stopped, "current, accumulated")
    assert result["kind"] == "ConfigError"
    assert "current_batch needs gradient accumulation 1" in result["message"]
    assert "batch_size 8 over 1 rank(s) of micro_batch 4 takes 2" in result["message"]


def test_bf16_without_zero_is_refused(stopped: Runs) -> None:
    result = failure(stopped, "bf16, no ZeRO")
    assert result["kind"] == "ConfigError"
    assert "execution.zero_stage: 0 with model.dtype bfloat16" in result["message"]


# ---------------------------------------------------------------------------------------------------------------------
# Losses that are not finite


def named_records(message: str) -> set[str]:
    return set(message.partition("the batch was: ")[2].split(", "))


def test_an_exploding_run_ends_naming_the_batch_and_keeps_its_checkpoint(stopped: Runs) -> None:
    result = failure(stopped, "exploding")
    assert result["kind"] == "TrainingError"
    (checkpoint,) = stopped.checkpoints("exploding")
    assert checkpoint.name == "step-000001"
    assert result["message"].startswith("step 2: the ")
    assert f"the last good checkpoint is {checkpoint}" in result["message"]
    records = {r.id for r in read_records(stopped.micro.pairs / "records.jsonl") if r.portion == "stage1"}
    assert len(named_records(result["message"])) == 8
    assert named_records(result["message"]) < records
    assert stopped.entry("exploding").done() is None
    assert stopped.entry("exploding").state() == "failed"


def test_a_poisoned_model_is_noticed_in_the_first_step(stopped: Runs) -> None:
    result = failure(stopped, "poisoned")
    assert result["kind"] == "TrainingError"
    assert result["message"].startswith("step 1: the loss is nan; there is no checkpoint yet; the batch was: ")
    assert len(named_records(result["message"])) == 8
    assert stopped.checkpoints("poisoned") == []
    assert stopped.entry("poisoned").done() is None
