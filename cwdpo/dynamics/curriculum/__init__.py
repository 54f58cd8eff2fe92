"""Which pairs a preference training takes when: one file and one member each."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from cwdpo.dynamics.curriculum.ordered import Ordered
from cwdpo.dynamics.curriculum.sampled import Sampled

Curriculum = Annotated[Ordered | Sampled, Field(discriminator="name")]
"""The order of training pairs, by how hard their rejected responses are."""

__all__ = ["Curriculum", "Ordered", "Sampled"]
