"""Cluster profiles: where jobs run. `local` runs them as processes of this machine."""

from __future__ import annotations

import os
import shutil
import subprocess
from typing import Annotated, Literal

from pydantic import Field

from cwdpo.base.config import Config, read_yaml, validate
from cwdpo.base.errors import ConfigError
from cwdpo.experiment import find_config


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


def load_cluster(name: str | None) -> LocalCluster:
    """A profile by name or path, else `$CWDPO_CLUSTER`, else `local`."""
    path = find_config("clusters", name or os.environ.get("CWDPO_CLUSTER") or "local")
    return validate(LocalCluster, read_yaml(path), str(path))
