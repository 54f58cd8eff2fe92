"""What `export` does."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from cwdpo.base import files
from cwdpo.base.errors import ConfigError, StoreError, name_valid
from cwdpo.dynamics.rows import IN_RUN
from cwdpo.graph import Node
from cwdpo.model.snapshots import FOLDER as SNAPSHOTS
from cwdpo.train.checkpoint import HANDED_OVER
from cwdpo.train.config import TrainingSpec

if TYPE_CHECKING:
    from cwdpo.jobs.plan import Plan


BESIDE = shutil.ignore_patterns(SNAPSHOTS, IN_RUN, HANDED_OVER)
"""What a training leaves beside its policy."""


def export_cell(plan: Plan, cell: str, target: Path, merged: bool) -> None:
    """Write the policy of a cell to a new folder.

    Raises:
        ConfigError: no such cell, nothing trained in it, or the folder exists.
        StoreError: its training is not finished.
    """
    if cell not in plan.wired:
        raise ConfigError(f"unknown cell {name_valid(cell, plan.wired)}")
    policy = plan.wired[cell].policy
    if policy is None:
        raise ConfigError(f"cell {cell} trains nothing: it is the base model itself")
    if target.exists():
        raise ConfigError(f"--to: {target} exists; name a new folder")
    artefact = policy.artefact(plan.store)
    if artefact.done() is None:
        raise StoreError(f"cell {cell}: its training is {artefact.state()}, not done")
    trained = artefact.verified_files()
    with files.folder_written_whole(target) as folder:
        if not (trained / "adapter_config.json").exists():
            shutil.copytree(trained, folder, dirs_exist_ok=True, ignore=BESIDE)
        elif merged:
            _merge(policy, _base(plan, policy), trained, folder)
        else:
            _copy_adapter(_base(plan, policy), trained, folder)


def _base(plan: Plan, policy: Node) -> Path:
    """Folder of the model that an adapter changes."""
    base = policy.inputs["model"]
    return base.artefact(plan.store).verified_files() if isinstance(base, Node) else base.path


def _copy_adapter(source: Path, adapter: Path, folder: Path) -> None:
    """The adapter, naming its base model, which the store leaves out because it is a place."""
    shutil.copytree(adapter, folder, dirs_exist_ok=True, ignore=BESIDE)
    config = folder / "adapter_config.json"
    files.write_json(config, {**files.read_json(config), "base_model_name_or_path": str(source.resolve())})


def _merge(policy: Node, source: Path, adapter: Path, folder: Path) -> None:
    """The base model with the adapter's update added to its weights, its processor, and its other small files."""
    from cwdpo.model.load import load_lora, load_model, load_policy_processor

    assert isinstance(policy.spec, TrainingSpec), "a policy is what a training stage made"
    settings = policy.spec.policy
    model = load_lora(load_model(settings, source), adapter, trainable=False).merge_and_unload()
    model.save_pretrained(folder)
    load_policy_processor(settings, source).save_pretrained(folder)
    for path in source.iterdir():  # what our processor leaves aside, such as the video part, other programs ask for
        if path.suffix in (".json", ".jinja", ".txt", ".model") and not path.name.endswith(".index.json"):
            target = folder / path.name
            if not target.exists():
                shutil.copyfile(path, target)
