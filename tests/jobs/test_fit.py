"""Two copies of a model under full online training: refused at plan time where they cannot fit."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from cwdpo.cli.main import app
from cwdpo.jobs.fit import parameters, two_copies

BILLION = 10**9


def model_of(folder: Path, billions: int) -> Path:
    """A checkpoint folder of this many parameters in two shards, whose weights are holes in the files."""
    folder.mkdir()
    for name in ("config.json", "preprocessor_config.json"):
        (folder / name).write_text("{}")
    for shard in range(2):
        shape, size = [billions * 1000, BILLION // 2000], billions * BILLION
        header = json.dumps({
            "__metadata__": {"format": "pt"}, f"w{shard}": {"dtype": "BF16", "shape": shape, "data_offsets": [0, size]}
        }).encode()  # fmt: skip
        with open(folder / f"model-{shard}.safetensors", "wb") as file:
            file.write(len(header).to_bytes(8, "little") + header)
            file.truncate(8 + len(header) + size)
    return folder


def grid_of(folder: Path, model: Path, objective: str, more: str = "") -> str:
    path = folder / "grid.yaml"
    path.write_text(f"""
base:
  data: {{source: demo_world}}
  model: {{source: checkpoint, path: {model}}}
  tuning: {{name: full}}
  stage2: {{objective: {objective}}}
  execution: {{zero_stage: 3}}
{more}
""")
    return str(path)


def cluster_of(folder: Path, nodes: int) -> str:
    path = folder / "cluster.yaml"
    path.write_text(f"kind: slurm\nnode: {{gpus: 8, cpus: 96, gpu_memory_gb: 80}}\ntrain: {{nodes: {nodes}}}\n")
    return str(path)


def plan(folder: Path, grid: str, nodes: int) -> tuple[int, str]:
    arguments = ["plan", "--grid", grid, "--cluster", cluster_of(folder, nodes), "--home", str(folder / "home")]
    done = CliRunner().invoke(app, arguments)
    return done.exit_code, done.output + (str(done.exception) if done.exception else "")


def test_parameters_are_counted_from_headers(tmp_path: Path) -> None:
    assert parameters(model_of(tmp_path / "model", 7)) == 7 * BILLION


def test_what_a_rank_holds() -> None:
    # 1 parameter of bf16 on 4 ranks: weights 2, gradients 4, master and moments 12, copy 2 bytes.
    assert vars(two_copies(1, 1, 2, 3, 4)) == {"policy": (2 + 4 + 12) / 4, "start": 2 / 4}
    assert vars(two_copies(1, 1, 2, 2, 4)) == {"policy": 2 + (4 + 12) / 4, "start": 2}
    assert vars(two_copies(1, 1, 2, 1, 4)) == {"policy": 2 + 4 + 12 / 4, "start": 2}
    # float32 weights are their own master.
    assert vars(two_copies(1, 1, 4, 0, 4)) == {"policy": 4 + 4 + 8, "start": 4}
    # What is frozen has neither gradients nor an optimizer.
    assert vars(two_copies(2, 1, 2, 3, 1)) == {"policy": 4 + 4 + 12, "start": 4}


def test_full_online_training_that_cannot_hold_two_copies_is_refused(tmp_path: Path) -> None:
    model = model_of(tmp_path / "model", 72)
    grid = grid_of(tmp_path, model, "{name: grpo}")
    status, said = plan(tmp_path, grid, nodes=2)
    # 72e9 * (18 + 2) bytes / 16 ranks = 90 GB, 9 of them the copy.
    assert status != 0
    assert "grpo with tuning full" in said
    assert "90 GB a rank (9 GB of it the frozen copy)" in said
    assert "a rank has 80 GB (ZeRO 3, 16 ranks)" in said
    assert "tuning lora" in said
    status, said = plan(tmp_path, grid, nodes=3)
    assert (status, said) == (0, said)


@pytest.mark.parametrize(
    ("objective", "more"),
    [
        ("{name: grpo, kl: 0}", ""),
        ("{name: dpo}, negatives: {source: perturb}", ""),
        ("{name: ppo}", "cases: {lora: {tuning: {name: lora}}}"),
    ],
    ids=["no copy", "cached reference", "a second adapter"],
)
def test_what_needs_no_second_model_is_not_refused(tmp_path: Path, objective: str, more: str) -> None:
    grid = grid_of(tmp_path, model_of(tmp_path / "model", 72), objective, more)
    status, said = plan(tmp_path, grid, nodes=2)
    assert (status, said) == (0, said)
