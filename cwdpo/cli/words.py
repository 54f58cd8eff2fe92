"""What `data words` prints: how the corrective dialogues of two cases differ in their words."""

from __future__ import annotations

from collections.abc import Sequence

from cwdpo.base.errors import ConfigError
from cwdpo.cli.datasets import folder_of, pairs_of
from cwdpo.cli.show import console, print_table
from cwdpo.data.records import Turn
from cwdpo.jobs.plan import Plan
from cwdpo.negatives.word_shift import dialogues_of, word_shift


def print_words(plan: Plan, case: str, other: str, count: int) -> None:
    """Print the words that the dialogues of two cases stress.

    Raises:
        ConfigError: no such case, or its pairs come without dialogues.
        StoreError: they need something that is not computed yet.
    """
    shift = word_shift(_dialogues(plan, case), _dialogues(plan, other))
    known = {word.word: word for word in shift.words}
    for name, stressed in ((case, shift.gained(count)), (other, shift.lost(count))):
        rows = [
            (word, f"{known[word].here:.2f}", f"{known[word].there:.2f}", f"{known[word].z:+.1f}") for word in stressed
        ]
        print_table(console(), [f"stressed by {name}", f"per 1000 in {case}", f"in {other}", "z"], rows)
    here, there = shift.things
    print(f"words that name a thing: {here:.1%} in {case}, {there:.1%} in {other}")


def _dialogues(plan: Plan, case: str) -> list[Sequence[Turn]]:
    case, node = pairs_of(plan, case, None)
    with folder_of(plan, case, node) as folder:
        found: list[Sequence[Turn]] = list(dialogues_of(folder))
    if not found:
        raise ConfigError(f"the pairs of case '{case}' come without dialogues; negatives that have them: corrective")
    return found
