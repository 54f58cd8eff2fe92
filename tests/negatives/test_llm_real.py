"""A real OpenAI-compatible server, `transformers serve`, with a tiny model that has learned one reply by heart."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from endpoints import ask, record, transformers_serve
from PIL import Image
from workers import made_once

from cwdpo.base.errors import ConfigError
from cwdpo.endpoint.replies import Request
from cwdpo.model.tiny import TinyQwen, build_tiny_qwen
from cwdpo.negatives.llm.rewrite import Rewrite
from cwdpo.negatives.llm.task import Question
from cwdpo.negatives.written import Written

REPLY = json.dumps({"rewrites": [{"text": "A blue ball.", "kind": "attribute"}]})
RED = Image.new("RGB", (64, 64), "red")
BALLS = [record(0, "A red ball."), record(1, "A green ball."), record(2, "A blue ball.")]


def part(model: object, url: str, **more: Any) -> Rewrite:
    endpoint = {"model": str(model), "base_url": url, "max_tokens": 40, "patience": 30, "concurrency": 2}
    made = Written.model_validate({"source": "llm", "endpoint": endpoint, **more}).parts()["llm"]
    assert isinstance(made, Rewrite)
    return made


def make_model(folder: Path) -> None:
    """A model that has learned to say `REPLY`, whatever it is asked."""
    from transformers import Qwen2_5_VLForConditionalGeneration

    from cwdpo.model.processor import load_processor

    texts = [_asked(one.chosen) for one in BALLS] + [REPLY] * 8
    build_tiny_qwen(TinyQwen(context=2048, vocabulary=1024), texts, folder, 0)
    processor = load_processor(folder)
    model = Qwen2_5_VLForConditionalGeneration.from_pretrained(folder)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for step in range(60):
        loss = model(**_sample(processor, texts[step % 3], [RED] * (step % 2))).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    model.save_pretrained(folder)


def _asked(chosen: str) -> str:
    task = part("m", "http://x/v1")
    (question,) = next(iter(task.questions([record(0, chosen)], {})))
    assert isinstance(question, Question)
    request = task.next_step(question, [], Path())
    assert isinstance(request, Request)
    return str(request.messages[0]["content"])


def _sample(processor: Any, text: str, images: list[Image.Image]) -> dict[str, torch.Tensor]:
    content = [{"type": "image"} for _ in images] + [{"type": "text", "text": text}]
    messages = [{"role": "user", "content": content}]
    prompt = processor.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
    inputs = processor(text=[prompt], images=images or None, return_tensors="pt")
    said = torch.tensor([processor.tokenizer(REPLY + processor.tokenizer.eos_token).input_ids])
    labels = torch.cat([torch.full_like(inputs["input_ids"], -100), said], 1)
    whole = {name: torch.cat([inputs[name], torch.full_like(said, value)], 1)
             for name, value in (("attention_mask", 1), ("mm_token_type_ids", 0)) if name in inputs}  # fmt: skip
    return {**inputs, **whole, "input_ids": torch.cat([inputs["input_ids"], said], 1), "labels": labels}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made_once(tmp_path_factory, "answering-model", lambda to: make_model(to / "model")) / "model"


@pytest.fixture(scope="module")
def url(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with transformers_serve(model, port, tmp_path_factory.mktemp("serve") / "log") as address:
        yield address


def test_a_real_server_is_asked_and_its_replies_are_kept(model: Path, url: str, tmp_path: Path) -> None:
    first = ask(tmp_path, part(model, url), BALLS)
    rewrites = [{"rewrites": [{"text": "A blue ball.", "kind": "attribute"}]}]
    assert [row["replies"] for row in first.rows] == [rewrites, rewrites, [None]]
    assert sum(first.summary["dropped"].values()) == 1  # it is no rewrite of what it is equal to
    assert first.summary["asked"] == 4  # and was told so
    assert first.summary["tokens"]["in"] > 400
    second = ask(tmp_path, part(model, "http://127.0.0.1:9/v1"), BALLS)  # there is nobody to ask
    assert second.rows == first.rows


def test_a_real_server_is_sent_the_image(model: Path, url: str, tmp_path: Path) -> None:
    RED.save(tmp_path / "0.jpg")
    blind = ask(tmp_path, part(model, url), BALLS[:1])
    seen = ask(tmp_path, part(model, url, images=True), BALLS[:1], inputs={"images": tmp_path})
    assert seen.rows == blind.rows
    assert seen.summary["asked"] == 1
    assert seen.summary["tokens"]["in"] == blind.summary["tokens"]["in"] + 18  # 16 patches, a mark on either side


def test_a_real_server_does_not_know_another_model(url: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"model 'nobody' at http://.*nobody"):
        ask(tmp_path, part("nobody", url), BALLS)
