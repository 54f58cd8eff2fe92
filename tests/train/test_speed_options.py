"""What makes a step quicker changes no loss: each way of computing it, on 1 and 2 ranks, against the plainest one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import harness
import pytest
import torch
from harness import POLICY, Micro
from safetensors.torch import load_file

from cwdpo.base.files import read_jsonl
from cwdpo.base.store import Artefact, Store
from cwdpo.jobs.events import events

pytestmark = pytest.mark.campaign  # test_equivalence and test_methods have most of it

STEPS = 12
TOLERANCE = 5e-5  # nats of the loss; float32 sums in another order, fed back through the optimizer step after step
OPTIMIZATION = {"batch_size": 7, "max_steps": STEPS, "learning_rate": 1e-2, "clip": 0.5}
LORA = {"name": "lora", "rank": 4, "alpha": 8}

PLAIN: dict[str, Any] = {"shared_prefix": False, "chunked_head": False, "feed_workers": 0}
WAYS: dict[str, dict[str, Any]] = {
    "all of it": {},
    "shared prefixes": {**PLAIN, "shared_prefix": True},
    "chunked head": {**PLAIN, "chunked_head": True},
    "encoded ahead": {**PLAIN, "feed_workers": 3},
    "a budget of tokens": {**PLAIN, "micro_tokens": 150},
    "all under a budget, with checkpointing": {"micro_tokens": 150, "gradient_checkpointing": True},
}


def stage1(micro: Micro, label: str, execution: dict[str, Any]) -> Any:
    spec = {
        "policy": POLICY, "tuning": LORA, "optimization": OPTIMIZATION,
        "objective": {"name": "sft_c", "weight": 0.5},
    }  # fmt: skip
    inputs = micro.inputs(negatives=micro.negatives1)
    return harness.node("stage1", spec, inputs, label, **{"micro_batch": 3, **execution})


def stage2(micro: Micro, folders: tuple[Path, Path], label: str, execution: dict[str, Any]) -> Any:
    spec = {"policy": POLICY, "tuning": LORA, "optimization": OPTIMIZATION, "objective": {"name": "cw_dpo"}}
    adapter, reference = folders
    inputs = micro.inputs(negatives=micro.negatives2, adapter=adapter, reference=reference)
    return harness.node("stage2", spec, inputs, label, **{"micro_batch": 3, **execution})


def reference(micro: Micro, adapter: Path, label: str, execution: dict[str, Any]) -> Any:
    inputs = micro.inputs(negatives=micro.negatives2, adapter=adapter)
    return harness.node("reference", {"policy": POLICY}, inputs, label, **{"micro_batch": 3, **execution})


@pytest.fixture(scope="module")
def plain(micro: Micro, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Both stages and the reference, computed the plain way by one process."""
    home = tmp_path_factory.mktemp("plain")
    first = stage1(micro, "", PLAIN)
    (adapter,) = harness.compute(home, [first])
    (cache,) = harness.compute(home, [reference(micro, adapter, "", PLAIN)])
    second = stage2(micro, (adapter, cache), "", PLAIN)
    (trained,) = harness.compute(home, [second])
    return {
        "folders": (adapter, cache), "trained": trained,
        1: harness.losses(home, first), 2: harness.losses(home, second),
    }  # fmt: skip


@pytest.mark.parametrize("ranks", [1, 2])
def test_every_way_trains_the_same(micro: Micro, plain: dict[str, Any], tmp_path: Path, ranks: int) -> None:
    nodes = {}
    for way, execution in WAYS.items():
        nodes[way, 1] = stage1(micro, way, execution)
        nodes[way, 2] = stage2(micro, plain["folders"], way, execution)
    folders = dict(zip(nodes, harness.compute(tmp_path, list(nodes.values()), ranks), strict=True))
    for (way, stage), node in nodes.items():
        assert harness.losses(tmp_path, node) == pytest.approx(plain[stage], abs=TOLERANCE), (way, stage)
    for way in WAYS:
        mine, theirs = (load_file(at / "adapter_model.safetensors") for at in (folders[way, 2], plain["trained"]))
        assert all(torch.allclose(mine[name], theirs[name], atol=1e-3) for name in theirs), way


def test_every_way_gives_the_same_reference(micro: Micro, plain: dict[str, Any], tmp_path: Path) -> None:
    adapter, cache = plain["folders"]
    nodes = [reference(micro, adapter, way, execution) for way, execution in WAYS.items()]
    expected = list(read_jsonl(cache / "reference.jsonl"))
    for way, folder in zip(WAYS, harness.compute(tmp_path, nodes), strict=True):
        for mine, theirs in zip(read_jsonl(folder / "reference.jsonl"), expected, strict=True):
            assert mine["id"] == theirs["id"]
            assert [mine["chosen"], *mine["rejected"]] == pytest.approx(
                [theirs["chosen"], *theirs["rejected"]], abs=2e-5
            ), way


def test_the_way_that_was_taken_is_an_event(micro: Micro, tmp_path: Path) -> None:
    nodes = [stage1(micro, way, {**WAYS[way]}) for way in ("all of it", "chunked head", "encoded ahead")]
    harness.compute(tmp_path, nodes)
    taken = [way_of(node.artefact(Store(tmp_path))) for node in nodes]
    assert taken == [
        "shared prefixes, the head in chunks",
        "a row per response, the head in chunks",
        "a row per response, all logits",
    ]


def way_of(artefact: Artefact) -> str:
    (path,) = artefact.attempts.glob("*/events.jsonl")
    return str(next(event["way"] for event in events(path) if event["event"] == "scoring"))
