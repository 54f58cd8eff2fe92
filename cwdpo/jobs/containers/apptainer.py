"""An image run by Apptainer."""

from __future__ import annotations

from typing import ClassVar, Literal

from cwdpo.jobs.containers.sif_runtime import SifRuntime


class Apptainer(SifRuntime):
    """Apptainer, and Singularity up to 3.8, which it was called then."""

    name: Literal["apptainer"] = "apptainer"

    command: ClassVar[str] = "apptainer"
