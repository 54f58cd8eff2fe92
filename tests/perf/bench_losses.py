"""Losses of 50 steps of both stages with each way to compute a step, against the plainest one, on 1 and 2 ranks.

Not a matter of time but of exactness: what makes a step quicker must not show in its losses. `tests/train` asserts the
same over fewer steps.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from measure import REPO, publish

sys.path.insert(0, str(REPO / "tests" / "train"))

import harness
import test_speed_options as speed
from harness import Micro

STEPS = 50
Curves = dict[tuple[str, int], list[float]]


def main() -> None:
    """Train, compare, and write results/losses.md."""
    speed.OPTIMIZATION["max_steps"] = STEPS
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        harness.make_micro(home / "micro")
        micro = harness.read_micro(home / "micro")
        (adapter,) = harness.compute(home / "plain", [speed.stage1(micro, "start", speed.PLAIN)])
        (cache,) = harness.compute(home / "plain", [speed.reference(micro, adapter, "", speed.PLAIN)])
        plain = curves(micro, home / "plain", (adapter, cache), 1, {"plain": speed.PLAIN})
        rows = []
        for ranks in (1, 2):
            found = curves(micro, home / str(ranks), (adapter, cache), ranks, speed.WAYS)
            rows += [row(way, ranks, found, plain) for way in speed.WAYS]
    notes = (
        f"Largest difference of the loss, nats, over {STEPS} steps of 7 samples, to a row per response with all its"
        " logits, encoded in the step, on one rank; the micro world of the tests, LoRA, float32, ZeRO 2, gloo."
        f" Losses go from {plain['plain', 1][0]:.3f} to {plain['plain', 1][-1]:.3f} (Stage 1) and from"
        f" {plain['plain', 2][0]:.3f} to {plain['plain', 2][-1]:.3f} (Stage 2). Differences of a sum in another order"
        " grow from step to step, as the optimizer feeds them back."
    )
    publish(__file__, "Losses with and without each optimisation", ("way", "ranks", "Stage 1", "Stage 2"), rows, notes)


def curves(
    micro: Micro, home: Path, folders: tuple[Path, Path], ranks: int, ways: dict[str, dict[str, object]]
) -> Curves:
    """Losses of both stages for each way."""
    nodes = {}
    for way, execution in ways.items():
        nodes[way, 1] = speed.stage1(micro, way, execution)
        nodes[way, 2] = speed.stage2(micro, folders, way, execution)
    harness.compute(home, list(nodes.values()), ranks)
    return {key: harness.losses(home, node) for key, node in nodes.items()}


def row(way: str, ranks: int, found: Curves, plain: Curves) -> tuple[object, ...]:
    """Largest differences of one way."""
    differences = [
        max(abs(mine - theirs) for mine, theirs in zip(found[way, stage], plain["plain", stage], strict=True))
        for stage in (1, 2)
    ]
    return (way, ranks, *(f"{difference:.1e}" for difference in differences))


if __name__ == "__main__":
    main()
