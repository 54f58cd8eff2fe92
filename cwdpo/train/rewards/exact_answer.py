"""A right answer, or none."""

from __future__ import annotations

import re
import string
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar, Literal

from cwdpo.base.config import Config
from cwdpo.train.rewards.judge import Judge, references_of

ARTICLES = ("a", "an", "the")


class ExactReward(Config):
    """1 for an answer that equals a reference but for case, punctuation and articles, else 0."""

    name: Literal["exact_answer"] = "exact_answer"

    stages: ClassVar[tuple[str, ...]] = ()

    def judge(self, inputs: Mapping[str, Path]) -> Judge:
        """What judges responses to the records of `inputs`."""
        references = references_of(inputs)

        def judged(ids: Sequence[str], responses: Sequence[str]) -> list[float]:
            return [
                float(bool(normalised(response)) and normalised(response) in map(normalised, references[name]))
                for name, response in zip(ids, responses, strict=True)
            ]

        return judged


def normalised(answer: str) -> str:
    """An answer in lower case, words without the punctuation around them, and without articles where more is left.

    Numbers keep their sign, point and slash; commas between digits go.
    """
    words = [_bare(word) for word in re.sub(r"(?<=\d),(?=\d)", "", answer.lower()).split()]
    words = [word for word in words if word]
    return " ".join([word for word in words if word not in ARTICLES] or words)


def _bare(word: str) -> str:
    """Without punctuation at its ends, but for the sign or the point of a number."""
    number = re.search(r"[-+]?\.?\d.*", word)
    if number and not word[: number.start()].strip(string.punctuation):
        return number.group().rstrip(string.punctuation)
    return word.strip(string.punctuation)
