"""`cwdpo compare` on a computed micro grid, and on made-up answers to real questions that the real stages scored.

The judge is a stand-in: a small server of this process that answers as it is told.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pyarrow.parquet as pq
import pytest
from commands import MICRO, REPO, command, copy_home, cwdpo, environment, node_of, plan_of, succeed
from negatives.endpoints import Fault, Standin, serving
from PIL import Image
from pretend import pretend_done
from test_cli import HEAVY, without
from typer.testing import CliRunner

from cwdpo.base.context import StageContext
from cwdpo.base.errors import ConfigError, DataError, StoreError
from cwdpo.base.files import read_jsonl, write_json, write_jsonl
from cwdpo.base.runtime import Execution, Rank
from cwdpo.base.stopping import Stop
from cwdpo.base.store import Artefact, Store
from cwdpo.cli.compare import _difference, _value
from cwdpo.cli.main import app
from cwdpo.evaluate import questions, score
from cwdpo.evaluate.benchmarks.own import Own
from cwdpo.evaluate.prepared import prepare
from cwdpo.graph import Node
from cwdpo.jobs.plan import Plan
from cwdpo.report.compare import compare
from cwdpo.report.matched import Seeds, seeds_of

GRID = """
base:
  data: {source: demo_world}
  model: {source: tiny}
  benchmarks: [{name: own}]
cases:
  new: {}
  old: {model: {pretraining: {steps: 7}}}
  few: {benchmarks: [{name: own, limit: 2}], model: {pretraining: {steps: 8}}}
seeds: [0, 1]
"""

QUESTIONS: list[dict[str, Any]] = [
    {"id": "q1", "image": "a.png", "question": "What colour is it?", "answer": "red", "category": "colour"},
    {"id": "q2", "image": "a.png", "question": "Is it red?", "answers": ["yes", "yes, it is"], "category": "colour"},
    {"id": "q3", "image": "b.png", "question": "What shape is it?", "answer": "circle", "category": "shape"},
    {"id": "q4", "image": "b.png", "question": "Describe it.", "category": "shape"},
    {"id": "q5", "images": ["a.png", "b.png"], "turns": ["Compare <image 1> with <image 2>.", "Is the first red?"],
     "answer": "no", "category": "shape"},
]  # fmt: skip

ANSWERS: dict[str, dict[str, list[str]]] = {
    "new": {"q1": ["Red."], "q2": ["yes"], "q3": ["square"], "q4": ["A long\nstory."], "q5": ["Two.", "No."]},
    "old": {"q1": ["blue"], "q2": ["Yes"], "q3": ["Circle"], "q4": ["A story."], "q5": ["Two.", "yes, it is"]},
    "few": {"q1": ["red"], "q2": ["no"], "q3": ["square"], "q4": ["None."], "q5": ["One.", "no"]},
}


# ---- a store of made-up answers


def own_plan(home: Path, *overrides: str) -> Plan:
    return plan_of(home, *overrides, grid=home.parent / "two.yaml")


def fill(artefact: Artefact, folder: Path) -> None:
    """Put files in the place of those of an artefact that only pretends to be done."""
    path = artefact.folder / "DONE"
    done = json.loads(path.read_text())
    done["files"] = {}
    for file in (file for file in folder.iterdir() if file.is_file()):
        content = file.read_bytes()
        (artefact.files / file.name).write_bytes(content)
        done["files"][file.name] = {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    path.write_text(json.dumps(done))


def computed(plan: Plan, node: Node, module: ModuleType, folder: Path) -> None:
    """Run a stage of no model for real."""
    out = folder / node.id[:8]
    out.mkdir(parents=True)
    inputs = {
        role: one.artefact(plan.store).files if isinstance(one, Node) else one.path for role, one in node.inputs.items()
    }
    quiet = lambda *_, **__: None  # noqa: E731
    module.run(StageContext(node.spec, inputs, out, out, out, Rank(), Execution(), quiet, quiet))
    fill(node.artefact(plan.store), out)


def answered(plan: Plan, node: Node, texts: Mapping[str, list[str]], asked: Path, folder: Path) -> None:
    """Made-up answers in place of a model's."""
    out = folder / node.id[:8]
    items = node.spec.benchmark.items({"questions": asked})  # type: ignore[attr-defined]
    rows = []
    for item in items:
        first, *later = texts[item.id]
        row = {"id": item.id, "image": item.image, "text": " ".join(first.split()), "tokens": 1, "truncated": False}
        rows.append({**row, "raw": first, **({"later": later} if later else {})})
    write_jsonl(out / "generations.jsonl", rows)
    write_json(out / "settings.json", {"prompt": "{question}", "dtype": "float32"})
    fill(node.artefact(plan.store), out)


