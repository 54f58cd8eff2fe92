"""Corrective dialogues beside the rejected responses of another source, as nSFT trains on them.

What was wrong is asked about and denied, what is right is affirmed. By rule, no model is needed: of a short answer to
a question the whole is asked about, of a caption the phrases in which it differs and the whole; the questions are in
`codebook.yaml`. A model behind an endpoint writes about what its prompt calls a vision error (`vision_errors.yaml`);
short answers stay with the rule.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, Field

from cwdpo.base.config import Config, Neutral
from cwdpo.base.identity import seed_from
from cwdpo.data.records import Record, Rejected, Turn, dialogue_of
from cwdpo.endpoint.settings import Endpoint
from cwdpo.negatives.codebook import corrections, is_short
from cwdpo.negatives.llm.correct import Correct, CorrectPrompt
from cwdpo.negatives.llm.rows import replies_of
from cwdpo.negatives.llm.vision_errors import described
from cwdpo.negatives.plain import Plain
from cwdpo.negatives.source import Made, Offer, Part, Source, named, within
from cwdpo.objectives.supply import Supply


class Writer(Config):
    """A model that writes the dialogues."""

    endpoint: Endpoint
    """Who is asked."""
    codebook: bool = True
    """Say what kinds of errors to look for; false is the ablation without the vision error codebook."""
    prompt: CorrectPrompt = "correct"
    """A shipped prompt, or a .txt file; $question, $chosen, $rejected, $codebook and $turns are filled in."""
    images: Annotated[bool, Neutral(False)] = False
    """Send the image, too, to an endpoint that sees."""


def _none_by_rule(value: object) -> object:
    """`rule` in a file means that no model writes."""
    if isinstance(value, str) and value != "rule":
        raise ValueError("expected rule, or a mapping with an endpoint")
    return None if value == "rule" else value


class Corrective(Source):
    """Adds a dialogue to every rejected response of `of`, in place of the one it may have."""

    source: Literal["corrective"]
    of: Plain = Field(discriminator="source")
    """Where the rejected responses come from."""
    turns: int = Field(default=5, gt=0)
    """Most questions of a dialogue."""
    writer: Annotated[Writer | None, BeforeValidator(_none_by_rule), Neutral(None)] = None
    """Who writes the dialogues: `rule` is the default, `{endpoint: {model: ...}}` a model."""
    seed: int = 0
    """Of the wording and the order of the questions that a rule writes."""

    makes: ClassVar[Mapping[Supply, str]] = {"dialogue": ""}

    def parts(self) -> Mapping[str, Part]:
        """Those of `of`, and what the endpoint writes about its rejected responses."""
        parts = named("of", self.of.parts())
        if self.writer is None:
            return parts
        codebook = f"{HEADING}\n{described()}\n" if self.writer.codebook else ""
        settings = {name: getattr(self.writer, name) for name in ("endpoint", "prompt", "images")}
        return {**parts, "llm": Correct(of=self.of, turns=self.turns, codebook=codebook, **settings)}

    def provides(self, by_data: frozenset[Supply]) -> frozenset[Supply]:
        """A dialogue, and what `of` provides."""
        return self.of.provides(by_data) | frozenset(self.makes)

    def offers(self, records: Sequence[Record], made: Made) -> Iterator[Offer]:
        """Those of `of`, each rejected response with its dialogue; without one where no reply could be used."""
        rows = None if self.writer is None else replies_of(made["llm"])
        for record, offer in zip(records, self.of.offers(records, within(made, "of")), strict=True):
            replies = [None] * len(offer.rejected) if rows is None else rows.get(record.id, [])
            pairs = zip(offer.rejected, replies, strict=True)
            rejected = tuple(replace(item, dialogue=self._dialogue(record, item, reply)) for item, reply in pairs)
            yield replace(offer, rejected=rejected)

    def _dialogue(self, record: Record, rejected: Rejected, reply: Mapping[str, Any] | None) -> tuple[Turn, ...]:
        if self.writer is None or is_short(record, rejected):
            return self._by_rule(record, rejected)
        return dialogue_of(reply["dialogue"]) if reply else ()

    def _by_rule(self, record: Record, rejected: Rejected) -> tuple[Turn, ...]:
        """One to `turns` questions; shuffled, so that the answer does not follow from the place."""
        chance = random.Random(seed_from("corrective", self.seed, record.id, rejected.text))
        turns = corrections(record, rejected, chance)[: self.turns]
        return tuple(chance.sample(turns, len(turns)))


HEADING = "Look for errors of these kinds:"
"""Before the codebook in a prompt."""
