import json
from pathlib import Path

import pytest
from formats import pope as files

from cwdpo.base.errors import DataError
from cwdpo.evaluate.benchmarks.pope import SPLITS, Pope, says_yes
from cwdpo.evaluate.question import Answered, Question
from cwdpo.evaluate.reading.download import Download

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "pope.json").read_text(encoding="utf-8"))
BENCHMARK = Pope(name="pope")


@pytest.fixture
def root(tmp_path):
    files.write(tmp_path / "down")
    return tmp_path / "down"


def load(root):
    return BENCHMARK.loaded(Download(root))


def made(split, number, label):
    return Question(
        f"{split}/{number}", ("a.jpg",), {"question": "Is there a dog in the image?"}, {"label": label}, split
    )


def golden(split):
    items = [item for item in GOLDEN["items"] if item["split"] == split]
    return [(Answered(made(split, n, item["label"]), item["answer"]), item) for n, item in enumerate(items)]


def test_every_question_of_the_three_splits(root):
    download = Download(root)
    questions = list(BENCHMARK.load(download))
    assert [question.id for question in questions] == [f"{split}/{number}" for split in SPLITS for number in range(4)]
    assert questions[7].row() == {
        "id": "popular/3",
        "images": ("val2014/COCO_val2014_000000008211.jpg",),
        "asked": {"question": "Is there a car in the image?"},
        "truth": {"label": "no"},
        "category": "popular",
    }
    assert download.files == [f"output/coco/coco_pope_{split}.json" for split in SPLITS]
    assert set(download.images) == {f"val2014/{name}" for name in files.IMAGES}
    assert download.missing == []


def test_the_prompt(root):
    expected = "Is there an oven in the image?\nAnswer the question using a single word or phrase."
    assert BENCHMARK.ask(load(root)[0]) == expected
    assert Pope(name="pope", prompt="{question}").ask(load(root)[0]) == "Is there an oven in the image?"


@pytest.mark.parametrize("split", SPLITS)
def test_answers_are_read_as_official(split):
    pairs = golden(split)
    assert len(pairs) >= 30
    found = BENCHMARK.score([answered for answered, _ in pairs]).per_item
    for answered, item in pairs:
        assert found[answered.question.id]["prediction"] == item["prediction"], item
        assert found[answered.question.id]["correct"] == (item["prediction"] == item["label"]), item


def test_all_answers_together_are_worth_the_official_values():
    found = BENCHMARK.score([answered for split in SPLITS for answered, _ in golden(split)]).corpus
    for split in SPLITS:
        official = GOLDEN["corpus"][split]
        assert {key: found[f"{split}_{key}"] for key in ("accuracy", "f1", "yes")} == pytest.approx(
            {key: official[key] for key in ("accuracy", "f1", "yes")}, abs=1e-12
        )
    for key in ("accuracy", "f1", "yes"):
        assert found[key] == pytest.approx(sum(GOLDEN["corpus"][split][key] for split in SPLITS) / 3, abs=1e-12)


def test_precision_and_recall_can_be_computed_from_the_items():
    for split in SPLITS:
        items = BENCHMARK.score([answered for answered, _ in golden(split)]).per_item.values()
        both = sum(item["prediction"] == item["truth"] == "yes" for item in items)
        official = GOLDEN["corpus"][split]
        assert both / sum(item["prediction"] == "yes" for item in items) == pytest.approx(official["precision"])
        assert both / sum(item["truth"] == "yes" for item in items) == pytest.approx(official["recall"])


def test_a_line_break_is_no_end_of_a_word():
    assert says_yes("No\nThere is none")
    assert not says_yes("No there is none")