def prepare_questions(folder: Path) -> None:
    """In the home of this folder."""
    download = folder / "download"
    download.mkdir()
    for name, colour in (("a.png", (200, 0, 0)), ("b.png", (0, 0, 200))):
        Image.new("RGB", (8, 8), colour).save(download / name)
    write_jsonl(download / "questions.jsonl", QUESTIONS)
    prepare(Own(name="own"), download, folder / "home" / "benchmarks")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Home of a grid whose answers are made up and whose scores are not."""
    folder = tmp_path_factory.mktemp("compare")
    home = folder / "home"
    (folder / "two.yaml").write_text(GRID)
    prepare_questions(folder)
    plan = own_plan(home)
    pretend_done(plan, plan.nodes)
    for cell in plan.grid.cells[::2]:
        node = plan.wired[cell.name].scores["own"]
        generate, asked = node.inputs["generate"], node.inputs["questions"]
        assert isinstance(generate, Node)
        assert isinstance(asked, Node)
        if cell.case == "new":
            computed(plan, asked, questions, folder / "made")
        answered(plan, generate, ANSWERS[cell.case], asked.artefact(plan.store).files, folder / "made")
        computed(plan, node, score, folder / "made")
    return home


@pytest.fixture
def home(made: Path, tmp_path: Path) -> Path:
    """A copy to change or to write beside."""
    (tmp_path / "two.yaml").write_text(GRID)
    return copy_home(made, tmp_path / "home")


def arguments_of(home: Path, *arguments: object) -> list[str]:
    return list(map(str, ("compare", *arguments, "-g", home.parent / "two.yaml", "--home", home, "-b", "own")))


def here(*arguments: object) -> str:
    """What the command prints when it is run in this process, which is quicker; its errors are raised."""
    result = CliRunner().invoke(app, list(map(str, arguments)), catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


@pytest.fixture(autouse=True)
def _no_signals(monkeypatch: pytest.MonkeyPatch) -> None:
    """Commands that run in this process leave its signals alone."""
    monkeypatch.setattr(Stop, "install", lambda: None)


def own(home: Path, *arguments: object) -> str:
    return here(*arguments_of(home, *arguments))


def as_json(shown: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(shown)
    return found


def rows_of(home: Path, name: str, grid: str = "two") -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = pq.read_table(written(home, name, "parquet", grid)).to_pylist()
    return found


def written(home: Path, name: str, suffix: str = "json", grid: str = "two") -> Path:
    """The file of the comparison, also where a digest follows the name."""
    (found,) = (home / "grids" / grid / "compare").glob(f"{name}*.{suffix}")
    return found


# ---- by the values of the benchmark


def test_questions_by_hand(home: Path) -> None:
    shown = own(home, "new", "old")
    heading = "new against old on own: 4 pairs of answers to 4 items (seeds 0, 1; what they share counts once), by"
    assert f"{heading} per-item accuracy" in shown
    assert "win rate of new: 62.5% [21.9%, 90.8%], n = 4 (2 won, 1 tied, 1 lost)" in shown
    assert "over items of these checkpoints; it says nothing about the variance of training" in shown
    assert re.search(r"  colour: 75\.0% \[.*\], n = 2 \(1 won, 1 tied, 0 lost\)\n  shape: 50\.0% \[", shown)
    assert "accuracy x100, new - old: +25.0 [" in shown
    assert "left out: 1 pairs without a value of accuracy" in shown
    assert "\n  new (accuracy 100.0): 1. Two.\n    2. No.\n  old (accuracy 0.0): 1. Two.\n    2. yes, it is\n" in shown
    assert "judge" not in shown


def test_rows_and_json_hold_all_of_it(home: Path) -> None:
    found = as_json(own(home, "new", "old", "--json", "--show", 1))
    assert found == json.loads((home / "grids" / "two" / "compare" / "new-vs-old-own.json").read_text())
    assert {key: found[key] for key in ("by", "judge", "items", "pairs", "wins", "ties", "losses")} == {
        "by": "correct", "judge": None, "items": 4, "pairs": 4, "wins": 2, "ties": 1, "losses": 1,
    }  # fmt: skip
    assert (found["difference"]["difference"], found["difference"]["n"]) == (pytest.approx(25.0), 4)
    assert (found["position_bias"], found["judging"], len(found["differ_most"])) == (None, None, 1)
    rows = rows_of(home, "new-vs-old-own")
    assert [(row["id"], row["verdict"], row["value_a"], row["value_b"]) for row in rows] == [
        ("q1", "a", 1.0, 0.0), ("q2", "tie", 1.0, 1.0), ("q3", "b", 0.0, 1.0), ("q4", None, None, None),
        ("q5", "a", 1.0, 0.0),
    ]  # fmt: skip
    assert rows[3]["answer_a"] == "A long\nstory."
    assert {row["seed"] for row in rows} == {0}


def test_one_result_for_all_seeds_counts_once(home: Path) -> None:
    """Both seeds of both cases share their answers here."""
    found = as_json(own(home, "new", "old", "--json"))
    assert [(one["a"], one["b"]) for one in found["cells"]] == [("new/0", "old/0")]
    assert "several seeds" not in found["interval"]
    assert (found["seeds"], found["left_out"]) == (
        {"a": [0, 1], "b": [0, 1]}, {"pairs without a value of accuracy": 1},
    )  # fmt: skip
    other = as_json(own(home, "new/1", "old", "--json"))
    assert [(one["a"], one["b"], other["pairs"]) for one in other["cells"]] == [("new/1", "old/1", 4)]


def test_seeds_that_only_one_side_has_are_said(home: Path) -> None:
    found = as_json(own(home, "new/1", "old", "--json"))
    assert found["seeds"] == {"a": [1], "b": [1]}
    assert found["left_out"] == {"seeds that only old has (0)": 1, "pairs without a value of accuracy": 1}
    shown = own(home, "old", "new/1")
    assert "old against new/1 on own: 4 pairs of answers to 4 items (seed 1), by" in shown
    assert "\nleft out: 1 seeds that only old has (0)\n" in shown


def test_two_cells_are_compared_whatever_their_seeds(home: Path) -> None:
    shown = own(home, "new/1", "old/0")
    assert "4 pairs of answers to 4 items (seed 1 against seed 0), by" in shown
    assert "that only" not in shown


def test_seeds_of_included_grids_that_differ_are_said(tmp_path: Path) -> None:
    for name, seeds in (("more", [0, 1, 2, 3]), ("less", [0, 2])):
        (tmp_path / f"{name}.yaml").write_text(GRID.replace("[0, 1]", str(seeds)))
    grid = tmp_path / "both.yaml"
    grid.write_text(f"include: [{tmp_path}/more.yaml, {tmp_path}/less.yaml]\n")
    prepare_questions(tmp_path)
    plan = plan_of(tmp_path / "home", grid=grid)
    assert seeds_of(plan, ("more:new", "less:old")) == Seeds(([0, 2], [0, 2]), ([1, 3], []))
    assert seeds_of(plan, ("less:new", "more:old/2")) == Seeds(([2], [2]), ([0], []))


def test_the_other_way_round_wins_become_losses(home: Path) -> None:
    found = as_json(own(home, "old", "new", "--json"))
    assert (found["wins"], found["ties"], found["losses"]) == (1, 1, 2)
    assert found["difference"]["difference"] == pytest.approx(-25.0)


def test_items_of_one_side_only_are_counted(home: Path) -> None:
    shown = own(home, "few", "new")
    assert "few against new on own (PARTIAL): 2 pairs of answers to 2 items" in shown
    assert "left out: 3 answers to items that the other one was not asked" in shown


def test_what_rounds_to_zero_has_no_sign() -> None:
    """As in tables."""
    found = {
        "a": "A", "b": "B",
        "difference": {"title": "CIDEr", "judge": None, "scale": 100, "digits": 1, "n": 4,
                       "difference": -0.01, "low": -0.04, "high": 3.0},
    }  # fmt: skip
    assert next(_difference(found)) == "CIDEr x100, A - B: 0.0 [0.0, +3.0]"
    assert _value(found, -0.0004) == " (CIDEr 0.0)"
    assert _value(found, -0.04) == " (CIDEr -4.0)"


@pytest.fixture(scope="module")
def captioned(finished: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the computed micro grid to write beside."""
    return copy_home(finished, tmp_path_factory.mktemp("captions") / "home")


