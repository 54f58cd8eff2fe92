"""Receipts of benchmarks: what is written down, when it no longer holds, and what a bad download is told."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, get_args

import pytest
from formats import mmbench as mmbench_files
from formats import mmmu as mmmu_files
from formats import nocaps as nocaps_files
from formats import own as own_files
from formats import textvqa as files
from PIL import Image

from cwdpo.base.context import StageContext
from cwdpo.base.errors import ConfigError, DataError, StoreError
from cwdpo.base.runtime import Execution, Rank
from cwdpo.data.sources import DATA_SOURCE
from cwdpo.evaluate import questions
from cwdpo.evaluate.benchmarks.coco import Coco
from cwdpo.evaluate.benchmarks.flickr30k import Flickr30k
from cwdpo.evaluate.benchmarks.mmbench import Mmbench
from cwdpo.evaluate.benchmarks.mmmu import Mmmu
from cwdpo.evaluate.benchmarks.nocaps import NocapsCaptions
from cwdpo.evaluate.benchmarks.own import Own
from cwdpo.evaluate.benchmarks.textvqa import Textvqa
from cwdpo.evaluate.prepared import all_prepared, find_prepared, prepare, receipt_of
from cwdpo.experiment import described

TEXTVQA = Textvqa(name="textvqa")


@pytest.fixture
def download(tmp_path: Path) -> Path:
    files.write(tmp_path / "download")
    return tmp_path / "download"


@pytest.fixture
def receipts(tmp_path: Path) -> Path:
    return tmp_path / "home" / "benchmarks"


def test_what_was_counted_is_kept(download: Path, receipts: Path) -> None:
    made = prepare(TEXTVQA, download, receipts)
    assert find_prepared(TEXTVQA, receipts) == made
    assert all_prepared(receipts) == [made]
    assert (made.benchmark, made.root, made.settings) == ("textvqa", str(download.resolve()), {})
    assert list(made.annotations) == ["TextVQA_0.5.1_val.json"]
    assert made.notes == (f"all: {made.counts['']:,} items, published are 5,000",)


def test_the_digest_follows_the_bytes_of_files_and_the_sizes_of_images(download: Path, receipts: Path) -> None:
    first = prepare(TEXTVQA, download, receipts)
    assert prepare(TEXTVQA, download, receipts).digest == first.digest
    moved = download.rename(download.with_name("elsewhere"))
    assert prepare(TEXTVQA, moved, receipts).digest == first.digest
    image = moved / next(iter(sorted(path.relative_to(moved).as_posix() for path in moved.rglob("*.jpg"))))
    image.write_bytes(image.read_bytes() + b"more")
    second = prepare(TEXTVQA, moved, receipts)
    assert second.digest != first.digest
    annotations = moved / "TextVQA_0.5.1_val.json"
    annotations.write_text(annotations.read_text() + " ")
    assert prepare(TEXTVQA, moved, receipts).digest not in (first.digest, second.digest)


def test_files_that_changed_are_not_used(download: Path, receipts: Path) -> None:
    prepare(TEXTVQA, download, receipts)
    path = download / "TextVQA_0.5.1_val.json"
    os.utime(path, (1, 1))
    with pytest.raises(ConfigError, match=r"val.json has changed since it was prepared; say where it lies"):
        find_prepared(TEXTVQA, receipts).check()
    path.unlink()
    with pytest.raises(ConfigError, match=r"No such file or directory; say where it lies now: cwdpo data prep"):
        find_prepared(TEXTVQA, receipts).check()


def test_one_that_is_not_ready_says_what_to_download(receipts: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        find_prepared(TEXTVQA, receipts)
    assert "benchmark 'textvqa' is not ready in" in str(caught.value)
    assert "TextVQA_0.5.1_val.json" in str(caught.value)
    assert str(caught.value).endswith("run: cwdpo data prepare textvqa --from FOLDER")


def test_versions_have_receipts_of_their_own(tmp_path: Path, receipts: Path) -> None:
    mmbench_files.write(tmp_path / "mm")
    new, old = Mmbench(name="mmbench"), Mmbench(name="mmbench", version="1.0")
    prepare(new, tmp_path / "mm", receipts)
    assert receipt_of(new, receipts) != receipt_of(old, receipts)
    with pytest.raises(ConfigError) as caught:
        find_prepared(old, receipts)
    assert "is not ready in" in str(caught.value)
    assert "(other settings are: mmbench)" in str(caught.value)
    assert str(caught.value).endswith("cwdpo data prepare mmbench --from FOLDER --set version=1.0")


def test_a_setting_with_a_folder_in_it_has_one_receipt(tmp_path: Path, receipts: Path) -> None:
    own_files.write(tmp_path / "own")
    (tmp_path / "own" / "more").mkdir()
    (tmp_path / "own" / "questions.jsonl").rename(tmp_path / "own" / "more" / "mine.jsonl")
    benchmark = Own(name="own", file="more/mine.jsonl")
    made = prepare(benchmark, tmp_path / "own", receipts)
    assert made.title == "own (file more/mine.jsonl)"
    assert all_prepared(receipts) == [made] == [find_prepared(benchmark, receipts)]


def test_many_categories_that_differ_are_one_note(tmp_path: Path, receipts: Path) -> None:
    mmmu_files.write(tmp_path / "mmmu")
    made = prepare(Mmmu(name="mmmu"), tmp_path / "mmmu", receipts)
    total = sum(made.counts.values())
    assert made.notes == (f"{total} items, published are 900; 30 of 30 categories differ",)


def test_every_missing_image_is_listed(download: Path, receipts: Path) -> None:
    images = sorted(download.rglob("*.jpg"))
    images[0].unlink()
    images[1].write_bytes(b"")
    with pytest.raises(DataError) as caught:
        prepare(TEXTVQA, download, receipts)
    assert f"2 of {len(images)} images are missing or empty:" in str(caught.value)
    listing = receipts / "textvqa.missing.txt"
    assert listing.read_text().split() == [path.relative_to(download).as_posix() for path in images[:2]]
    assert str(listing) in str(caught.value)
    assert not receipt_of(TEXTVQA, receipts).exists()
    for image in images[:2]:
        Image.new("RGB", (40, 30)).save(image)
    prepare(TEXTVQA, download, receipts)
    assert not listing.exists()


def test_a_damaged_receipt_says_so(download: Path, receipts: Path) -> None:
    prepare(TEXTVQA, download, receipts)
    path = receipt_of(TEXTVQA, receipts)
    path.write_text(json.dumps({"benchmark": "textvqa"}))
    with pytest.raises(StoreError, match=r"textvqa.json is damaged; remove it and prepare the benchmark again"):
        find_prepared(TEXTVQA, receipts)


# Captions


def karpathy(folder: Path, name: str, images: str, **more: str) -> Path:
    """A split file with two test images, below a folder, and the images in another one."""
    rows = [
        {"filename": f"{n}.jpg", "split": split, "imgid": n, "sentences": [{"raw": f"A thing {n}."}], **more}
        for n, split in enumerate(("train", "test", "test"))
    ]
    (folder / "splits").mkdir(parents=True)
    (folder / "splits" / name).write_text(json.dumps({"images": rows}))
    (folder / images).mkdir(parents=True)
    for n in (1, 2):  # those of train are not needed
        Image.new("RGB", (8, 8)).save(folder / images / f"{n}.jpg")
    return folder


@pytest.mark.parametrize(
    ("benchmark", "name", "images", "more", "prefix"),
    [
        (Flickr30k(name="flickr30k"), "dataset_flickr30k.json", "flickr30k-images", {}, "flickr30k-images"),
        (Coco(name="coco"), "dataset_coco.json", "coco/images/val2014", {"filepath": "val2014"}, "coco/images"),
    ],
    ids=["flickr30k", "coco"],
)
def test_captions_find_their_images(
    tmp_path: Path,
    receipts: Path,
    benchmark: Coco | Flickr30k,
    name: str,
    images: str,
    more: dict[str, str],
    prefix: str,
) -> None:
    folder = karpathy(tmp_path / "data", name, images, **more)
    made = prepare(benchmark, folder, receipts)
    assert made.data is not None
    assert (made.data["annotations"], made.data["images"]) == (f"splits/{name}", prefix)
    assert dict(made.counts) == {"test": 2}
    (folder / images / "2.jpg").unlink()
    with pytest.raises(DataError, match="1 of 2 images are missing or empty"):
        prepare(benchmark, folder, receipts)


def test_captions_without_a_test_split_are_refused(tmp_path: Path, receipts: Path) -> None:
    folder = karpathy(tmp_path / "data", "dataset_flickr30k.json", "images")
    path = folder / "splits" / "dataset_flickr30k.json"
    path.write_text(path.read_text().replace('"test"', '"val"'))
    with pytest.raises(DataError, match="the test split is empty"):
        prepare(Flickr30k(name="flickr30k"), folder, receipts)


def test_images_of_nocaps_are_counted_by_domain(tmp_path: Path, receipts: Path) -> None:
    nocaps_files.write(tmp_path / "data")
    made = prepare(NocapsCaptions(name="nocaps"), tmp_path / "data", receipts)
    assert made.counts.keys() == {"in-domain", "near-domain", "out-domain"}
    assert made.data is not None
    assert made.data["images"] == nocaps_files.FOLDER
    assert made.notes[0] == f"in-domain: {made.counts['in-domain']} items, published are 648"


@pytest.mark.parametrize(
    ("data", "own"),
    [
        ({"source": "karpathy", "root": "x"}, Coco),
        ({"source": "karpathy", "root": "x", "annotations": "splits/dataset_coco.json"}, Coco),
        ({"source": "karpathy", "root": "x", "annotations": "dataset_flickr30k.json"}, Flickr30k),
        ({"source": "nocaps", "root": "x"}, NocapsCaptions),
        ({"source": "textcaps", "root": "x"}, None),
    ],
)
def test_a_benchmark_describes_its_own_data_only(data: dict[str, str], own: Any) -> None:
    """Flickr30k's file has COCO's format: its captions must never stand under COCO's name."""
    source = DATA_SOURCE.validate_python(data)
    kinds = (Coco, Flickr30k, NocapsCaptions)
    benchmarks = [kind.model_validate({"name": get_args(kind.model_fields["name"].annotation)[0]}) for kind in kinds]
    found = [type(one) for one in benchmarks if described(one, source)]
    assert found == ([own] if own else [])


