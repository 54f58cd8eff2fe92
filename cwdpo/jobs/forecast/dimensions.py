"""The sizes of a model that its cost follows from: of its folder, of a table by hub id, or of a tiny one to be made.

Shapes of a decoder layer: q and o are h x (heads * width), k and v are h x (key-value heads * width), gate, up and down
are h x f. A block of the vision tower has q, k, v, o of d x d, and two or three (gated) of d x i.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from cwdpo.base import files
from cwdpo.base.config import read_yaml
from cwdpo.base.errors import CwdpoError, ModelError
from cwdpo.graph import Outside
from cwdpo.jobs.fit import VISION, parameters
from cwdpo.model.config import Checkpoint, Tiny, checkpoint_folder
from cwdpo.model.tiny import TinyQwen

TABLE = Path(__file__).with_name("models.yaml")

CHANNELS = 3
FRAMES = 2  # of a patch of Qwen's vision tower, which sees an image twice


@dataclass(frozen=True)
class Vision:
    """The vision tower.

    Attributes:
        merge: patches on a side of what becomes one image token.
        gated: three matrices in a feed-forward layer, not two.
        window: patches on a side of what a block attends to; 0 is the whole image.
        whole: blocks that attend to the whole image.
        side: of every image, in pixels, where all are scaled to one size; 0 where they keep theirs.
    """

    hidden: int
    intermediate: int
    depth: int
    patch: int
    merge: int
    gated: bool
    window: int
    whole: int
    side: int = 0

    @property
    def block(self) -> int:
        """Numbers in the matrices of a block."""
        return 4 * self.hidden**2 + (3 if self.gated else 2) * self.hidden * self.intermediate

    @property
    def embedding(self) -> int:
        """Numbers in the matrix that a patch goes through first."""
        return CHANNELS * (FRAMES if self.gated else 1) * self.patch**2 * self.hidden

    def merger(self, out: int) -> int:
        """Numbers in the two matrices behind the blocks, for a language model of width `out`."""
        if not self.depth:
            return 0
        wide = self.hidden * self.merge**2
        return wide * (wide if self.gated else out) + (wide if self.gated else out) * out

    def tokens(self, pixels: float) -> float:
        """Image tokens of so many pixels."""
        return (self.side**2 if self.side else pixels) / (self.patch * self.merge) ** 2


@dataclass(frozen=True)
class Dimensions:
    """A model.

    Attributes:
        name: what it is called.
        hidden: width h.
        intermediate: width f of the feed-forward layers.
        width: numbers of a head.
        tied: the LM head is the embedding.
        most_pixels: of an image, by its processor; 0 where that does not say.
        counted: parameters by the headers of its weights, of all and of the vision tower; 0 where they are not here.
        source: where this is from.
    """

    name: str
    hidden: int
    intermediate: int
    layers: int
    heads: int
    key_value_heads: int
    width: int
    vocabulary: int
    tied: bool
    vision: Vision
    source: str
    most_pixels: int = 0
    counted: tuple[int, int] = (0, 0)

    @property
    def queries(self) -> int:
        """Width of all heads."""
        return self.heads * self.width

    @property
    def keys(self) -> int:
        """Width of all key-value heads: of the keys of a token in a layer, and of its values."""
        return self.key_value_heads * self.width

    @property
    def feed_forward(self) -> int:
        """Numbers in the three matrices of a feed-forward layer."""
        return 3 * self.hidden * self.intermediate

    @property
    def layer(self) -> int:
        """Numbers in the matrices of a decoder layer."""
        return 2 * self.hidden * (self.queries + self.keys) + self.feed_forward

    @property
    def head(self) -> int:
        """Numbers in the LM head."""
        return self.vocabulary * self.hidden

    @property
    def of_vision(self) -> int:
        """Parameters of the vision tower."""
        vision = self.vision
        return self.counted[1] or vision.depth * vision.block + vision.embedding + vision.merger(self.hidden)

    def divides_into(self, size: int) -> bool:
        """Whether tensor parallelism over `size` ranks leaves whole heads on each."""
        return self.heads % size == 0 and self.key_value_heads % size == 0

    @property
    def total(self) -> int:
        """Parameters."""
        return self.counted[0] or self.layers * self.layer + self.head * (1 if self.tied else 2) + self.of_vision

    def lora(self, rank: int) -> int:
        """Parameters of an adapter on every matrix of the decoder's layers."""
        attention = 2 * (self.hidden + self.queries) + 2 * (self.hidden + self.keys)
        return self.layers * rank * (attention + 3 * (self.hidden + self.intermediate))


