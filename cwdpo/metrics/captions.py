"""Score captions with pycocoevalcap's own BLEU, ROUGE-L and CIDEr; METEOR 1.5 and SPICE 1.0 by launchers of ours.

Everything is computed on PTB tokens. What cannot be computed on this machine is None with a reason, never 0.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

from cwdpo.base.errors import ConfigError, DataError, NotAvailable, name_valid
from cwdpo.metrics.java import java_version
from cwdpo.metrics.meteor import kept_meteor
from cwdpo.metrics.ptb import TOKENIZER, tokenize
from cwdpo.metrics.spice import spice

Item = dict[str, Any]
Scored = tuple[dict[str, float], list[Item]]


@dataclass(frozen=True)
class CaptionScores:
    """Scores of a corpus of captions and of its items; plain numbers and strings, ready for JSON.

    `corpus`: value of each column (`COLUMNS`), BLEU, METEOR, ROUGE-L and SPICE in [0, 1], CIDEr in [0, 10]; None where
    `unavailable` has the reason under the same name, starting with "not available: ".
    `per_item`: by item id, `bleu_1`..`bleu_4` (of the one caption), `bleu_correct` and `bleu_guess` (counts of
    1..4-grams), `candidate_length`, `reference_length` (the closest, in tokens; all as `corpus_bleu` needs),
    `meteor`, `meteor_statistics` (as `meteor_of` needs), `rouge_l`, `cider`, `spice` and what belongs to it
    (see `cwdpo.metrics.spice.spice`).
    """

    corpus: dict[str, float | None]
    unavailable: dict[str, str]
    per_item: dict[str, Item]


@dataclass(frozen=True)
class Tokens:
    """Tokenised captions of the same items in the same order, tokens joined by blanks."""

    candidates: list[str]
    references: list[list[str]]

    def at(self, positions: Sequence[int]) -> Tokens:
        """Those of some items."""
        return Tokens([self.candidates[i] for i in positions], [self.references[i] for i in positions])

    def as_pycocoevalcap(self) -> tuple[dict[int, list[str]], dict[int, list[str]]]:
        """(references, candidates) by position, in the shape of `compute_score`."""
        return dict(enumerate(self.references)), {i: [text] for i, text in enumerate(self.candidates)}


def score_captions(
    candidates: Mapping[str, str],
    references: Mapping[str, Sequence[str]],
    metrics: Sequence[str] = ("bleu", "meteor", "rouge_l", "cider"),
) -> CaptionScores:
    """Score one raw caption for each item id against its raw references.

    An empty candidate scores 0. CIDEr takes its document frequencies from `references`. 5,000 items with 5
    references each take about 16 s on two cores, three quarters of it METEOR; SPICE, where it is asked for, many
    minutes, because it parses every caption. `DataError` when the ids differ or
    an item has no reference with a word in it, `ConfigError` for an unknown metric.
    """
    return scores_and_tokens(candidates, references, metrics)[0]


def scores_and_tokens(
    candidates: Mapping[str, str], references: Mapping[str, Sequence[str]], metrics: Sequence[str]
) -> tuple[CaptionScores, Tokens | None]:
    """As `score_captions`, and what was scored, in the order of the candidates; None where there is no tokeniser."""
    _check(candidates, references, metrics)
    result = CaptionScores({}, {}, {item: {} for item in candidates})
    try:
        tokens = tokens_of(candidates, references)
    except NotAvailable as error:
        _leave_out(result, metrics, error)
        return result, None
    _score(tokens, metrics, result)
    return result, tokens


def _score(tokens: Tokens, metrics: Sequence[str], result: CaptionScores) -> None:
    """Each metric in turn, put into `result`."""
    for metric in metrics:
        try:
            corpus, items = _SCORERS[metric](tokens)
        except NotAvailable as error:
            _leave_out(result, [metric], error)
            continue
        result.corpus.update(corpus)
        for values, found in zip(result.per_item.values(), items, strict=True):
            values.update(found)


def corpus_bleu(items: Iterable[Mapping[str, Any]]) -> list[float]:
    """BLEU-1..4 of the corpus made of `items`, rows of `CaptionScores.per_item`; an item may occur several times.

    Papineni et al. (2002), with the smoothing constants of pycocoevalcap/bleu/bleu_scorer.py.
    """
    rows = list(items)
    length = sum(row["candidate_length"] for row in rows)
    reference_length = sum(row["reference_length"] for row in rows)
    ratio = (length + 1e-15) / (reference_length + 1e-9)
    brevity = math.exp(min(0.0, 1 - 1 / ratio))
    product, scores = 1.0, []
    for k in range(4):
        correct = sum(row["bleu_correct"][k] for row in rows)
        guess = sum(row["bleu_guess"][k] for row in rows)
        product *= (correct + 1e-15) / (guess + 1e-9)
        scores.append(brevity * product ** (1 / (k + 1)))
    return scores


def harness() -> dict[str, str]:
    """Versions of what computes the scores, to be stored with them."""
    try:
        java = java_version()
    except NotAvailable as error:
        java = f"not available: {error}"
    return {"pycocoevalcap": version("pycocoevalcap"), "java": java, "tokenizer": TOKENIZER, "meteor": "1.5"}


def _check(candidates: Mapping[str, str], references: Mapping[str, Sequence[str]], metrics: Sequence[str]) -> None:
    for metric in metrics:
        if metric not in COLUMNS:
            raise ConfigError(f"metrics: unknown metric {name_valid(metric, COLUMNS)}")
    if not candidates:
        raise DataError("there are no captions to score")
    if missing := candidates.keys() - references.keys():
        raise DataError(f"{len(missing)} captions have no references: {_some(missing)}")
    if missing := references.keys() - candidates.keys():
        raise DataError(f"{len(missing)} items with references have no caption: {_some(missing)}")


def _some(ids: Iterable[str]) -> str:
    ordered = sorted(ids)
    return ", ".join(ordered[:5]) + (", ..." if len(ordered) > 5 else "")


def _leave_out(result: CaptionScores, metrics: Sequence[str], error: NotAvailable) -> None:
    columns = [column for metric in metrics for column in COLUMNS[metric]]
    result.corpus.update(dict.fromkeys(columns))
    result.unavailable.update(dict.fromkeys(columns, f"not available: {error}"))


def tokens_of(candidates: Mapping[str, str], references: Mapping[str, Sequence[str]]) -> Tokens:
    """Tokens of captions and references; `DataError` when an item has no reference with a word in it."""
    flat = iter(tokenize([text for item in candidates for text in references[item]]))
    grouped = {item: [next(flat) for _ in references[item]] for item in candidates}
    # pycocoevalcap counts a wordless reference as one empty token, and its CIDEr fails when there is no other.
    if wordless := [item for item, texts in grouped.items() if not any(texts)]:
        raise DataError(f"{len(wordless)} items have no reference with a word in it: {_some(wordless)}")
    return Tokens(tokenize(list(candidates.values())), list(grouped.values()))


def _bleu(tokens: Tokens) -> Scored:
    from pycocoevalcap.bleu.bleu_scorer import BleuScorer

    scorer = BleuScorer(n=4)
    for candidate, references in zip(tokens.candidates, tokens.references, strict=True):
        scorer += (candidate, references)
    corpus, sentences = scorer.compute_score(option="closest", verbose=0)
    by_item = zip(scorer.ctest, zip(*sentences, strict=True), strict=True)
    items = [_bleu_item(counts, values) for counts, values in by_item]
    return dict(zip(COLUMNS["bleu"], corpus, strict=True)), items


def _bleu_item(counts: Mapping[str, Any], values: Sequence[float]) -> Item:
    length = counts["testlen"]
    return {
        **dict(zip(COLUMNS["bleu"], values, strict=True)),
        "bleu_correct": counts["correct"],
        "bleu_guess": counts["guess"],
        "candidate_length": length,
        "reference_length": min(counts["reflen"], key=lambda reference: (abs(reference - length), reference)),
    }


def _meteor(tokens: Tokens) -> Scored:
    with kept_meteor() as meteor:
        rows = [meteor.statistics(*pair) for pair in zip(tokens.candidates, tokens.references, strict=True)]
        corpus, scores = meteor.score(rows)
    items: list[Item] = [{"meteor": s, "meteor_statistics": row} for s, row in zip(scores, rows, strict=True)]
    return {"meteor": corpus}, items


def _rouge_l(tokens: Tokens) -> Scored:
    from pycocoevalcap.rouge.rouge import Rouge

    rouge = Rouge()
    pairs = zip(tokens.candidates, tokens.references, strict=True)
    # To pycocoevalcap an empty candidate is one empty token, which an empty reference matches in full.
    scores = [float(rouge.calc_score([candidate], found)) if candidate else 0.0 for candidate, found in pairs]
    return {"rouge_l": math.fsum(scores) / len(scores)}, [{"rouge_l": score} for score in scores]


def cider(tokens: Tokens) -> Scored:
    """CIDEr with the document frequencies of these references alone."""
    from pycocoevalcap.cider.cider import Cider

    corpus, scores = Cider().compute_score(*tokens.as_pycocoevalcap())
    return {"cider": float(corpus)}, [{"cider": float(score)} for score in scores]


def _spice(tokens: Tokens) -> Scored:
    items = spice(tokens.candidates, tokens.references)
    return {"spice": math.fsum(item["spice"] for item in items) / len(items)}, items


COLUMNS = {
    "bleu": ("bleu_1", "bleu_2", "bleu_3", "bleu_4"),
    "meteor": ("meteor",),
    "rouge_l": ("rouge_l",),
    "cider": ("cider",),
    "spice": ("spice",),
}

_SCORERS: dict[str, Callable[[Tokens], Scored]] = {
    "bleu": _bleu,
    "meteor": _meteor,
    "rouge_l": _rouge_l,
    "cider": cider,
    "spice": _spice,
}
