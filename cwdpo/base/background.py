"""Threads beside the main one that are over before the interpreter is.

CPython takes its lock down at the end of a process; a daemon thread that wakes in that moment aborts the process
("take_gil: PyMUTEX_LOCK"), and a job that did its work counts as failed. So who ends a thread also waits for it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

PATIENCE_SECONDS = 5.0  # a thread that hangs in a file system or in a dead connection must not keep the process


class Background:
    """Daemon threads that run until `over` is set.

    Attributes:
        over: what they wait on between two rounds: `while not background.over.wait(seconds): ...`.
    """

    def __init__(self) -> None:
        self.over = threading.Event()
        self._threads: list[threading.Thread] = []

    def start(self, run: Callable[[], None], name: str) -> None:
        """Begin one."""
        thread = threading.Thread(target=run, name=name, daemon=True)
        self._threads.append(thread)
        thread.start()

    def stop(self) -> None:
        """End them all and wait until they have, a few seconds at most; one of them may call this itself."""
        self.over.set()
        for thread in self._threads:
            if thread is not threading.current_thread():
                thread.join(PATIENCE_SECONDS)
