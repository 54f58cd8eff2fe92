"""The script that sbatch gets: submitit writes the header, `host.sh` is the body."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cwdpo.base.errors import Interrupted
from cwdpo.jobs.clusters import Kind, Resources, SlurmCluster, minutes_of
from cwdpo.jobs.containers.bare import Bare
from cwdpo.jobs.containers.host import Host, visible
from cwdpo.jobs.containers.image import VARIABLE, Image
from cwdpo.jobs.slurm.arrays import Array

EARLY_SECONDS = 60
"""Slurm may send the signal before a time limit by so much earlier than asked."""

HOST = Path(__file__).with_name("host.sh")


RANK_VARIABLES = (
    "SLURM_PROCID", "SLURM_LOCALID", "SLURM_NTASKS", "SLURM_STEP_NUM_TASKS", "SLURM_JOB_ID", "SLURM_RESTART_COUNT",
    "SLURM_ARRAY_JOB_ID", "SLURM_ARRAY_TASK_ID", "SLURM_STEP_NODELIST", "SLURM_JOB_NODELIST", "SLURMD_NODENAME",
    "CUDA_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES",
)  # fmt: skip
"""What Slurm tells a rank."""


def script(
    record: Path,
    array: Array,
    cluster: SlurmCluster,
    code: Path,
    image: Image | None = None,
    folders: Sequence[Path] = (),
) -> str:
    """Text of the script of one array, without its dependency, which sbatch gets on the command line.

    Args:
        record: folder of the array in the ledger.
        code: folder to put first on PYTHONPATH.
        image: what the ranks run in.
        folders: what they read and write.
    """
    resources = cluster.resources(array.kind)
    settings = _settings(record, resources, cluster, code, image, folders)
    body = "\n".join([*settings, HOST.read_text(encoding="utf-8")])
    return _with_header(record, array.name, body, _parameters(record, array, resources, cluster))


def side_script(folder: Path, name: str, cluster: SlurmCluster, code: Path, command: list[str]) -> str:
    """Text of the script of a plain one-core job that runs a command of cwdpo outside any container.

    Stopped by a signal (status 75), it goes back to the queue.
    """
    line = shlex.join([sys.executable, "-m", "cwdpo", *command])
    again = f'[ "$status" -eq {Interrupted.exit_code} ] && scontrol requeue "$SLURM_JOB_ID"'
    run = [f"srun --ntasks=1 {line}", "status=$?", again, "exit $status"]
    configs = f"export CWDPO_CONFIGS={shlex.quote(str(code / 'configs'))}"
    body = "\n".join([*_environment(cluster, code), configs, *cluster.setup, *run])
    shape = cluster.score
    parameters = {
        **_where(cluster, shape.partition or cluster.partition, shape.constraint or cluster.constraint,
                 shape.qos or cluster.qos),
        "nodes": 1, "ntasks-per-node": 1, "cpus-per-task": 1, "time": minutes_of(shape.time), "requeue": True,
        "output": str(folder / "out"), "error": None,
    }  # fmt: skip
    return _with_header(folder, name, body, parameters)


def trial_script(kind: Kind, cluster: SlurmCluster) -> str:
    """Text of a script that asks for what a job of this kind asks for, to ask Slurm about; it does nothing."""
    parameters = {**_wanted(cluster.resources(kind), cluster), "output": "/dev/null", "error": None}
    return _with_header(Path("/dev"), "cwdpo-doctor", "true", parameters)


def probe_script(
    folder: Path, name: str, cluster: SlurmCluster, resources: Resources, code: Path, image: Image | None,
    folders: Sequence[Path],
) -> str:  # fmt: skip
    """Text of the script of `doctor`'s job: each rank writes into `folder` what it finds.

    Args:
        folders: what ranks see inside of an image.
    """
    module = "cwdpo.jobs.doctor.compute"
    task = rank_command(cluster, resources.gpus_per_node > 0, code, image, folders, module)
    run = shlex.join(["srun", "--kill-on-bad-exit=0", *_step(resources), *task, str(folder)])
    body = "\n".join([*_environment(cluster, code, image), *cluster.setup, run])
    parameters = {**_wanted(resources, cluster), "no-requeue": True, "output": str(folder / "out"), "error": None}
    return _with_header(folder, name, body, parameters)


def index_list(indices: list[int]) -> str:
    """`0-3,7` for [0, 1, 2, 3, 7]."""
    parts: list[list[int]] = []
    for index in sorted(indices):
        if parts and index == parts[-1][1] + 1:
            parts[-1][1] = index
        else:
            parts.append([index, index])
    return ",".join(str(first) if first == last else f"{first}-{last}" for first, last in parts)


def _with_header(record: Path, name: str, body: str, parameters: Mapping[str, Any]) -> str:
    """Header by submitit, then the body; `None` takes an option of submitit's away."""
    from submitit.slurm.slurm import _make_sbatch_string  # the one function of it that needs no Slurm and no pickles

    text = _make_sbatch_string(
        command=body, folder=record, job_name=name, wckey="", use_srun=False,
        signal_delay_s=parameters.get("signal_seconds", 90),
        additional_parameters={key: value for key, value in parameters.items() if key != "signal_seconds"},
    )  # fmt: skip
    unset = {f"#SBATCH --{key}=None" for key, value in parameters.items() if value is None} | {"#SBATCH --wckey=''"}
    return "\n".join(line for line in text.splitlines() if line not in unset) + "\n"


