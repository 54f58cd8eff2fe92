"""Which words corrective dialogues stress: what a vision error codebook changes in what is asked about.

Dialogues written with the codebook should speak of things (truck, cup, chair), those without it of anything (might,
provide): arXiv 2411.14797 shows this as two clouds of words; here it is counted.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from cwdpo.base.files import read_jsonl
from cwdpo.data.records import Turn, dialogue_of
from cwdpo.negatives.lexicon import index

THOUSAND = 1000


@dataclass(frozen=True)
class Word:
    """One word in both sets of dialogues.

    Attributes:
        here: occurrences in a thousand words of the first set.
        there: the same of the second set.
        z: log odds ratio over its standard error, half an occurrence added to every cell; above 1.96 or under -1.96
            it is unlikely that both sets use the word equally often.
    """

    word: str
    here: float
    there: float
    z: float


@dataclass(frozen=True)
class WordShift:
    """How two sets of dialogues differ in their words.

    Attributes:
        words: all words, what the first set stresses first, what the second one stresses last.
        things: share of words that name a thing (nouns of the lexicon), in the first and in the second set.
    """

    words: tuple[Word, ...]
    things: tuple[float, float]

    def gained(self, count: int = 10) -> list[str]:
        """The words that the first set stresses most."""
        return [word.word for word in self.words[:count] if word.z > 0]

    def lost(self, count: int = 10) -> list[str]:
        """The words that the second set stresses most."""
        return [word.word for word in self.words[: -count - 1 : -1] if word.z < 0]


def word_shift(here: Iterable[Sequence[Turn]], there: Iterable[Sequence[Turn]]) -> WordShift:
    """The shift from the dialogues `there` (without the codebook) to those `here` (with it); neither may be empty."""
    ours, theirs = _counts(here), _counts(there)
    words = [_word(word, ours, theirs) for word in sorted(ours | theirs)]
    return WordShift(tuple(sorted(words, key=lambda word: -word.z)), (_things(ours), _things(theirs)))


def dialogues_of(folder: Path) -> Iterator[tuple[Turn, ...]]:
    """Every dialogue that a stage `negatives` wrote."""
    for row in read_jsonl(folder / "negatives.jsonl"):
        yield from (dialogue_of(item["dialogue"]) for item in row["rejected"] if "dialogue" in item)


def _counts(dialogues: Iterable[Sequence[Turn]]) -> Counter[str]:
    texts = (text.lower() for dialogue in dialogues for turn in dialogue for text in turn)
    return Counter(word for text in texts for word in re.findall(r"\w+(?:['\u2019]\w+)*", text))


def _word(word: str, ours: Counter[str], theirs: Counter[str]) -> Word:
    cells = [(counts[word] + 0.5, counts.total() - counts[word] + 0.5) for counts in (ours, theirs)]
    odds = [math.log(yes / no) for yes, no in cells]
    error = math.sqrt(sum(1 / cell for pair in cells for cell in pair))
    here, there = (THOUSAND * counts[word] / counts.total() for counts in (ours, theirs))
    return Word(word, here, there, (odds[0] - odds[1]) / error)


def _things(counts: Counter[str]) -> float:
    nouns = index().nouns
    return sum(count for word, count in counts.items() if word in nouns) / counts.total()
