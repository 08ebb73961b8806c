"""Embeddings in Parquet files, ranked without loading them: a run's own, or those of several models of the same images.

The files are those of :func:`marginlab.runs.write_embeddings`. What is small is read at once (row, label, months, role); the
embeddings come a piece at a time, whatever the files' row groups are.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import polars as pl
import pyarrow.parquet as pq
import torch
from torch import Tensor

from marginlab.retrieval import Ranking, concatenate
from marginlab.retrieval.memory import free_bytes
from marginlab.runs import roles
from marginlab.values import InputError

_ROWS = 2**14  # embeddings read at a time: 8 MiB at D = 128
_SMALL = ("row", "label", "months")


@dataclass(frozen=True, eq=False)
class Stored:
    """The embeddings of the same images in the same order, one file per model; together they are one ensemble."""

    paths: tuple[Path, ...]
    frame: pl.DataFrame  # row (of the packed dataset), label, months, role where it was kept; one line per image

    @classmethod
    def open(cls, *paths: Path | str) -> Stored:
        if not paths:
            raise InputError("Stored.open needs at least one Parquet file of embeddings.")
        files = tuple(Path(p) for p in paths)
        frames = [_small(p) for p in files]
        for path, frame in zip(files[1:], frames[1:], strict=True):
            if not frame.select("row", "label").equals(frames[0].select("row", "label")):
                raise InputError(f"{path} and {files[0]} hold different images, or the same in another order.")
        return cls(files, frames[0])

    def __len__(self) -> int:
        return len(self.frame)

    def pieces(self, keep: np.ndarray, rows: int = _ROWS) -> Iterator[Tensor]:
        """The embeddings of the images where ``keep`` (bool [n]) holds, at most ``rows`` at a time: [g, D] of all models."""
        readers = [_read(p, rows) for p in self.paths]
        begin = 0
        for pieces in zip(*readers, strict=True):
            joined = torch.from_numpy(pieces[0]) if len(pieces) == 1 else concatenate(pieces)
            end = begin + len(joined)
            yield joined[torch.from_numpy(keep[begin:end])]
            begin = end

    def roles(self, protocol: Literal["test", "validation"]) -> tuple[np.ndarray, np.ndarray]:
        """Which images are queries and which are the gallery, bool [n] each.

        ``test``: later visits look for first visits (``runs.roles``). ``validation``: every image looks for all others.
        """
        if protocol == "validation":
            return np.ones(len(self), dtype=bool), np.ones(len(self), dtype=bool)
        if protocol != "test":
            raise InputError(f"The protocol is 'test' or 'validation', not {protocol!r}.")
        return roles(self.frame)

    def ranking(
        self,
        protocol: Literal["test", "validation"] = "test",
        *,
        gain: np.ndarray | None = None,
        device: torch.device | str = "cpu",
        rows: int = _ROWS,
        queries: int | None = None,
    ) -> Ranking:
        """Rank by the published protocols, the same visit excluded. Queries and gallery are in the order of the file.

        Args:
            gain: see :meth:`Ranking.of`.
            rows: embeddings read at a time.
            queries: held in memory at a time, for each of which the gallery is read twice; by default what a quarter of the
                free memory holds.
        """
        query, gallery = self.roles(protocol)
        label = self.frame["label"].to_numpy()
        visit = visits(label, self.frame["months"].to_numpy())

        def parts() -> Iterator[Tensor]:
            return self.pieces(gallery, rows)

        done, found = 0, []
        own = np.flatnonzero(query)
        for q in _gathered(self.pieces(query, rows), queries):
            mine = own[done : done + len(q)]
            found.append(
                Ranking.of_parts(
                    q.to(device), parts, label[mine], label[gallery], visit[mine], visit[gallery], gain=gain
                )
            )
            done += len(q)
        if not found:
            raise InputError(f"{self.paths[0]} has no query under the {protocol} protocol.")
        return Ranking.join(found)


def visits(label: np.ndarray, months: np.ndarray) -> np.ndarray:
    """Equal codes for images of one label and one month, int64 [n]; an image of unknown month is a visit of its own."""
    month = np.where(np.isnan(months), -1.0 - np.arange(len(months)), months)
    pairs = np.stack([label, month], axis=1)
    return np.asarray(np.unique(pairs, axis=0, return_inverse=True)[1].reshape(-1))


def _small(path: Path) -> pl.DataFrame:
    if not path.is_file():
        raise InputError(f"{path}: there is no such file of embeddings.")
    try:
        names = pl.read_parquet_schema(path)
        missing = [name for name in (*_SMALL, "embedding") if name not in names]
        if missing:
            raise InputError(f"{path}: the column {missing[0]!r} is missing, so these are no embeddings of a run.")
        return pl.read_parquet(path, columns=[*_SMALL, *(["role"] if "role" in names else [])])
    except pl.exceptions.PolarsError:
        raise InputError(f"{path}: the file is damaged.") from None


def _read(path: Path, rows: int) -> Iterator[np.ndarray]:
    """float32 [rows, D] at a time, the last piece shorter; row groups of any size."""
    held: list[np.ndarray] = []
    with pq.ParquetFile(path, buffer_size=2**20, pre_buffer=False) as file:
        for batch in file.iter_batches(batch_size=rows, columns=["embedding"], use_threads=False):
            column = batch.column(0)
            if column.null_count:
                raise InputError(f"{path}: an image has no embedding.")
            values = column.flatten().to_numpy(zero_copy_only=False).astype(np.float32, copy=False)
            held.append(values.reshape(len(column), -1))
            if sum(map(len, held)) >= rows:
                whole = np.concatenate(held)
                yield whole[:rows]
                held = [whole[rows:]]
    rest = np.concatenate(held) if held else np.empty((0, 0), dtype=np.float32)
    if len(rest):
        yield rest


def _gathered(pieces: Iterator[Tensor], rows: int | None) -> Iterator[Tensor]:
    """Pieces joined until they hold about ``rows``."""
    held: list[Tensor] = []
    for piece in pieces:
        if not len(piece):
            continue
        held.append(piece)
        most = rows or max(1, free_bytes(torch.device("cpu")) // 4 // (4 * piece.shape[1]))
        if sum(map(len, held)) >= most:
            yield torch.cat(held)
            held = []
    if held:
        yield torch.cat(held)
