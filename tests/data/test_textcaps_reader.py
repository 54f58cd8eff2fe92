"""TextCaps' two files: an entry is a caption, a record is an image's, and both splits lie in one folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from cwdpo.base.errors import ConfigError, DataError
from cwdpo.data.records import Record, portion_of
from cwdpo.data.sources import Textcaps, data_digest, data_root

TRAIN, VAL = "TextCaps_0.1_train.json", "TextCaps_0.1_val.json"


def entry(caption: Any = "A sign.", name: str = "f3b5", split: str = "train", **changes: Any) -> dict[str, Any]:
    known = {
        "image_id": name,
        "set_name": split,
        "image_path": f"{split}/{name}.jpg",
        "caption_str": caption,
        "reference_strs": ["A sign.", "A red sign."],
    }
    return {key: value for key, value in (known | changes).items() if value is not None}


def source(folder: Path, **settings: Any) -> Textcaps:
    return Textcaps.model_validate({"source": "textcaps", "root": folder, **settings})


def write(folder: Path, train: Any, val: Any = None) -> None:
    (folder / TRAIN).write_text(json.dumps({"dataset_name": "textcaps", "data": train}))
    (folder / VAL).write_text(json.dumps({"data": val or [entry(name="00aa", split="val")]}))


def read(folder: Path, train: Any, val: Any = None, **settings: Any) -> list[Record]:
    write(folder, train, val)
    return source(folder, **settings).read(folder)


def test_captions_of_an_image_are_gathered(tmp_path: Path) -> None:
    both = [entry(), entry("A red sign."), entry("A stop sign."), entry(name="0001")]
    first, second, third, _, last, val = read(tmp_path, both)
    references = ("A sign.", "A red sign.", "A stop sign.")
    portion = portion_of("f3b5", "train", 0.75)
    image = "train_images/f3b5.jpg"
    prompt = "Describe the image briefly."
    assert first == Record("f3b5#0", "f3b5", image, prompt, "A sign.", references, (), "train", portion)
    assert (second.id, second.chosen) == ("f3b5#1", "A red sign.")
    assert (third.id, third.chosen) == ("f3b5#2", "A stop sign.")
    assert last.id == "0001#1"
    assert (val.id, val.split, val.portion, val.image) == ("00aa#0", "val", "none", "train_images/00aa.jpg")
    assert val.references == ("A sign.", "A red sign.")


def test_the_first_caption_can_stand_for_all(tmp_path: Path) -> None:
    assert [record.id for record in read(tmp_path, [entry()], captions_per_image="first")] == ["f3b5#0", "00aa#0"]
    assert source(tmp_path).one_per_image
    assert not source(tmp_path, captions_per_image="all").one_per_image
    cut = source(tmp_path, captions_per_image="all", prompt="Say.", stage1_share=0.5)
    assert cut.for_evaluation() == source(tmp_path, captions_per_image="first")


def test_references_may_be_missing(tmp_path: Path) -> None:
    found = read(tmp_path, [entry("One."), entry("Two.", reference_strs=None)], val_annotations=None)
    assert found[0].references == ("One.", "A sign.", "A red sign.", "Two.")


def test_one_file_alone_is_read_where_the_other_is_not_wanted(tmp_path: Path) -> None:
    write(tmp_path, [entry()])
    (tmp_path / VAL).unlink()
    assert {record.split for record in source(tmp_path, val_annotations=None).read(tmp_path)} == {"train"}
    assert data_root(source(tmp_path, val_annotations=None)) == tmp_path
    with pytest.raises(ConfigError, match=rf"data\.val_annotations: no file '{VAL}' in"):
        data_root(source(tmp_path))


def test_the_digest_is_that_of_both_files(tmp_path: Path) -> None:
    write(tmp_path, [entry()])
    (tmp_path / "train_images").mkdir()
    for name in ("f3b5", "00aa"):
        (tmp_path / "train_images" / f"{name}.jpg").write_bytes(b"x")
    before = data_digest(source(tmp_path), tmp_path / "cache")
    assert data_digest(source(tmp_path, captions_per_image="all"), tmp_path / "cache") == before
    write(tmp_path, [entry()], [entry("Another.", name="00aa", split="val")])
    assert data_digest(source(tmp_path), tmp_path / "cache") != before


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        (3, "data[1]: expected an object, found int"),
        (
            entry(image_id=None),
            "data[1]: key 'image_id' is missing; found set_name, image_path, caption_str, reference",
        ),
        (entry(set_name=None), "data[1]: key 'set_name' is missing"),
        (entry(split="test"), "data[1].set_name: unknown split 'test'; valid: train, val"),
        (entry(caption_str=None), "data[1]: key 'caption_str' is missing"),
        (entry(" "), "data[1].caption_str: the text is empty"),
        (entry(reference_strs=["A.", 1]), "data[1].reference_strs[1]: expected text, found int"),
        (entry(reference_strs="A."), "data[1].reference_strs: expected a non-empty list, found 'A.'"),
        (entry(split="val"), "data[1]: image 'f3b5' is of the val split here, of train before"),
    ],
)
def test_a_broken_entry_is_named(tmp_path: Path, broken: Any, message: str) -> None:
    with pytest.raises(DataError) as caught:
        read(tmp_path, [entry(), broken])
    assert str(caught.value).startswith(f"{tmp_path}/{TRAIN}, {message}")


def test_another_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / TRAIN).write_text("[1]")
    with pytest.raises(DataError, match=r"expected a TextCaps file, an object with a non-empty list 'data'"):
        source(tmp_path, val_annotations=None).read(tmp_path)
