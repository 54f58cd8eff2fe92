"""What a user sees when things go wrong on a real Slurm, and what one command mends.

The work of most jobs is made up (`made_up/sitecustomize.py`): a training takes seconds of processor time, and what is
tested here is what happens around it. Faults that cannot be made otherwise (a code error in one of several equal jobs, a
GPU without memory) are injected there; all else is done to real jobs by Slurm's own commands.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import commands
import harness
import pytest
from cluster import Cluster, wait_until
from safetensors.numpy import load_file
from slurm_grid import SIBLINGS, MadeUp, Run, sweep

from cwdpo.base.store import Store

MEMORY = commands.GRIDS / "memory.yaml"


@pytest.fixture
def queue(slurm: Cluster) -> Iterator[Cluster]:
    """The cluster; whatever a test leaves in its queue goes."""
    yield slurm
    slurm.cancel_all()


def test_one_element_fails_and_its_siblings_do_not(queue: Cluster, tmp_path: Path) -> None:
    """A training on bad data (injected: the data are the same for all) is told at each place a user looks at."""
    run = sweep(queue, tmp_path)
    run.rule("stage1", "sft/1", say="reading image 7", fail=["DataError", "images/7.png: cannot be decoded"])
    run.ok("submit")
    wait_until(lambda: run.is_done("score", "sft/2") and run.is_done("score", "sft/0"), 120, "the siblings")

    found = json.loads(run.ok("status", "--json"))
    rows = {row["seed"]: row["stages"] for row in found["cells"]}
    assert rows[1]["stage1"] == "failed"
    assert rows[1]["generate"] == rows[1]["score"] == "blocked", rows[1]
    assert rows[0]["score"] == rows[2]["score"] == "done", "siblings are not touched"
    (reason,) = found["failures"].values()
    assert reason.startswith("data: images/7.png: cannot be decoded\nlog: "), reason
    shown = run.ok("status")
    assert "images/7.png: cannot be decoded" in shown, shown
    left = queue.run("squeue", "--noheader", "--format=%j %r")
    assert "Never" not in left, f"dependents are taken away: {left}"
    kinds = {settled.kind for record in run.ledger for settled in record.settled.values() if settled.state != "done"}
    assert kinds == {"data", "dependency"}, "each is marked with why"

    run.wait()
    home = run.home / "grids" / "siblings"
    for name in ("the collector's", "ours"):
        report = (home / "report.md").read_text()
        assert report.count("(n=2, rest failed)") == 4, f"{name}: two seeds are in the table: {report}"
        assert "\nsft: failed: data: images/7.png: cannot be decoded.\n" in report, f"{name}: {report}"
        run.ok("report")
    gaps = json.loads((home / "gaps.json").read_text())
    assert list(gaps) == ["sft/1"]
    assert any("data: images/7.png" in line for line in gaps["sft/1"]), gaps

    why = run.cwdpo("why", "sft/1")
    assert why.returncode == 1
    lines = [line.strip() for line in why.stdout.splitlines()]
    assert lines[0] == "sft/1: not done, because"
    assert re.fullmatch(r"score \w{16}: waits for generate \w{8}", lines[1]), why.stdout
    assert re.fullmatch(r"generate \w{16}: waits for stage1 \w{8}", lines[2]), why.stdout
    assert re.fullmatch(r"stage1 \w{16}: failed once: data: images/7.png: cannot be decoded", lines[3]), why.stdout
    assert "| images/7.png: cannot be decoded" in lines
    assert any(re.fullmatch(r"job \d+_1 on node\d", line) for line in lines), why.stdout
    logs = [Path(line.removeprefix("log: ")) for line in lines if line.startswith("log: ")]
    assert len(logs) == 2, why.stdout
    assert all(path.exists() for path in logs)
    assert lines[-1] == f"when it is mended: cwdpo retry sft/1 --grid {SIBLINGS}"
    assert run.cwdpo("why", "sft/0").stdout == "sft/0: all done\n"
    log = run.ok("logs", "sft/1")
    assert "reading image 7" in log, "what the stage wrote"
    assert "status 3: fail" in log, "what its job said around it"

    assert run.submit().returncode == 0
    assert run.stages("sft/1")["stage1"] == "failed", "submit does not try again what cannot work"
    run.rule("stage1", "sft/1")
    retried = run.ok("retry", "sft/1")
    assert "1 failure(s) count no longer" in retried
    assert len(re.findall(r"^job \d+: \w+ x 1(?:,|$)", retried, re.MULTILINE)) == 3, f"what is missing: {retried}"
    run.wait()
    assert "15 of 15 stages done, 0 jobs in the queue" in run.ok("reconcile")
    assert [value["missing"] for value in run.results()[0]["rows"][0]["values"].values()] == [[]] * 4
    assert json.loads((home / "gaps.json").read_text()) == {}


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Home with both trainings of the grid `memory`, by one worker."""
    home = tmp_path_factory.mktemp("undisturbed") / "home"
    plan = commands.plan_of(home, grid=MEMORY)
    harness.compute(home, [node for node in plan.nodes if node.stage.name not in ("generate", "score")])
    return home


