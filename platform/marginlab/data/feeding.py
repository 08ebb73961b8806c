"""The pixels of a training, where it trains: from the page cache, from a GPU's own memory, or on their way to it in time.

Whatever the way, the batches are the same, byte for byte: this is how they come, and outside every fingerprint. Shapes: ``B``
images of a batch, ``C`` channels, ``S`` pixels per side as stored.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from torch import Tensor

from marginlab.data.subset import Subset
from marginlab.values import InputError

CACHES = ("auto", "device", "host")
SHARE = 0.5  # of a GPU's free memory that images may fill: the rest is for activations
PIECE = 2**26  # bytes that are copied to a GPU at once when a subset moves there


def check_cache(owner: str, cache: str) -> None:
    if cache not in CACHES:
        raise InputError(f"{owner} must be one of {', '.join(map(repr, CACHES))}, not {cache!r}.")


def free_bytes(device: torch.device) -> int:
    """Memory of the device that nobody has, 0 on a CPU: there the page cache is already the nearest place for pixels."""
    return int(torch.cuda.mem_get_info(device)[0]) if device.type == "cuda" else 0


class Feed:
    """Batches of one subset on a device, uint8 [B, C, S, S].

    ``cache`` says where pixels wait for a GPU. ``"device"``: in its memory, copied there once. ``"host"``: in the page
    cache; while the GPU is at work on a batch, a thread gathers the next one into pinned memory and a stream of its own
    copies it. ``"auto"``: on the device if the subset fills at most half of what is free there now. On a CPU all three mean a
    gather from the page cache.
    """

    def __init__(self, subset: Subset, device: torch.device, cache: str = "auto") -> None:
        check_cache("cache", cache)
        if len(subset) and not 0 <= subset.rows.min() <= subset.rows.max() < len(subset.pixels):
            raise InputError(
                f"A subset names image {subset.rows.max()}, but there are {len(subset.pixels)}: prepare the dataset again."
            )
        self.subset, self.device = subset, device
        self.kept: Tensor | None = None  # uint8 [n, C, S, S] on the device
        if _keeps(self.bytes, device, cache):
            self.kept = self._moved()

    @property
    def bytes(self) -> int:
        """Of the subset's images."""
        return len(self.subset) * self._image_bytes

    def batches(self, plan: Sequence[np.ndarray] | np.ndarray) -> Iterator[Tensor]:
        """The images at these positions of the subset, batch after batch.

        A batch is valid until the next one is asked for: on a CPU the next takes its place, for new memory costs as much
        time as the pixels in it.

        Args:
            plan: int64 [B] for each batch.
        """
        if self.kept is not None:
            return self._from_device(self.kept, plan)
        return self._ahead(plan) if self.device.type == "cuda" else self._gathered(plan)

    def gather(self, positions: np.ndarray, out: np.ndarray) -> None:
        """From the page cache into ``out`` [B, C, S, S]."""
        # "clip" writes to `out` at once, "raise" through a copy; rows were checked when this was made
        np.take(self.subset.pixels, self.subset.rows[positions], axis=0, out=out, mode="clip")

    def _gathered(self, plan: Sequence[np.ndarray] | np.ndarray) -> Iterator[Tensor]:
        room = np.empty((max(map(len, plan), default=0), *self._shape), np.uint8)
        for positions in plan:
            batch = room[: len(positions)]
            self.gather(positions, batch)
            yield torch.from_numpy(batch)

    def _from_device(self, kept: Tensor, plan: Sequence[np.ndarray] | np.ndarray) -> Iterator[Tensor]:
        whole = torch.from_numpy(np.concatenate([*plan, np.empty(0, np.int64)]))
        if self.device.type == "cuda":  # one copy for all batches, so that none of them waits for its own
            whole = whole.pin_memory().to(self.device, non_blocking=True)
        for positions in torch.split(whole, [len(p) for p in plan]):
            yield kept.index_select(0, positions)

    def _ahead(self, plan: Sequence[np.ndarray] | np.ndarray) -> Iterator[Tensor]:
        stream = torch.cuda.Stream(self.device)  # type: ignore[no-untyped-call]

        def send(positions: np.ndarray) -> tuple[Tensor, torch.cuda.Event]:
            pinned = torch.empty(
                (len(positions), *self._shape), dtype=torch.uint8, pin_memory=True
            )  # torch keeps a pool
            self.gather(positions, pinned.numpy())
            with torch.cuda.stream(stream):
                there = pinned.to(self.device, non_blocking=True)
                return there, stream.record_event()

        with ThreadPoolExecutor(1) as thread:
            todo = [thread.submit(send, positions) for positions in plan[:1]]
            for following in range(1, len(plan) + 1):
                batch, arrived = todo.pop().result()
                if following < len(plan):
                    todo.append(thread.submit(send, plan[following]))
                current = torch.cuda.current_stream(self.device)
                current.wait_event(arrived)
                batch.record_stream(current)  # its memory is not given to a later copy before this batch is done with
                yield batch

    def _moved(self) -> Tensor:
        kept = torch.empty((len(self.subset), *self._shape), dtype=torch.uint8, device=self.device)
        step = max(1, PIECE // self._image_bytes)
        starts = np.arange(0, len(self.subset), step)
        for start, batch in zip(
            starts, self._gathered(np.split(np.arange(len(self.subset)), starts[1:])), strict=False
        ):
            kept[start : start + len(batch)].copy_(batch)
        return kept

    @property
    def _shape(self) -> tuple[int, ...]:
        return tuple(self.subset.pixels.shape[1:])

    @property
    def _image_bytes(self) -> int:
        return int(np.prod(self._shape))


def _keeps(size: int, device: torch.device, cache: str) -> bool:
    """Whether so many bytes go to the device's memory."""
    free = free_bytes(device)
    if cache == "device" and device.type == "cuda" and size > free:
        raise InputError(
            f"cache='device' asks for {size / 1e9:.1f} GB on a GPU that has {free / 1e9:.1f} GB free: say cache='auto'."
        )
    return size <= SHARE * free if cache == "auto" else cache == "device" and device.type == "cuda"
