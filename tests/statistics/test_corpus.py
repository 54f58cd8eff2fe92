import json
import math
import zipfile
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from pycocoevalcap.bleu.bleu_scorer import BleuScorer
from sklearn.metrics import f1_score

from cwdpo.base.errors import DataError
from cwdpo.metrics import captions
from cwdpo.metrics.java import jar
from cwdpo.metrics.meteor import meteor_of
from cwdpo.statistics import bootstrap
from cwdpo.statistics.bootstrap import paired_bootstrap
from cwdpo.statistics.corpus import (
    BLEU,
    METEOR,
    bleu_from,
    corpus_bootstrap,
    f1_counts,
    f1_from,
    item_values,
    meteor_from,
    share_from,
    statistics_of,
)

RESULTS = Path(__file__).parents[1] / "metrics" / "golden" / "captions_val2014_fakecap_results.json"
ITEMS = 60


def words(text):
    return text.lower().replace(".", "").replace(",", "")


@pytest.fixture(scope="module")
def tokens():
    """Machine captions of COCO with their references, and for a second system one of the references."""
    candidates = {row["image_id"]: words(row["caption"]) for row in json.loads(RESULTS.read_text())[:ITEMS]}
    with zipfile.ZipFile(jar("spice/spice-1.0.jar")) as archive:
        annotations = json.loads(archive.read("coco/annotations/captions_val2014.json"))["annotations"]
    references = {image: [] for image in candidates}
    for row in annotations:
        if row["image_id"] in references:
            references[row["image_id"]].append(words(row["caption"]))
    others = list(references.values())
    machine = captions.Tokens(list(candidates.values()), [texts[1:] for texts in others])
    return machine, captions.Tokens([texts[0] for texts in others], machine.references)


def pycocoevalcap_bleu(tokens, positions):
    scorer = BleuScorer(n=4)
    for i in positions:
        scorer += (tokens.candidates[i], tokens.references[i])
    return scorer.compute_score(option="closest", verbose=0)[0]


def bleu_statistics(tokens):
    return statistics_of(captions._bleu(tokens)[1], BLEU)


def test_bleu_is_pycocoevalcaps(tokens):
    for one in tokens:
        sums = bleu_statistics(one).sum(axis=0)
        expected = pycocoevalcap_bleu(one, range(ITEMS))
        assert [float(bleu_from(sums, order)) for order in (1, 2, 3, 4)] == pytest.approx(expected, rel=1e-14)


def test_bleu_of_short_and_empty_captions_is_pycocoevalcaps():
    tokens = captions.Tokens(["a", "", "a dog runs on"], [["a red bus in the city"]] * 3)
    statistics = bleu_statistics(tokens)
    for i in range(3):
        expected = pycocoevalcap_bleu(tokens, [i])
        assert [float(bleu_from(statistics[i], order)) for order in (1, 2, 3, 4)] == pytest.approx(expected, rel=1e-14)


def test_resampled_bleu_is_that_of_the_captions_drawn(tokens):
    drawn = np.random.default_rng(9).integers(ITEMS, size=(20, ITEMS))
    differences = [np.subtract(*(pycocoevalcap_bleu(one, row) for one in tokens)) for row in drawn]
    low, high = np.quantile(differences, [0.025, 0.975], axis=0)
    one, other = map(bleu_statistics, tokens)
    for order in (1, 4):
        found = corpus_bootstrap(one, other, partial(bleu_from, order=order), resamples=20, seed=9)
        assert (found.low, found.high) == pytest.approx((low[order - 1], high[order - 1]), rel=1e-10)
        whole = np.subtract(*(pycocoevalcap_bleu(one, range(ITEMS)) for one in tokens))
        assert (found.difference, found.n) == (pytest.approx(whole[order - 1], rel=1e-10), ITEMS)


def test_meteor_is_that_of_one_corpus_at_a_time():
    counts = np.random.default_rng(1).integers(0, 9, (50, 23)).astype(float)
    counts[:, :2] += 40  # longer than the function words and the matches
    counts[7] = 0
    counts[8, 4:20] = 0
    items = [{"meteor_statistics": row.tolist()} for row in counts]
    statistics = statistics_of(items, METEOR)
    assert meteor_from(statistics) == pytest.approx([meteor_of(row) for row in counts], rel=1e-13)
    assert float(meteor_from(statistics.sum(axis=0))) == pytest.approx(meteor_of(counts.sum(axis=0)), rel=1e-13)


