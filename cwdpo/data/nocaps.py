"""Reader of NoCaps' validation captions: `nocaps_val_4500_captions.json`, COCO's format with a domain of each image.

    {"images": [{"id": 0, "open_images_id": "0013ea2087020901", "file_name": "0013ea2087020901.jpg",
                 "domain": "in-domain", "coco_url": "...", "height": 1024, "width": 732, ...}],
     "annotations": [{"id": 0, "image_id": 0, "caption": "A baby is standing ..."}]}

Agrawal et al., "nocaps: novel object captioning at scale" (ICCV 2019). Domains say whether an image shows objects of
COCO, others too, or only others; each is scored alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cwdpo.base.errors import DataError, name_valid
from cwdpo.data.annotations import list_of, read_annotations, value_of
from cwdpo.data.records import Record, clean_text, relative_image

FILE = "nocaps_val_4500_captions.json"
PUBLISHED = {"in-domain": 648, "near-domain": 2938, "out-domain": 914}
"""Images of each domain."""


def read_nocaps(path: Path, images: str, prompt: str) -> list[Record]:
    """One record per image in the order of the file, with all its captions as references; all of the val split.

    Args:
        images: folder of the images, relative to the data root.

    Raises:
        DataError: not JSON, a missing key, images without domains, an unknown domain, an id that occurs twice, a
            caption of an unknown image, an image without captions; names the file and the index of the entry.
    """
    content = _content(path)
    entries = _by_id(list_of(content, "images", str(path)), f"{path}, images")
    _check_domains(entries, path)
    captions = _captions(list_of(content, "annotations", str(path)), entries, path)
    return [_record(name, *entry, images, prompt, captions[name]) for name, entry in entries.items()]


_Entry = tuple[Mapping[str, Any], str]
"""An object of the file, and where it is."""


def _content(path: Path) -> Mapping[str, Any]:
    if path.suffix == ".parquet":
        raise DataError(f"{path}: {_NO_DOMAINS}")
    content = read_annotations(path)
    if not isinstance(content, dict) or not {"images", "annotations"} <= content.keys():
        raise DataError(f"{path}: expected {FILE}, an object with the lists 'images' and 'annotations'")
    return content


_NO_DOMAINS = (
    "without 'domain' nobody can tell which images are in-domain, near-domain and out-domain, and each is scored alone;"
    f" the copies on the Hugging Face hub lack it: get the original {FILE}, which nocaps.org names"
)


def _by_id(entries: Sequence[Any], where: str) -> dict[str, _Entry]:
    """Entries by their id, in order."""
    found: dict[str, _Entry] = {}
    for index, entry in enumerate(entries):
        at = f"{where}[{index}]"
        name = _id_of(entry, "id", at)
        if name in found:
            raise DataError(f"{at}: id {name} occurs twice, first in {found[name][1]}; ids must be unique")
        found[name] = (entry, at)
    return found


def _id_of(entry: Any, key: str, where: str) -> str:
    found = value_of(entry, key, where)
    if isinstance(found, bool) or not isinstance(found, int | str) or found == "":
        raise DataError(f"{where}.{key}: expected a number or text, found {found!r:.40}")
    return str(found)


def _check_domains(entries: Mapping[str, _Entry], path: Path) -> None:
    """Of all images, before anything else is said about one of them."""
    if lacking := [where for image, where in entries.values() if image.get("domain") is None]:
        raise DataError(
            f"{path}: {len(lacking)} of {len(entries)} images have no domain, first {lacking[0]}; {_NO_DOMAINS}"
        )
    for image, where in entries.values():
        if image["domain"] not in tuple(PUBLISHED):
            raise DataError(f"{where}.domain: unknown domain {name_valid(image['domain'], PUBLISHED)}")


def _captions(annotations: Sequence[Any], images: Mapping[str, _Entry], path: Path) -> dict[str, tuple[str, ...]]:
    """Captions by image, in the order of the file."""
    found: dict[str, list[str]] = {name: [] for name in images}
    for entry, where in _by_id(annotations, f"{path}, annotations").values():
        name = _id_of(entry, "image_id", where)
        if name not in found:
            raise DataError(f"{where}: no image has the id {name}; the file has {len(found)} images")
        found[name].append(clean_text(value_of(entry, "caption", where), f"{where}.caption"))
    if bare := [name for name in found if not found[name]]:
        first = images[bare[0]][1]
        raise DataError(f"{path}: {len(bare)} of {len(found)} images have no caption, first {first} (id {bare[0]})")
    return {name: tuple(texts) for name, texts in found.items()}


def _record(
    name: str, image: Mapping[str, Any], where: str, images: str, prompt: str, captions: tuple[str, ...]
) -> Record:
    file = clean_text(value_of(image, "file_name", where), f"{where}.file_name")
    path = relative_image(f"{images}/{file}" if images else file, where)
    return Record(f"{name}#0", name, path, prompt, captions[0], captions, (), "val", "none", image["domain"])
