"""Captions of a set whose images are of several domains: each domain scored as a set of its own, and the entire set.

Agrawal et al., "nocaps" (ICCV 2019): document frequencies of a domain's CIDEr are those of its own references.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from cwdpo.base.errors import DataError, name_valid
from cwdpo.metrics.captions import COLUMNS, CaptionScores, Item, Tokens, cider, corpus_bleu, scores_and_tokens
from cwdpo.metrics.meteor import meteor_of

PREFIXES = {"in-domain": "in", "near-domain": "near", "out-domain": "out"}
"""What a domain's columns begin with."""
ENTIRE = "entire"
"""What those of the entire set begin with."""
EMPTY = "not available: no image of this domain was described"


def score_domains(
    candidates: Mapping[str, str],
    references: Mapping[str, Sequence[str]],
    domains: Mapping[str, str],
    metrics: Sequence[str] = tuple(COLUMNS),
) -> CaptionScores:
    """What `score_captions` gives for each domain alone and for all, tokenised and aligned once.

    The corpus has `in_cider`, `near_cider`, `out_cider`, `entire_cider` and so on for each column. Items are as in
    `score_captions` of the entire set, with their `domain` and, in `domain_cider`, CIDEr as in their domain alone.

    Args:
        domains: domain of each item, one of `PREFIXES`.

    Raises:
        DataError: an item without a domain or with an unknown one; see also `score_captions`.
    """
    _check(candidates, domains)
    entire, tokens = scores_and_tokens(candidates, references, metrics)
    found = CaptionScores({}, {}, entire.per_item)
    for domain, prefix in PREFIXES.items():
        positions = [position for position, item in enumerate(candidates) if domains[item] == domain]
        _add(found, prefix, _of_domain(entire, tokens, domain, positions))
    _add(found, ENTIRE, {column: entire.unavailable.get(column, value) for column, value in entire.corpus.items()})
    return found


_Values = Mapping[str, float | str | None]
"""Value of each column, or the reason why there is none."""


def _check(candidates: Mapping[str, str], domains: Mapping[str, str]) -> None:
    for item in candidates:
        if domains.get(item) not in PREFIXES:
            raise DataError(f"item '{item}': unknown domain {name_valid(domains.get(item), PREFIXES)}")


def _add(found: CaptionScores, prefix: str, values: _Values) -> None:
    for column, value in values.items():
        key = f"{prefix}_{column}"
        found.corpus[key] = None if isinstance(value, str) else value
        if isinstance(value, str):
            found.unavailable[key] = value


def _of_domain(entire: CaptionScores, tokens: Tokens | None, domain: str, positions: Sequence[int]) -> _Values:
    """The columns of one domain; its items get what they have beside those of the entire set."""
    items = list(entire.per_item.values())
    chosen = [items[position] for position in positions]
    if not chosen:
        return dict.fromkeys(entire.corpus, EMPTY)
    for item in chosen:
        item["domain"] = domain
    if tokens is not None and "cider" in entire.corpus:
        for item, alone in zip(chosen, cider(tokens.at(positions))[1], strict=True):
            item["domain_cider"] = alone["cider"]
    return {column: entire.unavailable.get(column) or _value(column, chosen) for column in entire.corpus}


def _value(column: str, items: Sequence[Item]) -> float:
    """The value of a corpus made of items."""
    if column in COLUMNS["bleu"]:
        return corpus_bleu(items)[COLUMNS["bleu"].index(column)]
    if column == "meteor":
        return meteor_of([sum(counts) for counts in zip(*(item["meteor_statistics"] for item in items), strict=True)])
    key = "domain_cider" if column == "cider" else column
    return math.fsum(item[key] for item in items) / len(items)