def test_captions_against_an_independent_count(captioned: Path) -> None:
    home = captioned
    found = as_json(here("compare", "dpo", "sft", "-g", MICRO, "--home", home, "-b", "captions", "--json"))
    gaps: dict[str, list[float]] = {}
    for seed in (0, 1):
        values = []
        for case in ("dpo", "sft"):
            folder = node_of(home, "score", f"{case}/{seed}").artefact(Store(home)).files
            values.append({row["id"]: row["cider"] for row in pq.read_table(folder / "items.parquet").to_pylist()})
        for name in values[0]:
            gaps.setdefault(name, []).append(values[0][name] - values[1][name])
    flat = [gap for own in gaps.values() for gap in own]
    wins, losses = sum(gap > 1e-9 for gap in flat), sum(gap < -1e-9 for gap in flat)
    assert (found["wins"], found["ties"], found["losses"]) == (wins, 16 - wins - losses, losses)
    assert (found["pairs"], found["items"], found["win_rate"]["n"]) == (16, 8, 16)
    assert found["win_rate"]["share"] == pytest.approx((wins + (16 - wins - losses) / 2) / 16)
    assert min(wins, losses) > 0
    assert found["difference"]["difference"] == pytest.approx(100 * math.fsum(flat) / 16)
    assert found["difference"]["n"] == 8
    assert "independent" in found["interval"]  # two seeds answer the same items
    folder = node_of(home, "generate", "dpo/1").artefact(Store(home)).files
    texts = {row["id"]: row["text"] for row in read_jsonl(folder / "generations.jsonl")}
    rows = [row for row in rows_of(home, "dpo-vs-sft-captions", "micro") if row["seed"] == 1]
    assert {row["id"]: row["answer_a"] for row in rows} == texts