def test_what_is_yes_for_want_of_anything_else_is_counted():
    neither = ["", "Maybe", "Nothing there", "It is. No.", "A knot", "I don't know"]
    said = ["Yes", "YES!", "no", "NO", "No\nThere is none", "It is not", "Not really: a cat", "no,yes"]
    found = BENCHMARK.score([Answered(made("popular", n, "yes"), text) for n, text in enumerate((*neither, *said))])
    assert found.counts == {"answers with neither yes nor no, counted as yes": len(neither)}
    assert all(found.per_item[f"popular/{n}"]["prediction"] == "yes" for n in range(len(neither)))
    assert BENCHMARK.score([Answered(made("popular", 1, "yes"), "Yes")]).counts == {}


def test_values_computed_by_hand():
    rows = [("yes", "Yes"), ("yes", "No"), ("no", "Yes"), ("no", "No"), ("no", "no, none")]
    found = BENCHMARK.score([Answered(made("popular", n, label), text) for n, (label, text) in enumerate(rows)])
    assert found.corpus["popular_accuracy"] == pytest.approx(3 / 5)
    assert found.corpus["popular_f1"] == pytest.approx(2 * 1 / (2 + 2))
    assert found.corpus["popular_yes"] == pytest.approx(2 / 5)
    assert found.per_item["popular/2"] == {"prediction": "yes", "truth": "no", "correct": 0.0}


def test_nobody_says_yes():
    found = BENCHMARK.score([Answered(made("random", n, label), "No") for n, label in enumerate(("yes", "no"))])
    assert found.corpus["random_f1"] == 0.0
    assert found.corpus["random_accuracy"] == 0.5


def test_a_split_without_questions_is_none():
    found = BENCHMARK.score([Answered(made("random", 1, "yes"), "Yes")])
    assert found.corpus["random_f1"] == 1.0
    for split in ("popular", "adversarial"):
        for key in ("accuracy", "f1", "yes"):
            assert found.corpus[f"{split}_{key}"] is None
            assert found.unavailable[f"{split}_{key}"].startswith("not available: ")


def test_images_that_are_not_there_are_listed(root):
    (root / "val2014" / files.IMAGES[1]).unlink()
    download = Download(root)
    list(BENCHMARK.load(download))
    assert set(download.missing) == {f"val2014/{files.IMAGES[1]}"}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"label": "Yes"}, r"coco_pope_popular\.json, line 2: label is 'Yes'; valid: yes, no"),
        ({"label": None}, r"coco_pope_popular\.json, line 2: key 'label' is missing; found question_id, image"),
        ({"question_id": 0}, "question 'popular/0' occurs twice"),
        ({"question_id": [1]}, r"line 2: question_id is \[1\]; valid: a whole number, or a text that is not empty"),
        ({"question_id": True}, "line 2: question_id is True; valid: a whole number"),
        ({"text": ["Is it?"]}, r"line 2: text is \['Is it\?'\]; valid: a text that is not empty"),
        ({"label": ["yes"]}, r"line 2: label is \['yes'\]; valid: yes, no"),
        ({"image": 7}, "line 2: expected text, found int"),
        (
            {"image": "/root/a.jpg"},
            r"coco_pope_popular\.json, line 2: image path '/root/a\.jpg' leaves the data folder",
        ),
    ],
)
def test_a_bad_line_is_named(root, change, message):
    rows = files.rows("popular")
    rows[1] = {key: value for key, value in {**rows[1], **change}.items() if value is not None}
    files.write_split(root, "popular", rows)
    with pytest.raises(DataError, match=message):
        load(root)


def test_a_line_that_is_no_json(root):
    path = root / "output" / "coco" / "coco_pope_random.json"
    path.write_text(path.read_text(encoding="utf-8")[:-5], encoding="utf-8")
    with pytest.raises(DataError, match=r"coco_pope_random\.json, line 4: not valid JSON"):
        load(root)


def test_a_split_that_is_not_there(root):
    (root / "output" / "coco" / "coco_pope_adversarial.json").unlink()
    with pytest.raises(
        DataError,
        match=r"no file 'coco_pope_adversarial\.json'.*there is coco_pope_popular",
    ):
        load(root)
