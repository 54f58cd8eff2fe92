"""Downloads and annotation files: found wherever they lie, and errors that name the file, the row and the key."""

from __future__ import annotations

import base64
import errno
import io
import os
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from cwdpo.base.errors import DataError
from cwdpo.data.annotations import read_annotations
from cwdpo.evaluate.reading.download import Download
from cwdpo.evaluate.reading.tables import (
    id_of,
    number_of,
    one_of,
    read_lines,
    read_parquet,
    read_text,
    read_tsv,
    text_of,
    texts_of,
)


def png(colour: str = "red") -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (4, 3), colour).save(file, "PNG")
    return file.getvalue()


def test_a_file_is_found_some_folders_below(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "x.json"
    path.parent.mkdir(parents=True)
    path.write_text("{}")
    download = Download(tmp_path)
    assert download.file("y.json", "x.json") == path
    assert download.files == ["a/b/x.json"]
    assert download.maybe("z.json") is None


def test_a_file_that_is_not_there_is_answered_with_those_that_are(tmp_path: Path) -> None:
    (tmp_path / "coco_pope_randon.json").write_text("")
    with pytest.raises(DataError) as caught:
        Download(tmp_path).file("coco_pope_random.json")
    assert "no file 'coco_pope_random.json'" in str(caught.value)
    assert "did you mean 'coco_pope_randon.json'?" in str(caught.value)


def test_two_files_of_one_name_are_not_guessed_between(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "x.json").write_text(folder)
    with pytest.raises(DataError, match=r"several files 'x.json': a/x.json, b/x.json; keep one of them"):
        Download(tmp_path).file("x.json")


def test_links_to_a_file_are_that_file(tmp_path: Path) -> None:
    (tmp_path / "annotations").mkdir()
    (tmp_path / "annotations" / "x.json").write_text("{}")
    (tmp_path / "annotations_trainval2014").symlink_to("annotations")
    (tmp_path / "y.json").symlink_to("annotations/x.json")
    download = Download(tmp_path)
    assert download.file("x.json") == tmp_path / "annotations" / "x.json"
    assert [path.name for path in download.all("*.json")] == ["y.json"]


def test_a_folder_that_may_not_be_read_is_said_where_something_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Refused by a stand-in: who is root may read everything."""
    (tmp_path / "lost+found").mkdir()
    (tmp_path / "x.json").write_text("{}")
    scan = os.scandir

    def refusing(path: Path) -> Any:
        if Path(path).name == "lost+found":
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return scan(path)

    monkeypatch.setattr(os, "scandir", refusing)
    download = Download(tmp_path)
    assert download.file("x.json") == tmp_path / "x.json"
    with pytest.raises(DataError, match=r"there is x\.json; not looked into, for want of permission: lost\+found$"):
        download.file("z.json")


def test_a_name_that_no_file_can_have_is_missing(tmp_path: Path) -> None:
    download = Download(tmp_path)
    long = "A" * 300
    assert [download.image(f"{long}.png", "row"), download.image(f"{long}/1.png", "row")] == [
        f"{long}.png", f"{long}/1.png",
    ]  # fmt: skip
    assert len(download.missing) == 2


def test_a_folder_whose_name_cannot_be_written_down(tmp_path: Path) -> None:
    os.mkdir(os.fsencode(tmp_path) + b"/donn\xe9es")
    with pytest.raises(DataError, match=r"donn\\udce9es': the name of this folder is no UTF-8; rename it"):
        Download(tmp_path)


def test_images_that_are_not_there_are_looked_for_where_they_could_be(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """ScienceQA's images lie in a folder each: thousands of folders, and as many that may be missing."""
    for number in range(50):
        (tmp_path / "train" / str(number)).mkdir(parents=True)
    download, looked, real = Download(tmp_path), [], os.path.isfile
    monkeypatch.setattr(os.path, "isfile", lambda path: bool(looked.append(path)) or real(path))
    for number in range(50):
        download.image(f"test/{number}/image.png", "row")
    assert (len(download.missing), looked) == (50, [])
    (tmp_path / "train" / "7" / "image.png").write_bytes(png())
    assert download.image("train/7/image.png", "row") == "train/7/image.png"


def test_no_folder_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such folder"):
        Download(tmp_path / "nowhere")


def test_images_are_found_in_any_folder_and_the_missing_are_remembered(tmp_path: Path) -> None:
    for folder, name in (("val", "1.png"), ("val", "2.png"), ("test/deep", "3.png")):
        (tmp_path / folder).mkdir(parents=True, exist_ok=True)
        (tmp_path / folder / name).write_bytes(png())
    download = Download(tmp_path)
    assert [download.image(f"{number}.png", "row") for number in (1, 2, 3, 4)] == [
        "val/1.png", "val/2.png", "test/deep/3.png", "4.png",
    ]  # fmt: skip
    assert download.images == dict.fromkeys(("val/1.png", "val/2.png", "test/deep/3.png"), len(png()))
    assert download.missing == ["val/4.png"]
    with pytest.raises(DataError, match=r"row: image path '\.\./1.png' leaves the data folder"):
        download.image("../1.png", "row")


@pytest.mark.parametrize("content", [png(), base64.b64encode(png()).decode()], ids=["bytes", "base64"])
def test_images_inside_are_written_as_they_are(tmp_path: Path, content: str | bytes) -> None:
    (tmp_path / "in").mkdir()
    download = Download(tmp_path / "in", tmp_path / "out")
    assert download.embedded("7", content, "row 7") == "images/7.png"
    assert (tmp_path / "out" / "images" / "7.png").read_bytes() == png()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("not base64!", "row 7: the image is no base64"),
        (base64.b64encode(b"no image").decode(), "row 7: the image inside it cannot be decoded"),
        (png()[:40], "row 7: the image inside it cannot be decoded"),
    ],
    ids=["base64", "text", "cut"],
)
def test_images_inside_are_checked_where_nothing_is_written(tmp_path: Path, content: str | bytes, message: str) -> None:
    with pytest.raises(DataError, match=message):
        Download(tmp_path).embedded("7", content, "row 7")


