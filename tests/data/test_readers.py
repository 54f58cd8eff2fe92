"""Annotation files in, records out; and every fault named: file, line or image, key, what was found, what is valid."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from cwdpo.base import files
from cwdpo.base.config import validate
from cwdpo.base.context import StageContext
from cwdpo.base.errors import ConfigError, DataError
from cwdpo.base.runtime import Execution, Rank
from cwdpo.data import pairs
from cwdpo.data.karpathy import read_karpathy
from cwdpo.data.pairs import PairsSpec
from cwdpo.data.preferences import read_preferences
from cwdpo.data.records import Record, Rejected, SentenceScore, read_records
from cwdpo.data.sources import Demo, Karpathy, Preferences, data_digest, data_root

PROMPT = "Describe the image briefly."
REJECTED_KEYS = "text, source, grade, revised, dialogue, scores"


def image(split: str = "train", number: int = 1, captions: int = 5, **changes: Any) -> dict[str, Any]:
    """An image of `dataset_coco.json`; a change to None removes the key."""
    entry = {
        "filepath": "val2014",
        "filename": f"COCO_{number}.jpg",
        "split": split,
        "cocoid": 1000 + number,
        "imgid": number,
        "sentids": [],
        "sentences": [{"raw": f"Caption {index} of {number}.", "tokens": []} for index in range(captions)],
    }
    return {key: value for key, value in {**entry, **changes}.items() if value is not None}


def karpathy(folder: Path, images: Any, per_image: Any = "first", prefix: str = "") -> list[Record]:
    path = folder / "dataset_coco.json"
    path.write_text(json.dumps({"images": images, "dataset": "coco"}))
    return read_karpathy(path, prefix, PROMPT, per_image, 0.75)


def preferences(folder: Path, *rows: Any) -> list[Record]:
    """Rows are objects, or lines written as they are."""
    path = folder / "preferences.jsonl"
    lines = [row if isinstance(row, str) else json.dumps(row, ensure_ascii=False) for row in rows]
    path.write_text("\n".join([*lines, ""]))
    return read_preferences(path, PROMPT, 0.75)


def row(number: int = 1, **changes: Any) -> dict[str, Any]:
    """A preference record; a change to None removes the key."""
    entry = {"image": f"{number}.jpg", "prompt": "What?", "chosen": "A red ball.", "rejected": "A blue ball."}
    return {key: value for key, value in {**entry, **changes}.items() if value is not None}


def wrong(**extras: Any) -> dict[str, Any]:
    """A preference record whose second rejected response, a blue ball, comes with `extras`."""
    return row(rejected=["A cat.", {"text": "A blue ball.", **extras}])


def score(value: Any, image_error: Any = False) -> dict[str, Any]:
    return {"score": value, "image_error": image_error}


# ---- Karpathy


def test_a_coco_image_becomes_a_record_with_all_references(tmp_path: Path) -> None:
    (record,) = karpathy(tmp_path, [image("test", 7, captions=2)])
    assert record == Record(
        id="1007#0",
        image_id="1007",
        image="val2014/COCO_7.jpg",
        prompt=PROMPT,
        chosen="Caption 0 of 7.",
        references=("Caption 0 of 7.", "Caption 1 of 7."),
        rejected=(),
        split="test",
        portion="none",
    )


def test_a_flickr30k_image_has_neither_filepath_nor_cocoid(tmp_path: Path) -> None:
    (record,) = karpathy(tmp_path, [image("val", 3, filepath=None, cocoid=None)], prefix="flickr30k-images")
    assert (record.image, record.image_id, record.id) == ("flickr30k-images/COCO_3.jpg", "3", "3#0")


def test_an_image_without_any_id_is_known_by_its_path(tmp_path: Path) -> None:
    (record,) = karpathy(tmp_path, [image("val", 3, cocoid=None, imgid=None)])
    assert record.image_id == "val2014/COCO_3.jpg"


def test_restval_counts_as_train(tmp_path: Path) -> None:
    records = karpathy(tmp_path, [image(split, n) for n, split in enumerate(["train", "restval", "val", "test"])])
    assert [record.split for record in records] == ["train", "train", "val", "test"]
    assert [record.portion == "none" for record in records] == [False, False, True, True]


@pytest.mark.parametrize(("per_image", "trained"), [("first", [0]), ("draw", [0, 1, 2]), ("all", [0, 1, 2])])
def test_captions_per_image(tmp_path: Path, per_image: str, trained: list[int]) -> None:
    records = karpathy(tmp_path, [image("restval", 1, captions=3), image("test", 2, captions=3)], per_image)
    assert [record.id for record in records] == [*(f"1001#{number}" for number in trained), "1002#0"]
    assert [record.chosen for record in records[:-1]] == [f"Caption {number} of 1." for number in trained]
    assert all(len(record.references) == 3 for record in records)
    assert len({record.portion for record in records[:-1]}) == 1


def test_white_space_in_captions_collapses_but_not_in_file_names(tmp_path: Path) -> None:
    entry = image("val", filepath="./a//b", filename="two  spaces.jpg", sentences=[{"raw": " A\tred\r\nball. "}])
    (record,) = karpathy(tmp_path, [entry])
    assert (record.chosen, record.image) == ("A red ball.", "a/b/two  spaces.jpg")


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        ({"split": "trian"}, r"images\[1\]\.split: unknown split 'trian'; did you mean 'train'\? valid: restval, test"),
        ({"split": ["train"]}, r"images\[1\]\.split: unknown split '\['train'\]'"),
        ({"split": None}, r"images\[1\]: key 'split' is missing; found filepath, filename, cocoid"),
        ({"filename": None}, r"images\[1\]: key 'filename' is missing; found filepath, split"),
        ({"sentences": None}, r"images\[1\]: key 'sentences' is missing"),
        ({"sentences": []}, r"images\[1\]\.sentences: expected a non-empty list, found \[\]"),
        ({"sentences": 5}, r"images\[1\]\.sentences: expected a non-empty list, found 5"),
        ({"sentences": ["A ball."]}, r"images\[1\]\.sentences\[0\]: expected an object, found str"),
        ({"sentences": [{"tokens": []}]}, r"images\[1\]\.sentences\[0\]: key 'raw' is missing; found tokens"),
        ({"sentences": [{"raw": "ok"}, {"raw": " \n"}]}, r"images\[1\]\.sentences\[1\]\.raw: the text is empty"),
        ({"sentences": [{"raw": 3}]}, r"images\[1\]\.sentences\[0\]\.raw: expected text, found int"),
        ({"filename": "../x.jpg", "filepath": None}, r"images\[1\]: image path '\.\./x\.jpg' leaves the data folder"),
        ({"filepath": "a/../../.."}, r"images\[1\]: image path 'a/\.\./\.\./\.\./COCO_1\.jpg' leaves the data folder"),
        ({"filepath": "/etc"}, r"images\[1\]: image path '/etc/COCO_1\.jpg' leaves the data folder"),
    ],
)
def test_a_broken_image_entry_is_named(tmp_path: Path, broken: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=re.escape(str(tmp_path)) + r"/dataset_coco\.json, " + message):
        karpathy(tmp_path, [image(), image(**broken)])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "not valid JSON"),
        ("[]", "expected a Karpathy split file, an object with a non-empty list 'images'"),
        ('{"images": []}', "expected a Karpathy split file"),
        ('{"images": {"a": 1}}', "expected a Karpathy split file"),
        ('{"images": [5]}', r"images\[0\]: expected an object, found int"),
        (b"\xff\xfe{}", "not valid JSON"),
    ],
)
def test_a_file_that_is_no_karpathy_file_is_named(tmp_path: Path, text: str | bytes, message: str) -> None:
    path = tmp_path / "dataset_coco.json"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(DataError, match=rf"{re.escape(str(path))}(:|,) {message}"):
        read_karpathy(path, "", PROMPT, "first", 0.75)


def test_missing_annotation_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"none\.json: cannot read the annotation file: No such file"):
        read_karpathy(tmp_path / "none.json", "", PROMPT, "first", 0.75)
    with pytest.raises(DataError, match=r"none\.jsonl: cannot read the file: No such file"):
        read_preferences(tmp_path / "none.jsonl", PROMPT, 0.75)


# ---- preferences


def test_a_minimal_line_takes_its_defaults(tmp_path: Path) -> None:
    (record,) = preferences(tmp_path, {"image": "a/1.jpg", "chosen": "A red ball."})
    assert (record.id, record.image_id, record.image) == ("a/1.jpg#1", "a/1.jpg", "a/1.jpg")
    assert (record.prompt, record.split, record.rejected) == (PROMPT, "train", ())
    assert record.references == ("A red ball.",)
    assert record.portion in ("stage1", "stage2")


def test_optional_keys_are_read(tmp_path: Path) -> None:
    (record,) = preferences(tmp_path, row(id=5, image_id=9, split="val", references=["One.", " Two. "]))
    assert (record.id, record.image_id, record.split, record.portion) == ("5", "9", "val", "none")
    assert (record.prompt, record.references) == ("What?", ("One.", "Two."))


@pytest.mark.parametrize(
    ("rejected", "expected"),
    [
        ("A blue  ball.", [("A blue ball.", "dataset", None)]),
        ([], []),
        (["A blue ball.", "A red cube."], [("A blue ball.", "dataset", None), ("A red cube.", "dataset", None)]),
        ([{"text": "A cat.", "source": "llm", "grade": "easy"}], [("A cat.", "llm", "easy")]),
        ([{"text": "A cat."}, "A dog."], [("A cat.", "dataset", None), ("A dog.", "dataset", None)]),
    ],
)
def test_forms_of_rejected(tmp_path: Path, rejected: Any, expected: list[tuple[str, str, str | None]]) -> None:
    (record,) = preferences(tmp_path, row(rejected=rejected))
    assert record.rejected == tuple(Rejected(*item) for item in expected)


def test_what_a_rejected_response_may_come_with_is_read(tmp_path: Path) -> None:
    dialogue = [[" Is it  blue? ", "No, it is red."], {"question": "Is it red?", "answer": "Yes."}]
    (record,) = preferences(
        tmp_path, wrong(revised="A red  ball.", dialogue=dialogue, scores=[score(1, True), score(4)])
    )
    plain, rich = record.rejected
    assert plain == Rejected("A cat.", "dataset")
    assert rich == Rejected(
        "A blue ball.",
        "dataset",
        revised="A red ball.",  # equal to the chosen response: that is what a correction may lead to
        dialogue=(("Is it blue?", "No, it is red."), ("Is it red?", "Yes.")),
        scores=(SentenceScore(1, True), SentenceScore(4, False)),
    )


def test_empty_lines_count_but_hold_nothing(tmp_path: Path) -> None:
    records = preferences(tmp_path, row(1), "", "   ", row(2, image="1.jpg"))
    assert [record.id for record in records] == ["1.jpg#1", "1.jpg#4"]


def test_only_a_newline_ends_a_line(tmp_path: Path) -> None:
    odd = "A\u2028red\u0085ball\x1c."  # JSON allows them as they are; they are white space to Python
    first, second = preferences(tmp_path, row(chosen=odd), row(2))
    assert (first.chosen, second.chosen) == ("A red ball .", "A red ball.")
    (tmp_path / "windows.jsonl").write_bytes(b"\r\n".join(json.dumps(row(n)).encode() for n in (1, 2)))
    assert len(read_preferences(tmp_path / "windows.jsonl", PROMPT, 0.75)) == 2


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        ('{"image": "1.jpg", "chosen": ', "not valid JSON"),
        ("[1, 2]", "expected an object, found list"),
        (row(choosen="x"), "unknown key 'choosen'; did you mean 'chosen'? valid: chosen, id, image, image_id, prompt"),
        (row(image=None), "key 'image' is missing; found prompt, chosen, rejected"),
        (row(chosen=None), "key 'chosen' is missing; found image, prompt, rejected"),
        ({}, "key 'image' is missing; found no key"),
        (row(chosen=" "), "line 17, chosen: the text is empty"),
        (row(chosen=5), "line 17, chosen: expected text, found int"),
        (row(prompt=""), "line 17, prompt: the text is empty"),
        (row(rejected=""), "line 17, rejected: the text is empty"),
        (row(rejected=["fine", ""]), "line 17, rejected[1]: the text is empty"),
        (row(rejected={"txt": "x"}), f"line 17, rejected: expected the keys {REJECTED_KEYS}; found ['txt']"),
        (row(rejected=[{"text": "x", "mark": 1}]), f"expected the keys {REJECTED_KEYS}; found ['mark', 'text']"),
        (row(rejected=" A red \n ball."), "chosen and rejected are equal ('A red ball.')"),
        (row(rejected=["A cat.", "A red ball."]), "rejected[1]: chosen and rejected are equal ('A red ball.')"),
        (wrong(revised="  A blue\n ball. "), "[1].revised: revised and rejected are equal ('A blue ball.')"),
        (wrong(revised=" "), "line 17, rejected[1].revised: the text is empty"),
        (wrong(revised=None), "line 17, rejected[1].revised: expected text, found NoneType"),
        (wrong(dialogue=[]), "line 17, rejected[1].dialogue: expected a non-empty list, found []"),
        (wrong(dialogue="Why?"), "line 17, rejected[1].dialogue: expected a non-empty list, found 'Why?'"),
        (
            wrong(dialogue=[["Is it blue?", "No."], ["Why?"]]),
            "[1].dialogue[1]: expected [question, answer] or the keys",
        ),
        (wrong(dialogue=[{"question": "Why?"}]), "[1].dialogue[0]: expected [question, answer] or the keys"),
        (wrong(dialogue=["No"]), "question, answer; found 'No'"),
        (wrong(dialogue=[["", "No."]]), "line 17, rejected[1].dialogue[0], question: the text is empty"),
        (wrong(dialogue=[["Is it blue?", 0]]), "rejected[1].dialogue[0], answer: expected text, found int"),
        (wrong(scores=[]), "line 17, rejected[1].scores: expected a non-empty list, found []"),
        (wrong(scores=[3]), "rejected[1].scores[0]: expected the keys score, image_error; found 3"),
        (wrong(scores=[{"score": 3}]), "[1].scores[0]: expected the keys score, image_error; found {'score': 3}"),
        (wrong(scores=[score(4), score(5)]), "line 17, rejected[1].scores[1].score: expected 1, 2, 3 or 4; found 5"),
        (wrong(scores=[score(0)]), "rejected[1].scores[0].score: expected 1, 2, 3 or 4; found 0"),
        (wrong(scores=[score(True)]), "rejected[1].scores[0].score: expected 1, 2, 3 or 4; found True"),
        (wrong(scores=[score(2.0)]), "rejected[1].scores[0].score: expected 1, 2, 3 or 4; found 2.0"),
        (wrong(scores=[score(1, "yes")]), "[1].scores[0].image_error: expected true or false; found 'yes'"),
        (row(references=[]), "line 17, references: expected a non-empty list of texts"),
        (row(references="A ball."), "line 17, references: expected a non-empty list of texts"),
        (row(split="tests"), "line 17, split: unknown split 'tests'; did you mean 'test'? valid: test, train, val"),
        (row(split={"a": 1}), "line 17, split: unknown split"),
        (row(image="../1.jpg"), "line 17, image: image path '../1.jpg' leaves the data folder"),
        (row(image="a/../../1.jpg"), "leaves the data folder; paths are relative to it, without '..'"),
        (row(image="/etc/1.jpg"), "line 17, image: image path '/etc/1.jpg' leaves the data folder"),
        (row(image="..\\1.jpg"), "line 17, image: image path '../1.jpg' leaves the data folder"),
        (row(image="C:\\1.jpg"), "line 17, image: image path 'C:/1.jpg' leaves the data folder"),
        (row(image=7), "line 17, image: expected text, found int"),
        (row(id="three"), "line 17, id: 'three' is the id of line 3 too; ids must be unique"),
    ],
)
def test_a_broken_line_17_is_named(tmp_path: Path, broken: Any, message: str) -> None:
    good = [row(number, **({"id": "three"} if number == 3 else {})) for number in range(1, 17)]
    with pytest.raises(DataError) as caught:
        preferences(tmp_path, *good, broken, row(18))
    assert str(caught.value).startswith(f"{tmp_path}/preferences.jsonl, line 17")
    assert message in str(caught.value)


def test_bytes_that_are_no_text_are_refused(tmp_path: Path) -> None:
    (tmp_path / "preferences.jsonl").write_bytes(b"\xff\xfe")
    with pytest.raises(DataError, match=r"preferences\.jsonl: not UTF-8 text"):
        read_preferences(tmp_path / "preferences.jsonl", PROMPT, 0.75)


# ---- the stage


def run_pairs(folder: Path, out: Path, source: Any, purpose: Any = "train") -> list[Record]:
    out.mkdir()
    spec = PairsSpec(data=source, purpose=purpose)
    nothing = lambda *_, **__: None  # noqa: E731
    pairs.run(StageContext(spec, {"data": folder}, out, out, out, Rank(), Execution(), nothing, nothing))
    return read_records(out / "records.jsonl")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Ten images with a preference record each; image ids 1 to 10 fall to both portions."""
    folder = tmp_path / "data"
    (folder / "images").mkdir(parents=True)
    rows = []
    for number in range(1, 11):
        Image.effect_noise((96, 96), 60).save(folder / "images" / f"{number}.jpg")
        rows.append(row(number, image=f"images/{number}.jpg", image_id=number))
    files.write_jsonl(folder / "preferences.jsonl", rows)
    return folder


