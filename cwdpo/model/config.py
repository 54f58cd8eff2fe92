"""Which model, in which precision, and which of its parameters are trained."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from cwdpo.base import files
from cwdpo.base.config import Config, Neutral, Place
from cwdpo.base.errors import ModelError
from cwdpo.base.identity import digest
from cwdpo.data.demo_world import PRETRAINING_BIASES, DemoWorld
from cwdpo.model.tiny import TinyQwen

Dtype = Literal["float32", "bfloat16"]

MODEL_FILES = ("*.safetensors", "*.json", "*.txt", "*.jinja", "*.model")
"""What is read of a checkpoint, at the top of its folder; hub repositories also hold the weights in other formats."""


class Checkpoint(Config):
    """Any vision-language model that `AutoModelForImageTextToText` and `AutoProcessor` load."""

    source: Literal["checkpoint"]
    path: Annotated[str, Place()]
    """A folder, or a hub id whose files are already in the local cache. The identity is made of the files."""
    revision: Annotated[str | None, Place()] = None
    """Branch, tag or commit of a hub id."""
    dtype: Dtype = "bfloat16"
    """Precision of weights and activations; log-probabilities are summed in float32 either way."""
    min_pixels: Annotated[int | None, Neutral(None)] = Field(default=None, gt=0)
    """Fewest pixels an image is resized to; None leaves it to the checkpoint."""
    max_pixels: Annotated[int | None, Neutral(None)] = Field(default=None, gt=0)
    """Most pixels an image is resized to; None leaves it to the checkpoint."""


class Pretraining(Config):
    """How the demo's tiny model learns to caption before the study starts: plain SFT of all parameters."""

    batch_size: int = Field(default=32, gt=0)
    """Images per step."""
    steps: int = Field(default=1200, gt=0)
    """Optimizer steps."""
    learning_rate: float = Field(default=3e-3, gt=0)
    """Peak learning rate."""
    warmup: float = Field(default=0.05, ge=0, lt=1)
    """Share of the steps in which the learning rate rises."""
    weight_decay: float = Field(default=0.01, ge=0)
    """AdamW's decoupled decay."""
    betas: tuple[float, float] = (0.9, 0.98)
    """AdamW's averaging factors."""
    seed: int = 0
    """Initial weights and data order."""


class Tiny(Config):
    """A tiny Qwen2.5-VL made here and pretrained on a world whose captions are systematically wrong."""

    source: Literal["tiny"]
    architecture: TinyQwen = TinyQwen()
    """Sizes."""
    world: DemoWorld = DemoWorld(train=6000, val=0, test=0, seed=1000, biases=PRETRAINING_BIASES)
    """What it is pretrained on; its biases are what the stages can mend."""
    pretraining: Pretraining = Pretraining()
    """How long and how fast."""
    dtype: Dtype = "float32"
    """Precision of weights and activations."""
    min_pixels: Annotated[int | None, Neutral(None)] = Field(default=None, gt=0)
    """As for a checkpoint."""
    max_pixels: Annotated[int | None, Neutral(None)] = Field(default=None, gt=0)
    """As for a checkpoint."""


ModelSource = Annotated[Checkpoint | Tiny, Field(discriminator="source")]


class Lora(Config):
    """Low-rank adapters on every linear layer of the language model; everything else is frozen."""

    name: Literal["lora"] = "lora"
    rank: int = Field(default=64, gt=0)
    """Inner dimension."""
    alpha: int = Field(default=128, gt=0)
    """Scale: the update is multiplied by alpha / rank."""
    dropout: Annotated[float, Neutral(0.0)] = Field(default=0.0, ge=0, lt=1)
    """0 keeps results independent of the micro-batch and the number of ranks."""
    seed: int = 0
    """Added to the stage's seed for the initial A matrices; B starts at 0."""


class FullTuning(Config):
    """Train the weights themselves."""

    name: Literal["full"]
    train_vision: bool = False
    """Train the vision tower and projector too."""


