"""NoCaps, validation: 4,500 images with ten captions each, in three domains by whether they show objects of COCO.

Agrawal et al., "nocaps: novel object captioning at scale" (ICCV 2019). Each domain is scored as a set of its own, its
CIDEr by its own document frequencies; `entire` is all of them together.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar, Literal

from pydantic import model_validator

from cwdpo.data.demo_benchmarks.generated import check_world
from cwdpo.data.nocaps import FILE, PUBLISHED
from cwdpo.data.records import Record
from cwdpo.data.sources import Demo, Nocaps, Source
from cwdpo.evaluate.benchmarks.captions import PreparedCaptions
from cwdpo.evaluate.question import Metric, Scores
from cwdpo.evaluate.reading.download import Download

SETS = ("in", "near", "out", "entire")


class NocapsCaptions(PreparedCaptions):
    """`nocaps_val_4500_captions.json`: `data`, else what was prepared.

    Domains of a generated world are its kinds of scenes.
    """

    name: Literal["nocaps"]
    split: Literal["val"] = "val"
    """The test split has no public captions."""
    prompt: str = "Provide a one-sentence caption for the provided image."

    annotations: ClassVar[str] = FILE
    source: ClassVar[str] = f"{FILE} (with the domain of each image) and the images of NoCaps' validation split"
    published: ClassVar[Mapping[str, int]] = PUBLISHED
    metrics: ClassVar[tuple[Metric, ...]] = (
        *(Metric(f"{one}_cider", f"{one} CIDEr") for one in SETS),
        *(Metric(f"{one}_spice", f"{one} SPICE", optional=True) for one in SETS),
    )

    @classmethod
    def is_of(cls, data: Source) -> bool:
        """By its format."""
        return isinstance(data, Nocaps)

    @model_validator(mode="after")
    def _usable(self) -> NocapsCaptions:
        if isinstance(self.data, Demo):
            check_world(self.data.world, "data.world")
        return self

    def as_made(self, data: Demo) -> Nocaps:
        """See `KarpathyCaptions`."""
        return Nocaps(source="nocaps", root=Path(), limit=data.limit, check_images=data.check_images)

    def found_in(self, download: Download, annotations: str) -> Nocaps:
        """See `PreparedCaptions`."""
        return Nocaps(source="nocaps", root=download.root, annotations=annotations)

    def score(self, texts: Mapping[str, str], records: Sequence[Record]) -> Scores:
        """Each domain, and all."""
        from cwdpo.metrics.domains import score_domains

        references = {record.image_id: record.references for record in records}
        domains = {record.image_id: record.domain or "" for record in records}
        found = score_domains(texts, references, domains)
        return Scores(found.corpus, found.per_item, found.unavailable)
