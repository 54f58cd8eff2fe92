"""`cwdpo doctor` on a real Slurm: a profile that fits, and faults of profile, site and nodes."""

from __future__ import annotations

import json
import re
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, get_args

import commands
import pytest
from cluster import Cluster, wait_until

from cwdpo.cli.doctor import line
from cwdpo.jobs.clusters import Kind, SlurmCluster
from cwdpo.jobs.doctor.slurm import check_slurm
from cwdpo.jobs.slurm.batch import trial_script

MAXSUBMIT = 20
"""More than all jobs of these tests: a queue that is full is another finding."""
SITE = {
    "ACCOUNTING": "slurmdbd", "MAXSUBMIT": MAXSUBMIT, "NODES": 2, "MAXARRAY": 500,
    "EXTRA": "PartitionName=short Nodes=ALL State=UP MaxTime=00:30:00 MaxNodes=1\n"
    "PartitionName=closed Nodes=ALL State=DOWN",
}  # fmt: skip
SHAPE = {"tasks_per_node": 1, "cpus_per_task": 1, "time": "00:20:00"}
FITTING: dict[str, Any] = {
    "kind": "slurm", "node": {"gpus": 0, "cpus": 16}, "train": {"nodes": 2, **SHAPE}, "generate": SHAPE,
    "score": SHAPE, "prepare": SHAPE, "ask": SHAPE, "max_array": 500, "max_submit": MAXSUBMIT,
}  # fmt: skip


@pytest.fixture(scope="module")
def site(make_cluster: Callable[..., Cluster]) -> Cluster:
    """A site with accounting and its limits, a partition for short jobs and one that is down."""
    return make_cluster(**SITE)


@pytest.fixture
def on_site(site: Cluster, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cluster]:
    """This process's commands of Slurm speak to it."""
    monkeypatch.setenv("SLURM_CONF", site.env["SLURM_CONF"])
    monkeypatch.setenv("PATH", site.env["PATH"])
    return site


def diagnosed(**changes: Any) -> list[str]:
    """What is said about a profile that differs from the fitting one in this, where it is not ok."""
    profile = SlurmCluster.model_validate({**FITTING, **changes})
    found = check_slurm(profile, lambda kind: trial_script(kind, profile))
    return [" ".join(line(finding).split()) for finding in found if finding.level != "ok"]


class Doctor:
    """The command in a home, with a profile and an annotated image on a grid's data set."""

    def __init__(self, site: Cluster, folder: Path, **changes: Any) -> None:
        self.home, self.profile, self.site = folder / "home", folder / "profile.yaml", site
        self.profile.write_text(json.dumps({**FITTING, **changes}))
        jars = folder / "jars"
        jars.mkdir()
        for name in ("stanford-corenlp-3.6.0.jar", "stanford-corenlp-3.6.0-models.jar"):
            (jars / name).touch()
        slurm = {key: site.env[key] for key in ("SLURM_CONF", "PATH")}
        self.environment = commands.environment(CWDPO_SPICE_JARS=str(jars), **slurm)
        self.line = commands.command("doctor", "-c", self.profile, "--home", self.home, "--submit")

    def start(self, *arguments: object) -> subprocess.Popen[str]:
        """Both streams are kept."""
        pipe = subprocess.PIPE
        return subprocess.Popen(
            [*self.line, *map(str, arguments)], env=self.environment, stdout=pipe, stderr=pipe, text=True,
            cwd=commands.REPO,
        )  # fmt: skip

    def left(self) -> list[str]:
        """Files of probes that were not removed."""
        return [str(path) for path in self.home.glob("doctor/*")]

    def queue(self) -> str:
        """Names of jobs that are not through."""
        return self.site.run("squeue", "--noheader", "--format=%j %T")


def nodes_of(done: tuple[str, str]) -> dict[str, dict[str, Any]]:
    """Name -> the finding about compute nodes, of the JSON that was printed."""
    found = {entry["name"]: entry for entry in json.loads(done[0])["nodes"]}
    assert found, done
    return found


# ---- jobs on two nodes, which go on while the other tests look at the site


