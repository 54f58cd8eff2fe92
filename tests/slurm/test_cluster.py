"""The test cluster itself: what tests of jobs rely on, and that it starts and stops cleanly."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from cluster import Cluster, wait_until

pytestmark = pytest.mark.campaign  # what is relied on of Slurm itself


@pytest.fixture(autouse=True)
def _empty_queue(request: pytest.FixtureRequest) -> Iterator[None]:
    yield
    if "slurm" in request.fixturenames:
        request.getfixturevalue("slurm").cancel_all()


@pytest.fixture(scope="module")
def accounting(make_cluster: Callable[..., Cluster]) -> Cluster:
    return make_cluster(ACCOUNTING="slurmdbd", MAXSUBMIT=5, NODES=1)


def lines_of(file: Path) -> list[str]:
    return file.read_text().splitlines() if file.exists() else []


def wait_for_lines(file: Path, count: int, seconds: float = 30) -> list[str]:
    wait_until(lambda: len(lines_of(file)) >= count, seconds, f"{count} lines in {file}: {lines_of(file)}")
    return lines_of(file)


def test_children_of_an_array_start_when_their_own_parent_ends(slurm: Cluster, tmp_path: Path):
    log = tmp_path / "log"
    say = f'echo "$SLURM_JOB_NAME $SLURM_ARRAY_TASK_ID" >>{log}'
    parents = slurm.sbatch(f"{say}; ((SLURM_ARRAY_TASK_ID != 2)) || sleep 4; {say}", "-Jparent", "--array=0-2")
    slurm.sbatch(say, "-Jcorresponding", "--array=0-2", f"--dependency=aftercorr:{parents}")
    slurm.sbatch(say, "-Jsibling", "--array=5,7", f"--dependency=afterok:{parents}_1")
    lines = wait_for_lines(log, 11)
    assert lines.index("parent 1", lines.index("parent 1") + 1) < lines.index("sibling 5")
    last = len(lines) - 1 - lines[::-1].index("parent 2")
    early = {"corresponding 0", "corresponding 1", "sibling 5", "sibling 7"}
    assert early <= set(lines[:last])
    assert lines[last:] == ["parent 2", "corresponding 2"]


def test_children_of_a_failed_parent_wait_for_ever(slurm: Cluster):
    parents = slurm.sbatch("exit $SLURM_ARRAY_TASK_ID", "--array=0,3")
    children = slurm.sbatch("true", "--array=0,3", f"--dependency=aftercorr:{parents}")
    slurm.wait_for("COMPLETED", f"{parents}_0", f"{children}_0")
    slurm.wait_for("FAILED", f"{parents}_3")
    reason = ("squeue", "--noheader", "--array", f"--jobs={children}", "--format=%i %T %r")
    wait_until(lambda: slurm.run(*reason) == f"{children}_3 PENDING DependencyNeverSatisfied", 20)


def test_two_nodes_with_two_tasks_each_see_their_gpus(slurm: Cluster, tmp_path: Path):
    task = 'echo "$SLURM_PROCID $SLURM_LOCALID $SLURMD_NODENAME $CUDA_VISIBLE_DEVICES"'
    arguments = ("--nodes=2", "--ntasks-per-node=2", "--gres=gpu:2")
    job = slurm.sbatch(f"srun --output={tmp_path}/%t bash -c '{task}'", *arguments)
    slurm.wait_for("COMPLETED", job)
    said = [(tmp_path / str(rank)).read_text().split() for rank in range(4)]
    assert [line[:2] for line in said] == [["0", "0"], ["1", "1"], ["2", "0"], ["3", "1"]]
    first, second = said[0][2], said[2][2]
    assert [line[2] for line in said] == [first, first, second, second]
    assert first != second
    assert {line[3] for line in said} == {"0,1"}
    assert slurm.run("getent", "hosts", first).split()[0] == "127.0.0.1"


def test_gpus_of_a_node_are_shared_out(slurm: Cluster, tmp_path: Path):
    script = f"echo $CUDA_VISIBLE_DEVICES >>{tmp_path}/seen; sleep 2"
    slurm.sbatch(script, "--array=0-1", "--gres=gpu:1", "--nodelist=node3")
    assert sorted(wait_for_lines(tmp_path / "seen", 2)) == ["0", "1"]


def sleeping(cluster: Cluster) -> list[str]:
    """Command lines of `sleep` itself, not of the srun that starts it."""
    return [line for line in cluster.processes() if line.split(" ")[0].endswith("sleep")]


def test_jobs_of_a_killed_node_die_and_start_again_elsewhere(slurm: Cluster, tmp_path: Path):
    log = tmp_path / "log"
    script = f'echo "${{SLURM_RESTART_COUNT:-0}} $SLURMD_NODENAME" >>{log}; (setsid sleep 321 &); srun sleep 322'
    job = slurm.sbatch(script)
    (first,) = wait_for_lines(log, 1)
    node = first.split()[1]
    wait_until(lambda: "322" in " ".join(sleeping(slurm)), 30)
    time.sleep(0.5)  # srun is told that it has started: cut off before, it ends the job itself
    slurm.kill_node(node)
    try:
        assert not sleeping(slurm)
        restarted = wait_for_lines(log, 2, seconds=60)[1].split()
    finally:
        slurm.revive_node(node)
    assert restarted[0] == "1"
    assert restarted[1] != node
    assert slurm.states(job) == {job: "RUNNING"}


def test_a_preempted_job_gets_its_signal_then_term_and_starts_again(slurm: Cluster, tmp_path: Path):
    log = tmp_path / "log"
    task = tmp_path / "task"
    task.write_text(f"""trap "echo USR2 >>{log}" USR2