def test_a_deterministic_base_is_compared_with_every_seed(captioned: Path) -> None:
    found = compare(plan_of(captioned), ("sft", "base"), "captions")
    assert [(cell["a"], cell["b"]) for cell in found.matched.cells] == [("sft/0", "base/0"), ("sft/1", "base/1")]
    assert len({cell["score_b"] for cell in found.matched.cells}) == 1
    assert [len(found.verdicts), len({pair.id for pair in found.matched.pairs})] == [16, 8]


# ---- by a judge


@pytest.fixture
def standin() -> Iterator[Standin]:
    with serving(Standin(lambda body: "tie")) as server:
        yield server


def parts(body: Mapping[str, Any]) -> tuple[str, str, str]:
    """Request, first and second answer of what a judge is asked."""
    content = body["messages"][0]["content"]
    text = content if isinstance(content, str) else content[-1]["text"]
    request, rest = text.partition("Request:\n")[2].split("\n\nReferences", 1)
    first, second = rest.partition("Answer 1:\n")[2].split("\n\nReply with")[0].split("\n\nAnswer 2:\n")
    return request, first, second


def longer(body: Mapping[str, Any]) -> str:
    """A judge who likes long answers."""
    _, first, second = parts(body)
    return "tie" if len(first) == len(second) else "1" if len(first) > len(second) else "2"


def asking(standin: Standin) -> list[str]:
    return ["--judge", "--set", f"judge={{model: judge-1, base_url: '{standin.url}', concurrency: 1, max_tokens: 8}}"]


def judged(home: Path, standin: Standin, a: str, b: str, *arguments: object) -> str:
    return own(home, a, b, *asking(standin), *arguments)


@dataclass
class Run:
    """What a judge who likes long answers was asked, and what came of it."""

    home: Path
    asked: list[Mapping[str, Any]]
    shown: str


