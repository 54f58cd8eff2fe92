"""Cluster profiles: what jobs ask for, and what is said about a wrong key."""

from __future__ import annotations

from pathlib import Path

import pytest

from cwdpo.base.errors import ConfigError, NotAvailable
from cwdpo.jobs.clusters import KINDS, SlurmCluster, check_slurm, load_cluster, minutes_of
from cwdpo.jobs.slurm.arrays import Array
from cwdpo.jobs.slurm.batch import script
from cwdpo.pipeline import STAGES

NODE = {"gpus": 4, "cpus": 64, "memory_gb": 480}


def cluster(**settings: object) -> SlurmCluster:
    return SlurmCluster.model_validate({"kind": "slurm", "node": NODE, **settings})


def refused(tmp_path: Path, text: str) -> str:
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        load_cluster(str(path))
    assert str(path) in str(caught.value)
    return str(caught.value)


def test_every_stage_has_a_kind_of_job() -> None:
    assert KINDS.keys() == STAGES.keys()


def test_a_training_takes_whole_nodes_and_a_score_one_core() -> None:
    found = cluster(train={"nodes": 2, "time": "1-02:00:00"})
    train = found.resources("train")
    assert (train.ranks, train.gpus_per_node, train.cpus_per_task, train.memory_gb) == (8, 4, 16, 480)
    assert train.minutes == 26 * 60
    score = found.resources("score")
    assert (score.ranks, score.gpus_per_node, score.cpus_per_task, score.memory_gb) == (1, 0, 1, 0)
    assert found.ranks_of("train") == 8


def test_a_kind_may_go_elsewhere() -> None:
    found = cluster(partition="gpu", qos="long", score={"partition": "cpu", "qos": "short"})
    assert (found.resources("train").partition, found.resources("score").partition) == ("gpu", "cpu")
    assert (found.resources("train").qos, found.resources("score").qos) == ("long", "short")


@pytest.mark.parametrize(
    ("text", "minutes"), [("00:30:00", 30), ("24:00:00", 1440), ("2-00:00:00", 2880), ("00:00:30", 1), ("01:30", 90)]
)
def test_time_limits(text: str, minutes: int) -> None:
    assert minutes_of(text) == minutes


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("kind: slrum\nnode: {gpus: 1, cpus: 1}", "'slrum'; did you mean 'slurm'?"),
        ("kind: slurm\nnode: {gpus: 1, cpus: 1}\npartion: gpu", "partion"),
        ("kind: slurm", "node"),
        ("kind: slurm\nnode: {gpus: 4, cpus: 8}\ntrain: {gpus_per_node: 8}", "train.gpus_per_node 8: a node has 4"),
        ("kind: slurm\nnode: {gpus: 4, cpus: 8}\ntrain: {cpus_per_task: 4}", "do not fit a node of 8"),
        ("kind: slurm\nnode: {gpus: 4, cpus: 8}\ntrain: {tasks_per_node: 8}", "train.tasks_per_node 8: a rank takes a"),
        ("kind: slurm\nnode: {gpus: 4, cpus: 8}\ntrain: {time: soon}", "expected HH:MM:SS"),
        ("kind: slurm\nnode: {gpus: 4, cpus: 8}\ntrain: {time: '0:00:00'}", "longer than nothing"),
        ("kind: slurm\nnode: {gpus: 4, cpus: 8}\nports: [30000, 40000]", "between 1024 and 32767"),
        ("kind: slurm\nnode: {gpus: 4, cpus: 8}\nsbatch: {array: 1-3}", "array: set by cwdpo itself"),
        ("kind: slurm\nnode: {gpus: 4, cpus: 8}\nenvironment: {PYTHONPATH: /x}", "PYTHONPATH: set by cwdpo itself"),
        ("kind: slurm\nnode: {gpus: 4, cpus: 8}\nenvironment: {A B: x}", "cannot be the name of a variable"),
        ("kind: slurm\nnode: {gpus: 4, cpus: 8}\nbundle: [scores]", "bundle"),
        ("kind: slurm\nnode: {gpus: 4, cpus: 8}\nmax_array: 1", "max_array"),
    ],
)
def test_a_wrong_key_or_value_is_named(tmp_path: Path, text: str, said: str) -> None:
    assert said in refused(tmp_path, text)


def test_where_there_is_no_slurm_the_way_out_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(NotAvailable, match="cluster 'x' needs Slurm, but there is no sbatch on the PATH: log in"):
        check_slurm("cluster 'x' needs Slurm", "log in")


def test_the_script_says_what_the_profile_says(tmp_path: Path) -> None:
    found = cluster(
        partition="gpu", account="me", constraint="a100", exclude=["n1", "n2"], train={"nodes": 2},
        sbatch={"reservation": "dl", "exclusive": True, "mail_type": "FAIL"}, environment={"NCCL_SOCKET_IFNAME": "ib0"},
        setup=["module load cuda"], parallel=3, scratch="/scratch",
    )  # fmt: skip
    text = script(tmp_path / "record", Array("name", "train", {0: None, 1: None, 7: None}), found, tmp_path / "code")  # type: ignore[dict-item]
    for line in (
        "--partition=gpu", "--account=me", "--constraint=a100", "--exclude=n1,n2", "--nodes=2", "--ntasks-per-node=4",
        "--gpus-per-node=4", "--cpus-per-task=16", "--mem=491520M", "--time=1440", "--array=0-1,7%3", "--job-name=name",
        "--reservation=dl", "--exclusive", "--mail-type=FAIL", "--requeue", "--open-mode=append", "--signal=USR2@120",
    ):  # fmt: skip
        assert f"#SBATCH {line}\n" in text, line
    assert "export NCCL_SOCKET_IFNAME=ib0\n" in text
    assert "export TMPDIR=/scratch\n" in text
    assert text.index("module load cuda") < text.index("srun ")
    assert "submitit" not in "".join(line for line in text.splitlines() if line.startswith("#SBATCH"))