def source(folder: Path, **changes: Any) -> Preferences:
    return Preferences(source="preferences", root=folder, **changes)


def test_good_data_becomes_records_and_a_summary(data: Path, tmp_path: Path) -> None:
    records = run_pairs(data, tmp_path / "out", source(data))
    assert records == read_preferences(data / "preferences.jsonl", PROMPT, 0.75)
    summary = files.read_json(tmp_path / "out" / "summary.json")
    assert summary["splits"] == {"train": 10}
    assert summary["images"] == 10
    assert set(summary["portions"]) == {"stage1", "stage2"}
    assert sum(summary["portions"].values()) == 10


def break_image(path: Path, how: str) -> None:
    if how == "missing":
        path.unlink()
    elif how == "truncated":
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    elif how == "text":
        path.write_text("not an image at all")
    elif how == "empty":
        path.write_bytes(b"")
    else:
        path.unlink()
        path.mkdir()


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("missing", "no such file"),
        ("truncated", r"damaged or truncated \(image file is truncated"),
        ("text", r"not an image \(19 bytes\)"),
        ("empty", r"not an image \(0 bytes\)"),
        ("folder", r"damaged or truncated \(.*[Dd]irectory"),
    ],
)
def test_a_bad_image_stops_the_stage_by_name(data: Path, tmp_path: Path, how: str, message: str) -> None:
    break_image(data / "images" / "4.jpg", how)
    with pytest.raises(DataError, match=rf"^image {re.escape(str(data))}/images/4\.jpg: {message}"):
        run_pairs(data, tmp_path / "out", source(data))
    assert list((tmp_path / "out").iterdir()) == []


