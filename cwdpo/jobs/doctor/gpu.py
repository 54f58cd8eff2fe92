"""GPUs of a node as torch sees them. Torch is imported inside."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from cwdpo.base.runtime import Rank
from cwdpo.jobs.doctor.check import Finding, failure, guarded, ok, warning

DRIVER = Path("/proc/driver/nvidia/version")
SIZE = 1024


def check_gpus(wanted: int, tasks: int, rank: Rank) -> Iterator[Finding]:
    """As many as the profile says, and torch can compute on this rank's.

    Args:
        wanted: on this node.
        tasks: ranks on this node; a site may show each of them its own GPU only.
    """
    import torch

    seen = torch.cuda.device_count() if torch.cuda.is_available() else 0
    shown = wanted if seen == 1 and tasks == wanted else seen
    if shown != wanted:
        found = f"torch {torch.__version__} sees {seen} GPU(s), the profile says {wanted} a node{_why(seen)}"
        yield failure("GPUs", found, _remedy(wanted))
    elif wanted == 0:
        yield ok("GPUs", "none, as the profile says")
    else:
        built = torch.version.cuda or torch.version.hip
        name = torch.cuda.get_device_name(0)
        yield ok("GPUs", f"{wanted} x {name} a node, driver {driver() or '?'}, torch {torch.__version__} for {built}")
        yield from guarded("GPU arithmetic", _arithmetic, rank)


def driver() -> str | None:
    """Version of the NVIDIA driver; None where there is none."""
    if not DRIVER.is_file():
        return None
    found = re.search(r"Module\D*?(\d+\.[\d.]+)", DRIVER.read_text(encoding="utf-8"))
    return found[1] if found else None


def _why(seen: int) -> str:
    """What torch says when it is told to start all the same, and the versions that have to fit."""
    import torch

    if seen:
        return ""
    built = f"for CUDA {torch.version.cuda}" if torch.version.cuda else "without CUDA"
    versions = f"; driver {driver() or 'not there'}, torch is built {built}"
    try:
        torch.cuda.init()
    except (RuntimeError, AssertionError) as error:
        return f"{versions}: {str(error).splitlines()[0]}"
    return versions


def _remedy(wanted: int) -> str:
    import torch

    if wanted == 0:
        return "cluster profile: node.gpus, or train.gpus_per_node"
    if driver() is None:
        return "cluster profile: node.gpus, gpu_type, constraint; `nvidia-smi` on the node shows what is there"
    if torch.version.cuda is None:
        return "this torch is a build for CPUs: make container, or install the CUDA build on a machine with a GPU"
    return "a torch for this driver's CUDA, a newer driver, or node.gpus in the profile; `nvidia-smi` shows both"


def _arithmetic(rank: Rank) -> Iterator[Finding]:
    """A product in bfloat16 that is known."""
    import torch

    device = torch.device("cuda", rank.local_rank)
    ones = torch.ones(SIZE, SIZE, dtype=torch.bfloat16, device=device)
    if not bool((ones @ ones == SIZE).all()):
        yield failure("GPU arithmetic", "a product of ones is wrong", "report this GPU to the site; exclude: its node")
    elif not torch.cuda.is_bf16_supported(including_emulation=False):
        remedy = "other GPUs (A100 or newer), or `model.dtype: float32`"
        yield warning("GPU arithmetic", "right, but bfloat16 is emulated and slow", remedy)
    else:
        yield ok("GPU arithmetic", "bfloat16 products are right")
