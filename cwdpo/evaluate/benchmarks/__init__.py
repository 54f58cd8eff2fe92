"""Benchmarks: one file each (load, prompt, score), one member of the union each."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from cwdpo.evaluate.benchmarks.captions import Captions
from cwdpo.evaluate.benchmarks.coco import Coco
from cwdpo.evaluate.benchmarks.flickr30k import Flickr30k

Benchmark = Annotated[Captions | Coco | Flickr30k, Field(discriminator="name")]
