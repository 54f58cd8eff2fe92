"""Stage `demo_benchmark`: a benchmark's files, in its genuine format, about the scenes of a generated world."""

from __future__ import annotations

from cwdpo.base.config import Config
from cwdpo.base.context import StageContext
from cwdpo.data.demo_benchmarks import AnyFormat
from cwdpo.data.demo_benchmarks.scenes import read_scenes


class DemoBenchmarkSpec(Config):
    """The world is a parent."""

    benchmark: AnyFormat


def run(context: StageContext) -> None:
    """Write what a download of the benchmark would hold.

    Raises:
        DataError: the world is none without errors.
    """
    spec: DemoBenchmarkSpec = context.spec
    spec.benchmark.write(read_scenes(context.inputs["data"]), context.out)
