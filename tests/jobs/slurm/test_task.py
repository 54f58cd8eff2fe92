"""What one rank under srun makes of Slurm's variables and of the ledger."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import harness
import pytest
from commands import REPO

from cwdpo.base.errors import StoreError
from cwdpo.base.store import Store
from cwdpo.jobs.job import job_content
from cwdpo.jobs.slurm import task

PORTS = (20000, 32767)
SRUN = {
    "SLURM_JOB_ID": "4711",
    "SLURM_PROCID": "5",
    "SLURM_LOCALID": "1",
    "SLURM_NTASKS": "8",
    "SLURM_JOB_NODELIST": "node[0-1]",
    "SLURMD_NODENAME": "node1",
}


def test_what_a_rank_knows() -> None:
    assert task.environment_of_rank({**SRUN, "SLURM_RESTART_COUNT": "2"}, PORTS, 1) == {
        "RANK": "5",
        "LOCAL_RANK": "1",
        "WORLD_SIZE": "8",
        "MASTER_ADDR": "node0",
        "MASTER_PORT": str(20000 + 4711 + 2 * 1009 + 101),
        "CWDPO_JOB_TOKEN": "4711.2.1",
        "CWDPO_HOSTS": "node0 node1",
        "CWDPO_NODE": "node1",
    }


@pytest.mark.parametrize(
    ("text", "hosts"),
    [
        ("node7", ["node7"]),
        ("node[0-2]", ["node0", "node1", "node2"]),
        ("n[009-011,7],gpu12", ["n009", "n010", "n011", "n7", "gpu12"]),
        ("rack[1-2]n[01-02]-ib,login", ["rack1n01-ib", "rack1n02-ib", "rack2n01-ib", "rack2n02-ib", "login"]),
    ],
)
def test_lists_of_hosts(text: str, hosts: list[str]) -> None:
    assert task.hosts_of({"SLURM_JOB_NODELIST": text}) == hosts
    assert task.hosts_of({"SLURM_JOB_NODELIST": "other", "SLURM_STEP_NODELIST": text}) == hosts


def test_ports_stay_in_their_range_and_differ() -> None:
    ports = (30000, 30999)
    starts = [
        task.port_of({"SLURM_JOB_ID": str(job), "SLURM_RESTART_COUNT": str(restart)}, ports, number)
        for job in (99_999_999, 100_000_000, 100_000_001)
        for restart in range(3)
        for number in range(3)
    ]
    assert len(set(starts)) == len(starts)
    assert all(30000 <= port <= 30999 for port in starts)


@pytest.mark.parametrize(("visible", "local"), [("", "1"), ("0,1,2,3", "1"), ("1", "0")])
def test_a_rank_that_sees_one_gpu_takes_that(visible: str, local: str) -> None:
    environ = {**SRUN, "CUDA_VISIBLE_DEVICES": visible}
    assert task.environment_of_rank(environ, PORTS, 0)["LOCAL_RANK"] == local


def stage(**execution: Any) -> dict[str, Any]:
    return {"stage": "stage1", "execution": execution, "note": '"index": 12'}


def test_an_element_is_found_among_others(tmp_path: Path) -> None:
    jobs = [{"index": index, "threads": index, "stages": [stage(micro_batch=8)]} for index in (1, 2, 12, 13)]
    lines = [json.dumps(job) for job in jobs]
    lines[1] = '{"index": 2, damaged'
    (tmp_path / "jobs.jsonl").write_text("\n".join(lines) + "\n")
    assert task.job_of(tmp_path, 12, {}) == jobs[2]
    with pytest.raises(StoreError, match=r"jobs\.jsonl: no element 3"):
        task.job_of(tmp_path, 3, {})
    with pytest.raises(StoreError, match=r"cannot read .*jobs\.jsonl"):
        task.job_of(tmp_path, 2, {})


def test_changes_after_a_failure_reach_every_stage(tmp_path: Path) -> None:
    job = {"index": 0, "stages": [stage(micro_batch=8, zero_stage=2), stage(micro_batch=4)]}
    (tmp_path / "jobs.jsonl").write_text(json.dumps(job))
    found = [entry["execution"] for entry in task.job_of(tmp_path, 0, {"micro_batch": 2})["stages"]]
    assert found == [{"micro_batch": 2, "zero_stage": 2}, {"micro_batch": 2}]


def element(folder: Path, home: Path) -> Any:
    """An array of one element, index 3, which computes a world; returns its node."""
    node = harness.node("world", harness.WORLD, {})
    (folder / "overrides").mkdir(parents=True)
    (folder / "intent.json").write_text(json.dumps({"cluster": {"ports": PORTS}}))
    (folder / "jobs.jsonl").write_text(json.dumps({"index": 3, **job_content(Store(home), [node], threads=1)}) + "\n")
    return node


def srun(folder: Path) -> subprocess.CompletedProcess[str]:
    one = {**SRUN, "SLURM_PROCID": "0", "SLURM_LOCALID": "0", "SLURM_NTASKS": "1", "SLURM_ARRAY_JOB_ID": "4700"}
    command = [sys.executable, "-W", "error", "-m", "cwdpo.jobs.slurm.task", str(folder), "3", "1", "{}"]
    return subprocess.run(
        command, env={**os.environ, **one, "PYTHONPATH": str(REPO)}, capture_output=True, text=True, timeout=900
    )


def test_one_task_computes_its_element(tmp_path: Path) -> None:
    node = element(tmp_path / "array", tmp_path)
    done = srun(tmp_path / "array")
    assert done.returncode == 0, done.stderr
    artefact = node.artefact(Store(tmp_path))
    assert artefact.done()
    claim = json.loads((artefact.attempts / "1" / "claim.json").read_text())
    assert {key: claim[key] for key in ("element", "array", "index", "run", "slurm_job", "slurm_array", "nodes")} == {
        "element": "array/3",
        "array": "array",
        "index": 3,
        "run": [0, 1],
        "slurm_job": "4711",
        "slurm_array": "4700",
        "nodes": ["node0", "node1"],
    }


def test_an_array_that_was_given_up_computes_nothing(tmp_path: Path) -> None:
    node = element(tmp_path / "array", tmp_path)
    (tmp_path / "array" / "abandoned.json").write_text("{}")
    done = srun(tmp_path / "array")
    assert done.returncode == 78
    assert "ERROR array was given up" in done.stderr
    assert not node.artefact(Store(tmp_path)).folder.exists()


def test_an_array_that_cannot_be_read(tmp_path: Path) -> None:
    done = srun(tmp_path)
    assert done.returncode == 4
    assert "ERROR cannot read" in done.stderr
    assert "Traceback" not in done.stderr
