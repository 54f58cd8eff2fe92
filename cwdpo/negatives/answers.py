"""Stage `answers`: the policy answers every question of a portion; what on-policy sources draw from.

A question is an image and a prompt: records that share both share the answers. One row each in answers.jsonl:
`{"id", "image", "prompt", "answers": [{"text", "tokens", "truncated", "mean_logp"}]}`, best answer first; mean_logp is
the policy's own, nats per token, of the text as training would score it: end-of-turn included, the image unaltered.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from cwdpo.base.config import Config, Neutral
from cwdpo.base.context import Blocks, StageContext
from cwdpo.base.errors import DataError, TrainingError
from cwdpo.base.identity import digest
from cwdpo.base.lines import RowsById
from cwdpo.data.ahead import ahead
from cwdpo.data.encoding import Collator
from cwdpo.data.records import Portion, Record, Rejected, open_records
from cwdpo.data.samples import Sample
from cwdpo.data.views import View
from cwdpo.model.config import Policy
from cwdpo.model.decoding import Decoding
from cwdpo.model.generate import Prompted, Written, goes_once, how_decoded, write
from cwdpo.model.inference import Replica, pending_of
from cwdpo.model.load import context_length
from cwdpo.model.micro import Member
from cwdpo.model.scored import score_members
from cwdpo.model.scoring import Scorer
from cwdpo.model.trial import choose_scorer
from cwdpo.negatives.source import Offer, Part, fault_of


class Answers(Part):
    """Answers of the policy that is trained next."""

    stage: ClassVar[str] = "answers"
    asks_policy: ClassVar[bool] = True

    decoding: Decoding = Decoding()
    """How they are decoded."""
    seed: Annotated[int, Neutral(0)] = 0
    """Of sampling."""
    noise: Annotated[int | None, Neutral(None)] = Field(default=None, ge=0, lt=1000)
    """Diffusion step of the noise over the image that is answered to; see `views.noised`."""

    @property
    def label(self) -> str:
        """What tells them apart for humans: `greedy`, `beam of 5`, `sample, noised`."""
        width = f" of {self.decoding.beams}" if self.decoding.strategy == "beam" else ""
        return f"{self.decoding.strategy}{width}{'' if self.noise is None else ', noised'}"

    @property
    def view(self) -> View:
        """What is seen of each image."""
        return View(noise=self.noise)


class AnswersSpec(Config):
    """The policy and the records are parents."""

    policy: Policy
    portion: Literal["stage1", "stage2"]
    part: Answers


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer of the policy; `rank` is its place among those to the question, from 0."""

    text: str
    rank: int
    truncated: bool
    mean_logp: float


class AnswersOf(Mapping[str, Sequence[Answer]]):
    """What a stage `answers` wrote, a row read when it is asked for."""

    def __init__(self, folder: Path) -> None:
        self._rows = RowsById(folder / "answers.jsonl", _answers_of)

    def of(self, record: Record) -> Sequence[Answer]:
        """Answers to a record's question, best first."""
        return self[question_id(record.image, record.prompt)]

    def __getitem__(self, question: str) -> Sequence[Answer]:
        return self._rows[question]

    def __iter__(self) -> Any:
        return iter(self._rows)

    def __len__(self) -> int:
        return len(self._rows)


def _answers_of(row: Mapping[str, Any]) -> list[Answer]:
    return [
        Answer(item["text"], rank, item["truncated"], item["mean_logp"]) for rank, item in enumerate(row["answers"])
    ]


def alike(text: str, other: str) -> bool:
    """Whether two answers have the same words: case, punctuation and blanks aside."""
    return _words(text) == _words(other)


def _words(text: str) -> tuple[str, ...]:
    """Letters with their marks and signs other than punctuation; text of nothing else stands for itself."""
    plain = unicodedata.normalize("NFKC", text).casefold()
    return tuple(re.sub(r"[^\w\s]", _without_punctuation, plain).split()) or (text,)


def _without_punctuation(letter: re.Match[str]) -> str:
    return " " if unicodedata.category(letter[0]).startswith("P") else letter[0]


def rejected(answer: Answer, source: str) -> Rejected:
    """An answer as a rejected response."""
    how = {"rank": answer.rank, **({"truncated": True} if answer.truncated else {})}
    return Rejected(answer.text, source, mean_logp=answer.mean_logp, how=how)


def wrong(record: Record, answers: Sequence[Answer], source: str) -> Offer:
    """Answers to a record's question that say something, each another thing, none of them a true response.

    The others are named as dropped.
    """
    truth = {_words(text) for text in (record.chosen, *record.references)}
    found: dict[tuple[str, ...], Rejected] = {}
    dropped = []
    for one in answers:
        words = _words(one.text)
        fault = fault_of(one.text, words in truth, words in found)
        if fault:
            dropped.append(fault)
        else:
            found[words] = rejected(one, source)
    return Offer(tuple(found.values()), dropped=tuple(dropped))


