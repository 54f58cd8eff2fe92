"""Where the results of a cell come from, against files that are written here by hand."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from pretend import pretend_done, write_grid

from cwdpo.base.store import Artefact, Store
from cwdpo.experiment import load_grid
from cwdpo.graph import Node
from cwdpo.jobs.plan import Plan, make_plan
from cwdpo.report.provenance import Origins, Step, at

CELL = "hard stage1.optimization.learning_rate=1e-06 stage2.objective.beta=0.01/0"


@pytest.fixture
def plan(tmp_path: Path) -> Plan:
    grid = write_grid(tmp_path / "grid.yaml", first=1, second=1, seeds=1)
    made = make_plan(load_grid(str(grid)), Store(tmp_path / "home"))
    pretend_done(made, made.nodes)
    return made


def node_of(plan: Plan, stage: str) -> Node:
    return next(node for node in plan.wired[CELL].nodes() if node.stage.name == stage)


def step_of(plan: Plan, stage: str) -> Step:
    found = Origins(plan, plan.states()).of(CELL)
    return found.step(f"{stage}-{node_of(plan, stage).id[:16]}")


def attempt(artefact: Artefact, number: int, **claim: object) -> Path:
    """A further attempt that began at 1000 s."""
    folder = artefact.attempts / str(number)
    folder.mkdir()
    known = {"host": "node7", "pid": 1, "process_started": "0", "time": 1000.0, **claim}
    (folder / "claim.json").write_text(json.dumps(known))
    (folder / "heartbeat").touch()
    os.utime(folder / "heartbeat", (1060, 1060))
    return folder


def test_the_chain_of_a_cell_is_whole_and_in_order(plan: Plan) -> None:
    found = Origins(plan, plan.states()).of(CELL)
    assert [step.id for step in found.steps] == [node.id for node in plan.wired[CELL].nodes()]
    assert found.scores == {"captions": f"score-{node_of(plan, 'score').id[:16]}"}
    stage2 = step_of(plan, "stage2")
    assert stage2.about == "objective cw_dpo, seed 0"
    assert stage2.inputs["adapter"] == f"stage1-{node_of(plan, 'stage1').id[:16]}"
    assert stage2.settings["objective"]["beta"] == 0.01
    assert (stage2.commit, stage2.image, stage2.host, stage2.state) == ("0" * 12, "no image", "nowhere", "done")
    assert stage2.out == f"store/{stage2.folder}/attempts/1/out"
    assert set(stage2.files) == {"adapter_config.json", "adapter_model.safetensors"}
    assert "sources" not in stage2.made
    assert step_of(plan, "negatives").about == "source perturb, for stage1"
    assert step_of(plan, "reference").about == f"log-probabilities under stage1-{node_of(plan, 'stage1').id[:16]}"


def test_attempts_jobs_and_gpu_time(plan: Plan) -> None:
    artefact = node_of(plan, "stage2").artefact(plan.store)
    first, done = attempt(artefact, 2, slurm_array="41", index=5, slurm_job="47"), artefact.folder / "DONE"
    (first / "result.json").write_text(json.dumps({"state": "failed", "kind": "X", "message": "out of memory"}))
    os.utime(first / "result.json", (1030, 1030))
    attempt(artefact, 3, slurm_job="50")
    content = json.loads(done.read_text())
    content["provenance"] |= {"ranks": 4, "seconds": 100.0, "peak_bytes": {"memory": 1, "gpu_memory": 2}, "dirty": True}
    done.write_text(json.dumps(content))
    found = step_of(plan, "stage2")
    assert [(one.outcome, one.reason, one.seconds, one.slurm) for one in found.tries] == [
        ("done", "", 100.0, ""),
        ("failed", "out of memory", 30.0, "41_5"),
        ("interrupted", "", 60.0, "50"),
    ]
    assert found.slurm == ("41_5", "50")
    assert (found.seconds, found.gpu_seconds) == (190.0, 760.0)
    assert found.commit == "000000000000 with changes"
    assert at(found.tries[1].started) == "1970-01-01 00:16 UTC"


def test_what_is_not_there_is_empty_and_what_is_damaged_is_said(plan: Plan) -> None:
    artefact = node_of(plan, "stage2").artefact(plan.store)
    (artefact.folder / "DONE").write_text("{")
    (artefact.attempts / "1" / "claim.json").write_text("[]")
    found = step_of(plan, "stage2")
    assert (found.state, found.made, found.out, found.commit, found.gpu_seconds) == ("damaged", {}, "", "", None)
    (one,) = found.tries
    assert one.outcome == "unreadable"
    (artefact.folder / "DONE").unlink()
    (artefact.attempts / "1" / "claim.json").unlink()
    assert step_of(plan, "stage2").tries[0].reason.startswith("its files cannot be read: cannot read")
