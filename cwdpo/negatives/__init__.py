"""Sources of rejected responses: one file each, one member of the union each."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from cwdpo.negatives.dataset import Dataset
from cwdpo.negatives.rule import Perturb

Negatives = Annotated[Dataset | Perturb, Field(discriminator="source")]
