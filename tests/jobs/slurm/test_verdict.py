"""The verdict as the host script asks for it: a process of its own, on a real array folder and a real store."""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from commands import environment

from cwdpo.base import files
from cwdpo.base.errors import DataError
from cwdpo.base.runtime import Execution
from cwdpo.base.store import Artefact, Attempt, Store
from cwdpo.jobs.progress import element_progress, saved_progress
from cwdpo.jobs.slurm.failures import final_failure
from cwdpo.objectives import SftC

LOGS = Path(__file__).resolve().parent / "logs"
NAME = "cwdpo-261121-061000-000001-ablations-train-0a1b2c"
INDEX = 4

FULL_DISK = """
import errno, os
def full(*arguments, **keywords):
    raise OSError(errno.ENOSPC, "No space left on device")
os.replace = full
"""


class Element:
    """Element 4 of an array, and what its job does to the store."""

    def __init__(self, home: Path, *stages: dict[str, Any]) -> None:
        self.store = Store(home)
        self.folder = home / "slurm" / "arrays" / NAME
        self.stages = stages
        intent = {
            "name": NAME,
            "cluster": {"kind": "slurm", "attempts": 5},
            "resources": {"nodes": 1, "tasks_per_node": 2},
        }
        files.write_json(self.folder / "intent.json", {**intent, "elements": []})
        jobs = [{"index": index, "home": str(home), "threads": 1, "stages": list(stages)} for index in (1, INDEX)]
        files.write_jsonl(self.folder / "jobs.jsonl", jobs)
        self.log = self.folder / "logs" / f"{INDEX}.out"
        files.write_text(self.log, "")

    def artefact(self, number: int = 0) -> Artefact:
        return self.store.artefact(self.stages[number]["stage"], self.stages[number]["id"])

    def attempt(self, number: int = 0, run: tuple[int, int] | None = None, index: int = INDEX) -> Attempt:
        """A new attempt at a stage, whose process is gone."""
        claim = {"element": f"{NAME}/{index}", "array": NAME, "index": index, **({"run": run} if run else {})}
        attempt = self.artefact(number).claim(claim)
        kept = files.read_json(attempt.folder / "claim.json")
        files.write_json(attempt.folder / "claim.json", {**kept, "pid": 0})
        return attempt

    def fails(
        self, *logs: str, error: Exception | None = None, run: tuple[int, int] | None = None, number: int = 0
    ) -> None:
        """An attempt whose ranks leave these logs."""
        attempt = self.attempt(number, run)
        for rank, name in enumerate(logs):
            shutil.copy(LOGS / f"{name}.txt", attempt.folder / (f"stderr.{rank}" if rank else "stderr"))
        if error:
            attempt.fail(error)

    def srun(self, name: str) -> None:
        """Srun adds to the job's log."""
        with open(self.log, "a", encoding="utf-8") as file:
            file.write((LOGS / f"{name}.txt").read_text(encoding="utf-8"))

    def saves(self, step: int, number: int = 0) -> None:
        """A checkpoint is written."""
        folder = self.artefact(number).partial / "checkpoints" / f"step-{step:06d}"
        files.write_bytes(folder / "weights.safetensors", b"0123")
        files.write_json(folder / "state.json", {"step": step, "files": {"weights.safetensors": {"bytes": 4}}})

    def ask(self, status: int, number: int = 0, restart: int = 0, **more: str) -> str:
        """The word on stdout; nothing but the word."""
        done = self.run(self.folder, INDEX, status, number, SLURM_RESTART_COUNT=str(restart), **more)
        assert done.returncode == 0
        assert done.stdout in ("again\n", "requeue\n", "fail\n", "done\n")
        self.complaint = done.stderr
        return done.stdout.strip()

    @staticmethod
    def run(*arguments: object, **more: str) -> subprocess.CompletedProcess[str]:
        line = [sys.executable, "-W", "error", "-m", "cwdpo.jobs.slurm.verdict", *map(str, arguments)]
        return subprocess.run(line, env=environment(**more), capture_output=True, text=True, timeout=900, check=False)

    @property
    def exit(self) -> Any:
        return files.read_json(self.folder / "exits" / f"{INDEX}.json")

    @property
    def rounds(self) -> list[dict[str, Any]]:
        return list(files.read_jsonl(self.folder / "rounds" / f"{INDEX}.jsonl"))

    @property
    def overrides(self) -> Any:
        return files.read_json(self.folder / "overrides" / f"{INDEX}.json")


