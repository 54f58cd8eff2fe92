"""What a compute node is like, from inside what jobs run in."""

from __future__ import annotations

import os
import resource
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

from cwdpo.jobs.containers.image import image_here, short
from cwdpo.jobs.doctor.check import Finding, failure, guarded, ok, unchecked, warning
from cwdpo.jobs.doctor.data import check_assets
from cwdpo.jobs.doctor.exchange import infiniband
from cwdpo.jobs.doctor.packages import check_packages
from cwdpo.jobs.doctor.profile import check_ports
from cwdpo.jobs.doctor.request import Request
from cwdpo.jobs.doctor.storage import judged_skew, seconds_ahead
from cwdpo.jobs.doctor.tools import check_tools

FREE_TEMPORARY = 10**9
FREE_SHARED = 10**9
TABLES = (Path("/proc/net/tcp"), Path("/proc/net/tcp6"))
LISTENS = "0A"


def check_node(request: Request, folder: Path) -> Iterator[Finding]:
    """Once a node."""
    yield from guarded("container", check_container, request.image)
    yield from guarded("packages", check_packages, request.packages)
    yield from guarded("temporary files", _temporary)
    yield from guarded("ports", check_ports, request.ports)
    yield from guarded("ports taken", check_taken, request.ports)
    yield from guarded("node's clock", clock_of_files, folder)
    yield from guarded("memory to lock", _memlock)
    if request.gpus_per_node:
        yield from guarded("shared memory", _shared_memory)
    yield from check_tools()
    yield from check_assets(request.assets)


def check_container(wanted: str | None, environ: Mapping[str, str] = os.environ) -> Iterator[Finding]:
    """That ranks are where the profile wants them.

    Args:
        wanted: digest of the image, None for no container.
    """
    here = image_here(environ)
    digest = here and here["digest"]
    if wanted is None:
        yield ok("container", f"none; Python is {sys.executable}")
    elif here is None:
        yield failure("container", "the ranks are in no container", "cluster profile: container")
    elif digest != wanted:
        yield failure("container", f"the ranks are in {digest or 'an unknown image'}, not {wanted}", "submit again")
    else:
        yield ok("container", f"{here['file']}, {short(wanted)}")


def _temporary() -> Iterator[Finding]:
    folder = tempfile.gettempdir()
    found = os.statvfs(folder)
    free = found.f_bavail * found.f_frsize
    if free < FREE_TEMPORARY:
        text = f"{folder} has {free / 1e9:.2f} GB free, less than {FREE_TEMPORARY / 1e9:.0f} GB"
        yield warning("temporary files", text, "cluster profile: scratch: a folder on a larger disk of the node")
    else:
        yield ok("temporary files", f"{folder} has more than {FREE_TEMPORARY / 1e9:.0f} GB free")


def _shared_memory() -> Iterator[Finding]:
    """NCCL exchanges through it within a node."""
    found = os.statvfs("/dev/shm")
    if found.f_bavail * found.f_frsize < FREE_SHARED:
        text = f"/dev/shm has {found.f_bavail * found.f_frsize / 1e6:.0f} MB free; NCCL works in it"
        yield warning("shared memory", text, "ask the site for a larger /dev/shm, or set NCCL_SHM_DISABLE=1")
    else:
        yield ok("shared memory", f"/dev/shm has more than {FREE_SHARED / 1e9:.0f} GB free")


def _memlock() -> Iterator[Finding]:
    """InfiniBand needs memory that is never swapped."""
    soft, _ = resource.getrlimit(resource.RLIMIT_MEMLOCK)
    cards = infiniband()
    if not cards:
        yield ok("memory to lock", "no InfiniBand card is seen, so none is needed")
    elif soft == resource.RLIM_INFINITY:
        yield ok("memory to lock", f"unlimited, as {', '.join(cards)} want it")
    else:
        text = f"`ulimit -l` is {soft // 1024} kB, but {', '.join(cards)} want it unlimited"
        yield warning("memory to lock", text, "ask the site: LimitMEMLOCK=infinity for slurmd, PropagateResourceLimits")


def clock_of_files(folder: Path) -> Iterator[Finding]:
    """Times of files in the home beside this node's clock."""
    yield judged_skew("node's clock", seconds_ahead(folder), "times of files in the home", "the node's clock")


def check_taken(ports: tuple[int, int], tables: tuple[Path, ...] = TABLES) -> Iterator[Finding]:
    """How many of the ports to meet on other programs listen on."""
    wanted = range(ports[0], ports[1] + 1)
    taken = [port for port in listening(tables) if port in wanted]
    if not any(table.is_file() for table in tables):
        yield unchecked("ports taken", f"{tables[0]} cannot be read")
    elif len(taken) == len(wanted):
        yield failure("ports taken", f"other programs listen on all of {ports[0]}-{ports[1]}", "cluster profile: ports")
    elif len(taken) > len(wanted) // 10:
        found = f"other programs listen on {len(taken)} of the {len(wanted)} ports {ports[0]}-{ports[1]}"
        yield warning("ports taken", found, "cluster profile: ports: a larger range; collisions are tried again")
    else:
        yield ok("ports taken", f"more than nine in ten of {ports[0]}-{ports[1]} are free")


def listening(tables: tuple[Path, ...] = TABLES) -> set[int]:
    """Ports of this host that somebody listens on."""
    lines = [line.split() for table in tables if table.is_file() for line in table.read_text().splitlines()[1:]]
    return {int(words[1].rpartition(":")[2], 16) for words in lines if len(words) > 3 and words[3] == LISTENS}
