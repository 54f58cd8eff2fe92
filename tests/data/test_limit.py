"""`data.limit`: the first images of each split and of each stage's share, and nothing of the others is looked at."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from cwdpo.base import files
from cwdpo.base.context import StageContext
from cwdpo.base.errors import DataError
from cwdpo.base.runtime import Execution, Rank
from cwdpo.data import pairs
from cwdpo.data.pairs import PairsSpec
from cwdpo.data.records import Record, read_records
from cwdpo.data.sources import Karpathy, Preferences, data_digest

SPLITS = ["train"] * 40 + ["val"] * 3 + ["test"] * 6 + ["restval"] * 20


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A Karpathy file of 69 images with two captions each."""
    images = [
        {
            "filename": f"{n}.jpg",
            "split": split,
            "imgid": n,
            "sentences": [{"raw": f"Ball {n}."}, {"raw": f"Cube {n}."}],
        }
        for n, split in enumerate(SPLITS)
    ]
    (tmp_path / "dataset_coco.json").write_text(json.dumps({"images": images}))
    return tmp_path


def source(folder: Path, **more: Any) -> Karpathy:
    return Karpathy.model_validate({"source": "karpathy", "root": folder, **more})


def images_of(records: list[Record], split: str, portion: str) -> list[str]:
    return list(dict.fromkeys(r.image_id for r in records if (r.split, r.portion) == (split, portion)))


@pytest.mark.parametrize("captions", ["first", "all"])
def test_the_first_of_each_part_in_the_order_of_the_file(folder: Path, captions: str) -> None:
    every = source(folder, captions_per_image=captions).read(folder)
    cut = source(folder, captions_per_image=captions, limit=4).read(folder)
    for part in (("train", "stage1"), ("train", "stage2"), ("val", "none"), ("test", "none")):
        assert images_of(cut, *part) == images_of(every, *part)[:4]
    assert len(cut) == (4 + 4) * (2 if captions == "all" else 1) + 3 + 4
    assert set(cut) <= set(every), "records are as they are without a limit"


def test_preference_records_of_one_image_stay_together(tmp_path: Path) -> None:
    rows = [{"image": f"{n // 2}.jpg", "chosen": f"Ball {n}.", "split": "test"} for n in range(6)]
    (tmp_path / "preferences.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    cut = Preferences.model_validate({"source": "preferences", "root": tmp_path, "limit": 2}).read(tmp_path)
    assert [record.image for record in cut] == ["0.jpg", "0.jpg", "1.jpg", "1.jpg"]


def test_only_what_is_used_is_looked_at(folder: Path, tmp_path: Path) -> None:
    """Images beyond the limit do not even exist here."""
    for record in source(folder, limit=2).read(folder):
        Image.new("RGB", (8, 8)).save(folder / record.image)
    data_digest(source(folder, limit=2), tmp_path / "cache")
    with pytest.raises(DataError, match="No such file"):
        data_digest(source(folder, limit=3), tmp_path / "cache")
    for purpose, count in (("train", 8), ("evaluate", 4)):
        spec = PairsSpec.model_validate({"data": source(folder, limit=2), "purpose": purpose})
        out = tmp_path / purpose
        out.mkdir()
        inputs = {"data": folder}
        nothing = lambda *_, **__: None  # noqa: E731
        context = StageContext(spec, inputs, out, tmp_path, tmp_path, Rank(), Execution(), nothing, nothing)
        pairs.run(context)
        assert len({record.image for record in read_records(out / "records.jsonl")}) == count
        assert files.read_json(out / "summary.json")["limit"] == 2
