"""What a SIF file says of itself, read without any container program: a login node may have none.

The format is the one of github.com/apptainer/sif (pkg/sif): a header, then a table of descriptors, each of which says
where in the file its object lies.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import BinaryIO

from cwdpo.base.errors import ConfigError

MAGIC = b"SIF_MAGIC\0"
MAGIC_AT = 32  # behind the line that makes the file executable
TABLE_AT = 80  # of the header: descriptors that are free, all of them, where they begin
DESCRIPTOR_BYTES = 585
METADATA = b"inspect-metadata.json"
"""Name of the object that holds what `apptainer inspect` shows."""


def check_sif(path: Path) -> None:
    """Raise `ConfigError` for what is no image file, or not a whole one."""
    if path.is_dir():
        raise ConfigError(f"{path} is a folder; an image is one file: `make container` builds it")
    try:
        with open(path, "rb") as file:
            head = file.read(128)
            ends = [at + size for _, at, size in _objects(file, head)] if MAGIC in head else []
    except FileNotFoundError as error:
        raise ConfigError(
            f"no image '{path}': `make container` builds one, `apptainer pull` makes one of an address such as docker://..."
        ) from error
    except OSError as error:
        raise ConfigError(f"image {path}: {error.strerror}") from error
    if head[MAGIC_AT : MAGIC_AT + len(MAGIC)] != MAGIC:
        raise ConfigError(f"{path} is no image (SIF file): it begins with {head[:16].decode(errors='replace')!r}")
    size = path.stat().st_size
    if not ends or size < max(ends):
        said = f", its table says {max(ends)}" if ends else ", less than its table"
        raise ConfigError(f"image {path} is cut off: {size} bytes{said}; copy it again")


def labels_of(path: Path) -> Mapping[str, str]:
    """The labels of an image; empty where its builder kept none in the file's own table."""
    with open(path, "rb") as file:
        for name, at, size in _objects(file, file.read(128)):
            if name == METADATA:
                file.seek(at)
                attributes = json.loads(file.read(size))["data"]["attributes"]
                return {str(key): str(value) for key, value in (attributes.get("labels") or {}).items()}
    return {}


def _objects(file: BinaryIO, head: bytes) -> Iterator[tuple[bytes, int, int]]:
    """(name, offset, bytes) of every object."""
    if len(head) < 128:
        return
    _, count, table = struct.unpack_from("<3q", head, TABLE_AT)
    for number in range(count):
        file.seek(table + number * DESCRIPTOR_BYTES)
        entry = file.read(DESCRIPTOR_BYTES)
        if len(entry) == DESCRIPTOR_BYTES and entry[4]:  # in use
            at, size = struct.unpack_from("<2q", entry, 17)
            yield entry[73 : 73 + 128].rstrip(b"\0"), at, size
