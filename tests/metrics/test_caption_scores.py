import pytest

from cwdpo.base.errors import ConfigError, DataError
from cwdpo.metrics.captions import COLUMNS, corpus_bleu, harness, score_captions

WITHOUT_METEOR = ("bleu", "rouge_l", "cider")
REFERENCES = {
    "dog": ["A dog runs on the grass.", "The brown dog is running."],
    "cat": ["A cat sits on a mat.", "There is a cat, sitting; on the mat!", "..."],
    "bus": ["A red bus in the city."],
}
CANDIDATES = {"cat": "a cat on a red mat", "dog": "The dog runs.", "bus": "A red bus in the city."}


def test_an_empty_candidate_scores_zero_everywhere():
    scores = score_captions(CANDIDATES | {"cat": " \n"}, REFERENCES)
    item = scores.per_item["cat"]
    columns = [column for metric, columns in COLUMNS.items() for column in columns if metric != "spice"]
    assert [item[column] for column in columns] == [0.0] * len(columns)
    assert item["candidate_length"] == 0
    assert all(scores.corpus[column] > 0 for column in ("bleu_1", "meteor", "rouge_l", "cider"))
    assert scores.per_item["bus"]["meteor"] == 1.0


def test_only_empty_candidates_score_zero():
    scores = score_captions(dict.fromkeys(REFERENCES, ""), REFERENCES, WITHOUT_METEOR)
    assert set(scores.corpus.values()) == {0.0}


def test_bleu_counts_by_hand():
    item = score_captions(CANDIDATES, REFERENCES, ("bleu",)).per_item["dog"]
    # "the dog runs" against "a dog runs on the grass" and "the brown dog is running": one bigram, "dog runs".
    assert item["bleu_correct"] == [3, 1, 0, 0]
    assert item["bleu_guess"] == [3, 2, 1, 0]
    assert (item["candidate_length"], item["reference_length"]) == (3, 5)


def test_corpus_bleu_of_a_part_is_the_bleu_of_that_part():
    rows = score_captions(CANDIDATES, REFERENCES, ("bleu",)).per_item
    part = {item: CANDIDATES[item] for item in ("dog", "bus")}
    expected = score_captions(part, {item: REFERENCES[item] for item in part}, ("bleu",)).corpus
    assert corpus_bleu(rows[item] for item in part) == pytest.approx(list(expected.values()), abs=1e-15)


def test_the_order_of_the_references_does_not_matter():
    shuffled = dict(reversed(REFERENCES.items()))
    assert score_captions(CANDIDATES, shuffled, WITHOUT_METEOR) == score_captions(
        CANDIDATES, REFERENCES, WITHOUT_METEOR
    )


def test_nothing_is_printed(capfd):
    score_captions(CANDIDATES, REFERENCES, WITHOUT_METEOR)
    assert capfd.readouterr() == ("", "")


def test_without_java_every_column_has_a_reason_and_no_number(monkeypatch):
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("JAVA_HOME", raising=False)
    scores = score_captions(CANDIDATES, REFERENCES)
    assert set(scores.corpus) == {"bleu_1", "bleu_2", "bleu_3", "bleu_4", "meteor", "rouge_l", "cider"}
    assert set(scores.corpus.values()) == {None}
    assert scores.unavailable.keys() == scores.corpus.keys()
    assert all(reason.startswith("not available: Java not found") for reason in scores.unavailable.values())
    assert scores.per_item == {"cat": {}, "dog": {}, "bus": {}}
    assert harness()["java"].startswith("not available: Java not found")


def test_a_java_of_another_machine_is_a_reason(tmp_path, monkeypatch):
    program = tmp_path / "bin" / "java"
    program.parent.mkdir()
    program.write_bytes(b"\x7fELF of another architecture")
    program.chmod(0o755)
    monkeypatch.setenv("JAVA_HOME", str(tmp_path))
    reasons = set(score_captions(CANDIDATES, REFERENCES).unavailable.values())
    assert len(reasons) == 1
    assert reasons.pop().startswith("not available: Java does not run: [Errno 8] Exec format error")


def test_a_dead_meteor_leaves_the_other_columns(monkeypatch):
    monkeypatch.setattr("cwdpo.metrics.meteor._up", [])  # none kept from a test before
    monkeypatch.setattr("cwdpo.metrics.meteor.jar", lambda name: "/no/such.jar")
    scores = score_captions(CANDIDATES, REFERENCES)
    assert scores.corpus["meteor"] is None
    assert scores.unavailable.keys() == {"meteor"}
    assert scores.unavailable["meteor"].startswith("not available: METEOR died (exit code 1): Error: Unable to access")
    assert scores.corpus["cider"] > 0
    assert "meteor" not in scores.per_item["dog"]


def test_a_caption_without_references_is_named():
    with pytest.raises(DataError, match="1 captions have no references: cow"):
        score_captions(CANDIDATES | {"cow": "a cow"}, REFERENCES)


def test_references_without_a_caption_are_named():
    with pytest.raises(DataError, match=r"6 items with references have no caption: 0, 1, 2, 3, 4, \.\.\."):
        score_captions(CANDIDATES, REFERENCES | {str(i): ["x"] for i in range(6)})


@pytest.mark.parametrize("references", [[], ["..."], ["", " \r\n"]])
def test_references_without_a_word_are_named(references):
    with pytest.raises(DataError, match="1 items have no reference with a word in it: dog"):
        score_captions(CANDIDATES, REFERENCES | {"dog": references})


def test_no_captions_at_all():
    with pytest.raises(DataError, match="no captions to score"):
        score_captions({}, {})


def test_an_unknown_metric_is_answered_with_the_valid_ones():
    with pytest.raises(ConfigError, match="'blue'; did you mean 'bleu'"):
        score_captions(CANDIDATES, REFERENCES, ("blue",))


def test_harness_names_what_computes_the_scores():
    found = harness()
    assert found["pycocoevalcap"] == "1.2"
    assert " version " in found["java"]
    assert set(found) == {"pycocoevalcap", "java", "tokenizer", "meteor"}