def test_bad_images_are_counted_and_five_are_shown(data: Path, tmp_path: Path) -> None:
    for number in range(1, 9):
        break_image(data / "images" / f"{number}.jpg", "text")
    with pytest.raises(DataError) as caught:
        run_pairs(data, tmp_path / "out", source(data))
    assert str(caught.value).count("not an image") == 5
    assert str(caught.value).endswith("\n... and 3 more")


def test_exists_only_looks_whether_images_are_there(data: Path, tmp_path: Path) -> None:
    break_image(data / "images" / "4.jpg", "truncated")
    assert len(run_pairs(data, tmp_path / "out", source(data, check_images="exists"))) == 10
    break_image(data / "images" / "5.jpg", "missing")
    with pytest.raises(DataError, match=r"images/5\.jpg: no such file"):
        run_pairs(data, tmp_path / "again", source(data, check_images="exists"))


def test_an_empty_training_split_is_refused_unless_only_evaluated(data: Path, tmp_path: Path) -> None:
    rows = [row(n, image=f"images/{n}.jpg", split=split) for n, split in [(1, "val"), (2, "test"), (3, "test")]]
    files.write_jsonl(data / "preferences.jsonl", rows)
    with pytest.raises(DataError, match=rf"{data}: the training split is empty; found val \(1\), test \(2\)"):
        run_pairs(data, tmp_path / "train", source(data))
    assert len(run_pairs(data, tmp_path / "evaluate", source(data), "evaluate")) == 3