def stage(name: str, digit: str, **spec: Any) -> dict[str, Any]:
    execution = Execution(micro_batch=4).model_dump(mode="json")
    return {"stage": name, "id": digit * 64, "card": {}, "spec": spec, "inputs": {}, "execution": execution}


def training(digit: str = "1", objective: dict[str, Any] | None = None) -> dict[str, Any]:
    return stage("stage1", digit, optimization={"batch_size": 64}, objective=objective or {"name": "sft"})


@pytest.fixture
def element(tmp_path: Path) -> Element:
    return Element(tmp_path, training())


# What it answers


def test_out_of_memory_takes_less_each_time_until_nothing_is_left(element: Element) -> None:
    answers, overrides = [], []
    for number in range(4):
        element.fails("nccl_peer_gone", "cuda_out_of_memory")
        answers.append(element.ask(1, number))
        overrides.append(element.overrides)
    assert answers == ["again", "again", "again", "fail"]
    assert overrides[:2] == [{"micro_batch": 2}, {"micro_batch": 1}]
    assert overrides[2] == overrides[3] == {"micro_batch": 1, "gradient_checkpointing": True}
    said = element.exit
    assert said["class"] == "memory"
    assert said["message"].startswith("out of memory: CUDA out of memory. Tried to allocate 2.37 GiB.")
    assert said["message"].endswith("; nothing can be smaller")
    assert said["detail"].startswith("cwdpo/train/engine.py:88 in backward")
    assert [row["attempt"] for row in element.rounds] == [1, 2, 3, 4]


def test_out_of_memory_where_the_batch_must_stay_whole(tmp_path: Path) -> None:
    objective = SftC(constraint_estimate="current_batch").model_dump(mode="json")
    element = Element(tmp_path, training(objective=objective))
    element.fails("cuda_out_of_memory")
    assert element.ask(1) == "again"
    assert element.overrides == {"gradient_checkpointing": True}
    element.fails("cuda_out_of_memory")
    assert element.ask(1, 1) == "fail"


def test_the_kernels_word_for_it_is_in_the_log_of_the_job(element: Element) -> None:
    element.fails("nccl_peer_gone")
    element.srun("slurm_oom")
    assert element.ask(143) == "again"
    assert element.overrides == {"micro_batch": 2}
    # the second run is not judged by the words of the first
    element.fails("nccl_peer_gone")
    element.srun("slurm_kill")
    assert element.ask(143, 1) == "requeue"
    assert element.exit["class"] == "lost"
    assert element.exit["node"] == "node1"


def test_restarts_are_free_while_they_save_something(element: Element) -> None:
    for restart in range(6):
        element.saves(10 * restart + 10)
        element.fails("interrupted", run=(restart, 0))
        assert element.ask(75, restart=restart) == "requeue"
    assert element.exit["saved"] == [0, 60]
    element.fails("interrupted", run=(6, 0))
    assert element.ask(75, restart=6) == "requeue"
    element.fails("interrupted", run=(7, 0))
    assert element.ask(75, restart=7) == "fail"
    assert element.exit["class"] == "stalled"
    assert "3 times without newer saved progress" in element.exit["message"]


def test_restarts_that_never_save_anything_are_bounded(element: Element) -> None:
    answers = []
    for restart in range(3):
        element.fails("interrupted", run=(restart, 0))
        answers.append(element.ask(75, restart=restart))
    assert answers == ["requeue", "requeue", "fail"]


def test_peers_that_are_lost_are_met_again_a_few_times(element: Element) -> None:
    answers = []
    for number in range(4):
        element.fails("gloo_closed")
        answers.append(element.ask(77, number))
    assert answers == ["again", "again", "again", "fail"]


def test_an_error_of_the_program_is_final(element: Element) -> None:
    element.fails("gloo_closed", "code_error")
    assert element.ask(1) == "fail"
    assert element.exit["message"].startswith("TypeError: Object of type object is not JSON serializable")
    assert element.exit["action"] == "fail"
    assert not (element.folder / "overrides" / f"{INDEX}.json").exists()


