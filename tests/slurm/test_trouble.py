"""What a user sees when things go wrong on a real Slurm, and what one command mends.

The work of most jobs is made up (`made_up/sitecustomize.py`): a training takes seconds of processor time, and what is
tested here is what happens around it. Faults that cannot be made otherwise (a code error in one of several equal
jobs, a GPU without memory) are injected there; all else is done to real jobs by Slurm's own commands.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import venv
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import commands
import harness
import pytest
from cluster import Cluster, wait_until
from safetensors.numpy import load_file
from slurm_grid import MADE_UP, SIBLINGS, MadeUp, Run, stand_in_for, sweep

from cwdpo.base.store import Store
from cwdpo.jobs.events import events

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
        assert report.count("(n=2, 1 failed)") == 4, f"{name}: two seeds are in the table: {report}"
        reason = "failed: stage1: data: images/7.png: cannot be decoded (sft seed 1)."
        assert reason in report, f"{name}: {report}"
        run.ok("report")
    gaps = json.loads((home / "gaps.json").read_text())
    assert list(gaps) == ["sft/1"]
    assert any("data: images/7.png" in line for line in gaps["sft/1"]), gaps

    why = run.cwdpo("why", "sft/1")
    assert why.returncode == 1
    lines = [line.strip() for line in why.stdout.splitlines()]
    assert lines[0] == "sft/1: not done, because"
    assert re.fullmatch(r"score captions \w{16}: waits for generate captions \w{8}", lines[1]), why.stdout
    assert re.fullmatch(r"generate captions \w{16}: waits for stage1 \w{8}", lines[2]), why.stdout
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
    assert [entry["gaps"] for entry in run.results()[0]["rows"][0]["entries"].values()] == [[]] * 4
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
    assert 3 <= kinds.count("code") < 8, kinds
    assert kinds.count("code") + kinds.count("breaker") == 8, kinds
    reasons = json.loads(run.ok("status", "--json"))["failures"].values()
    stopped = [reason for reason in reasons if reason.startswith("breaker: the first 3 jobs failed alike")]
    assert len(stopped) == kinds.count("breaker")
    assert not any("log: " in reason for reason in stopped), "they were never started"
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


def profile(run: Run, old: str, new: str) -> Path:
    """The profile with one thing changed."""
    text = run.profile.read_text()
    assert old in text
    path = run.home.with_suffix(".wrong.yaml")
    path.write_text(text.replace(old, new))
    return path


WRONG = {
    "partition": ("signal_s", "partition: nowhere\nsignal_s", 6, "partition: 'nowhere'; partitions here: high, main"),
    "nodes": ("train: {nodes: 1", "train: {nodes: 9", 6, "train and node: asked for 9 node(s)"),
    "GPUs": ("gpus: 2", "gpus: 64", 6, "64 GPUs; here are: "),
    "memory": ("train: {nodes: 1", "train: {memory_gb: 9000, nodes: 1", 6, "9000.0 GB; here are: "),
    "CPUs": ("cpus_per_task: 1,", "cpus_per_task: 99,", 2, "1 rank(s) with 99 core(s) each do not fit a node of 16"),
    "key": ("signal_seconds", "signal_second", 2, "signal_second"),
}  # fmt: skip


@pytest.mark.parametrize("what", WRONG)
def test_a_wrong_profile_is_told_before_anything_is_submitted(slurm: Cluster, tmp_path: Path, what: str) -> None:
    """By the name of the key, and what would be valid."""
    run = sweep(slurm, tmp_path)
    old, new, status, message = WRONG[what]
    refused = run.cwdpo("submit", "--cluster", profile(run, old, new))
    assert refused.returncode == status, refused.stdout + refused.stderr
    assert message in refused.stderr, refused.stderr
    assert "Traceback" not in refused.stderr
    assert run.ledger == []
    folder = run.home / "grids" / "siblings"
    assert not (folder / "slurm.json").exists(), "nothing is wanted"
    assert not (folder / "plan.json").exists(), "nothing counts as needed"


def test_without_slurm_the_way_out_is_named(slurm: Cluster, tmp_path: Path) -> None:
    run = sweep(slurm, tmp_path)
    refused = commands.cwdpo("submit", "-g", SIBLINGS, "--home", run.home, "-c", run.profile, PATH="/nowhere")
    assert refused.returncode == 6
    assert "there is no sbatch on the PATH" in refused.stderr
    assert "--cluster local" in refused.stderr


def test_names_that_are_not_there(queue: Cluster, tmp_path: Path) -> None:
    """A grid that was never submitted, then a cell that is none."""
    run = sweep(queue, tmp_path)
    for command in ("retry", "cancel", "reconcile"):
        refused = run.cwdpo(command)
        assert refused.returncode == 2, command
        assert f"grid 'siblings' was never submitted to Slurm from {run.home}" in refused.stderr
    shown = run.cwdpo("why", "sft/0")
    assert shown.returncode == 0
    assert "not submitted yet" in shown.stdout
    refused = run.cwdpo("logs", "sft/0", "--stage", "stage1")
    assert refused.returncode == 2
    assert "has no log: it was not started" in refused.stderr
    run.work.rule("stage1", hold=True)
    run.ok("submit")
    for command in ("why", "logs", "retry", "cancel"):
        refused = run.cwdpo(command, "stf/0")
        assert refused.returncode == 2, command
        assert "unknown cell 'stf/0'; did you mean 'sft/0'? valid: " in refused.stderr, refused.stderr
    refused = run.cwdpo("logs", "sft/0", "--stage", "stage3")
    assert refused.returncode == 2
    assert "valid: generate, pairs, pretrain, score, stage1" in refused.stderr, refused.stderr


# Chains


def times(run: Run, stage: str, cell: str) -> tuple[float, float]:
    """When the attempt that made a stage began, and its last sign of life."""
    rows = list(events(run.artefact(stage, cell).attempts / "1" / "events.jsonl"))
    return rows[0]["time"], rows[-1]["time"]


def test_evaluations_do_not_wait_for_other_trainings(queue: Cluster, tmp_path: Path) -> None:
    """By element of the same index, and by one element of which three go on; two trainings are held meanwhile."""
    run = sweep(queue, tmp_path, grid=commands.GRIDS / "family.yaml")
    run.rule("stage1", "alone/0", hold=True)
    run.rule("stage2", "second/0", hold=True)
    shown = run.ok("submit")
    assert re.search(r"^job \d+: train x 3, after afterok:\d+_\d+$", shown, re.MULTILINE), f"the fan: {shown}"
    assert re.search(r"^job \d+: generate x 3, after aftercorr:\d+$", shown, re.MULTILINE), f"the chains: {shown}"
    wait_until(lambda: run.is_done("score", "first/0") and run.is_done("score", "third/0"), 90, "the other evaluations")
    assert not run.is_done("stage1", "alone/0")
    assert not run.is_done("stage2", "second/0")
    for stage, cell in (("stage1", "alone/0"), ("stage2", "second/0")):
        run.work.release(run.artefact(stage, cell).folder.name)
    run.wait(90)
    for cell in ("alone/0", "first/0", "second/0", "third/0"):
        assert run.is_done("score", cell), cell
    for stage, cell in (("stage1", "alone/0"), ("stage2", "second/0")):
        for other in ("first/0", "third/0"):
            assert times(run, "generate", other)[0] < times(run, stage, cell)[1], (
                f"{other} waited for {stage} of {cell}"
            )


def test_what_is_cancelled_and_what_goes_on(queue: Cluster, tmp_path: Path) -> None:
    """A case whose training others need; a waiting element by Slurm's own scancel. The same submit brings both back."""
    run = sweep(queue, tmp_path, "seeds=[0]", grid=commands.MICRO)
    run.work.rule("stage1", hold=True)
    run.ok("submit")
    wait_until(lambda: run.steps("stage1", "sft/0") > 2, 60, "the training that sft and dpo share")
    shared, other = run.element("stage1", "dpo/0"), run.element("generate", "sft/0")
    shown = run.ok("cancel", "sft")
    assert "cancelled 2 job(s)" in shown, "generate and score of sft; its training is needed"
    assert other not in queue.states() or queue.states()[other] == "CANCELLED"
    assert queue.states()[shared] == "RUNNING"
    why = run.cwdpo("why", "sft/0")
    assert why.returncode == 1
    assert "cancelled" in why.stdout, why.stdout
    queue.run("scancel", run.element("stage2", "cw_dpo/0"))
    assert run.stages("cw_dpo/0")["stage2"] == "cancelled"
    assert run.stages("sft/0")["generate"] == "cancelled"
    following, seen = run.start("logs", "dpo/0", "--stage", "stage1", "--follow"), run.steps("stage1", "dpo/0")
    wait_until(lambda: run.steps("stage1", "dpo/0") > seen + 20, 60, "more lines")
    run.work.release("stage1")
    followed, _ = following.communicate(timeout=900)
    assert following.returncode == 0, followed
    said = [int(number) for number in re.findall(r"^made up: step (\d+)$", followed, re.MULTILINE)]
    assert said == list(range(1, len(said) + 1)), "every line once"
    assert len(said) > seen
    run.wait(90)
    assert run.is_done("score", "dpo/0")
    assert not run.is_done("generate", "sft/0")
    assert not run.is_done("stage2", "cw_dpo/0")
    run.ok("submit", "--watch")
    assert run.is_done("score", "sft/0")
    assert run.is_done("score", "cw_dpo/0")
    assert run.element("stage1", "dpo/0") == shared, "nothing that was there is done twice"


