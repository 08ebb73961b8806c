"""The run folder: the truth of one run. Everything else (MLflow, tables, reports) is derived from such folders.

    run.json                 what is trained, and its place in the study (labels)
    epochs.jsonl             a row per epoch: {"epoch", "time", metrics...}; epoch 0 is the untrained network
    last.safetensors         network, optimiser, margin, what the loss carries, and the epoch: where a resumed run goes on
    partway.safetensors      the same within the epoch after it, where that is a long one, or its machine is about to go
    best.safetensors         the network at its best epoch
    embeddings/*.parquet     validation: at the best epoch; test: of the best network, in confirmation alone
    next.*                   the same two of an epoch that is not kept yet
    owner.json               the process that writes all this, and what it trains on
    result.json              how it ended; a run without it is unfinished

The checkpoint is the commit point of an epoch: it carries the epoch's row, and rows beyond it are trained again. So the best network
changes after it: an epoch that is trained again need not be as good again where sums round differently, as on GPUs.
"""

from __future__ import annotations

import io
import json
import math
import os
import secrets
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import polars as pl
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save
from torch import Tensor

from marginlab import bucket, usercode
from marginlab.data.subset import Subset
from marginlab.files import (
    append_line,
    patiently,
    read_json,
    read_lines,
    remove,
    rename,
    write_bytes,
    write_json,
    write_text,
)
from marginlab.training import Run
from marginlab.values import InputError, from_json, to_json

ATTEMPTS = 3  # starts of one run in one session that got it no further
OWNER = "owner.json"
PARTWAY = "partway.safetensors"
LAST = "last.safetensors"
BEST = "best.safetensors"
NEXT = {
    "next.parquet": "embeddings/validation.parquet",
    "next.safetensors": BEST,
}  # in this order: the weights know their epoch
HEAVY = (LAST, PARTWAY, *NEXT)  # what only whoever trains the run needs
PARTWAY_S = 600.0  # of training between two of them: what a crash can cost of a long epoch
LEAVING_S = 5.0  # the same on a machine that is about to go
OBJECTIVE = "val/map"  # what a run's best epoch is chosen by, as published


@dataclass
class RunFolder:
    """One run on disk. Made with :meth:`create`, which returns an existing folder of the same run as it is."""

    path: Path
    run: Run
    labels: dict[str, Any] = field(default_factory=dict)  # kind, arm, margin_policy, replicate, trial ...

    @classmethod
    def create(cls, path: Path, run: Run, labels: dict[str, Any]) -> RunFolder:
        if not (path / "run.json").exists():
            write_json(path / "run.json", {"id": run.id, "run": to_json(run), "labels": labels})
        folder = cls.open(path)
        if folder.run.id != run.id:
            raise InputError(
                f"{path} holds the run {folder.run.id}, not {run.id}: move it away, or give the study a new name."
            )
        return folder

    @classmethod
    def open(cls, path: Path) -> RunFolder:
        record = read_json(path / "run.json")
        usercode.use(path)
        return cls(path, from_json(record["run"]), record["labels"])

    def epochs(self) -> list[dict[str, Any]]:
        """Rows by epoch, ascending. A row that was written twice (around a kill) counts once, the last."""
        return [row for _, row in sorted({r["epoch"]: r for r in read_lines(self.path / "epochs.jsonl")}.items())]

    def result(self) -> dict[str, Any] | None:
        path = self.path / "result.json"
        return read_json(path) if path.exists() else None

    def embeddings(self, part: str) -> pl.DataFrame | None:
        path = self.path / "embeddings" / f"{part}.parquet"
        return pl.read_parquet(path) if path.exists() else None

    def checkpoint(self) -> dict[str, Tensor] | None:
        """What a resumed run goes on from, or None where no epoch was finished."""
        path = self.path / LAST
        if not path.exists():
            return None
        return load_file(self.path / PARTWAY if self.partway() else path)

    def partway(self) -> int:
        """How many batches of the epoch after the last whole one were trained and kept."""
        whole, part = self.path / LAST, self.path / PARTWAY
        if not (whole.exists() and part.exists()):
            return 0
        note = _note(part)
        return int(note["step"]) if note["epoch"] == _note(whole)["epoch"] + 1 else 0

    def begin_attempt(self, session: str) -> int:
        """Count a session's starts since the run last got any further, this one included.

        A run that kills its processes is found out by it; one whose user stops the study again and again is not counted.
        """
        path = self.path / "attempts.json"
        place = {"session": session, "epoch": max([0, *(r["epoch"] for r in self.epochs())]), "batches": self.partway()}
        before = read_json(path) if path.exists() else {}
        count = before["count"] + 1 if place.items() <= before.items() else 1
        write_json(path, {**place, "count": count})
        return int(count)

    @property
    def begun(self) -> bool:
        return (self.path / "attempts.json").exists()

    def last_error(self) -> str:
        """The last line of what went wrong, for a sentence; empty where a process left no word."""
        path = self.path / "error.txt"
        return f", last with {path.read_text().strip().splitlines()[-1]}" if path.exists() else ""

    def best_weights(self) -> tuple[dict[str, Tensor], int]:
        """The best network's weights and its epoch."""
        path = self.path / BEST
        return load_file(path), int(_note(path)["epoch"])


