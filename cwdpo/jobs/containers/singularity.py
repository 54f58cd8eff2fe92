"""An image run by SingularityCE or SingularityPRO, which take the same commands as Apptainer."""

from __future__ import annotations

from typing import ClassVar, Literal

from cwdpo.jobs.containers.apptainer import Apptainer


class Singularity(Apptainer):
    """As `apptainer`, for sites that have the other branch of the family."""

    name: Literal["singularity"] = "singularity"  # type: ignore[assignment]

    command: ClassVar[str] = "singularity"