@pytest.fixture(scope="module")
def by_length(made: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("by-length")
    (folder / "two.yaml").write_text(GRID)
    home = copy_home(made, folder / "home")
    with pytest.MonkeyPatch.context() as patch, serving(Standin(longer)) as server:
        patch.setattr(Stop, "install", lambda: None)
        return Run(home, server.asked, judged(home, server, "new", "old"))


def test_a_judge_decides_in_both_orders(by_length: Run) -> None:
    found = json.loads(written(by_length.home, "new-vs-old-own-judge").read_text())
    rows = {row["id"]: row for row in rows_of(by_length.home, "new-vs-old-own-judge")}
    # by length: Red./blue, yes/Yes, square/Circle are as long; only q4 and q5 differ
    said = {name: (row["verdict"], row["said_a_first"], row["said_b_first"]) for name, row in rows.items()}
    assert said == {
        "q1": ("tie", "tie", "tie"), "q2": ("tie", "tie", "tie"), "q3": ("tie", "tie", "tie"),
        "q4": ("a", "1", "2"), "q5": ("b", "2", "1"),
    }  # fmt: skip
    assert (found["by"], found["judge"], found["pairs"]) == ("judge", "judge-1", 5)  # q4 needs no value
    assert (found["wins"], found["ties"], found["losses"]) == (1, 3, 1)
    assert found["position_bias"] == {"first": 0.5, "decided": 4, "disagree": 0.0, "pairs": 5}
    assert (found["difference"]["difference"], found["difference"]["judge"]) == (pytest.approx(25.0), None)
    assert (found["judging"]["judge"], found["judging"]["asked"], found["judging"]["images"]) == ("judge-1", 10, False)


def test_the_judge_is_told_the_request_and_the_truth_and_no_image(by_length: Run) -> None:
    by_request = {parts(body)[0]: body["messages"][0]["content"] for body in by_length.asked}
    assert set(by_request) == {
        "What colour is it?", "Is it red?", "What shape is it?", "Describe it.",
        "1. Compare [image 1] with [image 2].\n2. Is the first red?",
    }  # fmt: skip
    assert "may not say everything:\n- yes\n- yes, it is\n\n" in by_request["Is it red?"]
    assert "may not say everything:\nnone\n\n" in by_request["Describe it."]
    assert all(isinstance(text, str) for text in by_request.values())
    assert parts(by_length.asked[6])[1:] == ("A long\nstory.", "A story.")  # with its lines
    assert len(by_length.asked) == 10


def test_references_of_captions_are_all_shown(captioned: Path, standin: Standin) -> None:
    home = captioned
    shown = here("compare", "dpo", "sft", "-g", MICRO, "--home", home, "-b", "captions", *asking(standin))
    assert "16 pairs of answers to 8 items (seeds 0, 1), by judge judge-1, each pair in both orders" in shown
    folder = node_of(home, "pairs", "dpo/0").artefact(Store(home)).files  # those of evaluation come last
    records = [row for row in read_jsonl(folder / "records.jsonl") if row["split"] == "test"]
    assert len(records[0]["references"]) > 1
    references = "".join(f"- {text}\n" for text in records[0]["references"])
    assert any(references in body["messages"][0]["content"] for body in standin.asked)
    assert all(parts(body)[0] == "Describe the image briefly." for body in standin.asked)
    assert standin.asked


def test_a_judge_who_always_likes_the_first_one_decides_nothing(home: Path, standin: Standin) -> None:
    standin.answer = lambda body: "1"
    shown = judged(home, standin, "new", "old")
    assert "win rate of new: 50.0% [" in shown
    assert "n = 5 (0 won, 5 tied, 0 lost), judge judge-1" in shown
    assert "position bias: 100.0% of 10 replies that choose take the first answer" in shown
    assert "100.0% of 5 pairs come out otherwise in the other order" in shown


def test_the_judge_is_named_wherever_a_number_is_of_it(by_length: Run) -> None:
    lines = by_length.shown.splitlines()
    numbers = [line for line in lines if " won, " in line or "wins" in line or "pairs of answers" in line]
    assert len(numbers) >= 6
    assert all("judge judge-1" in line for line in numbers)


def test_replies_that_cannot_be_used_leave_their_pair_out(home: Path, standin: Standin) -> None:
    standin.answer = lambda body: "I like both" if "Describe" in parts(body)[0] else longer(body)
    shown = judged(home, standin, "new", "old")
    assert "n = 4 (0 won, 3 tied, 1 lost), judge judge-1" in shown
    assert "left out: 1 pairs with a judge's reply that could not be used" in shown
    assert "replies that could not be used: 2 (it is not 1, 2 or tie)\n    q4: 'I like both'\n" in shown
    (row,) = (row for row in rows_of(home, "new-vs-old-own-judge") if row["id"] == "q4")
    assert (row["verdict"], row["said_a_first"], row["said_b_first"]) == (None, None, None)


def test_a_judge_of_no_use_writes_nothing(home: Path, standin: Standin) -> None:
    standin.answer = lambda body: "I like both"
    with pytest.raises(DataError, match="nothing could be used of what the endpoint said"):
        judged(home, standin, "new", "old")
    assert not (home / "grids").exists()


def test_images_are_sent_to_a_judge_that_sees(home: Path, standin: Standin) -> None:
    shown = judged(home, standin, "new", "old", "--images")
    assert "it was sent the images" in shown
    kinds = {parts(body)[0][:4]: [one["type"] for one in body["messages"][0]["content"]] for body in standin.asked}
    assert kinds["What"] == ["image_url", "text"]
    assert kinds["1. C"] == ["image_url", "image_url", "text"]
    url = standin.asked[0]["messages"][0]["content"][0]["image_url"]["url"]
    assert url.startswith("data:image/png;base64,iVBOR")


# ---- killed and gone on with


def wait(until: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not until():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.parametrize(
    ("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 75), (signal.SIGKILL, -signal.SIGKILL)]
)
def test_stopped_anywhere_it_goes_on_without_asking_again(
    home: Path, standin: Standin, number: int, status: int
) -> None:
    standin.answer = longer
    standin.always = lambda body: Fault(slow=0.15)
    line = command(*arguments_of(home, "new", "old", *asking(standin)))
    process = subprocess.Popen(line, env=environment(), cwd=REPO, stderr=subprocess.PIPE, text=True)
    wait(lambda: len(standin.asked) >= 4)
    process.send_signal(number)
    _, said = process.communicate(timeout=900)
    assert process.returncode == status, said
    assert "Traceback" not in said
    assert not (home / "grids").exists()
    assert len(standin.asked) < 10

    found = as_json(judged(home, standin, "new", "old", "--json"))
    assert found["judging"]["cached"] >= 3
    assert len(standin.asked) <= 10 + (number != signal.SIGTERM)  # the call that was under way
    asked = len(standin.asked)
    again = as_json(judged(home, standin, "new", "old", "--json"))
    assert (len(standin.asked), again["judging"]["asked"], again["judging"]["cached"]) == (asked, 0, 10)
    assert {key: again[key] for key in ("wins", "ties", "losses")} == {"wins": 1, "ties": 3, "losses": 1}


# ---- what cannot be compared


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("nwe", "old"), "unknown cell or case 'nwe'; did you mean 'new'? valid: few, few/0"),
        (("new/2", "old"), "unknown cell or case 'new/2'"),
        (("new/0", "new/1"), "new/0 and new/1 are one and the same result on own"),
        (("new", "old", "--judge"), "--judge: nobody is named who judges; write `judge: {model: ...}`"),
        (("new", "old", "--images"), "--images: they are for --judge"),
    ],
)
def test_wrong_wishes_are_refused(home: Path, arguments: tuple[str, ...], message: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)):
        own(home, *arguments)
    assert not (home / "grids").exists()