class Kept(Protocol):
    """What is kept of an epoch: a ``training.State``, or a simulated one, which has no embeddings."""

    @property
    def embeddings(self) -> Tensor | None: ...

    @property
    def subset(self) -> Subset | None: ...

    def weights(self) -> dict[str, Tensor]: ...

    def tensors(self) -> dict[str, Tensor]: ...


class Superseded(RuntimeError):
    """Another process goes on with the run: this one was given up, as all are whose host was cut off, and must not write."""


class Recorder:
    """Writes one run's folder while it trains (rank 0). :meth:`epoch` is the part of ``report`` that keeps things.

    Who makes a recorder takes the folder over: one that was there before, on whatever host, adds no more epochs to it.

    Args:
        trained_on: ``{"device": "cuda" or "cpu", "workers": n, "threads": of each}``; ``"chunk"`` too where there is one. Who does
            not train leaves it out: what the folder knows of it stays.
    """

    def __init__(self, folder: RunFolder, trained_on: dict[str, Any] | None = None) -> None:
        self.folder = folder
        self.path = folder.path
        before = read_json(self.path / OWNER) if (self.path / OWNER).exists() else {}
        self.trained_on = trained_on or before.get("trained_on")
        self.owner = {
            "id": secrets.token_hex(8),
            "pid": os.getpid(),
            "host": os.uname().nodename,
            "trained_on": self.trained_on,
        }
        write_json(self.path / OWNER, self.owner)  # first: what is read next, nobody changes any more
        rows = folder.epochs()
        last = self.path / LAST
        if last.exists():
            row = _note(last)
            rows = [r for r in rows if r["epoch"] < row["epoch"]] + [row]
        else:
            rows = []
        self.rows = rows
        weights = self.path / "next.safetensors"
        if rows and weights.exists() and _note(weights)["epoch"] == rows[-1]["epoch"]:
            self._promote()
        for name in NEXT:  # of an epoch that will be trained again
            if (self.path / name).exists():
                patiently(partial(remove, self.path / name))
        write_text(self.path / "epochs.jsonl", "".join(json.dumps(r) + "\n" for r in rows))

    def _must_own(self) -> None:
        def read() -> dict[str, Any]:
            bucket.bring(self.path / OWNER)
            return dict(read_json(self.path / OWNER))

        if (owner := patiently(read)) != self.owner:
            raise Superseded(f"{self.path} is written by process {owner['pid']} on {owner['host']} by now.")

    @property
    def best(self) -> dict[str, Any] | None:
        """The row of the best epoch so far: the earliest of those with the highest objective."""
        scored = [r for r in self.rows if math.isfinite(r.get(OBJECTIVE, math.nan))]
        return max(scored, key=lambda r: (r[OBJECTIVE], -r["epoch"]), default=None)

    def epoch(self, epoch: int, metrics: dict[str, float], state: Kept) -> None:
        self._must_own()
        began = time.perf_counter()
        row: dict[str, Any] = {"epoch": epoch, "time": time.time(), **metrics}
        self.rows.append(row)
        if self.best is row:
            _save(self.path / "next.safetensors", state.weights(), {"epoch": epoch, OBJECTIVE: row[OBJECTIVE]})
            if state.embeddings is not None and state.subset is not None:
                write_embeddings(self.path / "next.parquet", state.embeddings, state.subset)
        # The checkpoint cannot time its own writing: it knows the seconds up to here, the row's last word adds the rest.
        row["time/checkpoint_s"] = time.perf_counter() - began
        _save(self.path / LAST, state.tensors(), row)
        if self.best is row:
            self._promote()
        append_line(self.path / "epochs.jsonl", row)
        with suppress(OSError):  # it is of no use any more, and does no harm
            (self.path / PARTWAY).unlink(missing_ok=True)

    def _promote(self) -> None:
        """What was written beside the checkpoint of a best epoch takes the place of the best epoch's before."""
        for name, place in NEXT.items():
            if (self.path / name).exists():
                patiently(partial(rename, self.path / name, self.path / place))

    def finish(self, state: str, reason: str = "", metrics: dict[str, float] | None = None) -> dict[str, Any]:
        """Mark the run as ended: ``complete``, ``pruned`` or ``failed`` (with a sentence)."""
        best = self.best
        result = {
            "state": state,
            "reason": reason,
            "epochs": self.rows[-1]["epoch"] if self.rows else 0,
            "best_epoch": best["epoch"] if best else None,
            "best": best[OBJECTIVE] if best else None,
            "last": self.rows[-1].get(OBJECTIVE) if self.rows else None,
            "time": time.time(),
            "test": metrics or {},
            **({"trained_on": self.trained_on} if self.trained_on else {}),
        }
        write_json(self.path / "result.json", result)
        return result