@pytest.fixture(scope="module")
def probes(site: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    """Five doctors at once: all is well; GPUs are missing and an interface is misspelt; a job that never starts, one
    that is told to stop, one whose ranks do not start."""
    grid = tmp_path_factory.mktemp("grid")
    (grid / "grid.yaml").write_text(
        f"base: {{data: {{source: preferences, root: {grid}}}, model: {{source: tiny}}}}\ncases: {{base: {{}}}}\n"
    )
    (grid / "preferences.jsonl").write_text('{"image": "a.png", "chosen": "A ball.", "rejected": "A cube."}\n')
    (grid / "a.png").write_text("no image")
    folders = {name: tmp_path_factory.mktemp(name) for name in ("well", "ill", "late", "stopped", "blind")}
    doctors = {
        "well": Doctor(site, folders["well"]),
        "ill": Doctor(
            site, folders["ill"], node={"gpus": 2, "cpus": 16}, environment={"GLOO_SOCKET_IFNAME": "nonsense0"},
            generate={**SHAPE, "gpus_per_node": 0}, train={**SHAPE, "nodes": 2},
        ),
        "late": Doctor(site, folders["late"], sbatch={"begin": "now+600"}),
        "stopped": Doctor(site, folders["stopped"], sbatch={"begin": "now+600"}),
        "blind": Doctor(site, folders["blind"], setup=["srun() { echo no ranks here; }"]),
    }  # fmt: skip
    arguments = {"well": ["--json"], "ill": ["--json", "--grid", grid / "grid.yaml"], "late": ["--wait", 0.3]}
    running = {name: doctor.start(*arguments.get(name, [])) for name, doctor in doctors.items()}
    yield {"doctors": doctors, "running": running}
    for process in running.values():
        process.kill()
        process.wait()


@pytest.fixture(scope="module", autouse=True)
def _begun_first(probes: dict[str, Any]) -> None:
    """Jobs take as long as all other tests together."""


@pytest.fixture
def changing(on_site: Cluster, probes: dict[str, Any]) -> Cluster:
    """The site, once the doctors above have looked at it as it was: all their jobs were submitted."""

    def names() -> list[str]:
        return on_site.run("squeue", "--noheader", "--states=all", "--format=%j").splitlines()

    wait_until(lambda: sum("cwdpo-doctor" in name for name in names()) >= len(probes["doctors"]), 60, "jobs of doctors")
    return on_site


# ---- the site


def test_a_profile_that_fits(on_site: Cluster) -> None:
    assert diagnosed() == []


def test_a_profile_with_a_fault_in_every_kind_of_job(on_site: Cluster) -> None:
    found = diagnosed(
        prepare={**SHAPE, "partition": "mian"},
        train={**SHAPE, "partition": "short", "time": "01:00:00"},
        node={"gpus": 8, "cpus": 64, "memory_gb": 500},
        generate={**SHAPE, "cpus_per_task": 64},
        score={**SHAPE, "partition": "closed"},
        max_array=1001,
        max_submit=0,
    )
    assert found == [
        "failure Slurm MaxArraySize 500, but max_array is 1001: Slurm would refuse larger arrays"
        " -> cluster profile: max_array: 500",
        "failure Slurm prepare there is no partition 'mian'; did you mean 'main'? valid: closed, high, main, short"
        " -> cluster profile: partition: one of closed, high, main, short",
        "failure Slurm train time 01:00:00, but partition short allows 00:30:00: such jobs would wait for ever"
        ' -> cluster profile: train: {time: "00:30:00"}',
        "failure Slurm train asks for 1 node(s) with 1 core(s), 500 GB, 8 GPU(s); 0 node(s) of partition short have"
        " that: 16 cores, 16 GB, 2 GPU(s)"
        " -> cluster profile: node (gpus, cpus, memory_gb, gpu_type), constraint, train.nodes",
        "failure Slurm generate asks for 1 node(s) with 64 core(s), 500 GB, 8 GPU(s); 0 node(s) of partition main have"
        " that: 16 cores, 16 GB, 2 GPU(s)"
        " -> cluster profile: node (gpus, cpus, memory_gb, gpu_type), constraint, generate.nodes",
        "failure Slurm score partition closed is DOWN -> cluster profile: another partition, or ask the site",
        "failure Slurm MaxSubmit 20 jobs in the queue (account research), but max_submit is no limit: Slurm refuses the"
        " rest of a grid"
        " -> cluster profile: max_submit: 20",
    ]


def test_what_slurm_itself_refuses_and_names_that_it_does_not_know(on_site: Cluster) -> None:
    found = diagnosed(exclude=["node7"], account="reserch", train={**SHAPE, "nodes": 2, "partition": "short"})
    assert any("failure Slurm train 2 nodes, but partition short allows 1 -> " in text for text in found), found
    assert any(text.startswith("failure Slurm score sbatch: ") and "exclude" in text for text in found), found
    assert found[-1] == (
        "failure Slurm account root has no account 'reserch'; did you mean 'research'? valid: research, root"
        " -> cluster profile: account: one of research, root"
    )
    (qos,) = [text for text in diagnosed(qos="long") if "Slurm QOS" in text]
    assert qos == "failure Slurm QOS there is no QOS 'long'; valid: normal -> cluster profile: qos: one of normal"


def test_limits_of_time_and_drained_nodes(changing: Cluster) -> None:
    changing.run("sacctmgr", "-i", "modify", "user", "root", "set", "MaxWall=00:10:00")
    changing.run("scontrol", "update", "nodename=node1", "state=drain", "reason=test")
    try:
        found = diagnosed()
    finally:
        changing.run("scontrol", "update", "nodename=node1", "state=resume")
        changing.run("sacctmgr", "-i", "modify", "user", "root", "set", "MaxWall=-1")
    wall = (
        "failure Slurm MaxWall train.time is 00:20:00, but account research allows 00:10:00 -> cluster profile: train:"
    )
    assert any(text.startswith(wall) for text in found), found
    assert any(text.startswith("warning Slurm train fits partition main, but node1 drain") for text in found), found


def test_a_limit_of_a_qos_goes_before_that_of_the_account(changing: Cluster) -> None:
    """What Slurm itself does is looked at, too: a job that is longer than its account allows starts in that QOS."""
    manage = ("sacctmgr", "-i")
    changing.run(*manage, "add", "qos", "long", "set", "MaxWall=1-00:00:00", "MaxSubmitJobsPerUser=3")
    changing.run(*manage, "add", "qos", "debug", "set", "MaxWall=00:30:00")
    changing.run(*manage, "modify", "user", "root", "set", "qos=normal,debug,long", "MaxWall=01:00:00")
    try:
        found = diagnosed(
            train={**SHAPE, "qos": "long", "time": "02:00:00"}, generate={**SHAPE, "qos": "debug"},
            score={**SHAPE, "qos": "debug", "time": "00:45:00"}, prepare={**SHAPE, "time": "01:30:00"},
        )  # fmt: skip
        changing.wait_for("COMPLETED", changing.sbatch("true", "--qos=long", "--time=02:00:00"))
        changing.run("sacctmgr", "-i", "add", "qos", "wide", "set", "MaxWall=2-00:00:00")
        changing.run("scontrol", "update", "partitionname=high", "qos=wide")
        widest = diagnosed(qos="debug", train={**SHAPE, "partition": "high", "time": "1-12:00:00"})
    finally:
        changing.run(*manage, "modify", "user", "root", "set", "qos=normal", "MaxWall=-1")
        changing.run("scontrol", "update", "partitionname=high", "qos=")
        changing.run(*manage, "delete", "qos", "long,debug,wide")
    time = "failure Slurm MaxWall {0}.time is {1}, but {2} -> cluster profile: {0}: {{time: {3}}}, or another qos"
    assert found == [
        "failure Slurm MaxSubmit 3 jobs in the queue (QOS long), but max_submit is 20: Slurm refuses the rest of a grid"
        " -> cluster profile: max_submit: 3",
        time.format("prepare", "01:30:00", "account research allows 01:00:00", '"01:00:00"'),
        time.format("score", "00:45:00", "QOS debug allows 00:30:00", '"00:30:00"'),
    ]
    assert widest == [], "that of a partition goes before all"


def test_an_account_with_limits_in_one_partition(changing: Cluster) -> None:
    manage, user = ("sacctmgr", "-i"), ("user", "root", "account=lab")
    changing.run(*manage, "add", "account", "lab")
    changing.run(*manage, "add", *user, "partition=short", "MaxWall=00:10:00")
    try:
        only_there = diagnosed(account="lab", score={**SHAPE, "partition": "short", "time": "00:05:00"})
        changing.run(*manage, "add", *user)
        both = diagnosed(account="lab", score={**SHAPE, "partition": "short"})
    finally:
        changing.run(*manage, "delete", "account", "lab")
    nowhere = "failure Slurm account account lab is not for partition 'main'; valid: short -> cluster profile: account"
    assert only_there[-1].startswith(nowhere)
    assert [text for text in both if "MaxWall" in text] == [
        "failure Slurm MaxWall score.time is 00:20:00, but account lab allows 00:10:00"
        ' -> cluster profile: score: {time: "00:10:00"}, or another qos'
    ]


def test_a_queue_that_is_full_is_no_fault_of_the_profile(changing: Cluster) -> None:
    waiting = changing.sbatch("true", "--hold")
    changing.run("sacctmgr", "-i", "modify", "user", "root", "set", "MaxSubmitJobs=1")
    try:
        found = diagnosed(max_submit=1)
    finally:
        changing.run("scancel", waiting)
        changing.run("sacctmgr", "-i", "modify", "user", "root", "set", f"MaxSubmitJobs={MAXSUBMIT}")
    assert len(found) == len(get_args(Kind)), found
    full = "not checked: you have as many jobs in the queue as you may (sbatch: AssocMaxSubmitJobLimit; "
    assert all(text.startswith("warning Slurm ") and full in text for text in found), found


# ---- the jobs


def test_two_nodes_that_are_well(probes: dict[str, Any]) -> None:
    doctor, running = probes["doctors"]["well"], probes["running"]["well"]
    done = running.communicate(timeout=900)
    found = nodes_of(done)
    whole = json.loads(done[0])
    assert (running.returncode, whole["counts"]["failure"]) == (0, 0), [e for e in found.values() if e["level"] != "ok"]
    assert {entry["level"] for entry in found.values()} == {"ok"}, found
    assert found["all-reduce"]["found"] == "2 rank(s) on 2 node(s) met and added up right"
    assert "gloo over TCP on lo (127.0.0.1)" in found["bandwidth"]["found"]
    clocks = re.fullmatch(r"those of (node\d) and those of (node\d) agree to 2 s", found["clocks of nodes"]["found"])
    assert clocks is not None, found["clocks of nodes"]
    assert set(clocks.groups()) == {"node0", "node1"}
    assert {
        "GPUs",
        "packages",
        "ports taken",
        "node's clock",
        "shared home",
        "Java",
        "SPICE",
        "container",
    } <= found.keys()
    assert doctor.left() == []


def test_two_nodes_that_are_not(probes: dict[str, Any]) -> None:
    """Three faults at once: each has its line, and the exchange that cannot work does not hide what else was found."""
    doctor, running = probes["doctors"]["ill"], probes["running"]["ill"]
    done = running.communicate(timeout=900)
    found = nodes_of(done)
    assert running.returncode == 1
    assert " sees 0 GPU(s), the profile says 2 a node; " in found["GPUs"]["found"]
    assert "node.gpus" in found["GPUs"]["remedy"]
    assert "Unable to find address for: nonsense0" in found["all-reduce"]["found"]
    assert "GLOO_SOCKET_IFNAME is nonsense0; this node has lo (127.0.0.1)" in found["all-reduce"]["remedy"]
    assert found["clocks of nodes"]["found"] == "not checked: the ranks did not meet"
    (images,) = [entry for name, entry in found.items() if name.startswith("images ")]
    assert "a.png: not an image (8 bytes)" in images["found"]
    assert found["packages"]["level"] == "ok"
    (folder,) = doctor.left()
    assert f"what the job wrote is in {folder}" in done[1]


def test_a_home_that_nodes_do_not_see(probes: dict[str, Any]) -> None:
    """Emulated by a job that starts nothing: its ranks write nothing, and what the job said is shown."""
    out, err = probes["running"]["blind"].communicate(timeout=900)
    (text,) = [entry for entry in out.splitlines() if "wrote nothing" in entry]
    assert "rank(s) 0, 1 wrote nothing; its log ends: no ranks here -> see that all nodes see this home" in text, err


def test_ctrl_c_takes_the_job_away(probes: dict[str, Any]) -> None:
    doctor, running = probes["doctors"]["stopped"], probes["running"]["stopped"]
    running.send_signal(signal.SIGINT)
    out, err = running.communicate(timeout=900)
    assert running.returncode == 130, out + err
    wait_until(lambda: doctor.queue() == "", 30, "no job stays; one waits 0.3 minutes by itself")
    assert doctor.left() == []


def test_a_job_that_never_starts_is_taken_away(probes: dict[str, Any]) -> None:
    running = probes["running"]["late"]
    out, err = running.communicate(timeout=900)
    (late,) = [" ".join(text.split()) for text in out.splitlines() if "probe job " in text]
    still = (
        "warning probe job not checked: after 0.3 minute(s) its job was still PENDING (BeginTime), and was cancelled"
    )
    assert late.startswith(f"{still} -> a longer --wait; "), err
    assert running.returncode == 0, "a full cluster is no fault"
    assert probes["doctors"]["late"].left() == []


def test_a_controller_that_is_down(on_site: Cluster) -> None:
    """The last one: the site is of no use to others meanwhile."""
    on_site.stop_controller()
    try:
        found = diagnosed()
    finally:
        on_site.start_controller()
    assert found[0].startswith("failure Slurm the controller does not answer (scontrol ping: "), found
    assert found[1] == "warning Slurm limits not checked: the controller does not answer"