def test_unknown_benchmarks_are_refused(home: Path) -> None:
    with pytest.raises(ConfigError, match="new/0 has no benchmark 'owm'; did you mean 'own'"):
        here(*arguments_of(home, "new", "old")[:-1], "owm")


def test_the_one_benchmark_that_both_have_need_not_be_named(home: Path, tmp_path: Path) -> None:
    whole = arguments_of(home, "new", "old")
    assert here(*whole[:-2]) == here(*whole)
    grid = tmp_path / "two.yaml"
    grid.write_text("""
base: {data: {source: demo_world}, model: {source: tiny}}
cases:
  a: {benchmarks: [{name: captions}, {name: own}]}
  b: {benchmarks: [{name: captions}, {name: own}], model: {pretraining: {steps: 8}}}
  c: {benchmarks: []}
  d: {benchmarks: [{name: captions}]}
""")
    for names, said in {
        ("a", "b"): "--benchmark: a and b have several; say which: captions, own",
        ("a", "c"): "a and c have no benchmark in common",
        ("a", "d"): "a and d are one and the same result on captions",
    }.items():
        with pytest.raises(ConfigError, match=re.escape(said)):
            here("compare", *names, "-g", grid, "--home", home)


def test_nothing_is_made_in_an_empty_home(tmp_path: Path) -> None:
    home = tmp_path / "home"
    with pytest.raises(StoreError, match="dpo/0: its generate captions is missing, not done; run: cwdpo submit --grid"):
        here("compare", "dpo/0", "sft/0", "-g", MICRO, "--home", home, "-b", "captions")
    assert not home.exists()


