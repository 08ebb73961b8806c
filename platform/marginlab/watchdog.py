"""Ranks that watch one another: who is silent, or keeps the others waiting for too long, is named, and the group ends.

Nothing in torch or Ray notices a rank that is stopped, cut off or stuck before a collective: the others wait in it until its
timeout, which names nobody.
"""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from datetime import timedelta
from typing import Any

from torch.distributed import DistError, TCPStore  # type: ignore[attr-defined]

from marginlab.pulse import PULSE, Pulse


@dataclass(frozen=True)
class Beat:
    """What a rank says of itself about once a second."""

    rank: int
    host: str
    number: int  # of the beat: one that does not grow comes from a process that is not there
    entered: int
    waiting: bool
    excused: int
    place: str

    @classmethod
    def of(cls, rank: int, number: int, pulse: Pulse) -> Beat:
        return cls(rank, os.uname().nodename, number, **asdict(pulse))

    def __str__(self) -> str:
        return f"Rank {self.rank} on {self.host}" + (f", last in {self.place}," if self.place else "")


@dataclass
class Judge:
    """Remembers when each rank's beat, and its work, last changed on this process's own clock."""

    limit_s: float
    heard: dict[int, tuple[int, float]] = field(default_factory=dict)  # rank -> number of its beat, since when
    moved: dict[int, tuple[Any, float]] = field(default_factory=dict)  # rank -> what it does, since when
    last: dict[int, Beat] = field(default_factory=dict)

    def verdict(self, beats: list[Beat], now: float) -> str:
        """A sentence that names the rank at fault, or nothing.

        Args:
            beats: of all ranks, as rank 0 has them now; none while rank 0 does not answer, through whom all are heard.
            now: seconds of a clock that is never set back.
        """
        for beat in beats:
            self.last[beat.rank] = beat
            if self.heard.get(beat.rank, (None, 0.0))[0] != beat.number:
                self.heard[beat.rank] = beat.number, now
            work = beat.entered, beat.waiting, beat.excused
            if self.moved.get(beat.rank, (None, 0.0))[0] != work:
                self.moved[beat.rank] = work, now
        silent = {r: now - since for r, (_, since) in self.heard.items() if beats or r == 0}
        if max(silent.values()) >= self.limit_s:
            return self._silent(max(silent, key=lambda r: silent[r]), now)
        if not beats:
            return ""
        still = min((now - since for _, since in self.moved.values()), default=0.0)
        ranks = self.last.values()
        least, most = min(b.entered for b in ranks), max(b.entered for b in ranks)
        waited = least < most or any(b.waiting for b in ranks)
        if still < self.limit_s or not waited or any(b.excused for b in ranks):
            return ""
        behind = [b for b in ranks if b.entered == least and not b.waiting] or [b for b in ranks if b.entered == least]
        if len(behind) == len(self.last):
            where = ", ".join(f"{b.rank} on {b.host}" for b in behind)
            return (
                f"All ranks ({where}) waited {self.limit_s:.0f} s for one another: what is between their hosts fails."
            )
        if silent[behind[0].rank] >= self.limit_s / 2:
            return self._silent(behind[0].rank, now)
        return f"{behind[0]} kept the others waiting for {self.limit_s:.0f} s."

    def _silent(self, rank: int, now: float) -> str:
        seconds = now - self.heard[rank][1]
        return f"{self.last[rank]} was not heard from for {seconds:.0f} s: its process is stopped, or its host cut off."


class Watch:
    """For the length of a ``with``: a thread that beats, listens to the other ranks' beats, and ends this process.

    Args:
        address: of rank 0's host, as the others reach it, and the port of its store.
        server: rank 0's own store, which all others connect to.
        ending: called with the sentence before the process ends.
    """

    def __init__(
        self,
        rank: int,
        world: int,
        address: tuple[str, int],
        limit_s: float,
        ending: Callable[[str], None],
        server: TCPStore | None = None,
        end: Callable[[int], Any] = os._exit,
        pulse: Pulse = PULSE,
    ) -> None:
        self.rank, self.world, self.address, self.ending, self.end = rank, world, address, ending, end
        self.judge, self.server, self.pulse = Judge(limit_s), server, pulse
        self.every_s = min(1.0, limit_s / 10)
        self.over = threading.Event()
        self.heard: list[Beat] = []  # by the last talk with rank 0, until they are judged
        self.thread = threading.Thread(target=self._judge, name="watchdog", daemon=True)

    def __enter__(self) -> Watch:
        # Whoever never says a word is silent from now on.
        now = time.monotonic()
        for rank in range(self.world):
            self.judge.heard[rank] = -1, now
            self.judge.last[rank] = Beat(rank, "its host", -1, 0, False, 0, "")
        # A thread of its own: a process that is stopped leaves whoever asks it something without an answer, for ever.
        threading.Thread(target=self._talk, name="heartbeat", daemon=True).start()
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.over.set()
        self.thread.join(2 * self.every_s)

    def _talk(self) -> None:
        store, number = self.server, 0
        while not self.over.wait(self.every_s):
            number += 1
            try:
                store = store or _connect(self.address, self.judge.limit_s)
                store.set(f"beat/{self.rank}", json.dumps(asdict(Beat.of(self.rank, number, self.pulse))))
                keys = [k for r in range(self.world) if store.check([k := f"beat/{r}"])]
                self.heard = [Beat(**json.loads(b)) for b in store.multi_get(keys)]
            except (DistError, RuntimeError, OSError):  # rank 0 is gone, or cannot be reached
                store = self.server

    def _judge(self) -> None:
        while not self.over.wait(self.every_s):
            heard, self.heard = self.heard, []
            if (sentence := self.judge.verdict(heard, time.monotonic())) and not self.over.is_set():
                with suppress(Exception):  # whatever hinders the last words
                    self.ending(sentence)
                self.end(1)
                return


def serve(limit_s: float) -> TCPStore:
    """A store on a free port of this host (``.port``)."""
    return TCPStore("0.0.0.0", 0, is_master=True, wait_for_workers=False, timeout=timedelta(seconds=max(limit_s, 1.0)))


def _connect(address: tuple[str, int], timeout_s: float) -> TCPStore:
    host, port = address
    return TCPStore(host, port, is_master=False, wait_for_workers=False, timeout=timedelta(seconds=max(timeout_s, 1.0)))