def test_the_second_stage_of_an_element(tmp_path: Path) -> None:
    element = Element(tmp_path, stage("reference", "1", block=32), stage("generate", "2"))
    first = element.attempt(0)
    files.write_text(first.out / "reference.jsonl", "{}\n")
    first.publish({})
    element.fails(error=DataError("coco: image 12 is not there"), number=1)
    assert element.ask(3) == "fail"
    said = element.exit
    assert (said["stage"], said["class"], said["message"]) == ("generate", "data", "coco: image 12 is not there")
    assert said["saved"] == [1, 0]


def test_everything_is_there_and_only_the_end_went_wrong(element: Element) -> None:
    attempt = element.attempt()
    files.write_text(attempt.out / "adapter.txt", "x")
    attempt.publish({})
    element.srun("slurm_segfault")
    assert element.ask(143) == "done"


def test_fields_of_an_exit(element: Element) -> None:
    element.fails("port_taken", run=(2, 0))
    before = time.time()
    assert element.ask(1, number=0, restart=2, SLURMD_NODENAME="gpu7") == "again"
    said = element.exit
    assert {
        "status",
        "class",
        "message",
        "detail",
        "action",
        "restart",
        "round",
        "saved",
        "time",
        "node",
    } <= said.keys()
    assert (said["status"], said["class"], said["restart"], said["round"], said["node"]) == (1, "port", 2, 0, "gpu7")
    assert before <= said["time"] <= time.time()
    assert element.rounds == [{key: value for key, value in said.items() if key != "detail"}]


# Whose attempt it is


def test_attempts_of_other_runs_are_not_judged(element: Element) -> None:
    element.fails("cuda_out_of_memory")
    assert element.ask(1) == "again"
    assert element.ask(1, 1) == "requeue"  # this run did not even claim: the attempt there is the one before
    assert element.exit["class"] == "lost"
    assert element.exit["attempt"] == 0

    element.attempt(index=INDEX + 1).fail(MemoryError())  # another element computes the same stage
    assert element.ask(1, 2) == "requeue"
    element.fails("cuda_out_of_memory", run=(0, 3))  # the job was killed then, and started again
    assert element.ask(1, 0, restart=1) == "fail"
    assert [row["class"] for row in element.rounds] == ["memory", "lost", "lost", "lost"]


# When things are broken


def test_it_never_fails_itself(tmp_path: Path, element: Element) -> None:
    for arguments in ((tmp_path / "nowhere", 0, 1, 0), (element.folder, 99, 1, 0), (element.folder, "x"), ()):
        done = Element.run(*arguments)
        assert (done.returncode, done.stdout) == (0, "fail\n")
        assert "Traceback" in done.stderr


@pytest.mark.parametrize("broken", ["", "{", "[]", "\0\xff", '{"kind": 3}'])
def test_damaged_files(element: Element, broken: str) -> None:
    element.fails("gloo_closed")
    element.ask(77)
    element.fails("gloo_closed")
    names = ["intent.json", f"exits/{INDEX}.json", f"rounds/{INDEX}.jsonl", f"overrides/{INDEX}.json"]
    for path in [element.folder / name for name in names] + [element.artefact().attempts / "2" / "result.json"]:
        path.parent.mkdir(exist_ok=True)
        path.write_text(broken, encoding="utf-8")
    assert element.ask(77, 1) == "again"
    assert element.exit["class"] == "network"
    (element.artefact().attempts / "2" / "claim.json").write_text(broken, encoding="utf-8")
    (element.folder / "rounds" / f"{INDEX}.jsonl").unlink()
    assert element.ask(77, 1) == "again"
    assert element.exit["attempt"] == 0


def test_a_damaged_done_is_not_done(element: Element) -> None:
    element.fails("code_error")
    (element.artefact().folder / "DONE").write_text("{")
    assert element.ask(1) == "fail"
    assert element.exit["class"] == "code"


def test_a_torn_line_of_an_earlier_round(element: Element) -> None:
    for number in range(3):
        element.fails("gloo_closed")
        element.ask(77, number)
        with open(element.folder / "rounds" / f"{INDEX}.jsonl", "a", encoding="utf-8") as file:
            file.write('{"class": "net')
    element.fails("gloo_closed")
    assert element.ask(77, 3) == "fail"
    assert len(element.rounds) == 4


