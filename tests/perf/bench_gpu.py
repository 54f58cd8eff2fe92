"""Stage 2 on one GPU: random weights at the sizes of Qwen2.5-VL 3B and 7B, bfloat16, LoRA of rank 64. No network.

    python tests/perf/bench_gpu.py --size 3b|7b|tiny

The real step loop, with a model that is made on the device in place of one that is loaded. Prints pairs/s, MFU against
a measured matrix product, and peak memory, and writes results/gpu-SIZE.{json,md}. `--size tiny` runs on a CPU, to show
that the program works, and writes nothing.
"""

from __future__ import annotations

import argparse
import gc
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

from measure import RESULTS, about, made_by, table
from training_sides import ROWS
from training_sizes import SIZES, Size, operations, random_model
from training_world import Point, World

from cwdpo.base import distributed, files
from cwdpo.base.context import StageContext
from cwdpo.base.runtime import Execution, Rank
from cwdpo.data.samples import load_samples
from cwdpo.model.load import load_processor, trainable_policy
from cwdpo.train.config import Stage2Spec
from cwdpo.train.loop import Trainer
from cwdpo.train.reference import ReferenceLogps
from cwdpo.train.stage2 import PreferenceTask

POINTS = {"tiny": [Point(64, 16)]}
USUAL = [Point(64, 16), Point(256, 16), Point(1024, 16), Point(1024, 64)]
WAYS: dict[str, dict[str, Any]] = {"rows": ROWS, "shared": {}}
STEPS, PAIRS = 6, 8
SIDE = {"cuda": 8192, "cpu": 1024}
PACKAGES = ("torch", "transformers", "peft", "deepspeed")
LORA = {"name": "lora", "rank": 64, "alpha": 128}


@dataclass(frozen=True)
class Found:
    """One way at one point.

    Attributes:
        seconds: of each step after the first.
        operations: of one pair, see `operations`.
        peak: bytes of GPU memory that tensors took at most, 0 without one.
    """

    point: Point
    way: str
    chosen: str
    seconds: list[float]
    operations: float
    peak: int

    @property
    def pairs_per_second(self) -> float:
        """Of the median step."""
        return PAIRS / median(self.seconds)


class RandomTrainer(Trainer):
    """The real step loop; its model has random weights and is made where it runs."""

    def __init__(self, size: Size, context: StageContext, *others: Any) -> None:
        self._size = size
        super().__init__(context, *others)

    def _load(self, config: dict[str, Any]) -> Any:
        tokenizer = load_processor(self.context.inputs["model"]).tokenizer
        model = random_model(self._size, tokenizer, distributed.device_of(self.context.rank))
        self.frozen = model
        return trainable_policy(model, self.spec.tuning, None, self.spec.seed)


