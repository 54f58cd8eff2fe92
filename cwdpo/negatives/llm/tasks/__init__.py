"""Kinds of questions to an endpoint: one file each, one member of the union each.

It is an `__init__` because it only registers members: a stage depends on the task that it names, not on all of them.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from cwdpo.negatives.llm.correct import Correct
from cwdpo.negatives.llm.revise import Revise
from cwdpo.negatives.llm.rewrite import Rewrite

AnyTask = Annotated[Rewrite | Revise | Correct, Field(discriminator="task")]
