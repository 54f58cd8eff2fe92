"""Loading the processor (image processor, tokenizer, chat template) of a model folder or a hub id."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from cwdpo.base.errors import ModelError

QWEN_FAMILY = frozenset({"qwen2_vl", "qwen2_5_vl"})
"""Model types whose stock processor cannot be built without a video processor, hence without torchvision."""

_NEEDED = {
    "model configuration": ("config.json",),
    "tokenizer": ("tokenizer.json", "tokenizer.model", "vocab.json"),
    "image processor": ("preprocessor_config.json", "processor_config.json"),
}


def load_processor(folder_or_id: str | Path, revision: str | None = None) -> Any:
    """The processor of a Qwen2-VL, Qwen2.5-VL, LLaVA, Idefics3, ... checkpoint, for images and text.

    Processors of the Qwen family never hold a video processor, with or without torchvision, so that one folder
    loads the same everywhere. Every model type that can scales its images with Pillow, also where torchvision is
    installed, whose pixels differ. Left padding is not set here: training pads right, generation pads left.

    Raises:
        ModelError: the tokenizer, the image processor or the chat template is missing; the message names the folder.
    """
    _check_files(folder_or_id)
    try:
        processor = _load(str(folder_or_id), revision)
    except (OSError, ValueError, KeyError, ImportError, AttributeError, TypeError) as error:
        raise ModelError(f"{folder_or_id}: cannot load its processor: {' '.join(str(error).split())}") from error
    _check_parts(processor, folder_or_id)
    return processor


def _load(source: str, revision: str | None) -> Any:
    from transformers import AutoConfig, AutoProcessor

    options = {} if revision is None else {"revision": revision}
    model_type = AutoConfig.from_pretrained(source, **options).model_type
    loader = images_only(model_type) if model_type in QWEN_FAMILY else AutoProcessor
    return _scaling_with_pillow(loader.from_pretrained(source, **options), source, options)


def _scaling_with_pillow(processor: Any, source: str, options: dict[str, str]) -> Any:
    from transformers import AutoImageProcessor

    # transformers takes torchvision as soon as it is installed, whatever the folder says.
    if getattr(getattr(processor, "image_processor", None), "backend", "pil") != "pil":
        processor.image_processor = AutoImageProcessor.from_pretrained(source, backend="pil", **options)
    return processor


def images_only(model_type: str = "qwen2_5_vl") -> Any:
    """The processor class of a Qwen model type without its video part; it saves under the stock class's name."""
    from transformers.models.auto.processing_auto import PROCESSOR_MAPPING_NAMES, processor_class_from_name

    stock: Any = processor_class_from_name(PROCESSOR_MAPPING_NAMES[model_type])

    def get_attributes(cls: Any) -> list[str]:
        return [name for name in stock.get_attributes() if "video" not in name]

    # save_pretrained writes the class's own name, which must be one that other programs can load.
    return type(stock.__name__, (stock,), {"get_attributes": classmethod(get_attributes), "__module__": __name__})


def _check_files(folder_or_id: str | Path) -> None:
    folder = Path(folder_or_id)
    if not folder.is_dir():
        if isinstance(folder_or_id, Path) or folder.is_absolute():
            raise ModelError(f"{folder}: no such model folder")
        return  # a hub id: transformers finds out what it holds
    missing = [part for part, names in _NEEDED.items() if not any((folder / name).is_file() for name in names)]
    if missing:
        wanted = "; ".join(f"{part} ({' or '.join(_NEEDED[part])})" for part in missing)
        raise ModelError(f"{folder}: the model folder has no {wanted}")


def _check_parts(processor: Any, folder_or_id: str | Path) -> None:
    # AutoProcessor quietly returns a bare tokenizer when it finds nothing else.
    missing = [part for part in ("tokenizer", "image_processor") if getattr(processor, part, None) is None]
    if missing:
        raise ModelError(f"{folder_or_id}: {type(processor).__name__} has no {' and no '.join(missing)}")
    if not (processor.chat_template or processor.tokenizer.chat_template):
        raise ModelError(f"{folder_or_id}: no chat template (chat_template.jinja or chat_template.json)")
