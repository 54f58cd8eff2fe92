"""Captions of a block of images: image and prompt once through the model, against once for every candidate.

The second is transformers' own way, which repeats every row for each beam before the model sees it.
"""

from __future__ import annotations

import os

os.environ["OMP_NUM_THREADS"] = "1"

import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from measure import publish
from PIL import Image
from torch.utils.flop_counter import FlopCounterMode

from cwdpo.data.encoding import Collator
from cwdpo.model.config import Policy
from cwdpo.model.decoding import Decoding
from cwdpo.model.generate import Answer, Prompted, generate
from cwdpo.model.load import load_model, load_policy_processor
from cwdpo.model.tiny import TinyQwen, build_tiny_qwen

ITEMS, ROUNDS = 16, 5
MODEL = TinyQwen(
    hidden_size=256, layers=4, intermediate_size=768, image_size=256, patch_size=8, context=512, vocabulary=2048
)
DECODINGS = {
    "greedy": Decoding(max_new_tokens=16),
    "5 beams": Decoding(strategy="beam", beams=5, max_new_tokens=16),
    "5 samples": Decoding(strategy="sample", candidates=5, max_new_tokens=16),
}
SQUARES = ((256, 256),)
PHOTOGRAPHS = ((320, 240), (240, 320), (320, 213), (213, 320), (250, 188), (320, 240), (320, 320), (320, 240))
SETS = {"all of 256 tokens": SQUARES, "photographs of 192 to 400 tokens": PHOTOGRAPHS}
"""Pixel sizes, in turns; a token is 16 x 16 pixels. The second has the mix of shapes of COCO at native resolution."""
WAYS = {True: "once an item", False: "once a candidate"}

Work = Callable[[], list[Answer]]


def main() -> None:
    """Time both ways and write results/generation.md."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        works = made_works(Path(folder))
        seconds, answers = timed(works)
        operations = {key: counted(work) for key, work in works.items()}
    rows = [row(images, kind, seconds, operations, answers) for images in SETS for kind in DECODINGS]
    columns = (
        "images", "decoding", *(f"ms a caption, {way}" for way in WAYS.values()), "times quicker",
        "times fewer operations", "same texts",
    )  # fmt: skip
    notes = (
        f"Blocks of {ITEMS} images, 16 new tokens, one thread, float32; CPU time of this process, best of {ROUNDS}"
        " rounds in which all took turns. Qwen2.5-VL with random weights: 4 text layers of 256, 2 vision layers of 64,"
        " a vocabulary of 2,048 at most. Operations are those of matrix products, counted by torch. `once an item` also"
        " takes images of similar length together, and keeps no copy of the cache for every token."
    )
    publish(__file__, "Generation", columns, rows, notes)


def made_works(folder: Path) -> dict[Any, Work]:
    """What is timed, by (images, decoding, way)."""
    words = [
        f"a {size} {colour} {shape}" for size in ("big", "small") for colour in ("red", "blue") for shape in "ABCD"
    ]
    build_tiny_qwen(MODEL, words, folder / "model", seed=0)
    policy = Policy(dtype="float32", min_pixels=1024, max_pixels=320 * 320)
    processor = load_policy_processor(policy, folder / "model")
    model = load_model(policy, folder / "model")
    replica: Any = SimpleNamespace(model=model, processor=processor, device="cpu", lockstep=False)
    works: dict[Any, Work] = {}
    for number, (images, sizes) in enumerate(SETS.items()):
        collator = Collator(processor, folder / str(number), MODEL.context)
        items = draw_images(folder / str(number), sizes)
        for kind, decoding in DECODINGS.items():
            for once in WAYS:
                works[images, kind, once] = work(replica, collator, items, decoding, once)
    return works


def draw_images(folder: Path, sizes: tuple[tuple[int, int], ...]) -> list[Prompted]:
    """Images of noise, each with the same prompt."""
    folder.mkdir()
    generator = torch.Generator().manual_seed(0)
    for number in range(ITEMS):
        width, height = sizes[number % len(sizes)]
        pixels = (torch.rand(height, width, 3, generator=generator) * 255).byte()
        Image.fromarray(pixels.numpy()).save(folder / f"{number}.png")
    return [Prompted.about(str(number), f"{number}.png", "Describe the image briefly.") for number in range(ITEMS)]


def work(replica: Any, collator: Collator, items: list[Prompted], decoding: Decoding, once: bool) -> Work:
    """One block, generated in one way."""
    return lambda: generate(replica, collator, items, decoding, seed=0, once=once)


def timed(works: Mapping[Any, Work]) -> tuple[dict[Any, float], dict[Any, list[Answer]]]:
    """CPU seconds of the best round of each, after one that is not timed; and the answers."""
    answers = {key: work() for key, work in works.items()}
    seconds = dict.fromkeys(works, float("inf"))
    for _ in range(ROUNDS):
        for key, work in works.items():
            began = time.process_time()
            work()
            seconds[key] = min(seconds[key], time.process_time() - began)
    return seconds, answers


def counted(work: Work) -> int:
    """Floating-point operations of matrix products."""
    with FlopCounterMode(display=False) as counter:
        work()
    return int(counter.get_total_flops())


def row(images: str, kind: str, seconds: Any, operations: Any, answers: Any) -> tuple[str, ...]:
    """A row of the table."""
    (once, plain), (fewer, more) = ([of[images, kind, way] for way in WAYS] for of in (seconds, operations))
    same = answers[images, kind, True] == answers[images, kind, False]
    captions = ITEMS * DECODINGS[kind].candidates
    times = [f"{1000 * value / captions:.1f}" for value in (once, plain)]
    return images, kind, *times, f"{plain / once:.2f}", f"{more / fewer:.2f}", "yes" if same else "NO"


if __name__ == "__main__":
    main()
