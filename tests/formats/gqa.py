"""A small download of GQA: the balanced test-dev questions and the images."""

from __future__ import annotations

from pathlib import Path

from formats.pictures import picture

from cwdpo.data.demo_benchmarks import gqa as made
from cwdpo.data.demo_benchmarks.gqa import question

QUESTIONS = {
    "201307251": question("n161313", "Is it overcast?", "no", "verify", "global"),
    "201640614": question("n235859", "Who is wearing the dress?", "woman", "query", "rel"),
    "202225914": question("n161313", "Is the café to the left or to the right?", "left", "choose", "rel"),
    "20602949": question("n289505", "Are there both a cat and a dog?", "yes", "logical"),
    "20294484": question("n235859", "Are the two cars the same color?", "yes", "compare", "attr"),
    "20186524": question("n289505", "What color is the t-shirt?", "black and white", "query", "attr"),
}


def write(folder: Path) -> None:
    """The questions below `questions1.2`, the images below `images`."""
    names = sorted({row["imageId"] for row in QUESTIONS.values()})
    made.write(folder, QUESTIONS, {name: picture((60 * number, 120, 40)) for number, name in enumerate(names)})