# What goes on when nobody is there


def test_a_steward_submits_the_waves(queue: Cluster, tmp_path: Path) -> None:
    """A queue for 8 jobs and a grid of 18: the command has gone, the steward goes on; one cell fails for good."""
    run = sweep(queue, tmp_path, "seeds=[0,1,2,3,4,5]", more="max_submit: 8")
    run.rule("stage1", "sft/4", fail=["DataError", "images/7.png: cannot be decoded"])
    shown = run.ok("submit", "--steward")
    assert re.search(r"^job \d+: steward$", shown, re.MULTILINE), shown
    assert "stages wait for room in the queue" in shown
    again = run.ok("submit", "--steward")
    assert "the steward is in the queue already" in again, again
    assert not re.search(r": steward$", again, re.MULTILINE), "no second one"
    steward = re.findall(r"^job (\d+): steward$", shown, re.MULTILINE)[0]
    queue.wait_for("RUNNING", steward)
    queue.run("scancel", "--signal=USR2", steward)  # as before its time limit
    wait_until(lambda: queue.states(steward)[steward] != "RUNNING", 30, "the steward goes back to the queue")
    most = 0

    def over() -> bool:
        nonlocal most
        left = queue.run("squeue", "--noheader", "--array").splitlines()
        most = max(most, len(left))
        return not left

    wait_until(over, 200, "the end")
    assert most <= 8
    assert [run.is_done("score", f"sft/{seed}") for seed in range(6)] == [True, True, True, True, False, True]
    home = run.home / "grids" / "siblings"
    assert "images/7.png: cannot be decoded" in (home / "report.md").read_text()
    assert list(json.loads((home / "gaps.json").read_text())) == ["sft/4"], "the last report is of the last wave"