def test_what_is_missing_says_what_makes_it(home: Path) -> None:
    plan = own_plan(home)
    node = plan.wired["old/0"].scores["own"]
    (node.artefact(plan.store).folder / "DONE").unlink()
    with pytest.raises(
        StoreError, match=r"old/0: its score own is .*, not done; run: cwdpo score old/0 --grid .*two\.yaml"
    ):
        compare(plan, ("new", "old"), "own")
    generate = node.inputs["generate"]
    assert isinstance(generate, Node)
    (generate.artefact(plan.store).folder / "DONE").unlink()
    with pytest.raises(StoreError, match=r"old/0: its generate own is .*, not done; run: cwdpo submit --grid"):
        compare(plan, ("new", "old"), "own")


@pytest.mark.parametrize("name", ["generations.jsonl", "items.parquet", "questions.jsonl"])
def test_damaged_files_are_not_read(home: Path, name: str) -> None:
    plan = own_plan(home)
    node = plan.wired["new/0"].scores["own"]
    made = {"generations.jsonl": node.inputs["generate"], "questions.jsonl": node.inputs["questions"]}.get(name, node)
    assert isinstance(made, Node)
    path = made.artefact(plan.store).files / name
    content = path.read_bytes()
    path.write_bytes(content[:-2] + b"x\n")  # as long as before
    with pytest.raises(StoreError, match=rf"new/0: .*{re.escape(name)} is missing or changed .*; run: cwdpo submit"):
        compare(plan, ("new", "old"), "own")


def test_answers_that_were_made_anew_since_are_not_compared_by_old_values(home: Path) -> None:
    plan = own_plan(home)
    node = plan.wired["old/0"].scores["own"]
    path = node.artefact(plan.store).folder / "DONE"
    done = json.loads(path.read_text())
    done["provenance"]["parents"]["generate"] = "0" * 64
    path.write_text(json.dumps(done))
    message = r"old/0: generate was computed anew since it was scored; run: cwdpo score old/0 --force"
    with pytest.raises(StoreError, match=message):
        compare(plan, ("new", "old"), "own")


def test_results_of_other_code_and_other_settings_are_noted(home: Path, tmp_path: Path) -> None:
    plan = own_plan(home)
    artefact = plan.wired["old/0"].scores["own"].artefact(plan.store)
    summary = json.loads((artefact.files / "scores.json").read_text())
    summary["harness"]["dtype"] = "bfloat16"
    write_json(tmp_path / "new" / "scores.json", summary)
    (tmp_path / "new" / "items.parquet").write_bytes((artefact.files / "items.parquet").read_bytes())
    fill(artefact, tmp_path / "new")
    done = json.loads((artefact.folder / "DONE").read_text())
    done["provenance"]["sources"] = dict.fromkeys(done["provenance"]["sources"], "0" * 64)
    (artefact.folder / "DONE").write_text(json.dumps(done))
    assert compare(plan, ("new", "old"), "own").matched.notes == (
        "computed by other code than this: old/0 (score)",
        "the answers were not made and scored in the same way (dtype)",
    )


def test_nothing_to_compare_says_why(home: Path) -> None:
    """A benchmark without values, such as one whose judge was never asked."""
    plan = own_plan(home)
    for case in ("new", "old"):
        artefact = plan.wired[f"{case}/0"].scores["own"].artefact(plan.store)
        table = pq.read_table(artefact.files / "items.parquet").drop_columns(["correct"])
        folder = home.parent / case
        folder.mkdir()
        pq.write_table(table, folder / "items.parquet")
        summary = json.loads((artefact.files / "scores.json").read_text())
        write_json(folder / "scores.json", {**summary, "unavailable": {"accuracy": "not available: made up"}})
        fill(artefact, folder)
    with pytest.raises(DataError, match="5 pairs without a value of accuracy; not available: made up"):
        compare(plan, ("new", "old"), "own")


