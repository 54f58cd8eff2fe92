"""NoCaps' domains: each scored as a set of its own, from one tokenisation and one alignment of all."""

import json
import random

import pytest

from cwdpo.base.errors import ConfigError, DataError
from cwdpo.data.nocaps import PUBLISHED
from cwdpo.metrics import captions, domains
from cwdpo.metrics.captions import COLUMNS, corpus_bleu, score_captions
from cwdpo.metrics.domains import ENTIRE, PREFIXES, score_domains
from cwdpo.metrics.meteor import meteor_of

WITHOUT_SPICE = ("bleu", "meteor", "rouge_l", "cider")
WORDS = ("a", "the", "man", "dog", "horse", "giraffe", "runs", "sits", "on", "in", "near", "grass", "road", "red", "of")


def caption(generator):
    return " ".join(generator.choices(WORDS, k=generator.randint(3, 9))).capitalize() + "."


def made_up(counts, seed=0):
    """Captions, references and domains of so many images of each domain, mixed up."""
    generator = random.Random(seed)
    kinds = [domain for domain, count in counts.items() for _ in range(count)]
    generator.shuffle(kinds)
    names = {f"{900 - index}": domain for index, domain in enumerate(kinds)}
    return {n: caption(generator) for n in names}, {n: [caption(generator) for _ in range(4)] for n in names}, names


IMAGES = made_up({"in-domain": 7, "near-domain": 12, "out-domain": 5})


def part(domain):
    candidates, references, kinds = IMAGES
    names = [name for name in candidates if kinds[name] == domain]
    return {name: candidates[name] for name in names}, {name: references[name] for name in names}


@pytest.fixture(scope="module")
def scores():
    return score_domains(*IMAGES, WITHOUT_SPICE)


@pytest.mark.parametrize("domain", PREFIXES)
def test_a_domain_is_scored_as_if_it_were_alone(scores, domain):
    alone = score_captions(*part(domain), WITHOUT_SPICE)
    prefix = f"{PREFIXES[domain]}_"
    found = {key.removeprefix(prefix): value for key, value in scores.corpus.items() if key.startswith(prefix)}
    assert list(found) == list(alone.corpus)
    assert found == pytest.approx(alone.corpus, abs=1e-12)
    for name, item in alone.per_item.items():
        assert scores.per_item[name]["domain"] == domain
        assert scores.per_item[name]["domain_cider"] == item.pop("cider")
        assert {key: scores.per_item[name][key] for key in item} == item


def test_the_entire_set_is_scored_as_ever(scores):
    entire = score_captions(*IMAGES[:2], WITHOUT_SPICE)
    assert {column: scores.corpus[f"{ENTIRE}_{column}"] for column in entire.corpus} == entire.corpus
    assert list(scores.per_item) == list(entire.per_item)
    assert {name: row["cider"] for name, row in scores.per_item.items()} == {
        name: row["cider"] for name, row in entire.per_item.items()
    }


def test_document_frequencies_are_those_of_the_domain(scores):
    rows = [row for row in scores.per_item.values() if row["domain"] == "in-domain"]
    of_the_entire = sum(row["cider"] for row in rows) / len(rows)
    assert abs(scores.corpus["in_cider"] - of_the_entire) > 1e-3
    assert scores.corpus["in_cider"] == pytest.approx(sum(row["domain_cider"] for row in rows) / len(rows), abs=1e-12)


def test_the_entire_set_is_no_mean_of_the_domains(scores):
    for column in ("cider", "bleu_2", "meteor"):
        mean = sum(scores.corpus[f"{prefix}_{column}"] for prefix in PREFIXES.values()) / 3
        assert abs(mean - scores.corpus[f"entire_{column}"]) > 1e-4


def test_every_value_follows_from_the_items(scores):
    for domain, prefix in PREFIXES.items():
        rows = [row for row in scores.per_item.values() if row["domain"] == domain]
        bleu = [scores.corpus[f"{prefix}_bleu_{n}"] for n in (1, 2, 3, 4)]
        assert corpus_bleu(rows) == pytest.approx(bleu, abs=1e-15)
        sums = [sum(counts) for counts in zip(*(row["meteor_statistics"] for row in rows), strict=True)]
        assert meteor_of(sums) == pytest.approx(scores.corpus[f"{prefix}_meteor"], abs=1e-15)
        mean = sum(row["rouge_l"] for row in rows) / len(rows)
        assert mean == pytest.approx(scores.corpus[f"{prefix}_rouge_l"], abs=1e-15)


