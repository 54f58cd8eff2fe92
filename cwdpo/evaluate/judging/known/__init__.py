"""Benchmarks whose answers are judged.

It is an `__init__` because it only registers members: a stage depends on the benchmark that it names, not on all of
them.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from cwdpo.evaluate.benchmarks.mm_vet import MmVet
from cwdpo.evaluate.benchmarks.mmhal import Mmhal
from cwdpo.evaluate.benchmarks.shr import Shr

AnyJudged = Annotated[MmVet | Mmhal | Shr, Field(discriminator="name")]
"""A judged benchmark."""