# The stage that reads them


def read(benchmark: Textvqa, root: Path, digest: str, out: Path) -> None:
    nothing: Any = lambda *_, **__: None  # noqa: E731
    spec = questions.QuestionsSpec(benchmark=benchmark, digest=digest)
    questions.run(StageContext(spec, {"data": root}, out, out, out, Rank(), Execution(), nothing, nothing))


def test_other_files_than_were_prepared_are_not_read(download: Path, receipts: Path, tmp_path: Path) -> None:
    made = prepare(TEXTVQA, download, receipts)
    read(TEXTVQA, download, made.digest, tmp_path / "out")
    assert len((tmp_path / "out" / "questions.jsonl").read_text().splitlines()) == sum(made.counts.values())
    image = sorted(download.rglob("*.jpg"))[0]
    whole = image.read_bytes()
    image.write_bytes(whole + b"more")
    with pytest.raises(DataError, match=r"files have changed since it was prepared; run: cwdpo data prepare textvqa"):
        read(TEXTVQA, download, made.digest, tmp_path / "changed")
    image.write_bytes(whole[:200].ljust(len(whole), b"\0"))  # damaged, at its old size
    with pytest.raises(DataError, match=r"damaged or truncated"):
        read(TEXTVQA, download, made.digest, tmp_path / "damaged")
    image.unlink()
    with pytest.raises(DataError, match=r"1 images are gone, such as train_images/.* since it was prepared; run: "):
        read(TEXTVQA, download, made.digest, tmp_path / "gone")
    assert not (tmp_path / "gone" / "questions.jsonl").exists()
