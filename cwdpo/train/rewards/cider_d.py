"""CIDEr-D of a caption."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar, Literal

from cwdpo.base.config import Config
from cwdpo.base.errors import NotAvailable
from cwdpo.data.frequencies import load_cider
from cwdpo.metrics import ptb
from cwdpo.train.rewards.judge import Judge, references_of


class CiderReward(Config):
    """CIDEr-D against all references of the image, in [0, 10]; document frequencies of the training references."""

    name: Literal["cider_d"] = "cider_d"

    stages: ClassVar[tuple[str, ...]] = ("frequencies",)
    """Stages of their own, computed from the records, whose results it reads."""

    def judge(self, inputs: Mapping[str, Path]) -> Judge:
        """What judges responses to the records of `inputs`.

        Raises:
            NotAvailable: Java is missing; said here, not after the first responses.
        """
        ptb.tokenize(["a"])
        references, cider = references_of(inputs), load_cider(inputs["frequencies"])

        def judged(ids: Sequence[str], responses: Sequence[str]) -> list[float]:
            texts = {text for name in set(ids) for text in references[name]} | set(responses)
            tokens = {text: line.split() for text, line in zip(texts, _tokenized([*texts]), strict=True)}
            return [
                cider.score(tokens[response], [tokens[text] for text in references[name]])
                for name, response in zip(ids, responses, strict=True)
            ]

        return judged


def _tokenized(texts: Sequence[str]) -> list[str]:
    """By Java, tried again where it fails: it did run when the stage began, and days of training hang on it."""
    for wait in (5.0, 30.0):
        try:
            return ptb.tokenize(texts)
        except NotAvailable:
            time.sleep(wait)
    return ptb.tokenize(texts)
