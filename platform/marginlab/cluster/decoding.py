"""Decoding images on all nodes of a Ray cluster. The pixels come back to the driver, which alone writes."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Generator, Iterable, Sequence
from itertools import islice
from typing import Any

import ray
from ray.exceptions import RayError, RayTaskError

from marginlab.cluster.session import machines
from marginlab.data.decode import Decoder
from marginlab.data.decoding import AHEAD, DEATH, TRIES, Decoded, Task, decode, gathered
from marginlab.values import InputError

LOOK_S = 5.0  # how long what the cluster has is taken as known


@ray.remote(num_cpus=1, max_retries=TRIES - 1)
def _decode(decoder: Decoder, tasks: Sequence[Task]) -> tuple[Decoded, str, list[str]]:
    """The images, on which host, and the files that are not there."""
    absent = [path for path, _ in tasks if not (decoder.root / path).is_file()]
    return decode(decoder, tasks), os.uname().nodename, absent


def on_ray(decoder: Decoder, chunks: Iterable[Sequence[Task]]) -> Generator[tuple[int, Decoded], None, None]:
    """``Hands``: inside a ``marginlab.cluster.session.session``. A node or worker that is lost costs a second try elsewhere.

    Raises:
        InputError: a node does not see the raw folder as this machine does.
    """
    numbered = enumerate(chunks)
    under_way: dict[ray.ObjectRef[Any], tuple[int, Sequence[Task]]] = {}
    window, looked = 0, -math.inf
    try:
        while True:
            if time.monotonic() > looked + LOOK_S:
                window, looked = _window(), time.monotonic()
            for i, chunk in islice(numbered, max(0, window - len(under_way))):
                under_way[_decode.remote(decoder, chunk)] = i, chunk
            if not under_way:
                return
            for ref in ray.wait(list(under_way), num_returns=1)[0]:
                i, chunk = under_way.pop(ref)
                yield i, _fetched(ref, decoder, chunk)
    finally:
        for ref in under_way:
            ray.cancel(ref, force=False)


def _window() -> int:
    """Chunks under way: more than the CPUs that there are, or can be, so that a cluster that can grow does."""
    return max(2, AHEAD * int(machines().total("CPU")))


def _fetched(ref: ray.ObjectRef[Any], decoder: Decoder, chunk: Sequence[Task]) -> Decoded:
    try:
        made, host, absent = ray.get(ref)
    except RayTaskError:
        raise
    except RayError:  # its worker died, on every try
        if len(chunk) == 1:
            return gathered(decoder, [DEATH])
        alone = [_fetched(_decode.remote(decoder, [task]), decoder, [task]) for task in chunk]
        return gathered(decoder, [one.lost.get(0, one.pixels[0]) for one in alone])
    for path in absent:
        if (decoder.root / path).is_file():
            raise InputError(
                f"{decoder.root}: the node {host} does not see {path} there. Put the raw folder on storage that all nodes see "
                "under one path, or leave --address out to decode on this machine."
            )
    return Decoded(made.pixels, made.lost)