def main(arguments: Sequence[str]) -> int:
    """Measure, print and write; returns the exit status."""
    import torch

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=SIZES, required=True)
    name = parser.parse_args(arguments).size
    if name != "tiny" and not torch.cuda.is_available():
        print(f"--size {name}: not available: no CUDA device")
        return 3
    os.environ |= {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1"}  # DeepSpeed asks for them
    distributed.start(Rank())
    ceiling = product_rate(torch)
    with tempfile.TemporaryDirectory() as folder:
        world = World(Path(folder) / "world")
        found = [measure(world, name, point, way) for point in POINTS.get(name, USUAL) for way in WAYS]
    tell(name, found, ceiling)
    return 0


def product_rate(torch: Any) -> float:
    """Operations per second of a large matrix product in bfloat16."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    side = SIDE[device]
    left, right = (torch.randn(side, side, device=device, dtype=torch.bfloat16) for _ in range(2))
    seconds = []
    for _ in range(12):
        began = time.perf_counter()
        torch.mm(left, right)
        if device == "cuda":
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - began)
    return 2 * side**3 / median(seconds[2:])


def measure(world: World, name: str, point: Point, way: str) -> Found:
    """Train a few steps."""
    import torch

    cuda = torch.cuda.is_available()
    if cuda:
        torch.cuda.reset_peak_memory_stats()
    clock = Clock()
    trainer = _trainer(world, name, point, WAYS[way], clock)
    trainer.run()
    peak = torch.cuda.max_memory_allocated() if cuda else 0
    work = operations(trainer.frozen, point, world.prefix_tokens(point), shared=way == "shared")
    del trainer
    gc.collect()
    if cuda:
        torch.cuda.empty_cache()
    return Found(point, way, clock.chosen, clock.seconds[1:], work, peak)


class Clock:
    """Takes the events of a stage. A step's event follows a wait for the GPU, for the norm of the gradients."""

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self.chosen = ""
        self._last = time.perf_counter()

    def event(self, kind: str, **values: Any) -> None:
        """Note how long a step took."""
        if kind == "scoring":
            self.chosen = values["way"]
        if kind in ("scoring", "step"):
            now = time.perf_counter()
            if kind == "step":
                self.seconds.append(now - self._last)
            self._last = now


def _trainer(world: World, name: str, point: Point, execution: dict[str, Any], clock: Clock) -> RandomTrainer:
    data = world.data(point, "stage2", STEPS * PAIRS, 1)
    samples = load_samples(data, data, "stage2")
    reference = {
        sample.id: ReferenceLogps({"chosen": (-100.0,), "rejected": (-100.0,)}) for sample in samples
    }  # made up: costs what a true one does
    spec = Stage2Spec.model_validate({
        "policy": {"dtype": "bfloat16"}, "tuning": LORA, "objective": {"name": "dpo"},
        "optimization": {"batch_size": PAIRS, "max_steps": STEPS},
    })  # fmt: skip
    context = _context(world, point, spec, execution, clock)
    return RandomTrainer(SIZES[name], context, spec, samples, PreferenceTask(spec.objective, reference))


def _context(world: World, point: Point, spec: Any, execution: dict[str, Any], clock: Clock) -> StageContext:
    home = Path(tempfile.mkdtemp(dir=world.folder))
    for part in ("out", "partial"):
        (home / part).mkdir()
    return StageContext(
        spec=spec,
        inputs={"model": world.model(point), "images": world.images},
        out=home / "out",
        partial=home / "partial",
        cache=home / "cache",
        rank=Rank(),
        execution=Execution.model_validate({"micro_batch": PAIRS, **execution}),
        event=clock.event,
        check=lambda: None,
    )


def tell(name: str, found: Sequence[Found], ceiling: float) -> None:
    """Print the table; write it where a GPU was measured."""
    text = _document(name, found, ceiling)
    print(text)
    if name != "tiny":
        details = {
            "device": _device(),
            "product_operations_per_second": ceiling,
            "found": [asdict(one) for one in found],
        }
        files.write_text(RESULTS / f"gpu-{name}.md", text)
        files.write_json(RESULTS / f"gpu-{name}.json", {**about(__file__, PACKAGES), **details})


def _document(name: str, found: Sequence[Found], ceiling: float) -> str:
    columns = ("image/response", "way", "pairs/s", "seconds a step", "operations a pair", "MFU", "peak GB", "scored by")
    rows = [_row(one, ceiling) for one in found]
    notes = (
        f"{_device()}; a product of {SIDE['cuda' if _cuda() else 'cpu']} x itself in bfloat16 reaches"
        f" {ceiling / 1e12:.1f} TFLOP/s, which is what MFU is a share of. {PAIRS} pairs a step in one micro-batch, LoRA"
        f" of rank {LORA['rank']}, no checkpointing, median of {STEPS - 1} steps. Operations: four a parameter and"
        " token, the vision tower forward only, the LM head on responses only; attention scores, the adapter and"
        " recomputation are not counted. Peak: what tensors took on the GPU, the weights too."
    )
    return f"# Stage 2, {name}, random weights\n\n{table(columns, rows)}\n\n{notes}\n\n{made_by(__file__, PACKAGES)}\n"


def _row(one: Found, ceiling: float) -> tuple[object, ...]:
    used = one.operations * one.pairs_per_second / ceiling
    size = f"{one.point.image_tokens}/{one.point.response_tokens}"
    rate, seconds = f"{one.pairs_per_second:.2f}", f"{median(one.seconds):.3f}"
    return (
        size,
        one.way,
        rate,
        seconds,
        f"{one.operations / 1e12:.3f}T",
        f"{used:.1%}",
        f"{one.peak / 1e9:.1f}",
        one.chosen,
    )


def _cuda() -> bool:
    import torch

    return bool(torch.cuda.is_available())


def _device() -> str:
    import torch

    return torch.cuda.get_device_name() if _cuda() else "no GPU, the CPU"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
