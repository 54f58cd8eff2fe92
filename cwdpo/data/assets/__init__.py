"""What `cwdpo fetch` brings to the cluster's file system: files by digest, repositories of the hub by commit."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, field_validator

from cwdpo.base.config import Config, read_yaml, validate
from cwdpo.base.errors import ConfigError, name_valid

Digest256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Digest160 = Annotated[str, Field(pattern=r"^[0-9a-f]{40}$")]


class AssetFile(Config):
    """One file, or one archive of files."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._+-]*$")
    """File name in the asset's folder."""
    urls: tuple[str, ...] = Field(min_length=1)
    """Where it is; the later ones are asked when the earlier ones do not have it."""
    sha256: Digest256 | None = None
    """Digest it must have. Without any digest the file is taken as it comes and reported as not pinned."""
    sha1: Digest160 | None = None
    """Weaker digest, for files of which nobody published a better one."""
    size: int | None = Field(default=None, gt=0)
    """Bytes it must have."""
    unpack: bool = False
    """Keep what is in the archive (zip or tar), not the archive."""

    @field_validator("urls")
    @classmethod
    def _over_http(cls, urls: tuple[str, ...]) -> tuple[str, ...]:
        for url in urls:
            if not url.startswith(("https://", "http://")):
                raise ValueError("expected a URL that starts with https:// or http://")
        return urls

    @property
    def pinned(self) -> bool:
        """True when a digest says which bytes are meant."""
        return bool(self.sha256 or self.sha1)


class Files(Config):
    """Files from URLs, in a folder of their own."""

    kind: Literal["urls"]
    description: str
    """One sentence."""
    files: tuple[AssetFile, ...] = Field(min_length=1)
    """What is in it."""


class HubModel(Config):
    """What a model on the Hugging Face hub needs to be loaded, in the normal hub cache."""

    kind: Literal["hub_model"]
    description: str
    """One sentence."""
    repo: str
    """`owner/name`."""
    revision: Digest160
    """The full commit."""


class HubDataset(Config):
    """A data set on the Hugging Face hub, in the normal hub cache."""

    kind: Literal["hub_dataset"]
    description: str
    """One sentence."""
    repo: str
    """`owner/name`."""
    revision: Digest160
    """The full commit."""
    include: tuple[str, ...] = ()
    """Only files that match one of these patterns (`data/*.parquet`); empty takes all."""


Asset = Files | HubModel | HubDataset
KINDS: dict[str, type[Files] | type[HubModel] | type[HubDataset]] = {
    "urls": Files,
    "hub_model": HubModel,
    "hub_dataset": HubDataset,
}


def read_asset(path: Path) -> Asset:
    """An asset file, checked.

    Raises:
        ConfigError: names the file, the key, what was found and what is valid.
    """
    content = read_yaml(path)
    if content.get("kind") not in KINDS:
        raise ConfigError(f"{path}: kind: {name_valid(content.get('kind'), KINDS)}")
    return validate(KINDS[content["kind"]], content, str(path))
