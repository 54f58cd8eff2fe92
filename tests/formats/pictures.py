"""Small pictures of one colour."""

from __future__ import annotations

import io
from pathlib import Path

from PIL import Image

KINDS = {".png": "PNG"}


def picture(colour: tuple[int, int, int] | str, name: str = "a.jpg") -> bytes:
    """The bytes of a file of this name."""
    stream = io.BytesIO()
    Image.new("RGB", (40, 30), colour).save(stream, KINDS.get(Path(name).suffix, "JPEG"))
    return stream.getvalue()
