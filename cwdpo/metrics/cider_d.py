"""CIDEr-D against fixed document frequencies: a reward for one caption at a time.

Vedantam, Zitnick and Parikh, "CIDEr" (2015), equations 1-4 with the clipping and length penalty of CIDEr-D,
n = 1..4 and sigma = 6. pycocoevalcap's `Cider` computes the same from the references of the captions it scores; here
the frequencies come from a corpus of their own, such as the training captions.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

Ngram = tuple[str, ...]

_ORDERS = 4
_SIGMA = 6.0


class CiderD:
    """CIDEr-D with document frequencies computed once; a document is the set of references of one image.

    `document_frequency`: number of documents an n-gram is in; those in one document may be left out, they weigh as
    much as those in none. `documents`: number of documents.
    """

    def __init__(self, document_frequency: Mapping[Ngram, int], documents: int) -> None:
        self.document_frequency = document_frequency
        self.documents = documents
        self._log_documents = math.log(documents)

    @classmethod
    def from_references(cls, images: Iterable[Sequence[Sequence[str]]]) -> CiderD:
        """Count document frequencies over `images`, each the token lists of its reference captions."""
        frequency: Counter[Ngram] = Counter()
        documents = 0
        for references in images:
            frequency.update({ngram for tokens in references for ngram in _ngrams(tokens)})
            documents += 1
        # Most n-grams occur in one image only: without them the table takes a fraction of the memory.
        return cls({ngram: count for ngram, count in frequency.items() if count > 1}, documents)

    def score(self, candidate: Sequence[str], references: Sequence[Sequence[str]]) -> float:
        """CIDEr-D of tokens `candidate` against at least one reference, in [0, 10]; 0 for an empty candidate."""
        own = self._vectors(candidate)
        total = sum(
            _similarity(own, self._vectors(reference)) * _length_penalty(len(candidate), len(reference))
            for reference in references
        )
        return 10.0 * total / (_ORDERS * len(references))

    def _vectors(self, tokens: Sequence[str]) -> list[dict[Ngram, float]]:
        """TF-IDF weights by order of n-gram."""
        vectors: list[dict[Ngram, float]] = [{} for _ in range(_ORDERS)]
        for ngram, count in _ngrams(tokens).items():
            frequency = self.document_frequency.get(ngram, 1)
            vectors[len(ngram) - 1][ngram] = count * (self._log_documents - math.log(frequency))
        return vectors


def _ngrams(tokens: Sequence[str]) -> Counter[Ngram]:
    orders = range(1, _ORDERS + 1)
    return Counter(tuple(tokens[i : i + n]) for n in orders for i in range(len(tokens) - n + 1))


def _similarity(candidate: list[dict[Ngram, float]], reference: list[dict[Ngram, float]]) -> float:
    """Clipped cosine similarity, summed over the orders of n-grams."""
    total = 0.0
    for own, other in zip(candidate, reference, strict=True):
        norms = _norm(own) * _norm(other)
        if norms:
            total += (
                sum(min(weight, other[ngram]) * other[ngram] for ngram, weight in own.items() if ngram in other) / norms
            )
    return total


def _norm(vector: dict[Ngram, float]) -> float:
    return math.sqrt(sum(weight * weight for weight in vector.values()))


def _length_penalty(length: int, reference_length: int) -> float:
    # pycocoevalcap takes the number of bigrams for the length.
    difference = max(length - 1, 0) - max(reference_length - 1, 0)
    return math.exp(-(difference**2) / (2 * _SIGMA**2))
