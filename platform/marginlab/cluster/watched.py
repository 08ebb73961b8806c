"""The watchdog of a worker group: its ranks watch one another, and what they find is written where people look."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import ray.util

from marginlab import distributed, faults
from marginlab.files import write_text
from marginlab.runs import RunFolder
from marginlab.watchdog import Watch, serve


@contextmanager
def watched(config: dict[str, Any]) -> Iterator[None]:
    """For the length of the block, on all ranks: one that stands still ends the group, which Ray Train starts again."""
    rank, limit_s = distributed.rank(), float(config["stalled_s"])
    if not distributed.is_distributed():
        yield
        return
    server = serve(limit_s) if rank == 0 else None
    own = (str(ray.util.get_node_ip_address()), server.port) if server else None  # type: ignore[no-untyped-call]
    address = distributed.broadcast_object(own)
    assert address is not None  # rank 0 has one

    def ending(sentence: str) -> None:
        with suppress(OSError):
            at_work = next((f for f in map(Path, config["folders"]) if RunFolder.open(f).result() is None), None)
            if at_work is not None:
                write_text(at_work / "error.txt", sentence + "\n", patient=False)
        faults.note(Path(config["study"]), sentence)

    with Watch(rank, distributed.world(), address, limit_s, ending, server):
        yield