# The code that runs is the code that was submitted


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A checkout of its own, of one commit."""
    folder = tmp_path / "checkout"
    shutil.copytree(commands.REPO / "cwdpo", folder / "cwdpo", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(commands.REPO / "configs", folder / "configs")
    git = ["git", "-C", folder, "-c", "user.name=x", "-c", "user.email=x@example.org"]
    for words in (["init", "-q"], ["add", "."], ["commit", "-qm", "x"]):
        subprocess.run([*git, *words], check=True)
    return folder


def test_what_the_checkout_becomes_does_not_matter(queue: Cluster, checkout: Path, tmp_path: Path) -> None:
    run = sweep(queue, tmp_path, "seeds=[0]")
    run.work.rule("stage1", hold=True)
    environment = {**run.environment, "PYTHONPATH": f"{MADE_UP}{os.pathsep}{checkout}"}
    given = ["-g", SIBLINGS, "--home", run.home, "-s", "seeds=[0]", "-c", run.profile]
    commands.succeed(commands.cwdpo("submit", *given, cwd=checkout, **environment))
    for name in ("jobs/worker.py", "jobs/slurm/task.py", "evaluate/score.py", "__init__.py"):
        (checkout / "cwdpo" / name).write_text("this is no Python\n")
    assert commands.cwdpo("--version", cwd=checkout, **environment).returncode != 0, "the checkout is broken"
    run.work.release("stage1")
    run.wait(60)
    commit = subprocess.run(["git", "-C", checkout, "rev-parse", "HEAD"], capture_output=True, text=True, check=True)
    for stage in ("stage1", "generate", "score"):
        done = run.artefact(stage, "sft/0").done()
        assert done is not None, run.cwdpo("why", "sft/0").stdout
        found = done["provenance"]
        assert (found["commit"], found["dirty"]) == (commit.stdout.strip(), False), stage
        job = run.element(stage, "sft/0").partition("_")[0]
        assert (found["job"]["slurm_array"], found["job"]["index"]) == (job, 0), stage

    script = next(run.records("score")[0].glob("script.sh"))
    installed = interpreter_with_other_versions(tmp_path / "image")
    line = f"source <(grep '^export PYTHON' {script}) && {installed} -c 'import cwdpo; print(cwdpo.__file__)'"
    # "Image" and editable install stand for themselves here: what Python finds first is decided by its search path.
    found = subprocess.run(["bash", "-c", line], cwd=checkout, capture_output=True, text=True, check=True).stdout
    assert Path(found.strip()).is_relative_to(run.home / "slurm" / "code"), found
    bare = subprocess.run([installed, "-c", "import cwdpo; print(cwdpo.__file__)"], cwd="/", env={},
                          capture_output=True, text=True, check=True).stdout  # fmt: skip
    assert "image" in bare, "without the snapshot, the installed one is found"


def interpreter_with_other_versions(folder: Path) -> Path:
    """An interpreter with an older package in its site-packages, and an editable install of another checkout."""
    venv.create(folder, with_pip=False, symlinks=True)
    (site,) = folder.glob("lib/python*/site-packages")
    for place in (site, folder / "elsewhere"):
        (place / "cwdpo").mkdir(parents=True)
        (place / "cwdpo" / "__init__.py").write_text("")
    (site / "editable.pth").write_text(f"{folder / 'elsewhere'}\nimport editable_finder\n")
    (site / "editable_finder.py").write_text(
        "import sys\nfrom importlib.machinery import PathFinder\n\n\n"
        "class Finder:\n"
        "    @staticmethod\n"
        "    def find_spec(name, path=None, target=None):\n"
        f"        return PathFinder.find_spec(name, [{str(folder / 'elsewhere')!r}]) if name == 'cwdpo' else None\n\n\n"
        "sys.meta_path.append(Finder)\n"
    )
    return folder / "bin" / "python"


# How often Slurm is asked


def test_a_look_takes_as_many_commands_for_any_grid(queue: Cluster, tmp_path: Path) -> None:
    """Counted by made-up commands before the true ones on the PATH; nothing runs, for the partition is down."""
    queue.run("scontrol", "update", "partitionname=main", "state=down")
    try:
        asked = {size: asked_by_looks(queue, tmp_path / str(size), size) for size in (1, 8)}
    finally:
        queue.cancel_all()
        queue.run("scontrol", "update", "partitionname=main", "state=up")
    (few, less), (many, more) = asked.values()
    assert many > 5 * few, f"{few} elements, then {many}"
    assert less == more, "status, why and reconcile of a small grid, then of a big one"
    assert sum(more.values()) <= 12, more
    assert set(more) == {"squeue"}, more


def asked_by_looks(cluster: Cluster, folder: Path, seeds: int) -> tuple[int, Counter[str]]:
    """Elements of a grid in the queue, and commands of Slurm that three looks take."""
    log = folder / "log"
    for name in ("squeue", "sacct", "scontrol", "sbatch", "scancel", "sinfo"):
        path = stand_in_for(name, folder / "bin", f"echo {name} >>{log}")
    run = sweep(cluster, folder, f"seeds={list(range(seeds))}", grid=commands.MICRO)
    run.ok("submit")
    elements = sum(len(record.elements) for record in run.ledger)
    environment = {**run.environment, "PATH": f"{path}{os.pathsep}{run.environment['PATH']}"}
    for command in (["status"], ["why", "sft/0"], ["reconcile"]):
        given = ["-g", run.grid, "--home", run.home, "-s", run.settings[0]]
        commands.succeed(commands.cwdpo(*command, *given, **environment))
    return elements, Counter(log.read_text().split())
