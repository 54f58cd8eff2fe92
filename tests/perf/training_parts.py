"""What is compared in the training benchmark: each part plays its sides against each other and keeps what they took."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from training_sides import BATCH, ROWS, reference_pass, stage1, stage2, stage2_in_turn, trl
from training_turns import Measured, take_turns
from training_world import QWEN, Point, World

USUAL = Point(256, 16)
MATRIX = [Point(image, response) for image in (64, 256, 1024) for response in (16, 64)]
WIDE = [Point(64, 16, QWEN), Point(256, 16, QWEN)]
QUICK = [Point(64, 16), USUAL]
NEGATIVES = range(1, 6)
PAIRS = (2, 4, 8, 16)


@dataclass(frozen=True)
class Play:
    """Sides that took turns at one point."""

    point: Point
    prefix_tokens: int
    sides: Mapping[str, Measured]


def against(world: World, points: Sequence[Point]) -> list[Play]:
    """TRL, our own plain way and the shared prefix, with our reference passes, over the same pairs."""
    return [_against(world, point, steps=4 if point.image_tokens < 1024 else 3) for point in points]


def _against(world: World, point: Point, steps: int) -> Play:
    _, plain = reference_pass(world, point, steps * BATCH, **ROWS)
    folder, reference = reference_pass(world, point, steps * BATCH)
    sides = take_turns({
        "TRL": trl(world, point, steps),
        "rows": stage2(world, point, steps, folder, **ROWS),
        "shared": stage2(world, point, steps, folder),
    })  # fmt: skip
    return _play(world, point, {**sides, "reference": reference, "reference in rows": plain})


def supervised(world: World, points: Sequence[Point]) -> list[Play]:
    """Stage 1 with the constraint, and without."""
    return [
        _play(world, point, take_turns({name: stage1(world, point, 7, name) for name in ("sft", "sft_c")}))
        for point in points
    ]


def objectives(world: World) -> list[Play]:
    """Stage 2 with cooling weights, and without, step by step in one process: equal processes differ by 3%."""
    steps = 21
    folder, _ = reference_pass(world, USUAL, steps * BATCH)
    both = take_turns({"both": stage2_in_turn(world, USUAL, steps, folder, ["dpo", "cw_dpo"])})["both"]
    return [_play(world, USUAL, {"dpo": both.every(2, first=1), "cw_dpo": both.every(2, first=0)})]


def negatives(world: World) -> list[Play]:
    """Stage 2 with one to five rejected responses to a pair."""
    steps = 5
    folders = {count: reference_pass(world, USUAL, steps * BATCH, count)[0] for count in NEGATIVES}
    sides = {str(count): stage2(world, USUAL, steps, folders[count], rejected=count) for count in NEGATIVES}
    return [_play(world, USUAL, take_turns(sides))]


def pairs(world: World) -> list[Play]:
    """Stage 2 with more and more pairs in a step."""
    point, steps = Point(64, 16), 4
    folders = {count: reference_pass(world, point, steps * count)[0] for count in PAIRS}
    sides = {str(count): stage2(world, point, steps, folders[count], batch=count, micro_batch=count) for count in PAIRS}
    return [_play(world, point, take_turns(sides))]


def settings(world: World) -> list[Play]:
    """Other settings of TRL and of ours: what they cost and save."""
    point, steps = Point(64, 16), 4
    folder, _ = reference_pass(world, point, steps * BATCH)
    ours = partial(stage2, world, point, steps, folder)
    sides = {
        "TRL": trl(world, point, steps),
        "TRL, micro-batches of 2": trl(
            world, point, steps, per_device_train_batch_size=2, gradient_accumulation_steps=BATCH // 2
        ),
        "TRL, 2 data workers": trl(world, point, steps, dataloader_num_workers=2),
        "TRL, eager attention": trl(world, point, steps, attention="eager"),
        "ours": ours(),
        "ours, micro-batches of 2": ours(micro_batch=2),
        "ours, no workers": ours(feed_workers=0),
        "ours, all logits of the responses": ours(chunked_head=False),
    }
    return [_play(world, point, {name: take_turns({name: side})[name] for name, side in sides.items()})]


def _play(world: World, point: Point, sides: Mapping[str, Measured]) -> Play:
    print(f"{point}: {', '.join(sides)}", file=sys.stderr, flush=True)
    return Play(point, world.prefix_tokens(point), sides)


Part = Callable[[World], list[Play]]

ALL: Mapping[str, Part] = {
    "against": partial(against, points=[*MATRIX, *WIDE]),
    "supervised": partial(supervised, points=[USUAL, Point(64, 64), Point(256, 16, QWEN)]),
    "objectives": objectives,
    "negatives": negatives,
    "pairs": pairs,
    "settings": settings,
}
