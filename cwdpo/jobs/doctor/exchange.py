"""The ranks of the probe meet as those of a training do, exchange tensors, and look at each other's files."""

from __future__ import annotations

import os
import re
import socket
import struct
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from cwdpo.base import distributed, files
from cwdpo.base.errors import CwdpoError
from cwdpo.base.runtime import Rank
from cwdpo.jobs.doctor.check import Finding, failure, ok, warning

BYTES = 64 * 2**20
REPEATS = 5
VISIBLE_SECONDS = 60.0
LATE_SECONDS = 5.0
NCCL_LOG = "CWDPO_DOCTOR_NCCL_LOG"
INFINIBAND = Path("/sys/class/infiniband")
CHOICES = ("NCCL_SOCKET_IFNAME", "GLOO_SOCKET_IFNAME")
ADDRESS_OF_INTERFACE = 0x8915  # SIOCGIFADDR


class Exchange:
    """What the ranks do together, in order; each step needs those before it.

    Attributes:
        clock: this rank's time of day at the end of the first exchange, which ends for all at the same moment.
    """

    def __init__(self, rank: Rank, folder: Path, nodes: int) -> None:
        self.rank, self.folder, self.nodes = rank, folder, nodes
        self.clock: float | None = None
        self._log = Path(tempfile.gettempdir()) / f"cwdpo-nccl-{os.getpid()}.log"

    def run(self) -> Iterator[Finding]:
        """Meet, add up, send much, look."""
        os.environ |= {"NCCL_DEBUG": "INFO", "NCCL_DEBUG_SUBSYS": "INIT,NET", "NCCL_DEBUG_FILE": str(self._log)}
        try:
            with distributed.leaving():
                yield from self._together()
        except (CwdpoError, RuntimeError) as error:  # the second from gloo and NCCL, of a fault of this rank's own
            yield failure("all-reduce", str(error), _network_remedy())
        finally:
            self._log.unlink(missing_ok=True)

    def _together(self) -> Iterator[Finding]:
        distributed.start(self.rank)
        with distributed.naming_missing():
            yield self._sum()
            yield from self._bandwidth()
        yield from self._seen()

    def _sum(self) -> Finding:
        """Ranks add up to a number that is known."""
        import torch

        world = self.rank.world_size
        mine = torch.tensor([float(self.rank.rank + 1)], device=distributed.device_of(self.rank))
        distributed.sum_over_ranks(mine, self.rank)  # the first one sets up connections
        (found,) = distributed.sum_over_ranks(mine, self.rank)
        self.clock = time.time()
        if found != world * (world + 1) / 2:
            return failure("all-reduce", f"{world} ranks add up to {found:g}, not {world * (world + 1) / 2:g}", "")
        return ok("all-reduce", f"{world} rank(s) on {self.nodes} node(s) met and added up right")

    def _bandwidth(self) -> Iterator[Finding]:
        """Gradients of a size as in a training; only rank 0 says how long they take."""
        import torch

        if self.rank.world_size == 1:
            return
        tensor = torch.ones(BYTES // 4, device=distributed.device_of(self.rank))
        seconds = min(self._once(tensor) for _ in range(REPEATS))
        if self.rank.is_first:
            share = 2 * (self.rank.world_size - 1) / self.rank.world_size
            text = f"{BYTES / 2**20:.0f} MB in {1000 * seconds:.0f} ms, {share * BYTES / seconds / 1e9:.2f} GB/s"
            yield self._judged(text)

    def _once(self, tensor: object) -> float:
        import torch

        assert isinstance(tensor, torch.Tensor)
        began = time.monotonic()
        torch.distributed.all_reduce(tensor)
        if tensor.is_cuda:
            torch.cuda.synchronize(tensor.device)
        return time.monotonic() - began

    def _judged(self, text: str) -> Finding:
        import torch

        if torch.distributed.get_backend() != "nccl":
            return ok("bandwidth", f"{text}, gloo over TCP{_interface_of_gloo()}")
        ways = transports(self._log.read_text(errors="replace") if self._log.exists() else "")
        found = f"{text}, NCCL over {', '.join(ways) or 'a transport that it does not name'}"
        cards = infiniband()
        if cards and self.nodes > 1 and "NET/Socket" in ways:
            remedy = "environment.NCCL_IB_HCA of the profile; in a container also its libibverbs, and memlock unlimited"
            return warning("bandwidth", f"{found}, although this node has {', '.join(cards)}", remedy)
        return ok("bandwidth", found)

    def _seen(self) -> Iterator[Finding]:
        """A file that rank 0 writes, as the others see it."""
        path = self.folder / "seen"
        if self.rank.is_first:
            files.write_text(path, "seen")
        distributed.from_first_rank("written", self.rank)
        seconds = _seconds_until(path)
        distributed.barrier()
        if seconds is None:
            found = f"a file of rank 0 is not seen after {VISIBLE_SECONDS:.0f} s"
            yield failure("shared home", found, "put the home where all nodes see it: --home or CWDPO_HOME")
        elif seconds > LATE_SECONDS:
            remedy = "nothing: jobs wait for late files; a file system for many nodes would be quicker"
            yield warning("shared home", f"a file of rank 0 was seen {seconds:.0f} s late", remedy)
        else:
            yield ok("shared home", f"what one node writes, the others see within {LATE_SECONDS:.0f} s")


def _seconds_until(path: Path) -> float | None:
    """How long it takes until a file can be read whole; None if too long."""
    began = time.monotonic()
    while time.monotonic() - began < VISIBLE_SECONDS:
        try:
            if path.read_text(encoding="utf-8") == "seen":
                return time.monotonic() - began
        except OSError:
            os.listdir(path.parent)  # makes a network file system look again
        time.sleep(0.05)
    return None


def transports(log: str) -> list[str]:
    """How NCCL's channels go, of what it logs: `NET/IB`, `NET/Socket`, `P2P`, `SHM`."""
    found = re.findall(r"via (?:(NET/[\w .-]+?)/\d|(P2P|SHM)\b)", log)
    return sorted({net or local for net, local in found})


def infiniband() -> list[str]:
    """InfiniBand (and RoCE) cards of this node."""
    return sorted(os.listdir(INFINIBAND)) if INFINIBAND.is_dir() else []


def interfaces() -> dict[str, str]:
    """Network interface -> its IPv4 address."""
    import fcntl

    found = {}
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        for _, name in socket.if_nameindex():
            try:
                answer = fcntl.ioctl(probe.fileno(), ADDRESS_OF_INTERFACE, struct.pack("256s", name.encode()[:15]))
            except OSError:  # has none
                continue
            found[name] = socket.inet_ntoa(answer[20:24])
    return found


def _interface_of_gloo() -> str:
    """gloo takes what GLOO_SOCKET_IFNAME says, else the address of the host's name."""
    chosen = os.environ.get("GLOO_SOCKET_IFNAME")
    if chosen:
        return f" on {chosen}"
    try:
        address = socket.gethostbyname(socket.gethostname())
    except OSError:
        return ""
    names = [name for name, own in interfaces().items() if own == address]
    return f" on {names[0]} ({address})" if names else f" ({address})"


def _network_remedy() -> str:
    here = ", ".join(f"{name} ({address})" for name, address in interfaces().items())
    chosen = "; ".join(f"{name} is {os.environ[name]}" for name in CHOICES if name in os.environ)
    return (
        f"cluster profile: environment: {' and '.join(CHOICES)} name the network to use"
        f" ({chosen or 'neither is set'}; this node has {here}); its ports must be open between nodes"
    )
