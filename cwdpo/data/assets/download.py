"""One file over HTTP: several addresses, resumed where it broke off, checked, and never half there.

What has arrived is kept in a hidden file beside the target, named after the host and process that write it. A later
run goes on with that of a process that has ended, when a digest will tell whether the two halves belong together.
"""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import socket
import time
import zipfile
from collections.abc import Callable
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit
from urllib.request import Request, urlopen

from cwdpo.base import files
from cwdpo.base.errors import DataError, NotAvailable, StoreError
from cwdpo.data.assets import AssetFile
from cwdpo.version import package_version

CHUNK = 1 << 20
SILENCE_SECONDS = 30.0
"""A server that says nothing for this long is asked again."""
PAUSES = (1.0, 2.0, 4.0)
"""Seconds before each new try; bytes that arrived in between start the count anew."""
TRANSIENT = {408, 425, 429, 500, 502, 503, 504}

Tell = Callable[[str], None]


class _Broken(Exception):
    """The transfer broke off; another try may succeed."""


def download(file: AssetFile, target: Path, tell: Tell) -> None:
    """Bring `file` to `target`, whole and as pinned; the first address that gives the right bytes wins.

    Raises:
        DataError: what the addresses have is not what is pinned.
        NotAvailable: no address can be reached or has it; names the hosts.
        StoreError: the folder cannot be written, or the disk is full.
    """
    with files.writing(target):
        target.parent.mkdir(parents=True, exist_ok=True)
    part = _partial(target, keep=file.pinned)
    try:
        _from_any(file, part, tell)
        with files.writing(target):
            _flush(part)
            os.replace(part, target)
            files.fsync_folder(target.parent)
    except (DataError, StoreError):
        part.unlink(missing_ok=True)
        raise
    finally:
        if not file.pinned:  # nothing could tell whether a second half fits
            part.unlink(missing_ok=True)


def _from_any(file: AssetFile, part: Path, tell: Tell) -> None:
    """Fill `part` from the first address that has the right bytes."""
    faults: list[str] = []
    reasons: list[str] = []
    for url in file.urls:
        try:
            fault = _from_one(file, url, part, tell)
        except NotAvailable as error:
            reasons.append(str(error))
            continue
        if fault is None:
            return
        faults.append(f"{url}: {fault}")
        part.unlink(missing_ok=True)
    if faults:
        raise DataError(
            f"{file.name} is not the file that is pinned, so it was removed\n"
            + "\n".join([*faults, *reasons])
            + "\nfetch again; if it stays so, the file was changed at its source or the pin is wrong"
        )
    raise NotAvailable(
        "\n".join([f"{file.name} cannot be fetched", *reasons])
        + "\nrun this where there is internet (often the login node; behind a proxy set https_proxy), or put the file"
        f" there by other means: {part.parent / file.name}"
    )


def _from_one(file: AssetFile, url: str, part: Path, tell: Tell) -> str | None:
    """Fill `part` from one address; what is wrong with it then, or None."""
    begun = _size(part)
    if begun and fault_of(file, part) is None:
        return None
    _pull(url, part, file.size, tell)
    fault = fault_of(file, part)
    if fault and begun:  # the halves did not belong together
        tell(f"{file.name}: what an earlier run left does not fit; starting anew")
        part.unlink()
        _pull(url, part, file.size, tell)
        fault = fault_of(file, part)
    return fault


def fault_of(file: AssetFile, path: Path) -> str | None:
    """Why `path` is not the file that is meant, with what was expected and found; None when it is."""
    size = _size(path)
    if file.size is not None and size != file.size:
        return f"expected {file.size} bytes, found {size}"
    for name, expected in (("sha256", file.sha256), ("sha1", file.sha1)):
        found = expected and digest_of(path, name)
        if found != expected:
            return f"expected {name} {expected}, found {found} ({size} bytes)"
    return None if file.pinned else _archive_fault(file.name, path)


def _archive_fault(name: str, path: Path) -> str | None:
    """What the checksums inside a zip (a jar is one) say where no digest is pinned: portals answer with web pages."""
    if not name.endswith((".jar", ".zip")):
        return None
    try:
        with zipfile.ZipFile(path) as archive:
            broken = archive.testzip()
    except zipfile.BadZipFile:
        return f"not a zip archive ({_size(path)} bytes)"
    return broken and f"{broken} in it is damaged"