def beaten(record: Record, winner: str, loser: Answer, source: str) -> Offer:
    """One answer to a record's question that lost to another one; nothing where that teaches nothing."""
    if not winner:
        return Offer(dropped=("empty",))
    if alike(winner, loser.text):
        return Offer(dropped=("both_answers_alike",))
    found = wrong(record, [loser], source)
    return replace(found, chosen=winner) if found.rejected else found


def question_id(image: str, prompt: str) -> str:
    """Of an image and a prompt, 16 hex digits."""
    return digest([image, prompt])[:16]


def questions(records: Iterable[Record]) -> list[Prompted]:
    """Every image and prompt once, in the order of the records."""
    found: dict[str, Prompted] = {}
    for record in records:
        name = question_id(record.image, record.prompt)
        found.setdefault(name, Prompted.about(name, record.image, record.prompt))
    return list(found.values())


def open_questions(folder: Path, portion: Portion) -> list[Prompted]:
    """Those of a portion of the records.

    Raises:
        DataError: it has none.
    """
    found = questions(open_records(folder / "records.jsonl", portion))
    if not found:
        raise DataError(f"{folder}: no record is of the portion '{portion}', so there is nothing to ask the policy")
    return found


def run(context: StageContext) -> None:
    """Write answers.jsonl and settings.json (what made them).

    Raises:
        DataError: the portion is empty, or a prompt leaves no room for an answer; found before anything is computed.
    """
    spec: AnswersSpec = context.spec
    asked = open_questions(context.inputs["pairs"], spec.portion)
    blocks = Blocks(context, asked, spec.part.decoding.block)
    if pending_of(blocks):
        _answer(context, blocks)
    context.barrier()
    blocks.publish("answers.jsonl", "settings.json")


def _answer(context: StageContext, blocks: Blocks[Prompted]) -> None:
    """All blocks that are not there yet."""
    spec: AnswersSpec = context.spec
    decoding, asked = spec.part.decoding, blocks.items
    replica = Replica(context, spec.policy)
    how = how_decoded(replica, spec.policy.dtype, decoding)
    blocks.keep("settings.json", {**how, "seed": spec.part.seed, "noise": spec.part.noise})
    collator = Collator(replica.processor, context.inputs["images"], context_length(replica.model))
    collator.check_prompts(map(_sample, asked), decoding.max_new_tokens)
    once = goes_once(context, replica, collator, asked[0], spec.policy.dtype)
    scorer = scorer_of(context, replica, collator, asked, decoding.candidates)
    turns = ahead(
        replica.blocks(blocks),
        lambda turn: blocks.members(turn[0]),
        lambda item: collator.prefix(item.image, item.prompt, spec.part.view),
        context.execution.feed_workers,
    )
    with closing(turns):
        for (index, writes), prefixes in turns:
            items = blocks.members(index)
            written = write(replica, collator, items, decoding, spec.part.seed, once, prefixes)
            texts = [[one.text for one in own] for own in written]
            logps = mean_logps(context, replica, scorer, collator, items, texts, blocks.length(0))
            if writes:
                blocks.write(index, list(map(_row, items, written, logps)))


def _row(item: Prompted, written: Sequence[Written], logps: Sequence[float]) -> dict[str, Any]:
    answers = [
        {"text": one.text, "tokens": len(one.tokens), "truncated": one.truncated, "mean_logp": logp}
        for one, logp in zip(written, logps, strict=True)
    ]
    return {"id": item.id, "image": item.image, "prompt": item.prompt, "answers": answers}


def scorer_of(
    context: StageContext, replica: Replica, collator: Collator, asked: Sequence[Prompted], responses: int
) -> Scorer:
    """What scores so many responses to a question; see `choose_scorer`. Collective."""
    samples = [_sample(item, ("yes", "no")) for item in asked[:8]]
    return choose_scorer(
        context, replica.model, collator.pad, samples,
        lambda sample: [collator.group(sample, (["yes", "no"] * responses)[:responses])],
        context.spec.policy.dtype,
    )  # fmt: skip


def mean_logps(
    context: StageContext,
    replica: Replica,
    scorer: Scorer,
    collator: Collator,
    items: Sequence[Prompted],
    texts: Sequence[Sequence[str]],
    longest: int,
) -> list[list[float]]:
    """Log-probability of each text as a response to its item, nats per token.

    Args:
        longest: items of the largest block.

    Raises:
        TrainingError: one is not finite.
    """
    members = [
        Member(sample, [collator.group(sample, own)])
        for sample, own in ((_sample(item), own) for item, own in zip(items, texts, strict=True))
    ]
    found = score_members(context, replica.lockstep, scorer, members, longest)
    means = [[total / length for total, length in own] for own in found]
    for item, own in zip(items, means, strict=True):
        if not all(map(math.isfinite, own)):
            raise TrainingError(f"the policy's log-probabilities of its answers to '{item.image}' are {own}")
    return means


def _sample(item: Prompted, rejected: tuple[str, ...] = ()) -> Sample:
    name = f"{item.image} ({item.id})"  # what an error says
    return Sample(name, item.image, item.image, item.prompt, "", rejected)
