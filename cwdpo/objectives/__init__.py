"""Objectives on log-probabilities: one file each, one member of a union each. Schemas import no torch."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from cwdpo.objectives.continual_sft import ContinualSft
from cwdpo.objectives.cw_dpo import CwDpo
from cwdpo.objectives.dpo import Dpo
from cwdpo.objectives.fixed_weight_dpo import FixedWeightDpo
from cwdpo.objectives.focal_dpo import FocalDpo
from cwdpo.objectives.grpo import Grpo
from cwdpo.objectives.nsft import Nsft
from cwdpo.objectives.opa_dpo import OpaDpo
from cwdpo.objectives.ppo import Ppo
from cwdpo.objectives.sft import Sft
from cwdpo.objectives.sft_c import SftC
from cwdpo.objectives.sft_c_ceiling import SftCCeiling
from cwdpo.objectives.sft_c_hard import SftCHard
from cwdpo.objectives.sft_entropy import SftEntropy
from cwdpo.objectives.sft_gentle import SftGentle
from cwdpo.objectives.sft_label_smoothing import SftLabelSmoothing
from cwdpo.objectives.sft_revised import SftRevised
from cwdpo.objectives.v_dpo import VDpo

SupervisedObjective = Annotated[
    Sft | SftC | SftCHard | SftCCeiling | SftEntropy | SftGentle | SftLabelSmoothing | SftRevised | ContinualSft | Nsft,
    Field(discriminator="name"),
]
"""What Stage 1 trains."""

PreferenceObjective = Annotated[
    Dpo | CwDpo | FixedWeightDpo | FocalDpo | VDpo | OpaDpo | Grpo | Ppo | ContinualSft | Nsft,
    Field(discriminator="name"),
]
"""What Stage 2 trains; grpo and ppo sample their own responses, the supervised ones stand in for preference tuning."""

__all__ = [
    "ContinualSft", "CwDpo", "Dpo", "FixedWeightDpo", "FocalDpo", "Grpo", "Nsft", "OpaDpo", "Ppo",
    "PreferenceObjective", "Sft", "SftC", "SftCCeiling", "SftCHard", "SftEntropy", "SftGentle", "SftLabelSmoothing",
    "SftRevised", "SupervisedObjective", "VDpo",
]  # fmt: skip
