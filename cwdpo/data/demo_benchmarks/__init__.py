"""Benchmarks of generated worlds: the genuine formats, one file each, one member of a union each."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, get_args

from pydantic import Field

from cwdpo.base.errors import ConfigError, name_valid
from cwdpo.data.demo_benchmarks.chair import ChairFormat
from cwdpo.data.demo_benchmarks.format import Format
from cwdpo.data.demo_benchmarks.gqa import GqaFormat
from cwdpo.data.demo_benchmarks.mm_vet import MmVetFormat
from cwdpo.data.demo_benchmarks.mmbench import MmbenchFormat
from cwdpo.data.demo_benchmarks.mme import MmeFormat
from cwdpo.data.demo_benchmarks.mmhal import MmhalFormat
from cwdpo.data.demo_benchmarks.mmmu import MmmuFormat
from cwdpo.data.demo_benchmarks.nocaps import NocapsFormat
from cwdpo.data.demo_benchmarks.own import OwnFormat
from cwdpo.data.demo_benchmarks.pope import PopeFormat
from cwdpo.data.demo_benchmarks.scienceqa import ScienceqaFormat
from cwdpo.data.demo_benchmarks.seed_bench import SeedBenchFormat
from cwdpo.data.demo_benchmarks.shr import ShrFormat
from cwdpo.data.demo_benchmarks.textvqa import TextvqaFormat

_Any = (
    ChairFormat
    | GqaFormat
    | MmbenchFormat
    | MmeFormat
    | MmhalFormat
    | MmmuFormat
    | MmVetFormat
    | NocapsFormat
    | OwnFormat
    | PopeFormat
    | ScienceqaFormat
    | SeedBenchFormat
    | ShrFormat
    | TextvqaFormat
)

AnyFormat = Annotated[_Any, Field(discriminator="name")]
"""All formats."""

FORMATS: Mapping[str, type[Format]] = {
    get_args(kind.model_fields["name"].annotation)[0]: kind for kind in get_args(_Any)
}
"""Formats by the name of their benchmark."""


def format_of(settings: Mapping[str, Any]) -> Format:
    """The format of a benchmark with these settings, of which it takes those that decide how files are written.

    Raises:
        ConfigError: it has none.
    """
    name = settings["name"]
    if name not in FORMATS:
        raise ConfigError(f"data: no questions are made of generated worlds for benchmark {name_valid(name, FORMATS)}")
    kind = FORMATS[name]
    return kind.model_validate({key: value for key, value in settings.items() if key in kind.model_fields})
