"""Objectives on log-probabilities: one file each, one member of a union each. Schemas import no torch."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from cwdpo.objectives.cw_dpo import CwDpo
from cwdpo.objectives.dpo import Dpo
from cwdpo.objectives.sft import Sft
from cwdpo.objectives.sft_c import SftC

SupervisedObjective = Annotated[Sft | SftC, Field(discriminator="name")]
PreferenceObjective = Annotated[Dpo | CwDpo, Field(discriminator="name")]

__all__ = ["CwDpo", "Dpo", "PreferenceObjective", "Sft", "SftC", "SupervisedObjective"]