class Between:
    """Keeps a run between two batches (``fit``'s ``between``): now and then; at once when its machine is about to go, and often then."""

    def __init__(self, folder: Path, leaving: Callable[[], bool]) -> None:
        """leaving: whether it was announced that this machine will be taken away."""
        self.path, self.leaving, self.since = folder / PARTWAY, leaving, time.monotonic()
        self.announced = False

    def __call__(self, epoch: int, step: int, tensors: Callable[[], dict[str, Tensor]]) -> None:
        before, self.announced = self.announced, self.leaving()
        now = self.announced and not before
        if not now and time.monotonic() < self.since + (LEAVING_S if self.announced else PARTWAY_S):
            return
        with suppress(OSError):  # a full disk: the epoch goes on, its end waits for room
            _save(self.path, tensors(), {"epoch": epoch, "step": step}, patient=False)
        self.since = time.monotonic()


def _save(path: Path, tensors: dict[str, Tensor], note: dict[str, Any], patient: bool = True) -> None:
    # safetensors refuses tensors that share memory or are not contiguous, and writes several metadata in any order.
    whole = {k: v.detach().to("cpu", copy=True).contiguous() for k, v in tensors.items()}
    write_bytes(path, save(whole, metadata={"note": json.dumps(note)}), patient)


def _note(path: Path) -> dict[str, Any]:
    """What :func:`_save` wrote beside the tensors."""
    with safe_open(path, framework="pt") as f:
        return dict(json.loads(f.metadata()["note"]))


def write_embeddings(path: Path, embeddings: Tensor, subset: Subset) -> None:
    """Parquet with the packed row, the codes of label and subject, months, the role and the embedding (a fixed-size list of
    float32).

    Subsets that know no subjects, and files of before they were known, have no such column; nor had the latter roles.
    """
    subject = {} if subset.subject is None else {"subject": subset.subject}
    role = np.where(subset.gallery, "gallery", np.where(subset.query, "query", "other"))
    frame = pl.DataFrame(
        {
            "row": subset.rows,
            "label": subset.label,
            **subject,
            "months": subset.months,
            "role": role,
            "embedding": pl.Series(
                np.asarray(embeddings, dtype=np.float32), dtype=pl.Array(pl.Float32, embeddings.shape[1])
            ),
        }
    )
    whole = io.BytesIO()
    frame.write_parquet(whole)
    write_bytes(path, whole.getvalue())


def roles(frame: pl.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """Which images of embeddings are queries and which are the gallery of the test protocol, bool [n] each.

    Files of before roles were kept have the months alone: later visits look for first ones.
    """
    if "role" not in frame.columns:
        months = frame["months"].to_numpy()
        return months > 0, months == 0
    return (frame["role"] == "query").to_numpy(), (frame["role"] == "gallery").to_numpy()


def read_embeddings(frame: pl.DataFrame) -> Tensor:
    """The embeddings [n, D] of a frame written by :func:`write_embeddings`."""
    return torch.from_numpy(frame["embedding"].to_numpy().copy())
