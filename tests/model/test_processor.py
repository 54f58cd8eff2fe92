"""The image processor does not depend on what else is installed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from cwdpo.model.processor import load_processor
from cwdpo.model.tiny import TinyQwen, build_tiny_qwen


def test_torchvision_does_not_change_the_pixels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from transformers import AutoImageProcessor, Qwen2VLImageProcessorPil

    build_tiny_qwen(TinyQwen(), ["a small red circle"] * 10, tmp_path / "model", seed=1)
    without = load_processor(tmp_path / "model")

    # torchvision is not installed where tests run: this class stands for the one that transformers then prefers
    class ByTorchvision(Qwen2VLImageProcessorPil):
        backend = "torchvision"

    load = AutoImageProcessor.from_pretrained

    def preferring_torchvision(source: str, backend: str | None = None, **options: Any) -> Any:
        return load(source, backend=backend, **options) if backend else ByTorchvision.from_pretrained(source)

    monkeypatch.setattr(AutoImageProcessor, "from_pretrained", preferring_torchvision)
    image = Image.linear_gradient("L").convert("RGB")
    assert AutoImageProcessor.from_pretrained(str(tmp_path / "model")).backend == "torchvision"
    again = load_processor(tmp_path / "model")
    assert type(again.image_processor) is type(without.image_processor)
    assert again.image_processor.to_dict() == without.image_processor.to_dict()
    expected = without.image_processor(image, return_tensors="pt")["pixel_values"]
    assert again.image_processor(image, return_tensors="pt")["pixel_values"].equal(expected)
