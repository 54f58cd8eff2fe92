"""A Slurm profile beside the Slurm that is there."""

from __future__ import annotations

import re
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from typing import get_args

from cwdpo.base.errors import name_valid
from cwdpo.jobs.clusters import Kind, Resources, SlurmCluster
from cwdpo.jobs.doctor import slurm_site
from cwdpo.jobs.doctor.check import Finding, failure, guarded, ok, unchecked, warning
from cwdpo.jobs.doctor.limits import check_limits
from cwdpo.jobs.doctor.slurm_site import clock
from cwdpo.jobs.slurm import commands
from cwdpo.jobs.slurm.commands import SlurmError

KINDS: tuple[Kind, ...] = get_args(Kind)
NEEDED = ("sbatch", "squeue", "scontrol", "sinfo", "scancel")
PROFILE = "cluster profile"
FULL = re.compile(r"Max(Array)?SubmitJob|GrpSubmitJob")
LATER = "ask again when some are through; submitting goes on by itself then, if max_submit is not above the site's"
"""Jobs of this kind may be all right."""


def check_slurm(cluster: SlurmCluster, header: Callable[[Kind], str]) -> Iterator[Finding]:
    """Everything about Slurm that a login node can know.

    Args:
        header: script of a job of a kind, as a submission would write it.
    """
    missing = [name for name in NEEDED if shutil.which(name) is None]
    if missing:
        yield failure(
            "Slurm", f"not on the PATH: {', '.join(missing)}", "log in to the cluster, or `module load slurm`"
        )
        return
    try:
        config = _answering()
    except SlurmError as error:
        yield failure("Slurm", str(error), "ask the site whether Slurm is down; SLURM_CONF must name its configuration")
        yield unchecked("Slurm limits", "the controller does not answer")
        return
    yield ok("Slurm", f"{config.get('SLURM_VERSION', '?')}, the controller answers")
    yield from guarded("Slurm arrays", _arrays, cluster, config)
    yield from guarded("Slurm jobs", _every_kind, cluster, header)
    yield from guarded("Slurm requeue", _requeue, cluster, config)
    yield from guarded("Slurm limits", check_limits, cluster, config)


def _answering() -> dict[str, str]:
    """Slurm's configuration. A ping first: it does not wait for a controller that is down."""
    try:
        said = commands.run(["scontrol", "ping"])
    except SlurmError as error:  # it says so on stdout, with status 1
        said = str(error)
    if " is UP" not in said:
        raise SlurmError(f"the controller does not answer (scontrol ping: {' '.join(said.split())})")
    return slurm_site.config()


def _arrays(cluster: SlurmCluster, config: Mapping[str, str]) -> Iterator[Finding]:
    name, site = "Slurm MaxArraySize", int(config.get("MaxArraySize", 0))
    if not site:
        yield unchecked(name, "Slurm does not say it")
    elif cluster.max_array > site:
        found = f"{site}, but max_array is {cluster.max_array}: Slurm would refuse larger arrays"
        yield failure(name, found, f"{PROFILE}: max_array: {site}")
    else:
        yield ok(name, f"{site}; max_array is {cluster.max_array}")


def _requeue(cluster: SlurmCluster, config: Mapping[str, str]) -> Iterator[Finding]:
    """Notes: nothing here has to be changed."""
    wait = config.get("KillWait", "?")
    yield ok(
        "Slurm KillWait", f"{wait} between TERM and KILL; jobs save {cluster.signal_seconds} s before the time limit"
    )
    own = "" if config.get("JobRequeue") == "1" else " (jobs ask for it themselves)"
    yield ok("Slurm JobRequeue", f"{config.get('JobRequeue', '?')}{own}")


def _every_kind(cluster: SlurmCluster, header: Callable[[Kind], str]) -> Iterator[Finding]:
    partitions = slurm_site.partitions()
    for kind in KINDS:
        yield from guarded(f"Slurm {kind}", _kind, cluster, kind, partitions, header)


def _kind(
    cluster: SlurmCluster, kind: Kind, partitions: Mapping[str, Mapping[str, str]], header: Callable[[Kind], str]
) -> Iterator[Finding]:
    """One kind of job: its partition, its time, its nodes, and what Slurm itself says; the first fault is enough."""
    wanted = cluster.resources(kind)
    partition = _partition(wanted, partitions)
    if isinstance(partition, Finding):
        yield partition
        return
    faults = [_partition_fault(wanted, partition), *_node_faults(cluster, wanted, partition["PartitionName"])]
    found = [fault for fault in faults if fault]
    yield from found
    if not any(fault.level == "failure" for fault in found):
        yield _asked(cluster, kind, header(kind))