def digest_of(path: Path, algorithm: str) -> str:
    """Hex digest of a file's bytes."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, algorithm).hexdigest()


def _pull(url: str, part: Path, size: int | None, tell: Tell) -> None:
    """Fetch until the end, in as many tries as it takes while bytes arrive."""
    failures = 0
    while True:
        before = _size(part)
        try:
            return _stream(url, part, size, tell)
        except _Broken as error:
            failures = 1 if _size(part) > before else failures + 1
            if failures > len(PAUSES):
                raise NotAvailable(f"{url}: {error}") from error
            tell(f"{_host(url)}: {error}; trying again in {PAUSES[failures - 1]:g} s")
            time.sleep(PAUSES[failures - 1])


def _stream(url: str, part: Path, size: int | None, tell: Tell) -> None:
    """One request; appends where the server agrees to go on, else starts anew."""
    have = _size(part)
    headers = {"User-Agent": f"cwdpo/{package_version()}", **({"Range": f"bytes={have}-"} if have else {})}
    try:
        with urlopen(Request(url, headers=headers), timeout=SILENCE_SECONDS) as response:
            start = have if _goes_on(response, have) else 0
            total = start + int(response.headers["Content-Length"]) if response.headers["Content-Length"] else size
            _check_space(part, (total or 0) - start)
            _copy(response, part, start, total, tell)
    except HTTPError as error:
        _refused(url, part, error)
    except (URLError, OSError, HTTPException) as error:
        raise _Broken(_reason(error)) from error
    if total is not None and _size(part) < total:
        raise _Broken(f"the connection closed after {_size(part)} of {total} bytes")


def _goes_on(response: HTTPResponse, have: int) -> bool:
    """True when the answer continues at byte `have`."""
    return response.status == 206 and str(response.headers["Content-Range"]).startswith(f"bytes {have}-")


def _copy(response: HTTPResponse, part: Path, start: int, total: int | None, tell: Tell) -> None:
    """Write what comes, from byte `start`; says how far it is every ten seconds."""
    said = time.monotonic()
    with files.writing(part), open(part, "r+b" if part.exists() else "wb") as out:
        out.truncate(start)
        out.seek(start)
        while chunk := _read(response):
            out.write(chunk)
            if time.monotonic() - said > 10:
                said = time.monotonic()
                tell(f"  {out.tell() / 1e6:.0f} of {f'{total / 1e6:.0f}' if total else '?'} MB")


def _read(response: HTTPResponse) -> bytes:
    """The next bytes; what goes wrong on the network must not look like a fault of the disk."""
    try:
        return response.read1(CHUNK)
    except (OSError, HTTPException) as error:
        raise _Broken(str(error) or type(error).__name__) from error


def _refused(url: str, part: Path, error: HTTPError) -> None:
    if error.code == 416:  # the file is shorter now than what we have of it
        part.unlink(missing_ok=True)
        raise _Broken("it cannot go on where it broke off") from error
    if error.code in TRANSIENT:
        raise _Broken(f"HTTP {error.code} {error.reason}") from error
    meaning = {401: "access is refused", 403: "access is refused", 404: "there is no such file"}.get(error.code, "")
    raise NotAvailable(f"{url}: HTTP {error.code} {error.reason}{meaning and f' ({meaning})'}") from error


def _reason(error: Exception) -> str:
    cause = error.reason if isinstance(error, URLError) else error
    text = getattr(cause, "strerror", None) or str(cause) or type(cause).__name__
    return f"no connection ({text})"


def _host(url: str) -> str:
    return urlsplit(url).hostname or url


def _check_space(part: Path, needed: int) -> None:
    free = shutil.disk_usage(part.parent).free
    if needed > free:
        raise StoreError(
            f"no space for {part.parent}: {needed / 1e6:.0f} MB are needed, {free / 1e6:.0f} MB are free;"
            " make room or name another folder"
        )


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _flush(path: Path) -> None:
    with open(path, "rb") as file:
        os.fsync(file.fileno())


def _partial(target: Path, keep: bool) -> Path:
    """The hidden file this process writes to, with what a process that has ended left of it; a rename is the claim."""
    mine = target.with_name(f".{target.name}.{socket.gethostname()}-{os.getpid()}.part")
    for left in sorted(target.parent.glob(f".{target.name}.*.part")):
        if left != mine and _abandoned(left):
            try:
                left.rename(mine) if keep and not mine.exists() else left.unlink()
            except FileNotFoundError:
                continue  # somebody else was faster
    return mine


def _abandoned(part: Path) -> bool:
    """True when the process that wrote it is gone; one on another host is given an hour of silence."""
    host, _, pid = part.name.removesuffix(".part").rpartition("-")
    if host.endswith(f".{socket.gethostname()}"):
        return not _alive(int(pid))
    return time.time() - part.stat().st_mtime > 3600


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except OSError as error:
        return error.errno != errno.ESRCH
    return True