def test_lines_keep_line_separators_inside_texts(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    path.write_text('\ufeff{"a": "x\u2028y"}\n\n{"a": 2}\n', encoding="utf-8")
    assert list(read_lines(path, ["a"])) == [(f"{path}, line 1", {"a": "x\u2028y"}), (f"{path}, line 3", {"a": 2})]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"a": 1}\n{"a": \n', "line 2: not valid JSON"),
        ('{"b": 1}\n', "line 1: key 'a' is missing; found b"),
        ("[1]\n", "line 1: expected an object, found list"),
    ],
)
def test_bad_lines_are_named(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "x.jsonl"
    path.write_text(text)
    with pytest.raises(DataError, match=message):
        list(read_lines(path, ["a"]))


def test_a_tsv_cell_may_hold_tabs_quotes_and_line_breaks(tmp_path: Path) -> None:
    path = tmp_path / "x.tsv"
    path.write_text('index\tquestion\n1\t"two\nlines, a\ttab and ""quotes"""\n2\tx\u2028y\n', encoding="utf-8")
    rows = list(read_tsv(path, ["index", "question"]))
    assert [row for _, row in rows] == [
        {"index": "1", "question": 'two\nlines, a\ttab and "quotes"'}, {"index": "2", "question": "x\u2028y"},
    ]  # fmt: skip
    assert [where for where, _ in rows] == [f"{path}, line 3", f"{path}, line 4"]


def test_a_tsv_that_lacks_a_column_or_a_cell_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.tsv"
    path.write_text("index\tanswer\n1\tA\n2\n")
    with pytest.raises(DataError, match=r"x.tsv: column 'question' is missing; found index, answer"):
        list(read_tsv(path, ["index", "question"]))
    with pytest.raises(DataError, match=r"x.tsv, line 3: 1 columns, but the header has 2 \(index, answer\)"):
        list(read_tsv(path, ["index"]))


def test_parquet_rows_have_numbers_and_columns_are_checked(tmp_path: Path) -> None:
    path = tmp_path / "x.parquet"
    pq.write_table(pa.table({"a": [1, 2], "b": [{"bytes": b"x"}, None]}), path)
    assert list(read_parquet([path], ["a"])) == [
        (f"{path}, row 1", {"a": 1, "b": {"bytes": b"x"}}), (f"{path}, row 2", {"a": 2, "b": None}),
    ]  # fmt: skip
    with pytest.raises(DataError, match="column 'c' is missing; found a, b"):
        list(read_parquet([path], ["c"]))
    path.write_bytes(path.read_bytes()[:-6])
    with pytest.raises(DataError, match="cannot be read as Parquet"):
        list(read_parquet([path], ["a"]))


def test_other_bytes_than_text_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.tsv"
    path.write_bytes(b"a\tb\n\xff\xfe\t1\n")
    with pytest.raises(DataError, match=r"x.tsv: not UTF-8"):
        list(read_tsv(path, ["a"]))


def test_a_value_that_is_none_of_the_valid_ones() -> None:
    assert one_of({"label": "yes"}, "label", ("yes", "no"), "line 4") == "yes"
    with pytest.raises(DataError, match="line 4: label is 'Yes'; valid: yes, no"):
        one_of({"label": "Yes"}, "label", ("yes", "no"), "line 4")


def test_a_byte_order_mark_is_no_content(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    path.write_bytes(b'\xef\xbb\xbf{"a": "\xc3\xa9"}')
    assert read_text(path) == '{"a": "\u00e9"}'
    assert read_annotations(path) == {"a": "\u00e9"}


def test_an_id_is_a_whole_number_or_a_text() -> None:
    assert [id_of({"id": value}, "id", "line 4") for value in (7, 0, "v1_7", " 7")] == ["7", "0", "v1_7", " 7"]


@pytest.mark.parametrize("value", [None, True, 1.5, float("nan"), "", " \n", [7], {"id": 7}])
def test_anything_else_is_no_id(value: object) -> None:
    with pytest.raises(DataError) as caught:
        id_of({"id": value}, "id", "line 4")
    assert str(caught.value) == f"line 4: id is {value!r}; valid: a whole number, or a text that is not empty"


def test_a_whole_number_may_be_written_as_text() -> None:
    assert [number_of({"n": value}, "n", "line 4") for value in (7, -7, "7", "007", "-7")] == [7, -7, 7, 7, -7]


@pytest.mark.parametrize("value", [None, True, 1.0, "", "x", "1.0", "\N{SUPERSCRIPT TWO}", "1" * 5000, [7]])
def test_anything_else_is_no_whole_number(value: object) -> None:
    with pytest.raises(DataError, match=r"line 4: n is .*; valid: a whole number$"):
        number_of({"n": value}, "n", "line 4")


def test_texts_stay_as_they_are_and_numbers_become_text() -> None:
    row = {"text": "two\r\nlines  ", "number": 7, "share": 1.5, "none": ""}
    assert [text_of(row, key, "line 4") for key in ("text", "number", "share")] == ["two\r\nlines  ", "7", "1.5"]
    assert text_of(row, "none", "line 4", empty=True) == ""
    assert texts_of({"a": ["x", 7, ""]}, "a", "line 4", empty=True) == ["x", "7", ""]
    assert texts_of({"a": []}, "a", "line 4") == []


@pytest.mark.parametrize("value", [None, True, [], ["x"], {}])
@pytest.mark.parametrize("empty", [True, False])
def test_anything_else_is_no_text(value: object, empty: bool) -> None:
    with pytest.raises(DataError, match=r"line 4: a is .*; valid: a text"):
        text_of({"a": value}, "a", "line 4", empty=empty)
    with pytest.raises(DataError, match=r"line 4: a\[1\] is .*; valid: a text"):
        texts_of({"a": ["x", value]}, "a", "line 4", empty=empty)


def test_empty_texts_and_no_lists_are_refused() -> None:
    with pytest.raises(DataError, match=r"line 4: a is ' '; valid: a text that is not empty"):
        text_of({"a": " "}, "a", "line 4")
    with pytest.raises(DataError, match=r"line 4: a is 'x'; valid: a list of texts"):
        texts_of({"a": "x"}, "a", "line 4")


@pytest.mark.parametrize("empty", [True, False])
def test_half_a_character_is_refused_where_it_stands(empty: bool) -> None:
    with pytest.raises(DataError, match=r"line 4: a\[0\]: the text holds half of a character"):
        texts_of({"a": ["x\ud83d"]}, "a", "line 4", empty=empty)
    with pytest.raises(DataError, match="line 4: a: the text holds half of a character"):
        id_of({"a": "\udfff"}, "a", "line 4")
