"""What the score stage writes beside the values: what was counted, and what made the numbers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from cwdpo.base import files
from cwdpo.base.context import StageContext
from cwdpo.base.runtime import Execution, Rank
from cwdpo.evaluate import score
from cwdpo.evaluate.benchmarks.mm_vet import MmVet
from cwdpo.evaluate.benchmarks.own import Own
from cwdpo.evaluate.question import Question


def scored(folder: Path, benchmark: Own | MmVet, questions: list[Question], rows: list[dict[str, Any]]) -> Any:
    """scores.json of some answers."""
    files.write_jsonl(folder / "questions" / "questions.jsonl", (one.row() for one in questions))
    files.write_json(folder / "questions" / "summary.json", {"unlike_published": []})
    files.write_jsonl(folder / "generate" / "generations.jsonl", rows)
    files.write_json(folder / "generate" / "settings.json", {"dtype": "float32"})
    roles = [role for role in ("questions", "generate", "judge") if (folder / role).exists()]
    nothing: Any = lambda *_, **__: None  # noqa: E731
    out = folder / "out"
    inputs = {role: folder / role for role in roles}
    spec = score.ScoreSpec(benchmark=benchmark)
    score.run(StageContext(spec, inputs, out, out, out, Rank(), Execution(), nothing, nothing))
    return files.read_json(out / "scores.json")


def test_empty_answers_and_items_that_did_not_fit_are_counted_apart(tmp_path: Path) -> None:
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
        "items that did not fit into the model's context": 2,
        "empty answers": 1,
    }
    assert found["metrics"] == {"accuracy": pytest.approx(0.2)}


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