def test_f1_is_scikit_learns_in_each_split():
    generator = np.random.default_rng(2)
    said, true = generator.random((2, 90)) < 0.4
    splits = np.repeat(["random", "popular", "adversarial"], 30)
    expected = [f1_score(true[splits == split], said[splits == split]) for split in set(splits)]
    sums = f1_counts(said, true, splits).sum(axis=0)
    assert float(f1_from(sums)) == pytest.approx(np.mean(expected), rel=1e-13)
    assert float(f1_from(f1_counts([False], [False], ["random"])[0])) == 0.0


def test_a_mean_is_bootstrapped_as_ever():
    a, b = np.random.default_rng(3).random((2, 80))
    found = corpus_bootstrap(*(np.stack([x, np.ones(80)], axis=1) for x in (a, b)), share_from, resamples=500, seed=4)
    assert found == pytest.approx(paired_bootstrap(a, b, resamples=500, seed=4), rel=1e-10)


def test_seeds_count_by_the_mean_of_their_values(monkeypatch):
    statistics = np.random.default_rng(5).integers(1, 9, (5, 30, 2)).astype(float)
    times = np.stack([np.bincount(row, minlength=30) for row in np.random.default_rng(6).integers(30, size=(40, 30))])
    shares = np.array([(times @ one)[:, 0] / (times @ one)[:, 1] for one in statistics])
    expected = np.quantile(shares[:3].mean(axis=0) - shares[3:].mean(axis=0), [0.05, 0.95])
    monkeypatch.setattr(bootstrap, "_BLOCK", 30 * 7)
    found = corpus_bootstrap(statistics[:3], statistics[3:], share_from, resamples=40, level=0.9, seed=6)
    assert (found.low, found.high) == pytest.approx(expected, rel=1e-12)
    one = corpus_bootstrap(statistics[:1], statistics[3:], share_from, 40, 0.9, seed=6)
    assert corpus_bootstrap(statistics[0], statistics[3:], share_from, 40, 0.9, seed=6) == one


def test_resamples_without_a_value_are_left_out():
    # One description of three names objects, so that 8 of 27 resamples have no share.
    a = np.array([[1.0, 2.0], [0.0, 0.0], [0.0, 0.0]])
    b = np.array([[0.0, 2.0], [0.0, 0.0], [0.0, 0.0]])
    assert corpus_bootstrap(a, b, share_from, resamples=200) == (0.5, 0.5, 0.5, 3)
    with pytest.raises(DataError, match="no value"):
        corpus_bootstrap(a, np.zeros((3, 2)), share_from, resamples=10)


def test_item_values_have_the_metric_as_their_mean(tokens):
    statistics = np.stack([bleu_statistics(one) for one in tokens])
    expected = [pycocoevalcap_bleu(one, range(ITEMS))[3] for one in tokens]
    assert item_values(statistics, bleu_from).mean(axis=1) == pytest.approx(expected, rel=1e-12)


def test_item_values_of_a_mean_are_the_values():
    values = np.random.default_rng(8).random((3, 20))
    assert item_values(np.stack([values, np.ones((3, 20))], axis=2), share_from) == pytest.approx(values, rel=1e-12)


def test_item_values_of_a_share_by_hand():
    # 3 of 6; without either item 1 of 2 or 2 of 4: the share does not hang on any.
    assert item_values(np.array([[[1.0, 2.0], [2.0, 4.0]]]), share_from).tolist() == [[0.5, 0.5]]
    # 1 of 4; without either 0 of 2 and 1 of 2, their mean 1/4: 1/4 + 1 x (1/4 - 0) and 1/4 + 1 x (1/4 - 1/2).
    assert item_values(np.array([[[1.0, 2.0], [0.0, 2.0]]]), share_from).tolist() == [[0.5, 0.0]]


def test_a_share_that_hangs_on_one_item_has_no_item_values():
    with pytest.raises(DataError, match="no value without one of these items"):
        item_values(np.array([[[1.0, 2.0], [0.0, 0.0]]]), share_from)


def test_items_without_statistics_are_counted():
    with pytest.raises(DataError, match="1 of 2 items have no meteor_statistics"):
        statistics_of([{"meteor_statistics": [0.0] * 23}, {"meteor_statistics": None}], METEOR)


@pytest.mark.parametrize(("items", "message"), [(3, r"\(2, 2\), \(3, 2\)"), (0, "at least one|found the shapes")])
def test_other_items(items, message):
    with pytest.raises(DataError, match=message):
        corpus_bootstrap(np.ones((2, 2)), np.ones((items, 2)), share_from)


def test_no_items():
    with pytest.raises(DataError, match="at least one item"):
        corpus_bootstrap(np.ones((0, 2)), np.ones((0, 2)), share_from)


def test_share_without_a_whole_is_no_number():
    assert math.isnan(share_from(np.zeros(2)))
