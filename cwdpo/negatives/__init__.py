"""Sources of rejected responses: one file each, one member of the union each."""

from __future__ import annotations

from typing import Annotated, get_args

from pydantic import Field

from cwdpo.negatives.corrective import Corrective
from cwdpo.negatives.graded import Graded
from cwdpo.negatives.mixed import Mixed
from cwdpo.negatives.plain import Plain
from cwdpo.negatives.revised import Revised
from cwdpo.negatives.source import Source
from cwdpo.objectives.supply import Supply

Negatives = Annotated[Plain | Mixed | Graded | Revised | Corrective, Field(discriminator="source")]


def makers(supply: Supply) -> list[str]:
    """Sources whose rejected responses may come with `supply`, and how: `perturb with of: reference`."""
    members = get_args(get_args(Negatives)[0])
    return [f"{_tag(member)} {member.makes[supply]}".strip() for member in members if supply in member.makes]


def _tag(member: type[Source]) -> str:
    return str(get_args(member.model_fields["source"].annotation)[0])