def test_captions_are_tokenised_and_aligned_once(monkeypatch):
    tokenised, aligned = [], []
    tokenize, meteor = captions.tokenize, captions._SCORERS["meteor"]
    monkeypatch.setattr(captions, "tokenize", lambda texts: tokenised.extend(texts) or tokenize(texts))
    monkeypatch.setitem(captions._SCORERS, "meteor", lambda tokens: aligned.extend(tokens.candidates) or meteor(tokens))
    score_domains(*IMAGES, WITHOUT_SPICE)
    assert len(tokenised) == 24 * 5
    assert len(aligned) == 24


def test_spice_of_a_domain_is_the_mean_of_its_items(monkeypatch):
    lengths = lambda tokens: [{"spice": len(text) / 100} for text in tokens.candidates]  # noqa: E731
    monkeypatch.setitem(captions._SCORERS, "spice", lambda tokens: ({"spice": 0.5}, lengths(tokens)))
    found = score_domains(*IMAGES, ("spice",))
    rows = [row["spice"] for row in found.per_item.values() if row["domain"] == "out-domain"]
    assert len(rows) == 5
    assert found.corpus["out_spice"] == pytest.approx(sum(rows) / 5)
    assert found.corpus["entire_spice"] == 0.5
    assert set(found.corpus) == {"in_spice", "near_spice", "out_spice", "entire_spice"}
    assert "domain_cider" not in found.per_item["900"]


def test_a_domain_without_an_image_has_a_reason_and_no_number():
    candidates, references, kinds = made_up({"in-domain": 3, "out-domain": 2})
    found = score_domains(candidates, references, kinds, ("bleu", "cider"))
    near = {f"near_{column}" for column in (*COLUMNS["bleu"], "cider")}
    assert {key for key, value in found.corpus.items() if value is None} == near
    assert found.unavailable == dict.fromkeys(near, domains.EMPTY)
    assert domains.EMPTY.startswith("not available: ")


def test_what_is_not_there_is_not_there_for_any_domain(monkeypatch):
    monkeypatch.setenv("CWDPO_SPICE_JARS", "/no/such/folder")
    monkeypatch.setattr("cwdpo.metrics.spice.has_spice_jars", lambda folder: False)
    found = score_domains(*IMAGES, ("rouge_l", "spice"))
    lacking = {f"{prefix}_spice" for prefix in ("in", "near", "out", "entire")}
    assert found.unavailable.keys() == lacking
    assert all(reason.startswith("not available: SPICE needs") for reason in found.unavailable.values())
    assert {key for key, value in found.corpus.items() if value is None} == lacking
    assert 0 < found.corpus["near_rouge_l"] < 1


def test_without_java_there_is_no_number_at_all(monkeypatch):
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("JAVA_HOME", raising=False)
    found = score_domains(*IMAGES, WITHOUT_SPICE)
    assert len(found.corpus) == 4 * 7
    assert set(found.corpus.values()) == {None}
    assert found.unavailable.keys() == found.corpus.keys()
    assert found.per_item["900"] == {"domain": IMAGES[2]["900"]}


@pytest.mark.parametrize("wrong", ["in", None])
def test_an_item_of_no_domain_is_named(wrong):
    kinds = {name: kind for name, kind in IMAGES[2].items() if wrong or name != "899"} | (
        {"899": wrong} if wrong else {}
    )
    with pytest.raises(
        DataError, match=rf"item '899': unknown domain '{wrong}'.* valid: in-domain, near-domain, out-d"
    ):
        score_domains(*IMAGES[:2], kinds)


def test_what_score_captions_refuses_is_refused():
    with pytest.raises(ConfigError, match="unknown metric 'cidre'"):
        score_domains(*IMAGES, ("cidre",))
    with pytest.raises(DataError, match="there are no captions"):
        score_domains({}, {}, {})


def test_the_domains_are_those_of_the_reader():
    assert list(PREFIXES) == list(PUBLISHED)


def test_the_scores_are_plain_json(scores):
    assert json.loads(json.dumps(vars(scores), allow_nan=False)) == vars(scores)
