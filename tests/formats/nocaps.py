"""A small download of NoCaps: the validation captions with their domains, and the images fetched by their URLs."""

from __future__ import annotations

from pathlib import Path

from formats.pictures import picture

from cwdpo.data.demo_benchmarks import nocaps as made

FOLDER = "val"
IMAGES = {
    0: ("0013ea2087020901", "in-domain", "baby"),
    1: ("0039bbe0ab2d2e8a", "near-domain", "lantern"),
    2: ("00450d64a2a5a1b0", "out-domain", "jellyfish"),
    3: ("0a5c1f6e2d3b4c5d", "near-domain", "accordion"),
    17: ("17aa00bb11cc22dd", "out-domain", "harp"),
    4499: ("fffd5e4a8c1b2f3e", "in-domain", "dog"),
}
"""Id -> OpenImages' id, domain and what is shown; ids have gaps."""
WORDINGS = (
    "A {} outside.", "Someone's {}, seen from above", "The {} is  very small.", "There is a {} here",
    "Two views of a {}.", "A café with a {}.", "a {}", "A {}: nothing else.", "A photo of a {} on a table.",
    "An old {} in the light.",
)  # fmt: skip


def content() -> dict[str, object]:
    """The file with all keys of the genuine one; captions of an image do not stand together."""
    pairs = [(number, wording.format(thing)) for wording in WORDINGS for number, (_, _, thing) in IMAGES.items()]
    return made.content({number: found[:2] for number, found in IMAGES.items()}, pairs)


def write(folder: Path) -> None:
    """The captions, and the images in a folder of the user's."""
    images = {name: picture((number % 256, 40, 120)) for number, (name, _, _) in IMAGES.items()}
    made.write(folder, content(), images, FOLDER)
