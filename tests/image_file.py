"""Image files for tests that need no program to run them."""

from __future__ import annotations

import json
import struct
from pathlib import Path

LABELS = {"cwdpo.lock": "abc", "org.opencontainers.image.revision": "def"}


def write_image(path: Path, content: bytes = b"made up") -> Path:
    """A SIF file with labels and one more object, in the format's own table; no program could run it."""
    labels = json.dumps({"data": {"attributes": {"labels": LABELS}}}).encode()
    objects = [(b"inspect-metadata.json", labels), (b"", content)]
    at, table, data = 128 + 585 * len(objects), b"", b""
    for name, found in objects:
        head = struct.pack("<iBIII2q", 0x4007, 1, 1, 1, 0, at + len(data), len(found))
        table += (head + bytes(73 - len(head)) + name).ljust(585, b"\0")
        data += found
    head = b"#!/usr/bin/env run-singularity\n".ljust(32, b"\0") + b"SIF_MAGIC\0" + b"01\0" + b"02\0"
    sizes = struct.pack("<6q", 46, len(objects), 128, len(table), at, len(data))
    path.write_bytes(head.ljust(80, b"\0") + sizes + table + data)
    return path
