"""Benchmarks: one file each (load, ask, score), one member of a union each."""

from __future__ import annotations

from typing import Annotated, get_args

from pydantic import Field

from cwdpo.evaluate.benchmarks.benchmark import Questions
from cwdpo.evaluate.benchmarks.captions import Captions, PreparedCaptions
from cwdpo.evaluate.benchmarks.chair import Chair
from cwdpo.evaluate.benchmarks.coco import Coco
from cwdpo.evaluate.benchmarks.flickr30k import Flickr30k
from cwdpo.evaluate.benchmarks.gqa import Gqa
from cwdpo.evaluate.benchmarks.mm_vet import MmVet
from cwdpo.evaluate.benchmarks.mmbench import Mmbench
from cwdpo.evaluate.benchmarks.mme import Mme
from cwdpo.evaluate.benchmarks.mmhal import Mmhal
from cwdpo.evaluate.benchmarks.mmmu import Mmmu
from cwdpo.evaluate.benchmarks.nocaps import NocapsCaptions
from cwdpo.evaluate.benchmarks.own import Own
from cwdpo.evaluate.benchmarks.pope import Pope
from cwdpo.evaluate.benchmarks.scienceqa import Scienceqa
from cwdpo.evaluate.benchmarks.seed_bench import SeedBench
from cwdpo.evaluate.benchmarks.shr import Shr
from cwdpo.evaluate.benchmarks.textvqa import Textvqa

_OfCaptions = Captions | Coco | Flickr30k | NocapsCaptions
_OfQuestions = Chair | Gqa | Mmbench | Mme | Mmhal | Mmmu | MmVet | Own | Pope | Scienceqa | SeedBench | Shr | Textvqa

AnyQuestions = Annotated[_OfQuestions, Field(discriminator="name")]
"""Benchmarks of questions."""

AnyBenchmark = Annotated[_OfCaptions | _OfQuestions, Field(discriminator="name")]
"""All benchmarks."""


def _by_name() -> dict[str, type[Questions | PreparedCaptions]]:
    kinds = [kind for kind in get_args(_OfCaptions | _OfQuestions) if issubclass(kind, Questions | PreparedCaptions)]
    return {get_args(kind.model_fields["name"].annotation)[0]: kind for kind in kinds}


PREPARABLE = _by_name()
"""Benchmarks that `cwdpo data prepare` makes ready, by name."""
