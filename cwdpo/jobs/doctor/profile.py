"""The cluster profile itself, and what it says of this machine."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from cwdpo.jobs.clusters import LocalCluster, SlurmCluster, gpu_count
from cwdpo.jobs.doctor.check import Finding, ok, unchecked, warning
from cwdpo.jobs.launch import PORTS
from cwdpo.version import code_version

DRAWN_FROM = Path("/proc/sys/net/ipv4/ip_local_port_range")


def check_code() -> Iterator[Finding]:
    """Which code this is; what runs later is a copy of it."""
    found = code_version()
    commit = f", commit {str(found['commit'])[:12]}" if found["commit"] else ""
    changed = " with changes that are not committed" if found["dirty"] else ""
    yield ok("code", f"cwdpo {found['version']}{commit}{changed}")


def check_local(cluster: LocalCluster) -> Iterator[Finding]:
    """That this machine has what the profile wants."""
    found = cluster.resolved()
    gpus = gpu_count()
    yield ok("machine", f"{gpus or 'no'} GPU(s): {found.jobs} job(s) of {found.ranks} rank(s) at a time")
    yield from check_ports((PORTS.start, PORTS.stop - 1))


def check_slurm_ports(cluster: SlurmCluster) -> Iterator[Finding]:
    """Ports of the profile; the nodes may be set otherwise than this one."""
    yield from check_ports(cluster.ports)


def check_ports(ports: tuple[int, int], drawn_from: Path = DRAWN_FROM) -> Iterator[Finding]:
    """Ranks meet on ports that the system does not hand out to others."""
    first, last = ports
    try:
        low, high = (int(word) for word in drawn_from.read_text(encoding="utf-8").split())
    except (OSError, ValueError):
        yield unchecked("ports", f"{drawn_from} cannot be read")
        return
    if low <= last and first <= high:
        found = f"ranks meet on {first}-{last}, but this system hands out {low}-{high} to any program"
        free = f"1024-{low - 1}" if low > 2048 else f"{high + 1}-{2**15 - 1}" if high < 32000 else "none below 32768"
        yield warning("ports", found, f"cluster profile: ports: outside of it ({free}); collisions are tried again")
    else:
        yield ok("ports", f"ranks meet on {first}-{last}, outside of {low}-{high}, which any program may draw")
