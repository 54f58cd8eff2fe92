"""GQA's format: one JSON object of questions of five structures, with short answers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from cwdpo.data.demo_benchmarks.facts import Fact, facts, picked
from cwdpo.data.demo_benchmarks.format import Format
from cwdpo.data.demo_benchmarks.scenes import Seen
from cwdpo.data.demo_benchmarks.writing import write_images, write_json
from cwdpo.data.demo_scenes import Pair

FACTS, PAIRS = 24, 6
"""Questions about facts, and at most so many that compare two things."""


class GqaFormat(Format):
    """`testdev_balanced_questions.json` and images."""

    name: Literal["gqa"]

    def write(self, scenes: Sequence[Seen], folder: Path) -> None:
        """See `Format`."""
        asked = [_about(seen, fact, number) for number, (seen, fact) in enumerate(picked(scenes, FACTS))]
        asked += [_compare(seen) for seen in scenes if isinstance(seen.scene, Pair)][:PAIRS]
        questions = {f"{number:08d}": one for number, one in enumerate(asked, 1)}
        used = {one["imageId"] for one in asked}
        write(folder, questions, {_image(seen): seen.jpeg for seen in scenes if _image(seen) in used})


def question(image: str, text: str, answer: str, structural: str, semantic: str = "obj") -> dict[str, Any]:
    """An entry of the file with all keys of the genuine one."""
    return {
        "semantic": [{"operation": "select", "dependencies": [], "argument": "scene"}],
        "entailed": [],
        "equivalent": [],
        "question": text,
        "imageId": image,
        "isBalanced": True,
        "groups": {"global": None, "local": None},
        "answer": answer,
        "semanticStr": "select: scene",
        "annotations": {"answer": {}, "question": {}, "fullAnswer": {}},
        "types": {"detailed": "existC", "semantic": semantic, "structural": structural},
        "fullAnswer": f"It is {answer}.",
    }


def write(folder: Path, questions: Mapping[str, Any], images: Mapping[str, bytes]) -> None:
    """The questions below `questions1.2`, the images (by their ids) below `images`."""
    write_json(folder / "questions1.2" / "testdev_balanced_questions.json", questions)
    write_images(folder / "images", {f"{name}.jpg": content for name, content in images.items()})


def _image(seen: Seen) -> str:
    return f"n{seen.number}"


def _about(seen: Seen, fact: Fact, number: int) -> dict[str, Any]:
    """A question about a fact, structures in turn."""
    structure, make = _STRUCTURES[number % len(_STRUCTURES)]
    text, answer = make(seen, fact, number // len(_STRUCTURES))
    return question(_image(seen), text, answer, structure, "attr")


def _query(seen: Seen, fact: Fact, turn: int) -> tuple[str, str]:
    return fact.question, fact.value


def _verify(seen: Seen, fact: Fact, turn: int) -> tuple[str, str]:
    return fact.claim(fact.false(turn) if turn % 2 else fact.value), "no" if turn % 2 else "yes"


def _choose(seen: Seen, fact: Fact, turn: int) -> tuple[str, str]:
    values = [fact.value, fact.false(turn)]
    return fact.claim(" or ".join(reversed(values) if turn % 2 else values)), fact.value


def _logical(seen: Seen, fact: Fact, turn: int) -> tuple[str, str]:
    """Whether two things are true, of which the first is always."""
    other = next(one for one in facts(seen) if one.kind != fact.kind)
    text, answer = _verify(seen, fact, turn)
    return f"{other.claim(other.value)[:-1]} and {text[0].lower()}{text[1:]}", answer


_STRUCTURES: tuple[tuple[str, Callable[[Seen, Fact, int], tuple[str, str]]], ...] = (
    ("query", _query),
    ("verify", _verify),
    ("choose", _choose),
    ("logical", _logical),
)


def _compare(seen: Seen) -> dict[str, Any]:
    first, second = seen.things
    answer = "yes" if first.colour == second.colour else "no"
    return question(_image(seen), "Do both things have the same colour?", answer, "compare", "attr")
