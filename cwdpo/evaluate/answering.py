"""Blocks of items through the model: batches of similar length, turn by turn, smaller where memory runs out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

from cwdpo.base.context import StageContext
from cwdpo.base.errors import DataError, ModelError
from cwdpo.data.content import pictures
from cwdpo.data.encoding import Collator
from cwdpo.model.branches import Prefix
from cwdpo.model.decoding import Decoding
from cwdpo.model.generate import (
    Answer,
    Prompted,
    Written,
    answer_of,
    empty_cache,
    goes_once,
    out_of_memory,
    write,
)
from cwdpo.model.inference import Replica

Asked = tuple[Prompted, Prefix]
"""An item, under the name that its noise is drawn by, and all that stands before its answer."""


@dataclass
class Talk:
    """An item and what was answered so far.

    Attributes:
        said: candidates of each turn, best first.
        fault: why nothing more is asked.
    """

    item: Prompted
    said: list[list[Written]] = field(default_factory=list)
    fault: str = ""

    @property
    def answers(self) -> list[str]:
        """To the turns so far."""
        return [candidates[0].raw for candidates in self.said]

    def answer(self, candidates: int) -> Answer:
        """The whole, with empty texts where nothing was asked."""
        nothing = [Written((), "", False, "")] * candidates
        missing = 1 + len(self.item.later) - len(self.said)
        return answer_of([*self.said, *[nothing] * missing], self.fault)


class Answering:
    """Answers the blocks of a stage one after the other.

    Args:
        items: all of the stage, also those of other ranks.

    Raises:
        DataError: no item leaves room for an answer.
    """

    def __init__(
        self, context: StageContext, replica: Replica, collator: Collator, items: Sequence[Prompted], decoding: Decoding
    ) -> None:
        self._context, self._replica, self._collator = context, replica, collator
        self._items, self._decoding = items, decoding
        self._seed, dtype = context.spec.seed, context.spec.policy.dtype
        # Where ranks share a model, one that made other calls would leave the rest waiting.
        self._alone = context.execution.inference == "replicate"
        self._most = decoding.block
        self._once = goes_once(context, replica, collator, self._example[0], dtype, self._alone)

    def encode(self, item: Prompted, answers: Sequence[str] = ()) -> Prefix:
        """All that stands before the next answer.

        Raises:
            ModelError: the model cannot be asked like that; names the item.
        """
        turns = (item.content, *item.later)[: len(answers) + 1]
        try:
            return self._collator.conversation(turns, answers)
        except ModelError as error:
            raise ModelError(f"item '{item.id}': {error}") from error

    def answers(self, items: Sequence[Prompted], prefixes: Sequence[Prefix]) -> list[Answer]:
        """Answers to one block, in order.

        Args:
            prefixes: what `encode` made of the items.
        """
        talks = [Talk(item) for item in items]
        self._ask(talks, prefixes, 0)
        for turn in range(1, self._turns(items)):
            open_ones = [talk for talk in talks if turn <= len(talk.item.later) and not talk.fault]
            self._ask(open_ones, [self.encode(talk.item, talk.answers) for talk in open_ones], turn)
        return [talk.answer(self._decoding.candidates) for talk in talks]

    def _turns(self, items: Sequence[Prompted]) -> int:
        """How often a block is asked: in lock-step as often as any other."""
        return 1 + max(len(item.later) for item in (self._items if self._replica.lockstep else items))

    def _ask(self, talks: Sequence[Talk], prefixes: Sequence[Prefix], turn: int) -> None:
        """One turn of some items, added to what was said."""
        open_ones: list[tuple[Talk, Prefix]] = []
        for talk, prefix in zip(talks, prefixes, strict=True):
            talk.fault = self._fault(prefix, turn)
            if not talk.fault:
                open_ones.append((talk, prefix))
        asked = [(_at(talk.item, turn), prefix) for talk, prefix in open_ones]
        # Only the best answer to a first turn is gone on from.
        decoding = self._decoding if turn == 0 else self._decoding.model_copy(update={"candidates": 1})
        written = self._in_step(asked, decoding) if self._replica.lockstep else self._in_batches(asked, decoding)
        for (talk, _), candidates in zip(open_ones, written, strict=True):
            talk.said.append(candidates)

    def _fault(self, prefix: Prefix, turn: int = 0) -> str:
        """Why a prompt cannot be answered."""
        tokens, context = length(prefix), self._collator.context
        if tokens + self._decoding.max_new_tokens <= context:
            return ""
        where = f"turn {turn + 1}: " if turn else ""
        return f"{where}the prompt takes {tokens} tokens, the context {context}: no room for an answer"

    @cached_property
    def _example(self) -> Asked:
        """The first item that can be answered, of those with an image if there are any."""
        fault = ""
        for item in sorted(self._items, key=lambda item: not pictures(item.content)):
            prefix = self.encode(item)
            fault = self._fault(prefix)
            if not fault:
                return item, prefix
        raise DataError(
            f"none of {len(self._items)} items leaves room for an answer of {self._decoding.max_new_tokens} tokens"
            f" (of the last, {fault}): lower decoding.max_new_tokens, or model.max_pixels if images take most"
        )

    def _write(self, asked: Sequence[Asked], decoding: Decoding) -> list[list[Written]]:
        items, prefixes = [item for item, _ in asked], [prefix for _, prefix in asked]
        return write(self._replica, self._collator, items, decoding, self._seed, self._once, prefixes)

    def _in_step(self, asked: Sequence[Asked], decoding: Decoding) -> list[list[Written]]:
        """All in one batch, so that every rank makes as many calls.

        Where there is nothing to ask, or no image while other ranks may have some, an example goes with it: the vision
        tower's weights are spread over the ranks, too.
        """
        images = set(self._example[1]) <= {key for _, prefix in asked for key in prefix}
        together = [*asked] if images else [*asked, self._example]
        return self._write(together, decoding)[: len(asked)]

    def _in_batches(self, asked: Sequence[Asked], decoding: Decoding) -> list[list[Written]]:
        """Batch by batch, each as large as memory allows."""
        found: dict[int, list[Written]] = {}
        budget = self._context.execution.micro_tokens if self._alone else None
        while left := {place: prefix for place, (_, prefix) in enumerate(asked) if place not in found}:
            batch = first_batch(left, self._most, budget)
            written = self._fitting([asked[place] for place in batch], decoding)
            if written is not None:
                found |= zip(batch, written, strict=True)
        return [found[place] for place in range(len(asked))]

    def _fitting(self, asked: Sequence[Asked], decoding: Decoding) -> list[list[Written]] | None:
        """What is written of a batch, None where it does not fit into memory; from then on batches are smaller."""
        try:
            return self._write(asked, decoding)
        except RuntimeError as error:
            if not self._alone or not out_of_memory(error):
                raise
            if len(asked) == 1:
                raise ModelError(self._too_large(*asked[0])) from error
        empty_cache()
        self._most = (len(asked) + 1) // 2
        self._context.event("generation", batch=self._most, reason="out of memory")
        return None

    def _too_large(self, item: Prompted, prefix: Prefix) -> str:
        return (
            f"item '{item.id}': out of memory, though it is alone in its batch: {length(prefix)} tokens of image and"
            f" prompt and up to {self._decoding.max_new_tokens} of answer; lower model.max_pixels or"
            " decoding.max_new_tokens, or spread the model with execution.inference"
        )


def length(prefix: Prefix) -> int:
    """Tokens of a prefix."""
    return int(prefix["input_ids"].shape[1])


def first_batch(prefixes: Mapping[int, Prefix], most: int, budget: int | None) -> list[int]:
    """Places of the prefixes that go through the model next, in order; the longest go first.

    Those with images and those without never go together. None has more than `most` prefixes, or `budget` tokens,
    padding included, unless it is one prefix.
    """
    places = sorted(prefixes, key=lambda place: -length(prefixes[place]))
    longest = prefixes[places[0]]
    if budget is not None:
        most = min(most, max(1, budget // length(longest)))
    return sorted([place for place in places if set(prefixes[place]) == set(longest)][:most])


def _at(item: Prompted, turn: int) -> Prompted:
    """An item under the name of one of its turns."""
    return replace(item, id=f"{item.id}, turn {turn + 1}") if turn else item
