"""Encoding images and text in threads, one turn ahead of the computation that needs them."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Encoded = TypeVar("Encoded")
Item = TypeVar("Item")
Turn = TypeVar("Turn")


def ahead(
    turns: Iterable[Turn], items: Callable[[Turn], Sequence[Item]], encode: Callable[[Item], Encoded], workers: int
) -> Generator[tuple[Turn, list[Encoded]]]:
    """Each turn with its items encoded; while a turn is used, `workers` threads encode those of the next.

    Threads and not processes: decoding and scaling an image leave the interpreter's lock, and nothing has to pass
    through shared memory, which is small in containers. Two turns are in memory at a time. With 0 workers a turn
    encodes its own items.

    Raises:
        DataError: from `encode`, at the turn of the item.
    """
    if not workers:
        for turn in turns:
            yield turn, [encode(item) for item in items(turn)]
        return
    pool = ThreadPoolExecutor(workers, "ahead")
    try:
        for turn, futures in _one_ahead((turn, [pool.submit(encode, item) for item in items(turn)]) for turn in turns):
            yield turn, [future.result() for future in futures]
    finally:
        pool.shutdown(cancel_futures=True)


def _one_ahead(
    begun: Iterator[tuple[Turn, list[Future[Encoded]]]],
) -> Iterator[tuple[Turn, list[Future[Encoded]]]]:
    """The same, the next one begun before each is given."""
    current = next(begun, None)
    while current is not None:
        following = next(begun, None)
        yield current
        current = following
