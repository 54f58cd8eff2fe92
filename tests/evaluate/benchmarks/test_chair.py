import json
from pathlib import Path

import pytest
from formats import chair as files

from cwdpo.base.errors import DataError
from cwdpo.evaluate.benchmarks.chair import Chair
from cwdpo.evaluate.benchmarks.objects.named import coco_names, tokens
from cwdpo.evaluate.question import Answered, Question
from cwdpo.evaluate.reading.download import Download

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "chair.json").read_text(encoding="utf-8"))
BENCHMARK = Chair(name="chair")


@pytest.fixture
def root(tmp_path):
    files.write(tmp_path / "down")
    return tmp_path / "down"


def load(root, **fields):
    return list(Chair(name="chair", **fields).load(Download(root)))


def objects(text):
    return [mention.object for mention in coco_names().mentioned(text)]


def made(number, truth):
    return Question(str(number), ("a.jpg",), {}, {"objects": truth})


def golden():
    return [Answered(made(n, item["truth"]), item["caption"].strip()) for n, item in enumerate(GOLDEN["items"])]


def rewritten(root, name, content):
    (root / "annotations" / f"{name}_val2014.json").write_text(json.dumps(content), encoding="utf-8")


def test_an_image_has_what_was_annotated_and_what_captions_name(root):
    download = Download(root)
    questions = list(BENCHMARK.load(download))
    assert [question.id for question in questions] == ["42", "73", "133", "139", "9448", "581929"]
    assert questions[0].row() == {
        "id": "42",
        "images": ("val2014/COCO_val2014_000000000042.jpg",),
        "asked": {},
        "truth": {"objects": ["dog", "frisbee", "person"]},
        "category": "",
    }
    assert [question.truth["objects"] for question in questions[1:]] == [
        ["bus", "person", "traffic light"],
        ["dining table", "knife", "wine glass"],
        [],
        ["skis"],
        ["car", "cell phone"],
    ]
    assert download.files == ["annotations/instances_val2014.json", "annotations/captions_val2014.json"]
    assert len(download.images) == 6
    assert download.missing == []


def test_the_seed_decides_which_images_and_nothing_else_does(root):
    chosen = [question.id for question in load(root, images=3)]
    assert chosen == ["42", "139", "581929"]
    assert [question.id for question in load(root, images=3, seed=1)] == ["42", "73", "9448"]
    content = files.instances()
    content["images"].reverse()
    rewritten(root, "instances", content)
    assert [question.id for question in load(root, images=3)] == chosen


def test_only_chosen_images_have_to_be_there(root):
    (root / "val2014" / "COCO_val2014_000000000073.jpg").unlink()
    few, all_of_them = Download(root), Download(root)
    list(Chair(name="chair", images=3).load(few))
    list(BENCHMARK.load(all_of_them))
    assert few.missing == []
    assert set(all_of_them.missing) == {"val2014/COCO_val2014_000000000073.jpg"}


def test_the_prompt(root):
    assert {BENCHMARK.ask(question) for question in load(root)} == {"Describe this image in detail."}
    assert BENCHMARK.decoding.max_new_tokens == 512


@pytest.mark.parametrize("number", range(len(GOLDEN["items"])))
def test_a_description_is_read_as_official(number):
    item = GOLDEN["items"][number]
    found = BENCHMARK.score(golden()[number : number + 1]).per_item[str(number)]
    assert objects(item["caption"]) == item["objects"]
    assert found["prediction"] == (", ".join(item["objects"]) or None)
    assert found["mentions"] == len(item["objects"])
    assert found["hallucinated"] == item["hallucinated"]
    assert found["correct"] == (item["hallucinated"] == 0)


def test_all_descriptions_together_are_worth_the_official_values():
    found = BENCHMARK.score(golden())
    assert found.corpus == pytest.approx(GOLDEN["corpus"], abs=1e-12)


@pytest.mark.parametrize("item", GOLDEN["items"], ids=lambda item: f"image {item['image']}")
def test_what_is_in_an_image_is_official(item):
    named = {found for text in item["references"] for found in objects(text)}
    assert sorted(named | set(item["instances"])) == item["truth"]


def test_where_the_published_singular_is_wrong_ours_is_not():
    assert set(GOLDEN["provenance"]["table"].values()) == {
        "bus",
        "minibus",
        "airbus",
        "tie",
        "canoe",
        "thief",
        "magpie",
    }
    for word, single in GOLDEN["provenance"]["table"].items():
        assert [mention.word for mention in coco_names().mentioned(word)] == [single]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a bus, buses", ["bus", "bus"]),
        ("a glass and glasses", []),
        ("wine glasses and a wine glass", ["wine glass", "wine glass"]),
        ("skis and a ski", ["skis", "skis"]),
        ("people, children, a person", ["person", "person", "person"]),
        ("knives", ["knife"]),
        ("sheep", ["sheep"]),
        ("scissors", ["scissors"]),
        ("geese, mice and oxen", ["bird", "mouse", "cow"]),
        ("a dress, cactus and grass", []),
        ("hot dogs", ["hot dog"]),
        ("hot, dogs", ["dog"]),
        ("It is hot. Dogs lie down.", ["dog"]),
        ("a baby elephant", ["elephant"]),
        ("a baby and an elephant", ["person", "elephant"]),
        ("a passenger jet", ["airplane"]),
        ("a motor bike", []),
        ("train tracks", []),
        ("a toilet and, elsewhere, a seat and a chair", ["toilet", "chair"]),
        ("a urinal and a seat", ["toilet", "chair"]),
        ("DOG.", ["dog"]),
        ("a dog.a cat", ["cat"]),
        ("(a dog.) \"a cat.\" 'a bird' \u201ca cow.\u201d", ["dog", "cat", "bird", "cow"]),
        ("the dog's bowl, the dogs' bowls, the cat\u2019s bowl", ["dog", "bowl", "dog", "bowl", "cat", "bowl"]),
        ("a shop named 'Driver's', a cat's' toy", ["person", "cat"]),
        ("a ''stop sign'' on a pole", ["stop sign"]),
        ("**Dog**: a cat\n- bird", ["dog", "cat", "bird"]),
        ("a dog-like cat/dog", []),
    ],
)
def test_what_a_text_names(text, expected):
    assert objects(text) == expected


