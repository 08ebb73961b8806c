"""Whether a machine that a run trains on was announced to be taken away: a spot machine that its owner wants back.

Whoever hears of it tells Ray (``ray drain-node``). Ray starts nothing new there, and the run is
kept within its epoch, so that it loses seconds and not the epoch when the machine goes.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import ray
import torch.distributed as dist

from marginlab import distributed

LOOK_S = 2.0  # a notice comes two minutes ahead


def nodes_of_group() -> set[str]:
    """Ids of the nodes that the ranks of this group are on. All ranks call it together."""
    own = ray.get_runtime_context().get_node_id()
    if not distributed.is_distributed():
        return {own}
    found: list[str | None] = [None] * distributed.world()
    dist.all_gather_object(found, own)
    return {str(node) for node in found}


class Leaving:
    """Called, it says whether one of these nodes is about to go. A thread looks now and then; a batch waits for nothing."""

    def __init__(self, nodes: set[str]) -> None:
        self.nodes, self.announced, self.over = nodes, False, threading.Event()

    def __call__(self) -> bool:
        return self.announced

    def look(self) -> None:
        while not self.over.wait(LOOK_S):
            with suppress(Exception):  # a head that does not answer now may do so in two seconds
                self.announced = not self.nodes.isdisjoint(ray._private.state.state.get_draining_nodes())


@contextmanager
def looking(nodes: set[str]) -> Iterator[Leaving]:
    """For the length of the block; on rank 0 alone, which is the one that keeps a run."""
    leaving = Leaving(nodes)
    if distributed.rank() == 0:
        threading.Thread(target=leaving.look, daemon=True).start()
    try:
        yield leaving
    finally:
        leaving.over.set()
