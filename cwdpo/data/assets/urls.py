"""Fetch and check an asset of kind `urls`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from cwdpo.base.errors import NotAvailable
from cwdpo.data.assets import AssetFile, Files
from cwdpo.data.assets.archives import unpack
from cwdpo.data.assets.download import Tell, digest_of, download, fault_of
from cwdpo.data.assets.receipts import Outcome, Receipt, never_fetched

Entry = dict[str, Any]


def fetch_files(name: str, asset: Files, folder: Path, receipt: Path, tell: Tell) -> Outcome:
    """Bring the files of an asset to `folder`; what is there already is not fetched again.

    Raises:
        DataError: a file is not what is pinned; a damaged archive.
        NotAvailable: no address can be reached.
        StoreError: the folder cannot be written, or the disk is full.
    """
    known = Receipt(receipt, _source(asset)).read()
    if known and known.complete(folder):
        return Outcome(name, "present", folder, known.files, _notes(asset, known))
    entries: dict[str, Entry] = {}
    archives: dict[str, Entry] = {}
    for file in asset.files:
        target = _bring(file, folder, tell)
        if file.unpack:
            archives[file.name] = _entry(target)
            entries |= {member: _entry(folder / member) for member in unpack(target, folder)}
            target.unlink()
        else:
            entries[file.name] = _entry(target)
    made = Receipt(receipt, _source(asset), entries, archives)
    made.write()
    return Outcome(name, "fetched", folder, entries, _notes(asset, made))


def check_files(name: str, asset: Files, folder: Path, receipt: Path) -> Outcome:
    """Read every byte of an asset again and compare with its receipt; needs no network.

    Raises:
        DataError: names each file that is not as it was.
        NotAvailable: it was never fetched, or the asset file has changed since.
    """
    known = Receipt(receipt, _source(asset)).read()
    if known is None and receipt.is_file():
        raise NotAvailable(f"{name}: its asset file has changed since it was fetched; run: cwdpo fetch {name}")
    if known is None:
        raise never_fetched(name, folder)
    known.verify(folder, f"remove them and run: cwdpo fetch {name}")
    return Outcome(name, "checked", folder, known.files, _notes(asset, known))


def _source(asset: Files) -> dict[str, Any]:
    """What makes it another asset: not where the files come from."""
    return {"kind": asset.kind, "files": [file.model_dump(mode="json", exclude={"urls"}) for file in asset.files]}


def _bring(file: AssetFile, folder: Path, tell: Tell) -> Path:
    """One file, fetched unless it is there: brought by hand, or by a run that ended later."""
    target = folder / file.name
    if target.is_file() and fault_of(file, target) is None:
        tell(f"{file.name}: there already")
    else:
        tell(f"{file.name}: fetching from {file.urls[0]}")
        download(file, target, tell)
    return target


def _entry(path: Path) -> Entry:
    return {"bytes": path.stat().st_size, "sha256": digest_of(path, "sha256")}


def _notes(asset: Files, receipt: Receipt) -> tuple[str, ...]:
    """What is not pinned, with the keys that would pin it."""
    found = {**receipt.files, **receipt.archives}
    return tuple(
        f"{file.name} is not pinned; these are the bytes that came, for its asset file:"
        f" {{sha256: {found[file.name]['sha256']}, size: {found[file.name]['bytes']}}}"
        for file in asset.files
        if not file.pinned
    )
