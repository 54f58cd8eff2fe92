"""Being asked to stop: SIGTERM and SIGUSR2 are remembered, so that a stage can save what it has before it ends."""

from __future__ import annotations

import signal

SIGNALS = (signal.SIGTERM, signal.SIGUSR2)


class Stop:
    """Whether this process was asked to stop."""

    _requested = False

    @classmethod
    def install(cls) -> None:
        """Remember both signals from now on; until then they end the process."""

        def remember(number: int, frame: object) -> None:
            cls._requested = True

        for number in SIGNALS:
            signal.signal(number, remember)

    @classmethod
    def requested(cls) -> bool:
        """True once a signal has come."""
        return cls._requested

    @staticmethod
    def ignore() -> None:
        """All is done and said: a signal that comes while the interpreter ends must not look like a failure."""
        for number in SIGNALS:
            signal.signal(number, signal.SIG_IGN)