def test_a_full_disk(tmp_path: Path, element: Element) -> None:
    """The answer is given though it cannot be written down; without memory of earlier rounds it ends all the same."""
    (tmp_path / "faults").mkdir()
    (tmp_path / "faults" / "sitecustomize.py").write_text(FULL_DISK)
    path = f"{tmp_path / 'faults'}{os.pathsep}{environment()['PYTHONPATH']}"
    element.fails("gloo_closed")
    assert [element.ask(77, number, PYTHONPATH=path) for number in range(5)] == ["again"] * 4 + ["fail"]
    assert os.strerror(errno.ENOSPC).lower() in element.complaint.lower() or "no space left" in element.complaint
    assert not list(element.folder.glob("exits/*"))
    element.fails("disk_full_store")
    assert element.ask(4, PYTHONPATH=path) == "fail"


def test_it_imports_nothing_heavy(element: Element) -> None:
    element.fails("cuda_out_of_memory")
    heavy = "torch|transformers|deepspeed|datasets|mlflow"
    line = [
        sys.executable,
        "-X",
        "importtime",
        "-m",
        "cwdpo.jobs.slurm.verdict",
        str(element.folder),
        str(INDEX),
        "1",
        "0",
    ]
    done = subprocess.run(line, env=environment(), capture_output=True, text=True, timeout=900, check=False)
    assert done.stdout == "again\n"
    assert not re.findall(rf"\| +(?:{heavy})\b", done.stderr)


# What reconcile asks


def test_the_verdict_stands_where_it_was_the_end(element: Element) -> None:
    element.fails(error=DataError("image 12 is not there"))
    element.ask(3)
    found = final_failure(element.folder, INDEX, "FAILED")
    assert (found.kind, found.message) == ("data", "image 12 is not there")


def test_without_a_verdict_slurm_and_the_logs_tell(element: Element) -> None:
    assert final_failure(element.folder, INDEX, "NODE_FAIL").kind == "node"
    element.fails("cuda_out_of_memory")
    assert final_failure(element.folder, INDEX, "FAILED").kind == "memory"
    assert final_failure(element.folder, INDEX, "TIMEOUT").kind == "time_limit"
    assert final_failure(element.folder, INDEX, "CANCELLED by 0").kind == "cancelled"
    assert final_failure(element.folder, INDEX, None).kind == "memory"


def test_a_verdict_before_a_restart_is_not_about_the_restart(element: Element) -> None:
    element.fails("interrupted")
    assert element.ask(75) == "requeue"
    assert final_failure(element.folder, INDEX, "FAILED").kind == "interrupted"  # it could not go back to the queue
    assert final_failure(element.folder, INDEX, "NODE_FAIL").kind == "node"
    element.fails("code_error", run=(1, 0))
    assert final_failure(element.folder, INDEX, "FAILED").kind == "code"


def test_a_damaged_ledger_is_a_failure_too(element: Element) -> None:
    (element.folder / "jobs.jsonl").write_text("{")
    assert final_failure(element.folder, INDEX, "FAILED").kind == "store"


# What a restart can build on


def test_saved_progress(element: Element) -> None:
    artefact = element.artefact()
    assert saved_progress(artefact) == 0
    element.saves(100)
    element.saves(1_000_000)
    assert saved_progress(artefact) == 1_000_000
    (artefact.partial / "checkpoints" / "step-1000000" / "weights.safetensors").write_bytes(b"01")
    assert saved_progress(artefact) == 100
    (artefact.partial / "checkpoints" / "step-000100" / "state.json").write_text(json.dumps({"files": []}))
    assert saved_progress(artefact) == 0
    for number in range(3):
        files.write_jsonl(artefact.partial / "blocks" / f"{number:06d}.jsonl", [{}])
    (artefact.partial / "blocks" / ".000003.jsonl.0a1b2c3d.tmp").touch()
    assert saved_progress(artefact) == 3
    files.write_json(artefact.partial / "asked.json", {"replies": 40})
    assert saved_progress(artefact) == 40


def test_progress_of_an_element_counts_stages_first(tmp_path: Path) -> None:
    element = Element(tmp_path, training("1"), training("2"))
    stages = [(entry["stage"], entry["id"]) for entry in element.stages]
    element.saves(500)
    before = element_progress(element.store, stages)
    attempt = element.attempt()
    files.write_text(attempt.out / "adapter.txt", "x")
    attempt.publish({})
    after = element_progress(element.store, stages)
    element.saves(10, number=1)
    assert before == (0, 500) < after == (1, 0) < element_progress(element.store, stages) == (1, 10)
    last = element.attempt(1)
    files.write_text(last.out / "adapter.txt", "x")
    last.publish({})
    assert element_progress(element.store, stages) == (2, 0)
