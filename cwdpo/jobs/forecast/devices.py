"""What a rank computes with: peak, memory and bandwidth of its GPU or of its cores."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import dataclass

from cwdpo.jobs.clusters import Cluster, Kind, SlurmCluster, gpu_count
from cwdpo.jobs.fit import GB, memory_of_a_rank

TERA = 1e12

GPUS = {
    "v100": (125, 15.7, 0.9),
    "a100": (312, 19.5, 2.0),
    "a40": (150, 37.4, 0.7),
    "a6000": (155, 38.7, 0.77),
    "l40": (181, 90.5, 0.86),
    "l40s": (362, 91.6, 0.86),
    "l4": (121, 30.3, 0.3),
    "4090": (165, 82.6, 1.0),
    "h100": (989, 67, 3.35),
    "h200": (989, 67, 4.8),
    "gh200": (989, 67, 4.0),
    "b200": (2250, 75, 8.0),
    "mi250": (383, 45.3, 3.2),
    "mi300": (1307, 163, 5.3),
}
"""Part of a GPU's name -> its dense peaks in half and in single precision (10^12 operations a second; torch takes no
TF32 unless told to) and the bandwidth of its memory (10^12 bytes a second), as the makers state them."""

USUAL = "a100"
"""What is assumed where a profile does not say."""

CORE = 80e9
"""Operations a second of a CPU core in float32, at its best."""
CORE_BYTES = 10 * GB
"""Bytes a second that a core reads."""


@dataclass(frozen=True)
class Device:
    """What one rank computes with.

    Attributes:
        name: for people.
        peak: operations a second in half precision; of CPU cores in float32.
        single: operations a second in float32.
        bandwidth: bytes a second from its memory.
        memory: bytes; 0 where nobody knows.
        gpu: False for CPU cores.
        assumed: what was taken for granted, a sentence; "" where nothing was.
    """

    name: str
    peak: float
    single: float
    bandwidth: float
    memory: float
    gpu: bool
    assumed: str = ""

    def peak_in(self, dtype: str) -> float:
        """Operations a second in `float32`, `bfloat16` or `float16`."""
        return self.single if dtype == "float32" else self.peak


def device_of(cluster: Cluster, kind: Kind) -> Device:
    """What a rank of a job of this kind has."""
    if isinstance(cluster, SlurmCluster):
        resources = cluster.resources(kind)
        if resources.gpus_per_node:
            return _gpu(cluster.node.gpu_type or "", cluster.node.gpu_memory_gb * GB, "node.gpu_type")
        return _cores(resources.cpus_per_task, 0)
    if gpu_count():
        return _gpu(gpu_name(), memory_of_a_rank(cluster), "the name that nvidia-smi shows")
    return _cores(max(1, cluster.resolved().threads), memory_of_a_rank(cluster))


def _gpu(name: str, memory: float, where: str) -> Device:
    """A GPU by its name in a profile, or as its driver calls it."""
    known = sorted((part for part in GPUS if part in name.lower()), key=len)
    assumed = (
        "" if known else f"{where} is {f'{name!r}, which is not known' if name else 'not set'}: an A100 is assumed"
    )
    peak, single, bandwidth = (number * TERA for number in GPUS[known[-1] if known else USUAL])
    return Device(name or USUAL.upper(), peak, single, bandwidth, memory, True, assumed)


def _cores(count: int, memory: float) -> Device:
    name = f"{count} CPU core{'s' if count > 1 else ''}"
    return Device(name, count * CORE, count * CORE, count * CORE_BYTES, memory, False)


def gpu_name() -> str:
    """What the driver calls the first GPU of this machine; "" where there is none."""
    if not shutil.which("nvidia-smi"):
        return ""
    command = ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"]
    listed = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    return next(iter(listed.stdout.splitlines()), "").strip()
