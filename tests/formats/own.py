"""Questions of one's own: answered and not, of one turn and two, with several images and none."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from formats.pictures import picture

from cwdpo.data.demo_benchmarks import own as made

ROWS: list[dict[str, Any]] = [
    {"id": "a", "image": "red.png", "question": "Which colour?", "answer": "Red", "category": "colour"},
    {"question_id": 2, "images": ["red.png", "blue.png"], "turns": ["Is <image 2> like <image 1>?", "Why?"]},
    {"question_id": 3, "image": "blue.png", "text": "Which colour?", "answers": ["blue", "azure"]},
    {"id": "words", "question": "Two and two?", "answer": 4},
    {"id": "e", "image": "red.png", "question": "A line\u2028in it?", "answer": None},
    {"id": "f", "image": "blue.png", "turns": ["Look.", "Which colour?"], "answer": "blue"},
]


def write(folder: Path) -> None:
    """questions.jsonl, a blank line at its end, and pictures."""
    path = folder / "questions.jsonl"
    made.write(path, ROWS, {f"{name}.png": picture(name, "a.png") for name in ("red", "blue")})
    path.write_text(path.read_text(encoding="utf-8") + "\n", encoding="utf-8")
