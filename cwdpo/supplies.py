"""What pipelines read that is no stage's: folders of data, models and prepared benchmarks, found and fingerprinted."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from cwdpo.base.config import Config
from cwdpo.base.errors import ConfigError, CwdpoError, DataError, ModelError
from cwdpo.base.identity import digest
from cwdpo.base.trail import note
from cwdpo.data.sources import DATA_SOURCE, DataSource, Files, Karpathy, data_digest, data_root
from cwdpo.evaluate.benchmarks.benchmark import Questions
from cwdpo.evaluate.benchmarks.captions import PreparedCaptions
from cwdpo.evaluate.prepared import FOLDER, find_prepared
from cwdpo.graph import Outside
from cwdpo.model.config import Checkpoint, checkpoint_folder, model_digest

AbsentKind = Literal["data", "model", "benchmark"]


@dataclass(frozen=True)
class Absent:
    """Something outside the store that a grid needs and that is not there, or not as it has to be.

    Attributes:
        settings: as the grid file describes it: a data source, a checkpoint, a benchmark.
        fault: what was found, and what mends it.
    """

    kind: AbsentKind
    settings: Config
    fault: CwdpoError

    @property
    def why(self) -> str:
        """The fault in words."""
        return str(self.fault)


class Supplies:
    """Finds what lies outside the store.

    Args:
        cache: digests of data are kept in it.
        prepared: folder of the receipts of prepared benchmarks; None is the one beside `cache`.
        absent: told what is not there, each time; None raises its error instead.
    """

    def __init__(self, cache: Path, prepared: Path | None, absent: Callable[[Absent], object] | None) -> None:
        self._cache, self._prepared, self._absent = cache, prepared or cache.parent / FOLDER, absent
        self._not_ready: set[Path] = set()

    def data(self, data: Files) -> Outside:
        """The folder of a data set."""
        if data.root in self._not_ready:
            return _stand_in(data.root, "benchmark", data)
        return self._found("data", data, data.root / data.annotations, lambda: _data_files(data, self._cache))

    def model(self, model: Checkpoint) -> Outside:
        """The folder of a checkpoint."""
        return self._found("model", model, Path(model.path), lambda: _checkpoint(model))

    def questions(self, benchmark: Questions) -> Outside:
        """The files of a prepared benchmark."""
        path = self._prepared / benchmark.name
        return self._found("benchmark", benchmark, path, lambda: _downloaded(benchmark, self._prepared))

    def captions(self, benchmark: PreparedCaptions) -> DataSource:
        """The data set that was prepared; where none was and somebody is to be told, one in a folder that is not."""
        try:
            found: DataSource = DATA_SOURCE.validate_python(find_prepared(benchmark, self._prepared).data)
            return found
        except ConfigError as error:
            if self._absent is None:
                raise
            self._absent(Absent("benchmark", benchmark, error))
            root = self._prepared / benchmark.name
            self._not_ready.add(root)
            return Karpathy(source="karpathy", root=root, annotations=benchmark.annotations)

    def _found(self, kind: AbsentKind, settings: Config, path: Path, find: Callable[[], Outside]) -> Outside:
        """A folder outside the store; where it is not there and somebody is to be told, what stands in for it."""
        try:
            return find()
        except (ConfigError, DataError, ModelError) as error:
            if self._absent is None:
                raise
            self._absent(Absent(kind, settings, error))
            return _stand_in(path, kind, settings)


def _stand_in(path: Path, kind: AbsentKind, settings: Config) -> Outside:
    """For a folder that is not there: equal settings give equal digests."""
    return Outside(path, digest([kind, settings.model_dump(mode="json")]), absent=True)


def _data_files(data: Files, cache: Path) -> Outside:
    root = data.root.expanduser()
    note(root, *(root / name for name in data.annotation_files))
    return Outside(data_root(data), data_digest(data, cache))


def _checkpoint(model: Checkpoint) -> Outside:
    note(Path(model.path).expanduser())
    folder = checkpoint_folder(model)
    note(folder)
    return Outside(folder, model_digest(folder))


def _downloaded(benchmark: Questions, prepared: Path) -> Outside:
    """The files of a prepared benchmark."""
    found = find_prepared(benchmark, prepared)
    return Outside(Path(found.root), found.digest)
