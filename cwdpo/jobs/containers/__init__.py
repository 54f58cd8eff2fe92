"""What a job runs in: the `Container` of a cluster profile. A job enters it from outside, one process at a time:
Slurm's script stays on the host, where Slurm's commands are."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from cwdpo.jobs.containers.apptainer import Apptainer
from cwdpo.jobs.containers.bare import Bare
from cwdpo.jobs.containers.singularity import Singularity

Container = Annotated[Bare | Apptainer | Singularity, Field(discriminator="name")]
