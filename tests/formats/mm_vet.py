"""A small download of MM-Vet: mm-vet.json, one object with an entry a question, and the folder images."""

from __future__ import annotations

from pathlib import Path

from formats.pictures import picture

from cwdpo.data.demo_benchmarks import mm_vet as made
from cwdpo.data.demo_benchmarks.mm_vet import entry

ENTRIES = {
    "v1_0": entry(0, "Which numbers solve it?", "-2<AND>7", "ocr", "math", suffix="png"),
    "v1_1": entry(1, "Who runs ahead?", "the girl<OR>the girl in red", "rec", "spat"),
    "v1_2": entry(2, "What is on the plate?", "rice", "rec"),
    "v1_3": entry(3, "Why is this funny?", "The cat wears $5 boots.\nCats need none.", "ocr", "know", "gen"),
    "v1_4": entry(4, "How much are two?", "9.50", "ocr", "math"),
    "v1_5": entry(5, "What does “exit” point to?", "left", "rec", "ocr", "spat"),
    "v1_6": entry(6, "Who painted it?", "Vermeer", "know"),
}


def write(folder: Path) -> None:
    """Write it as mm-vet.zip unpacks."""
    names = [one["imagename"] for one in ENTRIES.values()]
    made.write(folder, ENTRIES, {name: picture((30 * shade, 90, 200), name) for shade, name in enumerate(names)})