def _partition(wanted: Resources, partitions: Mapping[str, Mapping[str, str]]) -> Mapping[str, str] | Finding:
    """Where a job goes, or that there is no such place."""
    name = f"Slurm {wanted.kind}"
    if wanted.partition is None:
        default = [entry for entry in partitions.values() if entry.get("Default") == "YES"]
        nowhere = failure(name, "no partition is given, and this site has no default", _valid(partitions))
        return default[0] if default else nowhere
    first = wanted.partition.split(",")[0]  # Slurm takes a list; jobs start in whichever is first free
    if first in partitions:
        return partitions[first]
    return failure(name, f"there is no partition {name_valid(first, partitions)}", _valid(partitions))


def _valid(partitions: Mapping[str, Mapping[str, str]]) -> str:
    return f"{PROFILE}: partition: one of {', '.join(sorted(partitions))}"


def _partition_fault(wanted: Resources, partition: Mapping[str, str]) -> Finding | None:
    name, where = f"Slurm {wanted.kind}", f"partition {partition['PartitionName']}"
    if partition.get("State", "UP") != "UP":
        return failure(name, f"{where} is {partition['State']}", f"{PROFILE}: another partition, or ask the site")
    longest = slurm_site.minutes(partition.get("MaxTime", ""))
    if wanted.minutes > longest:
        found = f"time {clock(wanted.minutes)}, but {where} allows {clock(longest)}: such jobs would wait for ever"
        return failure(name, found, f'{PROFILE}: {wanted.kind}: {{time: "{clock(longest)}"}}')
    most = partition.get("MaxNodes", "")
    if most.isdigit() and wanted.nodes > int(most):
        return failure(name, f"{wanted.nodes} nodes, but {where} allows {most}", f"{PROFILE}: {wanted.kind}.nodes")
    return None


def _node_faults(cluster: SlurmCluster, wanted: Resources, partition: str) -> Iterator[Finding]:
    """Too few nodes that are large enough, or too few of these in use."""
    found = slurm_site.nodes(partition)
    large = [node for node in found if node.fits(wanted, cluster.node.gpu_type if wanted.gpus_per_node else None)]
    name = f"Slurm {wanted.kind}"
    if len(large) < wanted.nodes:
        here = "; ".join(dict.fromkeys(str(node) for node in found)) or "no nodes"
        text = f"asks for {_share(cluster, wanted)}; {len(large)} node(s) of partition {partition} have that: {here}"
        yield failure(name, text, f"{PROFILE}: node (gpus, cpus, memory_gb, gpu_type), constraint, {wanted.kind}.nodes")
    elif sum(node.usable for node in large) < wanted.nodes:
        states = ", ".join(f"{node.name} {node.state}" for node in large if not node.usable)
        yield warning(name, f"fits partition {partition}, but {states}", "such jobs wait until these nodes are back")


def _share(cluster: SlurmCluster, wanted: Resources) -> str:
    gpus = f", {wanted.gpus_per_node} {cluster.node.gpu_type or 'GPU'}(s)" if wanted.gpus_per_node else ""
    memory = f", {wanted.memory_gb:g} GB" if wanted.memory_gb else ""
    feature = f", {wanted.constraint}" if wanted.constraint else ""
    return f"{wanted.nodes} node(s) with {wanted.tasks_per_node * wanted.cpus_per_task} core(s){memory}{gpus}{feature}"


def _asked(cluster: SlurmCluster, kind: Kind, script: str) -> Finding:
    """What `sbatch --test-only` says; it submits nothing."""
    wanted = cluster.resources(kind)
    with tempfile.NamedTemporaryFile("w", suffix=".sh") as file:
        file.write(script)
        file.flush()
        try:
            commands.estimated_start(file.name)
        except SlurmError as error:
            if FULL.search(str(error)):
                return unchecked(f"Slurm {kind}", f"you have as many jobs in the queue as you may ({error})", LATER)
            keys = "account, qos, partition, constraint, exclude or sbatch"
            return failure(
                f"Slurm {kind}", str(error), f"{PROFILE}: {keys}, or {kind}; `sbatch --test-only` says the same"
            )
    return ok(f"Slurm {kind}", f"{_share(cluster, wanted)} for {clock(wanted.minutes)}: Slurm would take it")
