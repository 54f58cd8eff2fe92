"""SIMA (arXiv 2405.15973): the policy ranks its own greedy answer and a sampled one; the better one wins."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

from pydantic import Field

from cwdpo.base.lines import RowsById
from cwdpo.data.records import Record
from cwdpo.model.decoding import Decoding
from cwdpo.negatives.answers import Answer, Answers, AnswersOf, beaten
from cwdpo.negatives.critique import Critique, CritiquePrompt, shipped_prompt
from cwdpo.negatives.source import Made, Offer, Part, Source


class SelfCritic(Source):
    """Two answers of the policy that is trained next, ranked by itself with the truth before it."""

    source: Literal["self_critic"]
    temperature: float = Field(default=0.8, gt=0)
    """Of the sampled answer."""
    top_p: float = Field(default=0.9, gt=0, le=1)
    """Of the sampled answer."""
    prompt: CritiquePrompt = Field(default_factory=shipped_prompt)
    """What the policy is asked, or a .txt file with it: see `negatives/critique.txt`; {first} and {second} must be in
    it, {question} and {truth} may, and are filled in."""
    max_new_tokens: int = Field(default=64, gt=0)
    """Longest answer, end-of-turn included."""
    block: int = Field(default=32, gt=0)
    """Questions answered together: the unit of sharding and resume."""
    seed: int = 0
    """Of the sampled answer, and of which answer is shown first; the source's own, the same for all seeds of training
    and all rounds of a refresh."""

    def parts(self) -> Mapping[str, Part]:
        """Both answers and the verdicts."""
        room = {"max_new_tokens": self.max_new_tokens, "block": self.block}
        drawn = Decoding(strategy="sample", temperature=self.temperature, top_p=self.top_p, **room)
        answers = {"greedy": Answers(decoding=Decoding(**room)), "sampled": Answers(decoding=drawn, seed=self.seed)}
        critique = Critique(**answers, prompt=self.prompt, seed=self.seed, block=self.block)
        return {**answers, "critique": critique}

    def offers(self, records: Sequence[Record], made: Made) -> Iterator[Offer]:
        """One pair; none where both answers are alike, one is empty, there is no verdict or the worse is the truth."""
        answers = {role: AnswersOf(made[role]) for role in ("greedy", "sampled")}
        verdicts = RowsById(made["critique"] / "verdicts.jsonl", dict)
        for record in records:
            own = {role: found.of(record)[0] for role, found in answers.items()}
            yield self._offer(record, verdicts.get(record.id), own)

    def _offer(self, record: Record, verdict: Mapping[str, Any] | None, answers: Mapping[str, Answer]) -> Offer:
        if verdict is None:  # they are alike or one is empty, and which one won does not matter
            return beaten(record, answers["greedy"].text, answers["sampled"], self.source)
        if verdict["better"] is None:
            return Offer(dropped=("too_long_to_judge",))
        (worse,) = answers.keys() - {verdict["better"]}
        found = beaten(record, answers[verdict["better"]].text, answers[worse], self.source)
        how = {"answer": worse, "margin": verdict["margin"]}
        return replace(found, rejected=tuple(replace(item, how={**item.how, **how}) for item in found.rejected))
