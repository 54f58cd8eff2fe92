"""Stage `critique`: the policy says which of its own two answers to a question is the better one, seeing the truth.

It is not made to write: "1" and "2" are scored as its answer, and the likelier one counts. So there is a verdict for
every pair, and none depends on how an answer is parsed. Which answer comes first is drawn for each record, for models
prefer one place. One row each in verdicts.jsonl: `{"id", "better", "first", "margin"}`; `better` and `first` are roles,
`margin` is by how much the verdict is likelier than the other, nats. Records whose two answers are alike have no row.
"""

from __future__ import annotations

import random
import re
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import Field, field_validator

from cwdpo.base.config import Config
from cwdpo.base.context import Blocks, StageContext
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


def shipped_prompt() -> str:
    """The content of `critique.txt`: three visual criteria and two examples."""
    return Path(__file__).with_name("critique.txt").read_text(encoding="utf-8").strip()


class Critique(Part):
    """Verdicts of the policy that is trained next."""

    stage: ClassVar[str] = "critique"
    asks_policy: ClassVar[bool] = True

    greedy: Answers
    """The first answer of it is compared."""
    sampled: Answers
    """With the first one of this."""
    prompt: str = Field(default_factory=shipped_prompt)
    """What the policy is asked, with {first} and {second}, and {question} and {truth} where it is to see them."""
    seed: int = 0
    """Of which answer comes first."""
    block: int = Field(default=32, gt=0)
    """Records judged together: the unit of sharding and resume."""

    @field_validator("prompt")
    @classmethod
    def _names_both(cls, prompt: str) -> str:
        missing = [f"{{{name}}}" for name in PLACES[2:] if f"{{{name}}}" not in prompt]
        if missing:
            raise ValueError(f"the prompt does not say where {' and '.join(missing)} stand")
        return prompt

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


class CritiqueSpec(Config):
    """The policy and the records are parents."""

    policy: Policy
    portion: Literal["stage1", "stage2"]
    part: Critique


def run(context: StageContext) -> None:
    """Write verdicts.jsonl and settings.json.

    Raises:
        DataError: a prompt with its answers does not fit into the model's context; found before anything is judged.
    """
    spec: CritiqueSpec = context.spec
    part = spec.part
    answers = {role: AnswersOf(context.inputs[role]) for role in part.parts()}
    compared: list[Compared] = [
        (record, texts)
        for record in open_records(context.inputs["pairs"] / "records.jsonl", spec.portion)
        for texts in [{role: own.of(record)[0].text for role, own in answers.items()}]
        if all(texts.values()) and not alike(*texts.values())
    ]
    blocks = Blocks(context, compared, part.block)
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
        return Sample(record.id, record.image_id, record.image, part.asked(record, texts), *VERDICTS[:1], VERDICTS[1:])

    def member(item: Compared) -> Member:
        asked = sample(item)
        return Member(asked, [collator.group(asked, VERDICTS)])

    collator.check_prompts(map(sample, blocks.items), max(len(collator.response_ids(text)) for text in VERDICTS))
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
                _row(part.order(record), record, [logp for logp, _ in own])
                for (record, _), own in zip(blocks.members(index), found, strict=True)
            ]
            if writes:
                blocks.write(index, rows)


def _row(order: list[str], record: Record, logps: list[float]) -> dict[str, Any]:
    """A verdict; between equals the answer that came first."""
    better = int(logps[1] > logps[0])
    margin = abs(logps[1] - logps[0])
    return {"id": record.id, "better": order[better], "first": order[0], "margin": margin}
