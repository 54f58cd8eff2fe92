"""Link torch, and what only torch brings along, into a folder of its own.

    expose_torch.py SITE FOLDER     SITE: the folder that torch lies in; prints what FOLDER shows of it

A base image holds more than torch: torchvision, apex, flash-attn, ... Were SITE itself on the path, libraries would
find those and choose other code than they do in every other environment, and the results would be others.
"""

from __future__ import annotations

import re
import sys
from importlib.metadata import Distribution, distributions
from pathlib import Path

BROUGHT_BY_TORCH = re.compile(r"(nvidia|triton|pytorch-triton|cuda)(-|$)")


def spelled(name: str) -> str:
    """One spelling for the names of packages."""
    return re.sub(r"[-_.]+", "-", name).lower()


def needed(distribution: Distribution) -> set[str]:
    """What it asks for of the libraries that come with torch alone, extras and markers or not."""
    names = (re.match(r"[\w.-]+", requirement) for requirement in distribution.requires or ())
    return {spelled(name[0]) for name in names if name and BROUGHT_BY_TORCH.match(spelled(name[0]))}


def torch_and_its_own(site: Path) -> dict[str, Distribution]:
    """torch, and of what it needs, directly or not, the packages that nothing else here brings."""
    there = {spelled(found.metadata["Name"]): found for found in distributions(path=[str(site)])}
    chosen: dict[str, Distribution] = {}
    wanted = {"torch"}
    while wanted:
        name = wanted.pop()
        chosen[name] = there[name]
        wanted |= (needed(there[name]) & there.keys()) - chosen.keys()
    return chosen


def top_level(distribution: Distribution, site: Path) -> set[str]:
    """Files and folders of SITE that belong to a package; programs beside it (../../bin) do not count."""
    if distribution.files is None:
        sys.exit(f"{distribution.metadata['Name']} in {site} has no list of its files (RECORD): take another base")
    names = {file.parts[0] for file in distribution.files} - {"..", "/", "__pycache__"}
    return {name for name in names if (site / name).exists()}


def main(site: Path, folder: Path) -> None:
    """Make FOLDER."""
    folder.mkdir(parents=True)
    chosen = torch_and_its_own(site)
    for name in {entry for distribution in chosen.values() for entry in top_level(distribution, site)}:
        (folder / name).symlink_to(site / name)
    print("   taken from the base:", ", ".join(f"{name} {found.version}" for name, found in sorted(chosen.items())))


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve(), Path(sys.argv[2]))