def test_out_of_memory_takes_less_in_the_same_job(queue: Cluster, undisturbed: Path, tmp_path: Path) -> None:
    """Injected at step 3: there is no GPU here. Half the micro-batch, or no kept activations; the batch stays."""
    run = Run(queue, commands.copy_home(undisturbed, tmp_path / "home"), MEMORY, nodes=1, tasks=1,
              work=MadeUp(tmp_path / "work"))  # fmt: skip
    for cell, most in (("sft/0", 2), ("batch_mean/0", 0)):
        shutil.rmtree(run.artefact("stage1", cell).folder)
        run.rule("stage1", cell, real=True, memory=most)
    shown = run.ok("submit", "--watch")
    assert len(re.findall(r"^job ", shown, re.MULTILINE)) == 4, f"train, generate, score, report; no second: {shown}"
    assert "now waits for" not in shown, "dependencies never latched"
    (train,) = [record for record in run.ledger if record.intent["kind"] == "train"]
    changes = {}
    for index, element in train.elements.items():
        (row,) = map(json.loads, (train.folder / "rounds" / f"{index}.jsonl").read_text().splitlines())
        assert (row["class"], row["action"], row["restart"]) == ("memory", "again", 0)
        assert "CUDA out of memory" in row["message"]
        changes[element.label.split()[1]] = row["changes"]
    assert changes == {"sft/0": {"micro_batch": 2}, "batch_mean/0": {"gradient_checkpointing": True}}
    for cell in ("sft/0", "batch_mean/0"):
        assert run.artefact("stage1", cell).newest() == 2
        mine, theirs = adapter(run.artefact("stage1", cell).files), adapter(calm_files(run, undisturbed, cell))
        for name, value in theirs.items():
            assert abs(mine[name] - value).max() < 1e-5 + 1e-3 * abs(value).max(), f"{cell}: {name}"
        resumed = (run.artefact("stage1", cell).attempts / "2" / "events.jsonl").read_text()
        assert '"event": "resumed", "step": 2' in resumed, "what was saved counts"


def calm_files(run: Run, home: Path, cell: str) -> Path:
    """Files of a training in the undisturbed home."""
    return run.node("stage1", cell).artefact(Store(home)).files


def adapter(folder: Path) -> dict[str, object]:
    """Weights by name."""
    return dict(load_file(folder / "adapter_model.safetensors"))


def test_a_sweep_whose_jobs_fail_alike_is_stopped(queue: Cluster, tmp_path: Path) -> None:
    """Eight trainings with the same code error (injected), one at a time: three are enough."""
    run = sweep(queue, tmp_path, "seeds=[0,1,2,3,4,5,6,7]", more="parallel: 1")
    run.work.rule("stage1", fail=["ValueError", "made up: not enough values to unpack"])
    ended = run.submit("--watch")
    assert ended.returncode == 1
    assert "stopped stage1: the first 3 jobs failed alike and none succeeded: ValueError: made up" in ended.stdout
    assert "breaker: the first 3 jobs failed alike" in ended.stderr
    kinds = [settled.kind for record in run.records_of("train") for settled in record.settled.values()]
    assert 3 <= kinds.count("code") <= 6, kinds
    assert kinds.count("code") + kinds.count("breaker") == 8, kinds
    stopped = run.ok("status", "--json")
    reasons = json.loads(stopped)["failures"].values()
    assert sum(reason.startswith("breaker: the first 3 jobs failed alike") for reason in reasons) == kinds.count("breaker")
    why = run.cwdpo("why", "sft/7")
    assert why.returncode == 1
    assert "breaker: the first 3 jobs failed alike" in why.stdout, why.stdout
    assert "not enough values to unpack" in run.cwdpo("why", "sft/0").stdout

    run.work.rule("stage1")
    retried = run.ok("retry")
    assert "8 failure(s) count no longer" in retried, retried
    run.wait()
    assert "0 jobs in the queue" in run.ok("reconcile")
    assert all(run.is_done("score", f"sft/{seed}") for seed in range(8))
