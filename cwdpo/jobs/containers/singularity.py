"""An image run by SingularityCE or SingularityPRO."""

from __future__ import annotations

from typing import ClassVar, Literal

from cwdpo.jobs.containers.sif_runtime import SifRuntime


class Singularity(SifRuntime):
    """The other branch of the family, which takes the same commands."""

    name: Literal["singularity"] = "singularity"

    command: ClassVar[str] = "singularity"
