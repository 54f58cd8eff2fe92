"""The training benchmark compares like with like, and its GPU mode runs where there is no GPU."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent

LIKE = """
import json, sys
from pathlib import Path
from training_parts import QUICK
from training_sides import BATCH, reference_pass, stage2, trl
from training_turns import take_turns
from training_world import World

world, point, steps = World(Path(sys.argv[1])), QUICK[0], 2
reference, _ = reference_pass(world, point, steps * BATCH)
sides = take_turns({"TRL": trl(world, point, steps), "ours": stage2(world, point, steps, reference)})
print(json.dumps({name: [side.more["losses"], side.flops, side.seconds] for name, side in sides.items()}))
"""


def python(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *arguments], cwd=HERE, capture_output=True, text=True, timeout=600)


def test_trl_and_we_train_the_same(tmp_path: Path) -> None:
    done = python("-c", LIKE, str(tmp_path / "world"))
    assert done.returncode == 0, done.stderr
    sides = json.loads(done.stdout.splitlines()[-1])
    theirs, ours = sides["TRL"][0], sides["ours"][0]
    assert ours == pytest.approx(theirs, abs=1e-5)
    assert abs(theirs[1] - theirs[0]) > 1e-3, "the losses must move, or they would agree whatever is trained"
    assert all(flops > 0 and seconds > 0 for _, flops, seconds in sides.values())


def test_gpu_mode_runs_tiny_without_a_gpu() -> None:
    done = python("bench_gpu.py", "--size", "tiny")
    assert done.returncode == 0, done.stderr
    rows = [line for line in done.stdout.splitlines() if line.startswith("| 64/16 |")]
    assert [row.split(" | ")[1] for row in rows] == ["rows", "shared"]


def test_gpu_mode_says_that_there_is_no_gpu() -> None:
    done = python(
        "-c", "import sys, torch, bench_gpu; torch.cuda.is_available = bool; bench_gpu.main(['--size', '7b'])"
    )
    assert "not available: no CUDA device" in done.stdout
