"""Which responses of a sample an objective's terms are, under which view of its image, and where they stand.

A sample is scored in groups, one for each view; the responses of a group come in the order of `ROLES`.
"""

from __future__ import annotations

from collections.abc import Sequence

from cwdpo.data.encoding import Collator, Group
from cwdpo.data.samples import Sample
from cwdpo.data.views import BLANK, WHOLE, View
from cwdpo.objectives.preference import Term

ROLES = ("chosen", "rejected", "revised")


def groups_of(collator: Collator, sample: Sample, terms: Sequence[Term], masked: float | None) -> tuple[Group, ...]:
    """The groups of a sample, one for each view.

    Args:
        masked: share of the image that terms under the masked image do not see.
    """
    views = {"": WHOLE, "blank": BLANK, "masked": View(masked=masked or 0.0)}
    groups = []
    for view, members in _by_view(terms).items():
        texts = [text for term in members for text in texts_of(sample, term)]
        groups.append(collator.group(sample, texts, views[view]))
    return tuple(groups)


def rows_of(samples: Sequence[Sample], terms: Sequence[Term]) -> dict[Term, list[int]]:
    """Rows of the responses of each term, one for each pair, among the responses of all samples."""
    rows: dict[Term, list[int]] = {term: [] for term in terms}
    start = 0
    for sample in samples:
        places = places_of(sample, terms)
        for term, own in places.items():
            # The chosen response is in all pairs of its sample.
            rows[term] += (start + place for place in (own if _role(term) != "chosen" else own * len(sample.rejected)))
        start += sum(map(len, places.values()))
    return rows


def places_of(sample: Sample, terms: Sequence[Term]) -> dict[Term, list[int]]:
    """Places of the texts of each term among a sample's own responses."""
    places: dict[Term, list[int]] = {}
    start = 0
    for members in _by_view(terms).values():
        for term in members:
            places[term] = list(range(start, start + len(texts_of(sample, term))))
            start += len(places[term])
    return places


def texts_of(sample: Sample, term: Term) -> tuple[str, ...]:
    """The responses of a sample that a term is about."""
    return {"chosen": (sample.chosen,), "rejected": sample.rejected, "revised": sample.revised}[_role(term)]


def _by_view(terms: Sequence[Term]) -> dict[str, list[Term]]:
    """View -> the terms under it, in the order of `ROLES`."""
    views: dict[str, list[Term]] = {}
    for term in sorted(terms, key=lambda term: ROLES.index(_role(term))):
        views.setdefault(term.partition("|")[2], []).append(term)
    return views


def _role(term: Term) -> str:
    return term.partition("|")[0]