Tuning = Annotated[Lora | FullTuning, Field(discriminator="name")]


class Policy(Config):
    """What a stage needs to know to load a policy from its input folders `model` and, if any, `adapter`."""

    dtype: Dtype
    min_pixels: Annotated[int | None, Neutral(None)] = None
    max_pixels: Annotated[int | None, Neutral(None)] = None


def policy_of(model: Checkpoint | Tiny) -> Policy:
    """The part of a model source that still matters once its folder is known."""
    return Policy(dtype=model.dtype, min_pixels=model.min_pixels, max_pixels=model.max_pixels)


def checkpoint_folder(model: Checkpoint) -> Path:
    """Folder of the checkpoint's files, checked to hold a model and a processor.

    Raises:
        ModelError: no such folder, hub id not in the local cache, or files missing; says what and how to get them.
    """
    folder = Path(model.path).expanduser()
    if not folder.is_dir():
        folder = _cached_snapshot(model)
    if not (folder / "config.json").is_file():
        raise ModelError(f"model.path: {folder} holds no config.json, so it is no Hugging Face model folder")
    if not any((folder / name).is_file() for name in ("preprocessor_config.json", "processor_config.json")):
        raise ModelError(
            f"model.path: {folder} holds no processor (preprocessor_config.json or processor_config.json);"
            " copy the processor files of the checkpoint it was made from"
        )
    if not any(folder.glob("*.safetensors")):
        raise ModelError(f"model.path: {folder} holds no *.safetensors weights; other formats are not loaded")
    _check_shards(folder)
    return folder


def _check_shards(folder: Path) -> None:
    """Raise `ModelError` where a download has ended before the last shard."""
    index = folder / "model.safetensors.index.json"
    named = set(files.read_json(index)["weight_map"].values()) if index.is_file() else set()
    missing = sorted(name for name in named if not (folder / name).is_file())
    if missing:
        raise ModelError(
            f"model.path: {folder} lacks {len(missing)} of its {len(named)} weight files ({', '.join(missing[:3])}):"
            " the download is not complete; run it again (a hub model: cwdpo fetch --grid GRID)"
        )


def _cached_snapshot(model: Checkpoint) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    try:
        return Path(
            snapshot_download(
                model.path,
                revision=model.revision,
                allow_patterns=list(MODEL_FILES),
                ignore_patterns=["*/*"],
                local_files_only=True,
            )
        )
    except (LocalEntryNotFoundError, HFValidationError) as error:
        at = f" at revision {model.revision}" if model.revision else ""
        pinned = f" --revision {model.revision}" if model.revision else ""
        raise ModelError(
            f"model.path: '{model.path}' is neither a folder nor a hub model in the local cache{at}, or is there"
            " only in part; where there is internet, with HF_HOME as it is here, run: cwdpo fetch --grid GRID"
            f" (or without this program: hf download {model.path}{pinned})"
        ) from error


def model_digest(folder: Path) -> str:
    """Digest of a model folder: the same for a hub snapshot and a copy of it, wherever they lie.

    Text files count by content, weight shards by name and size and by the hash their index or header carries.
    """
    entries: dict[str, Any] = {}
    for path in sorted(folder.iterdir()):
        if path.suffix == ".safetensors":
            entries[path.name] = [path.stat().st_size, _header_digest(path)]
        elif path.suffix in (".json", ".jinja", ".txt", ".model"):
            entries[path.name] = files.sha256_file(path)
    return digest(entries)


def _header_digest(path: Path) -> str:
    """Digest of a safetensors header and of 64 evenly spaced 4 KiB samples: seconds, not minutes, for 140 GB."""
    import hashlib

    value = hashlib.sha256()
    size = path.stat().st_size
    with open(path, "rb") as file:
        length = int.from_bytes(file.read(8), "little")
        value.update(file.read(min(length, size)))
        for sample in range(64):
            file.seek(8 + length + max(size - 8 - length - 4096, 0) * sample // 63)
            value.update(file.read(4096))
    return value.hexdigest()
