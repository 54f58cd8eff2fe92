"""Rules that end a training by what its probes show: one file each, one member of the union each."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from cwdpo.dynamics.early_stop.chosen import Chosen
from cwdpo.dynamics.early_stop.margin import Margin
from cwdpo.dynamics.early_stop.rule import Stop

EarlyStop = Annotated[Margin | Chosen, Field(discriminator="name")]
"""When a training ends before its schedule does."""

__all__ = ["Chosen", "EarlyStop", "Margin", "Stop"]
