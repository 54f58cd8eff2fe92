"""Opening images, and saying precisely what is wrong with one."""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Literal

from PIL import Image, ImageOps, UnidentifiedImageError

from cwdpo.base.errors import DataError


def open_image(folder: Path, name: str) -> Image.Image:
    """Decode `folder/name` whole, as RGB.

    Raises:
        DataError: the file is missing, truncated, or no image; names the file.
    """
    path = folder / name
    try:
        with Image.open(path) as image:
            return ImageOps.exif_transpose(image).convert("RGB")
    except FileNotFoundError as error:
        raise DataError(f"image {path}: no such file") from error
    except UnidentifiedImageError as error:
        raise DataError(f"image {path}: not an image ({path.stat().st_size} bytes)") from error
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise DataError(f"image {path}: damaged or truncated ({error})") from error


def check_images(folder: Path, names: Iterable[str], how: Literal["decode", "exists"]) -> None:
    """Check every image before any GPU-hour is spent; the error counts the bad ones and shows the first five."""

    def fault(name: str) -> str | None:
        try:
            if how == "decode":
                open_image(folder, name)
            elif not (folder / name).is_file():
                return f"image {folder / name}: no such file"
        except DataError as error:
            return str(error)
        return None

    with ThreadPoolExecutor(max_workers=4) as pool:
        faults = [found for found in pool.map(fault, sorted(set(names))) if found]
    if faults:
        more = f"\n... and {len(faults) - 5} more" if len(faults) > 5 else ""
        raise DataError("\n".join(faults[:5]) + more)
