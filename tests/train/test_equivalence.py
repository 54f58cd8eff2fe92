"""The same training under every ZeRO stage, number of ranks, micro-batch and precision."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import harness
import pytest
import torch
from campaign import IN_FULL
from harness import POLICY, Micro
from safetensors.torch import load_file

# 7 samples a step over micro-batches of 2: the last micro-batch is ragged, and so is one of two ranks.
OPTIMIZATION = {"batch_size": 7, "max_steps": 4, "learning_rate": 1e-2, "weight_decay": 0.01, "clip": 0.5}
LORA = {"name": "lora", "rank": 4, "alpha": 8}
ZERO_STAGES = (0, 1, 2, 3) if IN_FULL else (1, 3)
VARIANTS = [(ranks, zero) for ranks in (1, 2) for zero in ZERO_STAGES]


def stage1(micro: Micro, label: str, tuning: dict[str, Any] = LORA, dtype: str = "float32", **execution: Any) -> Any:
    spec = {
        "policy": {"dtype": dtype}, "tuning": tuning, "optimization": OPTIMIZATION, "seed": 3,
        "objective": {"name": "sft_c", "weight": 0.5},
    }  # fmt: skip
    inputs = micro.inputs(negatives=micro.negatives1)
    return harness.node("stage1", spec, inputs, label, **{"micro_batch": 2, **execution})


def stage2(micro: Micro, adapter: Path, reference: Path, label: str, **execution: Any) -> Any:
    spec = {"policy": POLICY, "tuning": LORA, "optimization": OPTIMIZATION, "objective": {"name": "cw_dpo"}}
    inputs = micro.inputs(negatives=micro.negatives2, adapter=adapter, reference=reference)
    return harness.node("stage2", spec, inputs, label, **{"micro_batch": 2, **execution})


@pytest.fixture(scope="module")
def start(micro: Micro, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The adapter and the reference cache that Stage 2 starts from, and the undisturbed results of both stages."""
    home = tmp_path_factory.mktemp("start")
    first = stage1(micro, "plain", micro_batch=7, zero_stage=2)
    (adapter,) = harness.compute(home, [first])
    inputs = micro.inputs(negatives=micro.negatives2, adapter=adapter)
    (reference,) = harness.compute(home, [harness.node("reference", {"policy": POLICY}, inputs, micro_batch=2)])
    second = stage2(micro, adapter, reference, "plain", micro_batch=7, zero_stage=2)
    (trained,) = harness.compute(home, [second])
    return {
        "adapter": adapter, "reference": reference, "trained": trained,
        "losses1": harness.losses(home, first), "losses2": harness.losses(home, second),
    }  # fmt: skip


@pytest.fixture(scope="module")
def variants(micro: Micro, start: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> dict[Any, Any]:
    """Every variant of both stages; several engines share one process."""
    found = {}
    for ranks in (1, 2):
        home = tmp_path_factory.mktemp(f"ranks{ranks}")
        nodes = {}
        for zero in ZERO_STAGES:
            nodes[1, zero] = stage1(micro, f"{zero}", zero_stage=zero)
            nodes[2, zero] = stage2(micro, start["adapter"], start["reference"], f"{zero}", zero_stage=zero)
        folders = harness.compute(home, list(nodes.values()), ranks)
        for (stage, zero), folder in zip(nodes, folders, strict=True):
            found[stage, ranks, zero] = (folder, harness.losses(home, nodes[stage, zero]))
    return found


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "adapter_model.safetensors")


def assert_close(found: Path, expected: Path, tolerance: float) -> None:
    mine, theirs = weights(found), weights(expected)
    assert mine.keys() == theirs.keys()
    for name in theirs:
        torch.testing.assert_close(mine[name], theirs[name], atol=tolerance, rtol=tolerance, msg=name)


@pytest.mark.parametrize(("ranks", "zero"), VARIANTS)
def test_stage1_is_the_same_everywhere(variants: dict[Any, Any], start: dict[str, Any], ranks: int, zero: int) -> None:
    folder, losses = variants[1, ranks, zero]
    assert losses == pytest.approx(start["losses1"], abs=2e-5)
    assert_close(folder, start["adapter"], 2e-4)


@pytest.mark.parametrize(("ranks", "zero"), VARIANTS)
def test_stage2_is_the_same_everywhere(variants: dict[Any, Any], start: dict[str, Any], ranks: int, zero: int) -> None:
    folder, losses = variants[2, ranks, zero]
    assert losses == pytest.approx(start["losses2"], abs=2e-5)
    assert_close(folder, start["trained"], 2e-4)


def test_training_changes_the_adapter(start: dict[str, Any]) -> None:
    before, after = weights(start["adapter"]), weights(start["trained"])
    assert max(float((after[name] - before[name]).abs().max()) for name in before) > 1e-3
    assert start["losses2"][0] == pytest.approx(math.log(2), abs=1e-5), "the policy starts as its own reference"


def test_other_seed_trains_differently(micro: Micro, start: dict[str, Any], tmp_path: Path) -> None:
    spec = {
        "policy": POLICY, "tuning": LORA, "optimization": OPTIMIZATION, "seed": 4,
        "objective": {"name": "sft_c", "weight": 0.5},
    }  # fmt: skip
    node = harness.node("stage1", spec, micro.inputs(negatives=micro.negatives1), micro_batch=7)
    (folder,) = harness.compute(tmp_path, [node])
    with pytest.raises(AssertionError):
        assert_close(folder, start["adapter"], 2e-4)
