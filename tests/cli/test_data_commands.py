"""`cwdpo data check` and `cwdpo data show` on real data sets: what is counted, what is shown, what is refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from commands import MICRO, copy_home, cwdpo, forget, node_of, succeed
from test_cli import HEAVY, refused, without

from cwdpo.base import files
from cwdpo.data.demo_world import DemoWorld, write_world

GRID = """
description: data of one's own
base:
  data: {{source: karpathy, root: {root}, images: images, captions_per_image: all}}
  model: {{source: tiny, world: {{train: 60}}, pretraining: {{steps: 20}}}}
  benchmarks: [{{name: captions}}]
cases:
  base: {{}}
  cw_dpo:
    stage1: {{objective: {{name: sft_c}}, negatives: {{source: perturb, kinds: [size]}}}}
    stage2: {{objective: {{name: cw_dpo}}, negatives: {{source: perturb, count: 2}}}}
  corrected:
    stage2:
      objective: {{name: nsft}}
      negatives: {{source: corrective, of: {{source: perturb, count: 2}}}}
"""


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "world"
    write_world(DemoWorld(train=40, val=2, test=3), folder)
    return folder


@pytest.fixture
def data(world: Path, tmp_path: Path) -> Path:
    """A copy to break."""
    return shutil.copytree(world, tmp_path / "data")


@pytest.fixture
def grid(data: Path, tmp_path: Path) -> Path:
    path = tmp_path / "grid.yaml"
    path.write_text(GRID.format(root=data))
    return path


def report(grid: Path, tmp_path: Path, *arguments: object) -> dict[str, Any]:
    shown = succeed(cwdpo("data", "check", "-g", grid, "--home", tmp_path / "home", "--json", *arguments))
    (found,) = json.loads(shown)["data"]
    return found


def change(data: Path, change: Any) -> None:
    """Change the list of images of the annotation file."""
    path = data / "dataset_coco.json"
    content = files.read_json(path)
    change(content["images"])
    files.write_json(path, content)


def test_check_counts_what_training_reads(grid: Path, tmp_path: Path) -> None:
    found = report(grid, tmp_path)
    assert found["for"] == ["train", "evaluate"]
    assert found["images"] == 45
    parts = found["parts"]
    assert parts["val"] == {"records": 2, "images": 2}
    assert parts["test"] == {"records": 3, "images": 3}
    assert parts["stage1"]["images"] + parts["stage2"]["images"] == 40
    assert parts["stage1"]["records"] == 5 * parts["stage1"]["images"]
    assert found["missing"] == {"count": 0, "first": []}
    assert (found["in_several_parts"], found["rejected"], found["faults"]) == ({}, None, [])
    assert found["chosen"]["min"] >= 2
    stage1, *others = found["perturb"]
    assert (stage1["stage"], stage1["cases"], stage1["settings"]["kinds"]) == ("stage1", ["cw_dpo"], ["size"])
    assert [(item["stage"], item["cases"]) for item in others] == [("stage2", ["cw_dpo", "corrected"])]
    assert stage1["looked_at"] == parts["stage1"]["records"]
    assert 0 < stage1["editable"] < stage1["looked_at"]
    assert stage1["share"] == round(stage1["editable"] / stage1["looked_at"], 4)
    assert others[0]["share"] > 0.9


def test_check_in_words(grid: Path, data: Path, tmp_path: Path) -> None:
    shown = succeed(cwdpo("data", "check", "-g", grid, "--home", tmp_path / "home", **without(HEAVY)))
    first, *lines = shown.splitlines()
    assert first == f"karpathy {data}/dataset_coco.json (to train and evaluate)"
    assert "  test            3 records of 3 images" in lines
    assert "  image files     all 45 there" in lines
    assert lines[-2].endswith(" captions can be edited (stage1 of cw_dpo; kinds size)")
    assert lines[-1].endswith(" captions can be edited (stage2 of cw_dpo, corrected)")
    assert not (tmp_path / "home").exists(), "nothing is computed"


def test_check_names_images_that_are_missing_and_fails(grid: Path, data: Path, tmp_path: Path) -> None:
    for name in sorted((data / "images" / "train").iterdir())[:7]:
        name.unlink()
    done = cwdpo("data", "check", "-g", grid, "--home", tmp_path / "home")
    message = refused(done, 3)
    assert "7 of 45 images are missing, the first: images/train/demo_train_000000000001.jpg, images/train/" in message
    assert "  image files     7 of 45 missing" in done.stdout


def test_check_refuses_what_training_would_refuse(grid: Path, data: Path, tmp_path: Path) -> None:
    change(data, lambda images: images.append(images[0]))
    done = cwdpo("data", "check", "-g", grid, "--home", tmp_path / "home", "--json")
    assert "occurs twice; ids must be unique" in refused(done, 3)
    (found,) = json.loads(done.stdout)["data"]
    assert found["repeated"] == 5
    change(data, lambda images: images[0].pop("split"))
    assert "images[0]: key 'split' is missing" in refused(cwdpo("data", "check", "-g", grid), 3)


def test_check_warns_of_an_image_that_is_trained_on_and_tested_on(grid: Path, data: Path, tmp_path: Path) -> None:
    change(data, lambda images: images.append({**images[0], "split": "test", "cocoid": 999_999}))
    found = report(grid, tmp_path)
    ((parts, count),) = found["in_several_parts"].items()
    assert count == 1
    assert parts in ("stage1 and test", "stage2 and test")
    assert f"  warning         1 images are in {parts}" in succeed(cwdpo("data", "check", "-g", grid))


def test_check_counts_what_a_data_set_rejects_and_leaves_out(tmp_path: Path) -> None:
    turns = [{"from": "human", "value": "What?"}, {"from": "gpt", "value": "A cat."}]
    entries = [{"id": 0, "conversations": turns}]
    entries += [{"id": number, "image": f"{number}.jpg", "conversations": turns} for number in range(60)]
    files.write_json(tmp_path / "llava_instruct_150k.json", entries)
    rows = [{"image": f"{n}.jpg", "chosen": "A cat.", "rejected": ["A dog.", "Two cats."]} for n in range(60)]
    files.write_jsonl(tmp_path / "preferences.jsonl", rows)
    for number in range(60):
        (tmp_path / f"{number}.jpg").write_bytes(b"x")
    path = tmp_path / "grid.yaml"
    path.write_text(
        f"base: {{model: {{source: tiny}}, stage1: {{}}}}\n"
        f"cases: {{llava: {{data: {{source: llava, root: {tmp_path}}}}},"
        f" preferences: {{data: {{source: preferences, root: {tmp_path}}}}}}}\n"
    )
    llava, preferences = json.loads(succeed(cwdpo("data", "check", "-g", path, "--json")))["data"]
    assert llava["left_out"] == {"entries without an image": 1}
    assert llava["records"] == 60
    assert preferences["rejected"]["pairs"] == 120
    assert preferences["rejected"]["edit_distance"]["mean"] == 1.5  # cat. -> dog.; A cat. -> Two cats.
    shown = succeed(cwdpo("data", "check", "-g", path))
    assert "  left out        1 entries without an image" in shown
    assert "  rejected        120 in the data, 1.5 words from the chosen one" in shown


def test_check_of_a_world_that_is_not_made_yet(tmp_path: Path) -> None:
    shown = succeed(cwdpo("data", "check", "-g", MICRO, "--home", tmp_path))
    assert shown.splitlines() == ["demo_world (to train and evaluate)", "  made by the grid itself, and not made yet"]


def test_check_of_a_world_that_is_made(finished: Path) -> None:
    found = json.loads(succeed(cwdpo("data", "check", "-g", MICRO, "--home", finished, "--json")))["data"]
    assert [one["images"] for one in found] == [42]


# ---- show


def show(grid: Path, home: Path, *arguments: object, **more: str) -> str:
    """The page that was written, after checking that its file was named."""
    shown = succeed(cwdpo("data", "show", "-g", grid, "--home", home, *arguments, **more))
    path = Path(shown.removeprefix("written to ").rstrip("\n"))
    return path.read_text(encoding="utf-8")


def test_show_makes_pairs_that_need_no_model(grid: Path, tmp_path: Path) -> None:
    out = tmp_path / "page.html"
    page = show(grid, tmp_path / "home", "--out", out, "--count", 7, **without(HEAVY))
    assert out.exists()
    assert not (tmp_path / "home" / "store").exists(), "nothing is kept but the page"
    assert "<h1>Pairs of cw_dpo, stage2</h1>" in page
    assert page.count("<article") == page.count("data:image/jpeg;base64,") == 7
    assert "for this page, from the data" in page
    assert "<del>" in page
    assert "<dd>{&#34;source&#34;: &#34;perturb&#34;, &#34;count&#34;: 2, &#34;seed&#34;: 0}</dd>" in page


def test_show_takes_the_case_and_the_stage_that_are_asked_for(grid: Path, tmp_path: Path) -> None:
    page = show(grid, tmp_path / "home", "--case", "cw_dpo", "--stage", "stage1")
    assert "<h1>Pairs of cw_dpo, stage1</h1>" in page
    assert "perturb:size" in page
    assert "perturb:colour" not in page
    page = show(grid, tmp_path / "home", "--case", "corrected")
    assert "<dt>with dialogue</dt>" in page
    assert sorted(path.name for path in (tmp_path / "home" / "grids" / "grid").iterdir()) == [
        "pairs-corrected-stage2.html",
        "pairs-cw_dpo-stage1.html",
    ]


def test_show_reads_pairs_that_are_computed(finished: Path, tmp_path: Path) -> None:
    home = copy_home(finished, tmp_path / "home")
    node = node_of(home, "negatives", "cw_dpo/0")
    page = show(MICRO, home, "--case", "cw_dpo", "--stage", "stage2")
    assert f"<dd>negatives-{node.id[:16]}</dd>" in page
    assert page.count("data:image/jpeg;base64,") == page.count("<article") > 0
    forget(home, node)
    assert "for this page, from the data" in show(MICRO, home, "--case", "cw_dpo", "--stage", "stage2")


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (
            ["--case", "cw_dop"],
            2,
            "--case: unknown case 'cw_dop'; did you mean 'cw_dpo'? valid: base, corrected, cw_dpo",
        ),
        (["--case", "base"], 2, "case 'base' has no pairs; cases with pairs: cw_dpo, corrected"),
        (
            ["--case", "corrected", "--stage", "stage1"],
            2,
            "case 'corrected' has no pairs in stage1; cases with pairs: cw",
        ),
        (["--stage", "stage3"], 2, "'stage3' is not one of 'stage1', 'stage2'"),
        (["--count", "0"], 2, "Invalid value for '--count'"),
    ],
)
def test_show_says_what_there_is(arguments: list[str], status: int, message: str, grid: Path, tmp_path: Path) -> None:
    assert message in refused(cwdpo("data", "show", "-g", grid, "--home", tmp_path / "home", *arguments), status)


def test_show_says_what_has_to_run_first(grid: Path, tmp_path: Path) -> None:
    home = tmp_path / "home"
    message = refused(cwdpo("data", "show", "-g", MICRO, "--home", home, "-s", "seeds=[0]"), 4)
    assert "the pairs of case 'dpo' are not there yet (missing), and their data is made by a stage;" in message
    assert f"run: cwdpo submit --grid {MICRO} --set 'seeds=[0]'" in message
    path = tmp_path / "beam.yaml"
    path.write_text(grid.read_text().replace("{source: perturb, count: 2}", "{source: beam}", 1))
    message = refused(cwdpo("data", "show", "-g", path, "--home", home, "--case", "cw_dpo"), 4)
    assert "and they need answers; run: cwdpo submit --grid" in message


# ---- words


def test_what_dialogues_about_colours_stress(data: Path, tmp_path: Path) -> None:
    """Against dialogues about counts: words of colours, and the other way round words of numbers."""
    grid = tmp_path / "words.yaml"
    cases = "".join(
        f"  {kind}: {{stage1: {{objective: {{name: nsft}}, negatives:"
        f" {{source: corrective, of: {{source: perturb, kinds: [{kind}]}}}}}}}}\n"
        for kind in ("colour", "count")
    )
    grid.write_text(GRID.format(root=data).partition("cases:")[0] + "cases:\n" + cases)
    shown = succeed(cwdpo("data", "words", "colour", "count", "-g", grid, "--home", tmp_path / "home", "--count", 4))
    stressed, _, others = shown.partition("stressed by count")
    assert "stressed by colour" in stressed
    colours = {"red", "blue", "green", "orange", "purple", "yellow", "white", "black", "pink", "gray", "brown"}
    assert set(stressed.split()) & colours
    assert set(others.split()) & {"one", "two", "three", "four", "five"}
    assert "words that name a thing: " in others


def test_words_of_pairs_without_dialogues_are_refused(grid: Path, tmp_path: Path) -> None:
    shown = refused(cwdpo("data", "words", "cw_dpo", "corrected", "-g", grid, "--home", tmp_path / "home"), 2)
    assert "the pairs of case 'cw_dpo' come without dialogues; negatives that have them: corrective" in shown
