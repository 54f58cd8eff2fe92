"""The published example of pycocoevalcap, from raw captions to its published scores."""

import json
import random
import zipfile
from pathlib import Path

import pytest

from cwdpo.metrics.captions import corpus_bleu, score_captions
from cwdpo.metrics.java import jar
from cwdpo.metrics.meteor import meteor_of

RESULTS = Path(__file__).parent / "golden" / "captions_val2014_fakecap_results.json"
ANNOTATIONS = "coco/annotations/captions_val2014.json"

# README of salaniz/pycocoevalcap.
PUBLISHED = {
    "bleu_1": 0.579,
    "bleu_2": 0.404,
    "bleu_3": 0.279,
    "bleu_4": 0.191,
    "meteor": 0.195,
    "rouge_l": 0.396,
    "cider": 0.600,
}


@pytest.fixture(scope="module")
def captions():
    """Captions and references by image."""
    candidates = {str(row["image_id"]): row["caption"] for row in json.loads(RESULTS.read_text())}
    with zipfile.ZipFile(jar("spice/spice-1.0.jar")) as archive:
        annotations = json.loads(archive.read(ANNOTATIONS))["annotations"]
    references = {item: [] for item in candidates}
    for row in annotations:
        if str(row["image_id"]) in references:
            references[str(row["image_id"])].append(row["caption"])
    return candidates, references


@pytest.fixture(scope="module")
def scores(captions):
    return score_captions(*captions)


def test_published_scores_are_reproduced(scores):
    assert scores.unavailable == {}
    assert {column: round(value, 3) for column, value in scores.corpus.items()} == PUBLISHED


def test_corpus_bleu_follows_from_the_items(scores):
    published = [scores.corpus[f"bleu_{n}"] for n in (1, 2, 3, 4)]
    assert corpus_bleu(scores.per_item.values()) == pytest.approx(published, abs=1e-15)


def test_corpus_meteor_follows_from_the_items(scores):
    rows = [item["meteor_statistics"] for item in scores.per_item.values()]
    assert meteor_of([sum(counts) for counts in zip(*rows, strict=True)]) == pytest.approx(
        scores.corpus["meteor"], abs=1e-12
    )
    assert [meteor_of(row) for row in rows] == pytest.approx(
        [item["meteor"] for item in scores.per_item.values()], abs=1e-12
    )


def test_corpus_cider_and_rouge_are_means_of_the_items(scores):
    for column in ("cider", "rouge_l"):
        mean = sum(item[column] for item in scores.per_item.values()) / 1000
        assert mean == pytest.approx(scores.corpus[column], abs=1e-12)


@pytest.mark.parametrize("seed", range(2))
def test_a_resampled_corpus_follows_from_the_items(captions, scores, seed):
    """The bootstrap's corpora have items several times; nothing is tokenised or aligned for them."""
    candidates, references = captions
    drawn = random.Random(seed).choices(list(candidates), k=150)
    assert len(set(drawn)) < 150
    names = {f"{place} {item}": item for place, item in enumerate(drawn)}
    again = score_captions(
        {name: candidates[item] for name, item in names.items()},
        {name: references[item] for name, item in names.items()},
        ("bleu", "meteor", "rouge_l"),
    )
    rows = [scores.per_item[item] for item in drawn]
    bleu = [again.corpus[f"bleu_{n}"] for n in (1, 2, 3, 4)]
    assert corpus_bleu(rows) == pytest.approx(bleu, abs=1e-15)
    sums = [sum(counts) for counts in zip(*(row["meteor_statistics"] for row in rows), strict=True)]
    assert meteor_of(sums) == pytest.approx(again.corpus["meteor"], abs=1e-12)
    assert sum(row["rouge_l"] for row in rows) / 150 == pytest.approx(again.corpus["rouge_l"], abs=1e-12)
    # Neither is the mean of its items, so a bootstrap of means would be one of another number.
    assert abs(sum(row["bleu_4"] for row in rows) / 150 - bleu[3]) > 1e-3
    assert abs(sum(row["meteor"] for row in rows) / 150 - again.corpus["meteor"]) > 1e-3


def test_scores_are_plain_json(scores):
    again = json.loads(json.dumps([scores.corpus, scores.per_item], allow_nan=False))
    assert again == [scores.corpus, scores.per_item]