def test_marks_are_tokens_and_numbers_stay_whole():
    assert tokens('It\'s 3.5 m, 1,000 dogs... "Yes."') == (
        ["it", "'s", "3.5", "m", ",", "1,000", "dogs", "...", '"', "yes", ".", '"']
    )


def test_no_word_stands_for_two_objects():
    names = coco_names()
    assert len(set(names.objects.values())) == 80
    for plural, word in names.singular.items():
        if plural in names.objects and word in names.objects:
            assert names.objects[plural] == names.objects[word]
    assert all(name == "" or name in names.objects or name in ("animal", "cub") for name in names.pairs.values())


def test_values_computed_by_hand():
    given = [
        Answered(made(1, ["dog", "person"]), "A puppy, a dog and a kitten on a sofa."),
        Answered(made(2, ["car"]), "A car."),
        Answered(made(3, ["bus"]), "Nothing."),
    ]
    found = BENCHMARK.score(given)
    assert found.corpus == pytest.approx({"chair_i": 2 / 5, "chair_s": 1 / 3, "recall": 2 / 4})
    assert found.per_item["1"] == {
        "prediction": "dog, dog, cat, couch",
        "mentions": 4,
        "hallucinated": 2,
        "words": "kitten, sofa",
        "objects": 2,
        "found": 1,
        "correct": 0.0,
    }
    assert found.per_item["3"]["prediction"] is None
    assert found.counts == {"descriptions that name no object": 1}
    assert found.unavailable == {}


def test_a_share_of_nothing_is_none():
    found = BENCHMARK.score([Answered(made(1, []), "")])
    assert found.corpus == {"chair_i": None, "chair_s": 0.0, "recall": None}
    assert found.unavailable == {
        "chair_i": "not available: no object was named",
        "recall": "not available: the images have no object",
    }


def test_lower_is_better():
    better = {metric.key: metric.higher for metric in BENCHMARK.metrics}
    assert better == {"chair_i": False, "chair_s": False, "recall": True}


def test_a_category_that_coco_does_not_have(root):
    content = files.instances()
    content["categories"][3]["name"] = "wolf"
    rewritten(root, "instances", content)
    with pytest.raises(DataError, match=r"annotations\[0\]: category_id 18 is 'wolf', which is no object of COCO"):
        load(root)


def test_an_annotation_of_no_category(root):
    content = files.instances()
    content["annotations"][2]["category_id"] = 999
    rewritten(root, "instances", content)
    with pytest.raises(DataError, match=r"instances_val2014\.json, annotations\[2\]: category_id 999 is 'None'"):
        load(root)


def test_captions_of_other_images(root):
    content = files.captions()
    content["annotations"] = content["annotations"][4:]
    rewritten(root, "captions", content)
    with pytest.raises(DataError, match=r"captions_val2014\.json: no caption of 2 of the images, such as 42"):
        load(root)


@pytest.mark.parametrize(
    ("name", "part", "key"),
    [
        ("instances", "images", "file_name"),
        ("instances", "annotations", "category_id"),
        ("instances", "categories", "name"),
        ("captions", "annotations", "caption"),
    ],
)
def test_a_missing_key_is_named(root, name, part, key):
    content = getattr(files, name)()
    del content[part][1][key]
    rewritten(root, name, content)
    with pytest.raises(DataError, match=rf"{name}_val2014\.json, {part}\[1\]: key '{key}' is missing; found id"):
        load(root)


def test_a_file_that_is_not_there(root):
    (root / "annotations" / "captions_val2014.json").unlink()
    with pytest.raises(DataError, match=r"no file 'captions_val2014\.json'"):
        load(root)


@pytest.mark.parametrize("value", [None, [], [1], {"a": 1}, True])
@pytest.mark.parametrize(
    ("name", "part", "key"),
    [
        ("instances", "images", "id"),
        ("instances", "images", "file_name"),
        ("instances", "categories", "id"),
        ("instances", "categories", "name"),
        ("instances", "annotations", "image_id"),
        ("instances", "annotations", "category_id"),
        ("captions", "annotations", "image_id"),
        ("captions", "annotations", "caption"),
    ],
)
def test_values_of_another_type_are_refused(root, name, part, key, value):
    content = getattr(files, name)()
    content[part][1][key] = value
    rewritten(root, name, content)
    with pytest.raises(DataError, match=rf"{name}_val2014\.json, {part}\[1\]: {key} is .*; valid: a "):
        load(root)


def test_the_objects_are_what_a_judge_may_see(root):
    assert set(BENCHMARK.references_in) <= load(root)[0].truth.keys()
