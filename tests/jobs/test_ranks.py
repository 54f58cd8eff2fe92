"""Settings that no job of a cluster could run with are refused before anything is submitted."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from cwdpo.cli.main import app
from cwdpo.jobs.forecast import dimensions

GRID = """
base:
  data: {source: demo_world}
  model: %s
  stage2: {objective: {name: dpo}, negatives: {source: perturb}}
  execution: {inference: tensor_parallel, replica_size: %d}
"""
TINY = "{source: tiny}"  # 4 attention heads, 2 key-value heads
RELEASED = "{source: checkpoint, path: Qwen/Qwen2.5-VL-7B-Instruct}"  # 28 and 4; its files are not here


def plan(folder: Path, model: str, size: int, gpus: int = 8) -> tuple[int, str]:
    (folder / "grid.yaml").write_text(GRID % (model, size))
    (folder / "cluster.yaml").write_text(f"kind: slurm\nnode: {{gpus: {gpus}, cpus: 96, gpu_memory_gb: 80}}\n")
    given = ["plan", "--grid", folder / "grid.yaml", "--cluster", folder / "cluster.yaml", "--home", folder / "home"]
    done = CliRunner().invoke(app, [str(word) for word in given])
    return done.exit_code, done.output + str(done.exception or "")


@pytest.mark.parametrize(("model", "size"), [(TINY, 2), (TINY, 1), (RELEASED, 4)])
def test_a_replica_that_has_whole_heads_on_every_rank_is_planned(tmp_path: Path, model: str, size: int) -> None:
    assert plan(tmp_path, model, size)[0] == 0


@pytest.mark.parametrize(
    ("model", "size", "heads", "valid"),
    [
        (TINY, 4, "the 4 attention heads and 2 key-value heads of tiny", "on 8 rank(s) it can be 1, 2, or"),
        (RELEASED, 8, "the 28 attention heads and 4 key-value heads of Qwen/Qwen2.5-VL-7B-Instruct", "be 1, 2, 4, or"),
    ],
)
def test_a_replica_that_would_cut_a_head_is_refused(
    tmp_path: Path, model: str, size: int, heads: str, valid: str
) -> None:
    status, said = plan(tmp_path, model, size)
    assert status
    assert f"execution.replica_size {size} does not divide {heads}" in said
    assert valid in said


def test_a_replica_that_does_not_fill_the_job_is_refused(tmp_path: Path) -> None:
    assert "execution.replica_size 2 does not divide 5 rank(s)" in plan(tmp_path, TINY, 2, gpus=5)[1]


def test_a_model_is_read_once_for_all_cases(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from cwdpo.jobs import ranks

    read: list[object] = []
    monkeypatch.setattr(ranks, "of_source", lambda model: read.append(model) or dimensions.of_source(model))
    monkeypatch.setitem(globals(), "GRID", GRID + "axes: {stage2.objective.beta: [0.1, 0.2, 0.3]}\n")
    assert plan(tmp_path, TINY, 2)[0] == 0
    assert len(read) == 1
