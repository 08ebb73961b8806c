"""How many similarities are held at a time: what suits the device, and less where less is free."""

from __future__ import annotations

from pathlib import Path

import torch

SUITS = {"cpu": 2**25, "cuda": 2**28}  # bytes: the processor's cache, and a small part of a GPU
_SHARE = {"cpu": 4, "cuda": 16}  # of what is free, one block takes this part at most: sorting needs copies of it


def block_bytes(device: torch.device) -> int:
    """Bytes of float32 similarities for one block on ``device``."""
    kind = "cuda" if device.type == "cuda" else "cpu"
    return min(SUITS[kind], free_bytes(device) // _SHARE[kind])


def free_bytes(device: torch.device) -> int:
    """What this process could still take on ``device``; where the system does not say, more than anything needs."""
    if device.type == "cuda":
        cached = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return int(torch.cuda.mem_get_info(device)[0] + cached)
    return min(_system(), _container())


def _system(meminfo: Path = Path("/proc/meminfo")) -> int:
    try:
        line = next(x for x in meminfo.read_text().splitlines() if x.startswith("MemAvailable:"))
        return int(line.split()[1]) * 1024
    except (OSError, StopIteration, ValueError):
        return 2**62


def _container(folder: Path = Path("/sys/fs/cgroup")) -> int:
    """What a container's own limit leaves (cgroup v2); files that it has read can be dropped again and count as free."""
    try:
        limit = int((folder / "memory.max").read_text())
        used = int((folder / "memory.current").read_text())
        lines = (folder / "memory.stat").read_text().splitlines()
        droppable = sum(int(x.split()[1]) for x in lines if x.startswith("inactive_file "))
        return max(0, limit - used + droppable)
    except (OSError, ValueError):  # no container, or "max": no limit
        return 2**62
