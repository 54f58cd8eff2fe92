"""POPE's format: three files of yes-no questions, which differ in how the objects that are not there were chosen."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from cwdpo.data.demo_benchmarks.facts import named
from cwdpo.data.demo_benchmarks.format import Format
from cwdpo.data.demo_benchmarks.scenes import Seen, coco_images
from cwdpo.data.demo_benchmarks.writing import write_images, write_lines
from cwdpo.data.demo_scenes import COLOURS, SHAPES, with_articles

SPLITS = ("random", "popular", "adversarial")
IMAGES = 6
"""Each is asked about twice in each split."""
OBJECTS = [f"{colour} {shape}" for shape in SHAPES for colour in COLOURS]


class PopeFormat(Format):
    """`coco_pope_{random,popular,adversarial}.json` and images of val2014."""

    name: Literal["pope"]

    def write(self, scenes: Sequence[Seen], folder: Path) -> None:
        """See `Format`."""
        shown = scenes[:IMAGES]
        frequent = [name for name, _ in Counter(named(thing) for seen in scenes for thing in seen.things).most_common()]
        for split in SPLITS:
            asked = [
                (seen.coco_name, thing, label)
                for place, seen in enumerate(shown)
                for thing, label in ((_present(seen), "yes"), (_absent(split, seen, place, frequent), "no"))
            ]
            write_split(folder, split, [row(number, *one) for number, one in enumerate(asked, 1)])
        write_images(folder / "val2014", coco_images(shown))


def row(number: int, image: str, thing: str, label: str) -> dict[str, Any]:
    """A line: `{"question_id", "image", "image_id", "text", "label"}`."""
    text = with_articles(f"Is there a {thing} in the image?")
    return {"question_id": number, "image": image, "image_id": int(image[-16:-4]), "text": text, "label": label}


def write_split(folder: Path, split: str, rows: Sequence[dict[str, Any]]) -> None:
    """One file, below output/coco as in the repository."""
    write_lines(folder / "output" / "coco" / f"coco_pope_{split}.json", rows)


def _present(seen: Seen) -> str:
    return named(seen.things[0])


def _absent(split: str, seen: Seen, place: int, frequent: Sequence[str]) -> str:
    """Any object, the most frequent one of the world, or one that only the colour tells from what is there."""
    there = {named(thing) for thing in seen.things}
    alike = [name for name in OBJECTS if name.split()[1] == seen.things[0].shape]
    pool = {"random": OBJECTS, "popular": frequent, "adversarial": alike}[split]
    absent = [name for name in pool if name not in there] or [name for name in OBJECTS if name not in there]
    return absent[0 if split == "popular" else 7 * place % len(absent)]
