"""A GPU that fails is not the failure of the runs that it is given."""

from __future__ import annotations

import torch


class DeviceFails(RuntimeError):
    """A GPU that Ray goes on to offer does nothing any more: whatever runs it is given would fail, one after another."""


def require(device: torch.device) -> None:
    """Raise DeviceFails where nothing can be computed on it."""
    try:
        torch.ones(1, device=device).sum().item()
    except (RuntimeError, AssertionError) as e:  # the latter of a torch without CUDA
        raise DeviceFails(f"{device} does nothing any more ({str(e).strip().splitlines()[0]})") from e


def of_device(e: Exception) -> bool:
    """Whether it is an error of CUDA's, but for that a run needs more memory than there is."""
    return isinstance(e, torch.AcceleratorError) or (
        isinstance(e, RuntimeError) and "CUDA" in str(e) and not isinstance(e, torch.OutOfMemoryError)
    )