def of_config(content: Mapping[str, Any], name: str, source: str) -> Dimensions:
    """The dimensions that a `config.json` states.

    Raises:
        KeyError: it does not say enough.
    """
    text = {**content, **(content.get("text_config") or {})}
    heads = int(text["num_attention_heads"])
    return Dimensions(
        name=name,
        hidden=int(text["hidden_size"]),
        intermediate=int(text["intermediate_size"]),
        layers=int(text["num_hidden_layers"]),
        heads=heads,
        key_value_heads=int(text.get("num_key_value_heads") or heads),
        width=int(text.get("head_dim") or int(text["hidden_size"]) // heads),
        vocabulary=int(text["vocab_size"]),
        tied=bool(content.get("tie_word_embeddings", text.get("tie_word_embeddings", False))),
        vision=_vision(content.get("vision_config") or {}),
        source=source,
    )


def _vision(found: Mapping[str, Any]) -> Vision:
    """Qwen's towers say `depth`, keep the size of images and are gated; others are scaled to one size and are not."""
    dynamic = "depth" in found
    depth = int(found["depth"] if dynamic else found.get("num_hidden_layers", 0))
    patch, merge = int(found.get("patch_size", 14)), int(found.get("spatial_merge_size", 1))
    windowed = "window_size" in found
    return Vision(
        hidden=int(found.get("hidden_size", 0)),
        intermediate=int(found.get("intermediate_size", 0)),
        depth=depth,
        patch=patch,
        merge=merge,
        gated=dynamic,
        window=int(found["window_size"]) // patch if windowed else 0,
        whole=len(found.get("fullatt_block_indexes", ())) if windowed else depth,
        side=0 if dynamic else int(found.get("image_size", 0)),
    )


def of_tiny(tiny: TinyQwen) -> Dimensions:
    """Those of a model that is made here; it may have fewer words than its tokenizer may learn."""
    vision = Vision(
        tiny.vision_hidden_size, tiny.vision_intermediate_size, tiny.vision_depth, tiny.patch_size, 2, True,
        tiny.image_size // 2 // tiny.patch_size, 1, tiny.image_size,
    )  # fmt: skip
    return Dimensions(
        "tiny", tiny.hidden_size, tiny.intermediate_size, tiny.layers, tiny.heads, tiny.key_value_heads,
        tiny.hidden_size // tiny.heads, tiny.vocabulary, True, vision, "its settings",
    )  # fmt: skip


def of_source(model: Checkpoint | Tiny) -> Dimensions | None:
    """Those of the model that an experiment names; None where neither its folder nor the table says."""
    if isinstance(model, Tiny):
        return of_tiny(model.architecture)
    try:
        return _of_folder(checkpoint_folder(model))
    except ModelError:
        return _of_table(model.path)


def of_checkpoint(model: Outside) -> Dimensions | None:
    """Those of a checkpoint: of its folder where it is there, else of the table; None where neither says."""
    return _of_folder(model.path) if not model.absent else _of_table(model.path.as_posix())


def _of_table(name: str) -> Dimensions | None:
    found = released().get(name)
    return of_config(found, name, f"the table {TABLE.name}") if found else None


@cache
def released() -> dict[str, Any]:
    """Hub id -> what the configuration of the released checkpoint says, of the table."""
    return read_yaml(TABLE)


def _of_folder(folder: Path) -> Dimensions | None:
    try:
        found = of_config(files.read_json(folder / "config.json"), _name(folder), "its config.json")
        counted = (parameters(folder), parameters(folder, VISION))
    except (KeyError, TypeError, ValueError, OSError, CwdpoError):
        return None
    return Dimensions(**{**vars(found), "counted": counted, "most_pixels": _most_pixels(folder)})


def _name(folder: Path) -> str:
    """The hub id of a snapshot in the hub cache, else the name of the folder."""
    cached = folder.parent.parent.name
    return cached.removeprefix("models--").replace("--", "/") if cached.startswith("models--") else folder.name


def _most_pixels(folder: Path) -> int:
    """What the processor scales an image down to."""
    for name in ("preprocessor_config.json", "processor_config.json"):
        if (folder / name).is_file():
            content = files.read_json(folder / name)
            images = content.get("image_processor") or content
            size = images.get("size") or {}
            return int(images.get("max_pixels") or size.get("longest_edge") or size.get("max_pixels") or 0)
    return 0