def test_a_file_without_records_is_refused(data: Path, tmp_path: Path) -> None:
    (data / "preferences.jsonl").write_text("\n")
    with pytest.raises(DataError, match="the training split is empty; found no records at all"):
        run_pairs(data, tmp_path / "out", source(data))


def test_a_stage_without_images_is_refused(data: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no training image falls to stage2 \(10 records\); change data.stage1_share"):
        run_pairs(data, tmp_path / "out", source(data, stage1_share=0.99999))


def test_an_image_listed_twice_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    (folder / "val2014").mkdir(parents=True)
    for number in (1, 2):
        Image.new("RGB", (8, 8)).save(folder / "val2014" / f"COCO_{number}.jpg")
    files.write_json(folder / "dataset_coco.json", {"images": [image(number=1), image(number=2, cocoid=1001)]})
    with pytest.raises(DataError, match=rf"{folder}: id '1001#0' occurs twice; ids must be unique"):
        run_pairs(folder, tmp_path / "out", Karpathy(source="karpathy", root=folder))


def test_the_demo_reads_what_it_wrote(tmp_path: Path) -> None:
    from cwdpo.data.demo_world import DemoWorld, write_world

    world = DemoWorld(train=12, val=2, test=3)
    write_world(world, tmp_path / "data")
    records = run_pairs(tmp_path / "data", tmp_path / "out", Demo(source="demo_world", world=world))
    assert [record.split for record in records].count("train") == 12
    assert len(records) == 17
    assert records[0].image == "images/train/demo_train_000000000001.jpg"


# ---- the data folder


def test_a_missing_folder_or_annotation_file_is_a_configuration_error(data: Path) -> None:
    with pytest.raises(ConfigError, match=r"data\.root: no such folder '.*/nowhere'"):
        data_root(source(data / "nowhere"))
    with pytest.raises(ConfigError, match=r"data\.annotations: no file 'x\.jsonl' in"):
        data_root(source(data, annotations="x.jsonl"))


def test_a_source_is_refused_by_its_path(data: Path) -> None:
    with pytest.raises(ConfigError, match=r"data: unknown source 'karpaty'; did you mean 'karpathy'\?"):
        validate(PairsSpec, {"data": {"source": "karpaty", "root": str(data)}}, "x.yaml")
    with pytest.raises(ConfigError, match=r"data\.root: is required"):
        validate(PairsSpec, {"data": {"source": "karpathy"}}, "x.yaml")
    with pytest.raises(ConfigError, match=r"stage1_share: Input should be less than 1; found 1"):
        validate(PairsSpec, {"data": {"source": "karpathy", "root": "x", "stage1_share": 1}}, "x.yaml")


def test_the_digest_follows_the_content_not_the_place(data: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    first = data_digest(source(data), cache)
    shutil.copytree(data, tmp_path / "copy")
    assert data_digest(source(tmp_path / "copy"), cache) == first
    assert data_digest(source(data, prompt="Another?", stage1_share=0.5), cache) == first
    Image.new("RGB", (99, 99)).save(tmp_path / "copy" / "images" / "1.jpg")
    assert data_digest(source(tmp_path / "copy"), tmp_path / "other cache") != first
    rows = list(files.read_jsonl(data / "preferences.jsonl"))
    files.write_jsonl(data / "preferences.jsonl", [{**rows[0], "chosen": "Else."}, *rows[1:]])
    assert data_digest(source(data), cache) != first


def test_the_digest_is_that_of_the_image_folder_named(tmp_path: Path) -> None:
    root = tmp_path / "data"
    for folder, size in (("small", 8), ("large", 64)):
        (root / folder / "val2014").mkdir(parents=True)
        Image.new("RGB", (size, size)).save(root / folder / "val2014" / "COCO_1.jpg")
    files.write_json(root / "dataset_coco.json", {"images": [image()]})
    found = [Karpathy(source="karpathy", root=root, images=name) for name in ("small", "large")]
    one_cache = [data_digest(item, tmp_path / "cache") for item in found]
    fresh_caches = [data_digest(item, tmp_path / item.images) for item in found]
    assert one_cache == fresh_caches
    assert len(set(one_cache)) == 2


def test_the_digest_needs_every_image(data: Path, tmp_path: Path) -> None:
    break_image(data / "images" / "4.jpg", "missing")
    with pytest.raises(DataError, match=r"image .*images/4\.jpg: No such file"):
        data_digest(source(data), tmp_path / "cache")


def test_a_changed_image_of_a_small_set_changes_its_digest_at_once(tmp_path: Path) -> None:
    """A repaired image must not leave the data under the digest of the broken one."""
    root = tmp_path / "data"
    root.mkdir()
    (root / "a.jpg").write_bytes(b"one")
    (root / "preferences.jsonl").write_text('{"image": "a.jpg", "chosen": "A ball."}\n')
    source = Preferences(source="preferences", root=root)
    before = data_digest(source, tmp_path / "cache")
    assert data_digest(source, tmp_path / "cache") == before
    (root / "a.jpg").write_bytes(b"another")
    assert data_digest(source, tmp_path / "cache") != before
    (root / "a.jpg").write_bytes(b"two")
    assert data_digest(source, tmp_path / "cache") == before, "images count by path and size"
