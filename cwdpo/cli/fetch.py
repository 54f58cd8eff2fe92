"""`cwdpo fetch`: models, data and jars onto the cluster's file system, from where there is internet."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cwdpo.cli.app import HomeOption, JsonOption, SetOption, Source, app, print_json

if TYPE_CHECKING:
    from cwdpo.data.assets import Files, HubDataset, HubModel
    from cwdpo.data.assets.hub import Repository
    from cwdpo.data.assets.receipts import Outcome
    from cwdpo.model.config import Checkpoint


@app.command(epilog="Example: cwdpo fetch spice && cwdpo fetch --grid coco")
def fetch(
    names: Annotated[
        list[str] | None, typer.Argument(help="A name in configs/assets/ or configs/models/, or an asset file's path.")
    ] = None,
    grid: Annotated[str | None, typer.Option("--grid", "-g", help="Also the hub models this grid needs.")] = None,
    override: SetOption = None,
    to: Annotated[
        Path | None, typer.Option("--to", help="Folder for files from URLs.  [default: <home>/assets/<name>]")
    ] = None,
    home: HomeOption = None,
    check: Annotated[
        bool, typer.Option("--check", help="Offline: read every byte of what was fetched and compare.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Fetch pinned models, data and jars where there is internet; jobs then find them offline.

    Run twice, it fetches nothing; interrupted, the same command goes on. Hub models go to the hub cache (HF_HOME).
    """
    from cwdpo.base.errors import ConfigError

    if to and to.is_file():
        raise ConfigError(f"--to: {to} is a file; name a folder")
    place = _Place(Source(grid or "", tuple(override or []), home), to, check)
    outcomes = [place.bring(name, asset) for name, asset in _wanted(place.source, names or []).items()]
    if not outcomes and not as_json:
        typer.echo("nothing to fetch: what this grid needs is here, or made by its own stages")
    if as_json:
        print_json({"assets": [outcome.as_json() for outcome in outcomes]})
    else:
        _print(outcomes)


@dataclass(frozen=True)
class _Place:
    """Where things go, and whether they are only checked."""

    source: Source
    to: Path | None
    check: bool

    @property
    def assets(self) -> Path:
        """Folder of receipts, and of files that have no other place."""
        return self.to or self.source.store.home / "assets"

    def bring(self, name: str, asset: Files | Repository) -> Outcome:
        """Fetch or check one."""
        from cwdpo.data.assets.hub import Repository

        return self._repository(asset) if isinstance(asset, Repository) else self._files(name, asset)

    def _files(self, name: str, asset: Files) -> Outcome:
        from cwdpo.data.assets.urls import check_files, fetch_files

        folder, receipt = self.to or self.assets / name, self.assets / f"{name}.json"
        if self.check:
            return check_files(name, asset, folder, receipt)
        return fetch_files(name, asset, folder, receipt, _tell)

    def _repository(self, repository: Repository) -> Outcome:
        from cwdpo.base.errors import ConfigError
        from cwdpo.data.assets.hub import check_repository, fetch_repository

        if self.to:
            raise ConfigError(
                f"--to: {repository.name} goes to the hub cache; HF_HOME=FOLDER moves that, --to does not"
            )
        if self.check:
            return check_repository(repository, self.assets)
        return fetch_repository(repository, self.assets, _tell)


def _wanted(source: Source, names: Sequence[str]) -> dict[str, Files | Repository]:
    """Name -> what it is, each once; models that are folders of this machine are left out.

    Raises:
        ConfigError: nothing is named, an unknown name (lists the known ones), or a wrong key in a file.
    """
    from cwdpo.base.errors import ConfigError
    from cwdpo.experiment import config_folder
    from cwdpo.model.config import Checkpoint

    if not names and not source.grid:
        raise ConfigError(
            f"nothing to fetch: name it, or say --grid GRID; known in {config_folder()}/: {', '.join(_known())}"
        )
    found = {Path(name).stem if _is_path(name) else name: _asset(name) for name in names}
    models = [cell.experiment.model for cell in source.load().cells] if source.grid else []
    found |= {model.path: model for model in models if isinstance(model, Checkpoint)}
    folders = {name for name, asset in found.items() if isinstance(asset, Checkpoint) and _is_folder(asset)}
    for name in folders:
        _tell(f"{name}: a folder of this machine, nothing to fetch")
    return {name: _fetchable(asset) for name, asset in found.items() if name not in folders}


def _asset(name: str) -> Files | HubModel | HubDataset | Checkpoint:
    """What a name or a path stands for."""
    from cwdpo.base.config import read_yaml, validate
    from cwdpo.base.errors import ConfigError, name_valid
    from cwdpo.data.assets import read_asset
    from cwdpo.experiment import config_folder
    from cwdpo.model.config import Checkpoint

    if _is_path(name):
        return read_asset(Path(name))
    path = _known().get(name)
    if path is None:
        folder = config_folder()
        raise ConfigError(f"unknown asset {name_valid(name, _known())} (looked in {folder}/assets/, {folder}/models/)")
    return read_asset(path) if path.parent.name == "assets" else validate(Checkpoint, read_yaml(path), str(path))


def _is_path(name: str) -> bool:
    return name.endswith((".yaml", ".yml")) or "/" in name


def _known() -> dict[str, Path]:
    """Name -> file of every asset, and of every model that comes from somewhere else."""
    from cwdpo.base.config import read_yaml
    from cwdpo.experiment import config_folder

    models = [path for path in config_folder().glob("models/*.yaml") if read_yaml(path).get("source") == "checkpoint"]
    return {path.stem: path for path in sorted([*models, *config_folder().glob("assets/*.yaml")])}


def _is_folder(model: Checkpoint) -> bool:
    return Path(model.path).expanduser().is_dir()


def _fetchable(asset: Files | HubModel | HubDataset | Checkpoint) -> Files | Repository:
    from cwdpo.data.assets import Files, HubDataset
    from cwdpo.data.assets.hub import Repository
    from cwdpo.model.config import MODEL_FILES, Checkpoint

    if isinstance(asset, Files):
        return asset
    if isinstance(asset, HubDataset):
        return Repository("dataset", asset.repo, asset.revision, asset.include)
    name = asset.path if isinstance(asset, Checkpoint) else asset.repo
    return Repository("model", name, asset.revision, MODEL_FILES, flat=True)


def _print(outcomes: Sequence[Outcome]) -> None:
    from cwdpo.cli.sizes import human

    said = {
        "fetched": "fetched",
        "present": "there already (--check reads every byte)",
        "checked": "every byte is as it was fetched",
    }
    for outcome in outcomes:
        count = f"{len(outcome.files)} file{'s' if len(outcome.files) > 1 else ''}, {human(outcome.bytes)}"
        typer.echo(f"{outcome.name}: {said[outcome.state]}: {count} in {outcome.folder}")
        for note in outcome.notes:
            typer.echo(f"  note: {note}")


def _tell(text: str) -> None:
    typer.echo(text, err=True)
