"""Fixtures shared by all tests: a micro world and a tiny model, made once a session by the real stages."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

import harness
from harness import PERTURB, POLICY, WORLD, Micro

@pytest.fixture(scope="session")
def micro(tmp_path_factory: pytest.TempPathFactory) -> Micro:
    """World, records, negatives and a pretrained tiny model, each computed by its own stage."""
    home = tmp_path_factory.mktemp("micro")
    (images,) = harness.compute(home, [harness.node("world", WORLD, {})])
    pairs_spec = {"data": {"source": "demo_world", "world": WORLD}}
    (pairs,) = harness.compute(home, [harness.node("pairs", pairs_spec, {"data": images})])
    negatives = [
        harness.node("negatives", {"negatives": PERTURB, "portion": portion}, {"pairs": pairs})
        for portion in ("stage1", "stage2")
    ]
    negatives1, negatives2 = harness.compute(home, negatives)
    pretrain = {"architecture": {}, "pretraining": {"steps": 12, "batch_size": 16}, "policy": POLICY}
    (model,) = harness.compute(home, [harness.node("pretrain", pretrain, {"pairs": pairs, "images": images})])
    return Micro(images, pairs, negatives1, negatives2, model)