trap "echo TERM >>{log}; exit 0" TERM
echo "start ${{SLURM_RESTART_COUNT:-0}}" >>{log}
while true; do sleep 0.1; done""")
    everything = ("--nodes=4", "--ntasks-per-node=1", "--exclusive")
    job = slurm.sbatch(f"srun --ntasks=1 --nodes=1 bash {task}", *everything, "--signal=USR2@60")
    wait_for_lines(log, 1)
    slurm.sbatch("sleep 1", *everything, "--partition=high")
    assert wait_for_lines(log, 4, seconds=90) == ["start 0", "USR2", "TERM", "start 1"]
    assert slurm.states(job) == {job: "RUNNING"}


def test_jobs_outlive_the_controller(slurm: Cluster, tmp_path: Path):
    job = slurm.sbatch(f"sleep 3; echo here >>{tmp_path}/log")
    slurm.wait_for("RUNNING", job)
    slurm.stop_controller()
    try:
        assert "is DOWN" in slurm.attempt("scontrol", "ping").stdout
        wait_for_lines(tmp_path / "log", 1)
    finally:
        slurm.start_controller()
    slurm.wait_for("COMPLETED", job)


def test_sacct_says_that_accounting_is_off(slurm: Cluster):
    done = slurm.attempt("sacct")
    assert done.returncode == 1
    assert "accounting storage is disabled" in done.stderr


def test_with_accounting_sacct_answers_and_limits_hold(accounting: Cluster):
    job = accounting.sbatch("exit 3")
    ask = (
        "sacct",
        "--noheader",
        "--parsable2",
        "--allocations",
        f"--jobs={job}",
        "--format=JobID,State,ExitCode,Account",
    )
    wait_until(lambda: accounting.run(*ask) == f"{job}|FAILED|3:0|research", 30)
    done = accounting.attempt("sbatch", "--array=0-5", "--wrap=true")
    assert done.returncode != 0
    assert "AssocMaxSubmitJobLimit" in done.stderr


def test_a_second_start_finds_it_running_and_stop_leaves_nothing(make_cluster: Callable[..., Cluster]):
    cluster = make_cluster(NODES=2, GPUS=0)
    cluster.sbatch("trap '' TERM; (setsid sleep 331 &); srun sleep 332", "--array=0-3")
    wait_until(lambda: " ".join(cluster.processes()).count("sleep 331") == 4, 20)
    pid = (cluster.root / "run" / "slurmctld.pid").read_text()
    cluster.start()
    assert (cluster.root / "run" / "slurmctld.pid").read_text() == pid
    cluster.options["MINJOBAGE"] = 10
    with pytest.raises(AssertionError, match="asked: MINJOBAGE=10"):
        cluster.start()
    cluster.stop()
    wait_until(lambda: not cluster.processes(), 5, " ".join(cluster.processes()))
    assert not cluster.root.exists()
    cluster.stop()


def test_a_start_that_fails_names_the_daemon_and_leaves_nothing(
    make_cluster: Callable[..., Cluster], tmp_path_factory: pytest.TempPathFactory
):
    folder = tmp_path_factory.mktemp("no")  # its sockets allow no long name
    cluster = Cluster(folder / "broken", NODES=1, EXTRA="PartitionName=ghost Nodes=nowhere")
    start = time.monotonic()
    with pytest.raises(AssertionError, match=r"slurmctld ended while starting(.|\n)*logs stay") as failure:
        cluster.start()
    assert "nowhere" in str(failure.value)
    assert time.monotonic() - start < 60
    assert not cluster.processes()
    cluster.stop()
    assert not cluster.root.exists()
