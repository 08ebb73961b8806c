"""A few processes joined by gloo that stay up and run one function after another, each on all ranks at once.

    def case(scale):              # top level of a module in this folder that is not a test module: the ranks import it
        return distributed.total(torch.tensor(scale)).item()

    assert ranks.run(case, 3.0) == [6.0, 6.0]        # results in rank order; they travel by pickle

A case that raises on any rank fails the caller with the traceback. All ranks are then killed, for a collective that lost a
partner waits for it, and the next case starts new ones.
"""

from __future__ import annotations

import multiprocessing
import time
import traceback
from collections.abc import Callable
from datetime import timedelta
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

TIMEOUT = 120.0  # seconds a case may take, start of the processes included


class Ranks:
    def __init__(self, folder: Path, world: int) -> None:
        self.folder, self.world = folder, world
        self.starts = 0
        self.processes: list[BaseProcess] = []
        self.pipes: list[Connection] = []

    def run(self, function: Callable[..., Any], *args: Any) -> list[Any]:
        """``function(*args)`` on every rank; its results in rank order."""
        if not self.processes:
            self._start()
        for pipe in self.pipes:
            pipe.send((function, args))
        results: dict[int, Any] = {}
        faults: list[str] = []
        deadline = time.monotonic() + TIMEOUT
        while len(results) < self.world:
            silent = {self.pipes[i]: i for i in range(self.world) if i not in results}
            ready = wait(list(silent), max(0.0, deadline - time.monotonic()))
            for pipe in ready:
                fault, results[silent[pipe]] = _received(pipe)  # type: ignore[index, arg-type]
                if fault:
                    faults.append(fault)
                    deadline = min(deadline, time.monotonic() + 1)  # the others may have the same to say
            if not ready:
                faults += [f"rank {i} gave no answer" for i in silent.values()]
                break
        if faults:
            self.close()
            raise AssertionError(f"{function.__name__} failed:\n" + "\n".join(faults))
        return [results[rank] for rank in range(self.world)]

    def _start(self) -> None:
        context = multiprocessing.get_context("spawn")  # a fork would copy the locks of torch's threads
        self.starts += 1
        store = str(
            self.folder / f"store-{self.starts}"
        )  # a file, so that no port can be taken; each group needs a new one
        for rank in range(self.world):
            here, there = context.Pipe()
            process = context.Process(target=_serve, args=(there, store, rank, self.world), daemon=True)
            process.start()
            there.close()
            self.processes.append(process)
            self.pipes.append(here)

    def close(self) -> None:
        for process in self.processes:
            process.kill()
            process.join()
        for pipe in self.pipes:
            pipe.close()
        self.processes, self.pipes = [], []


def _received(pipe: Connection) -> tuple[str, Any]:
    try:
        return pipe.recv()  # type: ignore[no-any-return]
    except EOFError:
        return "a rank's process ended without an answer", None


def _serve(pipe: Connection, store: str, rank: int, world: int) -> None:
    """The life of a rank: answer every (function, args) with (traceback or "", result)."""
    import torch
    import torch.distributed as dist

    torch.set_num_threads(1)
    patience = timedelta(seconds=TIMEOUT)
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=world, timeout=patience)
    while True:
        try:
            function, args = pipe.recv()
        except EOFError:  # the test session is over
            return
        try:
            answer = "", function(*args)
        except Exception:
            answer = f"rank {rank}: {traceback.format_exc()}", None
        pipe.send(answer)
