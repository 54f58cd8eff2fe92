"""What the score stage writes beside the values: what was counted, and what made the numbers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from cwdpo.base import files
from cwdpo.base.context import StageContext
from cwdpo.base.runtime import Execution, Rank
from cwdpo.evaluate import score
from cwdpo.evaluate.benchmarks.benchmark import Questions
from cwdpo.evaluate.benchmarks.captions import Captions
from cwdpo.evaluate.benchmarks.mm_vet import MmVet
from cwdpo.evaluate.benchmarks.mmbench import Mmbench
from cwdpo.evaluate.benchmarks.own import Own
from cwdpo.evaluate.benchmarks.pope import Pope
from cwdpo.evaluate.items import read_items
from cwdpo.evaluate.question import Question, Scores


def scored(
    folder: Path,
    benchmark: Questions,
    questions: list[Question],
    rows: list[dict[str, Any]],
    unlike: Sequence[str] = (),
) -> Any:
    """scores.json of some answers.

    Args:
        unlike: what preparing the files found unlike those that were published.
    """
    files.write_jsonl(folder / "questions" / "questions.jsonl", (one.row() for one in questions))
    files.write_json(folder / "questions" / "summary.json", {"unlike_published": list(unlike)})
    files.write_jsonl(folder / "generate" / "generations.jsonl", rows)
    files.write_json(folder / "generate" / "settings.json", {"dtype": "float32"})
    roles = [role for role in ("questions", "generate", "judge") if (folder / role).exists()]
    nothing: Any = lambda *_, **__: None  # noqa: E731
    out = folder / "out"
    inputs = {role: folder / role for role in roles}
    spec = score.ScoreSpec(benchmark=benchmark)
    score.run(StageContext(spec, inputs, out, out, out, Rank(), Execution(), nothing, nothing))
    return files.read_json(out / "scores.json")


def test_items_that_did_not_fit_are_left_out_and_make_the_score_partial(tmp_path: Path) -> None:
    turns = {"turns": ["What?", "Why?"]}
    questions = [Question(name, (), turns, {"answers": ["x"]}) for name in ("whole", "cut", "late", "lost", "silent")]
    rows = [
        {"id": "whole", "text": "x", "later": ["x"], "truncated": False},
        {"id": "cut", "text": "y", "later": ["y"], "truncated": True},
        {"id": "late", "text": "z", "later": [""], "truncated": False, "fault": "turn 2: no room"},
        {"id": "lost", "text": "", "later": [""], "truncated": False, "fault": "no room"},
        {"id": "silent", "text": "", "later": [""], "truncated": False},
    ]
    found = scored(tmp_path, Own(name="own"), questions, rows)
    assert found["counts"] == {
        "answers cut at max_new_tokens": 1,
        "items that did not fit into the model's context, and are left out": 2,
        "empty answers": 1,
    }
    assert found["metrics"] == {"accuracy": pytest.approx(1 / 3)}
    assert (found["items"], found["partial"]) == (3, True)
    assert list(read_items(tmp_path / "out")) == ["whole", "cut", "silent"]


def test_an_empty_text_that_was_not_asked_for_is_no_right_answer(tmp_path: Path) -> None:
    """Official rules take it for one: of POPE what does not say no is yes, and no object is hallucinated in nothing."""
    questions = [Question(str(n), ("a.jpg",), {"question": "?"}, {"label": "yes"}, "random") for n in range(3)]
    rows = [{"id": str(n), "text": "", "truncated": False, "fault": "no room"} for n in range(3)]
    found = scored(tmp_path / "all", Pope(name="pope"), questions, rows)
    assert set(found["metrics"].values()) == {None}
    assert set(found["unavailable"].values()) == {"not available: none of 3 items could be asked"}
    assert (found["items"], found["partial"]) == (0, True)
    rows[0] = {"id": "0", "text": "No", "truncated": False}
    scored(tmp_path / "one", Pope(name="pope"), questions, rows)
    assert {name: item["correct"] for name, item in read_items(tmp_path / "one" / "out").items()} == {"0": 0.0}


def test_what_is_scored_together_is_left_out_together(tmp_path: Path) -> None:
    asked, truth = {"question": "?", "hint": "", "options": {"A": "x", "B": "y"}}, {"answer": "A", "category": "d"}
    questions = [Question(name, ("a.jpg",), asked, truth, "c") for name in ("1", "1000001", "2")]
    rows = [{"id": name, "text": "A", "truncated": False} for name in ("1", "1000001", "2")]
    rows[1] |= {"text": "", "fault": "no room"}
    benchmark = Mmbench(name="mmbench")
    assert len({benchmark.group(question) for question in questions}) == 2
    found = scored(tmp_path, benchmark, questions, rows)
    assert (found["items"], list(read_items(tmp_path / "out"))) == (1, ["2"])
    assert found["counts"] == {
        "items that did not fit into the model's context, and are left out": 1,
        "items left out because those they are scored with did not fit": 1,
    }


def test_images_that_were_not_described_are_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    about = {"prompt": "?", "chosen": "a", "references": ["a"], "rejected": [], "split": "test", "portion": "none"}
    records = [{"id": name, "image_id": name, "image": f"{name}.jpg", **about} for name in ("1", "2")]
    files.write_jsonl(tmp_path / "pairs" / "records.jsonl", records)
    seen: list[Any] = []

    def score(_: Captions, texts: Any, records: Any) -> Scores:
        seen.append((dict(texts), [record.image_id for record in records]))
        return Scores({}, {})

    monkeypatch.setattr(Captions, "score", score)
    rows = {"1": {"text": "", "fault": "no room"}, "2": {"text": "a dog"}}
    assert Captions(name="captions").scored({"pairs": tmp_path / "pairs"}, rows).left_out == 1
    assert seen == [({"2": "a dog"}, ["2"])]
    none = Captions(name="captions").scored({"pairs": tmp_path / "pairs"}, {"1": rows["1"]})
    assert set(none.unavailable.values()) == {"not available: none of 1 items could be asked"}
    assert len(seen) == 1


def test_a_limit_does_not_hide_that_the_files_are_others_than_published(tmp_path: Path) -> None:
    questions = [Question("1", ("a.jpg",), {"question": "?"}, {"label": "yes"}, "random")]
    rows = [{"id": "1", "text": "yes", "truncated": False}]
    found = scored(tmp_path, Pope(name="pope", limit=9), questions, rows, ["random: 1 items, published are 3,000"])
    assert (found["partial"], found["notes"]) == (True, ["not as published: random: 1 items, published are 3,000"])


def test_where_a_judge_lay_is_no_part_of_what_made_the_scores(tmp_path: Path) -> None:
    question = Question("1", (), {"question": "?"}, {"answer": "x", "capabilities": ["rec"]})
    rows = [{"id": "1", "text": "x", "truncated": False}]
    marks = []
    for place, (address, model) in enumerate([("http://a/v1", "m"), ("http://b/v1", "m"), ("http://a/v1", "n")]):
        folder = tmp_path / str(place)
        files.write_jsonl(folder / "judge" / "judgements.jsonl", [{"id": "1", "judgements": [0.5], "said": []}])
        endpoint = {"model": model, "base_url": address}
        files.write_json(
            folder / "judge" / "settings.json", {"judge": model, "endpoint": endpoint, "prompt": "an own text"}
        )
        found = scored(folder, MmVet(name="mm_vet"), [question], rows)
        assert found["metrics"]["score"] == 0.5
        marks.append((found["fingerprint"], found["harness"]["judge"]))
    assert marks[0] == marks[1] != marks[2]
