"""Fetch and check a repository of the Hugging Face hub, in the normal hub cache, at one commit."""

from __future__ import annotations

import errno
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from fnmatch import fnmatch
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import urlsplit

from cwdpo.base.errors import ConfigError, DataError, NotAvailable, StoreError
from cwdpo.data.assets.download import Tell
from cwdpo.data.assets.receipts import Outcome, Receipt, faults_in, never_fetched

if TYPE_CHECKING:
    from huggingface_hub.hf_api import RepoFile


@dataclass(frozen=True)
class Repository:
    """What to take from the hub.

    Attributes:
        name: `owner/name`.
        revision: full commit; a branch or tag, or None for the main branch, is not pinned.
        include: patterns of the files that are taken; empty takes all.
        flat: take nothing from folders inside the repository.
    """

    kind: Literal["model", "dataset"]
    name: str
    revision: str | None
    include: tuple[str, ...] = ()
    flat: bool = False

    @property
    def pinned(self) -> bool:
        """True when the revision can never mean other files."""
        return bool(self.revision and re.fullmatch("[0-9a-f]{40}", self.revision))

    def takes(self, path: str) -> bool:
        """True for a file that is wanted."""
        return not (self.flat and "/" in path) and (not self.include or any(fnmatch(path, p) for p in self.include))

    def snapshot(self, revision: str | None, offline: bool) -> Path:
        """Folder of the snapshot in the cache; online, fetches what is missing of it."""
        from huggingface_hub import snapshot_download

        return Path(
            snapshot_download(
                self.name,
                repo_type=self.kind,
                revision=revision,
                allow_patterns=list(self.include) or None,
                ignore_patterns=["*/*"] if self.flat else None,
                local_files_only=offline,
            )
        )

    def receipt(self, folder: Path, commit: str) -> Receipt:
        """Where it is written down that this commit was fetched, whoever asked for it."""
        source = {"kind": f"hub_{self.kind}", "repo": self.name, "revision": commit, "include": list(self.include)}
        return Receipt(folder / f"{self.name.replace('/', '--')}@{commit[:12]}.json", source)


def fetch_repository(repository: Repository, receipts: Path, tell: Tell) -> Outcome:
    """Bring a repository into the hub cache and compare every file with the digests the hub states for the commit.

    Raises:
        DataError: a file has other bytes than the hub says (it is removed), or there is no such repository or commit.
        NotAvailable: the hub cannot be reached, or does not let this account in.
        StoreError: the cache cannot be written, or the disk is full.
    """
    if repository.pinned and (known := _known(repository, receipts)):
        return known
    with _plainly(repository):
        commit = _commit(repository)
        expected = [file for file in _listing(repository, commit) if repository.takes(file.path)]
        _check_space(repository, commit, expected)
        tell(f"{repository.name}: {len(expected)} files, {sum(file.size for file in expected) / 1e9:.2f} GB, {commit}")
        folder = repository.snapshot(commit if repository.pinned else repository.revision, offline=False)
    entries = {file.path: _entry(file) for file in expected}
    tell(f"{repository.name}: comparing with the hub's digests")
    _remove_wrong(repository, folder, entries)
    replace(repository.receipt(receipts, commit), files=entries).write()
    return Outcome(repository.name, "fetched", folder, entries, _notes(repository, commit), commit)


def check_repository(repository: Repository, receipts: Path) -> Outcome:
    """Read every byte in the hub cache again and compare with the receipt; needs no network.

    Raises:
        DataError: names each file that is not as it was.
        NotAvailable: it is not in the cache, or was not fetched by this command.
    """
    folder = _cached(repository)
    known = repository.receipt(receipts, folder.name).read() if folder else None
    if folder is None or known is None:
        raise never_fetched(repository.name, folder or Path(_cache()))
    known.verify(folder, f"remove {folder.parent.parent} and fetch it again")
    notes = _notes(repository, folder.name)
    return Outcome(repository.name, "checked", folder, known.files, notes, folder.name)


def _known(repository: Repository, receipts: Path) -> Outcome | None:
    """The outcome where a receipt says that all is there, and it still is."""
    folder = _cached(repository)
    known = repository.receipt(receipts, folder.name).read() if folder else None
    if not folder or not known or not known.complete(folder):
        return None
    return Outcome(repository.name, "present", folder, known.files, (), folder.name)


def _cached(repository: Repository) -> Path | None:
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    with suppress(LocalEntryNotFoundError, HFValidationError):
        return repository.snapshot(repository.revision, offline=True)
    return None


def _commit(repository: Repository) -> str:
    """The commit that is meant now; asked for a pinned one too, because this answers at once what is wrong."""
    from huggingface_hub import HfApi

    commit = HfApi().repo_info(repository.name, repo_type=repository.kind, revision=repository.revision).sha
    assert commit is not None, "the hub always names the commit"
    return commit


