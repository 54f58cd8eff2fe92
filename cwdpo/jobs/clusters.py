"""Cluster profiles: where jobs run. `local` runs them as processes of this machine, `slurm` as job arrays."""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import dataclass
from typing import Annotated, Any, Literal, get_args

from pydantic import Field, TypeAdapter, field_validator, model_validator

from cwdpo.base.config import Config, read_yaml, validate
from cwdpo.base.errors import ConfigError, NotAvailable, name_valid
from cwdpo.experiment import find_config
from cwdpo.jobs.containers import Container
from cwdpo.jobs.containers.bare import Bare

Kind = Literal["prepare", "ask", "train", "generate", "score"]
"""Kinds of jobs: each has its own resources."""

KINDS: dict[str, Kind] = {
    "world": "prepare",
    "pairs": "prepare",
    "answers": "generate",
    "critique": "generate",
    "llm": "ask",
    "negatives": "prepare",
    "pretrain": "train",
    "stage1": "train",
    "sft_phase": "train",
    "reference": "generate",
    "probe_set": "generate",
    "frequencies": "prepare",
    "stage2": "train",
    "probe": "generate",
    "influence": "generate",
    "demo_benchmark": "prepare",
    "questions": "prepare",
    "generate": "generate",
    "judge": "ask",
    "score": "score",
}
"""Stage -> the kind of job that computes it."""

OURS = frozenset({
    "array", "dependency", "job-name", "output", "error", "open-mode", "signal", "requeue", "no-requeue", "nodes",
    "ntasks", "ntasks-per-node", "gpus-per-node", "cpus-per-task", "mem", "time", "partition", "account", "qos",
    "constraint", "exclude", "chdir", "export", "wrap", "parsable", "hold", "test-only", "comment",
})  # fmt: skip
"""Options of sbatch that have a key of their own, or that the submission depends on."""

OUR_VARIABLES = ("PYTHONPATH", "PYTHONSAFEPATH", "PYTHONNOUSERSITE", "CWDPO_IMAGE")
"""Variables that make jobs run the code that was submitted, in the image that was submitted."""

EPHEMERAL = 32768
"""First port that Linux hands out to programs that did not ask for one."""