def test_several_judges_are_refused(home: Path) -> None:
    text = GRID.replace("new: {}", "new: {judge: {model: a}}").replace("old: {", "old: {judge: {model: b}, ")
    (home.parent / "two.yaml").write_text(text)
    with pytest.raises(ConfigError, match=r"--judge: the cells have several judges \(a, b\)"):
        own(home, "new", "old", "--judge")


def test_different_data_is_refused(tmp_path: Path) -> None:
    grid = tmp_path / "grid.yaml"
    other = "benchmarks: [{name: captions, data: {source: demo_world, world: {seed: 5}}}]"
    base = "{data: {source: demo_world}, model: {source: tiny}, benchmarks: [{name: captions}]}"
    grid.write_text(f"base: {base}\ncases: {{one: {{}}, two: {{{other}}}}}\n")
    with pytest.raises(ConfigError, match="one/0 and two/0 were asked about different data on captions"):
        compare(plan_of(tmp_path / "home", grid=grid), ("one", "two"), "captions")


def test_an_awkward_name_is_no_path(home: Path) -> None:
    found = compare(own_plan(home), ("new", "old"), "own")
    path = replace(found, names=("a b/../c=1e-6", "old/0")).write(home / "compare", found.as_json(0))
    assert path.parent == home / "compare"
    assert re.fullmatch(r"a_b_\.\._c=1e-6-vs-old_0-own-[0-9a-f]{8}\.json", path.name)
    assert sorted(one.name for one in path.parent.iterdir()) == [path.name, path.name.replace(".json", ".parquet")]


def test_different_comparisons_have_files_of_their_own(home: Path) -> None:
    """Names that are alike once they are cleaned or joined, and the same names with other settings."""
    found = compare(own_plan(home), ("new", "old"), "own")
    names = [
        ("a/0", "b"), ("a_0", "b"), ("g:a", "b"), ("g_a", "b"), ("a-vs-b", "c"), ("a", "b-vs-c"), ("a-vs", "b"),
        ("a", "vs-b"), ("a", "b"), ("b", "a"),
    ]  # fmt: skip
    changed = (f"{found.options}{more}" for more in ("", " --set limit=2", " --set limit=2 --set seeds=[0]"))
    made = [replace(found, names=both) for both in names] + [replace(found, options=options) for options in changed]
    paths = [one.write(home / "compare", one.as_json(0)) for one in made]
    assert len(set(paths)) == len(made)
    assert [path.stem for path in paths if path.stem.endswith("own")] == [
        "a_0-vs-b-own", "g_a-vs-b-own", "a-vs-b-own", "b-vs-a-own", "new-vs-old-own",
    ]  # fmt: skip
    assert [one.write(home / "compare", one.as_json(0)) for one in made] == paths, "asked again, the same"


def test_a_judge_that_sees_has_files_of_its_own(home: Path, standin: Standin) -> None:
    judged(home, standin, "new", "old")
    judged(home, standin, "new", "old", "--images")
    stems = [path.stem for path in (home / "grids" / "two" / "compare").glob("*.json")]
    assert sorted(re.sub("-[0-9a-f]{8}$", "", stem) for stem in stems) == [
        "new-vs-old-own-judge", "new-vs-old-own-judge-images",
    ]  # fmt: skip


def test_what_is_missing_says_it_for_a_name_like_an_option(tmp_path: Path) -> None:
    (tmp_path / "two.yaml").write_text(GRID.replace("old: {", "-old: {"))
    prepare_questions(tmp_path)
    plan = own_plan(tmp_path / "home")
    pretend_done(plan, [node for node in plan.nodes if node is not plan.wired["-old/0"].scores["own"]])
    with pytest.raises(StoreError, match=r"run: cwdpo score --grid \S+two\.yaml -- -old/0$"):
        compare(plan, ("-old", "new"), "own")


# ---- on a login node


def test_it_needs_no_torch(home: Path, standin: Standin) -> None:
    """With a judge it does all that it does without one, and more."""
    shown = succeed(cwdpo(*arguments_of(home, "new", "old", *asking(standin)), **without(HEAVY)))
    assert "win rate of new: 50.0% [" in shown
    assert "accuracy x100, new - old: +25.0 [" in shown
    assert len(standin.asked) == 10
