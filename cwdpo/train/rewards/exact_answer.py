"""A right answer, or none."""

from __future__ import annotations

import re
import string
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar, Literal

from cwdpo.base.config import Config
from cwdpo.train.rewards.judge import Judge, references_of


class ExactReward(Config):
    """1 for an answer that equals a reference but for case, punctuation and articles, else 0."""

    name: Literal["exact_answer"] = "exact_answer"

    stages: ClassVar[tuple[str, ...]] = ()

    def judge(self, inputs: Mapping[str, Path]) -> Judge:
        """What judges responses to the records of `inputs`."""
        references = references_of(inputs)

        def judged(ids: Sequence[str], responses: Sequence[str]) -> list[float]:
            return [
                float(normalised(response) in map(normalised, references[name]))
                for name, response in zip(ids, responses, strict=True)
            ]

        return judged


def normalised(answer: str) -> str:
    """An answer in lower case, without punctuation and articles, single blanks between words."""
    bare = answer.lower().translate(str.maketrans("", "", string.punctuation))
    return " ".join(re.sub(r"\b(a|an|the)\b", " ", bare).split())
