"""The policy's answers by one rank and by two, and the page of examples of 10,000 pairs.

Ranks have one thread each and equal work: images of one size, answers that nearly all run to their last token. What a
job costs before and after its blocks (starting, loading, comparing ways to score) is that of a job with few blocks,
and is taken off. CPU time says what sharding costs even where others use the machine, too.
"""

from __future__ import annotations

import os

os.environ["OMP_NUM_THREADS"] = "1"

import resource
import tempfile
import time
from array import array
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from measure import publish
from PIL import Image

from cwdpo.data.records import Record, write_records

BLOCK, FEW, MANY, ROUNDS = 16, 2, 26, 3
PIXELS, TOKENS, PAIRS = 256, 16, 10_000
PROMPT = "Describe the image."
SIZES = {"hidden_size": 256, "layers": 4, "intermediate_size": 768, "image_size": 256, "patch_size": 8, "context": 512}


@dataclass(frozen=True)
class Cost:
    """Of a job: seconds of the clock, and of all its processes together."""

    wall: float
    cpu: float

    def __sub__(self, other: Cost) -> Cost:
        return Cost(self.wall - other.wall, self.cpu - other.cpu)

    def least(self, other: Cost) -> Cost:
        """The smaller of each."""
        return Cost(min(self.wall, other.wall), min(self.cpu, other.cpu))


def main() -> None:
    """Time both and write results/negatives.md."""
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        make(home)
        found: dict[tuple[int, int], Cost] = {}
        for turn in range(ROUNDS):
            for ranks in (1, 2):
                for blocks in (FEW, MANY):
                    cost = answered(home, ranks, blocks, turn)
                    found[ranks, blocks] = cost.least(found.get((ranks, blocks), cost))
        page = page_seconds(home)
    costs = {ranks: found[ranks, MANY] - found[ranks, FEW] for ranks in (1, 2)}
    questions = (MANY - FEW) * BLOCK
    rows = [
        (ranks, f"{cost.wall:.1f}", f"{questions / cost.wall:.1f}", f"{cost.cpu:.1f}",
         f"{costs[1].wall / cost.wall:.2f}", f"{ranks * costs[1].cpu / cost.cpu:.2f}")
        for ranks, cost in costs.items()
    ]  # fmt: skip
    columns = (
        "ranks", "s for the answers", "answers/s", "CPU s", "times quicker by the clock", "times quicker by CPU time"
    )  # fmt: skip
    load = os.getloadavg()[0]
    notes = (
        f"{questions} questions in blocks of {BLOCK}, greedy answers of up to {TOKENS} tokens to images of"
        f" {PIXELS} x {PIXELS} pixels, each answer scored; a float32 model of {SIZES['layers']} layers of width"
        f" {SIZES['hidden_size']}; the least of {ROUNDS} rounds that took turns. By CPU time: ranks times the CPU time"
        " of one rank over that of all, which is what the clock would show with cores to themselves. At the end"
        f" {load:.1f} processes were running on the machine's {os.cpu_count()} cores. The page of examples of {PAIRS}"
        f" pairs takes {page:.2f} s of CPU time."
    )
    publish(__file__, "Answers of the policy", columns, rows, notes)


def make(home: Path) -> None:
    """A model, images, and records for few and for many blocks."""
    from cwdpo.model.tiny import TinyQwen, build_tiny_qwen

    names = [f"{number:04d}.png" for number in range(MANY * BLOCK)]
    (home / "images").mkdir()
    for name in names:
        Image.effect_noise((PIXELS, PIXELS), 60).convert("RGB").save(home / "images" / name)
    for blocks in (FEW, MANY):
        (home / f"pairs{blocks}").mkdir()
        write_records(home / f"pairs{blocks}" / "records.jsonl", map(record, names[: blocks * BLOCK]))
    build_tiny_qwen(TinyQwen(vocabulary=2048, **SIZES), [PROMPT] * 20, home / "model", seed=0)


def record(name: str) -> Record:
    """One question of its own."""
    return Record(name, name, name, PROMPT, "A ball.", ("A ball.",), (), "train", "stage2")


def answered(home: Path, ranks: int, blocks: int, turn: int) -> Cost:
    """What a job that answers so many blocks takes."""
    import harness

    part = {"decoding": {"max_new_tokens": TOKENS, "block": BLOCK}}
    spec = {"policy": {"dtype": "float32"}, "portion": "stage2", "part": part}
    inputs = {"model": home / "model", "pairs": home / f"pairs{blocks}", "images": home / "images"}
    node = harness.node("answers", spec, inputs, f"{ranks} {blocks} {turn}", micro_batch=BLOCK, feed_workers=0)
    began, used = time.perf_counter(), _children()
    harness.compute(home, [node], ranks)
    return Cost(time.perf_counter() - began, _children() - used)


def _children() -> float:
    """CPU time of processes that ended."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def page_seconds(home: Path) -> float:
    """CPU time of the page of many pairs, read from their file."""
    from cwdpo.base import files
    from cwdpo.base.lines import JsonLines, Rows
    from cwdpo.negatives.page import write_page
    from cwdpo.negatives.summary import Statistics

    files.write_jsonl(home / "negatives.jsonl", _pairs())
    statistics, lines = Statistics(), JsonLines(home / "negatives.jsonl")
    starts = array("q")
    for start, row in lines.scan():
        starts.append(start)
        statistics.add(row)
    rows: Rows[dict[str, Any]] = Rows(lines, starts, dict)
    found = []
    for _ in range(ROUNDS):
        began = time.process_time()
        write_page(home / "page.html", rows, home / "images", "Pairs", statistics, {})
        found.append(time.process_time() - began)
    return min(found)


def _pairs() -> Iterator[Mapping[str, Any]]:
    for number in range(PAIRS):
        item = {"text": f"A blue ball and {number} cups.", "source": "perturb:colour", "grade": None}
        yield {
            "id": str(number), "image": f"{number % (MANY * BLOCK):04d}.png", "prompt": PROMPT,
            "chosen": f"A red ball and {number} cups.", "rejected": [item],
        }  # fmt: skip


if __name__ == "__main__":
    main()
