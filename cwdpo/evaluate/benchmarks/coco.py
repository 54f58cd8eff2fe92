"""COCO captions, Karpathy test split: 5,000 images, all references."""

from __future__ import annotations

from typing import Literal

from cwdpo.evaluate.benchmarks.captions import KarpathyCaptions


class Coco(KarpathyCaptions):
    """`dataset_coco.json`; set `data` unless the experiment trains on the same file."""

    name: Literal["coco"]
