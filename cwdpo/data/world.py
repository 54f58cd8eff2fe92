"""Stage `world`: render the demo's data set."""

from __future__ import annotations

from cwdpo.base.context import StageContext
from cwdpo.data.demo_world import write_world


def run(context: StageContext) -> None:
    """Write images and `dataset_coco.json`."""
    write_world(context.spec, context.out)
