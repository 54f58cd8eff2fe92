"""How much memory this process took at most since it began a stage."""

from __future__ import annotations

import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

PROCESS = Path("/proc/self")
RESET = "5"  # proc(5), clear_refs: the peak begins again at what is used now


def reset_peak() -> None:
    """Begin to measure; where the kernel does not allow that, the peak is that of the whole process."""
    with suppress(OSError):
        (PROCESS / "clear_refs").write_text(RESET)
    cuda = _cuda()
    if cuda:
        cuda.reset_peak_memory_stats()


def peak_bytes() -> dict[str, int]:
    """`memory`: resident memory of this process. `gpu_memory`: what torch reserved on its GPU, where it uses one."""
    found = {}
    for line in (PROCESS / "status").read_text(encoding="utf-8").splitlines():
        if line.startswith("VmHWM:"):
            found["memory"] = int(line.split()[1]) * 1024
    cuda = _cuda()
    return {**found, "gpu_memory": int(cuda.max_memory_reserved())} if cuda else found


def _cuda() -> Any:
    """torch.cuda, where this process has begun to use it."""
    torch = sys.modules.get("torch")
    return torch.cuda if torch is not None and torch.cuda.is_initialized() else None
