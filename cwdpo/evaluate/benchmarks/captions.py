"""Captioning on a Karpathy split: load, prompt, score. COCO and Flickr30k build on it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field

from cwdpo.base.config import Config, Neutral
from cwdpo.base.errors import DataError
from cwdpo.data.records import Record
from cwdpo.data.sources import DataSource
from cwdpo.model.decoding import Decoding
from cwdpo.model.generate import Prompted

if TYPE_CHECKING:
    from cwdpo.metrics.captions import CaptionScores


class KarpathyCaptions(Config):
    """Captions of held-out images against all their references."""

    data: DataSource | None = None
    """Where the images are; None takes the experiment's own data set."""
    split: Literal["val", "test"] = "test"
    """Which split is described."""
    prompt: str = "Describe the image briefly."
    """The user's turn."""
    decoding: Decoding = Decoding()
    """Greedy, 64 tokens, unless said otherwise."""
    limit: Annotated[int | None, Neutral(None)] = Field(default=None, gt=0)
    """Score only the first items; marked as partial wherever the score appears."""

    headline: ClassVar[tuple[str, ...]] = ("bleu_4", "meteor", "rouge_l", "cider", "spice")

    def items(self, records: Sequence[Record]) -> list[Prompted]:
        """One item per image of the split.

        Raises:
            DataError: the split is empty.
        """
        chosen = self._records(records)
        return [Prompted(record.image_id, record.image, self.prompt) for record in chosen]

    def score(self, answers: dict[str, str], records: Sequence[Record]) -> CaptionScores:
        """Score answers by image id."""
        from cwdpo.metrics.captions import score_captions

        references = {record.image_id: record.references for record in self._records(records)}
        return score_captions(answers, references, ("bleu", "meteor", "rouge_l", "cider", "spice"))

    def _records(self, records: Sequence[Record]) -> list[Record]:
        by_image = {record.image_id: record for record in reversed(records) if record.split == self.split}
        chosen = list(reversed(by_image.values()))[: self.limit]
        if not chosen:
            found = sorted({record.split for record in records})
            raise DataError(f"nothing to describe: the {self.split} split is empty; found {', '.join(found) or 'none'}")
        return chosen


class Captions(KarpathyCaptions):
    """The held-out images of any Karpathy file, without the name of a published benchmark."""

    name: Literal["captions"]
