"""NoCaps' captions: a record an image, with all its captions and its domain, which reaches what scores them."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from formats import nocaps as files

from cwdpo.base.errors import ConfigError, DataError
from cwdpo.data.pairs import used
from cwdpo.data.records import Record, open_records, read_records, write_records
from cwdpo.data.sources import Nocaps, data_digest, data_root

FILE = "nocaps_val_4500_captions.json"
Content = dict[str, Any]


def source(folder: Path, **settings: Any) -> Nocaps:
    return Nocaps.model_validate({"source": "nocaps", "root": folder, "images": files.FOLDER, **settings})


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    files.write(tmp_path)
    return tmp_path


def test_a_record_is_an_image_with_all_its_captions(folder: Path) -> None:
    records = source(folder).read(folder)
    assert [record.id for record in records] == ["0#0", "1#0", "2#0", "3#0", "17#0", "4499#0"]
    assert [record.image_id for record in records] == ["0", "1", "2", "3", "17", "4499"]
    harp = records[4]
    references = (
        "A harp outside.", "Someone's harp, seen from above", "The harp is very small.", "There is a harp here",
        "Two views of a harp.", "A café with a harp.", "a harp", "A harp: nothing else.",
        "A photo of a harp on a table.", "An old harp in the light.",
    )  # fmt: skip
    assert harp == Record(
        "17#0", "17", "val/17aa00bb11cc22dd.jpg", "Describe the image briefly.", "A harp outside.", references, (),
        "val", "none", "out-domain",
    )  # fmt: skip
    kinds = ["in-domain", "near-domain", "out-domain", "near-domain", "out-domain", "in-domain"]
    assert [record.domain for record in records] == kinds
    assert all((folder / record.image).is_file() for record in records)


def test_all_of_it_is_evaluated_on_and_none_trained_on(folder: Path) -> None:
    data = source(folder, prompt="Say.", stage1_share=0.5)
    assert [record.prompt for record in data.read(folder)] == ["Say."] * 6
    assert data.for_evaluation() == source(folder)
    assert not data.one_per_image
    assert len(used(data.read(folder), "evaluate", "here")) == 6
    with pytest.raises(DataError, match=r"here: the training split is empty; found val \(6\)"):
        used(data.read(folder), "train", "here")
    assert [record.image_id for record in source(folder, limit=2).read(folder)] == ["0", "1"]


def test_images_may_lie_beside_the_file(folder: Path) -> None:
    records = Nocaps(source="nocaps", root=folder).read(folder)
    assert records[0].image == "0013ea2087020901.jpg"


def test_the_domain_is_written_where_there_is_one(folder: Path) -> None:
    records = source(folder).read(folder)
    path = folder / "records.jsonl"
    write_records(path, [records[2], replace(records[2], domain=None)])
    known, unknown = map(json.loads, path.read_text().splitlines())
    assert known.pop("domain") == "out-domain"
    assert known == unknown
    assert list(unknown)[-2:] == ["split", "portion"]  # as it was before there were domains
    assert read_records(path) == [records[2], replace(records[2], domain=None)]
    assert [record.domain for record in open_records(path)] == ["out-domain", None]


def test_the_digest_is_that_of_the_file_and_the_images(folder: Path, tmp_path: Path) -> None:
    before = data_digest(source(folder), tmp_path / "cache")
    assert data_root(source(folder)) == folder
    (folder / files.FOLDER / "17aa00bb11cc22dd.jpg").write_bytes(b"x")
    assert data_digest(source(folder), tmp_path / "cache") != before
    with pytest.raises(DataError, match=r"image .*/0013ea2087020901\.jpg: No such file"):
        data_digest(source(folder, images=""), tmp_path / "cache")
    (folder / FILE).unlink()
    with pytest.raises(ConfigError, match=rf"data\.annotations: no file '{FILE}' in"):
        data_root(source(folder))


# What is wrong


def change(*path: Any, to: Any) -> Callable[[Content], None]:
    """Set what lies at a path; `...` takes it away."""

    def apply(content: Content) -> None:
        *steps, last = path
        place: Any = content
        for step in steps:
            place = place[step]
        if to is ...:
            del place[last]
        else:
            place[last] = to

    return apply


def without_domains(content: Content) -> None:
    for image in content["images"]:
        del image["domain"]


def without_captions_of_17(content: Content) -> None:
    content["annotations"] = [row for row in content["annotations"] if row["image_id"] != 17]


WRONG = [
    (change("images", to=...), f": expected {FILE}, an object with the lists 'images' and 'annotations'"),
    (change("annotations", to=...), f": expected {FILE}, an object with the lists 'images' and 'annotations'"),
    (change("images", to={}), ".images: expected a non-empty list, found {}"),
    (change("annotations", to=[]), ".annotations: expected a non-empty list, found []"),
    (change("images", 1, to=3), ", images[1]: expected an object, found int"),
    (change("images", 1, "id", to=...), ", images[1]: key 'id' is missing; found open_images_id, height"),
    (change("images", 1, "id", to=True), ", images[1].id: expected a number or text, found True"),
    (change("images", 1, "id", to="0"), ", images[1]: id 0 occurs twice, first in "),
    (change("images", 1, "file_name", to=...), ", images[1]: key 'file_name' is missing; found id, open_images_id"),
    (change("images", 1, "file_name", to="../a.jpg"), ", images[1]: image path 'val/../a.jpg' leaves the data folder"),
    (change("images", 1, "file_name", to=""), ", images[1].file_name: the text is empty"),
    (change("images", 1, "domain", to="near"), ", images[1].domain: unknown domain 'near'; valid: in-domain, near-"),
    (change("images", 1, "domain", to=["in-domain"]), ", images[1].domain: unknown domain '['in-domain']'"),
    (change("images", 3, "domain", to=...), ": 1 of 6 images have no domain, first "),
    (change("annotations", 7, "caption", to=" "), ", annotations[7].caption: the text is empty"),
    (change("annotations", 7, "caption", to=None), ", annotations[7].caption: expected text, found NoneType"),
    (change("annotations", 7, "caption", to=...), ", annotations[7]: key 'caption' is missing; found image_id, id"),
    (change("annotations", 7, "image_id", to=5), ", annotations[7]: no image has the id 5; the file has 6 images"),
    (change("annotations", 7, "id", to=6), ", annotations[7]: id 6 occurs twice, first in "),
    (without_captions_of_17, ": 1 of 6 images have no caption, first "),
]  # fmt: skip


@pytest.mark.parametrize(("spoil", "message"), WRONG)
def test_what_is_wrong_is_named(folder: Path, spoil: Callable[[Content], None], message: str) -> None:
    content = files.content()
    spoil(content)
    (folder / FILE).write_text(json.dumps(content))
    with pytest.raises(DataError) as caught:
        source(folder).read(folder)
    assert str(caught.value).startswith(f"{folder / FILE}{message}")


def test_where_the_first_of_several_is_wrong_is_named(folder: Path) -> None:
    content = files.content()
    without_captions_of_17(content)
    (folder / FILE).write_text(json.dumps(content))
    with pytest.raises(DataError, match=r"first .*images\[4\] \(id 17\)$"):
        source(folder).read(folder)


def test_a_file_without_domains_is_refused_with_what_to_get_instead(folder: Path) -> None:
    content = files.content()
    without_domains(content)
    (folder / FILE).write_text(json.dumps(content))
    reason = (
        r"6 of 6 images have no domain, first .*images\[0\]; without 'domain' nobody can tell which images are"
        rf" in-domain, near-domain and out-domain, .* Hugging Face hub lack it: get the original {FILE}"
    )
    with pytest.raises(DataError, match=reason):
        source(folder).read(folder)


def test_the_copy_of_the_hub_is_refused_with_what_to_get_instead(folder: Path) -> None:
    name = "validation-00000-of-00001.parquet"
    (folder / name).write_bytes(b"PAR1")
    with pytest.raises(DataError, match=rf"parquet: without 'domain' .* get the original {FILE}"):
        source(folder, annotations=name).read(folder)


def test_what_is_no_json_is_refused(folder: Path) -> None:
    (folder / FILE).write_text("[1")
    with pytest.raises(DataError, match=rf"{FILE}: not valid JSON"):
        source(folder).read(folder)
    (folder / FILE).write_text("[1]")
    with pytest.raises(DataError, match=rf"expected {FILE}"):
        source(folder).read(folder)
