"""Published weights from a local file: checked by SHA-256, read without executing anything, loaded wholly or not at all.

Of the SHA-256 its first eight digits will do, which the names of torchvision's files have and torch's own downloads are
checked by. They tell files apart by chance, not by intent; a file of tensors can do no more than be a bad start.
"""

from __future__ import annotations

import dataclasses
import hashlib
import io
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from marginlab.values import InputError

_DIGITS = re.compile(r"[0-9a-f]{8,64}")


def check_weights(owner: str, weights: str | None, sha256: str | None) -> None:
    if weights is not None and sha256 is None:
        raise InputError(
            f"{owner}.weights is {weights!r} without its sha256: a path does not say what is in the file. Add "
            "sha256='...', as printed by `sha256sum`."
        )
    if sha256 is not None and not _DIGITS.fullmatch(sha256.strip().lower()):
        raise InputError(
            f"{owner}.sha256 is {sha256!r}: give the file's SHA-256, or at least its first eight hexadecimal digits."
        )


def unweighted(configuration: Any) -> Any:
    """The same with networks that begin at random where published weights were asked for: they take no file, and as long."""
    if isinstance(configuration, tuple):
        return tuple(unweighted(v) for v in configuration)
    if not dataclasses.is_dataclass(configuration) or isinstance(configuration, type):
        return configuration
    own = {f.name: getattr(configuration, f.name) for f in dataclasses.fields(configuration)}
    new = {name: unweighted(v) for name, v in own.items()}
    if {"weights", "sha256"} <= new.keys():
        new |= {"weights": None, "sha256": None}
    changed = {name: v for name, v in new.items() if v != own[name]}
    return dataclasses.replace(configuration, **changed) if changed else configuration


def files_of(configuration: Any) -> set[str]:
    """The files of published weights that a configuration begins from."""
    if isinstance(configuration, tuple):
        return {file for v in configuration for file in files_of(v)}
    if not dataclasses.is_dataclass(configuration) or isinstance(configuration, type):
        return set()
    own = {f.name: getattr(configuration, f.name) for f in dataclasses.fields(configuration)}
    mine = {own["weights"]} if {"weights", "sha256"} <= own.keys() and own["weights"] is not None else set()
    return mine | {file for v in own.values() for file in files_of(v)}


def read_weights(owner: str, path: str, sha256: str) -> Mapping[str, Tensor]:
    """The state dict in a file whose SHA-256 is as expected. Nothing in the file is executed."""
    file = Path(path).expanduser()
    if not file.is_file():
        raise InputError(
            f"{owner}.weights: there is no file {path!r} on this machine; put it where every worker sees it."
        )
    content = file.read_bytes()
    found = hashlib.sha256(content).hexdigest()
    if not found.startswith(sha256.strip().lower()):
        raise InputError(
            f"{owner}.weights: {path!r} has SHA-256 {found}, not the expected {sha256}: it is another file."
        )
    try:
        state = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except Exception as e:
        raise InputError(f"{owner}.weights: {path!r} is not a file of tensors that torch can read safely: {e}") from e
    if not isinstance(state, Mapping) or not all(isinstance(v, Tensor) for v in state.values()):
        raise InputError(f"{owner}.weights: {path!r} is not a state dict, a mapping from parameter names to tensors.")
    return state


def load_all_but(
    backbone: nn.Module, state: Mapping[str, Tensor], source: str, *, owner: str, kind: str, head: str, first: str
) -> None:
    """Copy a state dict's weights, all but the head (by its names' start) and a first convolution for other channels.

    Every other parameter must be there with its shape, and nothing else: a partly loaded network trains, badly.
    """
    own = backbone.state_dict()
    fresh = {k for k in own if k.startswith(head)}
    if first in state and state[first].shape[1] != own[first].shape[1]:
        fresh.add(first)
    given = {k: v for k, v in state.items() if k not in fresh and not k.startswith(head)}
    needed = {k for k in own if k not in fresh}
    counters = {k for k in needed if k.endswith("num_batches_tracked")}  # torchvision's older files lack them
    missing, surplus = needed - counters - set(given), set(given) - needed
    misshapen = {k for k in needed & set(given) if own[k].shape != given[k].shape}
    faults = {"misses": missing, "has the unknown": surplus, "has other shapes for": misshapen}
    told = [f"{what} {_some(keys)}" for what, keys in faults.items() if keys]
    if told:
        raise InputError(f"{owner}.weights: {source!r} is not {kind}: it {'; it '.join(told)}.")
    backbone.load_state_dict({**own, **given})


def _some(keys: set[str]) -> str:
    names = sorted(keys)
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
