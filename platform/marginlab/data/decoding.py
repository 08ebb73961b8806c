"""Many images to pixels, in the processes of this machine. Pillow and numpy alone, so that they start quickly.

A process that is killed, for its memory or by a crash in an image's decoder, costs a second try: image by image, in a
process that does nothing else. Whoever ends that one, too, is not read, and the rest goes on.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Generator, Iterable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from itertools import islice

import numpy as np

from marginlab import spawned
from marginlab.data.decode import Decoder

AHEAD = 3  # chunks per process: one at work, the others ready
TRIES = 2  # of an image whose decoding ends its process
DEATH = "decoding it ends the process, again and again: it crashes, or takes more memory than there is"

Task = tuple[str, bool]  # path relative to the raw folder, whether to mirror


@dataclass(frozen=True)
class Decoded:
    """The images of a chunk."""

    pixels: np.ndarray  # uint8 [n, C, size, size]; black where an image could not be read
    lost: dict[int, str]  # place in the chunk: why it could not


# Gives (number of the chunk, its images) in the order in which they are ready, every chunk once.
Hands = Callable[[Decoder, Iterable[Sequence[Task]]], Generator[tuple[int, Decoded], None, None]]


def decode(decoder: Decoder, tasks: Sequence[Task]) -> Decoded:
    return gathered(decoder, [decoder(task) for task in tasks])


def gathered(decoder: Decoder, made: Sequence[np.ndarray | str]) -> Decoded:
    """The chunk of these images and reasons."""
    pixels = np.zeros((len(made), decoder.channels, decoder.size, decoder.size), np.uint8)
    lost = {}
    for i, image in enumerate(made):
        if isinstance(image, str):
            lost[i] = image
        else:
            pixels[i] = image
    return Decoded(pixels, lost)


def cores() -> int:
    """That this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def here(workers: int) -> Hands:
    """In this process, or in several of this machine. They are spawned and end with the one that asked for them."""
    return _in_turn if workers <= 1 else lambda decoder, chunks: _pooled(decoder, chunks, workers)


def _in_turn(decoder: Decoder, chunks: Iterable[Sequence[Task]]) -> Generator[tuple[int, Decoded], None, None]:
    for i, chunk in enumerate(chunks):
        yield i, decode(decoder, chunk)


def _pooled(
    decoder: Decoder, chunks: Iterable[Sequence[Task]], workers: int
) -> Generator[tuple[int, Decoded], None, None]:
    numbered = enumerate(chunks)
    while True:
        suspects: dict[int, Sequence[Task]] = {}  # handed out, and not back
        under_way: dict[Future[Decoded], int] = {}
        pool = spawned.pool(workers)
        try:
            while True:
                for i, chunk in islice(numbered, AHEAD * workers - len(under_way)):
                    suspects[i] = chunk  # first: a broken pool takes nothing
                    under_way[pool.submit(decode, decoder, chunk)] = i
                if not under_way:
                    return
                for future in wait(under_way, return_when=FIRST_COMPLETED).done:
                    made = future.result()
                    i = under_way.pop(future)
                    del suspects[i]
                    yield i, made
        except BrokenProcessPool:
            for future, i in under_way.items():
                if future.done() and future.exception() is None:
                    del suspects[i]
                    yield i, future.result()
        finally:
            pool.shutdown(cancel_futures=True)
        guilty = False
        alone = _Alone(decoder)
        try:
            for i, chunk in suspects.items():
                made = gathered(decoder, [alone(task) for task in chunk])
                guilty |= DEATH in made.lost.values()
                yield i, made
        finally:
            alone.close()
        workers -= not guilty and workers > 1  # nobody crashes alone: together they take too much memory


class _Alone:
    """A decoder in a process of its own, which is started again when it dies."""

    def __init__(self, decoder: Decoder) -> None:
        self.decoder = decoder
        self.pool: ProcessPoolExecutor | None = None

    def __call__(self, task: Task) -> np.ndarray | str:
        for _ in range(TRIES):
            self.pool = self.pool or spawned.pool(1)
            try:
                return self.pool.submit(self.decoder, task).result()
            except BrokenProcessPool:
                self.close()
        return DEATH

    def close(self) -> None:
        if self.pool is not None:
            self.pool.shutdown(cancel_futures=True)
            self.pool = None