def _parameters(record: Path, array: Array, resources: Resources, cluster: SlurmCluster) -> dict[str, Any]:
    limit = f"%{cluster.parallel}" if cluster.parallel else ""
    return {
        **_wanted(resources, cluster),
        "array": index_list(list(array.elements)) + limit,
        "requeue": True,
        "output": f"{record}/logs/%a.out",
        "error": None,
        "signal_seconds": cluster.signal_seconds,
    }


def _wanted(resources: Resources, cluster: SlurmCluster) -> dict[str, Any]:
    """Where, how many, how long."""
    gpus = f"{cluster.node.gpu_type}:{resources.gpus_per_node}" if cluster.node.gpu_type else resources.gpus_per_node
    return {
        **_where(cluster, resources.partition, resources.constraint, resources.qos),
        "nodes": resources.nodes,
        "ntasks-per-node": resources.tasks_per_node,
        "cpus-per-task": resources.cpus_per_task,
        "time": resources.minutes,
        **({"gpus-per-node": gpus} if resources.gpus_per_node else {}),
        **({"mem": f"{int(resources.memory_gb * 1024)}M"} if resources.memory_gb else {}),
    }


def _where(cluster: SlurmCluster, partition: str | None, constraint: str | None, qos: str | None) -> dict[str, Any]:
    chosen = {
        "partition": partition, "account": cluster.account, "qos": qos, "constraint": constraint,
        "exclude": ",".join(cluster.exclude) or None,
    }  # fmt: skip
    further = {key.replace("_", "-"): value for key, value in cluster.sbatch.items() if value is not False}
    return {key: value for key, value in {**chosen, **further}.items() if value is not None}


def rank_command(
    cluster: SlurmCluster, gpus: bool, code: Path, image: Image | None, folders: Sequence[Path], module: str
) -> list[str]:
    """How srun starts `python -m module` as a rank, in what the profile says jobs run in.

    Args:
        gpus: True where it uses any.
        folders: what it reads and writes; seen inside under the same paths.
    """
    names = [*_variables(cluster, code, image), *RANK_VARIABLES]
    host = Host(
        code=code,
        image=Path(image.path) if image else None,
        folders=visible(folders),
        variables=tuple(names),
        gpus=gpus,
    )
    return cluster.container.enter(["-m", module], host)


def _settings(
    record: Path, resources: Resources, cluster: SlurmCluster, code: Path, image: Image | None, folders: Sequence[Path]
) -> list[str]:
    """What `host.sh` needs to know."""
    task = rank_command(cluster, resources.gpus_per_node > 0, code, image, folders, "cwdpo.jobs.slurm.task")
    return [
        f"record={shlex.quote(str(record))}",
        f"task=({shlex.join(task)})",
        f"verdict=({shlex.join([host_python(cluster), '-m', 'cwdpo.jobs.slurm.verdict'])})",
        f"shape=({shlex.join(_step(resources))})",
        f"limit={max(0, 60 * resources.minutes - cluster.signal_seconds - EARLY_SECONDS)}",
        *([f"image={shlex.quote(image.path)}", f"submitted='{image.size} {image.modified}'"] if image else ["image="]),
        *_environment(cluster, code, image),
        *cluster.setup,
    ]


def _step(resources: Resources) -> list[str]:
    """Options of srun."""
    return [
        f"--nodes={resources.nodes}", f"--ntasks-per-node={resources.tasks_per_node}",
        f"--cpus-per-task={resources.cpus_per_task}",
    ]  # fmt: skip


def host_python(cluster: SlurmCluster) -> str:
    """The interpreter outside of any image, where Slurm's commands are."""
    return (cluster.container.python if isinstance(cluster.container, Bare) else None) or sys.executable


def _environment(cluster: SlurmCluster, code: Path, image: Image | None = None) -> list[str]:
    return [f"export {name}={shlex.quote(value)}" for name, value in _variables(cluster, code, image).items()]


def _variables(cluster: SlurmCluster, code: Path, image: Image | None) -> dict[str, str]:
    """What this program and the profile set for every process of a job."""
    return {
        "PYTHONPATH": str(code),
        "PYTHONSAFEPATH": "1",
        "PYTHONNOUSERSITE": "1",
        "PYTHONUNBUFFERED": "1",
        "CWDPO_COLLECTIVE_TIMEOUT": str(cluster.collective_timeout),
        **({VARIABLE: image.digest} if image else {}),
        **({"TMPDIR": cluster.scratch} if cluster.scratch else {}),
        **cluster.environment,
    }
