"""Stage `critique`: the policy says which of its own two answers to a question is the better one, seeing the truth.

It is not made to write: "1" and "2" are scored as its answer, and the likelier one counts. So there is a verdict for
every pair, and none depends on how an answer is parsed. Which answer comes first is drawn for each record, for models
prefer one place. One row each in verdicts.jsonl: `{"id", "better", "first", "margin"}`; `better` and `first` are roles,
`margin` is by how much the verdict is likelier than the other, nats; both are null where the prompt with the answers
does not fit into the model's context. Records whose two answers are alike, or of which one is empty, have no row.
"""

from __future__ import annotations

import random
import re
from array import array
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, overload

from pydantic import AfterValidator, BeforeValidator, Field

from cwdpo.base.config import Config
from cwdpo.base.context import Blocks, StageContext
from cwdpo.base.errors import name_valid
from cwdpo.base.identity import seed_from
from cwdpo.data.ahead import ahead
from cwdpo.data.encoding import Collator
from cwdpo.data.records import Record, open_records
from cwdpo.data.samples import Sample
from cwdpo.model.config import Policy
from cwdpo.model.inference import Replica, pending_of
from cwdpo.model.load import context_length
from cwdpo.model.micro import Member
from cwdpo.model.scored import score_members
from cwdpo.model.trial import choose_scorer
from cwdpo.negatives.answers import Answers, AnswersOf, alike
from cwdpo.negatives.source import Part

VERDICTS = ("1", "2")
PLACES = ("question", "truth", "first", "second")
"""What a prompt may name in braces; the last two it must."""
UNASKED = ""
"""Stands for a prompt that does not fit: all ranks then score as many, and this score says nothing."""


def shipped_prompt() -> str:
    """The content of `critique.txt`: three visual criteria and two examples."""
    return Path(__file__).with_name("critique.txt").read_text(encoding="utf-8").strip()


def _text(value: object) -> object:
    """The text of a prompt: a file's, where the setting ends in .txt and shows no answer itself."""
    if not isinstance(value, str) or "{" in value or not value.endswith(".txt"):
        return value
    try:
        return Path(value).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"cannot be read: {getattr(error, 'strerror', None) or error}") from error


def _names_both(prompt: str) -> str:
    """Refuse a prompt that names what nothing fills in, or that does not show both answers."""
    named = re.findall(r"\{(\w+)\}", prompt)
    for name in named:
        if name not in PLACES:
            raise ValueError(f"the prompt names {name_valid(name, PLACES)}, each in braces")
    missing = [f"{{{name}}}" for name in PLACES[2:] if name not in named]
    if missing:
        places = ", ".join(f"{{{name}}}" for name in PLACES)
        raise ValueError(
            f"the prompt does not say where {' and '.join(missing)} stand; valid: a text with {places}, of which it"
            " needs the last two, or a file that ends in .txt"
        )
    return prompt


CritiquePrompt = Annotated[str, BeforeValidator(_text), AfterValidator(_names_both)]
"""The text that is asked, or a .txt file with it: what counts is the text."""


class Critique(Part):
    """Verdicts of the policy that is trained next."""

    stage: ClassVar[str] = "critique"
    asks_policy: ClassVar[bool] = True

    greedy: Answers
    """The first answer of it is compared."""
    sampled: Answers
    """With the first one of this."""
    prompt: CritiquePrompt = Field(default_factory=shipped_prompt)
    """What the policy is asked, with {first} and {second}, and {question} and {truth} where it is to see them."""
    seed: int = 0
    """Of which answer comes first."""
    block: int = Field(default=32, gt=0)
    """Records judged together: the unit of sharding and resume."""

    def parts(self) -> Mapping[str, Part]:
        """Both answers."""
        return {"greedy": self.greedy, "sampled": self.sampled}

    def order(self, record: Record) -> list[str]:
        """The roles, in the order in which this record's answers are shown."""
        roles = list(self.parts())
        return random.Random(seed_from("critique", self.seed, record.id)).sample(roles, len(roles))

    def asked(self, record: Record, texts: Mapping[str, str]) -> str:
        """The prompt for a record and its answers by role."""
        first, second = (texts[role] for role in self.order(record))
        values = {"question": record.prompt, "truth": record.chosen, "first": first, "second": second}
        pieces = _pieces(self.prompt)
        return "".join(values.get(piece[1:-1], piece) if piece.startswith("{") else piece for piece in pieces)


