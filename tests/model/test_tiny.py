"""The tiny Qwen2.5-VL folder: complete, genuine, deterministic; and the errors of incomplete folders."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from cwdpo.base.config import validate
from cwdpo.base.errors import ConfigError, ModelError
from cwdpo.base.files import read_json, sha256_file
from cwdpo.model.processor import load_processor
from cwdpo.model.tiny import CHAT_TEMPLATE, SPECIAL_TOKENS, TinyQwen, build_tiny_qwen

TEXTS = ["a small red circle at the top left", "three large blue squares", "Describe the image."] * 10
MESSAGES = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "Describe the image."}]}]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tiny") / "model"
    build_tiny_qwen(TinyQwen(), TEXTS, path, seed=1)
    return path


@pytest.fixture(scope="module")
def processor(folder: Path) -> Any:
    return load_processor(folder)


@pytest.fixture(scope="module")
def model(folder: Path) -> Any:
    from transformers import AutoModelForImageTextToText

    return AutoModelForImageTextToText.from_pretrained(folder)


@pytest.fixture
def batch(processor: Any) -> Any:
    text = processor.apply_chat_template(MESSAGES, add_generation_prompt=True)
    return processor(text=[text], images=[[Image.new("RGB", (64, 64), "red")]], return_tensors="pt")


def test_it_loads_as_the_genuine_classes(processor: Any, model: Any) -> None:
    assert type(model).__name__ == "Qwen2_5_VLForConditionalGeneration"
    assert type(processor).__name__ == "Qwen2_5_VLProcessor"
    assert type(processor.tokenizer).__name__ == "Qwen2Tokenizer"
    assert processor.get_attributes() == ["image_processor", "tokenizer"]
    assert 0.5e6 < sum(parameter.numel() for parameter in model.parameters()) < 0.8e6


def test_files_are_those_of_a_hub_checkpoint(folder: Path) -> None:
    assert {path.name for path in folder.iterdir()} >= {
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
        "preprocessor_config.json",
        "chat_template.jinja",
    }
    assert read_json(folder / "processor_config.json")["processor_class"] == "Qwen2_5_VLProcessor"
    # The class without "Pil": where torchvision is installed, the folder loads with it.
    assert read_json(folder / "preprocessor_config.json")["image_processor_type"] == "Qwen2VLImageProcessor"


def test_an_image_is_sixteen_tokens_and_any_size_is_scaled(processor: Any, batch: Any) -> None:
    image_token = processor.tokenizer.convert_tokens_to_ids("<|image_pad|>")
    assert int((batch["input_ids"] == image_token).sum()) == 16
    assert batch["image_grid_thw"].tolist() == [[1, 8, 8]]
    assert (batch["mm_token_type_ids"] == (batch["input_ids"] == image_token)).all()
    wide = processor.image_processor(Image.new("RGB", (200, 200)), return_tensors="pt")
    assert wide["image_grid_thw"].tolist() == [[1, 8, 8]]


def test_the_tokenizer_has_the_special_tokens_and_is_lossless(processor: Any) -> None:
    tokenizer = processor.tokenizer
    assert tokenizer.convert_tokens_to_ids(list(SPECIAL_TOKENS)) == list(range(len(SPECIAL_TOKENS)))
    assert (tokenizer.eos_token, tokenizer.pad_token) == ("<|im_end|>", "<|endoftext|>")
    strange = "Zażółć 漢字 🙂  two  spaces\n"
    assert tokenizer.decode(tokenizer(strange)["input_ids"]) == strange
    assert len(tokenizer("a small red circle")["input_ids"]) <= 4
    assert tokenizer.decode([2, *tokenizer("x")["input_ids"]], skip_special_tokens=True) == "x"


def test_the_chat_template_is_the_real_one(processor: Any) -> None:
    assert processor.chat_template == CHAT_TEMPLATE
    assert processor.apply_chat_template(MESSAGES, add_generation_prompt=True) == (
        "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"
        "<|im_start|>user\n<|vision_start|><|image_pad|><|vision_end|>Describe the image.<|im_end|>\n"
        "<|im_start|>assistant\n"
    )


def test_generation_stops_at_the_end_of_turn(model: Any, batch: Any) -> None:
    assert model.generation_config.eos_token_id == 2
    generated = model.generate(**batch, max_new_tokens=3)
    assert generated.shape[1] - batch["input_ids"].shape[1] <= 3


def test_weights_follow_from_the_seed_alone(folder: Path, tmp_path: Path) -> None:
    import torch

    before = torch.random.get_rng_state()
    build_tiny_qwen(TinyQwen(), TEXTS, tmp_path / "same", seed=1)
    build_tiny_qwen(TinyQwen(), TEXTS, tmp_path / "other", seed=2)
    assert torch.equal(before, torch.random.get_rng_state())
    weights = [sha256_file(path / "model.safetensors") for path in (folder, tmp_path / "same", tmp_path / "other")]
    assert weights[0] == weights[1] != weights[2]
    assert sha256_file(folder / "tokenizer.json") == sha256_file(tmp_path / "same" / "tokenizer.json")


def test_saving_a_loaded_processor_gives_the_same_processor(processor: Any, tmp_path: Path, folder: Path) -> None:
    processor.save_pretrained(tmp_path)
    shutil.copy(folder / "config.json", tmp_path)
    again = load_processor(tmp_path)
    assert again.chat_template == processor.chat_template
    assert again.tokenizer.get_vocab() == processor.tokenizer.get_vocab()
    assert again.image_processor.to_dict() == processor.image_processor.to_dict()


@pytest.mark.parametrize(
    ("lost", "named"),
    [
        (["config.json"], "no model configuration"),
        (["tokenizer.json"], "no tokenizer"),
        (["processor_config.json", "preprocessor_config.json"], "no image processor"),
        (["chat_template.jinja"], "no chat template"),
    ],
)
def test_an_incomplete_folder_is_refused_by_name(folder: Path, tmp_path: Path, lost: list[str], named: str) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(folder, broken, ignore=shutil.ignore_patterns(*lost, "*.safetensors"))
    with pytest.raises(ModelError, match=rf"{broken}.*{named}"):
        load_processor(broken)


def test_a_damaged_or_missing_folder_is_refused_by_name(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="nowhere: no such model folder"):
        load_processor(tmp_path / "nowhere")
    broken = tmp_path / "broken"
    shutil.copytree(folder, broken, ignore=shutil.ignore_patterns("*.safetensors"))
    (broken / "tokenizer.json").write_text("{")
    with pytest.raises(ModelError, match=rf"{broken}: cannot load its processor"):
        load_processor(broken)


def test_sizes_that_cannot_be_are_refused() -> None:
    with pytest.raises(ConfigError, match="multiple of 2 \\* patch_size"):
        validate(TinyQwen, {"image_size": 60}, "tiny.yaml")
    with pytest.raises(ConfigError, match="multiple of 16"):
        validate(TinyQwen, {"hidden_size": 96, "heads": 4}, "tiny.yaml")