def _listing(repository: Repository, commit: str) -> Iterator[RepoFile]:
    from huggingface_hub import HfApi
    from huggingface_hub.hf_api import RepoFile

    tree = HfApi().list_repo_tree(repository.name, recursive=True, revision=commit, repo_type=repository.kind)
    return (entry for entry in tree if isinstance(entry, RepoFile))


def _entry(file: RepoFile) -> dict[str, Any]:
    """Big files are stored by the digest of their bytes, small ones by git's name for them."""
    digest = {"sha256": file.lfs.sha256} if file.lfs else {"git_sha1": file.blob_id}
    return {"bytes": file.size, **digest}


def _check_space(repository: Repository, commit: str, expected: list[RepoFile]) -> None:
    cache = Path(_cache())
    cache.mkdir(parents=True, exist_ok=True)
    snapshot = cache / f"{repository.kind}s--{repository.name.replace('/', '--')}" / "snapshots" / commit
    needed = sum(file.size for file in expected if not (snapshot / file.path).exists())
    free = shutil.disk_usage(cache).free
    if needed > free:
        raise StoreError(
            f"no space for {repository.name} in {cache}: {needed / 1e9:.1f} GB needed, {free / 1e9:.1f} GB free;"
            " make room, or set HF_HOME to a folder on a bigger file system (and set it for the jobs, too)"
        )


def _remove_wrong(repository: Repository, folder: Path, entries: dict[str, dict[str, Any]]) -> None:
    faults = faults_in(folder, entries)
    for name in (fault.partition(":")[0] for fault in faults):
        blob = (folder / name).resolve()
        (folder / name).unlink(missing_ok=True)
        blob.unlink(missing_ok=True)
    if faults:
        raise DataError(
            "\n".join(
                [f"{repository.name}: {len(faults)} files are not what the hub states; they were removed", *faults]
            )
            + "\nfetch again; if it stays so, something on the way changes files (a proxy, a mirror in HF_ENDPOINT)"
        )


def _notes(repository: Repository, commit: str) -> tuple[str, ...]:
    if repository.pinned:
        return ()
    return (f"{repository.name} is not pinned; put beside its path or repo in the YAML file: revision: {commit}",)


def _cache() -> str:
    from huggingface_hub import constants

    return str(constants.HF_HUB_CACHE)


@contextmanager
def _plainly(repository: Repository) -> Iterator[None]:
    """Turn what the hub's library raises into one sentence with a remedy."""
    from httpx2 import HTTPError
    from huggingface_hub import constants
    from huggingface_hub import errors as hub

    host = urlsplit(constants.ENDPOINT).hostname
    try:
        yield
    except hub.HFValidationError as error:
        raise ConfigError(f"'{repository.name}' is neither a folder here nor a hub id (owner/name)") from error
    except hub.GatedRepoError as error:
        raise NotAvailable(_gated(repository)) from error
    except hub.RevisionNotFoundError as error:
        raise DataError(f"{repository.name} has no revision '{repository.revision}' on {host}") from error
    except hub.RepositoryNotFoundError as error:
        raise NotAvailable(
            f"{repository.name}: {host} has no such {repository.kind}, or it is private: check the spelling;"
            f" a private one needs an account's token in HF_TOKEN{_token_state()}"
        ) from error
    except (hub.HfHubHTTPError, hub.OfflineModeIsEnabled, hub.LocalEntryNotFoundError, HTTPError) as error:
        raise NotAvailable(f"{repository.name}: {_network(error, str(host))}") from error
    except OSError as error:
        raise _on_disk(repository, error) from error


def _gated(repository: Repository) -> str:
    return (
        f"{repository.name} is restricted: accept its licence at https://huggingface.co/{repository.name} and set"
        f" HF_TOKEN to a token of that account{_token_state()}"
    )


def _token_state() -> str:
    """Whether there is a token; never the token."""
    from huggingface_hub import get_token

    return " (there is one, but it does not open this)" if get_token() else " (there is none now)"


def _network(error: Exception, host: str) -> str:
    from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled

    if isinstance(error, OfflineModeIsEnabled):
        return "HF_HUB_OFFLINE (or TRANSFORMERS_OFFLINE) is set, so nothing is fetched; unset it for this command"
    if isinstance(error, HfHubHTTPError):
        status = error.response.status_code
        return f"{host} answered HTTP {status}" + ("" if status < 500 else "; try again later, what has come is kept")
    cause = error.__cause__ if error.__cause__ is not None else error
    return (
        f"cannot reach {host} ({cause}); run this where there is internet, often the login node; what has come is kept"
    )


def _on_disk(repository: Repository, error: OSError) -> Exception:
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EROFS, errno.EPERM):
        where = error.filename or _cache()
        return StoreError(f"{repository.name}: cannot write {where}: {os.strerror(error.errno)}; HF_HOME names another")
    return NotAvailable(f"{repository.name}: {error}")