def _pieces(prompt: str) -> list[str]:
    """The prompt cut at what stands in braces, so that braces in an answer stay as they are."""
    return re.split(r"(\{\w+\})", prompt)


Compared = tuple[Record, Mapping[str, str]]
"""A record and the texts of its answers by role."""


class Pairs(Sequence[Compared]):
    """Records whose two answers differ and say something, read when they are asked for; 8 bytes each are held.

    Args:
        answers: by role.
    """

    def __init__(self, records: Sequence[Record], answers: Mapping[str, AnswersOf]) -> None:
        self._records, self._answers = records, answers
        differ = (place for place, record in enumerate(records) if _differ(*self._texts(record).values()))
        self._places = array("q", differ)

    def __len__(self) -> int:
        return len(self._places)

    @overload
    def __getitem__(self, number: int) -> Compared: ...
    @overload
    def __getitem__(self, number: slice) -> list[Compared]: ...
    def __getitem__(self, number: int | slice) -> Compared | list[Compared]:
        if isinstance(number, slice):
            return [self._at(place) for place in self._places[number]]
        return self._at(self._places[number])

    def _at(self, place: int) -> Compared:
        record = self._records[place]
        return record, self._texts(record)

    def _texts(self, record: Record) -> dict[str, str]:
        return {role: own.of(record)[0].text for role, own in self._answers.items()}


def _differ(one: str, other: str) -> bool:
    return bool(one and other) and not alike(one, other)


class CritiqueSpec(Config):
    """The policy and the records are parents."""

    policy: Policy
    portion: Literal["stage1", "stage2"]
    part: Critique


def run(context: StageContext) -> None:
    """Write verdicts.jsonl and settings.json."""
    spec: CritiqueSpec = context.spec
    part = spec.part
    answers = {role: AnswersOf(context.inputs[role]) for role in part.parts()}
    records = open_records(context.inputs["pairs"] / "records.jsonl", spec.portion)
    blocks = Blocks(context, Pairs(records, answers), part.block)
    blocks.keep("settings.json", {"prompt": part.prompt, "dtype": spec.policy.dtype})
    if pending_of(blocks):
        _judge(context, blocks)
    context.barrier()
    blocks.publish("verdicts.jsonl", "settings.json")


def _judge(context: StageContext, blocks: Blocks[Compared]) -> None:
    """All blocks that are not there yet."""
    part: Critique = context.spec.part
    replica = Replica(context, context.spec.policy)
    collator = Collator(replica.processor, context.inputs["images"], context_length(replica.model))

    def sample(item: Compared) -> Sample:
        record, texts = item
        first, second = VERDICTS
        asked = Sample(record.id, record.image_id, record.image, part.asked(record, texts), first, (second,))
        return asked if collator.fits(asked, VERDICTS) else replace(asked, prompt=UNASKED)

    def member(item: Compared) -> Member:
        asked = sample(item)
        return Member(asked, [collator.group(asked, VERDICTS)])

    examples = list(map(sample, blocks.members(0)[:8]))
    scorer = choose_scorer(
        context, replica.model, collator.pad, examples, lambda one: [collator.group(one, VERDICTS)],
        context.spec.policy.dtype,
    )  # fmt: skip
    turns = ahead(replica.blocks(blocks), lambda turn: blocks.members(turn[0]), member, context.execution.feed_workers)
    with closing(turns):
        for (index, writes), members in turns:
            found = score_members(context, replica.lockstep, scorer, members, blocks.length(0))
            rows = [
                _row(part.order(record), one.sample, [logp for logp, _ in own])
                for (record, _), one, own in zip(blocks.members(index), members, found, strict=True)
            ]
            if writes:
                blocks.write(index, rows)


def _row(order: list[str], asked: Sample, logps: list[float]) -> dict[str, Any]:
    """A verdict; between equals the answer that came first."""
    if asked.prompt == UNASKED:
        return {"id": asked.id, "better": None, "first": order[0], "margin": None}
    better = int(logps[1] > logps[0])
    margin = abs(logps[1] - logps[0])
    return {"id": asked.id, "better": order[better], "first": order[0], "margin": margin}