def minutes_of(text: str) -> int:
    """Minutes of a time limit, rounded up as Slurm does.

    Raises:
        ValueError: not `HH:MM:SS`, `HH:MM`, `D-HH:MM:SS`, or not longer than nothing.
    """
    days, _, clock = text.rpartition("-")
    parts = clock.split(":")
    if not (2 <= len(parts) <= 3 and all(part.isdigit() for part in [*parts, days or "0"])):
        raise ValueError(f"time '{text}': expected HH:MM:SS or D-HH:MM:SS, in quotes")
    hours, minutes, seconds = (int(part) for part in [*parts, "0"][:3])
    total = ((int(days or 0) * 24 + hours) * 60 + minutes) * 60 + seconds
    if total == 0:
        raise ValueError(f"time '{text}': must be longer than nothing")
    return -(-total // 60)


class LocalCluster(Config):
    """Processes of this machine, no scheduler."""

    kind: Literal["local"]
    jobs: Annotated[int, Field(ge=0)] = 0
    """Jobs at a time; 0 is one per group of GPUs, or one per CPU core up to four where there is no GPU."""
    ranks: Annotated[int, Field(gt=0)] = 1
    """Processes of a training, reference or generation job; on a GPU machine each takes one GPU."""
    threads: Annotated[int, Field(ge=0)] = 0
    """CPU threads of a rank; 0 shares the cores out evenly."""

    def resolved(self) -> LocalCluster:
        """The same with every 0 replaced by what this machine has.

        Raises:
            ConfigError: more ranks than GPUs.
        """
        gpus, cores = gpu_count(), len(os.sched_getaffinity(0))
        together = max(self.jobs, 1)
        if gpus and self.ranks * together > gpus:
            raise ConfigError(
                f"cluster: {together} job(s) of {self.ranks} rank(s) take a GPU each, but this machine shows {gpus}"
            )
        jobs = self.jobs or (gpus // self.ranks if gpus else max(1, min(4, cores // self.ranks)))
        threads = self.threads or max(1, cores // (jobs * self.ranks))
        return self.model_copy(update={"jobs": jobs, "threads": threads})

    def ranks_of(self, kind: Kind) -> int:
        """Processes of a job of this kind."""
        return self.ranks if kind in ("train", "generate") else 1


class NodeType(Config):
    """What one compute node has."""

    gpus: Annotated[int, Field(ge=0)]
    """GPUs of a node; a job that uses GPUs takes all of them, one rank each."""
    cpus: Annotated[int, Field(gt=0)]
    """CPU cores of a node, as Slurm counts them."""
    memory_gb: Annotated[float, Field(ge=0)] = 0
    """Memory of a node that jobs may take; 0 leaves it to the site's default."""
    gpu_memory_gb: Annotated[float, Field(ge=0)] = 0
    """Memory of one GPU, in 10^9 bytes; with 0 `plan` does not say whether a second copy of a model fits."""
    gpu_type: str | None = None
    """Type in the GPU request, such as `a100`, where the site wants one."""


class Shape(Config):
    """Resources of one kind of job; what is left out follows from the profile."""

    nodes: Annotated[int, Field(gt=0)] = 1
    """Nodes of a job."""
    tasks_per_node: Annotated[int, Field(gt=0)] | None = None
    """Ranks on a node; one per GPU, one without GPUs."""
    gpus_per_node: Annotated[int, Field(ge=0)] | None = None
    """GPUs on a node; all of them for `train` and `generate`, none for the others."""
    cpus_per_task: Annotated[int, Field(gt=0)] | None = None
    """Cores of a rank; an even share for `train` and `generate`, one for the others."""
    memory_gb: Annotated[float, Field(ge=0)] | None = None
    """Memory on a node; all of it for `train` and `generate`, the site's default for the others."""
    time: str = "24:00:00"
    """Time limit: `HH:MM:SS` or `D-HH:MM:SS`. Work that is cut off goes on in the next job."""
    partition: str | None = None
    """Instead of the profile's."""
    constraint: str | None = None
    """Instead of the profile's."""
    qos: str | None = None
    """Instead of the profile's."""

    @field_validator("time")
    @classmethod
    def _readable(cls, value: str) -> str:
        minutes_of(value)
        return value


@dataclass(frozen=True)
class Resources:
    """What one job asks for.

    Attributes:
        minutes: time limit.
        memory_gb: per node; 0 is the site's default.
    """

    kind: Kind
    nodes: int
    tasks_per_node: int
    gpus_per_node: int
    cpus_per_task: int
    memory_gb: float
    minutes: int
    partition: str | None
    constraint: str | None
    qos: str | None

    @property
    def ranks(self) -> int:
        """Processes of the job."""
        return self.nodes * self.tasks_per_node


class SlurmCluster(Config):
    """Job arrays of a Slurm cluster."""

    kind: Literal["slurm"]
    partition: str | None = None
    """Where jobs go; the site's default where nothing is said."""
    account: str | None = None
    """Who pays."""
    qos: str | None = None
    """Quality of service."""
    constraint: str | None = None
    """Features nodes must have."""
    node: NodeType
    """What one compute node has."""
    prepare: Shape = Shape(time="04:00:00")
    """Data preparation: one process on CPUs."""
    ask: Shape = Shape(time="04:00:00")
    """Asking an LLM endpoint: one process on CPUs, where it can be reached."""
    train: Shape = Shape()
    """Both stages of training, and pretraining."""
    generate: Shape = Shape()
    """Generation and the reference pass."""
    score: Shape = Shape(time="04:00:00")
    """Scoring: one process on CPUs, with Java."""
    container: Container = Bare()
    """What a job runs in."""
    environment: dict[str, str] = {}
    """Variables of every rank, such as NCCL_SOCKET_IFNAME."""
    setup: tuple[str, ...] = ()
    """Lines of bash before a job starts, such as `module load cuda`."""
    bundle: tuple[Literal["prepare", "generate", "score"], ...] = ("prepare", "generate", "score")
    """Stages that share a job: all data preparation; the generations, the scores of one policy (it is loaded once)."""
    max_array: Annotated[int, Field(gt=1)] = 1001
    """The site's MaxArraySize: no index may reach it."""
    max_submit: Annotated[int, Field(ge=0)] = 0
    """Array elements in the queue at a time (the site's MaxSubmitJobs); the rest follows in waves; 0 is no limit."""
    parallel: Annotated[int, Field(ge=0)] = 0
    """Elements of one array that run at a time; 0 is no limit."""
    ports: tuple[int, int] = (20000, 32767)
    """First and last port for ranks to meet on; below 32768, where programs draw random ports."""
    scratch: str | None = None
    """Folder on a node's own disk for temporary files (TMPDIR of every rank); the site's where nothing is said."""
    signal_seconds: Annotated[int, Field(ge=10)] = 120
    """Seconds before the time limit at which a job is asked to save and go back to the queue."""
    attempts: Annotated[int, Field(gt=0)] = 5
    """Failed runs of one stage after which it is given up."""
    collective_timeout: Annotated[int, Field(gt=0)] = 600
    """Seconds a rank waits for others in one exchange of gradients before it says who is missing."""
    exclude: tuple[str, ...] = ()
    """Nodes never to use."""
    sbatch: dict[str, str | int | bool] = {}
    """Further options of sbatch by name, such as `reservation: dl`."""

    @field_validator("ports")
    @classmethod
    def _usable(cls, value: tuple[int, int]) -> tuple[int, int]:
        first, last = value
        if not (1024 <= first < last < EPHEMERAL):
            raise ValueError(f"first and last port between 1024 and {EPHEMERAL - 1}, the first one lower")
        return value

    @field_validator("environment")
    @classmethod
    def _names(cls, value: dict[str, str]) -> dict[str, str]:
        wrong = [name for name in value if not name.isidentifier()]
        if wrong:
            raise ValueError(f"'{wrong[0]}' cannot be the name of a variable")
        taken = sorted(name for name in value if name in OUR_VARIABLES)
        if taken:
            raise ValueError(f"{', '.join(taken)}: set by cwdpo itself")
        return value

    @field_validator("sbatch")
    @classmethod
    def _not_ours(cls, value: dict[str, Any]) -> dict[str, Any]:
        taken = sorted(OURS & {key.replace("_", "-") for key in value})
        if taken:
            raise ValueError(f"{', '.join(taken)}: set by cwdpo itself")
        return value

    @model_validator(mode="after")
    def _fits_a_node(self) -> SlurmCluster:
        for kind in get_args(Kind):
            wanted = self.resources(kind)
            if wanted.gpus_per_node > self.node.gpus:
                raise ValueError(f"{kind}.gpus_per_node {wanted.gpus_per_node}: a node has {self.node.gpus}")
            if wanted.tasks_per_node > wanted.gpus_per_node > 0:
                raise ValueError(
                    f"{kind}.tasks_per_node {wanted.tasks_per_node}: a rank takes a GPU, and its jobs have"
                    f" {wanted.gpus_per_node} a node"
                )
            if wanted.tasks_per_node * wanted.cpus_per_task > self.node.cpus:
                raise ValueError(
                    f"{kind}: {wanted.tasks_per_node} rank(s) with {wanted.cpus_per_task} core(s) each do not fit a"
                    f" node of {self.node.cpus}"
                )
        return self

    def resources(self, kind: Kind) -> Resources:
        """What a job of this kind asks for."""
        shape: Shape = getattr(self, kind)
        heavy = kind in ("train", "generate")
        gpus = shape.gpus_per_node if shape.gpus_per_node is not None else (self.node.gpus if heavy else 0)
        tasks = shape.tasks_per_node or max(1, gpus)
        memory = shape.memory_gb if shape.memory_gb is not None else (self.node.memory_gb if heavy else 0)
        return Resources(
            kind=kind,
            nodes=shape.nodes,
            tasks_per_node=tasks,
            gpus_per_node=gpus,
            cpus_per_task=shape.cpus_per_task or (max(1, self.node.cpus // tasks) if heavy else 1),
            memory_gb=memory,
            minutes=minutes_of(shape.time),
            partition=shape.partition or self.partition,
            constraint=shape.constraint or self.constraint,
            qos=shape.qos or self.qos,
        )

    def ranks_of(self, kind: Kind) -> int:
        """Processes of a job of this kind."""
        return self.resources(kind).ranks


Cluster = LocalCluster | SlurmCluster


def gpu_memory() -> int:
    """Bytes of the smallest GPU of this machine; 0 where there is none."""
    if not gpu_count() or not shutil.which("nvidia-smi"):
        return 0
    command = ["nvidia-smi", "--query-gpu=memory.total", "--format=csv,noheader,nounits"]
    listed = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    return min((int(text) for text in listed.stdout.split() if text.isdigit()), default=0) * 2**20


def gpu_count() -> int:
    """GPUs this process may use, without importing torch."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return len([entry for entry in visible.split(",") if entry.strip() not in ("", "-1")])
    if not shutil.which("nvidia-smi"):
        return 0
    listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, timeout=30, check=False)
    return sum(line.startswith("GPU ") for line in listed.stdout.splitlines())


def visible_gpus() -> list[str]:
    """Names of the usable GPUs for CUDA_VISIBLE_DEVICES."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    return visible.split(",") if visible else [str(number) for number in range(gpu_count())]


def load_cluster(name: str | None) -> Cluster:
    """A profile by name or path, else `$CWDPO_CLUSTER`, else `default`.

    Raises:
        ConfigError: no such profile, a wrong key or value, or Slurm is wanted where it is not.
    """
    path = find_config("clusters", name or os.environ.get("CWDPO_CLUSTER") or "default")
    content = read_yaml(path)
    kinds: dict[str, type[Config]] = {"local": LocalCluster, "slurm": SlurmCluster}
    if content.get("kind") not in kinds:
        raise ConfigError(f"{path}: kind: {name_valid(content.get('kind'), kinds)}")
    found = validate(kinds[content["kind"]], content, str(path))
    assert isinstance(found, LocalCluster | SlurmCluster)
    return found


def check_slurm(what: str, remedy: str) -> None:
    """Raise `NotAvailable` where jobs cannot be submitted from.

    Args:
        what: half a sentence that says what needs Slurm.
    """
    if shutil.which("sbatch") is None:
        raise NotAvailable(f"{what}, but there is no sbatch on the PATH: {remedy}")


def read_cluster(content: dict[str, Any]) -> Cluster:
    """A profile as it was written into a ledger."""
    found: Cluster = TypeAdapter(Annotated[Cluster, Field(discriminator="kind")]).validate_python(content)
    return found
